import BridgeCore

/// A snapshot that a replication connection exported at a slot's consistent point. Readers join it, each in a session of
/// its own; it lasts as long as the connection.
actor PostgresSnapshot: SourceSnapshot {
    nonisolated let executor = ThreadExecutor(name: "pg-snapshot")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private nonisolated let connectionString: ConnectionString
    private nonisolated let link: LinkDescription
    /// After the export nothing is run on it: the next command would end the snapshot.
    private var stream: PostgresConnection?
    private var created: CreatedSlot?
    /// What the tables were when the capture was made.
    private var origin: CaptureOrigin?
    /// Whether a reader could not join, or found a table that the snapshot shows no more.
    private var isOutdated = false

    init(_ connectionString: ConnectionString, link: LinkDescription) {
        self.connectionString = connectionString
        self.link = link
    }

    /// Connects, and says what the server is.
    func connect() throws(BridgeError) -> SystemIdentity {
        let stream = try PostgresConnection(
            connectionString, purpose: .replication, applicationName: "bridge snapshot \(link.name)")
        self.stream = stream
        return try SystemIdentity(stream)
    }

    /// Makes a slot and exports the snapshot at its consistent point.
    /// - Parameter slot: nil for a slot of the snapshot's own, which goes with it. It is there for its point alone: an
    ///   ordinary snapshot has no place in the order of commits.
    func export(slot: String?, patience: Duration) throws(BridgeError) -> CreatedSlot {
        guard let stream else { throw BridgeError(.internalFault, "the snapshot is not connected") }
        let session = try PostgresConnection(connectionString, applicationName: "bridge snapshot \(link.name)")
        let created = try ReplicationSlots(session: session).create(
            slot ?? "bridge_copy_\(stream.backendProcess)", temporary: slot == nil, on: stream, patience: patience)
        self.created = created
        return created
    }

    func bind(to origin: CaptureOrigin) { self.origin = origin }

    func planParts(_ tables: [CopiedTable], partBytes: Int64) async throws(BridgeError) -> [[CopyPart]] {
        let session = try PostgresConnection(connectionString, applicationName: "bridge snapshot \(link.name)")
        do throws(BridgeError) {
            try SnapshotSession.join(try exported().snapshot, session)
        } catch {
            isOutdated = true
            throw error
        }
        return try PartPlanner(partBytes: partBytes).plan(tables, session)
    }

    func openTable(
        _ table: TableSchema, mapping: TableMapping, part: CopyPart, format: CopyFormat
    ) async throws(BridgeError) -> any CopyReader {
        let created = try exported()
        let columns = try CopyColumns(table, mapping)
        let reader = PostgresCopyReader(
            connectionString, position: Position(commit: created.consistentPoint), format: format, columns: columns)
        do throws(BridgeError) {
            try await reader.start(
                table, mapping: mapping, part: part, snapshot: created.snapshot, origin: origin,
                applicationName: "bridge copy \(link.name)")
        } catch {
            if await reader.needsNewSnapshot { isOutdated = true }
            throw error
        }
        return reader
    }

    private func exported() throws(BridgeError) -> CreatedSlot {
        guard stream != nil, let created else { throw BridgeError(.internalFault, "the snapshot was closed") }
        return created
    }

    /// Nothing is asked of the connection: that would end the snapshot.
    func isUsable() async -> Bool { !isOutdated && stream?.isAlive() == true }

    func close() async { stream = nil }
}

/// The columns that a copy reads, and how their values come.
struct CopyColumns: Sendable {
    let columns: [Relation.Column]

    /// Stored generated columns are left out: the target computes them itself.
    init(_ table: TableSchema, _ mapping: TableMapping) throws(BridgeError) {
        let readable = table.columns.filter { $0.generation == nil }
        if let missing = mapping.columns?.first(where: { name in !readable.contains { $0.name == name } }) {
            throw BridgeError(
                .configurationInvalid, "the column list names a column that the table lacks or computes",
                context: [.init(.table, table.name.description), .init(.column, missing)])
        }
        let key = Set(table.identity)
        columns = readable.filter { mapping.columns?.contains($0.name) ?? true }.map {
            Relation.Column(name: $0.name, isKey: key.contains($0.name), typeName: $0.typeName, type: $0.type)
        }
    }

    /// The statement for a format.
    /// - Parameters:
    ///   - isPartitioned: rows of a partitioned table are those of its partitions; otherwise children that inherit are
    ///     tables of their own.
    ///   - pieces: where a part's rows are; empty for the whole table.
    func statement(
        _ table: TableSchema, _ mapping: TableMapping, _ format: CopyFormat, isPartitioned: Bool,
        pieces: [(name: String, blocks: BlockRange)] = []
    ) -> String {
        let list = columns.map { column in
            format == .rows ? BinaryRows.expression(column) : quoteIdentifier(column.name)
        }.joined(separator: ", ")
        let form = format == .postgresText ? "text" : "binary"
        guard pieces.isEmpty else {
            // A partition goes by the name of its table, which the filter may use; its columns by theirs, since they may
            // stand in another order.
            let selects = pieces.map { piece in
                let conditions = (mapping.rowFilter.map { ["(\($0))"] } ?? []) + piece.blocks.conditions
                let filter = conditions.isEmpty ? "" : " WHERE " + conditions.joined(separator: " AND ")
                return "SELECT \(list) FROM ONLY \(piece.name) AS \(quoteIdentifier(table.name.name))\(filter)"
            }
            return "COPY (\(selects.joined(separator: " UNION ALL "))) TO STDOUT (FORMAT \(form))"
        }
        if format != .rows, !isPartitioned, mapping.rowFilter == nil {
            // The plain form reads the table without the executor, and without its children.
            return "COPY \(table.name.quoted) (\(list)) TO STDOUT (FORMAT \(form))"
        }
        let source = (isPartitioned ? "" : "ONLY ") + table.name.quoted
        let filter = mapping.rowFilter.map { " WHERE (\($0))" } ?? ""
        return "COPY (SELECT \(list) FROM \(source)\(filter)) TO STDOUT (FORMAT \(form))"
    }
}

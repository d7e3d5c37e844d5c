import BridgeCore

/// Reads one table, or a part of one, in the snapshot by COPY, over a session and a thread of its own.
actor PostgresCopyReader: CopyReader {
    nonisolated let executor = ThreadExecutor(name: "pg-copy")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    nonisolated let position: Position
    nonisolated let columns: [Relation.Column]
    private nonisolated let connectionString: ConnectionString
    private nonisolated let format: CopyFormat
    private nonisolated let layout: CopyColumns
    private nonisolated let shape: Shape
    private var connection: PostgresConnection?
    private var rows: BinaryRows
    private var hasEnded = false

    /// The format, compared once and not for each row.
    private enum Shape { case rows, binary, text }

    init(_ connectionString: ConnectionString, position: Position, format: CopyFormat, columns: CopyColumns) {
        self.connectionString = connectionString
        self.position = position
        self.format = format
        layout = columns
        shape = format == .rows ? .rows : format == .postgresText ? .text : .binary
        self.columns = columns.columns
        rows = BinaryRows(columns.columns)
    }

    /// Whether ``start(_:mapping:part:snapshot:applicationName:)`` failed for something that only a new snapshot helps.
    private(set) var needsNewSnapshot = false

    /// Joins the snapshot and begins the COPY.
    /// - Throws: `connectionLost` if the snapshot is gone, or no longer shows the table's rows: a new one is needed then.
    ///   `serverBusy` if the table is locked for long.
    func start(
        _ table: TableSchema, mapping: TableMapping, part: CopyPart, snapshot: String, origin: CaptureOrigin?,
        applicationName: String
    ) throws(BridgeError) {
        do throws(BridgeError) {
            let connection = try PostgresConnection(connectionString, applicationName: applicationName)
            do throws(BridgeError) {
                try begin(table, mapping, part, snapshot, origin, connection)
            } catch {
                // What was not said by a connection that broke was said by the snapshot.
                needsNewSnapshot = error.code == .connectionLost && error.sqlState == nil && !connection.isBroken
                throw error
            }
            self.connection = connection
        } catch {
            throw error.adding(.table, table.name.description)
        }
    }

    private func begin(
        _ table: TableSchema, _ mapping: TableMapping, _ part: CopyPart, _ snapshot: String, _ origin: CaptureOrigin?,
        _ connection: PostgresConnection
    ) throws(BridgeError) {
        let action = "copying a table"
        try SnapshotSession.join(snapshot, connection)
        let held = try connection.rows(
            "SELECT relkind, oid FROM pg_class WHERE oid = to_regclass($1)", [table.name.quoted], during: action).first
        let isPartitioned = held?[0] == "p"
        // The whole tree of a partitioned table, whatever part is read: one that was detached since is no part any more.
        try HeldTable.hold(table.name, isPartitioned: isPartitioned, connection, during: "locking a table for its copy")
        let ranges = try BlockRange.ranges(part.locator)
        try check(table.name, held?[1].flatMap { UInt32($0) }, ranges, origin, connection)
        var pieces: [(name: String, blocks: BlockRange)] = []
        if !ranges.isEmpty {
            let names = try SnapshotSession.names(of: ranges.map(\.relation), connection)
            for range in ranges {
                guard let name = names[range.relation] else { throw SnapshotSession.changed }
                pieces.append((name, range))
            }
            // A scan of the blocks, whatever the planner makes of the filter; the workers are the parts.
            try connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL max_parallel_workers_per_gather = 0")
        }
        try connection.beginCopyOut(
            layout.statement(table, mapping, format, isPartitioned: isPartitioned, pieces: pieces), during: action)
    }

    /// Proves, with the table locked, that its name means what it meant before it was locked and when the capture was made,
    /// and that the part is one of this table.
    private func check(
        _ name: TableName, _ oid: UInt32?, _ ranges: [BlockRange], _ origin: CaptureOrigin?,
        _ connection: PostgresConnection
    ) throws(BridgeError) {
        let strangers = try connection.rows(
            """
            SELECT to_regclass($1)::oid, EXISTS (SELECT FROM unnest($2::oid[]) r(oid)
            WHERE r.oid <> to_regclass($1)
            AND NOT EXISTS (SELECT FROM pg_partition_tree(to_regclass($1)) p WHERE p.relid = r.oid))
            """, [name.quoted, ArrayLiteral.make(ranges.map(\.relation))], during: "locking a table for its copy").first
        guard let oid, strangers?[0].flatMap({ UInt32($0) }) == oid, strangers?[1] == "f" else { throw SnapshotSession.changed }
        if let origin { try NameBinding(origin: origin, session: connection).check(name, oid) }
    }

    /// The stream as it comes. Where the format has a trailer it may come in the read that returns 0.
    func read(into buffer: RecordBuffer, limit: Int) throws(BridgeError) -> Int {
        guard let connection, !hasEnded else { return 0 }
        let end = buffer.count + max(1, limit)
        var count = 0
        var data = PGCopyData()
        while buffer.count < end {
            guard try connection.nextCopy(&data) else {
                hasEnded = true
                break
            }
            let bytes = data.bytes
            switch shape {
            case .text:
                buffer.append(bytes)
                count += 1
            // A row of the binary stream begins with its number of columns; the trailer is -1.
            case .binary where rows.hasHeader && bytes.count >= 2 && bytes[0] < 0x80:
                buffer.append(bytes)
                count += 1
            case .binary: if try rows.take(bytes, asRows: false, into: buffer) { count += 1 }
            case .rows: if try rows.take(bytes, asRows: true, into: buffer) { count += 1 }
            }
        }
        return count
    }

    func close() {
        if !hasEnded { connection?.cancel() }
        connection = nil
    }
}

import BridgeCore

/// Loads one table in one transaction, so that an unfinished load leaves nothing.
actor PostgresTableLoad: TableLoad {
    private nonisolated let executor = ThreadExecutor(name: "pg-load")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let link: LinkDescription
    private let mapping: TableMapping
    private let string: ConnectionString
    private let format: CopyFormat
    /// Ends a wait for a server that takes nothing more.
    private nonisolated let interrupter: Interrupter
    private var connection: PostgresConnection?
    private var table: TargetTable?
    /// Where each column of a row image goes; nil for what is not written. For ``CopyFormat/rows`` only.
    private var targets: [(name: String, type: TargetType)?] = []
    private let encoded = RecordBuffer(capacity: 256 << 10)
    private var row: Int64 = 0

    init(
        link: LinkDescription, mapping: TableMapping, string: ConnectionString, format: CopyFormat
    ) throws(BridgeError) {
        interrupter = try Interrupter()
        self.link = link
        self.mapping = mapping
        self.string = string
        self.format = format
    }

    func open(_ columns: [Relation.Column]) throws(BridgeError) {
        let connection = try PostgresConnection(string, applicationName: "bridge copy \(link.name)", interrupter: interrupter)
        try ReplicaSession.begin(connection)
        guard let table = try TargetTable.read(mapping.target, connection) else {
            throw BridgeError(
                .targetTableMissing, "the target table does not exist",
                context: [.init(.table, mapping.target.description)])
        }
        self.table = table
        let names = try plan(columns, table)
        try connection.execute("BEGIN; SET LOCAL synchronous_commit = on")
        try checkState(connection)
        let list = names.map { quoteIdentifier($0) }.joined(separator: ", ")
        let options = format == .postgresBinary ? " WITH (FORMAT binary)" : ""
        do throws(BridgeError) {
            try connection.beginCopyIn("COPY \(table.name.quoted) (\(list)) FROM STDIN\(options)", during: "loading a table")
        } catch { throw error.adding(.table, table.name.description) }
        self.connection = connection
    }

    /// Which columns are written, in the order in which they come.
    private func plan(_ columns: [Relation.Column], _ table: TargetTable) throws(BridgeError) -> [String] {
        var names: [String] = []
        for column in columns {
            let target = table.column(named: column.name)
            guard let target, !target.isGenerated || format == .rows else {
                throw BridgeError(
                    .targetTableMismatch,
                    target == nil
                        ? "the target table lacks a column of the source" : "a generated column of the target cannot be loaded",
                    context: [.init(.table, table.name.description), .init(.column, column.name)])
            }
            guard !target.isGenerated else {
                targets.append(nil)
                continue
            }
            names.append(column.name)
            targets.append((column.name, TargetType(typeName: target.baseTypeName)))
        }
        return names
    }

    /// The table must be one that is still to be loaded, and empty: a load that was cut short has left nothing.
    private func checkState(_ connection: PostgresConnection) throws(BridgeError) {
        let (name, target) = (mapping.target.description, mapping.target)
        // The lock keeps a second loader of the same link out until this one has ended.
        let state = try connection.rows(
            "SELECT state FROM _bridge.link_table WHERE \(Self.ofTable) FOR UPDATE NOWAIT", key, during: "loading a table"
        ).first?.first.flatMap { $0 }
        guard let state else { throw LinkRecords.missing(link) }
        guard state != "done" else {
            // The last commit of a process that was killed can arrive after its successor has read the records.
            throw BridgeError(
                .serverBusy, "an earlier process has just finished loading the table", context: [.init(.table, name)])
        }
        let quoted = self.table?.name.quoted ?? target.quoted
        guard try connection.rows("SELECT 1 FROM \(quoted) LIMIT 1", during: "loading a table").isEmpty else {
            throw BridgeError(
                .targetTableNotEmpty, "the target table holds rows that bridge did not load", context: [.init(.table, name)],
                hint: "empty the target table (TRUNCATE \(quoted)), or leave it out of the migration")
        }
    }

    private static let ofTable = "link = $1 AND source_name = $2 AND source_schema IS NOT DISTINCT FROM $3"
    private var key: [String?] { [link.name, mapping.source.name, mapping.source.schema] }

    // MARK: Rows

    func write(_ chunk: RecordBuffer) throws(BridgeError) {
        guard let connection else { throw BridgeError(.connectionLost, "the load is closed") }
        do throws(BridgeError) {
            if format == .rows {
                try encode(chunk, connection)
            } else {
                try connection.writeCopy(chunk.bytes)
            }
        } catch {
            drop()
            throw error.adding(.table, mapping.target.description)
        }
    }

    private func encode(_ chunk: RecordBuffer, _ connection: PostgresConnection) throws(BridgeError) {
        var reader = ByteReader(chunk.bytes)
        while !reader.isAtEnd {
            let image = try Self.nextImage(&reader)
            guard image.columnCount == targets.count else { throw RelationEffects.malformed() }
            row += 1
            var cells = image.cells
            var needsSeparator = false
            for target in targets {
                guard let cell = try cells.next() else { throw RelationEffects.malformed() }
                guard let target else { continue }
                if needsSeparator { encoded.appendCopySeparator() }
                needsSeparator = true
                if cell.tag == .null {
                    encoded.appendCopyNull()
                    continue
                }
                do throws(CellRefusal) {
                    try CellEncoder.append(cell, as: target.type, style: .copy, to: encoded)
                } catch {
                    throw BridgeError(
                        error == .missing ? .valueMissing : .valueDoesNotFit, error.message,
                        context: [
                            .init(.table, mapping.target.description), .init(.column, target.name),
                            .init(.detail, "row \(row) of the copy"),
                        ])
                }
            }
            encoded.appendCopyRowEnd()
            if encoded.count >= 128 << 10 { try flushEncoded(connection) }
        }
        try flushEncoded(connection)
    }

    private func flushEncoded(_ connection: PostgresConnection) throws(BridgeError) {
        try connection.writeCopy(encoded.bytes)
        encoded.removeAll()
    }

    private static func nextImage(_ reader: inout ByteReader) throws(BridgeError) -> RowImage {
        let size: Int
        do throws(ByteReader.Truncated) {
            size = Int(try reader.readInteger(UInt32.self))
        } catch { throw BridgeError.malformedRecord(at: error.offset) }
        let start = reader.offset
        let image = try RowImage(&reader)
        guard reader.offset - start == size else { throw BridgeError.malformedRecord(at: start) }
        return image
    }

    func finish(position: Position, rows: Int64) throws(BridgeError) {
        guard let connection else { throw BridgeError(.connectionLost, "the load is closed") }
        do throws(BridgeError) {
            let loaded = try connection.endCopyIn(during: "loading a table")
            guard loaded == rows else {
                throw BridgeError(
                    .internalFault, "the server took \(loaded) rows where \(rows) were sent")
            }
            let changed = try connection.query(
                "UPDATE _bridge.link_table SET state = 'done', position = $4, rows = $5::bigint WHERE \(Self.ofTable)",
                key + [position.storedForm, "\(rows)"], during: "recording a loaded table"
            ).affectedRows
            guard changed == 1 else { throw LinkRecords.missing(link) }
            try Failpoint.copyTableBeforeCommit.hit()
            try connection.execute("COMMIT", during: "committing a loaded table")
            try Failpoint.copyTableAfterCommit.hit()
        } catch {
            drop()
            throw error.adding(.table, mapping.target.description)
        }
        self.connection = nil
        // Without figures the planner would take the new table for a small one; autovacuum comes only later.
        if let table { try? connection.execute("ANALYZE \(table.name.quoted)") }
    }

    nonisolated func cancel() async {
        interrupter.signal()
        await drop()
    }

    /// Gives up the transaction.
    private func drop() {
        guard let connection else { return }
        interrupter.reset()
        connection.failCopyIn("the copy was given up")
        if !connection.isBroken { try? connection.execute("ROLLBACK") }
        self.connection = nil
    }
}

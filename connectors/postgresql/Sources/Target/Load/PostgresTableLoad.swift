import BridgeCore

/// Loads one table, or a part of one, in one transaction, so that an unfinished load leaves nothing.
actor PostgresTableLoad: TableLoad {
    private nonisolated let executor = ThreadExecutor(name: "pg-load")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let link: LinkDescription
    private let mapping: TableMapping
    private let string: ConnectionString
    private let format: CopyFormat
    /// Which part it loads; nil for the whole table.
    private let part: TablePart?
    /// Ends a wait for a server that takes nothing more.
    private nonisolated let interrupter: Interrupter
    private var connection: PostgresConnection?
    private var table: TargetTable?
    /// Where each column of a row image goes; nil for what is not written. For ``CopyFormat/rows`` only.
    private var targets: [(name: String, type: TargetType)?] = []
    private let encoded = RecordBuffer(capacity: 256 << 10)
    private var row: Int64 = 0

    init(
        link: LinkDescription, mapping: TableMapping, string: ConnectionString, format: CopyFormat, part: TablePart? = nil
    ) throws(BridgeError) {
        interrupter = try Interrupter()
        self.part = part
        self.link = link
        self.mapping = mapping
        self.string = string
        self.format = format
    }

    /// Begins the load of the whole table.
    func openWhole(_ columns: [Relation.Column]) throws(BridgeError) {
        let (connection, table, names) = try connect(columns)
        try LoadRecords(link: link, mapping: mapping, connection: connection).claimWhole(table)
        try beginCopy(connection, table, names)
    }

    /// Begins the load of the part.
    /// - Returns: what is there if it was committed already.
    func open(_ part: TablePart, _ columns: [Relation.Column]) throws(BridgeError) -> LoadedPart? {
        let (connection, table, names) = try connect(columns)
        let records = LoadRecords(link: link, mapping: mapping, connection: connection)
        if let loaded = try records.claim(part) { return loaded }
        try Failpoint.copyPartBegin.hit()
        try beginCopy(connection, table, names)
        return nil
    }

    /// Begins the transaction.
    private func connect(
        _ columns: [Relation.Column]
    ) throws(BridgeError) -> (PostgresConnection, TargetTable, [String]) {
        let connection = try PostgresConnection(string, applicationName: "bridge copy \(link.name)", interrupter: interrupter)
        try ReplicaSession.begin(connection)
        guard let table = try TargetTable.read(mapping.target, connection) else {
            throw BridgeError(
                .targetTableMissing, "the target table does not exist",
                context: [.init(.table, mapping.target.description)])
        }
        let names = try plan(columns, table)
        try connection.execute("BEGIN; SET LOCAL synchronous_commit = on")
        return (connection, table, names)
    }

    private func beginCopy(
        _ connection: PostgresConnection, _ table: TargetTable, _ names: [String]
    ) throws(BridgeError) {
        let list = names.map { quoteIdentifier($0) }.joined(separator: ", ")
        let options = format == .postgresBinary ? " WITH (FORMAT binary)" : ""
        do throws(BridgeError) {
            try connection.beginCopyIn("COPY \(table.name.quoted) (\(list)) FROM STDIN\(options)", during: "loading a table")
        } catch { throw error.adding(.table, table.name.description) }
        self.table = table
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
            if link.form == .canonical, let reason = TypeCompatibility.refusal(of: column, form: .canonical, into: target) {
                throw BridgeError(
                    .targetTableMismatch, reason, context: [.init(.table, table.name.description), .init(.column, column.name)])
            }
            names.append(column.name)
            let source = link.form == .canonical ? column : nil
            targets.append((column.name, TargetType(typeName: target.baseTypeName, source: source)))
        }
        return names
    }

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
            try record(position, rows, connection)
        } catch {
            drop()
            throw error.adding(.table, mapping.target.description)
        }
        self.connection = nil
        // Without figures the planner would take the new table for a small one; autovacuum comes only later.
        if part == nil, let table { try? connection.execute("ANALYZE \(table.name.quoted)") }
    }

    /// Records what was loaded, and commits it with the rows.
    private func record(_ position: Position, _ rows: Int64, _ connection: PostgresConnection) throws(BridgeError) {
        let records = LoadRecords(link: link, mapping: mapping, connection: connection)
        if let part {
            try records.finish(part, position, rows)
            try Failpoint.copyPartBeforeCommit.hit()
            try connection.execute("COMMIT", during: "committing a loaded part of a table")
            try Failpoint.copyPartAfterCommit.hit()
        } else {
            try records.finishTable(position, rows)
            try Failpoint.copyTableBeforeCommit.hit()
            try connection.execute("COMMIT", during: "committing a loaded table")
            try Failpoint.copyTableAfterCommit.hit()
        }
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

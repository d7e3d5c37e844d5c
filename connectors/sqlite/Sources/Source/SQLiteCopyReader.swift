package import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Reads one table for the copy, on a connection and a thread of its own.
package final class SQLiteCopyReader: CopyReader {
    package let position: Position
    package let columns: [Relation.Column]
    private let worker: CopyWorker

    private init(_ worker: CopyWorker, _ opened: CopyWorker.Opened) {
        self.worker = worker
        position = opened.position
        columns = opened.columns
    }

    static func open(path: String, link: LinkDescription, mapping: TableMapping) async throws(BridgeError)
        -> SQLiteCopyReader
    {
        let worker = CopyWorker(path: path, link: link, mapping: mapping)
        return SQLiteCopyReader(worker, try await worker.open())
    }

    package func read(into buffer: RecordBuffer, limit: Int) async throws(BridgeError) -> Int {
        try await worker.read(into: buffer, limit: limit)
    }

    package func close() async { await worker.close() }
}

/// The reader's connection and its place in the table.
///
/// In WAL mode the whole table is read in one read transaction, whose snapshot the newest change of the log fixes as
/// position. In a rollback-journal mode that would lock writers out for as long, so the table is read along its key in
/// chunks, each a short read transaction. The position is then that of the first chunk: a row read later may be newer, and
/// its change comes again with the log as the row's state, which is the same twice over. That does not hold where rows
/// exclude each other, so a table with a second unique index is read in one transaction there too, and its writers wait;
/// preflight says so.
///
/// The position is the newest change's own sequence and not the next one: a transaction of that name may have been left
/// half delivered by a crash, and is then delivered again with later changes in it. One that is wholly in the copy
/// repeats what is there.
private actor CopyWorker {
    struct Opened {
        let position: Position
        let columns: [Relation.Column]
    }

    /// How long one chunk's read transaction may last.
    private static let longestChunk: Duration = .milliseconds(200)

    private let executor = ThreadExecutor(name: "sqlite-copy")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let path: String
    private let link: LinkDescription
    private let mapping: TableMapping
    private let names: CaptureNames
    private var connection: SQLiteConnection?
    private var first: SQLiteStatement?
    private var next: SQLiteStatement?
    private var columnCount = 0
    private var keyCount = 0
    private var isChunked = false
    private var hasLast = false
    private let last = RecordBuffer(capacity: 256)
    private var isAtEnd = false

    init(path: String, link: LinkDescription, mapping: TableMapping) {
        self.path = path
        self.link = link
        self.mapping = mapping
        names = CaptureNames(link)
    }

    func open() throws(BridgeError) -> Opened {
        let connection = try SQLiteConnection(path: path, access: .readWrite, busyTimeout: 10_000)
        self.connection = connection
        try connection.database.execute("PRAGMA query_only = 1")
        guard try CaptureState.exists(names.log, connection.database) else {
            throw BridgeError(.captureBroken, "the source has no change log for this link", context: [.init(.slot, names.log)])
        }
        let newest = try connection.database.prepare(CaptureState.newestChange(names))
        let sequence = try CaptureGate.shared(path: path, names: names).beginSnapshot { () throws(BridgeError) in
            try connection.database.execute("BEGIN DEFERRED")
            defer { newest.reset() }
            return try newest.step() ? newest.integer(0) : 0
        }
        let captured = try CapturedTable.read(names, connection.database)
        let tables = try CaptureInstaller(link).verify(captured, connection.database)
        guard let entry = captured.first(where: { $0.name == mapping.source.name }), let table = tables[entry.number] else {
            throw BridgeError(
                .tableMissing, "the change log was not made for this table",
                context: [.init(.table, mapping.source.description)])
        }
        let traveling = try TravelingColumns(table, types: entry.types, mapping: mapping)
        try refuseNullKeys(table, connection)
        let isWriteAhead = try connection.database.string("PRAGMA main.journal_mode")?.lowercased() == "wal"
        isChunked = !isWriteAhead && !table.indexes.contains { $0.isUnique && $0.origin != .primaryKey }
        try prepare(table, traveling, connection)
        return Opened(position: Position(commit: UInt64(clamping: sequence)), columns: traveling.columns)
    }

    private func refuseNullKeys(_ table: SQLiteTable, _ connection: SQLiteConnection) throws(BridgeError) {
        guard table.keyMayBeNull else { return }
        let tests = table.key.map { "\(quoteIdentifier(table.columns[$0].name)) IS NULL" }.joined(separator: " OR ")
        guard
            try connection.database.integer("SELECT 1 FROM main.\(quoteIdentifier(table.name)) WHERE \(tests) LIMIT 1") != nil
        else { return }
        throw BridgeError(
            .sourceUnsupported, "a row has NULL in its primary key, so it cannot be told from others",
            context: [.init(.table, mapping.source.description)],
            hint: "give the row a key or delete it, then run the command again; declare the key NOT NULL")
    }

    private func prepare(
        _ table: SQLiteTable, _ traveling: TravelingColumns, _ connection: SQLiteConnection
    ) throws(BridgeError) {
        columnCount = traveling.places.count
        keyCount = table.key.count
        let filter = mapping.rowFilter.map { "(\($0))" }
        guard isChunked else {
            first = try connection.database.prepare(
                "SELECT \(traveling.list) \(traveling.from)" + (filter.map { " WHERE \($0)" } ?? ""))
            return
        }
        let keyColumns = table.key.indices.map { table.collatedKeyColumn($0) }
        let keyList = keyColumns.joined(separator: ", ")
        let rawKeys = table.key.map { "\(quoteIdentifier(table.name)).\(quoteIdentifier(table.columns[$0].name))" }
            .joined(separator: ", ")
        let parameters = keyColumns.indices.map { "?\($0 + 1)" }.joined(separator: ", ")
        let behind = keyColumns.count == 1 ? "\(keyList) > \(parameters)" : "(\(keyList)) > (\(parameters))"
        let select = "SELECT \(traveling.list), \(rawKeys) \(traveling.from)"
        first = try connection.database.prepare(
            select + (filter.map { " WHERE \($0)" } ?? "") + " ORDER BY \(keyList)")
        next = try connection.database.prepare(
            select + " WHERE \(behind)" + (filter.map { " AND \($0)" } ?? "") + " ORDER BY \(keyList)")
    }

    func read(into buffer: RecordBuffer, limit: Int) throws(BridgeError) -> Int {
        guard let connection, !isAtEnd else { return 0 }
        guard isChunked else { return try readOn(connection, into: buffer, limit: limit) }
        if !connection.database.isInTransaction() { try connection.database.execute("BEGIN DEFERRED") }
        do throws(BridgeError) {
            let rows = try readChunk(into: buffer, limit: limit)
            try connection.database.execute("COMMIT")
            return rows
        } catch {
            connection.database.rollback()
            throw error
        }
    }

    private func readOn(_ connection: SQLiteConnection, into buffer: RecordBuffer, limit: Int) throws(BridgeError) -> Int {
        guard let first else { return 0 }
        let start = buffer.count
        var rows = 0
        repeat {
            guard try first.step() else {
                isAtEnd = true
                first.reset()
                try connection.database.execute("COMMIT")
                break
            }
            try append(first, to: buffer)
            rows += 1
        } while buffer.count - start < limit
        return rows
    }

    private func readChunk(into buffer: RecordBuffer, limit: Int) throws(BridgeError) -> Int {
        guard let statement = hasLast ? next : first else { return 0 }
        if hasLast { try bindLast(statement) }
        defer { statement.reset() }
        let start = buffer.count
        let deadline = ContinuousClock.now + Self.longestChunk
        var rows = 0
        while try statement.step() {
            try append(statement, to: buffer)
            rows += 1
            guard buffer.count - start < limit, rows % 64 != 0 || ContinuousClock.now < deadline else {
                try keepLast(statement)
                return rows
            }
        }
        isAtEnd = true
        return rows
    }

    private func append(_ row: SQLiteStatement, to buffer: RecordBuffer) throws(BridgeError) {
        let start = buffer.count
        buffer.append(bigEndian: UInt32(0))
        buffer.beginRowImage(columns: columnCount)
        for place in 0..<columnCount { try row.appendCell(place, to: buffer) }
        guard let size = UInt32(exactly: buffer.count - start - 4) else {
            throw BridgeError(
                .valueDoesNotFit, "a row is larger than 4 GB", context: [.init(.table, mapping.source.description)])
        }
        buffer.patch(bigEndian: size, at: start)
    }

    private func keepLast(_ row: SQLiteStatement) throws(BridgeError) {
        last.removeAll()
        last.beginRowImage(columns: keyCount)
        for place in 0..<keyCount { try row.appendCell(columnCount + place, to: last) }
        hasLast = true
    }

    private func bindLast(_ statement: SQLiteStatement) throws(BridgeError) {
        var reader = ByteReader(last.bytes)
        var cells = try RowImage(&reader).cells
        var index = 1
        while let cell = try cells.next() {
            try statement.bind(index, cell: cell)
            index += 1
        }
    }

    func close() {
        first = nil
        next = nil
        connection?.database.rollback()
        connection = nil
        isAtEnd = true
    }
}

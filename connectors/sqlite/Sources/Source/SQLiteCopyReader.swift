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
/// A read transaction that lasted as long as a table's copy would keep the application's WAL from being checkpointed, and
/// in a rollback-journal mode its writers from writing. So the table is read in chunks, each a short read transaction, and
/// yet none of its rows is newer than the snapshot that the reader began with, whose newest change is its position:
///
/// - Every change since then has named its row's key in the log. A chunk reads, in its own snapshot, what the log has got
///   since the last one, and leaves out the rows so named (see ``ChangedKeys``): capture delivers them from the position on.
/// - All other rows are as they were in the first snapshot, at the same place in the order that the table is read by: it is
///   the key, or a rowid, and who changes one of them changes the row. A VACUUM may give hidden rowids out anew without a
///   word in the log, but not without a new version of the schema; the copy then goes on only if the row that was read last
///   still has its rowid, which proves that those before it have theirs, since a VACUUM keeps the rows' order.
///
/// So what is copied are rows of one committed state, which cannot stand in each other's way under any unique index. Until
/// the copy has ended, the keeper leaves the part of the log alone that the reader has not seen (``CaptureGate``).
///
/// A table that has no order to be read by (``CopiedTable``) is read in one read transaction.
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
    /// The same where writers cannot write meanwhile.
    private static let longestLockingChunk: Duration = .milliseconds(20)

    private let executor = ThreadExecutor(name: "sqlite-copy")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let path: String
    private let link: LinkDescription
    private let mapping: TableMapping
    private let names: CaptureNames
    private let hold: CaptureGate.CopyHold
    private var connection: SQLiteConnection?
    private var schemaVersion: SQLiteStatement?
    private var knownSchema: Int64 = -1
    private var longest = longestChunk
    private var table: CopiedTable?
    private var number: Int64 = 0
    private var columns: [Relation.Column] = []
    /// nil if the table is read at a stretch.
    private var changed: ChangedKeys?
    /// By whether it goes on behind a place, and whether it leaves changed rows out.
    private var statements: [Bool: [Bool: SQLiteStatement]] = [:]
    private var hasLast = false
    /// The place of the row that was read last, and its key.
    private let last = RecordBuffer(capacity: 256)
    private let lastKey = RecordBuffer(capacity: 256)
    private let scratch = RecordBuffer(capacity: 256)
    private var isAtEnd = false
    /// What a read failed with. What it had seen of the log was rolled back, so none may follow it.
    private var failure: BridgeError?

    init(path: String, link: LinkDescription, mapping: TableMapping) {
        self.path = path
        self.link = link
        self.mapping = mapping
        names = CaptureNames(link)
        hold = CaptureGate.shared(path: path, names: names).holdForCopy()
    }

    func open() throws(BridgeError) -> Opened {
        let connection = try SQLiteConnection(path: path, access: .readWrite, busyTimeout: 10_000)
        self.connection = connection
        try connection.database.execute("PRAGMA query_only = 1")
        guard try CaptureState.exists(names.log, connection.database) else {
            throw BridgeError(.captureBroken, "the source has no change log for this link", context: [.init(.slot, names.log)])
        }
        schemaVersion = try connection.database.prepare("PRAGMA main.schema_version")
        let newest = try connection.database.prepare(CaptureState.newestChange(names))
        let markOfRow = try connection.database.prepare(CaptureState.markOfRow(names))
        var seen = DeliveryProof(sequence: 0, mark: 0)
        let sequence = try hold.gate.beginSnapshot { () throws(BridgeError) in
            try connection.database.execute("BEGIN DEFERRED")
            defer { newest.reset() }
            guard try newest.step() else { return 0 }
            seen.sequence = newest.integer(1)
            return newest.integer(0)
        }
        let table = try describe(connection)
        try refuseNullKeys(table.table, connection)
        columns = table.traveling.columns
        try adopt(table)
        if try connection.database.string("PRAGMA main.journal_mode")?.lowercased() != "wal" {
            longest = Self.longestLockingChunk
        }
        if table.order != nil {
            try markOfRow.bind(1, integer: seen.sequence)
            if try markOfRow.step() { seen.mark = markOfRow.integer(0) }
            markOfRow.reset()
            try connection.database.execute("COMMIT")
            changed = try ChangedKeys(table.table, number: number, names: names, seen: seen, connection)
            hold.hasSeen(seen.sequence)
        }
        return Opened(position: Position(commit: UInt64(clamping: sequence)), columns: columns)
    }

    /// Reads the table's definition in the transaction under way, when capture has proven whole.
    private func describe(_ connection: SQLiteConnection) throws(BridgeError) -> CopiedTable {
        let captured = try CapturedTable.read(names, connection.database)
        let tables = try CaptureInstaller(link).verify(captured, connection.database)
        guard let entry = captured.first(where: { $0.name == mapping.source.name }), let table = tables[entry.number] else {
            throw BridgeError(
                .tableMissing, "the change log was not made for this table",
                context: [.init(.table, mapping.source.description)])
        }
        number = entry.number
        return CopiedTable(
            table, try TravelingColumns(table, types: entry.types, mapping: mapping), filter: mapping.rowFilter)
    }

    private func adopt(_ table: CopiedTable) throws(BridgeError) {
        self.table = table
        statements = [:]
        knownSchema = try version()
    }

    private func version() throws(BridgeError) -> Int64 {
        guard let schemaVersion else { return -1 }
        defer { schemaVersion.reset() }
        return try schemaVersion.step() ? schemaVersion.integer(0) : -1
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

    func read(into buffer: RecordBuffer, limit: Int) throws(BridgeError) -> Int {
        guard let connection, !isAtEnd else { return 0 }
        if let failure { throw failure }
        do throws(BridgeError) {
            guard let changed else { return try readOn(connection, into: buffer, limit: limit) }
            var rows = 0
            // A chunk whose rows have all changed gives none, which is not the end.
            while rows == 0, !isAtEnd {
                rows = try connection.database.transaction(.deferred) { () throws(BridgeError) in
                    try readChunk(connection, changed, into: buffer, limit: limit)
                }
                hold.hasSeen(changed.seen)
            }
            if isAtEnd { hold.end() }
            return rows
        } catch {
            failure = error
            throw error
        }
    }

    private func statement(continuing: Bool, unchanged: Bool) throws(BridgeError) -> SQLiteStatement? {
        if let known = statements[continuing]?[unchanged] { return known }
        guard let table, let connection else { return nil }
        let made = try connection.database.prepare(table.select(continuing: continuing, unchanged: unchanged))
        statements[continuing, default: [:]][unchanged] = made
        return made
    }

    private func readOn(_ connection: SQLiteConnection, into buffer: RecordBuffer, limit: Int) throws(BridgeError) -> Int {
        guard let statement = try statement(continuing: false, unchanged: false) else { return 0 }
        let start = buffer.count
        var rows = 0
        repeat {
            guard try statement.step() else {
                isAtEnd = true
                statement.reset()
                try connection.database.execute("COMMIT")
                hold.end()
                break
            }
            try append(statement, to: buffer)
            rows += 1
        } while buffer.count - start < limit
        return rows
    }

    private func readChunk(
        _ connection: SQLiteConnection, _ changed: ChangedKeys, into buffer: RecordBuffer, limit: Int
    ) throws(BridgeError) -> Int {
        let deadline = ContinuousClock.now + longest
        if try version() != knownSchema { try checkSchema(connection) }
        // Rows may be read only in a snapshot whose log has been seen to its end.
        guard try changed.catchUp(until: deadline) else { return 0 }
        guard let statement = try statement(continuing: hasLast, unchanged: !changed.isEmpty) else { return 0 }
        if hasLast { try bindLast(statement) }
        defer { statement.reset() }
        let start = buffer.count
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
        buffer.beginRowImage(columns: columns.count)
        do throws(BridgeError) {
            for place in 0..<columns.count { try row.appendCell(place, to: buffer) }
        } catch { throw error.adding(.table, mapping.source.description) }
        guard let size = UInt32(exactly: buffer.count - start - 4) else {
            throw BridgeError(
                .valueDoesNotFit, "a row is larger than 4 GB", context: [.init(.table, mapping.source.description)])
        }
        buffer.patch(bigEndian: size, at: start)
    }

    // MARK: The place in the table

    private func keepLast(_ row: SQLiteStatement) throws(BridgeError) {
        guard let table else { return }
        last.removeAll()
        last.beginRowImage(columns: table.placeCount)
        for place in 0..<table.placeCount { try row.appendCell(columns.count + place, to: last) }
        hasLast = true
        guard table.order == .hiddenRowid else { return }
        try keepKey(row, table.traveling.keyPlaces, in: lastKey)
    }

    private func keepKey(_ row: SQLiteStatement, _ places: [Int], in buffer: RecordBuffer) throws(BridgeError) {
        buffer.removeAll()
        buffer.beginRowImage(columns: places.count)
        for place in places { try row.appendCell(place, to: buffer) }
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

    /// The schema changed since the last chunk: the table may have another name now, other columns, or other rowids.
    private func checkSchema(_ connection: SQLiteConnection) throws(BridgeError) {
        let table = try describe(connection)
        guard table.traveling.columns == columns else {
            throw CopyInterruption.error("the table's columns changed while it was copied")
        }
        try adopt(table)
        guard hasLast, table.order == .hiddenRowid else { return }
        let row = try connection.database.prepare(table.keyAtRowid)
        try bindLast(row)
        guard try row.step() else { throw Self.rewritten() }
        try keepKey(row, Array(0..<table.table.key.count), in: scratch)
        guard ImageBytes(scratch.bytes) == lastKey.bytes else { throw Self.rewritten() }
    }

    private static func rewritten() -> BridgeError {
        CopyInterruption.error("the schema changed while the table was copied, and the place in it was lost")
    }

    func close() {
        statements = [:]
        changed = nil
        connection?.database.rollback()
        connection = nil
        isAtEnd = true
        hold.end()
    }
}

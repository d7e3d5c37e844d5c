import BridgeCore

/// A picture of an SQLite database: one read transaction on a connection and a thread of its own.
///
/// In WAL mode it disturbs nobody, but the log cannot be taken back into the file beyond it while it is open. In a
/// rollback-journal mode a writer cannot commit as long as it is open: there a view must be closed after one chunk, and a
/// table whose key has no order, which is read at a stretch, holds its writers up for that long.
final class SQLiteView: ComparisonView {
    let sees: ViewMark
    private let worker: ViewWorker

    private init(_ worker: ViewWorker, sees: ViewMark) {
        self.worker = worker
        self.sees = sees
    }

    /// - Parameter mark: reads, as the first thing in the view's transaction, what the view sees.
    static func open(
        path: String, mark: @escaping @Sendable (SQLiteConnection) throws(BridgeError) -> Position
    ) async throws(BridgeError) -> SQLiteView {
        let worker = ViewWorker()
        let position = try await worker.open(path: path, mark: mark)
        return SQLiteView(worker, sees: .before(position))
    }

    func openRows(_ request: ComparisonRequest) async throws(BridgeError) -> any RowStream {
        SQLiteRowStream(worker, number: try await worker.openRows(request))
    }

    func findRows(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer
    ) async throws(BridgeError) -> Int {
        try await worker.findRows(request, keys: keys, into: buffer, limit: .max) ?? 0
    }

    func findRows(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer, limit: Int
    ) async throws(BridgeError) -> Int? {
        try await worker.findRows(request, keys: keys, into: buffer, limit: limit)
    }

    func drawKeys(_ request: ComparisonRequest, count: Int, seed: UInt64) async throws(BridgeError) -> [KeyImage] {
        try await worker.drawKeys(request, count: count, seed: seed)
    }

    func boundary(_ request: ComparisonRequest, rows: Int) async throws(BridgeError) -> KeyImage? {
        try await worker.boundary(request, rows: rows)
    }

    func digest(_ request: ComparisonRequest, buckets: Int) async throws(BridgeError) -> [RowDigest] {
        throw Self.noHashes()
    }

    func openHashes(
        _ request: ComparisonRequest, buckets: Int, wanted: Set<Int>
    ) async throws(BridgeError) -> any RowStream {
        throw Self.noHashes()
    }

    func findHashes(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer
    ) async throws(BridgeError) -> Int {
        throw Self.noHashes()
    }

    func close() async { await worker.close() }

    private static func noHashes() -> BridgeError {
        BridgeError(.internalFault, "SQLite was asked for hashes, which its layouts do not offer")
    }
}

/// Rows of one request, read on the view's thread.
private final class SQLiteRowStream: RowStream {
    private let worker: ViewWorker
    private let number: Int

    init(_ worker: ViewWorker, number: Int) {
        self.worker = worker
        self.number = number
    }

    func read(into buffer: RecordBuffer, limit: Int) async throws(BridgeError) -> Int {
        try await worker.read(number, into: buffer, limit: limit)
    }

    func close() async { await worker.closeRows(number) }
}

/// The view's connection, and what is open on it.
private actor ViewWorker {
    private struct Asked: Hashable {
        let layout: ComparisonLayout
        let rowFilter: String?
    }

    private struct OpenRows {
        let table: ComparedTable
        let statement: SQLiteStatement
    }

    private let executor = ThreadExecutor(name: "sqlite-view")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private var connection: SQLiteConnection?
    private var tables: [Asked: ComparedTable] = [:]
    /// A closed or finished stream has no entry.
    private var streams: [Int: OpenRows] = [:]
    private var streamCount = 0

    func open(
        path: String, mark: @Sendable (SQLiteConnection) throws(BridgeError) -> Position
    ) throws(BridgeError) -> Position {
        // Opened for writing, because a WAL's index may have to be made; nothing is written.
        let connection = try SQLiteConnection(path: path, access: .readWrite, busyTimeout: 10_000)
        try connection.database.execute("PRAGMA query_only = 1")
        // A deferred transaction has its snapshot from the first read on, which is that of the mark.
        try connection.database.execute("BEGIN DEFERRED")
        let position = try mark(connection)
        self.connection = connection
        return position
    }

    private func table(_ request: ComparisonRequest) throws(BridgeError) -> ComparedTable {
        guard let connection else { throw BridgeError.comparisonClosed() }
        let name = Asked(layout: request.layout, rowFilter: request.rowFilter)
        if let known = tables[name] { return known }
        let table = try ComparedTable(request, connection)
        tables[name] = table
        return table
    }

    func openRows(_ request: ComparisonRequest) throws(BridgeError) -> Int {
        let table = try table(request)
        streamCount += 1
        streams[streamCount] = OpenRows(table: table, statement: try table.rows(request))
        return streamCount
    }

    func read(_ number: Int, into buffer: RecordBuffer, limit: Int) throws(BridgeError) -> Int {
        guard connection != nil else { throw BridgeError.comparisonClosed() }
        guard let rows = streams[number] else { return 0 }
        let (table, statement) = (rows.table, rows.statement)
        let start = buffer.count
        var count = 0
        do throws(BridgeError) {
            repeat {
                guard try statement.step() else {
                    streams[number] = nil
                    break
                }
                try table.append(statement, to: buffer)
                count += 1
            } while buffer.count - start < limit
        } catch {
            // The statement would begin anew, and rows would come twice.
            streams[number] = nil
            throw error
        }
        return count
    }

    func closeRows(_ number: Int) { streams[number] = nil }

    func findRows(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer, limit: Int
    ) throws(BridgeError) -> Int? {
        try table(request).find(keys, into: buffer, limit: keys.count > 1 ? limit : .max)
    }

    func drawKeys(_ request: ComparisonRequest, count: Int, seed: UInt64) throws(BridgeError) -> [KeyImage] {
        try table(request).draw(count, seed: seed)
    }

    func boundary(_ request: ComparisonRequest, rows: Int) throws(BridgeError) -> KeyImage? {
        try table(request).boundary(request, rows: rows)
    }

    func close() {
        streams.removeAll()
        tables.removeAll()
        connection?.database.rollback()
        connection = nil
    }
}

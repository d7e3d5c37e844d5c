import BridgeCore

/// A picture of the database: one REPEATABLE READ transaction on a connection and a thread of its own.
actor PostgresView: ComparisonView {
    private nonisolated let executor = ThreadExecutor(name: "pg-check-view")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private nonisolated let string: ConnectionString
    private nonisolated let link: LinkDescription
    private nonisolated let interrupter: Interrupter
    private nonisolated let spare: SpareConnection
    private nonisolated let known: KnownTables
    private nonisolated let mark: ViewMark
    private var connection: PostgresConnection?
    private var snapshot = ""
    private var tables: [ComparisonLayout: ComparedTable] = [:]

    nonisolated var sees: ViewMark { mark }

    /// A check's many short expressions gain nothing from being compiled.
    private static let settings = "SET jit = off; RESET max_parallel_workers_per_gather"
    /// Beside an application at work a check takes one processor of the server.
    static let sparingSettings = "SET jit = off; SET max_parallel_workers_per_gather = 0"

    private init(
        _ string: ConnectionString, _ link: LinkDescription, _ spare: SpareConnection, _ known: KnownTables,
        _ opened: sending Opened
    ) {
        self.string = string
        self.link = link
        self.spare = spare
        self.known = known
        interrupter = opened.connection.interrupter
        mark = opened.mark
        snapshot = opened.snapshot
        connection = opened.connection
    }

    private struct Opened {
        var connection: PostgresConnection
        var mark: ViewMark
        var snapshot: String
    }

    /// Opens one. Blocks; called on the session's thread.
    /// - Parameters:
    ///   - spare: where the connection of an earlier view may be, and this one's goes.
    ///   - known: what earlier views read of the catalog.
    static func open(
        _ string: ConnectionString, _ link: LinkDescription, role: ComparisonRole, sparing: Bool, _ spare: SpareConnection,
        _ known: KnownTables
    ) throws(BridgeError) -> PostgresView {
        let connection: PostgresConnection
        if let kept = spare.take() {
            connection = kept
        } else {
            connection = try PostgresConnection(string, applicationName: "bridge check \(link.name)")
        }
        try connection.execute(sparing ? sparingSettings : settings)
        try connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        // The first query takes the snapshot; the mark is read in it, whatever it is.
        let mark: ViewMark
        switch role {
        case .source:
            let text = try connection.rows("SELECT pg_current_snapshot()", during: "taking a snapshot").first?[0]
            guard let text, let snapshot = TransactionSnapshot(text) else {
                throw BridgeError(.serverRefused, "the server did not describe its snapshot")
            }
            mark = .transactions(snapshot)
        case .target:
            guard let state = try LinkRecords.read(link, connection) else { throw LinkRecords.missing(link) }
            guard let checkpoint = state.checkpoint else {
                throw BridgeError(
                    .inconclusive, "the copy is not finished, so there is nothing to compare yet",
                    context: [.init(.migration, link.name)])
            }
            mark = .before(checkpoint.frontier)
        }
        guard let exported = try connection.rows("SELECT pg_export_snapshot()", during: "taking a snapshot").first?[0]
        else { throw BridgeError(.serverRefused, "the server did not export its snapshot") }
        return PostgresView(
            string, link, spare, known, Opened(connection: connection, mark: mark, snapshot: exported))
    }

    // MARK: Rows

    func openRows(_ request: ComparisonRequest) async throws(BridgeError) -> any RowStream {
        let query = try query(request)
        return try await stream(
            query.select(where: try bounds(request, query)), query.table.columns.map(\.column), request)
    }

    func openHashes(
        _ request: ComparisonRequest, buckets: Int, wanted: Set<Int>
    ) async throws(BridgeError) -> any RowStream {
        let query = try query(request)
        return try await stream(
            query.hashes(buckets: max(1, buckets), wanted: wanted, where: try bounds(request, query)),
            query.hashColumns, request)
    }

    private func stream(
        _ sql: String, _ columns: [Relation.Column], _ request: ComparisonRequest
    ) async throws(BridgeError) -> any RowStream {
        let stream = try PostgresRowStream(columns)
        do throws(BridgeError) {
            try await stream.start(
                string, snapshot: snapshot, query: sql, applicationName: "bridge check \(link.name)")
        } catch {
            await stream.close()
            throw error.adding(.table, request.layout.table.description)
        }
        return stream
    }

    @discardableResult
    func findRows(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer
    ) async throws(BridgeError) -> Int {
        try await cancellable { () throws(BridgeError) in
            let query = try query(request)
            return try find(query, keys[...], query.table.columns.map(\.column), into: buffer) { query.select(keys: $0) } ?? 0
        }
    }

    func findRows(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer, limit: Int
    ) async throws(BridgeError) -> Int? {
        try await cancellable { () throws(BridgeError) in
            let query = try query(request)
            let end = keys.count > 1 && limit < .max - buffer.count ? buffer.count + limit : .max
            return try find(query, keys[...], query.table.columns.map(\.column), into: buffer, upTo: end) {
                query.select(keys: $0)
            }
        }
    }

    @discardableResult
    func findHashes(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer
    ) async throws(BridgeError) -> Int {
        try await cancellable { () throws(BridgeError) in
            let query = try query(request)
            return try find(query, keys[...], query.hashColumns, into: buffer) { query.hashes(keys: $0) } ?? 0
        }
    }

    /// Looks keys up. A key whose text the column's type cannot read has no row; which one it is shows by halving.
    /// - Parameter end: how large the buffer may get; beyond it nothing is appended, and the answer is nil.
    private func find(
        _ query: ComparisonQuery, _ keys: ArraySlice<KeyImage>, _ columns: [Relation.Column], into buffer: RecordBuffer,
        upTo end: Int = .max, _ sql: (KeyList) -> String
    ) throws(BridgeError) -> Int? {
        guard let list = try KeyList(keys, query.table) else { return 0 }
        let connection = try connected()
        let start = buffer.count
        try connection.execute("SAVEPOINT bridge_find")
        do throws(BridgeError) {
            try connection.beginCopyOut("COPY (\(sql(list))) TO STDOUT (FORMAT binary)", during: "looking up rows")
            var rows = BinaryRows(columns)
            var data = PGCopyData()
            var count = 0
            var isTooMuch = false
            while try connection.nextCopy(&data) {
                // The rest must be read, and need not be held.
                guard !isTooMuch else { continue }
                if try rows.take(data.bytes, asRows: true, into: buffer) { count += 1 }
                isTooMuch = buffer.count > end
            }
            try connection.execute("RELEASE SAVEPOINT bridge_find")
            if isTooMuch { buffer.truncate(to: start) }
            return isTooMuch ? nil : count
        } catch where error.sqlState?.hasPrefix("22") == true && !connection.isBroken {
            buffer.truncate(to: start)
            try connection.execute("ROLLBACK TO SAVEPOINT bridge_find; RELEASE SAVEPOINT bridge_find")
            guard keys.count > 1 else { return 0 }
            let middle = keys.startIndex + keys.count / 2
            guard let first = try find(query, keys[..<middle], columns, into: buffer, upTo: end, sql) else { return nil }
            guard let second = try find(query, keys[middle...], columns, into: buffer, upTo: end, sql) else {
                buffer.truncate(to: start)
                return nil
            }
            return first + second
        } catch {
            throw error.adding(.table, query.table.name.description)
        }
    }

    // MARK: Samples

    /// Bytes of keys that are drawn at once.
    private static let drawnBytes = 64 << 20

    func drawKeys(_ request: ComparisonRequest, count: Int, seed: UInt64) async throws(BridgeError) -> [KeyImage] {
        try await cancellable { () throws(BridgeError) in
            let query = try query(request)
            let connection = try connected()
            do throws(BridgeError) {
                let pages = try connection.rows(
                    ComparisonQuery.pages, ["\(query.table.oid)"], during: "drawing rows").first?[0].flatMap { Int64($0) }
                try connection.beginCopyOut(
                    "COPY (\(query.draw(count, seed: seed, pages: pages ?? 0))) TO STDOUT (FORMAT binary)", during: "drawing rows")
                var rows = BinaryRows(query.table.identity.map(\.column))
                var data = PGCopyData()
                let buffer = RecordBuffer()
                var keys: [KeyImage] = []
                var size = 0
                while try connection.nextCopy(&data) {
                    guard size < Self.drawnBytes else { continue }
                    buffer.removeAll()
                    guard try rows.take(data.bytes, asRows: true, into: buffer) else { continue }
                    keys.append(KeyImage(Array(buffer.bytes.dropFirst(4))))
                    size += buffer.count
                }
                return keys
            } catch { throw error.adding(.table, query.table.name.description) }
        }
    }

    // MARK: Ranges and digests

    func boundary(_ request: ComparisonRequest, rows: Int) async throws(BridgeError) -> KeyImage? {
        try await cancellable { () throws(BridgeError) in
            let query = try query(request)
            guard query.table.keyOrder != nil, let key = query.table.keys.first else {
                throw BridgeError(.internalFault, "a table without an order has no ranges")
            }
            let conditions = try bounds(request, query)
            guard let far = try one(query.key(after: max(1, rows), where: conditions), key),
                let near = try one(query.key(after: 0, where: conditions), key)
            else { return nil }
            // Many rows can share the first column of their key; a range that begins where it ends would hold none.
            guard far == near else { return far }
            return try one(query.key(above: try literal(near, key), where: conditions), key)
        }
    }

    /// The one cell that a query gives, as an image.
    private func one(_ sql: String, _ key: ComparedTable.Column) throws(BridgeError) -> KeyImage? {
        let result = try connected().query(sql, binary: true, during: "cutting a table into ranges")
        guard result.rowCount > 0, let bytes = result.bytes(0, 0) else { return nil }
        let buffer = RecordBuffer(capacity: 64)
        buffer.beginRowImage(columns: 1)
        try BinaryValue(key.column.type).append(bytes, to: buffer)
        return KeyImage(Array(buffer.bytes))
    }

    func digest(_ request: ComparisonRequest, buckets: Int) async throws(BridgeError) -> [RowDigest] {
        try await cancellable { () throws(BridgeError) in
            let query = try query(request)
            var digests = [RowDigest](repeating: RowDigest(), count: max(1, buckets))
            let sql = query.digest(buckets: max(1, buckets), where: try bounds(request, query))
            do throws(BridgeError) {
                for row in try connected().rows(sql, during: "hashing a table") {
                    guard let bucket = row[0].flatMap({ Int($0) }), digests.indices.contains(bucket),
                        let count = row[1].flatMap({ UInt64($0) }), let sum = row[2].flatMap({ Int128($0) })
                    else { throw BridgeError(.serverRefused, "the server's hashes cannot be read") }
                    // As if each signed hash had been widened and added with wrapping, which a hash read as a cell is too.
                    digests[bucket] = RowDigest(count: count, sum: UInt128(truncatingIfNeeded: sum))
                }
            } catch { throw error.adding(.table, query.table.name.description) }
            return digests
        }
    }

    // MARK: Plumbing

    private func connected() throws(BridgeError) -> PostgresConnection {
        guard let connection else { throw BridgeError(.connectionLost, "the view is closed") }
        return connection
    }

    /// The query for a request, with the table held as the snapshot has it.
    private func query(_ request: ComparisonRequest) throws(BridgeError) -> ComparisonQuery {
        if let table = tables[request.layout] { return ComparisonQuery(table: table, rowFilter: request.rowFilter) }
        let layout = request.layout
        let connection = try connected()
        let missing = BridgeError(.tableMissing, "the table is not there any more", context: [.init(.table, layout.table.description)])
        guard let table = try known.table(layout, connection) else { throw missing }
        do throws(BridgeError) {
            try HeldTable.hold(
                table.name, isPartitioned: table.isPartitioned, connection, during: "locking a table for its check")
        } catch { throw error.adding(.table, layout.table.description) }
        guard layout.serverHash == nil || layout.serverHash == table.serverHash else {
            throw BridgeError(.schemaChanged, "a table changed since the check began", context: [.init(.table, layout.table.description)])
        }
        tables[layout] = table
        return ComparisonQuery(table: table, rowFilter: request.rowFilter)
    }

    private func bounds(_ request: ComparisonRequest, _ query: ComparisonQuery) throws(BridgeError) -> [String] {
        guard request.from != nil || request.to != nil else { return [] }
        guard query.table.keyOrder != nil, let key = query.table.keys.first else {
            throw BridgeError(.internalFault, "a table without an order has no ranges")
        }
        var from: String?
        var to: String?
        if let image = request.from { from = try literal(image, key) }
        if let image = request.to { to = try literal(image, key) }
        return query.bounds(from: from, to: to)
    }

    /// A bound as a literal.
    private func literal(_ image: KeyImage, _ key: ComparedTable.Column) throws(BridgeError) -> String {
        let value = RecordBuffer(capacity: 256)
        let result = image.bytes.withUnsafeBytes { (bytes) -> Result<String, BridgeError> in
            do throws(BridgeError) {
                var reader = ByteReader(bytes)
                var cells = try RowImage(&reader).cells
                guard cells.remaining == 1, let cell = try cells.next(), cell.tag != .null else {
                    throw BridgeError(.internalFault, "a range's bound is not one value")
                }
                // A narrower integer column compares with any 64-bit bound; the cast would refuse it.
                if let number = cell.integer { return .success("'\(number)'::pg_catalog.int8") }
                do throws(CellRefusal) {
                    try CellEncoder.append(cell, as: key.type, style: .parameter, to: value)
                } catch { throw BridgeError(.internalFault, "a range's bound is not a value of the key's type") }
                return .success(SQLArray.literal(value.bytes) + "::" + key.castName)
            } catch { return .failure(error) }
        }
        return try result.get()
    }

    /// Runs what blocks; when the task is cancelled, its statement is too, and the view is of no more use.
    private func cancellable<Value>(_ body: () throws(BridgeError) -> Value) async throws(BridgeError) -> Value {
        let interrupter = interrupter
        let result: Result<Value, BridgeError> = await withTaskCancellationHandler {
            self.result(of: body)
        } onCancel: {
            interrupter.signal()
        }
        return try result.get()
    }

    /// A method, so that the closure above captures the actor: one that does not is run on the cooperative pool.
    private func result<Value>(of body: () throws(BridgeError) -> Value) -> Result<Value, BridgeError> {
        preconditionIsolated()
        do throws(BridgeError) { return .success(try body()) } catch { return .failure(error) }
    }

    func close() {
        tables = [:]
        guard let connection else { return }
        self.connection = nil
        spare.keep(connection)
    }
}

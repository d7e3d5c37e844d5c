import BridgeCore

/// Rows of a view, by COPY in a session of their own that has joined the view's snapshot. So a stream can be given up at
/// any time, and the view used while it is open: nothing that happens here can abort the view's transaction.
actor PostgresRowStream: RowStream {
    private nonisolated let executor = ThreadExecutor(name: "pg-check-rows")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private nonisolated let interrupter: Interrupter
    private var connection: PostgresConnection?
    private var rows: BinaryRows
    private var hasEnded = false

    init(_ columns: [Relation.Column]) throws(BridgeError) {
        rows = BinaryRows(columns)
        interrupter = try Interrupter()
    }

    /// Joins the snapshot and begins. The view holds its lock on the table meanwhile, so it needs no check here.
    func start(
        _ string: ConnectionString, snapshot: String, query: String, applicationName: String
    ) throws(BridgeError) {
        let connection = try PostgresConnection(string, applicationName: applicationName, interrupter: interrupter)
        try connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        do throws(BridgeError) {
            try connection.execute("SET TRANSACTION SNAPSHOT \(quoteLiteral(snapshot))")
        } catch {
            guard error.sqlState == "22023" || error.sqlState == "42704" else { throw error }
            throw BridgeError(.connectionLost, "the view's snapshot is gone")
        }
        // Behind somebody who waits to alter or empty the table, and for the view's other connection to end, it would wait for
        // ever, and hold him up as long: the view is given up instead.
        try connection.execute(PostgresView.sparingSettings + "; SET lock_timeout = '500ms'")
        do throws(BridgeError) {
            try connection.beginCopyOut("COPY (\(query)) TO STDOUT (FORMAT binary)", during: "reading rows for a check")
        } catch where error.sqlState == "55P03" {
            throw BridgeError(.connectionLost, "somebody waits to alter the table that a view reads")
        }
        self.connection = connection
    }

    func read(into buffer: RecordBuffer, limit: Int) async throws(BridgeError) -> Int {
        let interrupter = interrupter
        let result: Result<Int, BridgeError> = await withTaskCancellationHandler {
            do throws(BridgeError) { return .success(try next(into: buffer, limit: limit)) } catch { return .failure(error) }
        } onCancel: {
            interrupter.signal()
        }
        return try result.get()
    }

    private func next(into buffer: RecordBuffer, limit: Int) throws(BridgeError) -> Int {
        guard !hasEnded else { return 0 }
        guard let connection else { throw BridgeError(.connectionLost, "the stream is closed") }
        let end = buffer.count + max(1, limit)
        var count = 0
        var data = PGCopyData()
        while buffer.count < end {
            guard try connection.nextCopy(&data) else {
                hasEnded = true
                self.connection = nil
                break
            }
            if try rows.take(data.bytes, asRows: true, into: buffer) { count += 1 }
        }
        return count
    }

    func close() {
        if !hasEnded { connection?.cancel() }
        connection = nil
    }
}

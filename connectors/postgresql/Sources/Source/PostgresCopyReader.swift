import BridgeCore

/// Reads one table in the snapshot by COPY, over a session and a thread of its own.
actor PostgresCopyReader: CopyReader {
    nonisolated let executor = ThreadExecutor(name: "pg-copy")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    nonisolated let position: Position
    nonisolated let columns: [Relation.Column]
    private nonisolated let connectionString: ConnectionString
    private nonisolated let format: CopyFormat
    private nonisolated let layout: CopyColumns
    private var connection: PostgresConnection?
    private var data = PGCopyData()
    private var rows: BinaryRows
    private var hasEnded = false

    init(_ connectionString: ConnectionString, position: Position, format: CopyFormat, columns: CopyColumns) {
        self.connectionString = connectionString
        self.position = position
        self.format = format
        layout = columns
        self.columns = columns.columns
        rows = BinaryRows(columns.columns)
    }

    /// Joins the snapshot and begins the COPY.
    /// - Throws: `connectionLost` if the snapshot is gone: a new one is needed then.
    func start(
        _ table: TableSchema, mapping: TableMapping, snapshot: String, applicationName: String
    ) throws(BridgeError) {
        let action = "copying a table"
        do throws(BridgeError) {
            let connection = try PostgresConnection(connectionString, applicationName: applicationName)
            try connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            do throws(BridgeError) {
                try connection.execute("SET TRANSACTION SNAPSHOT \(quoteLiteral(snapshot))")
            } catch {
                guard error.sqlState == "22023" || error.sqlState == "42704" else { throw error }
                throw BridgeError(.connectionLost, "the copy's snapshot is gone", cause: nil)
            }
            let kind = try connection.rows(
                "SELECT relkind FROM pg_class WHERE oid = to_regclass($1)", [table.name.quoted], during: action)
            try connection.beginCopyOut(
                layout.statement(table, mapping, format, isPartitioned: kind.first?[0] == "p"), during: action)
            self.connection = connection
        } catch {
            throw error.adding(.table, table.name.description)
        }
    }

    /// The stream as it comes. Where the format has a trailer it may come in the read that returns 0.
    func read(into buffer: RecordBuffer, limit: Int) throws(BridgeError) -> Int {
        guard let connection, !hasEnded else { return 0 }
        let end = buffer.count + max(1, limit)
        var count = 0
        while buffer.count < end {
            guard try connection.nextCopy(&data) else {
                hasEnded = true
                break
            }
            let bytes = data.bytes
            if format == .postgresText {
                buffer.append(bytes)
                count += 1
            } else {
                let isRow = try rows.take(bytes, asRows: format == .rows, into: buffer)
                if isRow { count += 1 }
            }
        }
        return count
    }

    func close() {
        if !hasEnded { connection?.cancel() }
        connection = nil
    }
}

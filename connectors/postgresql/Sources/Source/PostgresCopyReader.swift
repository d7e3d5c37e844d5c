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

    /// Joins the snapshot and begins the COPY.
    /// - Throws: `connectionLost` if the snapshot is gone, or no longer shows the table's rows: a new one is needed then.
    ///   `serverBusy` if the table is locked for long.
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
            let isPartitioned = kind.first?[0] == "p"
            try Self.holdFiles(of: table.name, isPartitioned: isPartitioned, connection)
            try connection.beginCopyOut(
                layout.statement(table, mapping, format, isPartitioned: isPartitioned), during: action)
            self.connection = connection
        } catch {
            throw error.adding(.table, table.name.description)
        }
    }

    /// Locks the table against a rewrite, and proves that none came after the snapshot.
    ///
    /// A rewritten table is empty for older snapshots (PostgreSQL's manual, "Caveats" of concurrency control): its rows
    /// carry the number of the transaction that rewrote it. The snapshot sees the table's file of its own time in
    /// pg_class, while pg_relation_filenode() looks it up as it is now. COPY takes the partitions as they are now too, so
    /// they must be those of the snapshot.
    private static func holdFiles(
        of table: TableName, isPartitioned: Bool, _ connection: PostgresConnection
    ) throws(BridgeError) {
        let action = "locking a table for its copy"
        // It waits for DDL only, but must not do so for long: the snapshot holds back VACUUM on the source.
        try connection.execute(
            """
            SET LOCAL lock_timeout = '5s'; LOCK TABLE \(isPartitioned ? "" : "ONLY ")\(table.quoted) IN ACCESS SHARE MODE; \
            SET LOCAL lock_timeout = 0
            """, during: action)
        let changed = try connection.rows(filesChangedQuery, [table.quoted], during: action)
        guard changed.first?[0] == "f" else {
            throw BridgeError(.connectionLost, "the table was rewritten on the source after the snapshot was taken")
        }
    }

    /// Whether the table or one of its partitions is not what it was in the snapshot. Partitioned and foreign tables have
    /// no file. A partition whose concurrent detaching has begun is no longer read.
    private static let filesChangedQuery = """
        WITH RECURSIVE seen(oid, relkind, file) AS (
          SELECT c.oid, c.relkind, c.relfilenode FROM pg_class c WHERE c.oid = to_regclass($1)
          UNION ALL
          SELECT c.oid, c.relkind, c.relfilenode
          FROM seen s
          JOIN pg_inherits i ON s.relkind = 'p' AND i.inhparent = s.oid AND NOT i.inhdetachpending
          JOIN pg_class c ON c.oid = i.inhrelid),
        present(oid) AS (
          SELECT to_regclass($1)::oid UNION SELECT p.relid::oid FROM pg_partition_tree(to_regclass($1)) p)
        SELECT EXISTS (
          SELECT FROM seen s FULL JOIN present p ON p.oid = s.oid
          WHERE s.oid IS NULL OR p.oid IS NULL OR nullif(s.file, 0) IS DISTINCT FROM pg_relation_filenode(s.oid))
        """

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

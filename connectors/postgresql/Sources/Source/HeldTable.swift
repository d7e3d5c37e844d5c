import BridgeCore

/// Keeps a table as a snapshot knows it.
enum HeldTable {
    /// Locks the table against a rewrite until the transaction ends, and proves that none came after the snapshot.
    ///
    /// A rewritten table is empty for older snapshots (PostgreSQL's manual, "Caveats" of concurrency control): its rows
    /// carry the number of the transaction that rewrote it. The snapshot sees the table's file of its own time in
    /// pg_class, while pg_relation_filenode() looks it up as it is now. A reader takes the partitions as they are now too,
    /// so they must be those of the snapshot.
    /// - Throws: `connectionLost` if the table was rewritten: a new snapshot is needed then. `serverBusy` if it is locked
    ///   for long.
    static func hold(
        _ table: TableName, isPartitioned: Bool, _ connection: PostgresConnection, during action: String
    ) throws(BridgeError) {
        // It waits for DDL only, but must not do so for long: the snapshot holds back VACUUM.
        try connection.execute(
            """
            SET LOCAL lock_timeout = '5s'; LOCK TABLE \(isPartitioned ? "" : "ONLY ")\(table.quoted) IN ACCESS SHARE MODE; \
            SET LOCAL lock_timeout = 0
            """, during: action)
        let changed = try connection.rows(filesChangedQuery, [table.quoted], during: action)
        guard changed.first?[0] == "f" else {
            throw SnapshotSession.changed
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
}

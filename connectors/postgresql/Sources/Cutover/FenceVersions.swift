import BridgeCore

/// What fences, and the watch of the way back, made of the tables' rows in `pg_class`.
///
/// A first trigger writes that row anew, as DDL does that matters to a check. The two are told apart by a record of the
/// version that the trigger's transaction found and the one that it left. Only GRANT, which is harmless, can come in between.
struct FenceVersions {
    private var before: [String: String] = [:]

    private static func key(_ relation: String, _ version: String) -> String { "\(relation)/\(version)" }

    init(_ connection: PostgresConnection) throws(BridgeError) {
        let action = "reading the cutover's records"
        guard try connection.rows("SELECT to_regclass('_bridge.cutover_version') IS NOT NULL", during: action).first?[0] == "t"
        else { return }
        for row in try connection.rows("SELECT relation, after, before FROM _bridge.cutover_version", during: action) {
            if let relation = row[0], let after = row[1], let before = row[2] { self.before[Self.key(relation, after)] = before }
        }
    }

    /// The version that there would be without any fence.
    func original(of version: String?, relation: String?) -> String? {
        guard let relation, var found = version else { return version }
        // No longer than there are records, whatever stands in them.
        for _ in 0..<before.count {
            guard let older = before[Self.key(relation, found)] else { break }
            found = older
        }
        return found
    }

    /// Keeps what the open transaction has changed since the catalog was read under its locks.
    static func note(_ catalog: FenceCatalog, _ connection: PostgresConnection) throws(BridgeError) {
        try note(catalog.text.migration, catalog.relations.map { ("\($0.oid)", $0.version) }, connection)
    }

    /// Keeps what `body` changes of a table and its partitions, in the open transaction; where no cutover has records yet,
    /// there is nobody to be told.
    static func noting(
        _ migration: String, table: String, _ connection: PostgresConnection, _ body: () throws(BridgeError) -> Void
    ) throws(BridgeError) {
        let action = "reading the versions of a table"
        guard try connection.rows("SELECT to_regclass('_bridge.cutover_version') IS NOT NULL", during: action).first?[0] == "t"
        else { return try body() }
        // The lock that a trigger takes: nobody else changes the table in between.
        try connection.execute("LOCK TABLE \(table) IN SHARE ROW EXCLUSIVE MODE", during: action)
        let before = try connection.rows(
            """
            SELECT c.oid, c.xmin FROM pg_class c WHERE c.oid = $1::text::regclass
              OR c.oid IN (SELECT relid FROM pg_partition_tree($1::text::regclass))
            """, [table], during: action)
        try body()
        try note(migration, before.compactMap { row in row[0].flatMap { oid in row[1].map { (oid, $0) } } }, connection)
    }

    private static func note(
        _ migration: String, _ relations: [(oid: String, version: String)], _ connection: PostgresConnection
    ) throws(BridgeError) {
        _ = try connection.query(
            """
            INSERT INTO _bridge.cutover_version (migration, relation, before, after)
            SELECT $1, w.relation, w.before, c.xmin::text FROM unnest($2::oid[], $3::text[]) AS w(relation, before)
            JOIN pg_class c ON c.oid = w.relation WHERE c.xmin::text <> w.before
            """,
            [migration, "{\(relations.map(\.oid).joined(separator: ","))}", ArrayLiteral.make(relations.map(\.version))],
            during: "keeping the versions of a table")
    }
}

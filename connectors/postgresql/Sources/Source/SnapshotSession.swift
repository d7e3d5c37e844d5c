import BridgeCore

/// What a session does that reads in an exported snapshot.
enum SnapshotSession {
    /// Begins a transaction in the snapshot.
    /// - Throws: `connectionLost` if it is gone.
    static func join(_ snapshot: String, _ connection: PostgresConnection) throws(BridgeError) {
        try connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        do throws(BridgeError) {
            try connection.execute("SET TRANSACTION SNAPSHOT \(quoteLiteral(snapshot))")
        } catch {
            guard error.sqlState == "22023" || error.sqlState == "42704" else { throw error }
            throw BridgeError(.connectionLost, "the copy's snapshot is gone", cause: nil)
        }
    }

    /// A table is not what it was in the snapshot.
    static var changed: BridgeError {
        BridgeError(.connectionLost, "the table was rewritten after the snapshot was taken")
    }

    /// The tables' names as they are now, with their schemas, quoted. Tables that are gone are left out.
    static func names(of relations: [UInt32], _ connection: PostgresConnection) throws(BridgeError) -> [UInt32: String] {
        // regclass looks the name up as it is now; the search path holds pg_catalog alone, so the schema is always there.
        let rows = try connection.rows(
            """
            SELECT r.oid, r.oid::regclass::text FROM unnest($1::oid[]) r(oid) WHERE pg_table_is_visible(r.oid) IS NOT NULL
            """, [ArrayLiteral.make(relations)], during: "copying a table")
        var names: [UInt32: String] = [:]
        for row in rows { if let oid = row[0].flatMap({ UInt32($0) }) { names[oid] = row[1] } }
        return names
    }
}

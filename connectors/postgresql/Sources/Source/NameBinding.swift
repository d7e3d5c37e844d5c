import BridgeCore

/// Proves that a name still means the table that it meant when the capture was made. Two tables that swapped their names are
/// both published, and would be copied and journaled under each other's.
struct NameBinding {
    let origin: CaptureOrigin
    let session: PostgresConnection

    /// - Parameter oid: what the name means now.
    /// - Throws: `tableMissing` if the table that the name meant is called otherwise now; `captureBroken` if it is gone.
    func check(_ name: TableName, _ oid: UInt32) throws(BridgeError) {
        // Migrations that began with an older version know no names.
        let known = origin.identity.filter { $0.key.hasPrefix(OriginKey.tablePrefix) }
        let digest = CaptureNames.digest(name)
        guard !known.isEmpty, known[OriginKey.tablePrefix + String(oid)] != digest else { return }
        guard let before = known.first(where: { $0.value == digest })?.key.dropFirst(OriginKey.tablePrefix.count),
            let current = try currentName(of: String(before))
        else {
            throw BridgeError(
                .captureBroken, "the table was replaced by another one of its name", context: [.init(.table, name.description)])
        }
        throw CoverageFacts.renamed(name, current, isTaken: true)
    }

    /// regclass looks the name up as it is now, also where the session reads an older picture of the catalog; the search
    /// path holds pg_catalog alone, so the schema is always there.
    private func currentName(of oid: String) throws(BridgeError) -> TableName? {
        let row = try session.rows(
            """
            SELECT p[1], p[2] FROM (SELECT parse_ident($1::oid::regclass::text) AS p
            WHERE pg_table_is_visible($1::oid) IS NOT NULL) AS n
            """, [oid], during: "looking for a renamed table"
        ).first
        guard let schema = row?[0], let name = row?[1] else { return nil }
        return TableName(schema: schema, name: name)
    }
}

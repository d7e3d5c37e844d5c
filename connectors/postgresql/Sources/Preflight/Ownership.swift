import BridgeCore

/// What makes the session's role as good as a table's owner.
enum Ownership {
    /// Membership in the owner, unless that would make a superuser of the role: then the table itself changes hands, and
    /// whoever was a superuser may do with it what he could before.
    static func statements(
        _ oid: UInt32, _ name: TableName, _ session: PostgresConnection
    ) throws(BridgeError) -> [String] {
        let row = try session.rows(
            """
            SELECT quote_ident(current_user), quote_ident(o.rolname), o.rolsuper, pg_has_role(o.oid, 'MEMBER'), r.rolinherit
            FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner JOIN pg_roles r ON r.rolname = current_user WHERE c.oid = $1::oid
            """, [String(oid)], during: "looking at the table's owner"
        ).first ?? []
        guard row.count == 5, let role = row[0], let owner = row[1] else { return [] }
        if row[2] == "t" { return ["ALTER TABLE \(name.quoted) OWNER TO \(role)"] }
        // Since version 16 each membership says for itself whether it is inherited.
        let inherits = session.serverVersion >= 160_000
        if inherits { return ["GRANT \(owner) TO \(role) WITH INHERIT TRUE"] }
        return (row[3] == "t" ? [] : ["GRANT \(owner) TO \(role)"]) + (row[4] == "t" ? [] : ["ALTER ROLE \(role) INHERIT"])
    }
}

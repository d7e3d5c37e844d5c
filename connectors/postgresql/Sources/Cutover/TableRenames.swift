import BridgeCore

/// Gives the tables that the application has left their new names.
///
/// What refers to a table by its number goes with it: the fence's triggers, views, foreign keys, the sequences that its
/// columns own, its partitions. Indexes, constraints and sequences keep their names.
struct TableRenames {
    let fence: PostgresFence
    private var connection: PostgresConnection { fence.connection }

    init(_ fence: PostgresFence) { self.fence = fence }

    /// A rename waits for everybody's reads, and makes reads wait: its lock is asked for in short tries.
    private static let patience = Duration.seconds(30)

    func perform(_ tables: [OldTable], isTrial: Bool) throws(BridgeError) {
        let pending = try pending(tables, isTrial: isTrial)
        guard !isTrial else { return try requireRights(pending.map(\.relation)) }
        guard !pending.isEmpty else { return }
        let names = pending.map(\.old.table)
        try FenceLocks(connection: connection, mode: .accessExclusive).hold(
            { () throws(BridgeError) in try fence.read(names) }, until: .now + Self.patience
        ) { (_) throws(BridgeError) in
            for (old, relation) in try self.pending(tables, isTrial: false) {
                try connection.execute(
                    "ALTER TABLE \(relation.quoted) RENAME TO \(quoteIdentifier(old.newName))", during: "renaming an old table")
            }
        }
    }

    private func pending(
        _ tables: [OldTable], isTrial: Bool
    ) throws(BridgeError) -> [(old: OldTable, relation: FenceCatalog.Relation)] {
        let catalog = try fence.read(tables.map(\.table))
        let renamed = try PostgresCatalog(connection).resolve(tables.map { TableName(schema: $0.table.schema, name: $0.newName) })
        let taken = try taken(tables)
        let fenced = Set(
            catalog.triggers.filter {
                $0.function == fence.text.function && $0.arguments?.expiry == FenceText.Arguments.permanent
                    && $0.arguments?.root == $0.relation
            }.map(\.relation))
        var pending: [(old: OldTable, relation: FenceCatalog.Relation)] = []
        for (place, old) in tables.enumerated() {
            let oid = catalog.roots[old.table] ?? nil
            let sight = OldTable.Sight(
                isFenced: oid.map(fenced.contains) ?? false, isRenamed: renamed[place].map(fenced.contains) ?? false,
                isTaken: taken.contains(place))
            guard try old.isToBeRenamed(sight, isTrial: isTrial), let relation = catalog.relations.first(where: { $0.oid == oid })
            else { continue }
            pending.append((old, relation))
        }
        return pending
    }

    /// The places of the new names that something has: a table, an index, or a type, which a table brings with it. The name
    /// of an array gives way by itself.
    private func taken(_ tables: [OldTable]) throws(BridgeError) -> Set<Int> {
        let rows = try connection.rows(
            """
            SELECT w.i FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w(schema, name, i)
            JOIN pg_namespace n ON n.nspname = w.schema OR w.schema IS NULL AND n.nspname = ANY ($3::text[])
            WHERE EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = w.name)
              OR EXISTS (SELECT FROM pg_type t WHERE t.typnamespace = n.oid AND t.typname = w.name
                         AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid))
            """,
            [
                ArrayLiteral.make(tables.map(\.table.schema)), ArrayLiteral.make(tables.map(\.newName)),
                ArrayLiteral.make(connection.defaultSchemas),
            ], during: "looking up the old tables' new names")
        return Set(rows.compactMap { $0[0].flatMap { Int($0) }.map { $0 - 1 } })
    }

    private func requireRights(_ relations: [FenceCatalog.Relation]) throws(BridgeError) {
        let rows = try connection.rows(
            """
            SELECT DISTINCT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = ANY ($1::oid[]) AND NOT has_schema_privilege(n.oid, 'CREATE') ORDER BY 1
            """, [ArrayLiteral.make(relations.map(\.oid))], during: "looking at the role's rights")
        let schemas = rows.compactMap { $0[0] }
        guard !schemas.isEmpty else { return }
        throw BridgeError(
            .rightsMissing, "the role may not rename the old tables: it may make nothing in their schema",
            hint: "GRANT CREATE ON SCHEMA \(schemas.joined(separator: ", ")) TO \(Rights.role(connection)); or \(OldTable.leaving)")
    }
}

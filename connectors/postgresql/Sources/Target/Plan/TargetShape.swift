import BridgeCore

/// What of a target table's definition a plan is made from, as one value that changes with it: columns, unique indexes and
/// deferrable constraints.
///
/// Somebody may alter the table while changes are applied. A row that is taken out and put back by an older plan would lose
/// what it has in a new column, and a new deferrable constraint would not be looked at. So each transaction compares the
/// value, after its statements: what they wrote to is locked against all that could change it until the transaction ends.
enum TargetShape {
    /// SQLSTATE of ``check(of:)`` when a table has another shape: no other statement beside it fails with it.
    static let isOther = "2201F"

    /// For a schema and a name as expressions; NULL if there is no such table. Without pg_partition_tree(), which would wait
    /// for DDL on partitions that nothing is written to.
    private static func value(_ schema: String, _ name: String) -> String {
        """
        (SELECT pg_catalog.hashtextextended(pg_catalog.concat_ws('/', c.oid, c.relkind, \
        (SELECT pg_catalog.string_agg(ROW(a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.atthasdef, \
        a.attidentity, a.attgenerated, a.attcollation)::pg_catalog.text, ',' ORDER BY a.attnum) \
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), \
        (SELECT pg_catalog.string_agg(i.indexrelid::pg_catalog.text, ',' ORDER BY i.indexrelid) \
        FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid), \
        (SELECT pg_catalog.string_agg(o.oid::pg_catalog.text, ',' ORDER BY o.oid) FROM pg_catalog.pg_constraint o \
        WHERE o.condeferrable AND o.contype IN ('p', 'u', 'x') AND (o.conrelid = c.oid OR o.conparentid = 0) \
        AND o.conrelid = ANY (CASE c.relkind WHEN 'p' THEN ARRAY(WITH RECURSIVE tree(oid) AS (SELECT c.oid UNION ALL \
        SELECT i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid) SELECT t.oid FROM tree t) \
        ELSE ARRAY[c.oid] END))), 0)::pg_catalog.text \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace m ON m.oid = c.relnamespace \
        WHERE m.nspname = \(schema)::pg_catalog.name AND c.relname = \(name)::pg_catalog.name AND c.relkind IN ('r', 'p'))
        """
    }

    /// The tables of three arrays (schemas, names, shapes, given as expressions) that have another shape.
    private static func changed(_ arrays: [String]) -> String {
        let lists = arrays.map { "pg_catalog.unnest(\($0)::pg_catalog.text[])" }.joined(separator: ", ")
        return "SELECT w.s, w.n FROM ROWS FROM (\(lists)) AS w(s, n, v) "
            + "WHERE w.v IS DISTINCT FROM \(value("w.s", "w.n"))"
    }

    private static func check(_ arrays: [String]) -> String {
        "SELECT pg_catalog.sqrt((CASE WHEN EXISTS (\(changed(arrays))) THEN -1 ELSE 1 END)::pg_catalog.float8)"
    }

    /// Fails with ``isOther`` if a table of ``parameters(_:)`` has another shape.
    static let checkStatement = check(["$1", "$2", "$3"])

    static func parameters(_ plans: [RelationPlan]) -> [String] {
        [
            ArrayLiteral.make(plans.map { $0.table.name.schema }), ArrayLiteral.make(plans.map { $0.table.name.name }),
            ArrayLiteral.make(plans.map { $0.shape }),
        ]
    }

    /// The same statement with its values in it.
    static func check(of plans: [RelationPlan]) -> String { check(parameters(plans).map(quoteLiteral)) }

    /// Must be read before the rest of the definition: a change in between then shows.
    static func read(_ table: TableName, _ connection: PostgresConnection) throws(BridgeError) -> String? {
        let schema = table.schema ?? connection.defaultSchemas.first ?? "public"
        let rows = try connection.rows("SELECT " + value("$1", "$2"), [schema, table.name], during: "reading the target's catalog")
        return rows.first?.first.flatMap { $0 }
    }

    /// The first of the tables that has another shape than its plan was made from.
    static func firstChanged(_ plans: [RelationPlan], _ connection: PostgresConnection) throws(BridgeError) -> TableName? {
        let rows = try connection.rows(changed(["$1", "$2", "$3"]), parameters(plans))
        return rows.first.flatMap { row in row[1].map { TableName(schema: row[0], name: $0) } }
    }

    static func error(_ table: TableName?) -> BridgeError {
        BridgeError(
            .serverBusy, "the target table was altered while changes were applied",
            context: table.map { [.init(.table, $0.description)] } ?? [])
    }
}

import BridgeCore

/// A deferrable unique or exclusion constraint of a target table. In the replica role the server takes note of nothing
/// that would have to be checked later, so that rows which clash would be committed (requirement P26).
struct DeferredConstraint: Hashable, Sendable {
    var name: String
    /// The table that it is on, or the partition, for FROM.
    var table: String
    var isExclusion: Bool
    var nullsAreDistinct: Bool
    /// Each part: a quoted column name or an expression over column names.
    var parts: [String]
    /// The columns, where no part is an expression.
    var columns: [String]?
    /// The operator of each part that two rows may not answer all with true, for OPERATOR().
    var operators: [String]
    /// The WHERE of an exclusion constraint.
    var predicate: String?

    /// By a table's OID as parameter: one row a part, in order. A partition's constraint that comes from the table above
    /// is the one of that table.
    private static let query = """
        SELECT con.oid, con.conname, n.nspname, c.relname, c.relkind = 'p', con.contype = 'x',
          coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::pg_catalog.bool, false),
          pg_catalog.pg_get_indexdef(i.indexrelid, k.position::pg_catalog.int4, true),
          (SELECT a.attname FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0),
          (SELECT pg_catalog.quote_ident(on_.nspname) || '.' || o.oprname
           FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace on_ ON on_.oid = o.oprnamespace
           WHERE o.oid = CASE WHEN con.contype = 'x' THEN con.conexclop[k.position]
             ELSE (SELECT ao.amopopr FROM pg_catalog.pg_opclass oc JOIN pg_catalog.pg_amop ao ON ao.amopfamily = oc.opcfamily
                     AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype AND ao.amopstrategy = 3
                   WHERE oc.oid = i.indclass[k.position - 1]) END),
          pg_catalog.pg_get_expr(i.indpred, i.indrelid, true)
        FROM pg_catalog.pg_constraint con
        JOIN pg_catalog.pg_index i ON i.indexrelid = con.conindid
        JOIN pg_catalog.pg_class c ON c.oid = con.conrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k(attnum, position)
        WHERE con.condeferrable AND con.contype IN ('p', 'u', 'x') AND k.position <= i.indnkeyatts
          AND (con.conrelid = $1::pg_catalog.oid OR con.conparentid = 0
               AND con.conrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::pg_catalog.oid)))
        ORDER BY con.conname, con.oid, k.position
        """

    /// - Parameters:
    ///   - oid: the table's.
    ///   - columns: the table's.
    static func read(
        _ oid: UInt32, _ columns: [TargetTable.Column], _ connection: PostgresConnection
    ) throws(BridgeError) -> [DeferredConstraint] {
        var found: [DeferredConstraint] = []
        var last: String?
        for row in try connection.rows(query, ["\(oid)"], during: "reading the target's catalog") {
            if last != row[0] {
                last = row[0]
                let name = TableName(schema: row[2], name: row[3] ?? "").quoted
                found.append(
                    DeferredConstraint(
                        name: row[1] ?? "", table: row[4] == "t" ? name : "ONLY \(name)", isExclusion: row[5] == "t",
                        nullsAreDistinct: row[6] != "t", parts: [], columns: [], operators: [], predicate: row[10]))
            }
            let index = found.count - 1
            found[index].parts.append(TargetTable.part(row[8], row[7], columns))
            if let column = row[8] { found[index].columns?.append(column) } else { found[index].columns = nil }
            found[index].operators.append(row[9] ?? "pg_catalog.=")
        }
        return found
    }

    /// A query that gives a row if two rows clash.
    /// - Parameters:
    ///   - touched: a table whose rows say which ones are to be looked at; nil for all.
    ///   - locators: columns of the target as operands, with the operator to find their values and their name in `touched`.
    func clashes(touched: String?, by locators: [(operand: String, equality: String, staged: String)]) -> String {
        let marks = ["tableoid AS o", "ctid AS c"]
        let values = parts.enumerated().map { "\($0.element) AS u\($0.offset)" }
        let keys = locators.enumerated().map { "\($0.element.operand) AS k\($0.offset)" }
        let condition = predicate.map { " WHERE \($0)" } ?? ""
        let same = parts.indices.map { part in
            let equal = "y.u\(part) OPERATOR(\(operators[part])) x.u\(part)"
            // IS NULL is true for a composite value whose fields are all NULL.
            return nullsAreDistinct || isExclusion
                ? equal
                : "(\(equal) OR y.u\(part) IS NOT DISTINCT FROM NULL AND x.u\(part) IS NOT DISTINCT FROM NULL)"
        }
        var from = "(SELECT \((keys + values + marks).joined(separator: ", ")) FROM \(table)\(condition)) AS x"
        if let touched {
            let found = locators.enumerated().map { place, locator in
                let equal = "x.k\(place) OPERATOR(\(locator.equality)) s.\(locator.staged)"
                return nullsAreDistinct
                    ? equal
                    : "(\(equal) OR x.k\(place) IS NOT DISTINCT FROM NULL AND s.\(locator.staged) IS NOT DISTINCT FROM NULL)"
            }
            let names = locators.map(\.staged).joined(separator: ", ")
            from = "(SELECT DISTINCT \(names) FROM \(touched)) AS s JOIN \(from) ON \(found.joined(separator: " AND "))"
        }
        return """
            SELECT 1 FROM \(from) WHERE EXISTS (\
            SELECT FROM (SELECT \((values + marks).joined(separator: ", ")) FROM \(table)\(condition)) AS y \
            WHERE \(same.joined(separator: " AND ")) AND (y.o, y.c) <> (x.o, x.c)) LIMIT 1
            """
    }
}

/// How the rows are found again, before a commit, that a transaction wrote to a table with deferrable constraints: by
/// what is collected of them in a temporary table.
struct TouchedRows: Sendable {
    let constraints: [DeferredConstraint]
    private let stage: String
    private let table: TargetTable
    private let columns: [RelationPlan.Column]
    private let isKeyed: Bool
    /// Which planned columns are collected: the key's, or, for rows without a key, those of the constraints.
    let locators: [Int]

    init(
        number: Int, table: TargetTable, constraints: [DeferredConstraint], columns: [RelationPlan.Column]
    ) {
        self.constraints = constraints
        self.table = table
        self.columns = columns
        stage = "pg_temp.\(quoteIdentifier("bridge_touched_\(number)"))"
        let keys = columns.indices.filter { columns[$0].isKey }
        isKeyed = !keys.isEmpty
        if isKeyed {
            locators = keys
        } else {
            let named = Set(constraints.filter { !$0.isExclusion }.flatMap { $0.columns ?? [] })
            locators = columns.indices.filter { named.contains(columns[$0].name) }
        }
    }

    /// Like a staging table, of the columns that are collected.
    var create: String {
        let names = locators.map { index in
            let column = columns[index].target
            let name = "t.\(quoteIdentifier(column.name))"
            return "\(column.operand(name)) AS c\(index)"
        }
        return "CREATE TEMP TABLE IF NOT EXISTS \(stage) ON COMMIT DELETE ROWS AS "
            + "SELECT \(names.joined(separator: ", ")) FROM \(table.name.quoted) AS t WITH NO DATA"
    }

    var copy: String { "COPY \(stage) FROM STDIN" }

    /// The query that gives a row if a touched row clashes with another.
    func clashes(_ constraint: DeferredConstraint) -> String {
        var used = locators
        if !isKeyed {
            used = (constraint.isExclusion ? [] : constraint.columns ?? []).compactMap { name in
                locators.first { columns[$0].name == name }
            }
            // Rows that nothing leads to: all of the table is looked at.
            if used.isEmpty || used.count != constraint.parts.count { return constraint.clashes(touched: nil, by: []) }
        }
        return constraint.clashes(
            touched: stage,
            by: used.enumerated().map { place, index in
                let equality = isKeyed ? columns[index].equalityOperator : constraint.operators[place]
                return (columns[index].target.operand(quoteIdentifier(columns[index].name)), equality, "c\(index)")
            })
    }
}

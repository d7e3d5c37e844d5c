import BridgeCore

/// Reads what gates must know of a database.
struct CutoverFactsReader {
    let connection: PostgresConnection
    let fence: PostgresFence

    func read(_ tables: [TableName]) throws(BridgeError) -> CutoverFacts {
        var facts = try connection.inTransaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") {
            () throws(BridgeError) -> CutoverFacts in
            try connection.execute("SET LOCAL jit = off")
            let catalog = try fence.read(tables)
            let oids = catalog.relations.map(\.oid)
            var facts = CutoverFacts()
            facts.preparedTransactions = try prepared(oids)
            facts.unfenceable = try unfenceable(catalog)
            return facts
        }
        facts.brokenForeignKeys = try brokenForeignKeys(tables)
        // Last and outside: what it tells is of now, and the reading above must not be the oldest itself.
        try readOldest(into: &facts)
        return facts
    }

    // MARK: Transactions

    /// A prepared transaction can do no more than commit: it concerns the tables if it holds a lock that it wrote under. Its
    /// locks are told by the one on its own number.
    private func prepared(_ tables: [UInt32]) throws(BridgeError) -> [String] {
        try connection.rows(
            """
            SELECT DISTINCT x.gid FROM pg_prepared_xacts x
            JOIN pg_locks n ON n.pid IS NULL AND n.locktype = 'transactionid' AND n.transactionid = x.transaction
            JOIN pg_locks l ON l.pid IS NULL AND l.virtualtransaction = n.virtualtransaction
            WHERE x.database = current_database() AND l.locktype = 'relation' AND l.relation = ANY ($1::oid[])
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') ORDER BY 1
            """, [ArrayLiteral.make(tables)], during: "looking for prepared transactions"
        ).compactMap { $0[0] }
    }

    /// Of clients other than bridge. A session that the role may not look into has no times, but its open transaction shows
    /// as a lock; a gate that took it for none would be blind.
    private func readOldest(into facts: inout CutoverFacts) throws(BridgeError) {
        let rows = try connection.rows(
            """
            SELECT a.pid, (extract(epoch FROM clock_timestamp() - a.xact_start) * 1000000)::bigint, a.state IS NULL
            FROM pg_stat_activity a
            WHERE a.datid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND a.pid <> pg_backend_pid()
              AND a.usesysid IS NOT NULL AND coalesce(a.backend_type, 'client backend') = 'client backend'
              AND NOT (a.usename = current_user AND starts_with(a.application_name, 'bridge '))
              AND (a.xact_start IS NOT NULL OR a.state IS NULL AND EXISTS (
                SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'virtualxid' AND l.granted))
            ORDER BY a.state IS NULL DESC, a.xact_start
            """, during: "looking at open transactions")
        guard let row = rows.first else { return }
        guard row[2] != "t" else {
            throw BridgeError(
                .rightsMissing, "transactions are open, and the role may not see since when",
                context: [.init(.processes, rows.filter { $0[2] == "t" }.compactMap { $0[0] }.prefix(20).joined(separator: ", "))],
                hint: "GRANT pg_read_all_stats TO \(Rights.role(connection))")
        }
        facts.oldestTransactionAge = .microseconds(max(0, row[1].flatMap { Int64($0) } ?? 0))
        facts.oldestTransactionProcess = row[0]
    }

    // MARK: Fencing

    private func unfenceable(_ catalog: FenceCatalog) throws(BridgeError) -> [TableName: String] {
        var found: [TableName: String] = [:]
        let missing = catalog.missing
        let schemas = connection.defaultSchemas
        for table in missing {
            let kind = try connection.rows(
                """
                SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' END
                FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relname = $2 AND (n.nspname = $1 OR $1 IS NULL AND n.nspname = ANY ($3::text[])) AND c.relkind IN ('v', 'm', 'f')
                """, [table.schema, table.name, ArrayLiteral.make(schemas)], during: "reading the catalog"
            ).first?[0]
            found[table] = kind.map { "\(table) is a \($0), and only tables can be fenced" } ?? "there is no table \(table)"
        }
        var asked: [UInt32: TableName] = [:]
        for (name, oid) in catalog.roots { if let oid { asked[oid] = name } }
        // Under the name that was asked for: a partition stands for its table.
        func note(_ table: TableName, _ what: String) {
            let root = catalog.relations.first { $0.name == table }.flatMap { asked[$0.root] } ?? table
            if found[root] == nil { found[root] = what }
        }
        let role = Rights.role(connection)
        for table in catalog.unfenceable { note(table.table, table.why + (table.hint.map { "; \($0)\(role)" } ?? "")) }
        for other in catalog.foreign { note(other.table.name, "a fence of the migration \(other.migration) stands on \(other.table.name)") }
        for (table, difference) in catalog.differences.sorted(by: { $0.key < $1.key }) { note(table, difference) }
        let rights = try CutoverRecords.rights(connection)
        if !rights.isEmpty {
            for (name, oid) in catalog.roots where oid != nil && found[name] == nil {
                found[name] = "the role may not make the fence's function in the schema _bridge; \(rights.joined(separator: "; "))"
            }
        }
        return found
    }

    // MARK: Foreign keys

    /// Counted up to here: what a gate wants to know is whether there are any.
    static let countedRows = 1_000

    /// A constraint that was made NOT VALID claims nothing of the rows that are there, and is left out. One transaction for
    /// each constraint, so that a snapshot is held no longer than one takes.
    private func brokenForeignKeys(_ tables: [TableName]) throws(BridgeError) -> [String: Int64] {
        let roots = try PostgresCatalog(connection).resolve(tables).compactMap { $0 }
        let keys = try connection.rows(Self.foreignKeyQuery, [ArrayLiteral.make(roots)], during: "reading the catalog")
        var broken: [String: Int64] = [:]
        for key in keys {
            guard let name = key[0], let child = key[1], let parent = key[2], let join = key[3], let isThere = key[4], let missing = key[5]
            else { continue }
            let sql = """
                SELECT count(*) FROM (SELECT FROM \(child) c WHERE (\(isThere)) AND NOT EXISTS (SELECT FROM \(parent) p WHERE \(join)) \
                LIMIT \(Self.countedRows)) AS broken
                """
            do throws(BridgeError) {
                let count = try connection.inTransaction("BEGIN READ ONLY") { () throws(BridgeError) in
                    try connection.execute("SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL work_mem = '64MB'")
                    return try connection.rows(sql, during: "checking the foreign key \(name)").first?[0].flatMap { Int64($0) } ?? 0
                }
                if count > 0 { broken[name] = count }
            } catch where error.code == .rightsMissing {
                throw BridgeError(
                    .rightsMissing, "the role may not read both tables of the foreign key \(name)", context: error.context,
                    hint: missing + Rights.role(connection))
            }
        }
        return broken
    }

    /// By the operators that the server itself compares the columns with. MATCH FULL refuses a key that is NULL in part.
    private static let foreignKeyQuery = """
        \(FenceCatalog.tree)
        SELECT quote_ident(k.conname) || ' on ' || child.name, CASE WHEN child.relkind = 'p' THEN '' ELSE 'ONLY ' END || child.name,
          CASE WHEN parent.relkind = 'p' THEN '' ELSE 'ONLY ' END || parent.name, cols.joined,
          CASE WHEN k.confmatchtype = 'f' THEN cols.any_there ELSE cols.all_there END,
          'GRANT SELECT ON ' || child.name || ', ' || parent.name || ' TO '
        FROM pg_constraint k
        JOIN LATERAL (SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.relkind FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = k.conrelid) AS child ON true
        JOIN LATERAL (SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.relkind FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = k.confrelid) AS parent ON true
        CROSS JOIN LATERAL (
          SELECT string_agg(format('p.%I OPERATOR(%I.%s) c.%I', pa.attname, ns.nspname, o.oprname, ca.attname), ' AND ' ORDER BY u.i) AS joined,
            string_agg(format('c.%I IS NOT NULL', ca.attname), ' AND ' ORDER BY u.i) AS all_there,
            string_agg(format('c.%I IS NOT NULL', ca.attname), ' OR ' ORDER BY u.i) AS any_there
          FROM unnest(k.conkey, k.confkey, k.conpfeqop) WITH ORDINALITY AS u(c, p, op, i)
          JOIN pg_attribute ca ON ca.attrelid = k.conrelid AND ca.attnum = u.c
          JOIN pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attnum = u.p
          JOIN pg_operator o ON o.oid = u.op JOIN pg_namespace ns ON ns.oid = o.oprnamespace) AS cols
        WHERE k.contype = 'f' AND k.conparentid = 0 AND k.convalidated
          AND (k.conrelid IN (SELECT oid FROM tree) OR k.confrelid IN (SELECT oid FROM tree))
        ORDER BY 1
        """
}

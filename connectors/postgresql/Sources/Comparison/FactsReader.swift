import BridgeCore

/// What the catalog says about tables beyond their rows.
struct FactsReader {
    let connection: PostgresConnection

    init(_ connection: PostgresConnection) { self.connection = connection }

    /// In the order asked for; nil for a table that is not there.
    func read(_ names: [TableName]) throws(BridgeError) -> [TableFacts?] {
        try connection.inTransaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { () throws(BridgeError) in
            let catalog = PostgresCatalog(connection)
            return try catalog.resolve(names).map { (oid) throws(BridgeError) -> TableFacts? in
                guard let oid, let schema = try catalog.describe([oid]).first else { return nil }
                let table = "\(oid)"
                return TableFacts(
                    schema: schema, indexes: try indexes(table), constraints: try constraints(table, schema),
                    sequences: try sequences(table), extensions: try extensions(table))
            }
        }
    }

    private func rows(_ sql: String, _ table: String) throws(BridgeError) -> [[String?]] {
        try connection.rows(sql, [table], during: "reading the catalog")
    }

    /// All of them, also those that the server does not use: whose building failed or has not ended.
    private func indexes(_ table: String) throws(BridgeError) -> [TableFacts.Index] {
        var found: [TableFacts.Index] = []
        var last: String?
        for row in try rows(Self.indexQuery, table) {
            if row[0] != last {
                last = row[0]
                let schema = IndexSchema(
                    name: row[1] ?? "", parts: [], isUnique: row[2] == "t", predicate: row[4], constraintName: row[5],
                    definition: row[6])
                found.append(TableFacts.Index(schema: schema, isValid: row[3] == "t"))
            }
            found[found.count - 1].schema.parts.append(
                IndexSchema.Part(
                    column: row[7], expression: row[7] == nil ? row[8] : nil, isDescending: row[9] == "t",
                    collation: row[10]))
        }
        return found
    }

    private func constraints(_ table: String, _ schema: TableSchema) throws(BridgeError) -> [TableFacts.Constraint] {
        var found: [TableFacts.Constraint] = []
        for row in try rows(Self.constraintQuery, table) {
            let kind: TableFacts.Constraint.Kind
            switch row[0] {
            case "p": kind = .primaryKey
            case "u": kind = .unique
            case "c": kind = .check
            case "f": kind = .foreignKey
            case "x": kind = .exclusion
            default: continue
            }
            found.append(
                TableFacts.Constraint(
                    kind: kind, name: row[1], columns: ArrayLiteral.elements(row[2]), definition: row[3] ?? "",
                    isValidated: row[4] == "t"))
        }
        // Up to version 17 the catalog has no constraint for it.
        for column in schema.columns where column.isNotNull {
            found.append(
                TableFacts.Constraint(kind: .notNull, name: nil, columns: [column.name], definition: "NOT NULL"))
        }
        return found
    }

    private func sequences(_ table: String) throws(BridgeError) -> [TableFacts.Sequence] {
        try rows(Self.sequenceQuery, table).map { row in
            TableFacts.Sequence(
                column: row[0] ?? "", lastValue: row[1].flatMap { Int64($0) },
                increment: row[2].flatMap { Int64($0) } ?? 1)
        }
    }

    private func extensions(_ table: String) throws(BridgeError) -> [String: String] {
        var found: [String: String] = [:]
        for row in try rows(Self.extensionQuery, table) { if let name = row[0] { found[name] = row[1] ?? "" } }
        return found
    }

    private static let indexQuery = """
        SELECT i.indexrelid, ic.relname, i.indisunique, i.indisvalid AND i.indisready AND i.indislive,
               pg_get_expr(i.indpred, i.indrelid, true), con.conname,
               CASE WHEN con.oid IS NULL THEN pg_get_indexdef(i.indexrelid) ELSE pg_get_constraintdef(con.oid) END,
               a.attname, pg_get_indexdef(i.indexrelid, k.n, true), (i.indoption[k.n - 1] & 1) = 1,
               CASE WHEN i.indcollation[k.n - 1] <> 0 AND i.indcollation[k.n - 1] IS DISTINCT FROM a.attcollation
                    THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) END
        FROM pg_index i
        JOIN pg_class ic ON ic.oid = i.indexrelid
        CROSS JOIN LATERAL generate_series(1, i.indnkeyatts::int) AS k(n)
        LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = i.indrelid AND con.contype IN ('p', 'u', 'x')
        LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n - 1] AND a.attnum <> 0
        LEFT JOIN pg_collation co ON co.oid = i.indcollation[k.n - 1]
        LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
        WHERE i.indrelid = $1::oid AND NOT i.indisprimary
        ORDER BY ic.relname, i.indexrelid, k.n
        """

    /// A key to a partitioned table has shadows, one for each partition.
    private static let constraintQuery = """
        SELECT con.contype, con.conname,
               ARRAY(SELECT a.attname::text FROM unnest(con.conkey) WITH ORDINALITY k(n, i)
                     JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.n ORDER BY k.i),
               pg_get_constraintdef(con.oid), con.convalidated
        FROM pg_constraint con
        WHERE con.conrelid = $1::oid AND con.contype IN ('p', 'u', 'c', 'f', 'x')
          AND NOT (con.contype = 'f' AND con.conparentid <> 0)
        ORDER BY con.contype, con.conname
        """

    /// Those that belong to a column (serial, identity) and those that its default draws from. The last value is NULL
    /// where it was never drawn, or may not be read.
    private static let sequenceQuery = """
        SELECT DISTINCT ON (a.attnum, s.seqrelid) a.attname, q.last_value, s.seqincrement
        FROM pg_attribute a
        JOIN LATERAL (
          SELECT d.objid FROM pg_depend d
          WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid
            AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i')
          UNION
          SELECT d.refobjid FROM pg_attrdef f
          JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
          WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum) AS used(oid) ON true
        JOIN pg_sequence s ON s.seqrelid = used.oid
        JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_sequences q ON q.schemaname = n.nspname AND q.sequencename = c.relname
        WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attnum, s.seqrelid
        """

    /// By the types of columns, those of arrays' elements and below domains, by the operator classes of indexes and by
    /// their access methods.
    private static let extensionQuery = """
        WITH RECURSIVE types(oid) AS (
          SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped
          UNION
          SELECT u.oid FROM types t JOIN pg_type p ON p.oid = t.oid
          CROSS JOIN LATERAL (VALUES (p.typelem), (p.typbasetype)) AS u(oid) WHERE u.oid <> 0),
        used(class, oid) AS (
          SELECT 'pg_type'::regclass, oid FROM types
          UNION
          SELECT 'pg_opclass'::regclass, o.oid FROM pg_index i CROSS JOIN LATERAL unnest(i.indclass::oid[]) AS o(oid)
          WHERE i.indrelid = $1::oid
          UNION
          SELECT 'pg_am'::regclass, c.relam FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1::oid)
        SELECT DISTINCT e.extname, e.extversion FROM used u
        JOIN pg_depend d ON d.classid = u.class AND d.objid = u.oid AND d.deptype = 'e'
          AND d.refclassid = 'pg_extension'::regclass
        JOIN pg_extension e ON e.oid = d.refobjid
        """
}

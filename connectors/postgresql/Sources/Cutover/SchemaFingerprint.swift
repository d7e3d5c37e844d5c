import BridgeCore

/// The definition of each of some tables as a short hash: equal hashes, equal definitions.
///
/// In it are, for the table and everything below it: name, kind and persistence, replica identity, place in the tree and
/// partition bounds; the columns with place, name, type, collation, NOT NULL, identity and generating expression; labels,
/// base types and checks of the types of one's own that they use; primary keys, unique, check, exclusion and foreign keys,
/// and unique indexes. Each by its definition, hence without numbers that differ after a dump was restored.
///
/// Not in it, since no row reads differently for it and none is refused that was accepted: defaults, other indexes,
/// triggers, comments, rights, storage settings and statistics. So reading, writing, VACUUM, ANALYZE, sequences, GRANT and
/// the fence itself do not change it.
enum SchemaFingerprint {
    /// Of those tables that are there.
    static func read(_ tables: [TableName], _ connection: PostgresConnection) throws(BridgeError) -> [TableName: String] {
        try connection.inTransaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { () throws(BridgeError) in
            // Expressions are told under a lock on their table, which somebody may keep for long.
            try connection.execute("SET LOCAL jit = off; SET LOCAL lock_timeout = '5s'")
            let oids = try PostgresCatalog(connection).resolve(tables)
            let rows = try connection.rows(
                query, [ArrayLiteral.make(oids.compactMap { $0 })], during: "reading the tables' definitions")
            var hashes: [UInt32: String] = [:]
            for row in rows { if let oid = row[0].flatMap({ UInt32($0) }) { hashes[oid] = row[1] } }
            var found: [TableName: String] = [:]
            for (table, oid) in zip(tables, oids) { if let oid { found[table] = hashes[oid] } }
            return found
        }
    }

    /// A table below one that is asked for belongs to it whether or not it is asked for by itself.
    private static let query = """
        WITH RECURSIVE below(oid, root) AS (
          SELECT DISTINCT w.oid, w.oid FROM unnest($1::oid[]) AS w(oid)
          UNION SELECT i.inhrelid, b.root FROM below b JOIN pg_inherits i ON i.inhparent = b.oid),
        named AS (
          SELECT b.root, c.*, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name
          FROM below b JOIN pg_class c ON c.oid = b.oid JOIN pg_namespace n ON n.oid = c.relnamespace),
        used(root, oid) AS (
          SELECT DISTINCT c.root, a.atttypid FROM named c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
        types AS (
          WITH RECURSIVE r(root, oid) AS (
            SELECT root, oid FROM used
            UNION SELECT r.root, b.oid FROM r JOIN pg_type t ON t.oid = r.oid CROSS JOIN LATERAL (
              SELECT t.typelem UNION ALL SELECT t.typbasetype
              UNION ALL SELECT a.atttypid FROM pg_attribute a
                WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
              UNION ALL SELECT g.rngsubtype FROM pg_range g WHERE t.oid IN (g.rngtypid, g.rngmultitypid)) AS b(oid)
            WHERE b.oid >= 16384)
          SELECT root, oid FROM r WHERE oid >= 16384),
        lines(root, line) AS (
          SELECT c.root, jsonb_build_array('table', c.name, c.relkind, c.relpersistence, c.relreplident, pg_get_partkeydef(c.oid),
            pg_get_expr(c.relpartbound, c.oid),
            (SELECT jsonb_agg(quote_ident(n.nspname) || '.' || quote_ident(p.relname) ORDER BY i.inhseqno) FROM pg_inherits i
             JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace n ON n.oid = p.relnamespace WHERE i.inhrelid = c.oid))
          FROM named c
          UNION ALL SELECT c.root, jsonb_build_array('column', c.name,
            row_number() OVER (PARTITION BY c.root, c.oid ORDER BY a.attnum), a.attname, format_type(a.atttypid, a.atttypmod),
            CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END, a.attnotnull, a.attidentity, a.attgenerated,
            CASE WHEN a.attgenerated <> '' THEN pg_get_expr(f.adbin, f.adrelid) END)
          FROM named c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
          UNION ALL SELECT c.root, jsonb_build_array('constraint', c.name, k.conname, k.contype, pg_get_constraintdef(k.oid), k.convalidated)
          FROM named c JOIN pg_constraint k ON k.conrelid = c.oid
          WHERE k.contype IN ('p', 'u', 'c', 'x', 'f') AND NOT (k.contype = 'f' AND k.conparentid <> 0)
          UNION ALL SELECT c.root, jsonb_build_array('index', c.name, pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisreplident)
          FROM named c JOIN pg_index i ON i.indrelid = c.oid WHERE i.indisunique
          UNION ALL SELECT u.root, jsonb_build_array('type', format_type(t.oid, NULL), t.typtype, format_type(t.typbasetype, t.typtypmod), t.typnotnull,
            (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
            (SELECT jsonb_agg(jsonb_build_array(a.attname, format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum) FROM pg_attribute a
             WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
            (SELECT jsonb_agg(pg_get_constraintdef(k.oid) ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'))
          FROM types u JOIN pg_type t ON t.oid = u.oid)
        SELECT root, left(encode(sha256(convert_to(string_agg(line::text, E'\\n' ORDER BY line::text COLLATE "C"), 'UTF8')), 'hex'), 32)
        FROM lines GROUP BY root
        """
}

import BridgeCore

/// The definitions of some tables as one text: equal texts, equal definitions.
///
/// In it are, for each table and everything below it: name, kind and persistence, replica identity, place in the tree and
/// partition bounds; the columns with place, name, type, collation, NOT NULL, identity and generating expression; labels,
/// base types and checks of the types of one's own that they use; primary keys, unique, check, exclusion and foreign keys,
/// and unique indexes. Each by its definition, hence without numbers that differ after a dump was restored.
///
/// Not in it, since no row reads differently for it and none is refused that was accepted: defaults, other indexes,
/// triggers, comments, rights, storage settings and statistics. So reading, writing, VACUUM, ANALYZE, sequences, GRANT and
/// the fence itself do not change it.
enum SchemaFingerprint {
    static func read(_ tables: [UInt32], _ connection: PostgresConnection) throws(BridgeError) -> String {
        let rows = try connection.rows(query, [ArrayLiteral.make(tables)], during: "reading the tables' definitions")
        guard let text = rows.first?[0] else { throw BridgeError(.serverRefused, "the tables' definitions cannot be read") }
        return text
    }

    private static let query = """
        \(FenceCatalog.tree),
        named AS (
          SELECT c.*, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name
          FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace),
        used(oid) AS (
          SELECT DISTINCT a.atttypid FROM named c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
        types AS (
          WITH RECURSIVE r(oid) AS (
            SELECT oid FROM used
            UNION SELECT b.oid FROM r JOIN pg_type t ON t.oid = r.oid CROSS JOIN LATERAL (
              SELECT t.typelem UNION ALL SELECT t.typbasetype
              UNION ALL SELECT a.atttypid FROM pg_attribute a
                WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
              UNION ALL SELECT g.rngsubtype FROM pg_range g WHERE t.oid IN (g.rngtypid, g.rngmultitypid)) AS b(oid)
            WHERE b.oid >= 16384)
          SELECT oid FROM r WHERE oid >= 16384),
        lines(line) AS (
          SELECT jsonb_build_array('table', c.name, c.relkind, c.relpersistence, c.relreplident, pg_get_partkeydef(c.oid),
            pg_get_expr(c.relpartbound, c.oid),
            (SELECT jsonb_agg(quote_ident(n.nspname) || '.' || quote_ident(p.relname) ORDER BY i.inhseqno) FROM pg_inherits i
             JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace n ON n.oid = p.relnamespace WHERE i.inhrelid = c.oid))
          FROM named c
          UNION ALL SELECT jsonb_build_array('column', c.name,
            row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), a.attname, format_type(a.atttypid, a.atttypmod),
            CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END, a.attnotnull, a.attidentity, a.attgenerated,
            CASE WHEN a.attgenerated <> '' THEN pg_get_expr(f.adbin, f.adrelid) END)
          FROM named c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
          UNION ALL SELECT jsonb_build_array('constraint', c.name, k.conname, k.contype, pg_get_constraintdef(k.oid), k.convalidated)
          FROM named c JOIN pg_constraint k ON k.conrelid = c.oid
          WHERE k.contype IN ('p', 'u', 'c', 'x', 'f') AND NOT (k.contype = 'f' AND k.conparentid <> 0)
          UNION ALL SELECT jsonb_build_array('index', c.name, pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisreplident)
          FROM named c JOIN pg_index i ON i.indrelid = c.oid WHERE i.indisunique
          UNION ALL SELECT jsonb_build_array('type', format_type(t.oid, NULL), t.typtype, format_type(t.typbasetype, t.typtypmod), t.typnotnull,
            (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
            (SELECT jsonb_agg(jsonb_build_array(a.attname, format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum) FROM pg_attribute a
             WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
            (SELECT jsonb_agg(pg_get_constraintdef(k.oid) ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'))
          FROM types u JOIN pg_type t ON t.oid = u.oid)
        SELECT encode(sha256(convert_to(coalesce(string_agg(line::text, E'\\n' ORDER BY line::text COLLATE "C"), ''), 'UTF8')), 'hex')
        FROM lines
        """
}

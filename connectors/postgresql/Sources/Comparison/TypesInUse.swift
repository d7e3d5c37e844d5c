/// The types that a table's columns rest on, down through arrays, domains, composites and ranges, as SQL. What the values
/// of such a type read as can change without a write to the table: `ALTER TYPE … RENAME VALUE`.
enum TypesInUse {
    /// What begins a statement that reads from `used(oid)`. Types that came with the server do not change, and rest on no
    /// others.
    /// - Parameter table: an expression for the table's OID.
    static func with(_ table: String) -> String {
        """
        WITH RECURSIVE used(oid) AS (
          SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = \(table) AND a.attnum > 0 AND NOT a.attisdropped
          UNION
          SELECT below.oid FROM used u JOIN pg_type t ON t.oid = u.oid CROSS JOIN LATERAL (
            SELECT t.typelem UNION ALL SELECT t.typbasetype
            UNION ALL SELECT a.atttypid FROM pg_attribute a
              WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
            UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)) AS below(oid)
          WHERE below.oid >= 16384)
        """
    }

    /// A line for each type, label and attribute, with the number of the transaction that wrote it last; of a type itself
    /// only if it is a domain, whose base and limits stand there.
    static func versions(_ table: String) -> String {
        """
        \(with(table))
        SELECT 'type', t.oid::text, t.typtype::text, t.typbasetype::text, t.typtypmod::text, CASE t.typtype WHEN 'd' THEN t.xmin::text END
        FROM pg_type t WHERE t.oid IN (SELECT oid FROM used) AND t.oid >= 16384
        UNION ALL SELECT 'label', e.enumtypid::text, e.oid::text, e.enumsortorder::text, e.enumlabel::text, e.xmin::text
        FROM pg_enum e WHERE e.enumtypid IN (SELECT oid FROM used)
        UNION ALL SELECT 'attribute', t.oid::text, a.attnum::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.xmin::text
        FROM pg_type t JOIN pg_attribute a ON t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE t.oid IN (SELECT oid FROM used) AND t.oid >= 16384
        ORDER BY 1, 2, 3, 4
        """
    }
}

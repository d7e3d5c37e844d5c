/// The queries of ``PostgresCatalog``. Each takes an array of table OIDs.
extension PostgresCatalog {
    /// A partitioned table that was never analysed has the sum of its partitions as its estimate.
    static let tableQuery = """
        SELECT c.oid, n.nspname, c.relname, c.relreplident, c.relpersistence,
               CASE WHEN c.relkind = 'p' AND c.reltuples < 0
                    THEN (SELECT sum(greatest(p.reltuples, 0)) FROM pg_partition_tree(c.oid) t JOIN pg_class p ON p.oid = t.relid)
                    ELSE c.reltuples END::bigint
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY ($1::oid[])
        """

    static let columnQuery = """
        SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid, a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid), nullif(a.attgenerated, ''), nullif(a.attidentity, ''),
               CASE WHEN a.attcollation <> t.typcollation
                    THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) END
        FROM pg_attribute a
        JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_collation co ON co.oid = a.attcollation
        LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
        WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attrelid, a.attnum
        """

    /// One row for each key column. An index that is still being built, or whose build failed, is left out.
    static let indexQuery = """
        SELECT i.indexrelid, i.indrelid, ic.relname, i.indisprimary, i.indisunique,
               pg_get_expr(i.indpred, i.indrelid, true), con.conname,
               CASE WHEN con.oid IS NULL THEN pg_get_indexdef(i.indexrelid) ELSE pg_get_constraintdef(con.oid) END,
               a.attname, pg_get_indexdef(i.indexrelid, k.n, true), (i.indoption[k.n - 1] & 1) = 1,
               CASE WHEN i.indcollation[k.n - 1] <> 0 AND i.indcollation[k.n - 1] IS DISTINCT FROM a.attcollation
                    THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) END
        FROM pg_index i
        JOIN pg_class ic ON ic.oid = i.indexrelid
        CROSS JOIN LATERAL generate_series(1, i.indnkeyatts::int) AS k(n)
        LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.contype IN ('p', 'u', 'x')
        LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n - 1] AND a.attnum <> 0
        LEFT JOIN pg_collation co ON co.oid = i.indcollation[k.n - 1]
        LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
        WHERE i.indrelid = ANY ($1::oid[]) AND i.indisvalid AND i.indislive
        ORDER BY i.indrelid, ic.relname, i.indexrelid, k.n
        """

    static let checkQuery = """
        SELECT conrelid, conname, pg_get_expr(conbin, conrelid, true) FROM pg_constraint
        WHERE conrelid = ANY ($1::oid[]) AND contype = 'c' ORDER BY conrelid, conname
        """

    static let foreignKeyQuery = """
        SELECT con.conrelid, con.conname,
               ARRAY(SELECT a.attname::text FROM unnest(con.conkey) WITH ORDINALITY k(n, i)
                     JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.n ORDER BY k.i),
               n.nspname, c.relname,
               ARRAY(SELECT a.attname::text FROM unnest(con.confkey) WITH ORDINALITY k(n, i)
                     JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.n ORDER BY k.i),
               con.confdeltype, con.confupdtype, con.condeferrable, con.condeferred
        FROM pg_constraint con
        JOIN pg_class c ON c.oid = con.confrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE con.conrelid = ANY ($1::oid[]) AND con.contype = 'f'
          -- A key to a partitioned table has shadows, one for each partition.
          AND con.conparentid = 0
        ORDER BY con.conrelid, con.conname
        """

    /// Only an index that is checked at once can name rows: a deferrable primary key cannot.
    static let identityQuery = """
        SELECT i.indrelid,
               ARRAY(SELECT a.attname::text FROM generate_series(1, i.indnkeyatts::int) AS k(n)
                     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n - 1] ORDER BY k.n)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        WHERE i.indrelid = ANY ($1::oid[]) AND i.indisvalid AND i.indimmediate
          AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
        """
}

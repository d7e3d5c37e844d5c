/// The tables of ``GeneratedHistoryTests``: each source table has something that the applier must get right, and a target
/// table that may differ from it.
enum GeneratedTables {
    struct Table {
        let name: String
        let source: String
        let target: String
        /// What is compared, as SQL over the table's columns on both sides.
        let columns: String
    }

    static let all: [Table] = [
        // Several unique indexes, with an expression and partial; the target has another order and columns of its own.
        Table(
            name: "a",
            source: """
                CREATE TABLE a (id int PRIMARY KEY, u int UNIQUE, e text, f boolean, v int, big text);
                CREATE UNIQUE INDEX a_e ON a (lower(e)); CREATE UNIQUE INDEX a_f ON a (v) WHERE f; ALTER TABLE a ALTER big SET STORAGE EXTERNAL
                """,
            target: """
                CREATE TABLE a (own text DEFAULT 'mine', big text, e text, v bigint, u int UNIQUE, f boolean, id bigint PRIMARY KEY);
                CREATE UNIQUE INDEX a_e ON a (lower(e)); CREATE UNIQUE INDEX a_f ON a (v) WHERE f
                """, columns: "id, u, e, f, v, md5(big)"),
        // The same shape on both sides, so that it is applied set-wise.
        Table(
            name: "b",
            source: """
                CREATE TABLE b (id int PRIMARY KEY, u int, e text, f boolean, v int, big text, UNIQUE (u, e), UNIQUE (v));
                ALTER TABLE b ALTER big SET STORAGE EXTERNAL
                """,
            target: "CREATE TABLE b (id int PRIMARY KEY, u int, e text, f boolean, v int, big text, UNIQUE (u, e), UNIQUE (v))",
            columns: "id, u, e, f, v, md5(big)"),
        // Constraints that are checked at the end of a statement or of a transaction.
        Table(
            name: "c",
            source: """
                CREATE TABLE c (id int PRIMARY KEY, u int, e text, f boolean, v int, big text,
                  UNIQUE (u) DEFERRABLE INITIALLY DEFERRED, UNIQUE (v, f) DEFERRABLE, EXCLUDE USING btree (lower(e) WITH =) WHERE (f) DEFERRABLE);
                ALTER TABLE c ALTER big SET STORAGE EXTERNAL
                """,
            target: """
                CREATE TABLE c (id int PRIMARY KEY, u int, e text, f boolean, v int, big text,
                  UNIQUE (u) DEFERRABLE, UNIQUE (v, f) DEFERRABLE INITIALLY DEFERRED, EXCLUDE USING btree (lower(e) WITH =) WHERE (f) DEFERRABLE)
                """, columns: "id, u, e, f, v, md5(big)"),
        // A unique index names the rows, one of its columns is stored out of line, and NULL clashes with NULL elsewhere.
        Table(
            name: "d",
            source: """
                CREATE TABLE d (id int NOT NULL, u int, e text, f boolean, v int, big text, w int GENERATED ALWAYS AS (v + 1) STORED);
                CREATE UNIQUE INDEX d_key ON d (id); CREATE UNIQUE INDEX d_u ON d (u, v) NULLS NOT DISTINCT;
                ALTER TABLE d REPLICA IDENTITY USING INDEX d_key
                """,
            target: """
                CREATE TABLE d (w int GENERATED ALWAYS AS (v + 1) STORED, id int PRIMARY KEY, u int, e text, f boolean, v int, big text);
                CREATE UNIQUE INDEX d_u ON d (u, v) NULLS NOT DISTINCT
                """, columns: "id, u, e, f, v, md5(big), w"),
        // No key anywhere: whole rows, exact duplicates.
        Table(
            name: "e",
            source: "CREATE TABLE e (id int, u int, e text, f boolean, v int, big text, j json, p point); ALTER TABLE e REPLICA IDENTITY FULL",
            target: "CREATE TABLE e (id int, u int, e text, f boolean, v int, big text, j json, p point)",
            columns: "id, u, e, f, v, md5(big), j, p"),
        // Whole old rows, and a key that the target has.
        Table(
            name: "g",
            source: """
                CREATE TABLE g (id int PRIMARY KEY, u int UNIQUE, e text, f boolean, v int, big text); ALTER TABLE g REPLICA IDENTITY FULL;
                ALTER TABLE g ALTER big SET STORAGE EXTERNAL
                """,
            target: "CREATE TABLE g (id int PRIMARY KEY, u int UNIQUE, e text, f boolean, v int, big text)",
            columns: "id, u, e, f, v, md5(big)"),
        // A key that may be taken twice for a while.
        Table(
            name: "h",
            source: """
                CREATE TABLE h (id int, u int, e text, f boolean, v int, big text, PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED);
                ALTER TABLE h REPLICA IDENTITY FULL
                """,
            target: "CREATE TABLE h (id int, u int, e text, f boolean, v int, big text, PRIMARY KEY (id) DEFERRABLE)",
            columns: "id, u, e, f, v, md5(big)"),
        // An identity that no UPDATE may set, and partitions that rows move across.
        Table(
            name: "i",
            source: """
                CREATE TABLE i (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, u int UNIQUE, e text, f boolean, v int, big text);
                ALTER TABLE i ALTER big SET STORAGE EXTERNAL
                """,
            target: "CREATE TABLE i (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, u int UNIQUE, e text, f boolean, v int, big text)",
            columns: "id, u, e, f, v, md5(big)"),
        Table(
            name: "p",
            source: """
                CREATE TABLE p (id int PRIMARY KEY, u int, e text, f boolean, v int, big text);
                ALTER TABLE p ALTER big SET STORAGE EXTERNAL
                """,
            target: """
                CREATE TABLE p (id int PRIMARY KEY, u int, e text, f boolean, v int, big text) PARTITION BY RANGE (id);
                CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (MINVALUE) TO (12);
                CREATE TABLE p_high PARTITION OF p FOR VALUES FROM (12) TO (MAXVALUE)
                """, columns: "id, u, e, f, v, md5(big)"),
    ]

    static let names = all.map(\.name)

    /// One row a table: its name and a sum over all its rows.
    static let sums = all.map { table in
        """
        SELECT '\(table.name)', count(*), md5(string_agg(r, E'\\n' ORDER BY r COLLATE "C")) \
        FROM (SELECT ROW(\(table.columns))::text AS r FROM public.\(table.name)) AS x
        """
    }.joined(separator: " UNION ALL ") + " ORDER BY 1"
}

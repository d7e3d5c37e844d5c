extension FuzzSchema {
    private static let numbers = ["0", "1", "2", "3", "4", "5", "-9223372036854775808", "9223372036854775807", "NULL"]
    private static let reals = ["1", "2.5", "-0.0", "5e-324", "1e300", "NULL"]
    private static let blobs = ["x''", "x'00'", "x'61'", "x'00ff'", "NULL"]
    private static let words = ["'a'", "'A'", "'b'", "'B'", "'c'", "'a '", "''", "'it''s'", "'\u{e9}'", "NULL"]

    /// Schemas whose columns hold one type each, so that PostgreSQL can hold them too.
    static let typed: [FuzzSchema] = [
        FuzzSchema(
            name: "typed: integer key, two unique indexes",
            sql: "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT UNIQUE, c INTEGER, d REAL, e BLOB, UNIQUE(c, b)) STRICT",
            tables: [
                .init(
                    name: "t", columns: [("a", integers), ("b", words), ("c", numbers), ("d", reals), ("e", blobs)],
                    conflictTargets: ["(a)", "(b)", "(c, b)", ""])
            ], postgres: "CREATE TABLE t(a bigint PRIMARY KEY, b text UNIQUE, c bigint, d double precision, e bytea, UNIQUE(c, b))"),
        FuzzSchema(
            name: "typed: composite key without rowid, expressions and partial ones",
            sql: """
                CREATE TABLE t(x TEXT, b INTEGER, a TEXT COLLATE NOCASE, c INTEGER UNIQUE, PRIMARY KEY(b, a)) STRICT, WITHOUT ROWID;
                CREATE UNIQUE INDEX i ON t(lower(x)); CREATE UNIQUE INDEX j ON t(x COLLATE NOCASE, c) WHERE b > 2;
                """,
            tables: [
                .init(
                    name: "t", columns: [("x", words), ("b", ["1", "2", "3", "4"]), ("a", words), ("c", integers)],
                    conflictTargets: ["(b, a)", "(c)", "(lower(x))", ""], hasRowid: false)
            ],
            postgres: """
                CREATE TABLE t(x text, b bigint, a text, c bigint UNIQUE, PRIMARY KEY(b, a)); CREATE UNIQUE INDEX i ON t(lower(x));
                CREATE UNIQUE INDEX j ON t(lower(x), c) WHERE b > 2; CREATE UNIQUE INDEX k ON t(b, lower(a));
                """),
        FuzzSchema(
            name: "typed: cascades, defaults and application triggers",
            sql: """
                CREATE TABLE p(a TEXT COLLATE NOCASE PRIMARY KEY NOT NULL CHECK(typeof(a) = 'text'), u INT DEFAULT 2 UNIQUE CHECK(typeof(u) IN ('integer', 'null')));
                CREATE TABLE c(a INTEGER PRIMARY KEY AUTOINCREMENT, p TEXT DEFAULT 'a' REFERENCES p ON DELETE SET DEFAULT ON UPDATE CASCADE, v INT UNIQUE
                               REFERENCES p(u) ON DELETE SET NULL ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED CHECK(typeof(v) IN ('integer', 'null')));
                CREATE TRIGGER x1 AFTER INSERT ON p WHEN NEW.u > 3 BEGIN INSERT OR REPLACE INTO c(p, v) VALUES(NEW.a, NEW.u); END;
                CREATE TRIGGER x2 AFTER DELETE ON c WHEN OLD.v = 1 BEGIN DELETE FROM p WHERE u = 3; END;
                """,
            tables: [
                .init(name: "p", columns: [("a", words), ("u", integers)], conflictTargets: ["(a)", "(u)", ""]),
                .init(name: "c", columns: [("a", integers), ("p", words), ("v", integers)], conflictTargets: ["(a)", "(v)", ""]),
            ],
            later: "CREATE TRIGGER y1 BEFORE UPDATE ON p WHEN NEW.u = 5 BEGIN UPDATE OR REPLACE p SET u = 4 WHERE u = 1; END;",
            postgres: """
                CREATE TABLE p(a text PRIMARY KEY, u bigint UNIQUE); CREATE UNIQUE INDEX i ON p(lower(a));
                CREATE TABLE c(a bigint PRIMARY KEY, p text, v bigint UNIQUE)
                """),
        FuzzSchema(
            name: "typed: generated columns, and a key of a real and a blob",
            sql: """
                CREATE TABLE t(a REAL NOT NULL, b BLOB NOT NULL, c INTEGER NOT NULL DEFAULT 3, d TEXT, g INTEGER AS (c % 4) UNIQUE,
                               h TEXT AS (g || coalesce(d, '')) STORED UNIQUE, PRIMARY KEY(a, b)) STRICT
                """,
            tables: [
                .init(
                    name: "t", columns: [("a", ["1", "2.5", "1e300", "5e-324"]), ("b", blobs), ("c", integers), ("d", words)],
                    conflictTargets: ["(a, b)", "(g)", "(h)", ""])
            ],
            postgres: """
                CREATE TABLE t(a double precision, b bytea, c bigint NOT NULL, d text, PRIMARY KEY(a, b)); CREATE UNIQUE INDEX g ON t((c % 4));
                CREATE UNIQUE INDEX h ON t(((c % 4)::text || coalesce(d, '')))
                """),
    ]
}

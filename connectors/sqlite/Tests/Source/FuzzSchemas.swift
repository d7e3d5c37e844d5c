/// One schema of the differential fuzz, with what random statements need to know of it.
struct FuzzSchema: Sendable, CustomTestStringConvertible {
    struct Table: Sendable {
        var name: String
        /// Columns that can be written, each with the literals that it is written with.
        var columns: [(name: String, values: [String])]
        /// What stands behind ON CONFLICT.
        var conflictTargets: [String]
        var hasRowid = true
        /// Columns to compare; those that travel.
        var compared: [String] { columns.map(\.name) }
    }
    var name: String
    var sql: String
    var tables: [Table]
    /// Made after our triggers: the application's triggers that are newer.
    var later = ""
    /// Statements of its own, drawn now and then.
    var extra: [String] = []
    /// Whether capture makes its triggers again after `later`, as a running session does.
    var isRenewed = false
    /// Whether `later` alters tables.
    var isAltered = false

    var testDescription: String { name }
}

import Testing

extension FuzzSchema {
    private static let integers = ["0", "1", "2", "3", "4", "5", "NULL"]
    private static let small = ["1", "2", "3", "NULL"]
    private static let texts = ["'a'", "'A'", "'b'", "'B'", "'c'", "'a '", "''", "NULL"]
    private static let mixed = ["1", "1.0", "'1'", "2", "2.5", "'a'", "'A'", "x'61'", "x''", "''", "NULL", "-0.0", "1e300", "9223372036854775807"]

    static let all: [FuzzSchema] = [
        FuzzSchema(
            name: "integer key and a unique column",
            sql: "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c)",
            tables: [.init(name: "t", columns: [("a", integers), ("b", mixed), ("c", mixed)], conflictTargets: ["(a)", "(b)", ""])]),
        FuzzSchema(
            name: "two unique indexes, autoincrement",
            sql: """
                CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT COLLATE NOCASE UNIQUE, c INTEGER, d TEXT, UNIQUE(c, d));
                CREATE UNIQUE INDEX i ON t(d COLLATE RTRIM);
                """,
            tables: [
                .init(
                    name: "t", columns: [("a", integers), ("b", texts), ("c", small), ("d", texts)],
                    conflictTargets: ["(a)", "(b)", "(c, d)", "(d COLLATE RTRIM)", ""])
            ]),
        FuzzSchema(
            name: "text key", sql: "CREATE TABLE t(a TEXT PRIMARY KEY NOT NULL, b INT)",
            tables: [.init(name: "t", columns: [("a", texts + ["1", "1.5"]), ("b", integers)], conflictTargets: ["(a)", ""])]),
        FuzzSchema(
            name: "NOCASE key and a unique column",
            sql: "CREATE TABLE t(a TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, b UNIQUE)",
            tables: [.init(name: "t", columns: [("a", texts), ("b", integers)], conflictTargets: ["(a)", "(b)", ""])]),
        FuzzSchema(
            name: "key index with another collation than the column",
            sql: "CREATE TABLE t(a TEXT NOT NULL, b INT, PRIMARY KEY(a COLLATE NOCASE))",
            tables: [.init(name: "t", columns: [("a", texts), ("b", integers)], conflictTargets: ["(a COLLATE NOCASE)", ""])]),
        FuzzSchema(
            name: "key without affinity: 1, 1.0 and '1'", sql: "CREATE TABLE t(a PRIMARY KEY NOT NULL, b UNIQUE)",
            tables: [.init(name: "t", columns: [("a", mixed), ("b", mixed)], conflictTargets: ["(a)", "(b)", ""])]),
        FuzzSchema(
            name: "numeric key with the edges of integers",
            sql: "CREATE TABLE t(a INT PRIMARY KEY NOT NULL, b)",
            tables: [
                .init(
                    name: "t",
                    columns: [
                        ("a", [
                            "1", "1.0", "'1'", "'1.0'", "1.5", "-9223372036854775808", "-9223372036854775808.0",
                            "9223372036854775807", "9223372036854775807.0", "9007199254740993", "9007199254740993.0", "'x'", "x'31'",
                        ]), ("b", integers),
                    ], conflictTargets: ["(a)", ""])
            ]),
        FuzzSchema(
            name: "composite key without rowid",
            sql: "CREATE TABLE t(x, a TEXT COLLATE NOCASE, b, c UNIQUE, PRIMARY KEY(b, a)) WITHOUT ROWID",
            tables: [
                .init(
                    name: "t", columns: [("x", mixed), ("a", texts), ("b", mixed), ("c", integers)],
                    conflictTargets: ["(b, a)", "(c)", ""], hasRowid: false)
            ]),
        FuzzSchema(
            name: "defaults that REPLACE puts in",
            sql: """
                CREATE TABLE t(a INTEGER PRIMARY KEY, b INT NOT NULL DEFAULT 3 UNIQUE, c TEXT NOT NULL DEFAULT 2 UNIQUE,
                               d REAL NOT NULL DEFAULT 1 UNIQUE);
                CREATE TABLE u(k TEXT NOT NULL DEFAULT 'a' PRIMARY KEY, v INT NOT NULL DEFAULT (1 + 1) UNIQUE);
                CREATE TABLE w(k TEXT DEFAULT 'b', l INT DEFAULT 1, v, PRIMARY KEY(k, l)) WITHOUT ROWID;
                """,
            tables: [
                .init(
                    name: "t", columns: [("a", integers), ("b", integers), ("c", ["1", "2", "'2'", "'a'", "NULL"]), ("d", ["1", "1.0", "2", "NULL"])],
                    conflictTargets: ["(a)", "(b)", "(c)", ""]),
                .init(name: "u", columns: [("k", texts), ("v", integers)], conflictTargets: ["(k)", "(v)", ""]),
                .init(name: "w", columns: [("k", texts), ("l", small), ("v", integers)], conflictTargets: ["(k, l)", ""], hasRowid: false),
            ]),
        FuzzSchema(
            name: "default of the key that is random",
            sql: "CREATE TABLE t(a TEXT NOT NULL DEFAULT (hex(randomblob(2))) PRIMARY KEY, b INT UNIQUE)",
            tables: [.init(name: "t", columns: [("a", texts), ("b", integers)], conflictTargets: ["(a)", "(b)", ""])]),
        FuzzSchema(
            name: "partial unique indexes",
            sql: """
                CREATE TABLE t(a INTEGER PRIMARY KEY, b INT, s TEXT, n INTEGER);
                CREATE UNIQUE INDEX i ON t(b) WHERE s = 1;
                CREATE UNIQUE INDEX j ON t(s COLLATE NOCASE) WHERE n > '1' AND b IS NOT NULL;
                """,
            tables: [
                .init(
                    name: "t", columns: [("a", integers), ("b", small), ("s", ["1", "'1'", "'a'", "'A'", "2", "NULL"]), ("n", ["0", "1", "2", "'2'", "NULL"])],
                    conflictTargets: ["(a)", "(b) WHERE s = 1", ""])
            ]),
        FuzzSchema(
            name: "unique indexes over expressions",
            sql: """
                CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c INTEGER, d INT NOT NULL DEFAULT 2);
                CREATE UNIQUE INDEX i ON t(lower(b));
                CREATE UNIQUE INDEX j ON t(CASE WHEN c = '1' THEN 'one' ELSE c END, d % 3);
                CREATE UNIQUE INDEX k ON t(b || d COLLATE NOCASE, c) WHERE c IS NOT NULL;
                """,
            tables: [
                .init(
                    name: "t", columns: [("a", integers), ("b", texts), ("c", ["1", "'1'", "2", "'one'", "NULL"]), ("d", integers)],
                    conflictTargets: ["(a)", "(lower(b))", ""])
            ]),
        FuzzSchema(
            name: "generated unique columns",
            sql: """
                CREATE TABLE t(a TEXT PRIMARY KEY NOT NULL, b INT NOT NULL DEFAULT 2, g AS (b % 4) UNIQUE,
                               h TEXT AS (g || coalesce(c, '')) STORED UNIQUE, c TEXT COLLATE NOCASE);
                """,
            tables: [
                .init(name: "t", columns: [("a", texts), ("b", integers), ("c", texts)], conflictTargets: ["(a)", "(g)", "(h)", ""])
            ]),
        FuzzSchema(
            name: "conflict clauses in the schema",
            sql: """
                CREATE TABLE t(a INTEGER PRIMARY KEY ON CONFLICT REPLACE, b UNIQUE ON CONFLICT REPLACE,
                               c INT NOT NULL ON CONFLICT REPLACE DEFAULT 1, d UNIQUE ON CONFLICT IGNORE, UNIQUE(c) ON CONFLICT REPLACE)
                """,
            tables: [
                // No upserts: SQLite 3.40.1, without any trigger, damages the indexes of such a table by one on b whose
                // key meets ON CONFLICT REPLACE.
                .init(
                    name: "t", columns: [("a", integers), ("b", small), ("c", integers), ("d", integers)], conflictTargets: [])
            ]),
        FuzzSchema(
            name: "strict and any",
            sql: "CREATE TABLE t(a ANY PRIMARY KEY NOT NULL, b INTEGER UNIQUE, c ANY UNIQUE, d REAL) STRICT",
            tables: [
                .init(
                    name: "t", columns: [("a", mixed), ("b", integers), ("c", mixed), ("d", ["1", "1.5", "NULL"])],
                    conflictTargets: ["(a)", "(b)", "(c)", ""])
            ]),
        FuzzSchema(
            name: "cascades and SET NULL",
            sql: """
                CREATE TABLE p(a TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, u INT UNIQUE);
                CREATE TABLE c(a INTEGER PRIMARY KEY, p TEXT REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE, v UNIQUE);
                CREATE TABLE d(a TEXT PRIMARY KEY NOT NULL REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE, u INT UNIQUE REFERENCES p(u)
                               ON DELETE SET NULL ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED);
                """,
            tables: [
                .init(name: "p", columns: [("a", texts), ("u", integers)], conflictTargets: ["(a)", "(u)", ""]),
                .init(name: "c", columns: [("a", integers), ("p", texts), ("v", small)], conflictTargets: ["(a)", "(v)", ""]),
                .init(name: "d", columns: [("a", texts), ("u", integers)], conflictTargets: ["(a)", "(u)", ""]),
            ]),
        FuzzSchema(
            name: "self-referencing key",
            sql: "CREATE TABLE t(a INT PRIMARY KEY NOT NULL, b INT REFERENCES t ON DELETE CASCADE ON UPDATE CASCADE, c UNIQUE)",
            tables: [
                .init(name: "t", columns: [("a", ["1", "2", "3", "4", "5"]), ("b", integers), ("c", integers)], conflictTargets: ["(a)", "(c)", ""])
            ]),
        FuzzSchema(
            name: "application triggers, older and newer",
            sql: """
                CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c);
                CREATE TABLE u(a TEXT PRIMARY KEY NOT NULL, b UNIQUE);
                CREATE TRIGGER x1 BEFORE INSERT ON t WHEN NEW.b = 3 BEGIN UPDATE t SET b = NEW.b WHERE a = 2; END;
                CREATE TRIGGER x2 AFTER INSERT ON t BEGIN INSERT OR REPLACE INTO u VALUES(NEW.c, NEW.b); END;
                CREATE TRIGGER x3 AFTER DELETE ON t BEGIN DELETE FROM u WHERE b = OLD.b; END;
                CREATE TRIGGER x4 BEFORE UPDATE ON t WHEN OLD.a = 4 BEGIN DELETE FROM t WHERE a = 5; END;
                CREATE TRIGGER x5 BEFORE UPDATE ON u WHEN NEW.b = 1 BEGIN SELECT RAISE(IGNORE); END;
                """,
            tables: [
                .init(name: "t", columns: [("a", integers), ("b", integers), ("c", texts)], conflictTargets: ["(a)", "(b)", ""]),
                .init(name: "u", columns: [("a", texts), ("b", integers)], conflictTargets: ["(a)", "(b)", ""]),
            ],
            later: """
                CREATE TRIGGER y1 BEFORE INSERT ON t WHEN NEW.b = 2 BEGIN INSERT OR REPLACE INTO t(a, b) VALUES(1, 2); END;
                CREATE TRIGGER y2 BEFORE UPDATE ON t WHEN NEW.b = 5 BEGIN UPDATE t SET a = a + 10 WHERE a = OLD.a; END;
                CREATE TRIGGER y3 AFTER UPDATE ON u BEGIN UPDATE t SET c = NEW.a WHERE b = NEW.b; END;
                CREATE TRIGGER y4 BEFORE DELETE ON t WHEN OLD.b = 4 BEGIN INSERT OR IGNORE INTO u VALUES('del', 4); END;
                CREATE TRIGGER y5 BEFORE INSERT ON u WHEN NEW.b = 4 BEGIN SELECT RAISE(FAIL, 'no'); END;
                """),
        FuzzSchema(
            name: "names that need quotes",
            sql: """
                CREATE TABLE "we""ird t'"("se lect" INTEGER NOT NULL DEFAULT 2, "k0" TEXT NOT NULL DEFAULT "b", "a""b" UNIQUE, seq, "new" NOT NULL DEFAULT "it''s", PRIMARY KEY("k0", "se lect"));
                CREATE UNIQUE INDEX "in dex" ON "we""ird t'"(lower("new"), [seq]) WHERE `seq` <> 'x"y';
                """,
            tables: [
                .init(
                    name: "we\"ird t'",
                    columns: [("se lect", ["1", "2", "3"]), ("k0", ["'a'", "'b'", "'A'"]), ("a\"b", integers), ("seq", texts), ("new", texts)],
                    conflictTargets: ["(\"a\"\"b\")", ""])
            ]),
    ]
}

extension FuzzSchema {
    private static let keys = ["1", "2", "3", "4", "5"]

    /// Foreign keys with every action, triggers of every kind, indexes and generated columns of every kind.
    static let actions: [FuzzSchema] = [
        FuzzSchema(
            name: "foreign keys that set defaults, restrict and wait",
            sql: """
                CREATE TABLE p(a INTEGER PRIMARY KEY, u TEXT NOT NULL DEFAULT 'a' UNIQUE);
                CREATE TABLE c(a INTEGER PRIMARY KEY, p INT DEFAULT 1 REFERENCES p ON DELETE SET DEFAULT ON UPDATE SET DEFAULT, v INT UNIQUE);
                CREATE TABLE d(a TEXT PRIMARY KEY NOT NULL, u TEXT COLLATE NOCASE REFERENCES p(u) ON DELETE RESTRICT ON UPDATE CASCADE UNIQUE);
                CREATE TABLE e(a INT PRIMARY KEY NOT NULL, p INT REFERENCES p DEFERRABLE INITIALLY DEFERRED, c INT DEFAULT 2 UNIQUE REFERENCES c(v)
                               ON UPDATE SET DEFAULT ON DELETE SET NULL);
                """,
            tables: [
                .init(name: "p", columns: [("a", integers), ("u", texts)], conflictTargets: ["(a)", "(u)", ""]),
                .init(name: "c", columns: [("a", integers), ("p", small), ("v", integers)], conflictTargets: ["(a)", "(v)", ""]),
                .init(name: "d", columns: [("a", texts), ("u", texts)], conflictTargets: ["(a)", "(u)", ""]),
                .init(name: "e", columns: [("a", keys), ("p", integers), ("c", integers)], conflictTargets: ["(a)", "(c)", ""]),
            ]),
        FuzzSchema(
            name: "composite foreign keys of a parent without rowid",
            sql: """
                CREATE TABLE p(y INT, x TEXT COLLATE NOCASE, z UNIQUE, PRIMARY KEY(x, y)) WITHOUT ROWID;
                CREATE TABLE c(a INTEGER PRIMARY KEY, x TEXT, y INT, UNIQUE(y, x), FOREIGN KEY(x, y) REFERENCES p(x, y) ON DELETE CASCADE ON UPDATE CASCADE);
                CREATE TABLE d(k TEXT NOT NULL, x TEXT, y INT, n INT, PRIMARY KEY(k, n),
                               FOREIGN KEY(x, y) REFERENCES p(x, y) ON DELETE SET NULL ON UPDATE SET NULL) WITHOUT ROWID, STRICT;
                CREATE UNIQUE INDEX i ON d(x, y) WHERE n > 1;
                """,
            tables: [
                .init(name: "p", columns: [("y", small), ("x", texts), ("z", integers)], conflictTargets: ["(x, y)", "(z)", ""], hasRowid: false),
                .init(name: "c", columns: [("a", integers), ("x", texts), ("y", small)], conflictTargets: ["(a)", "(y, x)", ""]),
                .init(
                    name: "d", columns: [("k", texts), ("x", texts), ("y", small), ("n", small)],
                    conflictTargets: ["(k, n)", "(x, y) WHERE n > 1", ""], hasRowid: false),
            ]),
        FuzzSchema(
            name: "strict without rowid, any and real in the key",
            sql: """
                CREATE TABLE t(r REAL, a ANY, i INTEGER NOT NULL DEFAULT 3, b BLOB UNIQUE, PRIMARY KEY(a, r)) STRICT, WITHOUT ROWID;
                CREATE UNIQUE INDEX u ON t(i, r DESC);
                """,
            tables: [
                .init(
                    name: "t",
                    columns: [
                        ("r", ["1", "1.0", "2.5", "-0.0", "0.0", "1e300", "9e999", "9007199254740993", "NULL"]), ("a", mixed), ("i", integers),
                        ("b", ["x''", "x'00'", "x'61'", "NULL"]),
                    ], conflictTargets: ["(a, r)", "(i, r)", "(b)", ""], hasRowid: false)
            ]),
        FuzzSchema(
            name: "real key, and blobs",
            sql: "CREATE TABLE t(a REAL PRIMARY KEY NOT NULL, b BLOB UNIQUE, c NUMERIC UNIQUE)",
            tables: [
                .init(
                    name: "t",
                    columns: [
                        ("a", ["1", "'1'", "1.5", "0.0", "-0.0", "9007199254740993", "'x'", "x'31'", "-9e999"]),
                        ("b", ["x'31'", "'1'", "1", "x''", "''", "NULL"]), ("c", ["'1.0'", "1", "'1e1'", "10", "'x'", "2.5", "NULL"]),
                    ], conflictTargets: ["(a)", "(b)", "(c)", ""])
            ]),
        FuzzSchema(
            name: "integer key that is not the rowid",
            sql: """
                CREATE TABLE t(a INTEGER PRIMARY KEY DESC NOT NULL, rowid TEXT, b INT, UNIQUE(b, rowid COLLATE NOCASE));
                CREATE TABLE u(a INTEGER NOT NULL, oid INT NOT NULL, rowid, _rowid_ UNIQUE, PRIMARY KEY(a, oid));
                """,
            tables: [
                .init(name: "t", columns: [("a", integers), ("rowid", texts), ("b", small)], conflictTargets: ["(a)", ""], hasRowid: false),
                .init(
                    name: "u", columns: [("a", keys), ("oid", keys), ("rowid", small), ("_rowid_", integers)],
                    conflictTargets: ["(a, oid)", "(_rowid_)", ""], hasRowid: false),
            ], mayBeAltered: false),
        FuzzSchema(
            name: "unique indexes over generated and other columns",
            sql: """
                CREATE TABLE t(a TEXT PRIMARY KEY NOT NULL, b TEXT, c INT, d INT, g TEXT AS (upper(b)) VIRTUAL, h INT AS (d % 3) STORED,
                               UNIQUE(h, c));
                CREATE UNIQUE INDEX i ON t(g, c) WHERE c > 0;
                """,
            tables: [
                .init(
                    name: "t", columns: [("a", texts), ("b", ["'a'", "'A'"]), ("c", integers), ("d", ["1", "4", "NULL"])],
                    conflictTargets: ["(a)", "(h, c)", ""])
            ]),
        FuzzSchema(
            name: "five unique indexes, over expressions and partial",
            sql: """
                CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b INT, c TEXT, d INT NOT NULL DEFAULT 2, UNIQUE(b, d));
                CREATE UNIQUE INDEX i ON t(c COLLATE NOCASE DESC, b) WHERE d > 1;
                CREATE UNIQUE INDEX j ON t(abs(b) % 4) WHERE c IS NULL OR d = 3;
                CREATE UNIQUE INDEX k ON t(coalesce(c, 'none') || d);
                CREATE UNIQUE INDEX l ON t(c) WHERE b BETWEEN 2 AND 4;
                """,
            tables: [
                .init(
                    name: "t", columns: [("a", integers), ("b", integers + ["-1", "-2"]), ("c", texts), ("d", integers)],
                    conflictTargets: ["(a)", "(b, d)", "(c) WHERE b BETWEEN 2 AND 4", "(coalesce(c, 'none') || d)", ""])
            ]),
        FuzzSchema(
            name: "generated columns over each other",
            sql: """
                CREATE TABLE t(a INT, b INT NOT NULL DEFAULT 1, g AS (b + 1), c TEXT COLLATE NOCASE, h INT AS (g * 2 + coalesce(a, 0)) STORED UNIQUE,
                               i TEXT AS (h || '-' || coalesce(c, 'x')) VIRTUAL, k INTEGER PRIMARY KEY, j ANY AS (CASE WHEN b > 2 THEN i END) STORED);
                CREATE UNIQUE INDEX u ON t(i COLLATE NOCASE) WHERE g > 2;
                CREATE UNIQUE INDEX v ON t(j, lower(c));
                """,
            tables: [
                .init(
                    name: "t", columns: [("a", integers), ("b", integers), ("c", texts), ("k", integers)],
                    conflictTargets: ["(k)", "(h)", "(j, lower(c))", ""])
            ]),
        FuzzSchema(
            name: "application triggers of every kind",
            sql: """
                CREATE TABLE t(a TEXT PRIMARY KEY NOT NULL, b INT UNIQUE, c INT);
                CREATE TABLE audit(n INTEGER PRIMARY KEY, a TEXT UNIQUE, what TEXT);
                CREATE VIEW v AS SELECT a, b FROM t WHERE c > 1;
                CREATE TRIGGER x1 AFTER INSERT ON t WHEN NEW.c = 5 BEGIN SELECT RAISE(IGNORE); END;
                CREATE TRIGGER x2 AFTER UPDATE OF b, c ON t WHEN NEW.c = 4 BEGIN SELECT RAISE(FAIL, 'x2'); END;
                CREATE TRIGGER x3 BEFORE DELETE ON t WHEN OLD.c = 4 BEGIN SELECT RAISE(ROLLBACK, 'x3'); END;
                CREATE TRIGGER x4 AFTER DELETE ON t WHEN OLD.c = 3 BEGIN INSERT INTO t(a, b, c) VALUES(OLD.a || 'x', NULL, 0); END;
                CREATE TRIGGER x5 INSTEAD OF INSERT ON v BEGIN INSERT OR REPLACE INTO t(a, b, c) VALUES(NEW.a, NEW.b, 2); END;
                CREATE TRIGGER x6 INSTEAD OF UPDATE ON v BEGIN UPDATE OR REPLACE t SET b = NEW.b, a = NEW.a WHERE a = OLD.a; END;
                CREATE TRIGGER x7 INSTEAD OF DELETE ON v BEGIN DELETE FROM t WHERE a = OLD.a; END;
                CREATE TRIGGER x8 BEFORE INSERT ON t WHEN NEW.b = 4 BEGIN DELETE FROM t WHERE b = 4; END;
                """,
            tables: [
                .init(name: "t", columns: [("a", texts), ("b", integers), ("c", integers)], conflictTargets: ["(a)", "(b)", ""]),
                .init(name: "audit", columns: [("n", integers), ("a", texts), ("what", texts)], conflictTargets: ["(n)", "(a)", ""]),
            ],
            later: """
                CREATE TRIGGER y1 AFTER UPDATE ON t WHEN NEW.c = 1 BEGIN INSERT OR REPLACE INTO audit(a, what) VALUES(NEW.a, 'updated'); END;
                CREATE TRIGGER y2 AFTER DELETE ON t BEGIN INSERT OR IGNORE INTO audit(a, what) VALUES(OLD.a, 'deleted'); END;
                CREATE TRIGGER y3 AFTER UPDATE ON t WHEN NEW.b = 5 BEGIN SELECT RAISE(IGNORE); END;
                CREATE TRIGGER y4 AFTER DELETE ON t WHEN OLD.b = 3 BEGIN SELECT RAISE(FAIL, 'y4'); END;
                CREATE TRIGGER y5 BEFORE DELETE ON t WHEN OLD.b = 2 BEGIN SELECT RAISE(IGNORE); END;
                CREATE TRIGGER y6 BEFORE UPDATE ON t WHEN NEW.b = 3 BEGIN UPDATE OR REPLACE t SET b = 3 WHERE b = 1; END;
                CREATE TRIGGER y7 BEFORE INSERT ON audit WHEN NEW.n = 3 BEGIN DELETE FROM audit; END;
                """,
            extra: [
                "INSERT INTO v VALUES('a', 1), ('v', 2)", "UPDATE v SET b = b + 1", "UPDATE v SET a = upper(a), b = 3 WHERE b = 2",
                "DELETE FROM v WHERE b = 3", "DELETE FROM v", "DELETE FROM audit WHERE n > 3",
            ]),
        FuzzSchema(
            name: "a tree with cascades and triggers",
            sql: """
                CREATE TABLE n(id INTEGER PRIMARY KEY, up INT REFERENCES n ON DELETE CASCADE ON UPDATE CASCADE, path TEXT COLLATE NOCASE UNIQUE, weight INT);
                CREATE TABLE leaf(n INT REFERENCES n ON DELETE SET NULL ON UPDATE CASCADE, tag TEXT, PRIMARY KEY(tag, n), UNIQUE(n)) ;
                CREATE TRIGGER x1 AFTER DELETE ON n BEGIN UPDATE n SET weight = weight - 1 WHERE id = OLD.up; END;
                CREATE TRIGGER x2 AFTER INSERT ON n WHEN NEW.up IS NOT NULL BEGIN UPDATE n SET weight = weight + 1 WHERE id = NEW.up; END;
                CREATE TRIGGER x3 AFTER UPDATE OF up ON n WHEN NEW.weight < 3 BEGIN INSERT OR REPLACE INTO leaf VALUES(NEW.id, coalesce(NEW.path, 'p')); END;
                """,
            tables: [
                .init(
                    name: "n", columns: [("id", integers + ["6", "7"]), ("up", integers), ("path", texts), ("weight", small)],
                    conflictTargets: ["(id)", "(path)", ""])
            ],
            extra: ["DELETE FROM leaf", "INSERT OR REPLACE INTO leaf VALUES(1, 'a'), (2, 'a'), (2, 'b')"]),
        FuzzSchema(
            name: "one column under three collations",
            sql: """
                CREATE TABLE t(a TEXT COLLATE RTRIM, b, PRIMARY KEY(a COLLATE NOCASE, b)) WITHOUT ROWID;
                CREATE UNIQUE INDEX i ON t(a); CREATE UNIQUE INDEX j ON t(b COLLATE RTRIM, a COLLATE BINARY);
                """,
            tables: [
                .init(
                    name: "t", columns: [("a", texts + ["'A '", "' a'"]), ("b", mixed + ["'a '"])],
                    conflictTargets: ["(a COLLATE NOCASE, b)", "(a)", ""], hasRowid: false)
            ]),
    ]
}

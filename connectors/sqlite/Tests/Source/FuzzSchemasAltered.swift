/// Schemas that the application changes after capture's triggers were made.
extension FuzzSchema {
    private static let integers = ["0", "1", "2", "3", "4", "5", "NULL"]
    private static let texts = ["'a'", "'A'", "'b'", "'B'", "'c'", "'a '", "''", "NULL"]

    static let altered: [FuzzSchema] = [
        FuzzSchema(
            name: "newer triggers that skip and fail, keys known before",
            sql: """
                CREATE TABLE t(a TEXT PRIMARY KEY NOT NULL, b UNIQUE, c);
                CREATE TABLE u(a INT NOT NULL DEFAULT 2, b, c UNIQUE, PRIMARY KEY(b, a)) WITHOUT ROWID;
                CREATE TABLE audit(x CHECK(x IS NOT 'b'));
                """,
            tables: [
                .init(name: "t", columns: [("a", texts), ("b", integers), ("c", texts)], conflictTargets: ["(a)", "(b)", ""]),
                .init(
                    name: "u", columns: [("a", ["1", "2", "3"]), ("b", integers), ("c", texts)], conflictTargets: ["(b, a)", "(c)", ""],
                    hasRowid: false),
            ],
            later: """
                CREATE TRIGGER y1 AFTER INSERT ON t WHEN NEW.b = 1 BEGIN SELECT RAISE(IGNORE); END;
                CREATE TRIGGER y2 AFTER INSERT ON t WHEN NEW.b = 2 BEGIN SELECT RAISE(FAIL, 'no'); END;
                CREATE TRIGGER y3 AFTER INSERT ON u BEGIN INSERT INTO audit VALUES(NEW.c); END;
                CREATE TRIGGER y4 AFTER UPDATE ON t WHEN NEW.b = 3 BEGIN SELECT RAISE(IGNORE); END;
                CREATE TRIGGER y5 AFTER DELETE ON t WHEN OLD.b = 4 BEGIN SELECT RAISE(FAIL, 'no'); END;
                CREATE TRIGGER y6 BEFORE INSERT ON u WHEN NEW.c = 'c' BEGIN SELECT RAISE(IGNORE); END;
                CREATE TEMP TRIGGER z1 AFTER INSERT ON main.t WHEN NEW.b = 3 BEGIN SELECT RAISE(IGNORE); END;
                CREATE TEMP TRIGGER z2 AFTER INSERT ON main.u WHEN NEW.a = 3 BEGIN SELECT RAISE(FAIL, 'no'); END;
                CREATE TEMP TRIGGER z3 AFTER UPDATE ON main.u BEGIN INSERT OR REPLACE INTO t(a, b) VALUES(NEW.c, NEW.a); END;
                """),
        FuzzSchema(
            name: "newer triggers that fail, automatic keys",
            sql: """
                CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE);
                CREATE TABLE p(a INTEGER PRIMARY KEY AUTOINCREMENT, b);
                CREATE TABLE audit(x CHECK(x IS NOT 3));
                CREATE TRIGGER x1 BEFORE INSERT ON audit WHEN NEW.x = 2 BEGIN SELECT RAISE(FAIL, 'no'); END;
                """,
            tables: [
                .init(name: "t", columns: [("a", integers), ("b", integers)], conflictTargets: ["(a)", "(b)", ""]),
                .init(name: "p", columns: [("a", integers + ["NULL", "NULL"]), ("b", integers)], conflictTargets: ["(a)", ""]),
            ],
            later: """
                CREATE TRIGGER y1 AFTER INSERT ON t BEGIN INSERT INTO audit VALUES(NEW.b); END;
                CREATE TRIGGER y2 AFTER INSERT ON t WHEN NEW.b = 4 BEGIN SELECT RAISE(ABORT, 'no'); END;
                CREATE TRIGGER y3 AFTER INSERT ON p BEGIN INSERT INTO t(b) VALUES(NEW.b); INSERT INTO audit VALUES(NEW.b); END;
                CREATE TRIGGER y4 BEFORE INSERT ON t WHEN NEW.b = 5 BEGIN INSERT INTO p(b) VALUES(1); END;
                """, isRenewed: true),
        altered("altered, triggers as they were", isRenewed: false),
        altered("altered, triggers made again", isRenewed: true),
    ]

    private static func altered(_ name: String, isRenewed: Bool) -> FuzzSchema {
        FuzzSchema(
            name: name,
            sql: """
                CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c INTEGER, d INT NOT NULL DEFAULT 2, x, y);
                CREATE UNIQUE INDEX i ON t(lower(b)); CREATE UNIQUE INDEX j ON t(b || d COLLATE NOCASE, c) WHERE t.c IS NOT NULL;
                CREATE UNIQUE INDEX k ON t(x, abs(y));
                CREATE TABLE before(p, a TEXT COLLATE NOCASE, b, g AS (b % 3), c UNIQUE, PRIMARY KEY(p, a)) WITHOUT ROWID;
                CREATE UNIQUE INDEX l ON before(b) WHERE before.c > 1 OR c IS NULL; CREATE UNIQUE INDEX m ON before(g, c);
                """,
            tables: [
                .init(
                    name: "t", columns: [("a", integers), ("bee", texts), ("b", integers), ("d", integers), ("e", texts)],
                    conflictTargets: ["(a)", "(lower(bee))", ""]),
                .init(
                    name: "before", columns: [("p", ["1", "2", "1.0"]), ("key", ["'a'", "'A'", "'b'"]), ("b", integers), ("cee", integers)],
                    conflictTargets: ["(p, key)", "(cee)", ""], hasRowid: false),
            ],
            later: """
                ALTER TABLE t RENAME COLUMN b TO bee; ALTER TABLE t RENAME COLUMN c TO b; ALTER TABLE t ADD COLUMN e;
                DROP INDEX k; ALTER TABLE t DROP COLUMN x; ALTER TABLE t DROP COLUMN y;
                ALTER TABLE before RENAME COLUMN a TO key; ALTER TABLE before RENAME COLUMN c TO cee;
                ALTER TABLE t RENAME TO other; ALTER TABLE other RENAME TO t;
                """, isRenewed: isRenewed, isAltered: true)
    }
}

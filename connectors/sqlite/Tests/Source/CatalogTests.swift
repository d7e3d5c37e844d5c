import BridgeCore
import Testing

@testable import BridgeSQLite

@Suite("SQLite catalog")
struct CatalogTests {
    private func table(_ name: String, _ sql: String) throws -> SQLiteTable {
        let database = try SQLiteDatabase(path: ":memory:", access: .create, busyTimeout: 0)
        try database.execute(sql)
        return try #require(try SQLiteCatalog.table(name, database))
    }

    @Test("the text of a CREATE TABLE gives what no pragma says")
    func definition() throws {
        let table = try table(
            "order items",
            """
            CREATE TABLE customers(id INTEGER PRIMARY KEY);
            CREATE TABLE "order items" ( -- a comment, with ( and '
              id INTEGER CONSTRAINT pk PRIMARY KEY AUTOINCREMENT, /* ) */
              "na""me" TEXT COLLATE NOCASE NOT NULL DEFAULT 'it''s, (x' CHECK (length("na""me") > 0),
              [qty] INT DEFAULT -1 CONSTRAINT positive CHECK(qty > (1 - 3)),
              customer REFERENCES customers ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
              total AS (qty * 2) STORED,
              CONSTRAINT un UNIQUE ("na""me", qty) ON CONFLICT REPLACE
              CHECK (qty <> 7)
            )
            """)
        #expect(table.isAutoincrement)
        #expect(table.keyIsRowid)
        #expect(table.primaryKeyName == "pk")
        #expect(table.columns.map(\.name) == ["id", "na\"me", "qty", "customer", "total"])
        #expect(table.columns[1].collation == "NOCASE")
        #expect(table.columns[1].defaultExpression == "'it''s, (x'")
        #expect(table.columns[4].kind == .storedGenerated)
        #expect(table.columns[4].generatedAs == "qty * 2")
        #expect(table.checks.map(\.name) == [nil, "positive", nil])
        #expect(table.checks.map(\.expression) == ["length(\"na\"\"me\") > 0", "qty > (1 - 3)", "qty <> 7"])
        #expect(table.foreignKeys.count == 1)
        #expect(table.foreignKeys[0].referencedColumns == ["id"])
        #expect(table.foreignKeys[0].isInitiallyDeferred)
        #expect(table.foreignKeys[0].onDelete == "SET NULL")
        let unique = try #require(table.schema().indexes.first)
        #expect(unique.constraintName == "un")
        #expect(unique.definition == "CONSTRAINT \"un\" UNIQUE (\"na\"\"me\", \"qty\")")
    }

    @Test("expressions and conditions of indexes are read as written")
    func indexes() throws {
        let table = try table(
            "t",
            """
            CREATE TABLE t(a TEXT PRIMARY KEY, b, c) WITHOUT ROWID;
            CREATE UNIQUE INDEX "i(1)" ON t(lower(b) COLLATE NOCASE DESC, c) WHERE c > 'x,(' AND b IS NOT NULL;
            """)
        #expect(table.isWithoutRowid)
        let index = try #require(table.indexes.first { $0.origin == .createIndex })
        #expect(index.parts[0].expression == "lower(b)")
        #expect(index.parts[0].collation == "NOCASE")
        #expect(index.parts[0].isDescending)
        #expect(index.parts[1].column == 2)
        #expect(index.predicate == "c > 'x,(' AND b IS NOT NULL")
    }

    @Test("INTEGER PRIMARY KEY DESC is not the rowid")
    func descendingKey() throws {
        #expect(try !table("t", "CREATE TABLE t(a INTEGER PRIMARY KEY DESC, b)").keyIsRowid)
        #expect(try !table("t", "CREATE TABLE t(a INT PRIMARY KEY, b)").keyIsRowid)
        #expect(try table("t", "CREATE TABLE t(a INTEGER, b, PRIMARY KEY(a DESC))").keyIsRowid)
    }

    @Test("virtual tables, their shadows, SQLite's and bridge's own tables are not listed")
    func listed() throws {
        let database = try SQLiteDatabase(path: ":memory:", access: .create, busyTimeout: 0)
        try database.execute(
            """
            CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE VIRTUAL TABLE f USING fts5(x);
            CREATE TABLE _bridge_log(x); CREATE VIEW v AS SELECT 1;
            """)
        #expect(try SQLiteCatalog.tableNames(database) == ["a"])
        #expect(try SQLiteCatalog.kind(of: "F", database)?.kind == "virtual")
    }

    @Test("what is stored decides a column's logical type")
    func types() throws {
        let database = try SQLiteDatabase(path: ":memory:", access: .create, busyTimeout: 0)
        try database.execute(
            """
            CREATE TABLE t(id INTEGER PRIMARY KEY, flag BOOLEAN, number BOOLEAN, d DECIMAL(10,2), long DECIMAL, u UUID,
                           at DATETIME, unix DATETIME, mixed, x BLOB, r REAL, s STRING, e VARCHAR(10));
            INSERT INTO t VALUES(1, 1, 2, 1.5, '123456789012345678901234567890.5', '123a', '2020-01-01', 5, 'a', x'00', 1.5, 7, NULL);
            INSERT INTO t VALUES(2, 0, 1, 2, 1, NULL, NULL, 6, 5, NULL, 2, NULL, NULL);
            """)
        let table = try #require(try SQLiteCatalog.table("t", database))
        let schema = try table.schema(contents: table.scanContents(database))
        #expect(
            schema.columns.map(\.type) == [
                .int64, .boolean, .int64, .numeric(precision: nil, scale: nil), .numeric(precision: nil, scale: nil),
                .text, .text, .int64, .dynamic, .bytes, .float64, .int64, .text,
            ])
    }

    @Test("a table with as many columns as SQLite allows is looked at")
    func widestTable() throws {
        let database = try SQLiteDatabase(path: ":memory:", access: .create, busyTimeout: 0)
        let names = (1..<2_000).map { "c\($0)" }
        try database.execute(
            "CREATE TABLE wide(id INTEGER PRIMARY KEY, \(names.joined(separator: ", "))); INSERT INTO wide(id, c1, c1999) VALUES(1, 'a', 1.5)")
        let table = try #require(try SQLiteCatalog.table("wide", database))
        let contents = try table.scanContents(database)
        #expect(contents[1].hasText && contents[1_999].hasReal && contents[1_000].isEmpty)
    }

    @Test("a scan in chunks sees the last row of a table with a composite key")
    func chunkedScan() throws {
        let database = try SQLiteDatabase(path: ":memory:", access: .create, busyTimeout: 0)
        try database.execute(
            """
            CREATE TABLE t(a, b, v, PRIMARY KEY(a, b)) WITHOUT ROWID;
            WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 120000)
            INSERT INTO t SELECT i / 7, i, 1 FROM n;
            UPDATE t SET v = 'x' WHERE b = 120000; UPDATE t SET v = x'00' WHERE b = 60000; UPDATE t SET v = 1.5 WHERE b = 0;
            """)
        let table = try #require(try SQLiteCatalog.table("t", database))
        let contents = try table.scanContents(database)[2]
        #expect(contents.hasText && contents.hasBlob && contents.hasReal && contents.hasInteger)
    }

    @Test("errors carry the code that SQLite's result stands for")
    func errors() throws {
        #expect(throws: BridgeError.self) {
            _ = try SQLiteDatabase(path: "/nonexistent/x.db", access: .readWrite, busyTimeout: 0)
        }
        do {
            _ = try SQLiteDatabase(path: "/nonexistent/x.db", access: .readWrite, busyTimeout: 0)
        } catch { #expect(error.code == .serverUnreachable) }
        let database = try SQLiteDatabase(path: ":memory:", access: .create, busyTimeout: 0)
        try database.execute("CREATE TABLE t(a UNIQUE)")
        do {
            try database.execute("INSERT INTO t VALUES('secret'), ('secret')")
        } catch {
            #expect(error.code == .changeRefused)
            #expect(!"\(error)".contains("secret"))
        }
    }
}

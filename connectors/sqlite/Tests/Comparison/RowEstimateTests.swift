import BridgeCore
import CSQLite
import GRDB
import Testing

@testable import BridgeSQLite

@Suite("SQLite comparison: how many rows a table may have")
struct RowEstimateTests {
    private func estimate(_ database: TestDatabase, _ table: String = "t") throws -> (rows: Int64?, pages: Int) {
        let connection = try SQLiteConnection(path: database.path, access: .readWrite, busyTimeout: 1_000)
        let described = try #require(try SQLiteCatalog.table(table, connection.database))
        func pages() -> Int {
            var (hits, misses, highest): (Int32, Int32, Int32) = (0, 0, 0)
            sqlite3_db_status(connection.database.handle, SQLITE_DBSTATUS_CACHE_HIT, &hits, &highest, 0)
            sqlite3_db_status(connection.database.handle, SQLITE_DBSTATUS_CACHE_MISS, &misses, &highest, 0)
            return Int(hits) + Int(misses)
        }
        let before = pages()
        let layout = try ComparisonLayout(table: described, columns: [], places: [], connection.database)
        return (layout.estimatedRows, pages() - before)
    }

    private func fill(_ rows: Int, _ number: String) -> String {
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < \(rows)) INSERT INTO t SELECT \(number), zeroblob(200) FROM n;"
    }

    @Test(
        "K14 asking for a layout costs the same for a table ten times larger, and tells about how many rows there are",
        arguments: ["i", "i * 1000", "i * 4611686018427", "-i", "CASE WHEN i % 2 THEN i ELSE -i END"])
    func cost(_ number: String) throws {
        let small = try TestDatabase("CREATE TABLE t(a INTEGER PRIMARY KEY, b);" + fill(20_000, number))
        let large = try TestDatabase("CREATE TABLE t(a INTEGER PRIMARY KEY, b);" + fill(200_000, number))
        let (a, b) = (try estimate(small), try estimate(large))
        #expect(Double(b.pages) <= 1.2 * Double(a.pages) + 50, "\(a.pages) pages, then \(b.pages)")
        #expect((a.rows ?? 0) > 10_000 && (a.rows ?? 0) < 40_000, "\(String(describing: a.rows))")
        #expect((b.rows ?? 0) > 100_000 && (b.rows ?? 0) < 400_000, "\(String(describing: b.rows))")
    }

    @Test("K14 what ANALYZE has counted is believed, and a large table whose rows have no numbers has no estimate")
    func statistics() throws {
        let database = try TestDatabase("CREATE TABLE t(a TEXT PRIMARY KEY, b) WITHOUT ROWID;" + fill(20_000, "'k' || i"))
        let unknown = try estimate(database)
        #expect(unknown.rows == nil)
        #expect(unknown.pages < 500)
        try database.run("ANALYZE; UPDATE sqlite_stat1 SET stat = '123456 1'")
        #expect(try estimate(database).rows == 123_456)
        try database.run("UPDATE sqlite_stat1 SET stat = 'nonsense'")
        #expect(try estimate(database).rows == nil)
        try database.run("DELETE FROM sqlite_stat1; DELETE FROM t WHERE a > 'k11'")
        #expect(try estimate(database).rows == database.integer("SELECT count(*) FROM t"))
        try database.run("DELETE FROM t")
        #expect(try estimate(database).rows == 0)
    }

    @Test("K14 a partial index does not tell of the whole table, and hostile names do no harm")
    func partial() throws {
        let database = try TestDatabase(
            """
            CREATE TABLE "it's ""t"(a INTEGER PRIMARY KEY, b); CREATE INDEX part ON "it's ""t"(b) WHERE b > 1;
            INSERT INTO "it's ""t" VALUES(-9223372036854775808, 0), (0, 1), (9223372036854775807, 2); ANALYZE
            """)
        #expect(try estimate(database, "it's \"t").rows == 3)
        try database.run("CREATE TABLE names(a INTEGER PRIMARY KEY, rowid, oid, _rowid_); INSERT INTO names VALUES(1, 5, 5, 5)")
        #expect(try estimate(database, "names").rows == 1)
        try database.run("CREATE TABLE hidden(a TEXT PRIMARY KEY, rowid, oid, _rowid_); INSERT INTO hidden VALUES('1', 5, 5, 5)")
        #expect(try estimate(database, "hidden").rows == 1)
    }
}

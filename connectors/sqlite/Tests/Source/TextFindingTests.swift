import BridgeCore
import CSQLite
import Testing

@testable import BridgeSQLite

@Suite struct TextFindingTests {
    @Test("S2 S-types text that PostgreSQL cannot store is named before the copy, by table and column")
    func textFaults() async throws {
        let database = try TestDatabase(
            """
            CREATE TABLE t(id INTEGER PRIMARY KEY, fine TEXT, zero TEXT, bad VARCHAR(9), both, surrogate DATE, blob BLOB, gone);
            INSERT INTO t VALUES(1, 'äöü€😀', 'a', 'b', 1, '2024-01-02', x'00ff', NULL);
            WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) INSERT INTO t(id, fine) SELECT i, 'longer than eight' FROM n;
            UPDATE t SET zero = CAST(x'6162636465666768006a' AS TEXT), both = CAST(x'00' AS TEXT) WHERE id = 59999;
            UPDATE t SET bad = CAST(x'c328' AS TEXT), both = CAST(x'e282' AS TEXT), surrogate = CAST(x'eda080' AS TEXT) WHERE id = 3;
            UPDATE t SET gone = CAST(x'00d8' AS TEXT);
            """)
        let source = SQLiteSource(path: database.path)
        var link = forwardLink(["t"])
        #expect(try await source.preflight(link).isEmpty)
        link.form = .canonical
        link.mappings[0].columns = ["id", "FINE", "zero", "bad", "both", "surrogate", "blob"]
        let findings = try await source.preflight(link)
        #expect(
            findings.map(\.what) == [
                "text in column zero of table t holds a zero byte", "text in column bad of table t holds bytes that are not UTF-8",
                "text in column both of table t holds bytes that are not UTF-8",
                "text in column surrogate of table t holds bytes that are not UTF-8",
            ])
        #expect(findings.allSatisfy { $0.severity == .blocking && $0.table?.name == "t" && !$0.mend.isEmpty })
        #expect(try database.integer(findings.first?.mend.first ?? "") == 59_999)
        link.mappings[0].rowFilter = "id = 1"
        #expect(try await source.preflight(link).allSatisfy { $0.severity == .warning })
        link.mappings[0].rowFilter = nil
        // One look serves until somebody commits.
        try database.run("UPDATE t SET zero = 'a', bad = 'b', both = 1, surrogate = NULL")
        #expect(try await source.preflight(link).isEmpty)
        await source.close()
    }

    @Test("S3 the values are looked at for a plan, and not for what the catalog alone can tell")
    func looks() async throws {
        let database = try TestDatabase("CREATE TABLE t(id INTEGER PRIMARY KEY, at DATE, x); INSERT INTO t VALUES(1, 5, 1.5), (2, 6, NULL)")
        let source = SQLiteSource(path: database.path)
        let name = [TableName(name: "t")]
        #expect(try await source.planTables(name).first?.columns.map(\.type) == [.int64, .int64, .float64])
        for tables in [try await source.describeTables(name), try await source.listTables()] {
            #expect(tables.map(\.name.name) == ["t"] && tables.first?.estimatedRows == 2)
            #expect(tables.first?.columns.map(\.type) == [.int64, .text, .dynamic])
        }
        await source.close()
    }

    @Test("S-types integers and reals are doubles where SQLite makes an integer of a double that is one, and no type elsewhere")
    func mixedNumbers() throws {
        let database = try SQLiteDatabase(path: ":memory:", access: .create, busyTimeout: 0)
        try database.execute(
            """
            CREATE TABLE t(id INTEGER PRIMARY KEY, i INT, big BIGINT, r REAL, m MONEY, bare, b BLOB, a ANY, exact INTEGER);
            INSERT INTO t VALUES(1, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5), (2, 5, 9007199254740993, 5, 5, 5, 5, 5, NULL);
            CREATE TABLE s(id INTEGER PRIMARY KEY, a ANY) STRICT;
            INSERT INTO s VALUES(1, 1.5), (2, 5);
            """)
        let table = try #require(try SQLiteCatalog.table("t", database))
        let schema = try table.schema(contents: table.scanContents(database))
        #expect(
            schema.columns.map(\.type) == [.int64, .float64, .dynamic, .float64, .float64, .dynamic, .dynamic, .dynamic, .float64])
        let strict = try #require(try SQLiteCatalog.table("s", database))
        #expect(try strict.schema(contents: strict.scanContents(database)).columns.map(\.type) == [.int64, .dynamic])
    }

    @Test("S2 S16 what memory does not suffice to look at is an error, not a value without a fault")
    func outOfMemory() throws {
        let characters = 1_000_000
        let source = try TestDatabase("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)", encoding: "UTF-16")
        try source.run("INSERT INTO t VALUES(1, hex(zeroblob(\(characters / 2))) || char(0))")
        let database = try SQLiteDatabase(path: source.path, access: .readWrite, busyTimeout: 0)
        let table = try #require(try SQLiteCatalog.table("t", database))
        #expect(try table.scanContents(database)[1].textFault == .zeroByte)
        defer { sqlite3_hard_heap_limit64(0) }
        var outcomes: Set<String> = []
        // From a limit at which not even the row can be read to one at which all goes well.
        for limit in stride(from: Int64(0), to: Int64(characters) * 10, by: characters / 4) {
            sqlite3_hard_heap_limit64(sqlite3_memory_used() + 100_000 + limit)
            do {
                let contents = try table.scanContents(database)
                #expect(contents[1].hasText && contents[1].textFault == .zeroByte, "\(limit)")
                outcomes.insert("seen")
            } catch { outcomes.insert("refused") }
            sqlite3_hard_heap_limit64(0)
        }
        #expect(outcomes == ["seen", "refused"])
    }

    @Test("a mixture that no double holds is no float64")
    func largeIntegers() throws {
        let database = try SQLiteDatabase(path: ":memory:", access: .create, busyTimeout: 0)
        try database.execute(
            """
            CREATE TABLE t(id INTEGER PRIMARY KEY, exact MONEY, odd MONEY, least MONEY, most MONEY, near MONEY, d DECIMAL_TEXT, e DECIMAL_DOUBLE, f DECIMAL);
            INSERT INTO t VALUES(1, 1.5, 1.5, 1.5, 1.5, 1.5, '1.10', 1, 'n/a');
            INSERT INTO t VALUES(2, 4611686018427387904, 9007199254740993, -9223372036854775808, 9223372036854775807, -9007199254740992, '2', 2, '');
            """)
        let table = try #require(try SQLiteCatalog.table("t", database))
        let schema = try table.schema(contents: table.scanContents(database))
        #expect(
            schema.columns.map(\.type) == [.int64, .float64, .dynamic, .dynamic, .dynamic, .float64, .text, .float64, .text])
    }
}

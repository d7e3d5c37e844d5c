import BridgeCore
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// What the application may do to a captured table's definition: capture stands in the way of none of it, goes on where
/// nothing was missed, and names the table where something may have been.
@Suite("SQLite capture: the application alters its tables")
struct SchemaChangeCaseTests {
    // MARK: Names

    @Test("S4 a captured table that bears the name of the changed row in triggers stops capture", arguments: ["old", "NEW"])
    func reservedName(_ name: String) async throws {
        let harness = try await CaptureHarness("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)", tables: ["t"])
        try harness.database.run("ALTER TABLE t RENAME TO \(name)")
        let error = await #expect(throws: BridgeError.self) { try await harness.read(patience: .seconds(5)) }
        #expect(error?.code == .captureBroken)
        await harness.close()
    }

    @Test(
        "S4 a captured table that was renamed away while another took its name stops capture, copy and check",
        arguments: [
            "ALTER TABLE t RENAME TO t_old; CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE); INSERT INTO t SELECT * FROM t_old",
            "ALTER TABLE t RENAME TO tmp; ALTER TABLE u RENAME TO t; ALTER TABLE tmp RENAME TO u",
            "ALTER TABLE t RENAME TO old; ALTER TABLE other RENAME TO T",
        ])
    func successor(_ sql: String) async throws {
        let harness = try await CaptureHarness(
            """
            CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE); CREATE TABLE u(a INTEGER PRIMARY KEY, b UNIQUE);
            CREATE TABLE other(a INTEGER PRIMARY KEY, b UNIQUE);
            """, tables: ["t", "u"])
        try harness.database.run("INSERT INTO t VALUES(1, 1)")
        try await harness.drain()
        let comparison = SQLiteSourceComparison(path: harness.database.path, link: harness.link)
        try await comparison.open()
        try harness.database.run("BEGIN; \(sql); COMMIT; INSERT INTO t VALUES(2, 2)")
        let snapshot = try await harness.source.openSnapshot(harness.link)
        let attempts: [(String, () async throws -> Void)] = [
            ("capture", { try await harness.read(patience: .seconds(5)) }),
            ("copy", { _ = try await harness.openTable("t", of: snapshot) }),
            ("check", { _ = try await comparison.layout(of: harness.link.mappings[0], columns: nil) }),
            ("the next session", { try await harness.reopen() }),
        ]
        for (what, attempt) in attempts {
            do {
                try await attempt()
                Issue.record("\(what) went on")
            } catch let error as BridgeError {
                #expect(error.code == .captureBroken, "\(what)")
                #expect(error.description.contains("table: t"), "\(what)")
            }
        }
        await comparison.close()
        await harness.close()
    }

    @Test("S14 a table that was renamed is followed by capture, and refused by the fence under the name that it had")
    func renamed() async throws {
        let harness = try await CaptureHarness("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)", tables: ["t"])
        try harness.database.run("ALTER TABLE t RENAME TO u; INSERT INTO u VALUES(1, 1)")
        try await harness.drain()
        #expect(harness.mirror.table(named: "t")?.rows.count == 1)
        let connection = try SQLiteConnection(path: harness.database.path, access: .readWrite, busyTimeout: 5_000)
        let name = TableName(name: "t")
        #expect(try SQLiteFence.reasonAgainst(name, connection.database) == "there is no such table")
        let facts = try CutoverFactReader(fence: SQLiteFence(migration: "test")).facts([name], connection.database)
        #expect(facts.unfenceable[name] == "there is no such table")
        // The same name in other letters is the same name.
        try harness.database.run("ALTER TABLE u RENAME TO T; INSERT INTO T VALUES(2, 2)")
        try await harness.drain()
        #expect(try SQLiteFence.reasonAgainst(name, connection.database) == nil)
        await harness.close()
    }

    // MARK: Columns and indexes

    struct Alteration: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var schema: String
        var before: String
        var alter: String
        /// Writes every row, so that all of them are there in their new form.
        var after: String
        var columns: [String]
    }

    static let alterations: [Alteration] = {
        let plain = "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c INT, d); CREATE UNIQUE INDEX i ON t(b COLLATE NOCASE);"
        let computed =
            "CREATE TABLE t(a TEXT PRIMARY KEY NOT NULL, b TEXT, c INT NOT NULL DEFAULT 2, d); CREATE UNIQUE INDEX i ON t(lower(b), c);"
        let partial =
            "CREATE TABLE t(x, a INT, b TEXT, c, d, PRIMARY KEY(a, x)) WITHOUT ROWID; CREATE UNIQUE INDEX i ON t(b) WHERE t.c > 1;"
        let generated =
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b INT NOT NULL DEFAULT 1, g AS (b % 100) UNIQUE, c, d); CREATE UNIQUE INDEX i ON t(g, c);"
        return [
            Alteration(
                testDescription: "DROP INDEX and its column", schema: plain, before: "INSERT INTO t VALUES(1, 'x', 1, 1)",
                alter: "DROP INDEX i; ALTER TABLE t DROP COLUMN b", after: "REPLACE INTO t VALUES(2, 2, 2); UPDATE t SET c = c + 1",
                columns: ["a", "c", "d"]),
            Alteration(
                testDescription: "DROP INDEX alone", schema: plain, before: "INSERT INTO t VALUES(1, 'x', 1, 1)",
                alter: "DROP INDEX i", after: "REPLACE INTO t VALUES(2, 'x', 2, 2); UPDATE t SET c = c + 1",
                columns: ["a", "b", "c", "d"]),
            Alteration(
                testDescription: "RENAME COLUMN of a plain index", schema: plain, before: "INSERT INTO t VALUES(1, 'x', 1, 1)",
                alter: "ALTER TABLE t RENAME COLUMN b TO bee", after: "REPLACE INTO t VALUES(2, 'X', 2, 2); UPDATE t SET c = c + 1",
                columns: ["a", "bee", "c", "d"]),
            Alteration(
                testDescription: "DROP COLUMN beside an index over an expression", schema: computed,
                before: "INSERT INTO t VALUES('k', 'x', 1, 1)", alter: "ALTER TABLE t DROP COLUMN d",
                after: "REPLACE INTO t VALUES('n', 'X', 1); UPDATE t SET c = c + 10", columns: ["a", "b", "c"]),
            Alteration(
                testDescription: "DROP INDEX over an expression and its columns", schema: computed,
                before: "INSERT INTO t VALUES('k', 'x', 1, 1)",
                alter: "DROP INDEX i; ALTER TABLE t DROP COLUMN b; ALTER TABLE t DROP COLUMN c",
                after: "REPLACE INTO t VALUES('n', 2); UPDATE t SET d = d + 10", columns: ["a", "d"]),
            Alteration(
                testDescription: "ADD COLUMN beside an index over an expression", schema: computed,
                before: "INSERT INTO t VALUES('k', 'x', 1, 1)", alter: "ALTER TABLE t ADD COLUMN e NOT NULL DEFAULT 7",
                after: "REPLACE INTO t VALUES('n', 'X', 1, 1, 1); UPDATE t SET c = c + 10", columns: ["a", "b", "c", "d", "e"]),
            Alteration(
                testDescription: "RENAME COLUMN of an index over an expression", schema: computed,
                before: "INSERT INTO t VALUES('k', 'x', 1, 1)",
                alter: "ALTER TABLE t RENAME COLUMN b TO bee; ALTER TABLE t RENAME COLUMN c TO b; ALTER TABLE t RENAME COLUMN a TO c",
                after: "REPLACE INTO t VALUES('n', 'X', 1, 1); UPDATE t SET b = b + 10", columns: ["c", "bee", "b", "d"]),
            Alteration(
                testDescription: "RENAME, ADD and DROP COLUMN beside a partial index", schema: partial,
                before: "INSERT INTO t VALUES(1, 1, 'x', 2, 3)",
                alter: "ALTER TABLE t RENAME COLUMN c TO cee; ALTER TABLE t ADD COLUMN e; ALTER TABLE t DROP COLUMN d",
                after: "REPLACE INTO t VALUES(2, 2, 'x', 2, 3); UPDATE t SET cee = cee + 10", columns: ["x", "a", "b", "cee", "e"]),
            Alteration(
                testDescription: "DROP INDEX that is partial and its columns", schema: partial,
                before: "INSERT INTO t VALUES(1, 1, 'x', 2, 3)",
                alter: "DROP INDEX i; ALTER TABLE t DROP COLUMN c; ALTER TABLE t DROP COLUMN b",
                after: "REPLACE INTO t VALUES(2, 2, 2); UPDATE t SET d = d + 10", columns: ["x", "a", "d"]),
            Alteration(
                testDescription: "RENAME, ADD and DROP COLUMN beside generated columns", schema: generated,
                before: "INSERT INTO t(a, b, c) VALUES(1, 1, 2)",
                alter: "ALTER TABLE t RENAME COLUMN b TO bee; ALTER TABLE t RENAME COLUMN g TO gee; ALTER TABLE t ADD COLUMN e; ALTER TABLE t DROP COLUMN d",
                after: "REPLACE INTO t(a, bee, c) VALUES(2, 101, 2); UPDATE t SET bee = bee + 10", columns: ["a", "bee", "c", "e"]),
            Alteration(
                testDescription: "DROP INDEX and a generated column", schema: generated,
                before: "INSERT INTO t(a, b, c) VALUES(1, 1, 2)", alter: "DROP INDEX i; ALTER TABLE t DROP COLUMN c",
                after: "REPLACE INTO t(a, b) VALUES(2, 101); UPDATE t SET b = b + 10", columns: ["a", "b", "d"]),
        ]
    }()

    @Test("S4 no ALTER TABLE fails for capture's triggers or is taken for a loss", arguments: alterations)
    func alterTable(_ alteration: Alteration) async throws {
        let harness = try await CaptureHarness(alteration.schema, tables: ["t"])
        try harness.database.run(alteration.before)
        try await harness.drain()
        try harness.database.run("\(alteration.alter); \(alteration.after)")
        #expect(try await harness.difference(["t": alteration.columns]) == nil)
        try await harness.reopen()
        try harness.database.run("DELETE FROM t")
        #expect(try await harness.difference(["t": alteration.columns]) == nil)
        await harness.close()
    }

    @Test("S4 an ALTER TABLE over changes that are still in the log", arguments: alterations)
    func pendingEntries(_ alteration: Alteration) async throws {
        let harness = try await CaptureHarness(alteration.schema, tables: ["t"])
        try harness.database.run("\(alteration.before); \(alteration.alter); \(alteration.after)")
        #expect(try await harness.difference(["t": alteration.columns]) == nil)
        await harness.close()
    }

    @Test("S4 an ALTER TABLE inside a transaction that writes before and after it", arguments: alterations)
    func insideTransaction(_ alteration: Alteration) async throws {
        let harness = try await CaptureHarness(alteration.schema, tables: ["t"])
        try harness.database.run("BEGIN; \(alteration.before); \(alteration.alter); \(alteration.after); COMMIT")
        #expect(try await harness.difference(["t": alteration.columns]) == nil)
        await harness.close()
    }

    @Test("S4 an ALTER TABLE while a captured transaction is open", arguments: ["DROP INDEX i; ALTER TABLE t DROP COLUMN b", "ALTER TABLE t ADD COLUMN e", "ALTER TABLE t RENAME COLUMN c TO cee"])
    func openTransaction(_ alter: String) async throws {
        let harness = try await CaptureHarness(
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c); CREATE UNIQUE INDEX i ON t(abs(b))", tables: ["t"])
        try harness.database.run(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, i, i FROM n")
        harness.limit = 2_000
        #expect(try await harness.read().isInsideTransaction)
        try harness.database.run("\(alter); UPDATE t SET a = a + 1000; DELETE FROM t WHERE a % 7 = 0")
        #expect(try await harness.read().isInsideTransaction)
        let columns = try harness.database.rows("SELECT name FROM pragma_table_info('t') ORDER BY cid").map { $0["name"] as String }
        #expect(try await harness.difference(["t": columns]) == nil)
        await harness.close()
    }

    // MARK: Triggers made again

    private static let triggers = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 't' AND sql LIKE "

    @Test("S4 triggers are made again for what an ALTER TABLE left of them, so that the next one does not fail either")
    func madeAgain() async throws {
        let harness = try await CaptureHarness(Self.alterations[0].schema, tables: ["t"])
        try harness.database.run("INSERT INTO t VALUES(1, 'x', 1, 1); ALTER TABLE t RENAME COLUMN b TO bee")
        try await eventually("no trigger knows the old name") {
            try await harness.read(patience: .milliseconds(20))
            return try harness.database.integer(Self.triggers + "'%\"b\"%'") == 0
        }
        try harness.database.run("DROP INDEX i; ALTER TABLE t DROP COLUMN bee; REPLACE INTO t VALUES(2, 2, 2); UPDATE t SET c = 5")
        #expect(try await harness.difference(["t": ["a", "c", "d"]]) == nil)
        try await eventually("no trigger knows the column that was dropped") {
            try await harness.read(patience: .milliseconds(20))
            return try harness.database.integer(Self.triggers + "'%bee%'") == 0
        }
        // What bridge does itself is not taken for somebody else's doing.
        let names = CaptureNames(harness.link)
        let connection = try SQLiteConnection(path: harness.database.path, access: .readWrite, busyTimeout: 5_000)
        #expect(try TriggerOrder.madeLater(names, connection.database) == [])
        await harness.close()
    }

    @Test("S4 a session begins by making triggers again that were left behind while none ran")
    func madeAgainAtOpening() async throws {
        let harness = try await CaptureHarness(Self.alterations[0].schema, tables: ["t"])
        try await harness.drain()
        await harness.session.close()
        let names = CaptureNames(harness.link)
        let connection = try SQLiteConnection(path: harness.database.path, access: .readWrite, busyTimeout: 5_000)
        let before = try OwnSchemaChanges.versionOfOthers(names, connection.database)
        try harness.database.run("ALTER TABLE t RENAME COLUMN b TO bee")
        let after = try OwnSchemaChanges.versionOfOthers(names, connection.database)
        #expect(after > before)
        try await harness.reopen()
        #expect(try harness.database.integer(Self.triggers + "'%\"b\"%'") == 0)
        #expect(try TriggerOrder.madeLater(names, connection.database) == [])
        #expect(try OwnSchemaChanges.versionOfOthers(names, connection.database) == after)
        await harness.close()
    }

    @Test("S4 triggers made again by bridge do not hide that somebody else had made some again")
    func evidenceStays() async throws {
        let harness = try await CaptureHarness(Self.alterations[0].schema + "CREATE TABLE u(a INTEGER PRIMARY KEY, b); CREATE UNIQUE INDEX j ON u(b)", tables: ["t", "u"])
        try await harness.drain()
        await harness.session.close()
        let saved = try harness.database.rows("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'u'").map { $0["sql"] as String }
        try harness.database.run("DROP TRIGGER _bridge_test_2_ai; DROP TRIGGER _bridge_test_2_bi; INSERT INTO u VALUES(1, 1)")
        for sql in saved where sql.contains("_2_ai") || sql.contains("_2_bi") { try harness.database.run(sql) }
        try harness.database.run("ALTER TABLE t RENAME COLUMN b TO bee; ALTER TABLE u RENAME COLUMN b TO bee")
        try await harness.reopen()
        #expect(try harness.database.integer(Self.triggers + "'%\"b\"%'") == 0)
        let connection = try SQLiteConnection(path: harness.database.path, access: .readWrite, busyTimeout: 5_000)
        let later = try #require(try TriggerOrder.madeLater(CaptureNames(harness.link), connection.database))
        #expect(Set(later.map { $0.hasPrefix("_bridge_test_2_") }) == [true])
        await harness.close()
    }
}

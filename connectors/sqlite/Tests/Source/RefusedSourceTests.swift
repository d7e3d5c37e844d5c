import BridgeCore
import GRDB
import Testing

@testable import BridgeSQLite

@Suite("SQLite sources that cannot be captured whole")
struct RefusedSourceTests {
    private static let half = "CAST(x'00D84100' AS TEXT)"

    @Test("S16 half a surrogate pair in a UTF-16 database stops the copy by table and column", arguments: ["UTF-16le", "UTF-16be"])
    func copy(_ encoding: String) async throws {
        let text = encoding == "UTF-16le" ? "x'00D84100'" : "x'D8000041'"
        let harness = try await CaptureHarness(
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b, note); INSERT INTO t VALUES(1, 'ünï 😀', 'x'), (2, '', CAST(\(text) AS TEXT))",
            tables: ["t"], encoding: encoding)
        let snapshot = try await harness.source.openSnapshot(harness.link)
        do {
            _ = try await harness.load("t", from: harness.openTable("t", of: snapshot))
            Issue.record("the text was taken")
        } catch let error as BridgeError {
            #expect(error.code == .sourceUnsupported)
            #expect(error.context.first { $0.key == .table }?.value == "t")
            #expect(error.context.first { $0.key == .column }?.value == "note")
        }
        try harness.database.run("UPDATE t SET note = 'mended' WHERE a = 2")
        _ = try await harness.load("t", from: harness.openTable("t", of: snapshot))
        #expect(try harness.compare(["t": ["a", "b", "note"]]) == nil)
        await harness.close()
    }

    @Test(
        "S16 half a surrogate pair in a UTF-16 database stops capture by table and column, in a value and in a key",
        arguments: [
            ("UPDATE t SET note = \(half)", "note"), ("UPDATE t SET a = \(half)", "a"),
            ("UPDATE t SET note = CAST(x'41003DD8' AS TEXT)", "note"), ("UPDATE t SET note = CAST(x'00DE3DD8' AS TEXT)", "note"),
        ])
    func capture(_ statement: String, _ column: String) async throws {
        let harness = try await CaptureHarness(
            "CREATE TABLE t(a TEXT PRIMARY KEY NOT NULL, note); INSERT INTO t VALUES('k', '😀')", tables: ["t"], encoding: "UTF-16le")
        try harness.database.run("UPDATE t SET note = '😀😀'")
        #expect(try await harness.difference(["t": ["a", "note"]]) == nil)
        try harness.database.run(statement)
        do {
            try await harness.read(patience: .seconds(5))
            Issue.record("the text was taken")
        } catch let error as BridgeError {
            #expect(error.code == .sourceUnsupported)
            #expect(error.context.first { $0.key == .table }?.value == "t")
            #expect(error.context.first { $0.key == .column }?.value == column)
        }
        await harness.close()
    }

    @Test("S2 a key or a unique index with a collation that only the application has is refused by name")
    func collations() async throws {
        let database = try TestDatabase()
        try await database.application.writeWithoutTransaction { connection in
            connection.add(collation: DatabaseCollation("GERMAN") { left, right in left.compare(right) })
            try connection.execute(
                sql: """
                    CREATE TABLE keyed(a TEXT COLLATE GERMAN PRIMARY KEY NOT NULL, b);
                    CREATE TABLE second(a INTEGER PRIMARY KEY, b TEXT); CREATE UNIQUE INDEX i ON second(b COLLATE GERMAN);
                    CREATE TABLE plain(a INTEGER PRIMARY KEY, b TEXT COLLATE GERMAN); CREATE INDEX j ON plain(b);
                    CREATE TABLE known(a TEXT COLLATE nocase PRIMARY KEY NOT NULL, b TEXT COLLATE RTRIM UNIQUE);
                    INSERT INTO keyed VALUES('ä', 1); INSERT INTO plain VALUES(1, 'ä');
                    """)
        }
        let source = SQLiteSource(path: database.path)
        let findings = try await source.preflight(forwardLink(["keyed", "second", "plain", "known"]))
        #expect(
            findings.map { "\($0.table?.name ?? "-") \($0.code.rawValue) \($0.severity.rawValue)" } == [
                "keyed source_unsupported blocking", "second source_unsupported blocking",
            ])
        #expect(findings.allSatisfy { $0.what.contains("GERMAN") && !$0.mend.isEmpty })
        await source.close()
    }
}

import BridgeCore
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// The newest AFTER trigger fires first, and those of the schema `temp` before all others. One that skips, or fails in a way
/// that leaves the row, keeps every AFTER trigger behind it from firing.
@Suite("SQLite capture: inserts that the application's own triggers hide")
struct HiddenInsertTests {
    static let keys = [
        "CREATE TABLE t(a TEXT PRIMARY KEY NOT NULL, b, c)",
        "CREATE TABLE t(a INT NOT NULL DEFAULT 9, b, c, PRIMARY KEY(b, a))",
        "CREATE TABLE t(a TEXT COLLATE NOCASE, b, c UNIQUE, PRIMARY KEY(a)) WITHOUT ROWID",
        "CREATE TABLE t(a REAL PRIMARY KEY NOT NULL, b, c)",
        "CREATE TABLE t(a ANY PRIMARY KEY NOT NULL, b ANY, c ANY) STRICT",
    ]
    static let hiding = [
        "CREATE %TRIGGER y AFTER INSERT ON main.t BEGIN SELECT RAISE(IGNORE); END",
        "CREATE %TRIGGER y AFTER INSERT ON main.t BEGIN SELECT RAISE(FAIL, 'no'); END",
        "CREATE %TRIGGER y AFTER INSERT ON main.t BEGIN INSERT INTO audit VALUES(1); END",
    ]

    @Test("S1 no trigger of the application hides an insert whose key is known before", arguments: keys, hiding)
    func knownKey(_ schema: String, _ trigger: String) async throws {
        let harness = try await CaptureHarness("\(schema); CREATE TABLE audit(x UNIQUE); INSERT INTO audit VALUES(1)", tables: ["t"])
        for (number, place) in ["", "TEMP "].enumerated() {
            var sql = trigger.replacingOccurrences(of: "%", with: place)
            if place.isEmpty { sql = sql.replacingOccurrences(of: "main.", with: "") }
            try harness.database.run(sql)
            let before = try harness.database.integer("SELECT count(*) FROM t")
            try? harness.database.run("INSERT OR FAIL INTO t VALUES(\(number * 10 + 1), 1, \(number))")
            try? harness.database.run("BEGIN; INSERT OR FAIL INTO t(b, a) VALUES(3, \(number * 10 + 3)), (4, \(number * 10 + 4))")
            try harness.database.run("COMMIT")
            #expect(try harness.database.integer("SELECT count(*) FROM t") >= before + 2, "the rows stay")
            #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
            try harness.database.run("DROP TRIGGER y")
        }
        await harness.close()
    }

    private static func isNewest(_ harness: CaptureHarness) throws -> Bool {
        try harness.database.integer(
            """
            SELECT (SELECT rowid FROM sqlite_master WHERE name = '_bridge_test_1_ai')
                 > (SELECT max(rowid) FROM sqlite_master WHERE type = 'trigger' AND name NOT LIKE '\\_bridge%' ESCAPE '\\')
            """) == 1
    }

    @Test("S1 where SQLite chooses the key, capture's trigger is made again in front of a newer one")
    func automaticKey() async throws {
        let harness = try await CaptureHarness(
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE audit(x UNIQUE); INSERT INTO audit VALUES(1)", tables: ["t"])
        try harness.database.run("CREATE TRIGGER y AFTER INSERT ON t BEGIN INSERT INTO audit VALUES(NEW.b); END")
        try await eventually("capture's trigger is the newest") {
            try await harness.read(patience: .milliseconds(20))
            return try Self.isNewest(harness)
        }
        try? harness.database.run("BEGIN; INSERT OR FAIL INTO t(b) VALUES(2), (3), (1), (4)")
        try harness.database.run("COMMIT")
        #expect(try harness.database.integer("SELECT count(*) FROM t") == 3)
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        // A trigger that stood there first does no harm, and nor does one for another event.
        try harness.database.run("CREATE TRIGGER z AFTER UPDATE ON t BEGIN SELECT RAISE(IGNORE); END; UPDATE t SET b = b + 10")
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        await harness.close()
    }

    @Test("S4 a newer trigger that can skip inserts where SQLite chooses the key is named", arguments: ["IGNORE", "FAIL, 'no'"])
    func skipping(_ how: String) async throws {
        let harness = try await CaptureHarness(
            """
            CREATE TABLE t(a INTEGER PRIMARY KEY, b);
            CREATE TRIGGER x AFTER INSERT ON t WHEN NEW.b = 2 BEGIN SELECT RAISE(\(how)); END;
            """, tables: ["t"])
        try? harness.database.run("INSERT INTO t(b) VALUES(2)")
        #expect(try harness.database.integer("SELECT count(*) FROM t") == 1)
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        try harness.database.run("CREATE TRIGGER y AFTER INSERT ON t WHEN NEW.b = 3 BEGIN SELECT RAISE(\(how)); END")
        try? harness.database.run("INSERT INTO t(b) VALUES(3)")
        do {
            try await harness.read(patience: .seconds(5))
            Issue.record("capture went on")
        } catch let error as BridgeError {
            #expect(error.code == .captureBroken)
            #expect(error.description.contains("table: t"))
            #expect(error.description.contains("y"))
        }
        #expect(await errorCode { try await harness.reopen() } == .captureBroken)
        await harness.close()
    }
}

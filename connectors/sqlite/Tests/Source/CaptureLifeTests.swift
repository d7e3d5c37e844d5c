import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

@Suite("SQLite capture: waking, pruning, restores, schema changes")
struct CaptureLifeTests {
    private static let schema = "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)"

    @Test("S7 a waiting read returns with the commit that came, and when it is interrupted")
    func wakeUp() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        for round in 1...50 {
            async let progress = harness.session.read(into: harness.buffer, limit: 1 << 20, patience: .seconds(30))
            try harness.database.run("INSERT INTO t VALUES(\(round), \(round))")
            #expect(try await progress.rows == 1)
            harness.buffer.removeAll()
        }
        let waiting = Task { [session = harness.session, buffer = harness.buffer] in
            try await session.read(into: buffer, limit: 1 << 20, patience: .seconds(3_600))
        }
        harness.session.interrupt()
        #expect(try await waiting.value.rows == 0)
        await harness.close()
    }

    @Test("S7 commits of another process wake a waiting read")
    func wakeUpByProcess() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        let waiting = Task { [session = harness.session, buffer = harness.buffer] in
            try await session.read(into: buffer, limit: 1 << 20, patience: .seconds(30))
        }
        try harness.database.shell("INSERT INTO t VALUES(1, 1);")
        #expect(try await waiting.value.rows == 1)
        await harness.close()
    }

    @Test("S6 what is acknowledged is pruned, the newest row never, and the sequence goes on")
    func pruning() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        let log = CaptureNames(harness.link).log
        try harness.database.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5500) INSERT INTO t SELECT i, i FROM n")
        try await harness.drain()
        let health = try await harness.source.health(harness.link, applied: harness.origin.position)
        #expect(try #require(health.lagBytes) > 5_500 * 16)
        harness.session.acknowledge(harness.durable)
        try await eventually("the log is pruned") { try harness.database.integer("SELECT count(*) FROM \(log)") <= 2 }
        #expect(try harness.database.integer("SELECT count(*) FROM \(log)") == 2)
        let pruned = try await harness.source.health(harness.link, applied: harness.durable)
        #expect(pruned.lagBytes == 0)
        #expect(pruned.acknowledged == harness.durable)
        // The frontier moves behind the leap; told of that as well, the source keeps its one last row.
        let end = harness.durable
        try await eventually("the frontier stands behind a leap") {
            try await harness.read(patience: .milliseconds(20)).frontier > end
        }
        harness.session.acknowledge(harness.durable)
        try await eventually("one row is left") { try harness.database.integer("SELECT count(*) FROM \(log)") == 1 }
        #expect(try await harness.source.currentPosition(harness.link) == harness.durable)
        let before = try harness.database.integer("SELECT max(seq) FROM \(log)")
        try harness.database.run("DELETE FROM t WHERE a = 1")
        #expect(try harness.database.integer("SELECT max(seq) FROM \(log)") == before + 1)
        try await harness.drain()
        harness.session.acknowledge(harness.durable)
        try await harness.reopen()
        try harness.database.run("INSERT INTO t VALUES(-1, -1)")
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        await harness.close()
    }

    @Test("nothing is delivered twice or left out when a session begins where the last was durable")
    func resume() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        for round in 1...10 {
            try harness.database.run("INSERT INTO t VALUES(\(round), \(round)); REPLACE INTO t VALUES(\(round + 100), \(round))")
            if round % 2 == 0 { try await harness.drain() }
            if round % 3 == 0 { harness.session.acknowledge(harness.durable) }
            try await harness.reopen()
        }
        let changes = harness.mirror.changes
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        try await harness.reopen()
        #expect(try await harness.read(patience: .milliseconds(1)).rows == 0)
        #expect(harness.mirror.changes <= changes + 4)
        await harness.close()
    }

    @Test("S5 a file put back from a backup is found, even when its sequence would have overtaken")
    func restore() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        try harness.database.run("INSERT INTO t VALUES(1, 1)")
        try await harness.drain()
        harness.session.acknowledge(harness.durable)
        await harness.session.close()
        let backup = harness.database.folder + "/backup.db"
        try harness.database.run("VACUUM INTO '\(backup)'")
        try await harness.reopen()
        try harness.database.run("INSERT INTO t VALUES(2, 2), (3, 3)")
        try await harness.drain()
        let end = harness.durable
        harness.session.acknowledge(harness.durable)
        try await eventually("the frontier stands behind a leap") {
            try await harness.read(patience: .milliseconds(20)).frontier > end
        }
        await harness.close()
        try harness.database.application.close()
        for suffix in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: harness.database.path + suffix) }
        try FileManager.default.copyItem(atPath: backup, toPath: harness.database.path)
        // The application goes on in the restored file, for longer than it had before.
        try harness.database.shell("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i + 10, i + 10 FROM n;")
        let source = SQLiteSource(path: harness.database.path)
        #expect(await errorCode { _ = try await source.openCapture(harness.link, origin: harness.origin, durable: harness.durable) } == .sourceReplaced)
        await source.close()
    }

    @Test("S5 a backup written back into the open file is found by the running session")
    func restoreInPlace() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        let backup = harness.database.folder + "/backup.db"
        try harness.database.run("INSERT INTO t VALUES(1, 1); VACUUM INTO '\(backup)'")
        try await harness.drain()
        harness.session.acknowledge(harness.durable)
        try await eventually("acknowledged") {
            try await harness.source.health(harness.link, applied: .zero).acknowledged == harness.durable
        }
        try harness.database.shell(".restore \(backup)\nWITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i + 10, i + 10 FROM n;")
        #expect(await errorCode { try await harness.read(patience: .seconds(5)) } == .sourceReplaced)
        await harness.close()
    }

    @Test("S5 a file moved over the open one is found by the running session")
    func movedOver() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        try await harness.read()
        let other = harness.database.folder + "/other.db"
        try harness.database.run("VACUUM INTO '\(other)'")
        try FileManager.default.removeItem(atPath: harness.database.path)
        try FileManager.default.moveItem(atPath: other, toPath: harness.database.path)
        #expect(await errorCode { try await harness.read(patience: .seconds(5)) } == .sourceReplaced)
        await harness.close()
    }

    @Test("openCapture refuses another database, a removed log, and a log that somebody else has read")
    func foreign() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        try harness.database.run("INSERT INTO t VALUES(1, 1)")
        try await harness.drain()
        harness.session.acknowledge(harness.durable)
        await harness.session.close()
        #expect(await errorCode { try await harness.reopen(durable: harness.origin.position) } == .slotForeign)
        let other = try await CaptureHarness(Self.schema, tables: ["t"])
        #expect(await errorCode { _ = try await other.source.openCapture(other.link, origin: harness.origin, durable: harness.durable) } == .sourceReplaced)
        await other.close()
        try await harness.source.removeCapture(harness.link)
        #expect(await errorCode { try await harness.reopen() } == .captureBroken)
        await harness.source.close()
    }

    @Test("a second session takes the log over, and the first notices")
    func takenOver() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        try await harness.read()
        let second = SQLiteSource(path: harness.database.path)
        let session = try await second.openCapture(harness.link, origin: harness.origin, durable: harness.durable)
        #expect(await errorCode { try await harness.read(patience: .seconds(5)) } == .slotForeign)
        await session.close()
        await second.close()
        await harness.close()
    }

    @Test("S4 ADD, RENAME and DROP COLUMN and RENAME TABLE go on working, and capture with them")
    func alter() async throws {
        let harness = try await CaptureHarness(
            """
            CREATE TABLE t(a TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, b INT UNIQUE, c, d NOT NULL DEFAULT 4 UNIQUE);
            CREATE UNIQUE INDEX i ON t(b, c) WHERE b > 1;
            """, tables: ["t"])
        try harness.database.run("INSERT INTO t VALUES('x', 1, 'c', 1)")
        #expect(try await harness.difference(["t": ["a", "b", "c", "d"]]) == nil)
        try harness.database.run("ALTER TABLE t ADD COLUMN e TEXT DEFAULT 'new'; INSERT INTO t VALUES('y', 2, 'c', 2, 'e'); UPDATE t SET e = e")
        #expect(try await harness.difference(["t": ["a", "b", "c", "d", "e"]]) == nil)
        try harness.database.run("ALTER TABLE t RENAME COLUMN a TO k; ALTER TABLE t RENAME COLUMN b TO bee; UPDATE t SET k = upper(k), bee = bee + 10; REPLACE INTO t VALUES('z', 11, 'q', 7, 'r')")
        #expect(try await harness.difference(["t": ["k", "bee", "c", "d", "e"]]) == nil)
        try harness.database.run("ALTER TABLE t DROP COLUMN e; DELETE FROM t WHERE bee = 12; UPDATE t SET c = 'after'")
        #expect(try await harness.difference(["t": ["k", "bee", "c", "d"]]) == nil)
        try harness.database.run("ALTER TABLE t RENAME TO u; INSERT OR REPLACE INTO u VALUES('n', 11, 'q', 7); VACUUM")
        try await harness.drain()
        let real = try harness.database.images("u", ["k", "bee", "c", "d"])
        #expect(Set(harness.mirror.table(named: "t")?.rows.values.map { $0 } ?? []) == real)
        try await harness.reopen()
        await harness.close()
    }

    @Test(
        "S4 triggers that vanished or no longer fit stop capture with the table's name",
        arguments: [
            "DROP TABLE t",
            "DROP TABLE t; CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)",
            "CREATE TABLE n(a INTEGER PRIMARY KEY, b UNIQUE, c); INSERT INTO n SELECT a, b, 0 FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t",
            "CREATE UNIQUE INDEX j ON t(b COLLATE NOCASE)",
            "DROP TRIGGER _bridge_test_1_ai",
        ])
    func broken(_ sql: String) async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        try harness.database.run("INSERT INTO t VALUES(1, 1)")
        try await harness.drain()
        try harness.database.run("PRAGMA foreign_keys=OFF; BEGIN; \(sql); COMMIT")
        do {
            try await harness.read(patience: .seconds(5))
            Issue.record("capture went on")
        } catch let error as BridgeError {
            #expect(error.code == .captureBroken)
            #expect(error.description.contains("table: t"))
        }
        #expect(await errorCode { try await harness.reopen() } == .captureBroken)
        await harness.close()
    }

    @Test("prepareCapture refuses names that are taken, and replaces its own leftovers when told so")
    func leftovers() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        await harness.session.close()
        #expect(await errorCode { _ = try await harness.source.prepareCapture(harness.link, replacingLeftovers: false) } == .slotForeign)
        let again = try await harness.source.prepareCapture(harness.link, replacingLeftovers: true)
        #expect(again.identity != harness.origin.identity)
        #expect(await errorCode { try await harness.reopen() } == .sourceReplaced)
        // The reverse link of `test` and the forward link of `test-reverse` would have one name.
        let reverse = LinkDescription(migration: "test", direction: .reverse, mappings: harness.link.mappings, form: .native)
        _ = try await harness.source.prepareCapture(reverse, replacingLeftovers: false)
        let clash = forwardLink(["t"], migration: "test-reverse")
        #expect(await errorCode { _ = try await harness.source.prepareCapture(clash, replacingLeftovers: true) } == .slotForeign)
        #expect(await errorCode { try await harness.source.removeCapture(clash) } == .slotForeign)
        await harness.source.close()
    }

    @Test("a failed prepareCapture leaves nothing behind")
    func nothingLeft() async throws {
        let database = try TestDatabase("CREATE TABLE t(a INTEGER PRIMARY KEY); CREATE TABLE bad(a INTEGER PRIMARY KEY, b); CREATE UNIQUE INDEX i ON bad(a % 10)")
        let source = SQLiteSource(path: database.path)
        let before = try database.integer("SELECT count(*) FROM sqlite_master")
        #expect(await errorCode { _ = try await source.prepareCapture(forwardLink(["t", "bad"]), replacingLeftovers: false) } == .sourceUnsupported)
        #expect(await errorCode { _ = try await source.prepareCapture(forwardLink(["t", "missing"]), replacingLeftovers: false) } == .tableMissing)
        #expect(try database.integer("SELECT count(*) FROM sqlite_master") == before)
        await source.close()
    }

    @Test("S2 preflight names what stands in the way")
    func preflight() async throws {
        let database = try TestDatabase(
            """
            CREATE TABLE good(a INTEGER PRIMARY KEY); CREATE TABLE nokey(a); CREATE VIRTUAL TABLE v USING fts5(x);
            CREATE TABLE nulls(a TEXT PRIMARY KEY); INSERT INTO nulls VALUES(NULL); CREATE VIEW w AS SELECT 1;
            CREATE TABLE auto(a INTEGER PRIMARY KEY, b); CREATE UNIQUE INDEX i ON auto(abs(a));
            CREATE TABLE taken(a INTEGER PRIMARY KEY); CREATE TABLE _bridge_test_log(x);
            """, journalMode: "DELETE")
        let source = SQLiteSource(path: database.path)
        var link = forwardLink(["good", "nokey", "v", "nulls", "w", "auto", "missing", "taken", "GOOD"])
        link.mappings[7].rowFilter = "nonsense = 1"
        link.mappings[8].columns = ["b"]
        let findings = try await source.preflight(link)
        let codes = findings.map { "\($0.table?.name ?? "-") \($0.code.rawValue) \($0.severity.rawValue)" }
        #expect(
            codes == [
                "- server_settings warning", "- slot_foreign blocking", "nokey table_without_key blocking",
                "v source_unsupported blocking", "nulls source_unsupported blocking", "w source_unsupported blocking",
                "auto source_unsupported blocking", "missing table_missing blocking", "taken configuration_invalid blocking",
                "GOOD configuration_invalid blocking",
            ])
        #expect(findings.allSatisfy { !$0.mend.isEmpty })
        try database.run("DROP TABLE _bridge_test_log; PRAGMA journal_mode=WAL")
        #expect(try await source.preflight(forwardLink(["good"])).isEmpty)
        _ = try await source.prepareCapture(forwardLink(["good"]), replacingLeftovers: false)
        #expect(try await source.preflight(forwardLink(["good"])).isEmpty)
        await source.close()
    }

    @Test("a missing file, and one that is no database, are named")
    func unreachable() async throws {
        #expect(await errorCode { try await SQLiteSource(path: "/nonexistent/x.db").connect() } == .serverUnreachable)
        let database = try TestDatabase()
        let path = database.folder + "/text.db"
        try String(repeating: "not a database ", count: 500).write(toFile: path, atomically: true, encoding: .utf8)
        #expect(await errorCode { try await SQLiteSource(path: path).connect() } == .sourceUnsupported)
    }
}

@Suite("SQLite capture: where a copy may begin")
struct CaptureGateTests {
    @Test("S10 a copy never begins inside a captured transaction, and takes its beginning if that does not end")
    func gate() async throws {
        let harness = try await CaptureHarness("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", tables: ["t"])
        try harness.database.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t SELECT i, i FROM n")
        harness.limit = 1_000
        let first = try await harness.read()
        #expect(first.isInsideTransaction)
        let begin = try #require(first.firstCommit)
        try harness.database.run("UPDATE t SET b = -1")
        let gate = CaptureGate.shared(path: harness.database.path, names: CaptureNames(harness.link))
        #expect(try gate.beginSnapshot(patience: .zero) { Int64.max } == Int64(begin.commit))
        let snapshot = try await harness.source.openSnapshot(harness.link)
        async let opening = harness.openTable("t", of: snapshot)
        harness.limit = 1 << 20
        while try await harness.read().isInsideTransaction {}
        let position = try await harness.load("t", from: opening)
        #expect(position > begin)
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        await harness.close()
    }
}

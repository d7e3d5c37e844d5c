import BridgeCore
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeSQLite

@Suite("SQLite capture beside applications", .serialized)
struct BusyTests {
    private static let schema = "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c)"

    /// Captures and acknowledges all the while, as a link does, until the processes have ended.
    private static func capture(_ harness: CaptureHarness, beside processes: [ApplicationProcess]) async throws {
        while !processes.allSatisfy(\.hasEnded) {
            if try await harness.read(patience: .milliseconds(20)).frontier > harness.origin.position {
                harness.session.acknowledge(harness.durable)
            }
        }
    }

    private static func acknowledged(_ harness: CaptureHarness) async throws {
        try await harness.drain()
        let durable = harness.durable
        harness.session.acknowledge(durable)
        try await eventually("acknowledged") {
            try await harness.source.health(harness.link, applied: .zero).acknowledged.map { $0 >= durable } ?? false
        }
    }

    /// What the keeper of an ended session would write with.
    private static func keepersWriter(_ harness: CaptureHarness) throws -> LogWriter {
        let names = CaptureNames(harness.link)
        let session = try harness.database.rows("SELECT value FROM \(names.state) WHERE key = 'session'")
        return try LogWriter(path: harness.database.path, names: names, session: try #require(session.first?[0]))
    }

    /// A process that has begun to read, and does not wait for locks. It ends with these statements once a file named
    /// `stop` is there.
    private static func openTransaction(
        _ harness: CaptureHarness, end: [String]
    ) async throws -> (application: ApplicationProcess, stop: String) {
        let stop = harness.database.folder + "/stop"
        let application = try ApplicationProcess(
            harness.database, timeout: 0,
            script: """
                import os
                connection.execute('BEGIN')
                attempt('SELECT count(*) FROM t')
                print('open', flush=True)
                while not os.path.exists('\(stop)'): time.sleep(0.01)
                \(end.map { "attempt('\($0)')" }.joined(separator: " and "))
                """)
        try await eventually("an open transaction") { application.output.contains("open") }
        return (application, stop)
    }

    @Test("S8 in WAL mode an application that reads before it writes, and does not wait for locks, never sees SQLITE_BUSY")
    func readsThenWrites() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        // Long enough inside a transaction for the keeper to take it for a quiet moment, if it only counted commits.
        let application = try ApplicationProcess(
            harness.database, timeout: 0,
            script: """
                for key in range(8):
                    connection.execute('BEGIN')
                    attempt('SELECT count(*) FROM t')
                    time.sleep(0.2)
                    if attempt(f'INSERT INTO t VALUES({key}, {key}, 0)'): attempt('COMMIT')
                    time.sleep(0.02)
                """)
        try await Self.capture(harness, beside: [application])
        #expect(try await application.wait() == "busy 0 {}")
        try await Self.acknowledged(harness)
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        await harness.close()
    }

    @Test("S8 in WAL mode an application without pauses that does not wait for locks never sees SQLITE_BUSY")
    func writesOn() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        let application = try ApplicationProcess(
            harness.database, timeout: 0,
            script: """
                connection.execute('PRAGMA synchronous=OFF')
                end = time.time() + 1
                while time.time() < end:
                    key = random.randrange(500)
                    attempt(f'REPLACE INTO t VALUES({key}, {random.randrange(500)}, 0)')
                    attempt(f'DELETE FROM t WHERE a = {random.randrange(500)}')
                """)
        try await Self.capture(harness, beside: [application])
        #expect(try await application.wait() == "busy 0 {}")
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        await harness.close()
    }

    @Test("nothing is lost beside a writer that does not wait for locks in a rollback-journal mode", arguments: ["DELETE", "PERSIST"])
    func rollbackJournal(_ mode: String) async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"], journalMode: mode)
        let application = try ApplicationProcess(
            harness.database, timeout: 0,
            script: """
                connection.execute('PRAGMA synchronous=OFF')
                connection.execute('PRAGMA busy_timeout=0')
                for round in range(60):
                    key = random.randrange(100)
                    while not attempt(f'REPLACE INTO t VALUES({key}, {random.randrange(100)}, {round})'): time.sleep(0.001)
                    while not (attempt('BEGIN IMMEDIATE') and attempt(f'DELETE FROM t WHERE a = {random.randrange(100)}')
                        and attempt('COMMIT')): time.sleep(0.001)
                """)
        try await Self.capture(harness, beside: [application])
        _ = try await application.wait()
        try await Self.acknowledged(harness)
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        await harness.close()
    }

    @Test("S8 changes arrive while another process holds an old snapshot, which is not disturbed")
    func longReader() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        let (application, stop) = try await Self.openTransaction(harness, end: ["SELECT count(*) FROM t", "COMMIT"])
        for round in 0..<20 {
            try harness.database.run("REPLACE INTO t VALUES(\(round % 7), \(round), 0)")
            try await harness.drain()
            harness.session.acknowledge(harness.durable)
        }
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        #expect(FileManager.default.createFile(atPath: stop, contents: nil))
        #expect(try await application.wait() == "busy 0 {}")
        try await Self.acknowledged(harness)
        await harness.close()
    }

    @Test("nothing is lost beside two writers and transactions that span two databases")
    func twoWriters() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        let writers = try (0..<2).map { number in
            try ApplicationProcess(
                harness.database, timeout: 20,
                script: """
                    connection.execute('PRAGMA synchronous=OFF')
                    connection.execute("ATTACH '\(harness.database.folder)/side\(number).db' AS side")
                    connection.execute('CREATE TABLE side.s(x)')
                    for round in range(150):
                        connection.execute('BEGIN IMMEDIATE')
                        key = random.randrange(200)
                        attempt(f'INSERT INTO side.s VALUES({key})')
                        attempt(f'INSERT OR REPLACE INTO main.t VALUES({key}, {random.randrange(200)}, {round})')
                        attempt(f'UPDATE OR IGNORE main.t SET a = {random.randrange(200)} WHERE a = {random.randrange(200)}')
                        attempt('ROLLBACK' if round % 5 == 0 else 'COMMIT')
                    """)
        }
        try await Self.capture(harness, beside: writers)
        for writer in writers { #expect(try await writer.wait() == "busy 0 {}") }
        #expect(try harness.database.integer("SELECT count(*) FROM t") > 20)
        try await Self.acknowledged(harness)
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        await harness.close()
    }

    @Test("S6 pruning takes at most a portion in a transaction, and 1,000 rows are the largest")
    func portions() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        let names = CaptureNames(harness.link)
        try harness.database.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3500) INSERT INTO t SELECT i, i, 0 FROM n")
        try await harness.drain()
        await harness.session.close()
        let writer = try Self.keepersWriter(harness)
        #expect(LogKeeper.pruneRows == 1_000)
        #expect(LogKeeper.pruneRowsUnderLoad <= LogKeeper.pruneRows)
        let position = Int64(harness.durable.commit)
        var left = try harness.database.integer("SELECT count(*) FROM \(names.log)")
        var most = 0
        while try writer.hasRowsToPrune(position) {
            let portion = left > 2_000 ? LogKeeper.pruneRows : LogKeeper.pruneRowsUnderLoad
            let pruned = try #require(try writer.prune(position, portion: portion, sparing: true))
            let now = try harness.database.integer("SELECT count(*) FROM \(names.log)")
            #expect(pruned > 0 && pruned <= portion)
            #expect(now == left - Int64(pruned))
            left = now
            most = max(most, pruned)
        }
        #expect(most == 1_000)
        #expect(left <= 2)
        await harness.source.close()
    }

    @Test("S8 the keeper writes nothing while another process has a transaction", arguments: ["WAL", "DELETE"])
    func spares(_ mode: String) async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"], journalMode: mode)
        try harness.database.run("INSERT INTO t VALUES(1, 1, 1)")
        try await harness.drain()
        await harness.session.close()
        let writer = try Self.keepersWriter(harness)
        #expect(!writer.isInUse())
        let (application, stop) = try await Self.openTransaction(harness, end: ["INSERT INTO t VALUES(2, 2, 2)", "COMMIT"])
        #expect(writer.isInUse())
        let position = Int64(harness.durable.commit)
        #expect(try writer.acknowledge(position, portion: 1_000, sparing: true) == nil)
        #expect(try writer.prune(position, portion: 1_000, sparing: true) == nil)
        #expect(FileManager.default.createFile(atPath: stop, contents: nil))
        #expect(try await application.wait() == "busy 0 {}")
        #expect(try writer.acknowledge(position, portion: 1_000, sparing: true) != nil)
        await harness.source.close()
    }

    @Test("S3 the WAL can be checkpointed to its end while capture runs and an application writes")
    func checkpointUnderCapture() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        harness.limit = 500
        let application = try ApplicationProcess(
            harness.database, timeout: 0,
            script: """
                passed = 0
                for round in range(40):
                    for key in range(40): attempt(f'REPLACE INTO t VALUES({key}, {key}, {round})')
                    for _ in range(2000):
                        if connection.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()[0] == 0:
                            passed += 1
                            break
                        time.sleep(0.001)
                print('passed', passed)
                """)
        try await Self.capture(harness, beside: [application])
        _ = try await application.wait()
        #expect(application.output.contains("passed 40\n"))
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        await harness.close()
    }
}

import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Synchronization
import Testing

@testable import BridgeSQLite

@Suite("SQLite comparison: the source's views")
struct SourceViewTests {
    private final class Flag: Sendable {
        private let state = Mutex(false)
        var isRaised: Bool { state.withLock { $0 } }
        func raise() { state.withLock { $0 = true } }
    }

    /// Writes until the flag is raised. Each transaction changes every row, replaces one, and notes where the log then ended.
    private static func write(_ path: String, log: String, until flag: Flag) throws {
        let writer = try TestDatabase.open(path)
        defer { try? writer.close() }
        var number = 1
        while !flag.isRaised {
            try writer.writeWithoutTransaction { database in
                try database.execute(
                    sql: """
                        BEGIN IMMEDIATE; UPDATE t SET b = \(number);
                        DELETE FROM t WHERE a = (SELECT min(a) FROM t); INSERT INTO t SELECT max(a) + 1, \(number) FROM t;
                        INSERT INTO history SELECT \(number), max(seq) FROM "\(log)"; COMMIT;
                        """)
            }
            number += 1
        }
    }

    @Test("K2 a view's mark and its rows are of one moment while a writer works", arguments: ["WAL", "DELETE"])
    func consistent(journalMode: String) async throws {
        let compared = try await ComparedSource(
            """
            CREATE TABLE t(a INTEGER PRIMARY KEY, b INT); CREATE TABLE history(n INTEGER PRIMARY KEY, seq);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO t SELECT i, 0 FROM n;
            """, tables: ["t"], journalMode: journalMode)
        let (path, log, flag) = (compared.database.path, CaptureNames(compared.link).log, Flag())
        let writing = Thread.detached { try Self.write(path, log: log, until: flag) }
        let source = try #require(compared.session.source)
        let request = try await compared.request()
        var seen: [Int64: Int64] = [:]
        let deadline = ContinuousClock.now + .seconds(60)
        while seen.count < 200 {
            let settled = try await source.settledPosition(patience: .seconds(1))
            let view = try await compared.session.openView()
            guard case .before(let mark) = view.sees else {
                Issue.record("an SQLite view is marked by a position")
                break
            }
            #expect(settled <= mark)
            // In small pieces, so that the writer has time between them.
            let rows = try await allRows(view, request, limit: 500)
            await view.close()
            #expect(rows.count == 300)
            let written = Set(try rows.map { try showCells($0, columns: 2).split(separator: ":").last.flatMap { Int64($0) } ?? -1 })
            #expect(written.count == 1, "rows of several transactions")
            if let number = written.first, number > 0 { seen[number] = Int64(mark.commit) - 1 }
            #expect(try await source.currentPosition() >= mark)
            try #require(ContinuousClock.now < deadline, "the writer hardly works")
        }
        flag.raise()
        try await writing.value
        let history = try compared.database.rows("SELECT n, seq FROM history")
        let ends = Dictionary(uniqueKeysWithValues: history.map { ($0["n"] as Int64, $0["seq"] as Int64) })
        for (number, newest) in seen { #expect(ends[number] == newest) }
        await compared.close()
    }

    @Test("K2 positions are those of capture, also behind a leap of the sequence")
    func positions() async throws {
        let harness = try await CaptureHarness("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", tables: ["t"])
        let session = try await harness.source.openComparison(harness.link, role: .source)
        let source = try #require(session.source)
        #expect(session.target == nil)
        #expect(try await source.currentPosition() == harness.source.currentPosition(harness.link))
        for round in 1...3 {
            try harness.database.run("INSERT INTO t VALUES(\(round), 0)")
            let view = try await session.openView()
            try await harness.drain()
            #expect(view.sees == .before(harness.durable))
            #expect(try await source.settledPosition(patience: .zero) == harness.durable)
            await view.close()
            let before = harness.durable
            harness.session.acknowledge(harness.durable)
            try await eventually("the sequence leaps") { try await harness.read(patience: .milliseconds(20)).frontier > before }
            let behind = try await session.openView()
            #expect(behind.sees == .before(try await harness.source.currentPosition(harness.link)))
            #expect(try await source.currentPosition() <= harness.durable)
            await behind.close()
        }
        await session.close()
        await harness.close()
    }

    @Test("a view stays what it was, serves requests one after the other, and streams may be closed early")
    func requests() async throws {
        let compared = try await ComparedSource(
            """
            CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(k TEXT PRIMARY KEY NOT NULL, v);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t SELECT i, i FROM n;
            INSERT INTO u VALUES('x', 1.5);
            """, tables: ["t", "u"])
        let (first, second) = (try await compared.request(0), try await compared.request(1))
        let view = try await compared.session.openView()
        let stream = try await view.openRows(first)
        let buffer = RecordBuffer()
        #expect(try await stream.read(into: buffer, limit: 100) < 20)
        try compared.database.run("DELETE FROM t; DELETE FROM u; DROP TABLE u")
        await stream.close()
        #expect(try await stream.read(into: buffer, limit: 100) == 0)
        #expect(try await allRows(view, second).map { try showCells($0, columns: 2) } == ["t:x|r:3ff8000000000000"])
        #expect(Set(try await allRows(view, first)).count == 1000)
        #expect(try await found(view, first, [[7], [2_000]]).map { try showCells($0, columns: 2) } == ["i:7|i:7"])
        await view.close()
        await view.close()
        #expect(await errorCode { _ = try await view.openRows(first) } == .internalFault)
        await compared.close()
    }

    @Test("K8 what is not offered is refused: SQLite has no hashes of its own")
    func noHashes() async throws {
        let compared = try await ComparedSource("CREATE TABLE t(a INTEGER PRIMARY KEY)", tables: ["t"])
        let request = try await compared.request()
        #expect(request.layout.serverHash == nil)
        let view = try await compared.session.openView()
        #expect(await errorCode { _ = try await view.digest(request, buckets: 1) } == .internalFault)
        #expect(await errorCode { _ = try await view.openHashes(request, buckets: 1, wanted: [0]) } == .internalFault)
        #expect(await errorCode { _ = try await view.findHashes(request, keys: [], into: RecordBuffer()) } == .internalFault)
        await view.close()
        await compared.close()
    }

    @Test("K15 waiting for writers ends with the writer, and with its patience")
    func writers() async throws {
        let compared = try await ComparedSource("CREATE TABLE t(a INTEGER PRIMARY KEY)", tables: ["t"])
        let source = try #require(compared.session.source)
        try await source.waitForWriters(patience: .seconds(5))
        try compared.database.run("BEGIN; INSERT INTO t VALUES(1)")
        #expect(await errorCode { try await source.waitForWriters(patience: .milliseconds(300)) } == .serverBusy)
        let waiting = Task { try await source.waitForWriters(patience: .seconds(60)) }
        try compared.database.run("COMMIT")
        try await waiting.value
        try compared.database.run("INSERT INTO t VALUES(2)")
        await compared.close()
    }

    @Test("K15 the fingerprint stays while rows change, and changes or fails with all that capture rests on")
    func fingerprint() async throws {
        let compared = try await ComparedSource(
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(k TEXT PRIMARY KEY NOT NULL, v)", tables: ["t", "u"])
        let source = try #require(compared.session.source)
        let before = try await source.captureFingerprint()
        try compared.database.run("INSERT INTO t VALUES(1, 2); VACUUM; CREATE TABLE other(a)")
        #expect(try await source.captureFingerprint() == before)
        try compared.database.run("ALTER TABLE t ADD COLUMN c")
        let added = try await source.captureFingerprint()
        #expect(added.changedTables(since: before) == [0])
        try compared.database.run("DROP TRIGGER _bridge_test_2_bu")
        #expect(await errorCode { _ = try await source.captureFingerprint() } == .captureBroken)
        #expect(await errorCode { _ = try await compared.request(1) } == .captureBroken)
        _ = try await compared.source.prepareCapture(compared.link, replacingLeftovers: true)
        #expect(await errorCode { _ = try await source.captureFingerprint() } == .sourceReplaced)
        #expect(await errorCode { _ = try await compared.session.openView() } == .sourceReplaced)
        try await compared.source.removeCapture(compared.link)
        #expect(await errorCode { _ = try await source.captureFingerprint() } == .captureBroken)
        #expect(await errorCode { _ = try await compared.session.openView() } == .captureBroken)
        await compared.close()
    }

    @Test("K15 triggers that were dropped and made again change the fingerprint of their table, and nothing that is harmless does")
    func triggersMadeAgain() async throws {
        let compared = try await ComparedSource(
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(k TEXT PRIMARY KEY NOT NULL, v)", tables: ["t", "u"])
        let source = try #require(compared.session.source)
        var last = try await source.captureFingerprint()
        func again(_ trigger: String) throws -> String {
            let sql = try compared.database.rows("SELECT sql FROM sqlite_master WHERE name = '\(trigger)'").map { $0["sql"] as String }
            return "DROP TRIGGER \(trigger); DELETE FROM t; \(try #require(sql.first));"
        }
        try compared.database.run("ANALYZE; CREATE TABLE other(a); CREATE TRIGGER o AFTER INSERT ON other BEGIN SELECT 1; END; VACUUM")
        #expect(try await source.captureFingerprint() == last)
        for (trigger, table) in [("_bridge_test_1_ai", 0), ("_bridge_test_2_bd", 1)] {
            try compared.database.run(try again(trigger))
            let now = try await source.captureFingerprint()
            #expect(now.changedTables(since: last)?.contains(table) == true, "\(trigger)")
            last = now
        }
        // And once more.
        try compared.database.run(try again("_bridge_test_1_ai"))
        #expect(try await source.captureFingerprint().changedTables(since: last)?.contains(0) == true)
        await compared.close()
    }

    @Test("K15 another file in the source's place is no fingerprint of it")
    func movedOver() async throws {
        let compared = try await ComparedSource("CREATE TABLE t(a INTEGER PRIMARY KEY)", tables: ["t"], journalMode: "DELETE")
        let source = try #require(compared.session.source)
        _ = try await source.captureFingerprint()
        try FileManager.default.copyItem(atPath: compared.database.path, toPath: compared.database.path + "-copy")
        #expect(rename(compared.database.path + "-copy", compared.database.path) == 0)
        #expect(await errorCode { _ = try await source.captureFingerprint() } == .sourceReplaced)
        await compared.close()
    }
}

extension Thread {
    /// Runs blocking work on a thread of its own.
    static func detached(_ work: @escaping @Sendable () throws -> Void) -> Task<Void, any Error> {
        Task {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                Thread.detachNewThread { continuation.resume(with: Result { try work() }) }
            }
        }
    }
}

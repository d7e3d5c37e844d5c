import BridgeConformance
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// The real program, killed with SIGKILL at every named failpoint while a writer is at work, then run to the end.
///
/// `BRIDGE_TEST_FAILPOINT` names a single failpoint to try again and again, `BRIDGE_TEST_PAIR` a single pair to try it with.
@Suite("Crashes", .serialized)
struct CrashTests {
    /// Failpoints at which some pair was really killed; a failpoint that nothing passes tests nothing.
    private static let killed = Mutex<Set<String>>([])
    /// Failpoints that `bridge run` does not pass here, see ``ReverseTests``, ``StreamedCrashTests`` and the tests of
    /// conflicts, or passes for large tables only, see ``PartedCopyTests``.
    private static let elsewhere = Set(
        (Failpoint.ofReversePreparation + Failpoint.ofStreaming + Failpoint.ofConflicts + Failpoint.ofPartedCopy).map(\.name))

    @Test("R1 P1 P24 killed at every failpoint, the target is equal at the end", arguments: Pair.all)
    func killedAtEveryFailpoint(_ pair: Pair) async throws {
        if let only = getenv("BRIDGE_TEST_FAILPOINT") {
            if let wanted = getenv("BRIDGE_TEST_PAIR"), String(cString: wanted) != pair.description { return }
            for passage in 1...12 { try await killed(at: Failpoint(String(cString: only)), passage: passage % 3 + 1, pair) }
            return
        }
        for failpoint in Failpoint.all where !Self.elsewhere.contains(failpoint.name) {
            try await killed(at: failpoint, passage: 1, pair)
        }
        for failpoint in [Failpoint.journalAfterWrite, .applyAfterCommit, .captureAcknowledge, .copyChunk] {
            try await killed(at: failpoint, passage: 3, pair)
        }
    }

    @Test("R1 every failpoint lies on some pair's way")
    func everyFailpointIsPassed() {
        // Retention needs a journal of several segments and has a test of its own with the journal.
        let expected = Set(Failpoint.all.map(\.name)).subtracting([Failpoint.journalRetention.name]).subtracting(Self.elsewhere)
        let missing = expected.subtracting(Self.killed.withLock { $0 })
        #expect(missing.isEmpty)
    }

    private func killed(at failpoint: Failpoint, passage: Int, _ pair: Pair) async throws {
        let source = try await pair.source.makeDatabase()
        let target = try await pair.target.makeDatabase()
        let tables = [ConformanceTable.accounts, .items]
        for table in tables {
            try await source.create(table)
            try await target.create(table)
        }
        try await source.execute(Self.round(0))
        let folder = try TemporaryDirectory(prefix: "crash")
        // The smallest batches there are, so that a round's larger transaction is applied in parts.
        let configuration = try BridgeProgram.configure(
            in: folder, migration: "crash-\(UInt32.random(in: 0...UInt32.max))", source: source.url,
            target: target.url, tables: tables.map(\.name),
            settings: "replication: { batch_bytes: 64KiB }\n")
        let arguments = ["run", "--until-caught-up", "--config", configuration]
        let writing = StopFlag()
        async let rounds: Int = {
            var number = 0
            while !Task.isCancelled, !writing.isSet {
                number += 1
                try await source.execute(Self.round(number))
            }
            return number
        }()
        let environment = ["BRIDGE_FAILPOINTS": "\(failpoint.name)=kill@\(passage)"]
        for _ in 0..<2 {
            let outcome = try await BridgeProgram.run(arguments, environment: environment)
            if outcome.status == -9 { Self.killed.withLock { _ = $0.insert(failpoint.name) } }
            #expect([-9, 0].contains(outcome.status), "\(failpoint.name): \(outcome.errors)")
        }
        writing.set()
        #expect(try await rounds > 0)
        let last = try await BridgeProgram.run(arguments)
        #expect(last.status == 0, "\(failpoint.name): \(last.errors)")
        for table in tables {
            let (expected, found) = (try await source.rows(table), try await target.rows(table))
            #expect(expected == found, "\(pair) killed at \(failpoint.name), \(table.name)")
        }
        try await source.discard()
        try await target.discard()
    }

    /// A few transactions of every kind, small and less small.
    private static func round(_ number: Int) -> String {
        let id = number * 10
        return """
            BEGIN; INSERT INTO accounts VALUES (\(id), 'm\(id)', 0, NULL), (\(id + 1), 'm\(id + 1)', 0, 'x'); COMMIT;
            BEGIN; UPDATE accounts SET balance = balance + 1; COMMIT;
            BEGIN; UPDATE accounts SET id = -\(id) - 1 WHERE id = \(id + 1);
              INSERT INTO items VALUES (\(number), 'b', NULL, 0.5), (\(number), 'c', NULL, NULL); COMMIT;
            BEGIN; DELETE FROM accounts WHERE id > 1000000000; INSERT INTO accounts WITH RECURSIVE g(n) AS
              (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 1500)
              SELECT 1000000000 + n, 'large ' || n, \(number), 'one of many rows of a transaction' FROM g; COMMIT;
            BEGIN; DELETE FROM items WHERE a = \(number - 2); DELETE FROM accounts WHERE id = \(id - 30); COMMIT;
            """
    }
}

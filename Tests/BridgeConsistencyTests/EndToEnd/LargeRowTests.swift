import BridgeConformance
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Synchronization
import Testing

@testable import BridgeConsistency

/// Tells how large the batches are that a repair applies.
private final class ProbedApplier: ChangeApplier, @unchecked Sendable {
    private let base: any ChangeApplier
    private let largest: Mutex<Int>

    init(_ base: any ChangeApplier) {
        self.base = base
        largest = Mutex(0)
    }

    var largestBatch: Int { largest.withLock { $0 } }
    func apply(_ batch: ChangeBatch) async throws(BridgeError) {
        largest.withLock { $0 = max($0, batch.records.count) }
        try await base.apply(batch)
    }
    func rollback() async throws(BridgeError) { try await base.rollback() }
    func close() async { await base.close() }
}

@Suite("Large rows", .serialized)
struct LargeRowTests {
    private static let largeBytes = 10_000_000

    @Test(
        "K18 rows of 10 MB among small ones: a check and a repair never hold more than a few of them",
        arguments: Pair.wanted.filter { ["PostgreSQL to PostgreSQL", "SQLite to SQLite"].contains($0.description) })
    func few(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        let isPostgres = checked.source is PostgreSQLDatabase
        let large = isPostgres ? "repeat('x', \(Self.largeBytes))" : "hex(zeroblob(\(Self.largeBytes / 2)))"
        let series = isPostgres ? "generate_series(1, 120) AS g(n)" : "(SELECT value AS n FROM generate_series(1, 120)) AS g"
        try await checked.source.execute(
            "BEGIN; INSERT INTO accounts SELECT n, 'u' || n, n, CASE WHEN n % 40 = 1 THEN \(large) END FROM \(series); COMMIT;")
        try await checked.whileSyncing { runner in
            #expect(try await checked.check().verdict == .consistent)
            // Looked up as dirty keys, too.
            try await checked.source.execute("BEGIN; UPDATE accounts SET email = email || 'x' WHERE id < 120; COMMIT;")
            try await waitUntil { try await checked.count("SELECT count(*) FROM accounts WHERE email LIKE '%x'") == 119 }
            try await checked.target.plant("UPDATE accounts SET balance = -id")
            for mode in [CheckReport.Mode.full, .incremental] {
                let probe = ViewProbe()
                let report = try await checked.makeCheck(mode, change: { $0.showValues = true }, probe: probe).run()
                #expect(report.tables[0].mismatched == 120, "\(report.summary)")
                #expect(probe.all.largestFindBytes > Self.largeBytes)
                #expect(probe.all.largestFindBytes < 3 * Self.largeBytes, "\(probe.all.largestFindBytes)")
                #expect(probe.all.largestReadBytes < 2 * Self.largeBytes)
                let values = report.tables[0].samples.flatMap { ($0.sourceValues ?? [:]).values.compactMap(\.self) }
                #expect(values.allSatisfy { $0.utf8.count < 100_000 })
            }
            let largest = Mutex(0)
            let probe = ViewProbe()
            let repaired = try await checked.makeCheck(.incremental, change: { $0.repair = true }, probe: probe) { body in
                await runner.betweenTransactions { applier, checkpoint in
                    let probed = ProbedApplier(applier)
                    let result = await body(probed, checkpoint)
                    largest.withLock { $0 = max($0, probed.largestBatch) }
                    return result
                }
            }.run()
            #expect(repaired.tables[0].repaired == 120)
            #expect(repaired.verdict == .consistent, "\(repaired.summary)")
            #expect(largest.withLock { $0 } > Self.largeBytes)
            #expect(largest.withLock { $0 } < 3 * Self.largeBytes, "\(largest.withLock { $0 })")
            #expect(probe.all.largestFindBytes < 3 * Self.largeBytes, "\(probe.all.largestFindBytes)")
        }
    }
}

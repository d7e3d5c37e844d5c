import BridgeConformance
import BridgeConsistency
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Testing

/// A writer that capture does not see, because its connection runs no triggers: only a comparison can find what it did.
@Suite("Writers at the source that capture does not see", .serialized)
struct UncapturedWriterTests {
    private static let fromSQLite = Pair.wanted.filter { $0.source is SQLiteEngine }

    @Test("K6 rows that a writer without triggers changed, added and removed at the source are found by a full check", arguments: fromSQLite)
    func withoutTriggers(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair)
        try await checked.source.execute(CheckedPair.someRows)
        try await checked.whileSyncing { _ in
            let source = try #require(checked.source as? any PlantingDatabase)
            let before = try await checked.check()
            #expect(before.verdict == .consistent, "\(before.summary)")
            try await source.plant(
                "UPDATE accounts SET balance = 4711 WHERE id = 1; DELETE FROM accounts WHERE id = 2; INSERT INTO accounts VALUES (77, 'unseen', 0, NULL)")
            let report = try await checked.check()
            #expect(report.verdict == .inconsistent && !report.gate.isOpen, "\(report.summary)")
            let accounts = try checked.table(report, "accounts")
            #expect([accounts.mismatched, accounts.sourceOnly, accounts.targetOnly] == [1, 1, 1], "\(report.summary)")
            #expect(accounts.samples.first { $0.kind == .different }?.key == ["id": "1"])
            #expect(accounts.samples.first { $0.kind == .missing }?.key == ["id": "77"])
            #expect(accounts.samples.first { $0.kind == .extra }?.key == ["id": "2"])
            // Touched again with triggers, the rows arrive.
            try await checked.source.execute(
                "BEGIN; UPDATE accounts SET balance = 4712 WHERE id IN (1, 77); INSERT INTO accounts VALUES (2, 'again', 0, NULL); COMMIT;")
            try await waitUntil { try await checked.source.rows(.accounts) == checked.target.rows(.accounts) }
            let healed = try await checked.check()
            #expect(healed.verdict == .consistent, "\(healed.summary)")
        }
    }
}

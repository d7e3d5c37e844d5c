import BridgeConformance
import BridgeConsistency
import BridgeCore
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Testing

/// How long the part of a fence check takes that stands in the application's pause. Printed, not asserted.
@Suite("Fence check: time", .serialized)
struct FenceTimeTests {
    /// `BRIDGE_FENCE_ROWS` sets how many rows a table has.
    static let rows = environment("BRIDGE_FENCE_ROWS").flatMap { Int($0) } ?? 20_000

    @Test(
        "K14 K17 behind the fence a prepared check looks at what changed, whatever the tables' size",
        arguments: Pair.wanted.filter { ["PostgreSQL to PostgreSQL", "SQLite to SQLite"].contains($0.description) })
    func time(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute(
            """
            BEGIN; INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < \(Self.rows))
              SELECT n, 'u' || n, n, NULL FROM g; COMMIT;
            """)
        try await checked.whileSyncing { _ in
            let full = try await checked.check()
            try #require(full.verdict == .consistent, "\(full.summary)")
            for (round, dirty) in [0, 0, 300, 300, 3_000, 3_000].enumerated() {
                let attempt = try await checked.prepareFence("a\(round)")
                try await checked.source.execute(
                    "BEGIN; UPDATE accounts SET balance = balance + 1 WHERE id % \(Self.rows / max(1, dirty)) = 0 AND \(dirty) > 0; COMMIT;")
                try await attempt.stopWrites()
                let clock = ContinuousClock()
                let began = clock.now
                let report = try await attempt.check.finish(within: .seconds(30))
                let took = clock.now - began
                #expect(report.verdict == .consistent && report.mode == .fence, "\(report.summary)")
                let rest = clock.now
                await attempt.end()
                print("K17 \(pair): \(dirty) dirty of \(Self.rows) rows: finish \(took), then \(clock.now - rest), predicted \(attempt.prepared.fenceSeconds ?? -1)")
            }
        }
    }
}

/// A cutover's attempt as far as the fence check goes.
struct FencedAttempt: Sendable {
    let checked: CheckedPair
    let name: String
    let fences: Fences
    let target: any CutoverSession
    let check: FenceCheck
    let prepared: CheckReport

    /// Raises the fence, and sees to it that the target has applied all that was written before.
    func stopWrites() async throws {
        try await fences.raise(name)
        let marker = "\(name)-\(UInt64.random(in: 0...UInt64.max))"
        try await fences.session.writeMarker(marker, link: checked.link)
        try await waitUntil { try await target.arrivedMarker(checked.link) == marker }
    }

    func end() async {
        await check.close()
        try? await fences.remove()
        await fences.close()
        await target.close()
    }
}

extension CheckedPair {
    func makeFenceCheck(change: (inout CheckOptions) -> Void = { _ in }) throws -> FenceCheck {
        var options = CheckOptions(
            mode: .fence, throttle: 0, stateDirectory: folder.path("checks"), journalDirectory: folder.path("journal"),
            patience: .seconds(30))
        change(&options)
        return FenceCheck(
            link: link, options: options, source: try source.makeSource(), target: try target.makeTarget(), logger: Self.silent)
    }

    func prepareFence(_ name: String) async throws -> FencedAttempt {
        let check = try makeFenceCheck()
        return FencedAttempt(
            checked: self, name: name, fences: try await openFences(.source),
            target: try await target.makeTarget().openCutover(migration: link.migration), check: check,
            prepared: try await check.prepare())
    }
}

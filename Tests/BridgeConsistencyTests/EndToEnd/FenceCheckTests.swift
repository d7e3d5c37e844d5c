import BridgeConformance
import BridgeConsistency
import BridgeCore
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Testing

/// The fence check that is prepared before the fence and finished behind it.
@Suite("Fence check, prepared", .serialized)
struct FenceCheckTests {
    private func finished(_ attempt: FencedAttempt) async throws -> CheckReport {
        let report = try await attempt.check.finish(within: .seconds(30))
        #expect(report.mode == .fence)
        return report
    }

    private func withFullCheck(
        _ pair: Pair, _ body: @escaping @Sendable (CheckedPair) async throws -> Void
    ) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts, .items])
        try await checked.source.execute(CheckedPair.someRows)
        try await checked.whileSyncing { _ in
            // From then on an SQLite source's capture goes by the schema's version.
            if checked.source is SQLiteFile { try await CheckedPair.rebuild(checked.source.url, setting: 10) }
            let full = try await checked.check()
            try #require(full.verdict == .consistent, "\(full.summary)")
            try await body(checked)
        }
    }

    // MARK: Writers up to the fence

    @Test("K3 K14 with writers up to the fence there is no false alarm, and each planted fault is found", arguments: Pair.wanted)
    func writers(_ pair: Pair) async throws {
        let seed = environment("BRIDGE_CHECK_SEED").flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
        print("K14 \(pair): BRIDGE_CHECK_SEED=\(seed)")
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute(
            """
            BEGIN; INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT 100000 UNION ALL SELECT n + 1 FROM g
              WHERE n < 101999) SELECT n, 'static' || n, n, NULL FROM g; COMMIT;
            """)
        try await checked.whileSyncing { runner in
            let full = try await checked.check()
            try #require(full.verdict == .consistent, "\(full.summary)")
            for round in 0..<4 {
                let isFaulty = round % 2 == 1
                let id = 100_100 + round
                let begun = runner.progress.transactionsApplied
                let writer = try LoadWriter(checked.source, checked.folder, seed: seed &+ UInt64(round))
                let result: Result<Void, any Error>
                do {
                    try await waitUntil { runner.progress.transactionsApplied > begun }
                    let attempt = try await checked.prepareFence("a\(round)")
                    #expect(attempt.prepared.verdict == .consistent, "\(round): \(attempt.prepared.summary)")
                    #expect(attempt.prepared.mode == .incremental && attempt.prepared.fenceSeconds != nil)
                    let refreshed = try await attempt.check.refresh()
                    #expect(refreshed.verdict == .consistent, "\(round): \(refreshed.summary)")
                    if round % 4 >= 2 { _ = try await attempt.check.refresh() }
                    try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'last \(round)' WHERE id = \(id); COMMIT;")
                    try await attempt.stopWrites()
                    if isFaulty { try await checked.target.plant("UPDATE accounts SET balance = -1 WHERE id = \(id)") }
                    let report = try await finished(attempt)
                    #expect(report.verdict == (isFaulty ? .inconsistent : .consistent), "\(round): \(report.summary)")
                    #expect(report.gate.isOpen == !isFaulty && report.pendingRows == 0, "\(round): \(report.summary)")
                    #expect(report.tables.flatMap(\.samples).map(\.key) == (isFaulty ? [["id": "\(id)"]] : []), "\(round): \(report.summary)")
                    #expect(try await checked.source.rows(.accounts) == checked.target.rows(.accounts) || isFaulty)
                    await attempt.end()
                    result = .success(())
                } catch { result = .failure(error) }
                await writer.stop()
                try result.get()
                // A fault is known to the next check, which finds it again, or healed.
                guard isFaulty else { continue }
                let later = try await checked.check(.incremental)
                #expect(later.tables.flatMap(\.samples).map(\.key) == [["id": "\(id)"]], "\(round): \(later.summary)")
                try await checked.target.plant("UPDATE accounts SET balance = \(id) WHERE id = \(id)")
                #expect(try await checked.check(.incremental).verdict == .consistent)
            }
        }
    }

    @Test("K14 behind the fence a chunk of which most rows changed is compared again, and the conditions read after that", arguments: Pair.wanted)
    func crowded(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute(
            """
            BEGIN; INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 3000)
              SELECT n, 'u' || n, n, NULL FROM g; COMMIT;
            """)
        try await checked.whileSyncing { _ in
            try #require(try await checked.check().verdict == .consistent)
            for isFaulty in [false, true] {
                let attempt = try await checked.prepareFence("a\(isFaulty)")
                try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'all \(isFaulty)'; COMMIT;")
                try await attempt.stopWrites()
                if isFaulty { try await checked.target.plant("DELETE FROM accounts WHERE id = 77") }
                let report = try await finished(attempt)
                #expect(report.verdict == (isFaulty ? .inconsistent : .consistent), "\(report.summary)")
                #expect(report.gate.isOpen == !isFaulty && report.pendingRows == 0, "\(report.summary)")
                #expect(report.tables.flatMap(\.samples).map(\.key) == (isFaulty ? [["id": "77"]] : []), "\(report.summary)")
                await attempt.end()
            }
        }
    }

    // MARK: Between the two parts

    @Test("K16 a write to the target by others, made after the check was prepared, shuts the gate", arguments: Pair.wanted)
    func foreignWrite(_ pair: Pair) async throws {
        try await withFullCheck(pair) { checked in
            let attempt = try await checked.prepareFence("first")
            #expect(attempt.prepared.gate.isOpen, "\(attempt.prepared.summary)")
            try await attempt.stopWrites()
            try await checked.target.execute("BEGIN; UPDATE accounts SET balance = -1 WHERE id = 2; COMMIT;")
            let report = try await finished(attempt)
            #expect(report.verdict == .inconsistent && !report.gate.isOpen, "\(report.summary)")
            #expect(try checked.table(report, "accounts").samples.map(\.key) == [["id": "2"]], "\(report.summary)")
            await attempt.end()
        }
    }

    @Test("K15 what is altered on the source after the check was prepared is not proven", arguments: Pair.wanted)
    func sourceAltered(_ pair: Pair) async throws {
        try await withFullCheck(pair) { checked in
            let attempt = try await checked.prepareFence("first")
            try await attempt.stopWrites()
            if checked.source is PostgreSQLDatabase {
                try await checked.source.execute("ALTER TABLE accounts ALTER email TYPE text USING upper(email)")
            } else {
                try await CheckedPair.rebuild(checked.source.url, setting: -1)
            }
            let report = try await finished(attempt)
            #expect(report.verdict == .inconclusive && !report.gate.isOpen, "\(report.summary)")
            #expect(report.soundness.first { $0.name == "whole_table_changes" }?.holds == false, "\(report.summary)")
            await attempt.end()
            // It is written down.
            #expect(try await checked.check(.incremental).verdict == .inconclusive)
            #expect(try await checked.check().verdict == .inconsistent)
        }
    }

    @Test("K15 without the watch over the target behind the fence nothing is proven", arguments: Pair.wanted)
    func watchGone(_ pair: Pair) async throws {
        try await withFullCheck(pair) { checked in
            let attempt = try await checked.prepareFence("first")
            try await attempt.stopWrites()
            try await checked.dropWatch()
            let report = try await finished(attempt)
            #expect(report.verdict == .inconclusive && !report.gate.isOpen, "\(report.summary)")
            #expect(report.soundness.first { $0.name == "target_watched" }?.holds == false, "\(report.summary)")
            await attempt.end()
            let later = try await checked.check(.incremental)
            #expect(later.verdict == .inconclusive, "\(later.summary)")
        }
    }

    // MARK: Given up, or without a beginning

    @Test("K18 a check that is prepared holds the lock until it is given up, and later ones go on from it", arguments: Pair.wanted)
    func abandoned(_ pair: Pair) async throws {
        try await withFullCheck(pair) { checked in
            try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'dirty' WHERE id = 1; COMMIT;")
            let attempt = try await checked.prepareFence("first")
            #expect(attempt.prepared.verdict == .consistent, "\(attempt.prepared.summary)")
            let refused = await #expect(throws: BridgeError.self) { try await checked.check(.incremental) { $0.waitsForOthers = false } }
            #expect(refused?.code == .alreadyRunning)
            let another = try checked.makeFenceCheck { $0.waitsForOthers = false }
            let refusedToo = await #expect(throws: BridgeError.self) { try await another.prepare() }
            #expect(refusedToo?.code == .alreadyRunning)
            await another.close()
            await attempt.check.close()
            await attempt.check.close()
            await #expect(throws: BridgeError.self) { try await attempt.check.finish(within: .seconds(1)) }
            try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'again' WHERE id = 2; COMMIT;")
            for mode in [CheckReport.Mode.incremental, .fence, .full] {
                let report = try await checked.check(mode) { $0.waitsForOthers = false }
                #expect(report.verdict == .consistent && report.gate.isOpen, "\(report.summary)")
            }
            // After one that was finished as well.
            let next = try await checked.prepareFence("second")
            try await next.stopWrites()
            let report = try await finished(next)
            #expect(report.verdict == .consistent && report.gate.isOpen, "\(report.summary)")
            await next.end()
            let later = try await checked.check(.incremental) { $0.waitsForOthers = false }
            #expect(later.verdict == .consistent && later.gate.isOpen, "\(later.summary)")
            await attempt.end()
        }
    }

    @Test("K15 without a full check to build upon a prepared check proves nothing", arguments: Pair.wanted)
    func noFullCheck(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.whileSyncing { _ in
            let attempt = try await checked.prepareFence("first")
            #expect(attempt.prepared.verdict == .inconclusive && !attempt.prepared.gate.isOpen)
            try await attempt.stopWrites()
            let report = try await finished(attempt)
            #expect(report.verdict == .inconclusive && !report.gate.isOpen, "\(report.summary)")
            #expect(report.soundness.first { $0.name == "databases_read" }?.holds == false, "\(report.summary)")
            await attempt.end()
            let full = try await checked.check { $0.waitsForOthers = false }
            #expect(full.verdict == .consistent, "\(full.summary)")
        }
    }
}

import BridgeConformance
import BridgeConsistency
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Testing

/// Fences of a cutover stand on the tables that are checked. They are changes of the catalog, and no check may take them for
/// somebody else's; nor may they hide one.
@Suite("Checks and fences", .serialized)
struct FenceTests {
    private func expect(_ report: CheckReport, _ what: String) {
        #expect(report.verdict == .consistent && report.gate.isOpen, "\(what): \(report.summary)")
    }

    /// Copies a few rows, or these, and keeps the link running while `body` works with fences on one side.
    private func withFences(
        _ pair: Pair, _ role: ComparisonRole, rows: String = CheckedPair.someRows,
        _ body: @Sendable (CheckedPair, Fences) async throws -> Void
    ) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts, .items])
        try await checked.source.execute(rows)
        let fences = try await checked.openFences(role)
        try await checked.whileSyncing { _ in
            // From then on an SQLite source's capture goes by the schema's version.
            if role == .source, checked.source is SQLiteFile { try await CheckedPair.rebuild(checked.source.url, setting: 10) }
            try await body(checked, fences)
        }
        await fences.close()
    }

    private func isRefused(_ database: any ConformanceDatabase) async -> Bool {
        do { try await database.execute("UPDATE accounts SET note = 'refused' WHERE id = 1;") } catch { return true }
        return false
    }

    // MARK: On the source

    @Test("K15 C1 a fence on the source that comes, goes and stays is no change of capture", arguments: Pair.wanted)
    func onSource(_ pair: Pair) async throws {
        try await withFences(pair, .source) { checked, fences in
            expect(try await checked.check(), "full")
            try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'before' WHERE id = 2; COMMIT;")
            try await fences.raise("first")
            #expect(await isRefused(checked.source))
            expect(try await checked.check(.fence), "behind the fence")
            try await fences.remove()
            try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'between' WHERE id = 1; COMMIT;")
            expect(try await checked.check(.incremental), "without it")
            try await fences.raise("second")
            expect(try await checked.check(.fence), "behind another attempt's")
            try await fences.makePermanent("second")
            expect(try await checked.check(.fence), "behind it for good")
            expect(try await checked.check(), "full behind it")
            #expect(await isRefused(checked.source))
        }
    }

    // MARK: On the target

    @Test("K15 K16 C1 a fence on the target is nobody's write, whenever it comes and goes, and the applier passes it", arguments: Pair.wanted)
    func onTarget(_ pair: Pair) async throws {
        let rows = """
            BEGIN; INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 3000)
              SELECT n, 'u' || n, n, NULL FROM g; COMMIT;
            """
        try await withFences(pair, .target, rows: rows) { checked, fences in
            try await fences.raise("first", lease: nil)
            #expect(await isRefused(checked.target))
            expect(try await checked.check(), "full, the watch made behind the fence")
            for (round, what) in ["closed", "open", "closed again"].enumerated() {
                try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'r\(round)' WHERE id % 100 = \(round); COMMIT;")
                try await waitUntil { try await checked.count("SELECT count(*) FROM accounts WHERE note = 'r\(round)'") == 30 }
                expect(try await checked.check(.incremental), what)
                if round == 0 { try await fences.remove() }
                if round == 1 { try await fences.raise("second") }
                expect(try await checked.check(.fence), "\(what), then changed")
            }
            // In the middle of a check.
            let check = try checked.makeCheck(.full, change: { $0.chunkRows = 20 })
            async let outcome = check.run()
            try await waitUntil { check.progress.rowsDone >= 100 }
            try await fences.makePermanent("second")
            try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'during' WHERE id % 100 = 7; COMMIT;")
            try await fences.remove()
            try await fences.raise("third", lease: nil)
            let isUnderWay = check.progress.rowsDone < 3_000
            expect(try await outcome, "full, with the fence coming and going")
            #expect(isUnderWay)
            try await waitUntil { try await checked.count("SELECT count(*) FROM accounts WHERE note = 'during'") == 30 }
            expect(try await checked.check(.fence), "for good")
            #expect(await isRefused(checked.target))
        }
    }

    // MARK: Beside a fence

    @Test("K15 a table that somebody alters behind the fence is not proven", arguments: Pair.wanted)
    func sourceAltered(_ pair: Pair) async throws {
        try await withFences(pair, .source) { checked, fences in
            expect(try await checked.check(), "full")
            try await fences.raise("first")
            expect(try await checked.check(.fence), "behind the fence")
            if checked.source is PostgreSQLDatabase {
                try await checked.source.execute("ALTER TABLE accounts ALTER email TYPE text USING upper(email)")
            } else {
                try await CheckedPair.rebuild(checked.source.url, setting: -1)
            }
            // Whatever the fence does then, it stays known.
            try await fences.remove()
            try await fences.raise("second", lease: nil)
            for mode in [CheckReport.Mode.fence, .incremental] {
                let report = try await checked.check(mode)
                #expect(report.verdict == .inconclusive, "\(report.summary)")
                #expect(try checked.table(report, "accounts").status == .inconclusive, "\(report.summary)")
                #expect(try checked.table(report, "items").status == .consistent, "\(report.summary)")
            }
            #expect(try await checked.check().verdict == .inconsistent)
        }
    }

    @Test("K15 K16 what somebody does to a fenced target's triggers is found", arguments: Pair.wanted)
    func targetMeddledWith(_ pair: Pair) async throws {
        try await withFences(pair, .target) { checked, fences in
            try await fences.raise("first", lease: nil)
            expect(try await checked.check(), "full")
            if checked.target is PostgreSQLDatabase {
                try await checked.target.execute(
                    """
                    CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
                    CREATE TRIGGER meddler BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION meddle();
                    ALTER TABLE accounts ENABLE ALWAYS TRIGGER meddler;
                    """)
            } else {
                try await CheckedPair.rebuild(checked.target.url, setting: -1)
            }
            let report = try await checked.check(.fence)
            #expect(report.verdict == .inconclusive, "\(report.summary)")
            let watch = report.soundness.first { $0.name == "target_watched" }
            #expect(watch?.holds == false, "\(report.summary)")
            if checked.target is PostgreSQLDatabase { #expect(watch?.detail?.contains("meddler") == true) }
        }
    }
}

/// The fences that a cutover raises on one side of a pair that is checked.
struct Fences: Sendable {
    let session: any CutoverSession
    let tables: [TableName]

    func raise(_ attempt: String, lease: Duration? = .seconds(3_600)) async throws {
        let fence = Fence(
            attempt: attempt, tables: Dictionary(uniqueKeysWithValues: tables.map { ($0, "shop") }), epoch: 1, lease: lease)
        try await session.raise(fence, patience: .seconds(20))
    }
    func makePermanent(_ attempt: String) async throws {
        try await session.makePermanent(attempt: attempt, tables: tables, margin: .zero)
    }
    /// Whatever stands, for good or not.
    func remove() async throws { try await session.removeFence(attempt: nil, tables: tables) }
    func close() async { await session.close() }
}

extension CheckedPair {
    func openFences(_ role: ComparisonRole) async throws -> Fences {
        let session =
            switch role {
            case .source: try await source.makeSource().openCutover(migration: link.migration)
            case .target: try await target.makeTarget().openCutover(migration: link.migration)
            }
        return Fences(session: session, tables: link.mappings.map { role == .source ? $0.source : $0.target })
    }
}

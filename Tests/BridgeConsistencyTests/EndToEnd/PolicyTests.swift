import BridgeConformance
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Testing

@testable import BridgeConsistency

@Suite("Policies of equality between real databases", .serialized)
struct PolicyTests {
    @Test(
        "K8 rows that are equal only under a policy are found by default, and under it counted and let pass",
        arguments: Pair.wanted.filter { $0.description.hasPrefix("PostgreSQL") })
    func policies(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [], names: ["odd"])
        try await checked.source.execute(
            """
            CREATE TABLE odd (id integer PRIMARY KEY, m numeric, j json);
            INSERT INTO odd SELECT i, 1.50, '{"a": 1}' FROM generate_series(1, 20) i;
            """)
        try await checked.applySchema()
        try await checked.whileSyncing { _ in
            #expect(try await checked.check().verdict == .consistent)
            let isText = checked.target is SQLiteFile
            try await checked.target.plant("UPDATE odd SET m = \(isText ? "'1.5'" : "1.5") WHERE id IN (3, 4)")
            try await checked.target.plant("UPDATE odd SET j = '{\"a\":1}' WHERE id = 5")
            #expect(try await checked.check().tables[0].mismatched == 3)
            let half = try await checked.check { $0.policies = [.numericScale] }
            #expect(half.tables[0].mismatched == 1, "\(half.summary)")
            #expect(half.tables[0].equalByPolicy == ["numeric_scale": 2])
            let both = { (options: inout CheckOptions) in options.policies = [.numericScale, .jsonSpacing] }
            let full = try await checked.check(change: both)
            #expect(full.verdict == .consistent && full.gate.isOpen, "\(full.summary)")
            #expect(full.policies == ["numeric_scale", "json_spacing"])
            #expect(full.tables[0].equalByPolicy == ["numeric_scale": 2, "json_spacing": 1])
            // Without them nothing can be built upon it; with them it can, as before.
            let other = try await checked.check(.incremental)
            #expect(other.verdict == .inconclusive, "\(other.summary)")
            try await checked.source.execute("UPDATE odd SET m = 2.50 WHERE id IN (3, 9)")
            try await waitUntil { try await checked.count("SELECT count(*) FROM odd WHERE m = \(isText ? "'2.50'" : "2.5")") == 2 }
            try await checked.target.plant("UPDATE odd SET m = \(isText ? "'2.5'" : "2.5") WHERE id = 9")
            let later = try await checked.check(.incremental, change: both)
            #expect(later.verdict == .consistent, "\(later.summary)")
            #expect(later.tables[0].equalByPolicy == ["numeric_scale": 1])
            let sample = try await checked.check(.sample, change: both)
            #expect(sample.tables[0].equalByPolicy == ["numeric_scale": 2, "json_spacing": 1], "\(sample.summary)")
        }
    }
}

@Suite("Samples of real databases", .serialized)
struct SampleTests {
    @Test("K21 a sample draws rows from all over a table, of either side", arguments: Pair.wanted)
    func drawn(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute(
            """
            BEGIN; INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 20000)
              SELECT n, 'u' || n, n, NULL FROM g; COMMIT;
            """)
        try await checked.whileSyncing { _ in
            // One in fifty, side by side: runs of neighbours would nearly always miss them, or find very many.
            try await checked.target.plant("UPDATE accounts SET balance = -1 WHERE id BETWEEN 5000 AND 5399")
            try await checked.target.plant(
                """
                INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT 30001 UNION ALL SELECT n + 1 FROM g WHERE n < 31000)
                  SELECT n, 'x' || n, n, NULL FROM g
                """)
            let report = try await checked.check(.sample) { $0.sampleLimit = 1000 }
            print("sample \(pair) seed \(report.sampleSeed ?? "")")
            let samples = report.tables[0].samples
            // Expected are 40 and 48.
            #expect((8...120).contains(samples.count { $0.kind == .different }), "\(report.tables[0])")
            #expect((8...150).contains(samples.count { $0.kind == .extra }))
            #expect((1500...2000).contains(report.tables[0].rowsCompared))
            let seed = try #require(report.sampleSeed.flatMap { UInt64($0) })
            let again = try await checked.check(.sample) { $0.sampleLimit = 1000; $0.sampleSeed = seed }
            #expect(Set(again.tables[0].samples.map(\.key)) == Set(samples.map(\.key)))
            let few = try await checked.check(.sample) { $0.sampleRows = 10 }
            #expect((8...20).contains(few.tables[0].rowsCompared), "\(few.tables[0].rowsCompared)")
        }
    }
}

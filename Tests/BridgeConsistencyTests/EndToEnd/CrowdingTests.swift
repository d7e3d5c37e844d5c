import BridgeConformance
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Testing

@testable import BridgeConsistency

@Suite("Many dirty keys", .serialized)
struct CrowdingTests {
    private static let rows = """
        BEGIN; INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 20000)
          SELECT n, 'u' || n, n, NULL FROM g; COMMIT;
        """

    private func arrived(_ checked: CheckedPair, _ note: String, _ count: Int) async throws {
        try await waitUntil { try await checked.count("SELECT count(*) FROM accounts WHERE note = '\(note)'") == count }
    }

    @Test("K14 a chunk of which more than a tenth is dirty is compared again, the other keys are looked up", arguments: Pair.wanted)
    func tenth(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute(Self.rows)
        try await checked.whileSyncing { _ in
            let first = try await checked.check { $0.chunkRows = 4000 }
            #expect(first.verdict == .consistent, "\(first.summary)")
            try await checked.source.execute(
                "BEGIN; UPDATE accounts SET note = 'm' WHERE id BETWEEN 4100 AND 7100 OR id IN (1, 12000, 20000); COMMIT;")
            try await arrived(checked, "m", 3004)
            for mode in [CheckReport.Mode.incremental, .fence] {
                let probe = ViewProbe()
                let clean = try await checked.makeCheck(mode, probe: probe).run()
                #expect(clean.verdict == .consistent, "\(clean.summary)")
                #expect(clean.tables[0].pending == 0)
                if mode == .incremental {
                    // Both sides are asked for the three, and for nobody of the chunk.
                    #expect((6...12).contains(probe.all.foundKeys), "\(probe.all)")
                    #expect(probe.all.ranges.count == 1, "\(probe.all.ranges)")
                } else {
                    #expect(probe.all.foundKeys == 0)
                }
            }
            try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'n' WHERE id BETWEEN 4100 AND 7100 OR id = 1; COMMIT;")
            try await arrived(checked, "n", 3002)
            try await checked.target.plant("UPDATE accounts SET note = 'other' WHERE id IN (5000, 1)")
            let path = checked.folder.path("differences.jsonl")
            for _ in 0..<2 {
                let found = try await checked.check(.fence) { $0.differencesFile = path }
                #expect(Set(found.tables[0].samples.map { $0.key["id"] ?? nil }) == ["1", "5000"], "\(found.summary)")
                #expect(found.tables[0].mismatched == 2)
            }
        }
    }

    @Test("K13 an incremental check compares all keys that were dirty when it began, however many")
    func all() async throws {
        let checked = try await CheckedPair(
            Pair(source: PostgreSQLEngine(), target: PostgreSQLEngine()), tables: [.accounts])
        try await checked.source.execute("INSERT INTO accounts SELECT n, 'u' || n, n, NULL FROM generate_series(1, 150000) n")
        try await checked.whileSyncing { _ in
            #expect(try await checked.check().verdict == .consistent)
            try await checked.source.execute("UPDATE accounts SET note = 'm' WHERE id % 20 = 0 AND id > 10000")
            try await arrived(checked, "m", 7000)
            let probe = ViewProbe()
            let clean = try await checked.makeCheck(.incremental, probe: probe).run()
            #expect(clean.verdict == .consistent, "\(clean.summary)")
            #expect(clean.tables[0].pending == 0)
            #expect(probe.all.foundKeys == 14_000)
            #expect(probe.all.ranges.isEmpty)
        }
    }

    @Test("K18 more keys than there is room for: their chunks are compared again, and no fault is lost", arguments: Pair.wanted)
    func room(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute(Self.rows)
        try await checked.whileSyncing { _ in
            // Room for some hundred keys.
            let small = { (options: inout CheckOptions) in
                options.memory = 200_000
                options.chunkRows = 4000
            }
            #expect(try await checked.check(change: small).verdict == .consistent)
            // Single transactions, and one that is too large by itself.
            try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'm' WHERE id % 9 = 0; COMMIT;")
            for part in 0..<20 {
                try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'm' WHERE id % 9 > 0 AND id % 20 = \(part); COMMIT;")
            }
            try await arrived(checked, "m", 20_000)
            let clean = try await checked.check(.incremental, change: small)
            #expect(clean.verdict == .consistent, "\(clean.summary)")
            #expect(clean.tables[0].pending == 0)
            try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'k'; COMMIT;")
            try await arrived(checked, "k", 20_000)
            try await checked.target.plant("UPDATE accounts SET balance = -1 WHERE id IN (1, 19999)")
            try await checked.target.plant("DELETE FROM accounts WHERE id = 7777")
            let found = try await checked.check(.fence, change: small)
            #expect(found.verdict == .inconsistent, "\(found.summary)")
            #expect(found.tables[0].samples.count == 3, "\(found.summary)")
        }
    }

    @Test("K14 K18 a table that was empty, and is filled with more than is applied or held, is not called consistent")
    func filled() async throws {
        let checked = try await CheckedPair(
            Pair(source: PostgreSQLEngine(), target: PostgreSQLEngine()), tables: [.accounts])
        try await checked.whileSyncing { runner in
            let small = { @Sendable (options: inout CheckOptions) in options.memory = 200_000 }
            #expect(try await checked.check(change: small).verdict == .consistent)
            let report = await runner.betweenTransactions { _, _ -> CheckReport? in
                try? await checked.source.execute(Self.rows)
                return try? await checked.check(.incremental, change: small)
            }
            let behind = try #require(report ?? nil)
            #expect(behind.verdict == .inconclusive, "\(behind.summary)")
            #expect(behind.tables[0].pending > 0)
            #expect(!behind.gate.isOpen)
            try await waitUntil { try await checked.count("SELECT count(*) FROM accounts") == 20_000 }
            #expect(try await checked.check(.incremental, change: small).verdict == .consistent)
        }
    }

    @Test("K14 K16 rows that others wrote on the target, more than there is room for, are all compared", arguments: Pair.wanted)
    func foreign(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute(Self.rows)
        try await checked.whileSyncing { _ in
            #expect(try await checked.check { $0.chunkRows = 4000 }.verdict == .consistent)
            try await checked.target.execute("BEGIN; UPDATE accounts SET balance = balance WHERE id > 1000; UPDATE accounts SET balance = -5 WHERE id IN (3000, 15000); COMMIT;")
            let found = try await checked.check(.fence) { $0.memory = 200_000 }
            #expect(found.verdict == .inconsistent, "\(found.summary)")
            #expect(Set(found.tables[0].samples.map { $0.key["id"] ?? nil }) == ["3000", "15000"], "\(found.summary)")
            #expect(!found.gate.isOpen)
        }
    }

    @Test("K14 a table whose order is not known here is compared again as a whole")
    func unordered() async throws {
        let checked = try await CheckedPair(
            Pair(source: PostgreSQLEngine(), target: PostgreSQLEngine()), tables: [], names: ["days"])
        try await checked.source.execute(
            "CREATE TABLE days (d date PRIMARY KEY, v integer); INSERT INTO days SELECT date '2000-01-01' + i, i FROM generate_series(1, 5000) i;")
        try await checked.applySchema()
        try await checked.whileSyncing { _ in
            #expect(try await checked.check { $0.chunkRows = 1000 }.verdict == .consistent)
            try await checked.source.execute("UPDATE days SET v = -v WHERE v <= 2500")
            try await waitUntil { try await checked.count("SELECT count(*) FROM days WHERE v < 0") == 2500 }
            let probe = ViewProbe()
            let clean = try await checked.makeCheck(.incremental, probe: probe).run()
            #expect(clean.verdict == .consistent, "\(clean.summary)")
            #expect(probe.all.foundKeys == 0)
            #expect(Set(probe.all.ranges).count == 5)
        }
    }
}

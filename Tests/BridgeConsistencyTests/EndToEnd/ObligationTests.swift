import BridgeConformance
import BridgeConsistency
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Testing

/// Each condition that an incremental check rests on is broken in turn, while source and target are equal: the verdict must
/// be that nothing is proven, and a full check must bring it back.
@Suite("Obligations", .serialized)
struct ObligationTests {
    private static let rows = "BEGIN; INSERT INTO accounts VALUES (1, 'a', 10, NULL), (2, 'b', 5, ''); COMMIT;"

    private func broken(
        _ pair: Pair, _ obligation: String, change: (inout CheckOptions) -> Void = { _ in },
        _ breaking: @Sendable (CheckedPair) async throws -> Void
    ) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute(Self.rows)
        var options = CheckOptions(stateDirectory: "", journalDirectory: "")
        change(&options)
        let journal = options.journalDirectory
        try await checked.whileSyncing { _ in
            let first = try await checked.check()
            #expect(first.verdict == .consistent, "\(first.summary)")
            try await breaking(checked)
            let report = try await checked.check(.incremental) {
                if !journal.isEmpty { $0.journalDirectory = checked.folder.path(journal) }
            }
            #expect(report.verdict == .inconclusive, "\(report.summary)")
            #expect(!report.gate.isOpen)
            #expect(report.soundness.first { $0.name == obligation }?.holds == false, "\(report.summary)")
            // Found once it counts, even if all looks well again.
            let later = try await checked.check(.incremental)
            #expect(later.verdict == .inconclusive, "\(later.summary)")
            let again = try await checked.check()
            #expect(again.verdict == .consistent, "\(again.summary)")
        }
    }

    @Test("K15 without a full check to build upon nothing is proven", arguments: Pair.wanted)
    func noFullCheck(_ pair: Pair) async throws {
        try await broken(pair, "databases_read") { checked in
            try await ChildProcess.run(["rm", "-r", checked.folder.path("checks")])
        }
    }

    @Test("K15 without the journal since the last full check nothing is proven", arguments: Pair.wanted)
    func journalGone(_ pair: Pair) async throws {
        try await broken(pair, "capture_uninterrupted", change: { $0.journalDirectory = "none" }) { _ in }
    }

    @Test("K15 with the watch over the target torn nothing is proven", arguments: Pair.wanted)
    func watchTorn(_ pair: Pair) async throws {
        try await broken(pair, "target_watched") { checked in
            if let target = checked.target as? PostgreSQLDatabase {
                let name = try await target.cluster.psql(
                    target.url, "SELECT tgname FROM pg_trigger WHERE tgrelid = 'accounts'::regclass AND NOT tgisinternal LIMIT 1")
                try await target.execute("DROP TRIGGER \(quoteIdentifier(name)) ON accounts")
            } else {
                let path = String(checked.target.url.dropFirst("sqlite:".count))
                let name = try await ChildProcess.run(
                    ["sqlite3", "-batch", path],
                    input: ".timeout 30000\nSELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'accounts' LIMIT 1;\n")
                try await checked.target.execute("DROP TRIGGER \(quoteIdentifier(String(name.dropLast())));")
            }
        }
    }

    @Test("K15 a table that was emptied must be compared anew", arguments: Pair.wanted.filter { $0.source is PostgreSQLEngine })
    func truncated(_ pair: Pair) async throws {
        try await broken(pair, "whole_table_changes") { checked in
            try await checked.source.execute("TRUNCATE accounts; INSERT INTO accounts VALUES (7, 'g', 1, NULL)")
            try await waitUntil { try await checked.count("SELECT count(*) FROM accounts WHERE id = 7") == 1 }
        }
    }

    @Test("K15 another replica identity is another capture of the table", arguments: Pair.wanted.filter { $0.source is PostgreSQLEngine })
    func tableChanged(_ pair: Pair) async throws {
        try await broken(pair, "whole_table_changes") { checked in
            try await checked.source.execute("ALTER TABLE accounts REPLICA IDENTITY FULL")
        }
    }

    @Test("K15 a publication that was altered and altered back is another capture", arguments: Pair.wanted.filter { $0.source is PostgreSQLEngine })
    func captureChanged(_ pair: Pair) async throws {
        try await broken(pair, "capture_unchanged") { checked in
            let source = try #require(checked.source as? PostgreSQLDatabase)
            let name = quoteIdentifier(try await source.cluster.psql(source.url, "SELECT pubname FROM pg_publication"))
            try await source.execute(
                "ALTER PUBLICATION \(name) SET (publish = 'insert'); ALTER PUBLICATION \(name) SET (publish = 'insert, update, delete, truncate')")
        }
    }
}

@Suite("Repair", .serialized)
struct RepairTests {
    @Test("K19 a row whose key the other side spells otherwise is not removed")
    func spelling() async throws {
        let checked = try await CheckedPair(Pair(source: SQLiteEngine(), target: PostgreSQLEngine()), tables: [], names: ["odd"])
        try await checked.source.execute(
            "CREATE TABLE odd (id NUMERIC PRIMARY KEY NOT NULL, v TEXT); INSERT INTO odd VALUES (5, 'a'), (6, 'b'), (7, 'c');")
        try await checked.applySchema()
        try await checked.whileSyncing { runner in
            for _ in 0..<2 {
                _ = try await checked.makeCheck(.full, change: { $0.repair = true }) { body in
                    await runner.betweenTransactions(body)
                }.run()
                #expect(try await checked.count("SELECT count(*) FROM odd") == 3)
            }
        }
    }

    @Test("K19 a link that was started anew and has applied nothing since repairs rows", arguments: Pair.wanted)
    func quiet(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute("BEGIN; INSERT INTO accounts VALUES (1, 'a', 1, NULL), (2, 'b', 2, NULL); COMMIT;")
        try await checked.whileSyncing { _ in
            try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'm' WHERE id = 1; COMMIT;")
            try await waitUntil { try await checked.count("SELECT count(*) FROM accounts WHERE note = 'm'") == 1 }
        }
        try await checked.whileSyncing { runner in
            try await checked.target.plant("UPDATE accounts SET balance = -1")
            let report = try await checked.makeCheck(.full, change: { $0.repair = true }) { body in
                await runner.betweenTransactions(body)
            }.run()
            #expect(report.verdict == .consistent, "\(report.summary)")
            #expect(report.tables[0].repaired == 2)
            #expect(try await checked.count("SELECT count(*) FROM accounts WHERE balance = -1") == 0)
        }
    }

    @Test("K19 rows that differ are written over with the source's, while changes go on", arguments: Pair.wanted)
    func repair(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair)
        try await checked.source.execute(
            """
            BEGIN; INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 1500)
              SELECT n, 'u' || n, n, NULL FROM g; INSERT INTO items(a, b, price) VALUES (1, 'x', 0.5); COMMIT;
            """)
        try await checked.whileSyncing { runner in
            #expect(try await checked.check().verdict == .consistent)
            try await checked.target.plant("UPDATE accounts SET balance = -1 WHERE id <= 700")
            try await checked.target.plant("DELETE FROM accounts WHERE id > 1400")
            try await checked.target.plant("INSERT INTO accounts VALUES (5000, 'more', 0, NULL)")
            try await checked.target.plant("UPDATE items SET data = NULL, price = 0.25 WHERE a = 1")
            let refused = await #expect(throws: BridgeError.self) { try await checked.check { $0.repair = true } }
            #expect(refused?.code == .alreadyRunning)
            let source = checked.source
            async let written: Void = {
                for round in 0..<20 {
                    try await source.execute("BEGIN; UPDATE accounts SET note = 'w\(round)' WHERE id % 20 = \(round) AND id <= 1400; COMMIT;")
                }
            }()
            let check = try checked.makeCheck(.full, change: { $0.repair = true }) { body in
                await runner.betweenTransactions(body)
            }
            let report = try await check.run()
            try await written
            #expect(report.tables.reduce(0) { $0 + $1.repaired } >= 1, "\(report.summary)")
            let target = checked.target
            try await waitUntil { try await source.rows(.items) == target.rows(.items) }
            // A row that was in use is left for the next one.
            let rest = try await checked.makeCheck(.full, change: { $0.repair = true }) { body in
                await runner.betweenTransactions(body)
            }.run()
            #expect(rest.verdict == .consistent, "\(rest.summary)")
            try await waitUntil { try await source.rows(.accounts) == target.rows(.accounts) }
        }
    }
}

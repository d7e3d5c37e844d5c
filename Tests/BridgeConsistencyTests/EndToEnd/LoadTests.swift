import BridgeConformance
import BridgeConsistency
import BridgeCore
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Testing

/// A program that writes to a source as fast as it takes it, until told to stop. Rows up to 1,000 change, those from
/// 100,000 on never do.
struct LoadWriter {
    private let program: ChildProcess

    init(_ database: any ConformanceDatabase, _ folder: TemporaryDirectory, seed: UInt64) throws {
        if let database = database as? PostgreSQLDatabase {
            try folder.write(
                "writer.sql",
                #"""
                \set id random(1, 1000)
                \set other random(1, 1000)
                \set n random(1, 1000000000)
                BEGIN;
                INSERT INTO accounts VALUES (:id, 'w' || :id, :n, NULL)
                  ON CONFLICT (id) DO UPDATE SET balance = excluded.balance, note = 'n' || :n;
                DELETE FROM accounts WHERE id = :other;
                COMMIT;
                """#)
            program = try ChildProcess(
                [
                    database.cluster.program("pgbench"), "-n", "-c", "3", "-T", "3600", "--random-seed=\(seed % 1_000_000)",
                    "-f", folder.path("writer.sql"), database.url,
                ])
        } else {
            var random = SeededGenerator(seed: seed)
            var script = ".timeout 60000\nPRAGMA synchronous = OFF;\n"
            for _ in 0..<60_000 {
                let (id, other) = (Int.random(in: 1...1000, using: &random), Int.random(in: 1...1000, using: &random))
                script += """
                    BEGIN IMMEDIATE; INSERT INTO accounts VALUES (\(id), 'w\(id)', \(other), NULL)
                    ON CONFLICT (id) DO UPDATE SET balance = excluded.balance, note = 'n\(Int.random(in: 0...9999, using: &random))';
                    DELETE FROM accounts WHERE id = \(other); COMMIT;

                    """
            }
            try folder.write("writer.sql", script)
            program = try ChildProcess([
                "sh", "-c", "while :; do sqlite3 -batch \"$1\" < \"$2\" > /dev/null || exit 1; done", "sh",
                String(database.url.dropFirst("sqlite:".count)), folder.path("writer.sql"),
            ], newSession: true)
        }
    }

    func stop() async {
        // The shell's own child goes with its group.
        _ = try? await ChildProcess.run(["pkill", "-KILL", "-P", "\(program.processIdentifier)"])
        program.send(signal: 9)
        _ = await program.wait()
    }
}

@Suite("Checks under load", .serialized)
struct LoadTests {
    /// `BRIDGE_CHECKS` sets how many checks a pair; `BRIDGE_CHECK_SEED` the seed, which is printed.
    static let checks = environment("BRIDGE_CHECKS").flatMap { Int($0) } ?? 6

    @Test("K3 under full write load no check raises a false alarm, and each finds the fault that was planted", arguments: Pair.wanted)
    func falseAlarmsAndFaults(_ pair: Pair) async throws { try await load(pair) }

    @Test(
        "K3 K18 the same with room for a few hundred keys, so that chunks are compared again and again",
        arguments: Pair.wanted.filter { ["PostgreSQL to PostgreSQL", "SQLite to SQLite"].contains($0.description) })
    func littleMemory(_ pair: Pair) async throws {
        // Each takes many rounds.
        try await load(pair, checks: (Self.checks + 1) / 2) { options in
            options.memory = 150_000
            options.chunkRows = 700
        }
    }

    private func load(
        _ pair: Pair, checks: Int = Self.checks, change: @escaping @Sendable (inout CheckOptions) -> Void = { _ in }
    ) async throws {
        let seed = environment("BRIDGE_CHECK_SEED").flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
        print("K3 \(pair): BRIDGE_CHECKS=\(Self.checks) BRIDGE_CHECK_SEED=\(seed)")
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute(
            """
            BEGIN; INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT 100000 UNION ALL SELECT n + 1 FROM g
              WHERE n < 101999) SELECT n, 'static' || n, n, NULL FROM g; COMMIT;
            """)
        try await checked.whileSyncing { runner in
            let writer = try LoadWriter(checked.source, checked.folder, seed: seed)
            let isOver = StopFlag()
            async let held: Int = Self.holdApplier(runner, seed: seed, until: isOver)
            let result: Result<Void, any Error>
            do { result = .success(try await Self.work(checked, runner, seed: seed, pair, checks, change)) } catch { result = .failure(error) }
            await writer.stop()
            isOver.set()
            _ = await held
            try result.get()
        }
    }

    /// Lets the applier stand still now and then, so that the target is behind by anything from nothing to hundreds of
    /// transactions.
    private static func holdApplier(_ runner: LinkRunner, seed: UInt64, until isOver: StopFlag) async -> Int {
        var random = SeededGenerator(seed: seed ^ 1)
        var times = 0
        while !isOver.isSet {
            let pause = Int.random(in: 0...200, using: &random)
            guard await runner.betweenTransactions({ _, _ in try? await Task.sleep(for: .milliseconds(pause)) }) != nil
            else { return times }
            try? await Task.sleep(for: .milliseconds(Int.random(in: 0...100, using: &random)))
            times += 1
        }
        return times
    }

    private static func work(
        _ checked: CheckedPair, _ runner: LinkRunner, seed: UInt64, _ pair: Pair, _ checks: Int,
        _ change: @Sendable (inout CheckOptions) -> Void
    ) async throws {
        var random = SeededGenerator(seed: seed ^ 2)
        let begun = runner.progress.transactionsApplied
        var (falseAlarms, planted, found, undecided) = (0, 0, 0, 0)
        var transactions = begun
        for number in 0..<checks {
            let id = Int.random(in: 100_000...101_999, using: &random)
            let isFaulty = number % 2 == 1
            if isFaulty {
                planted += 1
                try await checked.target.plant("UPDATE accounts SET balance = -1 WHERE id = \(id)")
            }
            let mode: CheckReport.Mode = number > 1 && number % 4 >= 2 && !isFaulty ? .incremental : .full
            var report = try await checked.check(mode, change: change)
            // Rows in dispute in every round are said to be undecided, never to differ. The next check looks at them.
            for _ in 0..<5 where Self.isUndecided(report) {
                undecided += 1
                report = try await checked.check(mode, change: change)
            }
            let keys = report.tables.flatMap(\.samples).map(\.key)
            if isFaulty, keys == [["id": "\(id)"]] { found += 1 }
            if !isFaulty, report.verdict != .consistent { falseAlarms += 1 }
            #expect(report.verdict == (isFaulty ? .inconsistent : .consistent), "\(number) \(mode): \(report.summary)")
            #expect(keys == (isFaulty ? [["id": "\(id)"]] : []), "\(number) \(mode): \(report.summary)")
            if isFaulty {
                try await checked.target.plant("UPDATE accounts SET balance = \(id) WHERE id = \(id)")
                // The incremental check that follows knows the row, and finds it healed.
            }
            transactions = runner.progress.transactionsApplied
        }
        print(
            "K3 \(pair): \(checks) checks, \(transactions - begun) transactions meanwhile, false alarms \(falseAlarms), planted \(planted), found \(found), undecided \(undecided)"
        )
        #expect(transactions > begun)
    }

    private static func isUndecided(_ report: CheckReport) -> Bool {
        report.verdict == .inconclusive && report.soundness.allSatisfy(\.holds) && report.tables.contains { $0.pending > 0 }
    }
}

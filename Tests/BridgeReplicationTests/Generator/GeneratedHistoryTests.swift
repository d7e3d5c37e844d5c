import BridgeConformance
import BridgeCore
import BridgePostgreSQL
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Logging
import Testing

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Random histories on a real source, captured, journaled and applied by a link that runs on through all of them; after
/// each one the target must hold what the source holds.
///
/// `BRIDGE_SEEDS=20000` is the long run, `BRIDGE_SEED=n` does one again, `BRIDGE_FIRST_SEED=n` begins elsewhere.
@Suite("Generated histories", .serialized)
struct GeneratedHistoryTests {
    /// Seeds that share one run of the link, and with it the size of a batch.
    private static let group = 24

    @Test("P17 P25 P26 P28 transactions that interleave, swap keys and unique values, fail and roll back leave the same on the target")
    func histories() async throws {
        let only = number("BRIDGE_SEED")
        let first = only ?? number("BRIDGE_FIRST_SEED") ?? 0
        let count = only == nil ? number("BRIDGE_SEEDS") ?? 36 : 1
        // Thousands of commits a minute are the disk's business only.
        let cluster = count > 100 ? try await PostgresCluster.started(settings: ["fsync": "off"]) : try PostgresCluster.shared
        let pipeline = try await GeneratedPipeline(cluster)
        let start = ContinuousClock.now
        var seed = first
        do {
            while seed < first + count {
                let number = seed / Self.group
                let end = min((number + 1) * Self.group, first + count)
                var random = SeededGenerator(seed: UInt64(number) &+ 1 << 40)
                try await pipeline.start(batchBytes: random.pick([300, 2_000, 10_000, 64 << 10, 1 << 20]))
                while seed < end {
                    try await pipeline.run(seed: seed)
                    seed += 1
                    if seed % 500 == 0 { print("generated histories: \(seed - first) of \(count), \(start.duration(to: .now))") }
                }
                try await pipeline.stop()
            }
        } catch {
            Issue.record("BRIDGE_SEED=\(seed): \(error)")
        }
        try await pipeline.expectEqual("after seed \(seed - 1)")
        print("generated histories: \(seed - first) in \(start.duration(to: .now)); \(await pipeline.story)")
        try await pipeline.end()
    }

    private func number(_ name: String) -> Int? { getenv(name).flatMap { Int(String(cString: $0)) } }
}

/// A connection of a test on a thread of its own.
private actor Session {
    private nonisolated let executor = ThreadExecutor(name: "test-session")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private let url: String
    private var connection: PostgresConnection?
    private var inTransaction = false
    private var isFailed = false
    private var hasSavepoint = false
    /// Statements that went through, that failed, and transactions that were committed.
    private(set) var counts = (done: 0, failed: 0, committed: 0)

    init(_ url: String) { self.url = url }

    private func connected() throws -> PostgresConnection {
        if let connection { return connection }
        let made = try PostgresConnection(ConnectionString(url), applicationName: "history")
        // One that waits for another, which does not go on meanwhile, would wait for ever.
        try made.execute("SET lock_timeout = '2ms'")
        connection = made
        return made
    }

    func execute(_ sql: String) throws { try connected().execute(sql) }
    func rows(_ sql: String) throws -> [[String?]] { try connected().rows(sql) }

    /// Does a step of a transaction, which begins with the first one.
    func perform(_ step: GeneratedHistory.Step) throws {
        let connection = try connected()
        if !inTransaction {
            try connection.execute("BEGIN")
            (inTransaction, isFailed, hasSavepoint) = (true, false, false)
        }
        if case .end(let commits) = step {
            inTransaction = false
            do {
                try connection.execute(commits && !isFailed ? "COMMIT" : "ROLLBACK")
                if commits && !isFailed { counts.committed += 1 }
            } catch { counts.failed += 1 }
            return
        }
        guard !isFailed else { return }
        switch step {
        case .savepoint:
            try connection.execute("SAVEPOINT mine")
            hasSavepoint = true
        case .rollbackToSavepoint: if hasSavepoint { try connection.execute("ROLLBACK TO SAVEPOINT mine") }
        case .statement(let sql):
            isFailed = try !attempt(sql, connection)
        case .guarded(let sql):
            try connection.execute("SAVEPOINT guard")
            try connection.execute(attempt(sql, connection) ? "RELEASE SAVEPOINT guard" : "ROLLBACK TO SAVEPOINT guard; RELEASE SAVEPOINT guard")
        case .end: break
        }
    }

    private func attempt(_ sql: String, _ connection: PostgresConnection) throws -> Bool {
        do {
            try connection.execute(sql)
            counts.done += 1
            return true
        } catch {
            // What the server refuses is part of a history; what it does not understand is a mistake of ours.
            guard !connection.isBroken, let state = error.sqlState, !state.hasPrefix("42") else { throw error }
            counts.failed += 1
            return false
        }
    }
}

/// One link between two databases that goes through many histories.
private actor GeneratedPipeline {
    private struct Difference: Error, CustomStringConvertible {
        let description: String
    }

    private let cluster: PostgresCluster
    private let folder: TemporaryDirectory
    private let source: PostgreSQLDatabase
    private let target: PostgreSQLDatabase
    private let writers: [Session]
    private let sourceReader: Session
    private let targetReader: Session
    private let link: LinkDescription
    private var runner: LinkRunner?
    private var running: Task<Bool, any Error>?

    init(_ cluster: PostgresCluster) async throws {
        self.cluster = cluster
        folder = try TemporaryDirectory(prefix: "history")
        source = PostgreSQLDatabase(cluster: cluster, url: try await cluster.makeDatabase("history_source"))
        target = PostgreSQLDatabase(cluster: cluster, url: try await cluster.makeDatabase("history_target"))
        let marker = "CREATE TABLE marker (id int PRIMARY KEY, seed bigint)"
        try await source.execute(
            GeneratedTables.all.map(\.source).joined(separator: ";\n") + "; \(marker); INSERT INTO marker VALUES (1, -1)")
        try await target.execute(GeneratedTables.all.map(\.target).joined(separator: ";\n") + "; \(marker)")
        let url = source.url
        writers = (0..<GeneratedHistory.sessions).map { _ in Session(url) }
        sourceReader = Session(source.url)
        targetReader = Session(target.url)
        link = LinkDescription(
            migration: "history-\(UInt32.random(in: 0...UInt32.max))", direction: .forward,
            mappings: (GeneratedTables.names + ["marker"]).map {
                TableMapping(source: TableName(schema: "public", name: $0), target: TableName(schema: "public", name: $0))
            }, form: .native)
        for writer in writers { try await writer.execute("SET synchronous_commit = off") }
    }

    func start(batchBytes: Int) async throws {
        // What thousands of histories leave behind would make each slower than the one before.
        for reader in [sourceReader, targetReader] {
            try await reader.execute("SET lock_timeout = 0")
            try await reader.execute("VACUUM \(GeneratedTables.names.map { "public.\($0)" }.joined(separator: ", ")), public.marker")
        }
        var configuration = LinkConfiguration(link: link, journalDirectory: folder.path("journal"), patience: .seconds(30))
        // Below what an operator may choose, so that transactions are cut.
        configuration.batchBytes = batchBytes
        configuration.journalKeep = .zero
        let runner = try LinkRunner(
            configuration: configuration, source: source.makeSource(), target: target.makeTarget(),
            logger: Logger(label: "history") { _ in SwiftLogNoOpLogHandler() })
        self.runner = runner
        running = Task { try await runner.run(untilCaughtUp: false) }
        try await wait { runner.progress.activity == .streaming }
    }

    func stop() async throws {
        runner?.stop()
        _ = try await running?.value
        (runner, running) = (nil, nil)
    }

    /// Waits, unless the link ends by itself.
    private func wait(_ condition: () async throws -> Bool) async throws {
        let deadline = ContinuousClock.now + .seconds(60)
        while try await !condition() {
            if runner?.progress.activity == .stopped {
                _ = try await running?.value
                throw Difference(description: "the link has ended")
            }
            guard ContinuousClock.now < deadline else {
                runner?.stop()
                throw Difference(description: "the link does not come to the end: \(runner?.progress.trouble ?? "no trouble told")")
            }
            try await Task.sleep(for: .milliseconds(3))
        }
    }

    func run(seed: Int) async throws {
        let history = GeneratedHistory(seed: UInt64(seed))
        let (gate, opened) = AsyncStream<Never>.makeStream()
        var held: Task<Void?, Never>?
        if history.isHeld, let runner {
            held = Task {
                await runner.betweenTransactions { _, _ in for await _ in gate {} }
            }
        }
        defer { opened.finish() }
        let statements = ["BEGIN", "SET LOCAL lock_timeout = 0"] + GeneratedHistory.beginning + ["COMMIT"]
        try await writers[0].execute(statements.joined(separator: "; "))
        for (session, step) in history.schedule { try await writers[session].perform(step) }
        try await sourceReader.execute("UPDATE public.marker SET seed = \(seed)")
        opened.finish()
        _ = await held?.value
        try await wait {
            // The server waits: asking again and again would cost more than what is waited for.
            try await targetReader.execute(
                """
                DO $$ BEGIN FOR i IN 1..300 LOOP EXIT WHEN (SELECT seed FROM public.marker) = \(seed); \
                PERFORM pg_catalog.pg_sleep(0.001); END LOOP; END $$
                """)
            return try await targetReader.rows("SELECT seed FROM public.marker") == [["\(seed)"]]
        }
        let (expected, found) = (try await sourceReader.rows(GeneratedTables.sums), try await targetReader.rows(GeneratedTables.sums))
        #expect(expected.map { $0[0] } == GeneratedTables.names.sorted())
        for (expected, found) in zip(expected, found) where expected != found {
            throw Difference(
                description: "table \(expected[0] ?? ""): \(expected[1] ?? "") rows on the source, \(found[1] ?? "") on the target, which differ")
        }
    }

    /// All rows of all tables, as psql reads them.
    func expectEqual(_ comment: Comment) async throws {
        for table in GeneratedTables.all {
            let sql = "SELECT \(table.columns) FROM \(table.name)"
            let expected = try await cluster.psql(source.url, sql).split(separator: "\n").sorted()
            let found = try await cluster.psql(target.url, sql).split(separator: "\n").sorted()
            #expect(expected == found, "\(comment): \(table.name)")
        }
    }

    var story: String {
        get async {
            var (done, failed, committed) = (0, 0, 0)
            for writer in writers {
                let counts = await writer.counts
                (done, failed, committed) = (done + counts.done, failed + counts.failed, committed + counts.committed)
            }
            return "\(done) statements, \(failed) failed, \(committed) transactions"
        }
    }

    func end() async throws {
        runner?.stop()
        _ = try? await running?.value
        let (from, to) = (try source.makeSource(), try target.makeTarget())
        try await from.connect()
        try await to.connect()
        try await from.removeCapture(link)
        try await to.removeLink(link)
        await from.close()
        await to.close()
    }
}

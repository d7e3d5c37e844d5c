import BridgeCore
import Foundation
import Synchronization

/// The course of a demo.
final class Demo: Sendable {
    struct Outcome: Sendable {
        var comparison: DemoComparison
        var writers: DemoWriterCommand.Counts
        var rowsCopied: Int64
        var rowsApplied: Int64
        var transactionsApplied: Int64
        var pauses: [DemoCutover.Pause]
        /// Whether the target has each write that was acknowledged, once.
        var isAccountedFor: Bool
        var seed: UInt64
    }

    /// How much of the source's throughput a check has to leave to the application.
    static let throttle = 0.5

    private let stage: any DemoStage
    private let seconds: Int
    private let seed: UInt64
    private let context: CommandContext
    private let isQuiet: Bool
    private let running = Mutex<(stop: (@Sendable () -> Void)?, isInterrupted: Bool)>((nil, false))

    /// - Parameter isQuiet: whether stdout is left to a report; what is told goes to stderr then.
    init(stage: any DemoStage, seconds: Int, seed: UInt64, context: CommandContext, isQuiet: Bool) {
        self.stage = stage
        self.seconds = seconds
        self.seed = seed
        self.context = context
        self.isQuiet = isQuiet
    }

    /// Asks for the end. From any thread.
    func interrupt() {
        let stop = running.withLock { running in
            running.isInterrupted = true
            return running.stop
        }
        stop?()
    }

    private var isInterrupted: Bool { running.withLock { $0.isInterrupted } }

    private func checkInterrupted() throws(BridgeError) {
        if isInterrupted {
            throw BridgeError(.interrupted, "the demo was interrupted", hint: "bridge demo starts anew")
        }
    }

    private func say(_ text: String) { if isQuiet { Console.shared.err(text) } else { Console.shared.out(text) } }

    /// - Throws: whatever fails on the way, and `interrupted`.
    func run() async throws(BridgeError) -> Outcome {
        let configuration = try await prepare()
        let migration = try Migration(configuration, registry: context.registry)
        let plan = try await migration.schemaPlan()
        try await migration.target.execute(plan)
        say("schema apply: created \(plan.statements.count) tables and indexes on the target")
        try checkInterrupted()

        let writers = try await DemoWriters.start(stage, routing: configuration.routingFile, seed: seed)
        defer { writers.stop() }
        say("writers: a process of their own (\(writers.process)) inserts, updates, deletes and replaces; seed \(seed)")
        say("  \(DemoWriters.number) of them, each with at most \(DemoWriters.rate) transactions a second")
        try migration.directory.create()
        // It has the data directory until it gives it up.
        let cutover = DemoCutover(configuration, writers, try DirectoryLock(migration.directory), context: context) { [self] in say($0) }
        let first = try await live(migration, writers)
        await migration.close()
        if let failure = writers.failure { throw failure }

        running.withLock { $0.stop = { cutover.interrupt() } }
        try checkInterrupted()
        let pauses = try await cutover.run()
        try checkInterrupted()

        let stage = stage
        let counts = writers.stop()
        let (comparison, isAccountedFor) = try await BlockingWork().run { () throws(BridgeError) in
            (try DemoComparison.run(source: stage.source, target: stage.target), try DemoComparison.hasAll(counts.receipts, stage.target))
        }
        tell(comparison)
        let acknowledged = Numbers.grouped(Int64(counts.commits))
        say(
            isAccountedFor
                ? "accounted for: all \(acknowledged) transactions that were acknowledged to the writers are there, each once"
                : "not accounted for: what was acknowledged to the writers and what is there are not the same transactions")
        return Outcome(
            comparison: comparison, writers: counts, rowsCopied: first.tables.reduce(0) { $0 + $1.rowsDone },
            rowsApplied: first.rowsApplied, transactionsApplied: first.transactionsApplied, pauses: pauses,
            isAccountedFor: isAccountedFor, seed: seed)
    }

    /// Both databases, the shop in the first, and a `bridge.yaml`.
    private func prepare() async throws(BridgeError) -> Configuration {
        let stage = stage
        say(
            "making two temporary \(stage.source.engine == .sqlite ? "SQLite databases" : "PostgreSQL clusters") in \(stage.folder)"
        )
        try await BlockingWork().run { () throws(BridgeError) in
            try stage.setUp()
            let shop = DemoShop(engine: stage.source.engine)
            let session = try stage.source.openSession()
            for statement in shop.schema { try session.execute(statement) }
            try session.execute("BEGIN")
            for statement in shop.seed { try session.execute(statement) }
            try session.execute("COMMIT")
        }
        try checkInterrupted()
        let text = """
            migration: demo
            source: \(YAMLText.scalar(stage.source.url))
            target: \(YAMLText.scalar(stage.target.url))
            services:
              shop:
                tables: [\(DemoShop.tables.map(\.name).joined(separator: ", "))]
            # The writers of a demo leave room: a check need not rest as long as it does beside a busy application.
            check: { throttle: \(Self.throttle) }
            # A test machine may be busy with other things.
            cutover: { max_pause: 5s }

            """
        let path = "\(stage.folder)/bridge.yaml"
        guard FileManager.default.createFile(atPath: path, contents: Data(text.utf8)) else {
            throw BridgeError(.inputOutput, "bridge.yaml cannot be written", context: [.init(.file, path)])
        }
        // What the user's environment says about a migration is not meant for this one.
        var environment = context.environment
        for name in ["BRIDGE_SOURCE", "BRIDGE_TARGET", "BRIDGE_DATA_DIR", "BRIDGE_CONFIG"] { environment[name] = nil }
        return try ConfigurationLoader(environment: environment, registry: context.registry).parse(text, path: path)
    }

    /// Copies and syncs beside the writers for the demo's time, and tells once a second how it goes.
    private func live(_ migration: Migration, _ writers: DemoWriters) async throws(BridgeError) -> RunReport {
        let session = try await open(migration)
        let latest = Mutex<RunReport?>(nil)
        let begin = ContinuousClock.now
        let ticker = Task {
            var previous = writers.counts
            var hasTimeLeft = true
            while !Task.isCancelled, hasTimeLeft || latest.withLock({ $0?.phase != "syncing" }) {
                try? await Task.sleep(for: .seconds(1))
                guard let report = latest.withLock({ $0 }), !Task.isCancelled else { continue }
                let elapsed = ContinuousClock.now - begin
                let counts = writers.counts
                say(Self.line(report, elapsed, commits: counts.commits, perSecond: counts.commits - previous.commits))
                previous = counts
                hasTimeLeft = elapsed < .seconds(seconds)
                if writers.failure != nil { break }
            }
            session.stop()
        }
        let result = await session.run(untilCaughtUp: false) { report in latest.withLock { $0 = report } }
        ticker.cancel()
        await ticker.value
        _ = try result.get()
        try checkInterrupted()
        guard let report = latest.withLock({ $0 }) else {
            throw BridgeError(.internalFault, "the run told nothing of itself")
        }
        return report
    }

    private func open(_ migration: Migration) async throws(BridgeError) -> RunSession {
        let session = try await RunSession.prepare(migration, logger: context.logger)
        running.withLock { $0.stop = { session.stop() } }
        try checkInterrupted()
        return session
    }

    private static func line(_ report: RunReport, _ elapsed: Duration, commits: Int, perSecond: Int) -> String {
        let clock = "\(elapsed.components.seconds) s".leftPadded(to: 5)
        return "\(clock)  writers \(Numbers.grouped(Int64(commits))) commits (\(perSecond)/s)  "
            + RunDisplay.line(report)
    }

    private func tell(_ comparison: DemoComparison) {
        var table = Table([("table", .left), ("source rows", .right), ("target rows", .right), ("", .left)])
        for row in comparison.tables {
            table.append([
                row.name, Numbers.grouped(Int64(row.sourceRows)), Numbers.grouped(Int64(row.targetRows)),
                row.firstDifference.map { "differs from row \($0) on" } ?? "equal",
            ])
        }
        let style = isQuiet ? context.errorStyle : context.style
        for line in table.lines(style: style) { say(line) }
        say(
            comparison.isEqual
                ? style.green("equal") + "  every row and every value, compared by a full read of both databases"
                : style.red("different") + "  the two databases do not hold the same rows")
    }
}

extension String {
    fileprivate func leftPadded(to width: Int) -> String { String(repeating: " ", count: max(0, width - count)) + self }
}

extension Demo.Outcome {
    var json: JSONValue {
        [
            "format_version": 1, "equal": .bool(comparison.isEqual), "seed": .integer(Int64(clamping: seed)),
            "writer_commits": .integer(Int64(writers.commits)), "rows_copied": .integer(rowsCopied),
            "rows_applied": .integer(rowsApplied), "transactions_applied": .integer(transactionsApplied),
            "writers": .integer(Int64(DemoWriters.number)), "writer_rate": .integer(Int64(DemoWriters.rate)),
            "accounted_for": .bool(isAccountedFor),
            "pauses": .array(pauses.map { ["verb": .string($0.verb.rawValue), "pause_ms": .number($0.milliseconds)] }),
            "tables": .array(
                comparison.tables.map { table in
                    [
                        "table": .string(table.name), "source_rows": .integer(Int64(table.sourceRows)),
                        "target_rows": .integer(Int64(table.targetRows)), "equal": .bool(table.isEqual),
                        "first_difference": JSONValue(table.firstDifference),
                    ]
                }),
        ]
    }
}

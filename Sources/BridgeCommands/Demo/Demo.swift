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
        var catchUpSeconds: Double
        var seed: UInt64
    }

    private let stage: any DemoStage
    private let seconds: Int
    private let seed: UInt64
    private let context: CommandContext
    private let isQuiet: Bool
    private let running = Mutex<(session: RunSession?, isInterrupted: Bool)>((nil, false))

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
        let session = running.withLock { running in
            running.isInterrupted = true
            return running.session
        }
        session?.stop()
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

        let writers = try await DemoWriters.start(stage.source, seed: seed)
        defer { writers.stop() }
        say("writers: a process of their own (\(writers.process)) inserts, updates, deletes and replaces; seed \(seed)")
        try migration.directory.create()
        let lock = try DirectoryLock(migration.directory)
        defer { withExtendedLifetime(lock) {} }

        let first = try await live(migration, writers)
        let stopped = writers.stop()
        if let failure = writers.failure { throw failure }
        say(
            "writers stopped after \(Numbers.grouped(Int64(stopped.commits))) commits; bridge stopped too, and now starts again to catch up"
        )
        let begin = ContinuousClock.now
        let second = try await catchUp(migration)
        let catchUp =
            Double((ContinuousClock.now - begin).components.seconds)
            + Double((ContinuousClock.now - begin).components.attoseconds) / 1e18
        say("caught up in \(Numbers.duration(seconds: catchUp))")
        await migration.close()

        let stage = stage
        let comparison = try await BlockingWork().run { () throws(BridgeError) in
            try DemoComparison.run(source: stage.source, target: stage.target)
        }
        tell(comparison)
        return Outcome(
            comparison: comparison, writers: stopped, rowsCopied: first.tables.reduce(0) { $0 + $1.rowsDone },
            rowsApplied: first.rowsApplied + second.rowsApplied,
            transactionsApplied: first.transactionsApplied + second.transactionsApplied, catchUpSeconds: catchUp,
            seed: seed)
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

    private func catchUp(_ migration: Migration) async throws(BridgeError) -> RunReport {
        let session = try await open(migration)
        let latest = Mutex<RunReport?>(nil)
        let hasCaughtUp = try await session.run(untilCaughtUp: true) { report in latest.withLock { $0 = report } }.get()
        try checkInterrupted()
        guard hasCaughtUp, let report = latest.withLock({ $0 }) else {
            throw BridgeError(.internalFault, "the run ended before the target had caught up")
        }
        return report
    }

    private func open(_ migration: Migration) async throws(BridgeError) -> RunSession {
        let session = try await RunSession.prepare(migration, logger: context.logger)
        running.withLock { $0.session = session }
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
            "catch_up_seconds": .number(catchUpSeconds),
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

import BridgeConsistency
import BridgeCore
import BridgeReplication
import Foundation
import Logging

/// One run of a link, in either direction, with the report that it leaves in the data directory.
final class RunSession: Sendable {
    private let runner: LinkRunner
    private let reporter: RunReporter

    private init(runner: LinkRunner, reporter: RunReporter) {
        self.runner = runner
        self.reporter = reporter
    }

    /// Connects both ends, finds the tables and checks the configuration against them.
    /// - Parameters:
    ///   - mayBegin: whether a link that is not there is begun.
    ///   - mayDropSlot: whether a capture may be given up at its limit; asked when it comes to that.
    ///   - missed: what the link is known to have missed of its source, which stays in its reports.
    /// - Throws: whatever makes the run impossible, before anything is made.
    static func prepare(
        _ migration: Migration, mayBegin: Bool = true, mayDropSlot: @escaping @Sendable () -> Bool = { false },
        missed: String? = nil, logger: Logger
    ) async throws(BridgeError) -> RunSession {
        try prepare(
            migration, link: try await migration.open(), mayBegin: mayBegin, mayDropSlot: mayDropSlot, missed: missed,
            logger: logger)
    }

    /// The same for a link whose ends are connected and whose tables were found.
    static func prepare(
        _ migration: Migration, link: Migration.Link, mayBegin: Bool = true,
        mayDropSlot: @escaping @Sendable () -> Bool = { false }, missed: String? = nil, logger: Logger
    ) throws(BridgeError) -> RunSession {
        // What the file says is said of the way forward; whoever made the way back has looked at it.
        if migration.direction == .forward {
            for finding in ConfigurationChecks.findings(migration.configuration, sources: link.sources) {
                guard finding.severity == .warning else { throw finding.error }
                logger.warning("\(finding.what); \(finding.why)")
            }
        }
        let runner = LinkRunner(
            configuration: migration.linkConfiguration(link, mayBegin: mayBegin, mayDropSlot: mayDropSlot),
            source: migration.source,
            target: migration.target, logger: logger)
        return RunSession(
            runner: runner,
            reporter: RunReporter(link: link.description, directory: migration.directory, missed: missed, logger: logger))
    }

    var progress: LinkProgress { runner.progress }

    /// The way to the link's applier while it runs.
    var applierAccess: ApplierAccess {
        let runner = runner
        return { body in await runner.betweenTransactions(body) }
    }

    /// Asks for a graceful stop. From any thread.
    func stop() { runner.stop() }

    /// Runs to the end; calls `observe` twice a second with how it goes, and at once when it turns.
    func run(
        untilCaughtUp: Bool, observe: @escaping @Sendable (RunReport) -> Void
    ) async -> Result<Bool, BridgeError> {
        let runner = runner
        let reporter = reporter
        let watching = Task {
            while !Task.isCancelled {
                let progress = runner.progress
                observe(await reporter.report(progress, state: .running))
                for _ in 0..<10 where !Task.isCancelled && !Self.turned(runner.progress, progress) {
                    try? await Task.sleep(for: .milliseconds(50))
                }
            }
        }
        let result: Result<Bool, BridgeError>
        do throws(BridgeError) { result = .success(try await runner.run(untilCaughtUp: untilCaughtUp)) } catch {
            result = .failure(error)
        }
        watching.cancel()
        await watching.value
        switch result {
        case .success: _ = await reporter.report(runner.progress, state: .stopped)
        case .failure(let error): _ = await reporter.report(runner.progress, state: .failed, error: error)
        }
        return result
    }

    /// Whether something changed that somebody may wait for.
    private static func turned(_ now: LinkProgress, _ before: LinkProgress) -> Bool {
        now.activity != before.activity || now.isCapturing != before.isCapturing
    }
}

/// Turns a link's progress into reports, and keeps the last one in `status.json`. Writes on a thread of its own.
actor RunReporter {
    private nonisolated let executor = ThreadExecutor(name: "run-report")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let link: LinkDescription
    private let directory: DataDirectory
    private let missed: String?
    private let logger: Logger
    private let startedAt = Timestamp.now
    private var lastDrained: Timestamp?
    private var hasFailedToWrite = false

    init(link: LinkDescription, directory: DataDirectory, missed: String? = nil, logger: Logger) {
        self.link = link
        self.directory = directory
        self.missed = missed
        self.logger = logger
    }

    func report(_ progress: LinkProgress, state: RunReport.State, error: BridgeError? = nil) -> RunReport {
        let now = Timestamp.now
        if progress.isDrained { lastDrained = now }
        var report = RunReport(
            migration: link.migration, direction: link.direction.rawValue, process: getpid(),
            startedAt: startedAt.microseconds, updatedAt: now.microseconds, state: state,
            phase: progress.phase.rawValue)
        report.activity = progress.activity.rawValue
        report.sources = link.mappings.map(\.source.written)
        report.targets = link.mappings.map(\.target.written)
        report.isCapturing = progress.isCapturing
        report.tables = progress.tables.map {
            .init(
                name: $0.name.description, rowsDone: $0.rowsDone, rowsEstimated: $0.rowsEstimated,
                state: $0.isIndexing ? "indexing" : $0.state.rawValue)
        }
        report.capturedPosition = Self.stored(progress.captured)
        report.journaledPosition = Self.stored(progress.journaled)
        report.appliedPosition = Self.stored(progress.applied)
        report.appliedCommitTime = progress.appliedCommitTime?.microseconds
        report.lagSeconds = lag(progress, now: now)
        report.rowsPerSecond = progress.rowsPerSecond
        report.transactionsPerSecond = progress.transactionsPerSecond
        report.copyRowsPerSecond = progress.copyRowsPerSecond
        report.copyEtaSeconds = progress.copyRemainingSeconds
        report.rowsApplied = progress.rowsApplied
        report.transactionsApplied = progress.transactionsApplied
        report.journalBytes = progress.journalBytes
        report.trouble = progress.trouble
        report.slotWarning = progress.slotWarning
        report.missed = missed
        report.slotRetainedBytes = progress.retention?.bytes
        report.error = error.map(ErrorRenderer.headline)
        write(report)
        return report
    }

    private static func stored(_ position: Position) -> String? { position == .zero ? nil : position.storedForm }

    /// How long ago the oldest transaction that is not yet on the target committed, as near as can be told: it
    /// committed after the last one that is, and after the last moment at which nothing was missing.
    private func lag(_ progress: LinkProgress, now: Timestamp) -> Double? {
        if progress.isDrained { return 0 }
        guard let since = [progress.appliedCommitTime, lastDrained].compactMap({ $0 }).max() else { return nil }
        return Double(max(0, now.microseconds - since.microseconds)) / 1e6
    }

    private func write(_ report: RunReport) {
        do throws(BridgeError) {
            try report.write(to: directory)
            hasFailedToWrite = false
        } catch {
            // The data is safe without it; saying so once is enough.
            if !hasFailedToWrite {
                logger.warning("\(ErrorRenderer.headline(error)); 'bridge status' shows old figures")
            }
            hasFailedToWrite = true
        }
    }
}

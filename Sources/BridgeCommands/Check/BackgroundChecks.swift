import BridgeConsistency
import BridgeCore
import BridgeCutover
import Foundation
import Logging
import Synchronization

/// The incremental checks that a running link makes by itself once a full check was completed, so that its verdict does
/// not grow old. They have connections of their own, and nothing that befalls them reaches the link.
final class BackgroundChecks: Sendable {
    private struct State {
        var isStopping = false
        var hasEnded = true
        var check: (any ConsistencyCheck)?
    }

    /// What one turn came to.
    enum Turn: Sendable {
        case made(CheckReport)
        /// There is nothing to build upon yet, or another check is under way.
        case skipped
        case failed(BridgeError)
    }

    private let configuration: Configuration
    private let registry: ConnectorRegistry
    private let factory: ConsistencyCheckFactory
    private let interval: Duration
    private let writingSides: ReadSides
    private let logger: Logger
    private let state = Mutex(State())

    /// Where the application writes now; nil while that may change at any moment, or is not known.
    typealias ReadSides = @Sendable () async throws(BridgeError) -> WritingSides?

    /// - Parameters:
    ///   - interval: from the beginning of one turn to that of the next.
    ///   - writingSides: what the application writes to is what is compared to, and by the link that leads away from it.
    init(
        _ configuration: Configuration, _ registry: ConnectorRegistry,
        factory: @escaping ConsistencyCheckFactory = CheckSession.standardFactory, interval: Duration? = nil,
        writingSides: ReadSides? = nil, logger: Logger
    ) {
        self.configuration = configuration
        self.registry = registry
        self.factory = factory
        self.interval = interval ?? Self.interval(maxAge: configuration.check.maxAge)
        self.writingSides = writingSides ?? Self.reading(configuration, registry)
        self.logger = logger
    }

    private static func reading(_ configuration: Configuration, _ registry: ConnectorRegistry) -> ReadSides {
        { () async throws(BridgeError) -> WritingSides? in try await WritingSides.read(configuration, registry) }
    }

    /// Three turns within the age at which a verdict is too old, but neither more often than every ten seconds nor less
    /// often than every five minutes.
    static func interval(maxAge: Duration) -> Duration { min(max(maxAge / 3, .seconds(10)), .seconds(300)) }

    private var directory: DataDirectory { DataDirectory(configuration.dataDirectory) }

    // MARK: - From outside

    /// Asks for an end in good order. From any thread.
    func stop() {
        let check = state.withLock { state in
            state.isStopping = true
            return state.check
        }
        check?.stop()
    }

    /// Stops, and waits for the end as long as a check needs to see that it was stopped. A database that does not answer
    /// holds up nobody.
    func end(patience: Duration = .seconds(2)) async {
        stop()
        let deadline = ContinuousClock.now + patience
        while !state.withLock({ $0.hasEnded }), ContinuousClock.now < deadline {
            try? await Task.sleep(for: .milliseconds(10))
        }
    }

    private var isStopping: Bool { Task.isCancelled || state.withLock { $0.isStopping } }

    // MARK: - Turns

    /// Checks from time to time until ``stop()``; only while the link streams that leads away from where the application
    /// writes.
    func run(while isStreaming: @Sendable (LinkDirection) -> Bool) async {
        state.withLock { $0.hasEnded = false }
        defer { state.withLock { $0.hasEnded = true } }
        var lastError: ErrorCode?
        while !isStopping {
            let began = ContinuousClock.now
            let sides: WritingSides?
            do throws(BridgeError) { sides = try await writingSides() } catch {
                sides = nil
                warn(error, &lastError)
            }
            guard let sides, sides.directions.allSatisfy(isStreaming) else {
                await wait(.seconds(1), since: began)
                continue
            }
            for direction in sides.directions {
                switch await turn(direction, sides) {
                case .made: lastError = nil
                case .skipped: break
                case .failed(let error): warn(error, &lastError)
                }
            }
            await wait(interval, since: began)
        }
    }

    /// Once for as long as it stays the same.
    private func warn(_ error: BridgeError, _ last: inout ErrorCode?) {
        if !isStopping, error.code != last {
            logger.warning("the check beside the run could not be made and is tried again: \(ErrorRenderer.headline(error))")
        }
        last = error.code
    }

    private func wait(_ time: Duration, since began: ContinuousClock.Instant) async {
        while !isStopping, ContinuousClock.now - began < time { try? await Task.sleep(for: .milliseconds(100)) }
    }

    /// One check of each direction that something is written in, if there is something to build upon; what the last one
    /// came to.
    func turn() async -> Turn {
        let sides: WritingSides?
        do throws(BridgeError) { sides = try await writingSides() } catch { return .failed(error) }
        guard let sides else { return .skipped }
        var last = Turn.skipped
        for direction in sides.directions { last = await turn(direction, sides) }
        return last
    }

    private func turn(_ direction: LinkDirection, _ sides: WritingSides) async -> Turn {
        let folder = directory.checkDirectory(direction)
        let kept = try? await BlockingWork().run { () throws(BridgeError) in
            CheckRunner.kept(stateDirectory: folder).map { ($0.isComplete, $0.policies) }
        }
        guard let (isComplete, policies) = kept ?? nil, isComplete else { return .skipped }
        let before = await LastCheck.read(directory, migration: configuration.migration)
        do throws(BridgeError) {
            var report = try await check(direction, sides.tables(direction), policies)
            report.background = true
            // The application moved meanwhile: what was compared is not what counts.
            guard try await writingSides() == sides else { return .skipped }
            try await record(report)
            announce(report, before: before)
            return .made(report)
        } catch {
            return error.code == .alreadyRunning || error.code == .interrupted ? .skipped : .failed(error)
        }
    }

    /// - Parameters:
    ///   - tables: nil for all of the link.
    ///   - policies: those of the full check that it builds upon.
    private func check(
        _ direction: LinkDirection, _ tables: [TableName]?, _ policies: EqualityPolicies
    ) async throws(BridgeError) -> CheckReport {
        let migration = try Migration(configuration, registry: registry, direction: direction)
        let result: Result<CheckReport, BridgeError>
        do throws(BridgeError) { result = .success(try await check(migration, tables, policies)) } catch { result = .failure(error) }
        state.withLock { $0.check = nil }
        await migration.close()
        return try result.get()
    }

    private func check(
        _ migration: Migration, _ tables: [TableName]?, _ policies: EqualityPolicies
    ) async throws(BridgeError) -> CheckReport {
        let link = try await migration.open().description
        var options = CheckOptions(
            mode: .incremental, throttle: configuration.check.throttle, stateDirectory: directory.checkDirectory(migration.direction),
            journalDirectory: directory.journalDirectory(migration.direction))
        options.waitsForOthers = false
        options.tables = tables
        options.buildsOnWhole = true
        options.policies = policies
        options.servedWrites = directory.servedWrites(migration.direction)
        options.memory = Int(clamping: configuration.check.memory)
        let check = try factory(link, options, migration.source, migration.target, logger, nil)
        let isStopping = state.withLock { state in
            state.check = check
            return state.isStopping
        }
        if isStopping { throw CheckSession.interrupted }
        return try await check.run()
    }

    private func record(_ report: CheckReport) async throws(BridgeError) {
        let history = CheckHistory(directory)
        try await BlockingWork().run { () throws(BridgeError) in try history.add(report) }
    }

    // MARK: - What is said

    /// Says what changed since the newest report before this one, whoever made that.
    private func announce(_ report: CheckReport, before: LastCheck?) {
        let previous = before?.verdict ?? .consistent
        guard report.verdict != previous else { return }
        guard report.verdict != .consistent else {
            logger.notice("source and target are consistent again", metadata: ["check": "\(report.checkId)"])
            return
        }
        logger.error("\(Self.alarm(report))", metadata: ["check": "\(report.checkId)"])
    }

    /// Tables and counts; never a key or a value, which are in the report.
    static func alarm(_ report: CheckReport) -> String {
        let tables = report.tables.filter { $0.status != .consistent }.map { table in
            let rows = table.mismatched + table.sourceOnly + table.targetOnly
            let what = rows > 0 ? "\(Numbers.grouped(rows)) rows differ" : table.reason ?? table.status.rawValue
            return "\(Printable.text(table.source)): \(Printable.text(what))"
        }
        let obligations = report.soundness.filter { !$0.holds }.map { "\($0.name): \(Printable.text($0.detail ?? "does not hold"))" }
        let findings = report.validations.filter { $0.status == .failed }.compactMap(\.findings.first).map(Printable.text)
        let first = [tables, obligations, findings].first { !$0.isEmpty } ?? []
        let detail = first.isEmpty ? "" : " (\(first.joined(separator: "; ")))"
        return "source and target are no longer known to be the same: \(report.verdict.rawValue)\(detail); try: bridge check"
    }
}

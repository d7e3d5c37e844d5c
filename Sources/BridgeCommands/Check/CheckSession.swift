import BridgeConsistency
import BridgeCore
import BridgeCutover
import BridgeReplication
import Foundation
import Logging
import Synchronization

/// One check of a migration's forward link: beside a running `bridge run`, or with the link kept in sync by itself for as
/// long as the check takes.
final class CheckSession: Sendable {
    /// What the command line asks for.
    struct Request: Sendable {
        var mode = CheckReport.Mode.full
        /// As written; none for all tables.
        var tables: [String] = []
        /// Whether what is known of all tables is gone on from, where only some are looked at.
        var buildsOnWhole = false
        var repair = false
        var showValues = false
        var samples = 10
        /// Absolute.
        var differencesFile: String?
        var chunkRows: Int?
        /// Beside those of the configuration.
        var equal: EqualityPolicies = []
        var sampleRows = CheckOptions.standardSampleRows
        var sampleSeed: UInt64?
    }

    /// Makes the real check.
    static let standardFactory: ConsistencyCheckFactory = { link, options, source, target, logger, access in
        CheckRunner(link: link, options: options, source: source, target: target, logger: logger, access: access)
    }

    private struct State {
        var isStopping = false
        /// Whether the link that this session keeps in sync has ended.
        var hasLinkEnded = false
    }

    private let check: any ConsistencyCheck
    /// Keeps the link in sync; nil where another process does.
    private let link: RunSession?
    /// Held until ``run(_:)`` is over, whoever still knows the session then.
    private let lock: Mutex<DirectoryLock?>
    /// Of a repair.
    private let record: RepairRecord?
    private let logger: Logger
    private let state = Mutex(State())

    private init(
        check: any ConsistencyCheck, link: RunSession?, lock: DirectoryLock?, record: RepairRecord?, logger: Logger
    ) {
        self.check = check
        self.link = link
        self.record = record
        self.lock = Mutex(lock)
        self.logger = logger
    }

    /// Whether this process keeps the link in sync itself.
    var runsLink: Bool { link != nil }

    /// Connects both ends, finds the tables, and takes the data directory if nobody has it.
    /// - Throws: `usage` for an unknown table; `alreadyRunning` if a repair meets a running link; `serverBusy` while the
    ///   tables are being copied; `configurationInvalid` before that; whatever the ends say.
    static func prepare(
        _ migration: Migration, _ request: Request, factory: ConsistencyCheckFactory = standardFactory, logger: Logger
    ) async throws(BridgeError) -> CheckSession {
        let directory = migration.directory
        if request.repair, DirectoryLock.holder(of: directory) != nil { throw repairRefused(directory) }
        let link = try await migration.open()
        let tables = try CheckSelection.tables(request.tables, in: link.description)
        try await requireSyncing(migration, link.description)
        let record = request.repair ? try await beginRepair(migration, link.description) : nil
        do throws(BridgeError) {
            return try await open(migration, request, link, tables, record, factory, logger)
        } catch {
            await record?.end()
            throw error
        }
    }

    private static func open(
        _ migration: Migration, _ request: Request, _ link: Migration.Link, _ tables: [TableName]?, _ record: RepairRecord?,
        _ factory: ConsistencyCheckFactory, _ logger: Logger
    ) async throws(BridgeError) -> CheckSession {
        let directory = migration.directory
        let lock = try takeLock(directory, isRepair: request.repair)
        var options = CheckOptions(
            mode: request.mode, tables: tables, showValues: request.showValues, sampleLimit: request.samples,
            differencesFile: request.differencesFile, throttle: migration.configuration.check.throttle,
            stateDirectory: directory.checkDirectory(migration.direction),
            journalDirectory: directory.journalDirectory(migration.direction),
            repair: request.repair)
        options.chunkRows = request.chunkRows
        options.buildsOnWhole = request.buildsOnWhole
        options.servedWrites = directory.servedWrites(migration.direction)
        options.policies = migration.configuration.check.equal.union(request.equal)
        options.memory = Int(clamping: migration.configuration.check.memory)
        options.sampleRows = request.sampleRows
        options.sampleSeed = request.sampleSeed
        let session = lock == nil ? nil : try RunSession.prepare(migration, link: link, logger: logger)
        let check = try factory(
            link.description, options, migration.source, migration.target, logger, session?.applierAccess)
        return CheckSession(check: check, link: session, lock: lock, record: record, logger: logger)
    }

    /// From then on no cutover begins, nor goes on, until the repair is over.
    private static func beginRepair(_ migration: Migration, _ link: LinkDescription) async throws(BridgeError) -> RepairRecord {
        try await requireSource(migration, link)
        let records = try await migration.target.openCutover(migration: migration.configuration.migration)
        let record = RepairRecord(records, owner: OperatorName.make(), isOwnerGone: OperatorName.isGone)
        do throws(BridgeError) {
            try await record.begin()
            // A verb may have been at work until just now.
            try await requireSource(migration, link)
            return record
        } catch {
            await record.end()
            throw error
        }
    }

    /// A repair writes the source's rows over the target's: never where the application writes to the target.
    private static func requireSource(_ migration: Migration, _ link: LinkDescription) async throws(BridgeError) {
        var sides: WritingSides?
        if migration.direction == .forward { sides = try await WritingSides.read(migration, link) }
        guard sides != WritingSides(.source) else { return }
        throw BridgeError(
            .configurationInvalid,
            "the application writes to the target, or a cutover is under way, so the source's rows are not what counts",
            context: [.init(.migration, migration.configuration.migration)], hint: "bridge cutover status tells where each service writes")
    }

    private static func requireSyncing(_ migration: Migration, _ link: LinkDescription) async throws(BridgeError) {
        let state = try await migration.target.linkState(link)
        let isRunning = DirectoryLock.holder(of: migration.directory) != nil
        switch state?.phase {
        case .syncing: return
        case .copying:
            throw BridgeError(
                .serverBusy, "the tables are still being copied, so that there is nothing to check yet",
                context: [.init(.migration, link.migration)],
                hint: isRunning
                    ? "wait until 'bridge status' says syncing, then: bridge check"
                    : "bridge run --until-caught-up, then: bridge check")
        case .preparing, nil:
            throw BridgeError(
                .configurationInvalid, "the migration has not begun, so that there is nothing to check yet",
                context: [.init(.migration, link.migration)], hint: "bridge run --until-caught-up, then: bridge check")
        }
    }

    /// Nil if another process keeps the link in sync.
    private static func takeLock(_ directory: DataDirectory, isRepair: Bool) throws(BridgeError) -> DirectoryLock? {
        // A data directory that is not there is for the link to complain about: its journal is missing too.
        try directory.create()
        do throws(BridgeError) { return try DirectoryLock(directory) } catch {
            guard error.code == .alreadyRunning else { throw error }
            if isRepair { throw repairRefused(directory) }
            return nil
        }
    }

    private static func repairRefused(_ directory: DataDirectory) -> BridgeError {
        BridgeError(
            .alreadyRunning, "rows cannot be repaired while another bridge process runs this migration",
            context: (DirectoryLock.holder(of: directory).map { [.init(.processes, "\($0)")] } ?? [])
                + [.init(.file, directory.lockFile)],
            hint: "stop that process, then run the command again: it keeps the tables in sync by itself meanwhile")
    }

    // MARK: - Running

    /// Asks for a stop in good order. From any thread.
    func stop() {
        state.withLock { $0.isStopping = true }
        check.stop()
    }

    /// Tells the ledger what was repaired, and lets cutovers begin again. To be called once ``run(_:)`` is over.
    /// - Parameter report: nil if there is none.
    func endRepair(_ report: CheckReport?) async throws(BridgeError) {
        guard let record else { return }
        let tables = report?.tables.filter { $0.repaired > 0 }.map { (name: $0.target, rows: $0.repaired) } ?? []
        let result: Result<Void, BridgeError>
        do throws(BridgeError) { result = .success(try await record.add(tables)) } catch { result = .failure(error) }
        await record.end()
        try result.get()
    }

    /// Runs to the end; calls `observe` twice a second with how far it is.
    func run(_ observe: @escaping @Sendable (CheckReport.Progress) -> Void) async throws(BridgeError) -> CheckReport {
        let check = check
        let watching = Task {
            while !Task.isCancelled {
                observe(check.progress)
                try? await Task.sleep(for: .milliseconds(500))
            }
        }
        let result = await runBeside()
        watching.cancel()
        await watching.value
        lock.withLock { $0 = nil }
        return try result.get()
    }

    private enum Ended: Sendable {
        case link(Result<Bool, BridgeError>)
        case check(Result<CheckReport, BridgeError>)
    }

    private func runBeside() async -> Result<CheckReport, BridgeError> {
        guard let link else { return await result() }
        return await withTaskGroup(of: Ended.self) { group in
            group.addTask { .link(await link.run(untilCaughtUp: false) { _ in }) }
            group.addTask { .check(await self.resultOnceStreaming(link)) }
            var report: Result<CheckReport, BridgeError> = .failure(Self.interrupted)
            var trouble: BridgeError?
            for await ended in group {
                switch ended {
                case .link(let result):
                    if case .failure(let error) = result { trouble = error }
                    // Without the link the check would wait for what never comes.
                    self.state.withLock { $0.hasLinkEnded = true }
                    self.check.stop()
                case .check(let result):
                    report = result
                    link.stop()
                }
            }
            return self.settle(report, trouble)
        }
    }

    /// What stopped the link is why the check was stopped. A verdict that the check reached all the same stands: it rests
    /// on what the check itself proved.
    private func settle(
        _ report: Result<CheckReport, BridgeError>, _ trouble: BridgeError?
    ) -> Result<CheckReport, BridgeError> {
        guard let trouble else { return report }
        switch report {
        case .failure(let error) where error.code == .interrupted && !state.withLock({ $0.isStopping }):
            return .failure(trouble)
        case .failure: return report
        case .success:
            logger.warning("the link failed: \(ErrorRenderer.headline(trouble))")
            return report
        }
    }

    private func result() async -> Result<CheckReport, BridgeError> {
        do throws(BridgeError) {
            guard !state.withLock({ $0.isStopping }) else { throw Self.interrupted }
            return .success(try await check.run())
        } catch { return .failure(error) }
    }

    /// The journal is only looked at once the link has brought it into order.
    private func resultOnceStreaming(_ link: RunSession) async -> Result<CheckReport, BridgeError> {
        var wait: Duration = .milliseconds(1)
        while link.progress.activity != .streaming {
            let hasEnded = state.withLock { $0.isStopping || $0.hasLinkEnded }
            guard !hasEnded, !Task.isCancelled else { return .failure(Self.interrupted) }
            try? await Task.sleep(for: wait)
            wait = min(wait * 1.1, .milliseconds(20))
        }
        return await result()
    }

    static var interrupted: BridgeError { BridgeError(.interrupted, "the check was stopped before it had a verdict") }
}

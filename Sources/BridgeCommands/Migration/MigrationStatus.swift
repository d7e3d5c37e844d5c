import BridgeCore
import BridgeJournal
import Foundation

/// Where a migration stands, from everything that can be asked: both databases, the journal, the last run's report.
struct MigrationStatus: Sendable {
    /// A database as status found it.
    struct Side: Sendable {
        var address: String
        var error: BridgeError?
        /// Whether it answered at all, though perhaps with an error.
        var isReachable: Bool { error?.exitStatus != .unavailable && error?.exitStatus != .rights }
    }

    var migration: String
    var source: Side
    var target: Side
    var link: LinkDescription
    /// What the target holds of the link; nil if nothing, or unknown.
    var state: LinkState?
    var health: SourceHealth?
    var report: RunReport?
    var runState: RunReport.State?
    var journalBytes: Int64?
    var journalSegments: Int?
    var journalError: BridgeError?
    var lastCheck: LastCheck?
    /// How the source writes positions.
    var describe: @Sendable (Position) -> String

    /// - Throws: `serverUnreachable` and its like only if neither database answers and there is nothing on disk.
    static func collect(_ configuration: Configuration, _ registry: ConnectorRegistry) async throws(BridgeError)
        -> MigrationStatus
    {
        let migration = try Migration(configuration, registry: registry)
        let source = migration.source
        var status = MigrationStatus(
            migration: configuration.migration, source: Side(address: configuration.source.masked),
            target: Side(address: configuration.target.masked), link: configuration.link(),
            describe: { source.describe($0) })
        await status.readDisk(migration.directory)
        await status.ask(migration)
        await migration.close()
        if let error = status.source.error, status.target.error != nil, status.report == nil, status.journalBytes == nil
        {
            throw error
        }
        return status
    }

    private mutating func readDisk(_ directory: DataDirectory) async {
        if let report = RunReport.read(from: directory), report.migration == migration {
            self.report = report
            runState = report.currentState(lockHolder: DirectoryLock.holder(of: directory))
        }
        lastCheck = await LastCheck.read(directory, migration: migration)
        let journal = directory.journalDirectory(.forward)
        guard FileManager.default.fileExists(atPath: journal) else { return }
        do throws(BridgeError) {
            let segments = try await JournalInspector.list(directory: journal)
            journalBytes = segments.reduce(0) { $0 + Int64(clamping: $1.bytes) }
            journalSegments = segments.count
        } catch { journalError = error }
    }

    private mutating func ask(_ migration: Migration) async {
        do throws(BridgeError) {
            try await migration.source.connect()
            link = try await migration.resolveSource().description
        } catch {
            source.error = error
            link.mappings = mappingsOfLastRun ?? link.mappings
        }
        do throws(BridgeError) {
            try await migration.target.connect()
            try await migration.resolveTarget(&link)
            state = try await migration.target.linkState(link)
        } catch { target.error = error }
        // Before the first run the source holds nothing of the link that could be asked about.
        guard source.error == nil, target.error != nil || state?.origin != nil else { return }
        do throws(BridgeError) {
            health = try await migration.source.health(link, applied: appliedPosition ?? .zero)
        } catch { source.error = error }
    }

    /// The tables' full names, which only the source knows, as the last run found them; nil unless it ran with the
    /// tables that the file names now.
    private var mappingsOfLastRun: [TableMapping]? {
        let names = (report?.sources ?? []).compactMap { TableName(written: $0) }
        guard names.count == link.mappings.count,
            zip(names, link.mappings).allSatisfy({ name, mapping in
                name.name == mapping.source.name && (mapping.source.schema ?? name.schema) == name.schema
            })
        else { return nil }
        return zip(names, link.mappings).map { name, mapping in
            var mapping = mapping
            mapping.source = name
            return mapping
        }
    }

    // MARK: - What follows from it

    var isRunning: Bool { runState == .running }

    var phase: String {
        if let state { return state.phase.rawValue }
        if target.error != nil, let report { return report.phase }
        return LinkState.Phase.preparing.rawValue
    }

    var linkState: String {
        if let runState {
            return runState == .running && report?.activity == "waiting" ? "waiting" : runState.rawValue
        }
        return state?.origin == nil ? "not_started" : "stopped"
    }

    /// The last run's report, if what the target holds is what that run left, or it runs still. It then knows more than
    /// the target, which does not record stretches in which the source had nothing for this link.
    private var trustedReport: RunReport? {
        guard let report else { return nil }
        if isRunning || state == nil && target.error != nil { return report }
        guard let checkpoint = state?.checkpoint, report.phase == "syncing",
            checkpoint.commitTime.microseconds == report.appliedCommitTime
        else { return nil }
        return report
    }

    var appliedPosition: Position? {
        let reported = trustedReport?.appliedPosition.flatMap { Position(storedForm: $0) }
        return [state?.checkpoint?.frontier, reported].compactMap { $0 }.max()
    }

    var capturedPosition: Position? {
        let reported = report?.capturedPosition.flatMap { Position(storedForm: $0) }
        return [reported, journaledPosition].compactMap { $0 }.max()
    }

    /// The run reports twice a second, the databases answer now. What the source was told and what is applied went
    /// through the journal, so the later of the three is the nearest to the truth.
    var journaledPosition: Position? {
        let reported = report?.journaledPosition.flatMap { Position(storedForm: $0) }
        return [reported, health?.acknowledged, appliedPosition].compactMap { $0 }.max()
    }

    /// While nothing runs it is an upper bound: the oldest transaction that is missing committed after the last one that
    /// is not, and after the last moment at which the run had nothing left to apply.
    var lagSeconds: Double? {
        if isRunning, let report { return report.phase == "syncing" ? report.lagSeconds : nil }
        guard let checkpoint = state?.checkpoint, let applied = appliedPosition else { return nil }
        if let health, applied >= health.current { return 0 }
        var since = checkpoint.commitTime.microseconds
        if let report = trustedReport, report.lagSeconds == 0 { since = max(since, report.updatedAt) }
        return Double(max(0, Timestamp.now.microseconds - since)) / 1e6
    }

    struct TableProgress: Sendable {
        var name: String
        var rowsDone: Int64
        var rowsEstimated: Int64?
        var state: String
    }

    /// Finished tables as the target records them, the others as the run reports them.
    var tables: [TableProgress] {
        link.mappings.map { mapping in
            let name = mapping.source.description
            let reported = report?.tables.first { $0.name == name }
            let recorded = state?.tables[mapping.source]
            if let recorded, recorded.state == .done || !isRunning || reported == nil {
                return TableProgress(
                    name: name, rowsDone: recorded.state == .done ? recorded.rows : 0,
                    rowsEstimated: reported?.rowsEstimated, state: recorded.state.rawValue)
            }
            return TableProgress(
                name: name, rowsDone: reported?.rowsDone ?? 0, rowsEstimated: reported?.rowsEstimated,
                state: reported?.state ?? "pending")
        }
    }

    var nextSteps: [String] {
        if let error = source.error { return ["source: \(error.hint)"] }
        if let error = target.error { return ["target: \(error.hint)"] }
        if let journalError { return [journalError.hint] }
        switch (phase, isRunning) {
        case ("preparing", false): return ["bridge preflight", "bridge schema apply", "bridge run"]
        case (_, false): return ["bridge run"]
        default: return []
        }
    }
}

import BridgeCore
import BridgeJournal
import Foundation

/// Where a migration stands, from everything that can be asked: both databases, the journal, the last run's report.
struct MigrationStatus: Sendable {
    /// A database as status found it.
    struct Side: Sendable {
        var address: String
        var error: BridgeError?
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
    /// How the source writes positions.
    var describe: @Sendable (Position) -> String

    /// - Throws: `serverUnreachable` and its like only if neither database answers and there is nothing on disk.
    static func collect(_ configuration: Configuration, _ registry: ConnectorRegistry) async throws(BridgeError) -> MigrationStatus {
        let migration = try Migration(configuration, registry: registry)
        let source = migration.source
        var status = MigrationStatus(
            migration: configuration.migration, source: Side(address: configuration.source.masked),
            target: Side(address: configuration.target.masked), link: configuration.link(),
            describe: { source.describe($0) })
        await status.readDisk(migration.directory)
        await status.ask(migration)
        await migration.close()
        if let error = status.source.error, status.target.error != nil, status.report == nil, status.journalBytes == nil {
            throw error
        }
        return status
    }

    private mutating func readDisk(_ directory: DataDirectory) async {
        if let report = RunReport.read(from: directory), report.migration == migration {
            self.report = report
            runState = report.currentState(lockHolder: DirectoryLock.holder(of: directory))
        }
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
            try await migration.target.connect()
            state = try await migration.target.linkState(link)
        } catch { target.error = error }
        do throws(BridgeError) {
            try await migration.source.connect()
            link = try await migration.resolveSource().description
            // Before the first run the source holds nothing of the link that could be asked about.
            guard target.error != nil || state?.origin != nil else { return }
            health = try await migration.source.health(link, applied: appliedPosition ?? .zero)
        } catch { source.error = error }
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

    /// The run knows best while it runs: it also counts stretches in which the source had nothing for this link.
    var appliedPosition: Position? {
        let stored = state?.checkpoint?.frontier
        let reported = report?.appliedPosition.flatMap { Position(storedForm: $0) }
        guard isRunning else { return stored ?? (state == nil && target.error != nil ? reported : nil) }
        return [stored, reported].compactMap { $0 }.max()
    }

    var capturedPosition: Position? { report?.capturedPosition.flatMap { Position(storedForm: $0) } }
    var journaledPosition: Position? { report?.journaledPosition.flatMap { Position(storedForm: $0) } }

    var lagSeconds: Double? {
        if isRunning, let report { return report.phase == "syncing" ? report.lagSeconds : nil }
        guard let checkpoint = state?.checkpoint else { return nil }
        if let health, checkpoint.frontier >= health.current { return 0 }
        return Double(max(0, Timestamp.now.microseconds - checkpoint.commitTime.microseconds)) / 1e6
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

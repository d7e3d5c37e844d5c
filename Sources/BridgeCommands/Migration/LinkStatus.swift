import BridgeCore
import BridgeJournal
import BridgeReplication
import Foundation

/// Where one link stands.
struct LinkStatus: Sendable {
    var link: LinkDescription
    /// What the link's target holds of it; nil if nothing, or unknown.
    var state: LinkState?
    /// Whether that database could not be asked.
    var isHolderAway = false
    var health: SourceHealth?
    var report: RunReport?
    var runState: RunReport.State?
    /// Whether the process that the report is of is alive.
    var hasProcess = false
    var journalBytes: Int64?
    var journalSegments: Int?
    var journalError: BridgeError?
    /// What the source may keep for the link, in bytes.
    var slotLimit: Int64?
    /// That the capture was given up at that limit, for people.
    var slotDropped: String?
    /// Where it would be written down.
    private var slotFile: String?
    /// The change that the link stands at; nil if it stands at none.
    var stop: ConflictStop?
    /// How many changes the target records as not applied like the source made them; nil while unknown.
    var conflicts: Int64?
    /// How the link's source writes positions.
    var describe: @Sendable (Position) -> String

    init(_ link: LinkDescription, describe: @escaping @Sendable (Position) -> String) {
        self.link = link
        self.describe = describe
    }

    init(_ link: LinkDescription, _ source: any SourceConnector) { self.init(link) { source.describe($0) } }

    mutating func readDisk(_ directory: DataDirectory) async {
        slotFile = directory.slotFile(link.direction)
        if let report = RunReport.read(from: directory, direction: link.direction), report.migration == link.migration {
            let holder = DirectoryLock.holder(of: directory)
            self.report = report
            runState = report.currentState(lockHolder: holder)
            hasProcess = report.state != .stopped && holder == report.process
        }
        do throws(BridgeError) {
            stop = try await ConflictFiles(directory: directory.conflictDirectory(link.direction)).stop()
        } catch { journalError = error }
        if let stop, stop.binding.link != link.name { self.stop = nil }
        let journal = directory.journalDirectory(link.direction)
        guard FileManager.default.fileExists(atPath: journal) else { return }
        do throws(BridgeError) {
            let segments = try await JournalInspector.list(directory: journal)
            journalBytes = segments.reduce(0) { $0 + Int64(clamping: $1.bytes) }
            journalSegments = segments.count
        } catch { journalError = error }
    }

    /// Asks whoever holds the link's records. A stop of another capture's is none.
    mutating func askHolder(_ target: any TargetConnector) async throws(BridgeError) {
        state = try await target.linkState(link)
        if let stop, let origin = state?.origin, stop.binding != LinkBinding(link, origin) { self.stop = nil }
        if state != nil { conflicts = try await target.conflictHistory(link, limit: 0).total }
    }

    mutating func askSource(_ source: any SourceConnector) async throws(BridgeError) {
        health = try await source.health(link, applied: appliedPosition ?? .zero)
        // A slot that is there was not dropped, whatever was about to be.
        if health?.retention == nil, let slotFile, let origin = state?.origin {
            slotDropped = SlotLimit.recordedMessage(slotFile, of: origin)
        }
    }

    // MARK: - Names

    /// The tables' full names, which only their database knows, as the last run found them; nothing changes unless it ran
    /// with the tables that the file names now.
    mutating func takeSourcesOfLastRun() { take(report?.sources, \.source) }
    mutating func takeTargetsOfLastRun() { take(report?.targets, \.target) }

    private mutating func take(_ texts: [String]?, _ side: WritableKeyPath<TableMapping, TableName>) {
        let names = (texts ?? []).compactMap { TableName(written: $0) }
        guard names.count == link.mappings.count,
            zip(names, link.mappings).allSatisfy({ name, mapping in
                name.name == mapping[keyPath: side].name && (mapping[keyPath: side].schema ?? name.schema) == name.schema
            })
        else { return }
        for (index, name) in names.enumerated() { link.mappings[index][keyPath: side] = name }
    }

    // MARK: - What follows from it

    var isRunning: Bool { runState == .running }

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
        if isRunning || state == nil && isHolderAway { return report }
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

    /// What is to be done about the log that the source keeps for the link, if anything is.
    var slotStep: String? {
        if slotDropped != nil { return ErrorCode.slotLimit.hint }
        if health?.retention?.state == "lost" { return ErrorCode.slotLost.hint }
        guard let slotLimit, let retained = health?.retainedBytes, SlotLimit.isNear(retained, slotLimit) else { return nil }
        let action = isRunning ? "let the target catch up, or end long transactions there" : "bridge run"
        return "the \(link.direction == .forward ? "source" : "target") keeps \(Quantity.text(bytes: retained / 1_000_000 * 1_000_000)) of log, of "
            + "\(Quantity.text(bytes: slotLimit)) that it may: \(action)"
    }

    /// What went wrong with a link that failed, for people.
    var failure: String? {
        guard runState == .failed, let error = report?.error else { return nil }
        return hasProcess && report?.retryAt != nil
            ? "\(link.direction.way) failed, and is tried again: \(error)" : "the last run failed: \(error)"
    }
}

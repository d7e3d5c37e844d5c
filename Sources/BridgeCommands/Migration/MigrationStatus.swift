import BridgeCore
import BridgeCutover
import Foundation

/// Where a migration stands, from everything that can be asked: both databases, the journals, the last run's reports.
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
    var forward: LinkStatus
    /// Nil where there is no way back.
    var reverse: LinkStatus?
    var lastCheck: LastCheck?
    /// Nil before the copy is done, and where it could not be read.
    var cutover: CutoverOutlook?
    var cutoverError: BridgeError?
    /// As the target has it, which needs neither the source nor the links' records; nil where it could not be read.
    var ledger: Ledger?
    /// The names of all services, in the file's order.
    var services: [String] = []
    /// Set where nothing of the migration is left.
    var ended: EndedMigration?

    var links: [LinkStatus] { [forward] + (reverse.map { [$0] } ?? []) }

    /// - Throws: `serverUnreachable` and its like only if neither database answers and there is nothing on disk.
    static func collect(_ configuration: Configuration, _ registry: ConnectorRegistry) async throws(BridgeError)
        -> MigrationStatus
    {
        let migration = try Migration(configuration, registry: registry)
        let back = try migration.reversed()
        var status = MigrationStatus(
            migration: configuration.migration, source: Side(address: configuration.source.masked),
            target: Side(address: configuration.target.masked), forward: LinkStatus(configuration.link(), migration.source))
        let directory = migration.directory
        if configuration.source.engine == .postgresql { status.forward.slotLimit = configuration.replication.slotRetainedLimit }
        await status.forward.readDisk(directory)
        status.lastCheck = await LastCheck.read(directory, migration: configuration.migration)
        await status.ask(migration)
        await status.askReverse(back)
        await status.askCutover(migration, back)
        // The source's tables may have got other names in the end.
        let isSourceThere = status.source.error.map { $0.code == .tableMissing } ?? true
        if status.forward.state == nil, isSourceThere, status.target.error == nil {
            do throws(BridgeError) { status.ended = try await EndedMigration.find(configuration, registry) } catch {
                status.cutoverError = error
            }
            if status.ended != nil { status.source.error = nil }
        }
        await migration.close()
        await back.close()
        if let error = status.source.error, status.target.error != nil, status.forward.report == nil,
            status.forward.journalBytes == nil
        {
            throw error
        }
        return status
    }

    private mutating func ask(_ migration: Migration) async {
        do throws(BridgeError) {
            try await migration.source.connect()
            forward.link = try await migration.resolveSource().description
        } catch {
            source.error = error
            forward.takeSourcesOfLastRun()
        }
        do throws(BridgeError) {
            try await migration.target.connect()
            try await migration.resolveTarget(&forward.link)
            try await forward.askHolder(migration.target)
        } catch {
            target.error = error
            forward.isHolderAway = true
            forward.takeTargetsOfLastRun()
        }
        // Before the first run the source holds nothing of the link that could be asked about.
        guard source.error == nil, target.error != nil || forward.state?.origin != nil else { return }
        do throws(BridgeError) { try await forward.askSource(migration.source) } catch { source.error = error }
    }

    /// The way back: its records are on the migration's source, what it captures is on the migration's target.
    private mutating func askReverse(_ migration: Migration) async {
        var link = LinkStatus(forward.link.reversed, migration.source)
        await link.readDisk(migration.directory)
        if migration.source.engine == .postgresql { link.slotLimit = migration.configuration.replication.slotRetainedLimit }
        do throws(BridgeError) {
            // What is wrong with the source has been said.
            guard source.error == nil else { throw BridgeError(.serverUnreachable, "the source was not asked") }
            try await migration.target.connect()
            guard try await migration.target.linkOrigin(link.link) != nil else { return }
            try await link.askHolder(migration.target)
        } catch {
            if source.error == nil { source.error = error }
            link.isHolderAway = true
            // With nobody to ask, a way back that was run is taken to be there still.
            guard link.report != nil else { return }
        }
        if target.error == nil {
            do throws(BridgeError) {
                try await migration.source.connect()
                try await link.askSource(migration.source)
            } catch { target.error = error }
        }
        reverse = link
    }

    /// What the databases hold of the cutover. It is the last to be asked, and closes the connectors.
    private mutating func askCutover(_ migration: Migration, _ back: Migration) async {
        services = migration.configuration.cutoverServices(forward.link).map(\.name)
        guard target.error == nil else { return }
        // Without the source, and while everything is taken down, the target still has the ledger.
        do throws(BridgeError) { ledger = try await Self.ledger(migration) } catch {
            cutoverError = error
            return
        }
        guard source.error == nil, forward.state?.phase == .syncing, ledger?.isClosing == nil else { return }
        do throws(BridgeError) { cutover = try await CutoverOutlook.read(migration, back: back) } catch { cutoverError = error }
    }

    private static func ledger(_ migration: Migration) async throws(BridgeError) -> Ledger {
        let session = try await migration.target.openCutover(migration: migration.configuration.migration)
        let result: Result<Ledger, BridgeError>
        do throws(BridgeError) { result = .success(try Ledger(try await session.ledger())) } catch { result = .failure(error) }
        await session.close()
        return try result.get()
    }

    // MARK: - What follows from it

    /// Whether a process runs the links, or tries to.
    var isRunning: Bool { links.contains { $0.isRunning || $0.hasProcess } }

    var phase: String {
        if let ended { return ended.phase }
        if let completed = ledger?.isClosing { return completed ? "completing" : "cancelling" }
        if let state = forward.state {
            // The link is in sync all through a cutover; where that is cannot be told without the ledger.
            guard state.phase == .syncing else { return state.phase.rawValue }
            return ledger == nil && cutoverError != nil ? "unknown" : CutoverReport.phase(servicePhases)
        }
        if target.error != nil, let report = forward.report { return report.phase }
        return LinkState.Phase.preparing.rawValue
    }

    /// Nil while it is not known what the targets record, or nothing has begun.
    var conflicts: JSONValue {
        let counts = links.map(\.conflicts)
        guard forward.state != nil, !counts.contains(nil) else { return nil }
        return [
            "open": .integer(Int64(links.count { $0.stop != nil })),
            "recorded": .integer(counts.reduce(0) { $0 + ($1 ?? 0) }),
        ]
    }

    /// Where each service is, by the ledger.
    var servicePhases: [String: ServicePhase] {
        guard let ledger, forward.state?.phase == .syncing else { return [:] }
        return Dictionary(services.map { ($0, ledger.phases[$0] ?? .syncing) }, uniquingKeysWith: { first, _ in first })
    }

    struct TableProgress: Sendable {
        var name: String
        var rowsDone: Int64
        var rowsEstimated: Int64?
        var state: String
    }

    /// Finished tables as the target records them, the others as the run reports them.
    var tables: [TableProgress] {
        let (report, isRunning) = (forward.report, forward.isRunning)
        return forward.link.mappings.map { mapping in
            let name = mapping.source.description
            let reported = report?.tables.first { $0.name == name }
            let recorded = forward.state?.tables[mapping.source]
            if let recorded, recorded.state == .done || !isRunning || reported == nil {
                return TableProgress(
                    name: name, rowsDone: recorded.state == .done ? recorded.rows : 0,
                    rowsEstimated: reported?.rowsEstimated,
                    state: isRunning && reported?.state == "indexing" ? "indexing" : recorded.state.rawValue)
            }
            return TableProgress(
                name: name, rowsDone: reported?.rowsDone ?? 0, rowsEstimated: reported?.rowsEstimated,
                state: reported?.state ?? "pending")
        }
    }

    var nextSteps: [String] {
        if let completed = ledger?.isClosing { return ["bridge cutover \(completed ? "complete" : "cancel")"] }
        if let error = source.error { return ["source: \(error.hint)"] }
        if let error = target.error { return ["target: \(error.hint)"] }
        if let error = links.compactMap(\.journalError).first { return [error.hint] }
        if ended != nil { return [] }
        if links.contains(where: { $0.stop != nil }) { return ["bridge conflicts list"] }
        if let cutoverError { return [cutoverError.hint] }
        if ledger?.attempt != nil { return ["bridge cutover resume"] + links.compactMap(\.slotStep) }
        if let dropped = links.first(where: { $0.slotDropped != nil || $0.health?.retention?.state == "lost" })?.slotStep {
            return [dropped]
        }
        return runSteps + links.compactMap(\.slotStep)
    }

    private var runSteps: [String] {
        switch (phase, isRunning) {
        case ("preparing", false): return ["bridge preflight", "bridge schema apply", "bridge run"]
        case (_, false): return ["bridge run"]
        default: return []
        }
    }
}

import BridgeConsistency
import BridgeCore
import BridgeCutover
import BridgeReplication
import Logging

/// Both directions of a migration, with a pair of connectors for each.
struct CutoverDirections: Sendable {
    let forward: LinkDescription
    let reverse: LinkDescription
    /// The forward link's.
    let source: any SourceConnector
    let target: any TargetConnector
    /// The reverse link's: its source is the migration's target.
    let reverseSource: any SourceConnector
    let reverseTarget: any TargetConnector
    /// The migration is being completed, and the source's tables have got other names: the links have those of the file.
    var hasOldNames = false

    /// Connects all of them and finds the tables on both sides.
    /// - Parameter back: the migration's other direction.
    static func open(_ migration: Migration, back: Migration) async throws(BridgeError) -> CutoverDirections {
        let link: Migration.Link
        var hasOldNames = false
        do throws(BridgeError) { link = try await migration.open() } catch where error.code == .tableMissing {
            guard try await isBeingCompleted(migration) else { throw error }
            hasOldNames = true
            link = try await migration.openByNames()
        }
        try await back.source.connect()
        try await back.target.connect()
        let targets = try await migration.target.describeTables(link.description.mappings.map(\.target))
        guard targets.count == link.description.mappings.count else {
            throw BridgeError(
                .targetTableMissing, "the target lacks a table of the migration", context: [.init(.migration, link.description.migration)],
                hint: "bridge schema apply makes it, bridge run fills it")
        }
        return CutoverDirections(
            forward: link.description, reverse: link.description.reversed(sources: link.sources, targets: targets),
            source: migration.source, target: migration.target, reverseSource: back.source, reverseTarget: back.target,
            hasOldNames: hasOldNames)
    }

    private static func isBeingCompleted(_ migration: Migration) async throws(BridgeError) -> Bool {
        let session = try await migration.target.openCutover(migration: migration.configuration.migration)
        let result: Result<Bool, BridgeError>
        do throws(BridgeError) { result = .success(try Ledger(try await session.ledger()).isClosing == true) } catch { result = .failure(error) }
        await session.close()
        return try result.get()
    }

    func close() async {
        await reverseSource.close()
        await reverseTarget.close()
    }

    func link(_ direction: LinkDescription.Direction) -> LinkDescription { direction == .forward ? forward : reverse }
    func source(_ direction: LinkDescription.Direction) -> any SourceConnector { direction == .forward ? source : reverseSource }
    func target(_ direction: LinkDescription.Direction) -> any TargetConnector { direction == .forward ? target : reverseTarget }

    func reversePreparation(_ configuration: Configuration, _ logger: Logger) -> ReversePreparation {
        let replication = configuration.replication
        return ReversePreparation(
            configuration: LinkConfiguration(
                link: reverse, journalDirectory: DataDirectory(configuration.dataDirectory).journalDirectory(.reverse),
                batchBytes: replication.batchBytes, copyJobs: replication.copyJobs, journalBudget: replication.journalBudget,
                journalKeep: replication.journalKeep),
            source: reverseSource, target: reverseTarget, logger: logger)
    }

    // MARK: Checks

    private func options(
        _ mode: CheckReport.Mode, _ direction: LinkDescription.Direction, _ tables: [TableName]?, _ configuration: Configuration
    ) -> CheckOptions {
        let directory = DataDirectory(configuration.dataDirectory)
        var options = CheckOptions(
            mode: mode, throttle: configuration.check.throttle, stateDirectory: directory.checkDirectory(direction),
            journalDirectory: directory.journalDirectory(direction))
        options.tables = tables
        options.buildsOnWhole = true
        options.policies = configuration.check.equal
        options.servedWrites = directory.servedWrites(direction)
        options.memory = Int(clamping: configuration.check.memory)
        return options
    }

    /// The source's names of the services' tables; nil for all of the link.
    private func tables(
        _ direction: LinkDescription.Direction, _ services: [String], _ configuration: Configuration
    ) -> [TableName]? {
        let moving = configuration.cutoverServices(forward).filter { services.contains($0.name) }.flatMap(\.tables)
        return moving.count == forward.mappings.count ? nil : moving.map { direction == .forward ? $0.source : $0.target }
    }

    /// Checks what changed in some services' tables since the last full check, or makes one.
    func check(
        _ direction: LinkDescription.Direction, services: [String], _ configuration: Configuration, _ logger: Logger
    ) async throws(BridgeError) -> CheckReport {
        let folder = DataDirectory(configuration.dataDirectory).checkDirectory(direction)
        let tables = tables(direction, services, configuration)
        let isComplete = try await BlockingWork().run { () throws(BridgeError) in
            CheckRunner.kept(stateDirectory: folder)?.isComplete ?? false
        }
        if isComplete {
            let report = try await runner(.incremental, direction, tables, configuration, logger).run()
            // What cannot be built upon is built anew.
            if report.gate.isOpen || report.verdict == .inconsistent { return report }
        }
        let report = try await runner(.full, direction, nil, configuration, logger).run()
        // The others' tables may well differ: the application writes to them elsewhere.
        return tables == nil ? report : try await runner(.incremental, direction, tables, configuration, logger).run()
    }

    /// Remembers that all that was written to the link's target up to now was written where the application was served.
    func noteServed(_ direction: LinkDescription.Direction, _ configuration: Configuration) async throws(BridgeError) {
        let directory = DataDirectory(configuration.dataDirectory)
        let older = try await BlockingWork().run { () throws(BridgeError) in directory.servedWrites(direction) }
        guard let served = try await ServedWrites.newest(of: link(direction), target: target(direction), older: older) else { return }
        try await BlockingWork().run { () throws(BridgeError) in
            try directory.keep(served, direction)
        }
    }

    private func runner(
        _ mode: CheckReport.Mode, _ direction: LinkDescription.Direction, _ tables: [TableName]?, _ configuration: Configuration,
        _ logger: Logger
    ) -> CheckRunner {
        CheckRunner(
            link: link(direction), options: options(mode, direction, tables, configuration), source: source(direction),
            target: target(direction), logger: logger)
    }

    /// - Parameter services: those that move, out of all of the link's.
    func fenceCheck(
        _ direction: LinkDescription.Direction, services: [String], _ configuration: Configuration, _ logger: Logger
    ) throws(BridgeError) -> FenceCheck {
        let options = options(.fence, direction, tables(direction, services, configuration), configuration)
        return FenceCheck(
            link: link(direction), options: options, source: source(direction), target: target(direction), logger: logger)
    }
}

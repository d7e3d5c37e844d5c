import BridgeConsistency
import BridgeCore
import BridgeCutover
import Foundation
import Logging

/// Everything that a verb works with, open.
struct CutoverStage: Sendable {
    let configuration: Configuration
    let migration: Migration
    let directions: CutoverDirections
    let setup: CutoverSetup
    let links: any KeptLinks
    let logger: Logger

    /// - Parameter links: keeps the links at work for as long as the verb takes.
    static func open(
        _ configuration: Configuration, _ registry: ConnectorRegistry, _ request: CutoverRequest, logger: Logger,
        links: (Migration, CutoverDirections) async throws(BridgeError) -> any KeptLinks
    ) async throws(BridgeError) -> CutoverStage {
        let migration = try Migration(configuration, registry: registry)
        return try await open(migration, back: migration.reversed(), request, logger: logger, links: links)
    }

    /// The same over connectors that are there already; ``close()`` closes them too.
    static func open(
        _ migration: Migration, back: Migration, _ request: CutoverRequest, logger: Logger,
        links: (Migration, CutoverDirections) async throws(BridgeError) -> any KeptLinks
    ) async throws(BridgeError) -> CutoverStage {
        let configuration = migration.configuration
        let directions = try await CutoverDirections.open(migration, back: back)
        let kept: any KeptLinks = directions.hasOldNames ? UnkeptLinks() : try await links(migration, directions)
        let name = configuration.migration
        let machinery = RealMachinery(
            configuration: configuration, directions: directions, links: kept,
            maxPause: limits(configuration, request).maxPause, logger: logger)
        let setup = CutoverSetup(
            migration: name, forward: directions.forward, reverse: directions.reverse,
            services: configuration.cutoverServices(directions.forward), limits: limits(configuration, request),
            source: try await migration.source.openCutover(migration: name),
            target: try await migration.target.openCutover(migration: name),
            records: try await migration.target.openCutover(migration: name), machinery: machinery,
            owner: OperatorName.make(), isOwnerGone: OperatorName.isGone, oldTables: configuration.cutover.oldTables)
        return CutoverStage(
            configuration: configuration, migration: migration, directions: directions, setup: setup, links: kept, logger: logger)
    }

    func close() async {
        await setup.source.close()
        await setup.target.close()
        await setup.records.close()
        await links.stop()
        await directions.close()
        await migration.close()
    }

    private static func limits(_ configuration: Configuration, _ request: CutoverRequest) -> CutoverLimits {
        var limits = CutoverLimits()
        limits.maxLag = request.maxLag ?? configuration.cutover.maxLag
        limits.maxPause = request.maxPause ?? configuration.cutover.maxPause
        limits.timeout = request.timeout ?? configuration.cutover.timeout
        limits.maxCheckAge = configuration.check.maxAge
        limits.maxTransactionAge = configuration.cutover.maxTransactionAge
        return limits
    }

    /// The services asked for, all of them if none were.
    /// - Throws: `usage` for one that there is not.
    func services(_ request: CutoverRequest) throws(BridgeError) -> [String] {
        let known = setup.services.map(\.name)
        for name in request.services where !known.contains(name) {
            throw BridgeError(
                .usage, "there is no service \(Printable.text(name))",
                hint: nearestName(to: name, in: known).map { "did you mean \($0)?" } ?? "bridge.yaml names: \(known.joined(separator: ", "))")
        }
        return request.services.isEmpty ? known : known.filter(request.services.contains)
    }
}

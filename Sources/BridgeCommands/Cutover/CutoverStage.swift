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
        let directions = try await CutoverDirections.open(migration, registry)
        let kept = try await links(migration, directions)
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
            owner: OperatorName.make(), isOwnerGone: OperatorName.isGone)
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

    // MARK: - Gates

    /// Measures whatever the goal's gates ask for. What cannot be measured shuts its gate.
    func measure(_ goal: Attempt.Goal, _ services: [String], _ ledger: Ledger) async -> GateInputs {
        var inputs = GateInputs(phases: ledger.phases)
        inputs.attempt = ledger.attempt
        guard goal != .readsBack else { return inputs }
        let from: Side = goal == .writesBack ? .target : .source
        await measureLinks(from, &inputs)
        let report = await lastReport(from, services)
        // A switch of reads rests on it alone; before a switch of writes the fence check looks for itself.
        inputs.check = report.map { Self.check($0, since: goal == .switchReads ? ledger.lastMove : nil) }
        inputs.predictedPause = report?.fenceSeconds.map { .microseconds(Int64($0 * 1e6)) }
        inputs.foreignWrites = report?.foreignWrites
        inputs.window = configuration.cutover.window.map { .init(text: $0.text, remaining: $0.remaining(at: .now)) }
        guard goal != .switchReads else { return inputs }
        inputs.left = await facts(from, services)
        inputs.entered = await facts(from.other, services)
        inputs.reverseObstacles = await reverseObstacles(goal)
        return inputs
    }

    private func facts(_ side: Side, _ services: [String]) async -> CutoverFacts? {
        do throws(BridgeError) { return try await session(side).facts(of: tables(services, side)) } catch {
            logger.warning("the \(side.rawValue) could not be looked at: \(ErrorRenderer.headline(error))")
            return nil
        }
    }

    private func session(_ side: Side) -> any CutoverSession { side == .source ? setup.source : setup.target }

    private func tables(_ services: [String], _ side: Side) -> [TableName] {
        setup.services.filter { services.contains($0.name) }.flatMap(\.tables).map { side == .source ? $0.source : $0.target }
    }

    /// How long a marker takes to the other side: a heartbeat and the lag in one.
    private func measureLinks(_ from: Side, _ inputs: inout GateInputs) async {
        let link = from == .source ? setup.forward : setup.reverse
        let marker = "gate \(setup.owner) \(UInt64.random(in: .min ... .max))"
        do throws(BridgeError) {
            try await links.waitUntilStreaming(link.direction, patience: setup.limits.timeout)
            let began = ContinuousClock.now
            try await session(from).writeMarker(marker, link: link)
            // Twice the limit is enough to say by how much it was missed.
            let patience = setup.limits.maxLag * 2 + .seconds(5)
            while try await session(from.other).arrivedMarker(link) != marker {
                guard ContinuousClock.now - began < patience else {
                    inputs.isStreaming = true
                    return
                }
                try? await Task.sleep(for: .milliseconds(5))
            }
            inputs.isStreaming = true
            inputs.lag = ContinuousClock.now - began
        } catch {
            logger.warning("\(ErrorRenderer.headline(error))")
            inputs.isStreaming = false
        }
    }

    /// On the way back, where nobody makes checks beforehand, one is made now.
    private func lastReport(_ from: Side, _ services: [String]) async -> CheckReport? {
        if from == .target {
            do throws(BridgeError) { return try await directions.check(.reverse, services: services, configuration, logger) } catch {
                logger.warning("the check of the way back: \(ErrorRenderer.headline(error))")
                return nil
            }
        }
        let (directory, name) = (migration.directory, configuration.migration)
        let (source, tables) = (migration.source.displayName, tables(services, from).map(\.description))
        do throws(BridgeError) {
            return try await BlockingWork().run { () throws(BridgeError) in
                try CheckHistory(directory).newest(of: name, source: source, tables: tables)
            }
        } catch {
            logger.warning("the last checks could not be read: \(ErrorRenderer.headline(error))")
            return nil
        }
    }

    /// - Parameter moved: when writers moved last; what was found before says nothing of what they did since.
    private static func check(_ report: CheckReport, since moved: Timestamp?) -> GateInputs.Check {
        let never = Duration.seconds(1_000_000_000)
        let now = Double(Timestamp.now.microseconds) / 1e6
        var age = never
        if let began = RFC3339.seconds(report.startedAt), let ended = report.completedAt.flatMap(RFC3339.seconds), ended <= now + 1,
            moved.map({ Double($0.microseconds) / 1e6 <= began }) ?? true
        { age = .milliseconds(Int64(max(0, now - ended) * 1_000)) }
        // It covers the tables that move, whichever else it left out.
        let isClean = report.verdict == .consistent && report.foreignWrites == 0
        return GateInputs.Check(
            verdict: report.verdict.rawValue, isConsistent: report.verdict == .consistent, opensGate: isClean || report.gate.isOpen,
            reasons: report.gate.reasons, age: age)
    }

    private func reverseObstacles(_ goal: Attempt.Goal) async -> [String]? {
        // The way forward, which is the way back from the target, is there and was measured.
        guard goal != .writesBack else { return [] }
        do throws(BridgeError) {
            // What was made once is looked at by its link.
            if try await directions.reverseTarget.linkState(directions.reverse)?.origin != nil { return [] }
            return try await directions.reversePreparation(configuration, logger).findings().filter { $0.severity == .blocking }
                .map { Printable.text($0.what) }
        } catch {
            logger.warning("the way back: \(ErrorRenderer.headline(error))")
            return nil
        }
    }
}

import BridgeConsistency
import BridgeCore
import BridgeCutover
import Foundation

/// What gates are decided by, measured or looked at.
extension CutoverStage {
    /// Measures whatever the goal's gates ask for. What cannot be measured shuts its gate.
    func measure(_ goal: Attempt.Goal, _ services: [String], _ ledger: Ledger) async -> GateInputs {
        var inputs = GateInputs(phases: ledger.phases)
        inputs.attempt = ledger.attempt
        guard goal != .readsBack else { return inputs }
        let from = Self.left(goal)
        await measureLinks(from, &inputs)
        // On the way back, where nobody makes checks beforehand, one is made now.
        let report = from == .target ? await checkBack(services) : await newestReport(services)
        await measureChecks(goal, services, ledger, report, &inputs)
        await measureSides(goal, services, &inputs)
        return inputs
    }

    /// How thoroughly gates are looked at without writing anything anywhere.
    enum Look: Sendable {
        /// As the verb would, once. What the verb would do itself, a check or the links' work, is left out.
        case beforeVerb
        /// Again and again, on databases at work: what reads whole tables is left out, and a link that nobody runs is shut.
        case inPassing
    }

    /// The gates of what may come next, by what can be looked at: of the links, what their runs report.
    func look(_ look: Look, _ goal: Attempt.Goal, _ services: [String], _ ledger: Ledger) async -> [Gate] {
        var inputs = GateInputs(phases: ledger.phases)
        inputs.attempt = ledger.attempt
        let from = Self.left(goal)
        var unseen: Set<Gate.Name> = from == .source ? [] : [.check, .untouched, .pause]
        if goal != .readsBack {
            // Where nothing keeps the links at work, the verb does.
            if await !lookAtLinks(from, &inputs), look == .beforeVerb { unseen.formUnion([.heartbeat, .lag]) }
            await measureChecks(goal, services, ledger, from == .source ? await newestReport(services) : nil, &inputs)
            switch look {
            case .beforeVerb: await measureSides(goal, services, &inputs)
            case .inPassing: unseen.formUnion([.reverse, .preparedTransactions, .longTransactions, .fence, .foreignKeys])
            }
        }
        return GateKeeper(limits: setup.limits, goal: goal, services: services).gates(inputs).filter { !unseen.contains($0.name) }
    }

    /// The gates of `complete`, out of those of a way back.
    func completionGates(_ gates: [Gate], _ ledger: Ledger) -> [Gate] {
        let soaked = ledger.lastMove.map { Duration.microseconds(Timestamp.now.microseconds - $0.microseconds) } ?? .zero
        let soak = configuration.cutover.soak
        return gates.filter { [.phase, .heartbeat, .lag, .check].contains($0.name) } + [
            Gate(
                .soak, measured: "\(Numbers.duration(seconds: soaked / .seconds(1))) since writes were switched",
                limit: "at least \(Quantity.text(soak))", isOpen: soaked >= soak, hint: "wait, or lower cutover.soak")
        ]
    }

    /// The side that the application leaves.
    private static func left(_ goal: Attempt.Goal) -> Side { goal == .writesBack ? .target : .source }

    private func measureChecks(
        _ goal: Attempt.Goal, _ services: [String], _ ledger: Ledger, _ report: CheckReport?, _ inputs: inout GateInputs
    ) async {
        let from = Self.left(goal)
        // A switch of reads rests on it alone; before a switch of writes the fence check looks for itself.
        inputs.check = report.map { Self.check($0, since: goal == .switchReads ? ledger.lastMove : nil) }
        if from == .source, let report { inputs.check?.definitions = await definitions(services, report) }
        inputs.predictedPause = report?.fenceSeconds.map { .microseconds(Int64($0 * 1e6)) }
        inputs.foreignWrites = report?.foreignWrites
        inputs.window = configuration.cutover.window.map { .init(text: $0.text, remaining: $0.remaining(at: .now)) }
    }

    /// What only the databases can tell; it counts rows.
    private func measureSides(_ goal: Attempt.Goal, _ services: [String], _ inputs: inout GateInputs) async {
        guard goal != .switchReads else { return }
        let from = Self.left(goal)
        inputs.left = await facts(from, services)
        inputs.entered = await facts(from.other, services)
        inputs.reverseObstacles = await reverseObstacles(goal)
    }

    private func facts(_ side: Side, _ services: [String]) async -> CutoverFacts? {
        do throws(BridgeError) { return try await session(side).facts(of: tables(services, side)) } catch {
            logger.warning("the \(side.rawValue) could not be looked at: \(ErrorRenderer.headline(error))")
            return nil
        }
    }

    /// What the tables that move were defined as when the check began, and what they are now.
    private func definitions(_ services: [String], _ report: CheckReport) async -> [GateInputs.Definition] {
        async let there = fingerprints(.target, services)
        let (source, target) = (await fingerprints(.source, services), await there)
        let checked = Dictionary(report.tables.map { ($0.source, $0) }, uniquingKeysWith: { first, _ in first })
        return setup.services.filter { services.contains($0.name) }.flatMap(\.tables).flatMap { table -> [GateInputs.Definition] in
            let found = checked[table.source.description].flatMap { $0.target == table.target.description ? $0 : nil }
            return [
                .init(.source, table.source, checked: found?.sourceSchema, present: source[table.source]),
                .init(.target, table.target, checked: found?.targetSchema, present: target[table.target]),
            ]
        }
    }

    private func fingerprints(_ side: Side, _ services: [String]) async -> [TableName: String] {
        do throws(BridgeError) { return try await session(side).schemaFingerprints(of: tables(services, side)) } catch {
            logger.warning("the \(side.rawValue): \(ErrorRenderer.headline(error))")
            return [:]
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

    /// - Returns: whether a process keeps the links at work, or tries to.
    private func lookAtLinks(_ from: Side, _ inputs: inout GateInputs) async -> Bool {
        let direction: LinkDescription.Direction = from == .source ? .forward : .reverse
        var status = LinkStatus(directions.link(direction), directions.source(direction))
        await status.readDisk(migration.directory)
        inputs.isStreaming = status.isRunning && status.report?.activity == "streaming"
        if inputs.isStreaming == true { inputs.lag = status.lagSeconds.map { .microseconds(Int64($0 * 1e6)) } }
        return status.hasProcess
    }

    private func checkBack(_ services: [String]) async -> CheckReport? {
        do throws(BridgeError) { return try await directions.check(.reverse, services: services, configuration, logger) } catch {
            logger.warning("the check of the way back: \(ErrorRenderer.headline(error))")
            return nil
        }
    }

    private func newestReport(_ services: [String]) async -> CheckReport? {
        let (directory, name) = (migration.directory, configuration.migration)
        let (source, tables) = (migration.source.displayName, tables(services, .source).map(\.description))
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
        let now = Double(Timestamp.now.microseconds) / 1e6
        var age: Duration?
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

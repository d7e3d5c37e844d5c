import BridgeConsistency
import BridgeCore
import BridgeCutover
import Foundation
import Logging
import Synchronization

/// One verb, from its gates to where everything stands afterwards.
final class CutoverProcedure: Sendable {
    private let stage: CutoverStage
    private let request: CutoverRequest
    private let verb: CutoverVerb
    private let lines: CutoverLines
    /// A line for people, as it happens.
    private let show: @Sendable (String) -> Void
    private let stopper = Mutex<(stop: (@Sendable () -> Void)?, isRequested: Bool)>((nil, false))

    init(
        _ stage: CutoverStage, _ verb: CutoverVerb, _ request: CutoverRequest, lines: CutoverLines,
        show: @escaping @Sendable (String) -> Void
    ) {
        self.stage = stage
        self.verb = verb
        self.request = request
        self.lines = lines
        self.show = show
    }

    /// Asks for an end in good order: see ``CutoverDriver/stop()``. From any thread.
    func stop() {
        let stop = stopper.withLock { state in
            state.isRequested = true
            return state.stop
        }
        stop?()
    }

    func run() async throws(BridgeError) -> CutoverReport {
        var report = CutoverReport(verb: verb.rawValue, migration: stage.configuration.migration)
        if request.isDryRun {
            try await plan(&report)
            return report
        }
        let show = show
        let lines = lines
        let driver = CutoverDriver(stage.setup) { event in
            if let line = Self.line(event, lines) { show(line) }
        }
        let wasRequested = stopper.withLock { state in
            state.stop = { Task { await driver.stop() } }
            return state.isRequested
        }
        if wasRequested { throw BridgeError(.interrupted, "stopped before anything was done") }
        let ledger = try await driver.open()
        let result: Result<Void, BridgeError>
        do throws(BridgeError) { result = .success(try await perform(driver, ledger, &report)) } catch { result = .failure(error) }
        await driver.close()
        stopper.withLock { $0.stop = nil }
        try result.get()
        if report.ending == nil { report.standing = try? await Standing.read(stage.setup) }
        report.nextSteps = Self.nextSteps(report)
        return report
    }

    private func perform(
        _ driver: CutoverDriver, _ ledger: Ledger, _ report: inout CutoverReport
    ) async throws(BridgeError) {
        if let completed = ledger.isClosing {
            guard verb == (completed ? .complete : .cancel) || verb == .resume else {
                throw BridgeError(
                    .configurationInvalid, "the migration is being \(completed ? "completed" : "cancelled")",
                    hint: "bridge cutover \(completed ? "complete" : "cancel") finishes it")
            }
            return try await takeDown(completed: completed, driver, ledger, &report)
        }
        switch verb {
        case .rehearse: try await move(.rehearse, driver, ledger, &report)
        case .switchReads: try await move(.switchReads, driver, ledger, &report)
        case .switchWrites: try await move(.switchWrites, driver, ledger, &report)
        case .resume: try await resume(driver, ledger, &report)
        case .rollback: try await rollBack(driver, ledger, &report)
        case .complete: try await complete(driver, ledger, &report)
        case .cancel: try await cancel(driver, ledger, &report)
        }
    }

    // MARK: - Moving

    /// Moves the services that are not there yet.
    private func move(
        _ goal: Attempt.Goal, _ driver: CutoverDriver, _ ledger: Ledger, _ report: inout CutoverReport
    ) async throws(BridgeError) {
        let wanted = try stage.services(request)
        let behind = goal == .rehearse ? wanted : Self.behind(wanted, goal, ledger)
        guard !behind.isEmpty || ledger.attempt != nil else {
            report.reason = "nothing to do: \(wanted.joined(separator: ", ")) \(wanted.count == 1 ? "is" : "are") there"
            return
        }
        try await attempt(goal, behind, driver, ledger, &report)
    }

    /// Those of the services that are not where the goal brings them.
    private static func behind(_ services: [String], _ goal: Attempt.Goal, _ ledger: Ledger) -> [String] {
        let after = Attempt(id: "", goal: goal, services: [], epoch: 0).phaseAfter
        return services.filter { name in
            let phase = ledger.phases[name] ?? .syncing
            return [.readsBack, .writesBack].contains(goal) ? phase > after : phase < after
        }
    }

    private func attempt(
        _ goal: Attempt.Goal, _ services: [String], _ driver: CutoverDriver, _ ledger: Ledger, _ report: inout CutoverReport
    ) async throws(BridgeError) {
        guard let overrides = try await pass(goal, services, ledger, &report) else { return }
        take(try await driver.run(goal, services: services, overrides: overrides), goal, &report)
    }

    /// Asks the gates. Nil if one is shut.
    private func pass(
        _ goal: Attempt.Goal, _ services: [String], _ ledger: Ledger, _ report: inout CutoverReport
    ) async throws(BridgeError) -> [GateOverride]? {
        let inputs = await stage.measure(goal, services, ledger)
        let gates = GateKeeper(limits: stage.setup.limits, goal: goal, services: services).gates(inputs)
        return judge(gates, &report)
    }

    private func judge(_ gates: [Gate], _ report: inout CutoverReport) -> [GateOverride]? {
        report.gates = gates
        var overrides: [GateOverride] = []
        for gate in gates {
            // Where services are is no opinion that could be overridden.
            let reason = gate.isOpen || gate.name == .phase ? nil : request.overrides[gate.name]
            if let reason { overrides.append(GateOverride(gate: gate, reason: reason)) }
            show(lines.gate(gate, isOverridden: reason != nil))
        }
        report.overridden = overrides.map(\.gate.name)
        let shut = gates.filter { !$0.isOpen && !report.overridden.contains($0.name) }
        guard !shut.isEmpty else { return overrides }
        report.succeeded = false
        report.reason = "shut: \(shut.map(\.name.rawValue).joined(separator: ", "))"
        report.exitStatus = .inconsistent
        return nil
    }

    private func take(_ outcome: CutoverOutcome, _ goal: Attempt.Goal, _ report: inout CutoverReport) {
        report.attempt = outcome.attempt.id
        report.steps += outcome.steps.map { .init(name: $0.step.rawValue, seconds: $0.seconds) }
        report.pause = outcome.pause ?? report.pause
        // A rehearsal that came to its end goes back by design.
        let isDone = outcome.succeeded || goal == .rehearse && outcome.error == nil && outcome.attempt.done.contains(.checkFenced)
        report.succeeded = isDone
        report.exitStatus = isDone ? .done : outcome.error?.exitStatus ?? .tryAgain
        if !isDone { report.reason = outcome.reason }
    }

    // MARK: - Going on, and going back

    @discardableResult
    private func resume(
        _ driver: CutoverDriver, _ ledger: Ledger, _ report: inout CutoverReport
    ) async throws(BridgeError) -> Bool {
        guard let attempt = ledger.attempt else {
            report.reason = "nothing to do: no attempt is left unfinished"
            return false
        }
        show("attempt \(attempt.id) (\(attempt.goal.rawValue)) is taken up")
        if let outcome = try await driver.resume() {
            take(outcome, attempt.goal, &report)
            // To be back where it was is what was to be had.
            if !outcome.succeeded {
                report.succeeded = true
                report.exitStatus = .done
            }
        }
        return true
    }

    private func rollBack(
        _ driver: CutoverDriver, _ ledger: Ledger, _ report: inout CutoverReport
    ) async throws(BridgeError) {
        var ledger = ledger
        if ledger.attempt != nil {
            try await resume(driver, ledger, &report)
            ledger = await driver.ledger
            // What went back is what was asked for.
            if let last = ledger.lastEnded, !last.succeeded || [.readsBack, .writesBack].contains(last.goal) { return }
        }
        let wanted = try stage.services(request)
        let written = wanted.filter { ledger.phases[$0] == .writesSwitched }
        let read = wanted.filter { ledger.phases[$0] == .readsSwitched }
        guard !written.isEmpty || !read.isEmpty else {
            report.reason = "nothing to do: reads and writes are on the source"
            return
        }
        try await attempt(written.isEmpty ? .readsBack : .writesBack, written.isEmpty ? read : written, driver, ledger, &report)
    }

    // MARK: - The end

    private func complete(
        _ driver: CutoverDriver, _ ledger: Ledger, _ report: inout CutoverReport
    ) async throws(BridgeError) {
        let services = stage.setup.services.map(\.name)
        var inputs = await stage.measure(.writesBack, services, ledger)
        inputs.window = nil
        let keeper = GateKeeper(limits: stage.setup.limits, goal: .writesBack, services: services)
        let gates = stage.completionGates(keeper.gates(inputs), ledger)
        guard judge(gates, &report) != nil else { return }
        try await takeDown(completed: true, driver, ledger, &report)
    }

    private func cancel(
        _ driver: CutoverDriver, _ ledger: Ledger, _ report: inout CutoverReport
    ) async throws(BridgeError) {
        var ledger = ledger
        if ledger.attempt != nil {
            try await resume(driver, ledger, &report)
            ledger = await driver.ledger
        }
        for (phase, goal) in [(ServicePhase.writesSwitched, Attempt.Goal.writesBack), (.readsSwitched, .readsBack)] {
            let services = stage.setup.services.map(\.name).filter { ledger.phases[$0] ?? .syncing == phase }
            guard !services.isEmpty else { continue }
            try await attempt(goal, services, driver, ledger, &report)
            guard report.succeeded else { return }
            ledger = await driver.ledger
        }
        try await takeDown(completed: false, driver, ledger, &report)
    }

    private func takeDown(
        completed: Bool, _ driver: CutoverDriver, _ ledger: Ledger, _ report: inout CutoverReport
    ) async throws(BridgeError) {
        await stage.links.stop()
        await driver.endRenewal()
        let steps = Mutex<[CutoverReport.StepLine]>([])
        let (show, lines) = (show, lines)
        try await Teardown(stage.setup, stage) { step, took in
            guard let took else { return }
            show(lines.step(step.rawValue, took))
            steps.withLock { $0.append(.init(name: step.rawValue, seconds: took / .seconds(1))) }
        }.run(completed: completed, ledger: ledger)
        report.steps += steps.withLock { $0 }
        report.succeeded = true
        report.exitStatus = .done
        report.ending = completed ? .completed : .cancelled
        report.deadLetterFiles = stage.migration.directory.deadLetterFiles
        report.reason = "\(completed ? "completed" : "cancelled"): nothing of the migration is left"
        guard completed, stage.setup.oldTables == .rename else { return }
        report.reason? += " but the old tables, now \(try stage.setup.renamedTables().map(\.newName).joined(separator: ", "))"
    }

    // MARK: - Dry runs

    /// Says what would be done, and asks the gates that can be asked without writing anything.
    private func plan(_ report: inout CutoverReport) async throws(BridgeError) {
        let standing = try await Standing.read(stage.setup)
        report.standing = standing
        let names: [String]
        switch verb {
        case .switchReads: names = Step.forReads.map(\.rawValue)
        case .rehearse: names = (Step.towardsCommit.filter { $0 != .commit } + Step.undoing).map(\.rawValue)
        case .switchWrites: names = (Step.towardsCommit + Step.afterCommit).map(\.rawValue)
        case .rollback:
            let isWritten = standing.phases.values.contains(.writesSwitched)
            names = (isWritten ? Step.towardsCommit + Step.afterCommit : [.publishRoutes, .resumeClients]).map(\.rawValue)
        case .resume:
            names = standing.attempt.map { ["the attempt \($0.goal.rawValue) goes back, unless its fence is for good"] } ?? []
        case .complete, .cancel: names = Teardown.steps(completed: verb == .complete, stage.setup.oldTables).map(\.rawValue)
        }
        report.steps = names.map { .init(name: $0, seconds: 0) }
        show("would do, in this order: \(names.joined(separator: ", "))")
        _ = judge(try await gatesAhead(standing), &report)
        report.nextSteps = Self.nextSteps(report)
    }

    /// Of what is left to do; none if nothing is.
    private func gatesAhead(_ standing: Standing) async throws(BridgeError) -> [Gate] {
        let ledger = standing.ledger
        // What is being taken down asks no gates any more.
        guard ledger.isClosing == nil else { return [] }
        let goal: Attempt.Goal
        var services = try stage.services(request)
        switch verb {
        case .switchReads: goal = .switchReads
        case .switchWrites: goal = .switchWrites
        case .rehearse: goal = .rehearse
        case .rollback: goal = services.contains { ledger.phases[$0] == .writesSwitched } ? .writesBack : .readsBack
        case .complete: return stage.completionGates(await stage.look(.beforeVerb, .writesBack, stage.setup.services.map(\.name), ledger), ledger)
        case .resume, .cancel: return []
        }
        if goal != .rehearse { services = Self.behind(services, goal, ledger) }
        return services.isEmpty ? [] : await stage.look(.beforeVerb, goal, services, ledger)
    }

    // MARK: - Words

    private static func line(_ event: CutoverEvent, _ lines: CutoverLines) -> String? {
        switch event {
        case .began, .started, .ended: nil
        case .done(let step, let took): lines.step(step.rawValue, took)
        case .failed(let step, let error): lines.failed(step.rawValue, error)
        case .waiting(let error, let limit): lines.waiting(error, limit)
        case .abort(let why): "going back: \(Printable.text(why))"
        }
    }

    static func nextSteps(_ report: CutoverReport) -> [String] {
        if report.ending != nil { return [] }
        guard let standing = report.standing else { return ["bridge cutover status"] }
        if standing.attempt != nil { return ["bridge cutover resume"] }
        switch standing.phases.values.min() {
        case nil, .syncing: return ["bridge check", "bridge cutover switch-reads"]
        case .readsSwitched: return ["bridge cutover rehearse", "bridge cutover switch-writes", "bridge cutover rollback"]
        case .writesSwitched: return ["bridge cutover complete", "bridge cutover rollback"]
        }
    }
}

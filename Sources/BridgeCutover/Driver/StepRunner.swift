package import BridgeCore

/// Carries out the steps of one attempt. Each is idempotent.
actor StepRunner {
    private let setup: CutoverSetup
    private let attempt: Attempt
    /// Of the side that the application leaves, and of the other; each table with its service.
    private let left: [TableName: String]
    private let entered: [TableName: String]
    private var check: (any FencedCheck)?
    /// When the pause must be over.
    private var deadline: ContinuousClock.Instant?
    private var hasSpreadRoutes = false

    private var from: any CutoverSession { setup.session(attempt.from) }
    private var to: any CutoverSession { setup.session(attempt.to) }
    private var leftTables: [TableName] { left.keys.sorted() }
    private var enteredTables: [TableName] { entered.keys.sorted() }

    init(_ setup: CutoverSetup, _ attempt: Attempt) {
        self.setup = setup
        self.attempt = attempt
        left = setup.tables(of: attempt.services, on: attempt.from)
        entered = setup.tables(of: attempt.services, on: attempt.to)
    }

    func close() async {
        await check?.close()
        check = nil
    }

    /// - Throws: whatever stopped it. What it had done by then is found by its next run, or undone by the attempt's way back.
    func perform(_ step: Step) async throws(BridgeError) {
        try Failpoint.beforeStep(step).hit()
        switch step {
        case .closeDestination: try await closeDestination()
        case .prepareReverse: try await prepareReverse()
        case .proveReverse: try await proveReverse()
        case .preadvanceSequences: try await advanceSequences()
        case .pauseClients: try await pauseClients()
        case .fence: try await raiseFence()
        case .drain: try await drain()
        case .checkFenced: try await finishCheck()
        case .setSequences: try await advanceSequences()
        case .commit: try await from.makePermanent(attempt: attempt.id, tables: leftTables, margin: setup.limits.fenceMargin)
        case .openDestination: try await to.removeFence(attempt: nil, through: attempt.epoch, tables: enteredTables)
        case .publishRoutes: try await publishRoutes()
        case .resumeClients: try await resumeClients()
        case .unfence: try await from.removeFence(attempt: attempt.id, tables: leftTables)
        case .restoreClients: try await runHook(.restoreClients, phase: phaseBefore)
        }
        try Failpoint.afterStep(step).hit()
    }

    // MARK: Before the pause

    private func closeDestination() async throws(BridgeError) {
        // Whoever closed it, it is closed.
        if case .permanent = try await to.fence(on: enteredTables) { return }
        let fence = Fence(attempt: attempt.id, tables: entered, epoch: attempt.epoch, lease: nil)
        try await to.raise(fence, patience: setup.limits.timeout)
    }

    private func prepareReverse() async throws(BridgeError) {
        // On the way back the way forward is there.
        if attempt.from == .source { try await setup.machinery.prepareReverse() }
        try await setup.machinery.waitUntilStreaming(setup.link(from: attempt.to).direction, patience: setup.limits.timeout)
    }

    private func proveReverse() async throws(BridgeError) {
        try await sendMarker("reverse", from: attempt.to, until: .now + setup.limits.timeout)
    }

    private func pauseClients() async throws(BridgeError) {
        let check = try await setup.machinery.openCheck(setup.link(from: attempt.from).direction, services: attempt.services)
        self.check = check
        try await check.prepare()
        try await check.refresh()
        try await runHook(.pauseClients, phase: phaseBefore)
    }

    // MARK: The pause

    private func raiseFence() async throws(BridgeError) {
        let fence = Fence(attempt: attempt.id, tables: left, epoch: attempt.epoch, lease: setup.limits.fenceLease)
        // Locks that are not to be had hold nobody up for long, and the pause has not begun.
        try await from.raise(fence, patience: setup.limits.maxPause)
        deadline = .now + setup.limits.maxPause
    }

    private func drain() async throws(BridgeError) { try await sendMarker("drain", from: attempt.from, until: pauseEnd) }

    private var pauseEnd: ContinuousClock.Instant { deadline ?? .now + setup.limits.maxPause }

    private func finishCheck() async throws(BridgeError) {
        guard let check else { throw BridgeError(.internalFault, "the check behind the fence was not prepared") }
        let left = pauseEnd - .now
        guard left > .zero else { throw Self.tooLong("the check behind the fence could not begin") }
        // It is closed once the pause is over: it writes down what it found then.
        try await check.finish(within: left)
    }

    /// What the side that is left has given out is given out by no sequence of the other.
    private func advanceSequences() async throws(BridgeError) {
        let sequences = try await from.sequences(of: leftTables)
        let targets = sequences.compactMap { sequence -> SequenceTarget? in
            guard let value = sequence.lastValue, let table = setup.counterpart(of: sequence.table, on: attempt.from) else { return nil }
            // Where rows are numbered unasked, or were numbered by the application before it came from there, the other
            // side need not number them.
            let isRequired = !sequence.isImplicit && attempt.goal != .writesBack
            return SequenceTarget(table: table, column: sequence.column, value: value, isRequired: isRequired)
        }
        if !targets.isEmpty { try await to.advance(targets) }
    }

    // MARK: Behind the point of no return

    /// Published where the application goes, they count; the rest follows from there.
    private func publishRoutes() async throws(BridgeError) {
        try await to.publish(routes)
        try await spreadRoutes()
    }

    private func resumeClients() async throws(BridgeError) {
        // The process that published them may not have come any further.
        if !hasSpreadRoutes { try await spreadRoutes() }
        try await runHook(.resumeClients, phase: attempt.phaseAfter)
        guard attempt.movesWriters else { return }
        // Clients do not wait for it, nor for a side that may be dead by now; without it the next check counts these writes as
        // others', and a full one passes over them.
        do throws(BridgeError) { try await setup.machinery.noteServed(setup.link(from: attempt.to).direction) } catch where error.retry != .never {}
    }

    /// Takes the routes into the file and to the side that was left, which may be dead by now: it gets them with the next
    /// attempt then, and `status` shows the difference. Of a service that did not move, the newer side's route counts.
    private func spreadRoutes() async throws(BridgeError) {
        var all = Dictionary(uniqueKeysWithValues: try await to.routes().map { ($0.service, $0) })
        do throws(BridgeError) {
            let newer = try await from.routes().filter { $0.epoch > all[$0.service]?.epoch ?? .min }
            for route in newer { all[route.service] = route }
            if !newer.isEmpty { try await to.publish(newer) }
        } catch where error.retry == .never { throw error } catch {}
        let newest = all.values.sorted { $0.service < $1.service }
        try await setup.machinery.publishFile(newest)
        let from = from
        do throws(BridgeError) { try await from.publish(newest) } catch where error.retry == .never { throw error } catch {}
        hasSpreadRoutes = true
    }

    var routes: [Route] {
        let phase = attempt.phaseAfter
        return attempt.services.map {
            Route(
                service: $0, reads: phase.reads.rawValue, writes: phase.writes.rawValue, epoch: attempt.epoch, publishedAt: .now)
        }
    }

    // MARK: Helpers

    private var phaseBefore: ServicePhase {
        switch attempt.goal {
        case .switchReads: .syncing
        case .readsBack, .switchWrites, .rehearse: .readsSwitched
        case .writesBack: .writesSwitched
        }
    }

    private func runHook(_ moment: HookMoment, phase: ServicePhase) async throws(BridgeError) {
        try await setup.machinery.runHook(
            moment,
            for: HookEvent(
                attempt: attempt.id, epoch: attempt.epoch, goal: attempt.goal, services: attempt.services, writes: phase.writes,
                reads: phase.reads))
    }

    /// Writes a marker on one side and waits until it has come to the other, with all that was written before it.
    private func sendMarker(
        _ name: String, from side: Side, until deadline: ContinuousClock.Instant
    ) async throws(BridgeError) {
        let link = setup.link(from: side)
        // Each run has one of its own: an older one proves nothing.
        let marker = "\(attempt.id) \(name) \(UInt64.random(in: .min ... .max))"
        try await setup.session(side).writeMarker(marker, link: link)
        let arrival = setup.session(side.other)
        while try await arrival.arrivedMarker(link) != marker {
            guard ContinuousClock.now < deadline else {
                throw Self.tooLong("what was written on the \(side.rawValue) has not all arrived on the \(side.other.rawValue)")
            }
            try? await Task.sleep(for: .milliseconds(2))
        }
    }

    private static func tooLong(_ what: String) -> BridgeError {
        BridgeError(
            .serverBusy, "\(what) in time",
            hint: "bridge status shows whether the links are at work and how far they are behind; allow more with --max-pause or --timeout")
    }
}

extension Failpoint {
    package static func beforeStep(_ step: Step) -> Failpoint { Failpoint("cutover.before-step-\(step.rawValue)") }
    /// The step is done, and the ledger does not tell of it yet.
    package static func afterStep(_ step: Step) -> Failpoint { Failpoint("cutover.after-step-\(step.rawValue)") }
}

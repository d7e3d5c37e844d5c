package import BridgeCore

/// Carries attempts out: asks ``CutoverMachine`` what is next, has it done, and writes it down.
package actor CutoverDriver {
    private let setup: CutoverSetup
    private let observe: @Sendable (CutoverEvent) -> Void
    private let machine = CutoverMachine()
    private let lease: OperatorLease
    private var writer: LedgerWriter
    private var isStopping = false

    /// - Parameter observe: told of everything as it happens.
    package init(_ setup: CutoverSetup, observe: @escaping @Sendable (CutoverEvent) -> Void) {
        self.setup = setup
        self.observe = observe
        lease = OperatorLease(setup.records, owner: setup.owner, isOwnerGone: setup.isOwnerGone)
        writer = LedgerWriter(Ledger(), setup.records, owner: setup.owner)
    }

    /// Asks for an end in good order: before the point of no return the attempt goes back, behind it this is not heard.
    package func stop() { isStopping = true }

    /// Takes the operator's lease and reads the ledger; ``close()`` gives it back.
    /// - Throws: `alreadyRunning`; `ledgerDiverged`.
    package func open() async throws(BridgeError) -> Ledger {
        try await lease.take()
        do throws(BridgeError) {
            writer = LedgerWriter(try Ledger(try await setup.records.ledger()), setup.records, owner: setup.owner)
        } catch {
            await lease.release()
            throw error
        }
        return await writer.ledger
    }

    package func close() async { await lease.release() }

    /// To be called before a teardown, which removes the lease with everything else.
    package func endRenewal() async { await lease.endRenewal() }

    /// As it stands now.
    package var ledger: Ledger { get async { await writer.ledger } }

    // MARK: - Attempts

    /// Begins an attempt and brings it to its end.
    /// - Parameters:
    ///   - services: all of them move, or none; not empty.
    ///   - overrides: gates that were shut and are passed by an operator's word.
    /// - Throws: `alreadyRunning` if another attempt has not ended.
    package func run(
        _ goal: Attempt.Goal, services: [String], overrides: [GateOverride] = []
    ) async throws(BridgeError) -> CutoverOutcome {
        let ledger = await writer.ledger
        if let other = ledger.attempt {
            throw BridgeError(
                .alreadyRunning, "the attempt \(other.id) (\(other.goal.rawValue)) has not ended",
                context: [.init(.migration, setup.migration)], hint: "bridge cutover resume finishes it")
        }
        let attempt = Attempt(id: Self.makeIdentifier(), goal: goal, services: services.sorted(), epoch: ledger.epoch + 1)
        try await writer.add(.begin(attempt), attempt: attempt.id)
        try Failpoint.cutoverBegun.hit()
        for override in overrides {
            try await writer.add(
                .overridden(gate: override.gate.name.rawValue, measured: override.gate.measured, reason: override.reason),
                attempt: attempt.id)
        }
        observe(.began(attempt))
        return try await drive(isOurs: true)
    }

    /// Brings an attempt that another process left behind to its end; nil if there is none.
    package func resume() async throws(BridgeError) -> CutoverOutcome? {
        guard let attempt = await writer.ledger.attempt else { return nil }
        observe(.began(attempt))
        return try await drive(isOurs: false)
    }

    private static func makeIdentifier() -> String { String(UInt64.random(in: .min ... .max), radix: 36) }

    // MARK: - The loop

    private struct Run {
        var attempt: Attempt
        var isOurs: Bool
        let runner: StepRunner
        var steps: [(step: Step, seconds: Double)] = []
        /// When the fence was asked for, and when the application could write again.
        var pauseBegan: ContinuousClock.Instant?
        var pauseEnded: ContinuousClock.Instant?
        var firstError: BridgeError?
        var lastFailure: (step: Step, message: String)?
        /// Seen when the pause began: nobody but this process changes it within the pause, and the point of no return
        /// looks for itself.
        var fenceHolds: ContinuousClock.Instant?
        /// Since when the attempt has been stuck at a step that cannot be undone.
        var stuckSince: ContinuousClock.Instant?
        /// What was said to be in the way since then.
        var obstacle: String?
        /// The last step that was done.
        var last: Step?
    }

    private func drive(isOurs: Bool) async throws(BridgeError) -> CutoverOutcome {
        guard let attempt = await writer.ledger.attempt else {
            throw BridgeError(.internalFault, "there is no attempt to carry out")
        }
        var run = Run(attempt: attempt, isOurs: isOurs, runner: StepRunner(setup, attempt))
        let result: Result<Bool, BridgeError>
        do throws(BridgeError) { result = .success(try await loop(&run)) } catch { result = .failure(error) }
        await run.runner.close()
        let succeeded = try result.get()
        observe(.ended(succeeded: succeeded))
        var pause: Duration?
        if let began = run.pauseBegan { pause = (run.pauseEnded ?? .now) - began }
        return CutoverOutcome(
            attempt: run.attempt, succeeded: succeeded, reason: run.attempt.aborting, error: run.firstError, pause: pause,
            steps: run.steps)
    }

    private func loop(_ run: inout Run) async throws(BridgeError) -> Bool {
        var failure: (step: Step, error: BridgeError)?
        while true {
            let seen: CutoverMachine.Observation
            do throws(BridgeError) { seen = try await observation(&run) } catch {
                try await waitOut(error, &run)
                continue
            }
            var decision = failure.map { machine.afterFailure(seen, Self.reason($0.step, $0.error)) } ?? machine.next(seen)
            if isStopping, run.attempt.aborting == nil, seen.fence != .permanent, case .perform = decision, !seen.isRouted {
                decision = .abort("it was stopped")
            }
            switch decision {
            case .perform(let step):
                if let failure, failure.step == step { try await waitOut(failure.error, &run) }
                // Done, and it changed nothing: somebody else's hand is in it.
                if failure == nil, run.last == step { try await waitOut(Self.withoutEffect(step), &run) }
                failure = nil
                do throws(BridgeError) { try await perform(step, &run) } catch {
                    failure = (step, error)
                    run.fenceHolds = nil
                    try await noteFailure(step, error, &run)
                }
            case .abort(let why):
                failure = nil
                run.fenceHolds = nil
                try await add(.abort(why), &run)
                observe(.abort(why))
            case .end(let succeeded):
                try await add(.end(succeeded: succeeded), &run)
                return succeeded
            }
        }
    }

    private static func withoutEffect(_ step: Step) -> BridgeError {
        BridgeError(
            .serverBusy, "the step \(step.rawValue) was done and has no effect", hint: "bridge cutover status shows what stands on the tables")
    }

    private static func reason(_ step: Step, _ error: BridgeError) -> String { "\(step.rawValue): \(error.message)" }

    private func perform(_ step: Step, _ run: inout Run) async throws(BridgeError) {
        observe(.started(step))
        let began = ContinuousClock.now
        if step == .fence { run.pauseBegan = began }
        // What the ledger must hold before there is no way back: the whole way here, by a process that has the lease.
        if step == .commit { try await writer.flush() }
        try await run.runner.perform(step)
        let took = ContinuousClock.now - began
        switch step {
        case .fence: run.fenceHolds = began + setup.limits.fenceLease
        case .commit: run.fenceHolds = nil
        case .openDestination where run.attempt.movesWriters, .unfence: run.pauseEnded = .now
        default: break
        }
        if run.last != step { (run.stuckSince, run.obstacle) = (nil, nil) }
        run.last = step
        run.lastFailure = nil
        run.attempt.done.insert(step)
        let seconds = Double(took / .microseconds(1)) / 1e6
        run.steps.append((step, seconds))
        observe(.done(step, took))
        let event = LedgerEvent.done(step, seconds: seconds)
        // Within the pause nobody waits for the record; the point of no return does.
        if Step.withinPause.contains(step) {
            try await writer.post(event, attempt: run.attempt.id)
        } else {
            try await add(event, &run)
        }
    }

    private func noteFailure(_ step: Step, _ error: BridgeError, _ run: inout Run) async throws(BridgeError) {
        if run.firstError == nil { run.firstError = error }
        // What is tried again and again is told once for as long as it stays the same.
        let isKnown = run.lastFailure.map { $0.step == step && $0.message == error.message } ?? false
        run.lastFailure = (step, error.message)
        // Locks that were not to be had stopped nobody.
        if step == .fence, error.code == .serverBusy { run.pauseBegan = nil }
        if !isKnown { observe(.failed(step, error)) }
        if [.leaseLost, .ledgerDiverged].contains(error.code) { try await lostLease(error, run) }
        guard !isKnown else { return }
        // That a step failed helps whoever reads the ledger; what is decided goes by the fence.
        try? await writer.add(.failed(step, message: error.message), attempt: run.attempt.id)
    }

    /// Somebody else has the lease now. What this process fenced is let go before it leaves, unless it is for good.
    private func lostLease(_ error: BridgeError, _ run: Run) async throws(BridgeError) -> Never {
        if run.attempt.movesWriters, run.attempt.done.contains(.fence) || run.pauseBegan != nil {
            let tables = setup.tables(of: run.attempt.services, on: run.attempt.from).keys.sorted()
            let session = setup.session(run.attempt.from)
            if case .leased(run.attempt.id, _) = try? await session.fence(on: tables) {
                try? await session.removeFence(attempt: run.attempt.id, tables: tables)
            }
        }
        throw error
    }

    /// Writes an entry that must be there before anything else is done, for as long as it may take.
    private func add(_ event: LedgerEvent, _ run: inout Run) async throws(BridgeError) {
        while true {
            do throws(BridgeError) {
                try await writer.add(event, attempt: run.attempt.id)
                run.attempt = await writer.ledger.attempt ?? run.attempt
                return
            } catch where [.leaseLost, .ledgerDiverged].contains(error.code) {
                // An entry that was written although its commit was not heard of is the last one now.
                try await writer.reread()
                if await isWritten(event, run.attempt.id) {
                    run.attempt = await writer.ledger.attempt ?? run.attempt
                    return
                }
                try await lostLease(error, run)
            } catch {
                try await waitOut(error, &run)
                try await writer.reread()
                if await isWritten(event, run.attempt.id) {
                    run.attempt = await writer.ledger.attempt ?? run.attempt
                    return
                }
            }
        }
    }

    private func isWritten(_ event: LedgerEvent, _ attempt: String) async -> Bool {
        guard let last = await writer.ledger.entries.last else { return false }
        return last.attempt == attempt && last.kind == event.kind.rawValue && last.content == event.content
    }

    /// What may pass is waited for, as long as the operator allows; then the attempt stays where it is, for `resume`.
    private func waitOut(_ error: BridgeError, _ run: inout Run) async throws(BridgeError) {
        let since = run.stuckSince ?? .now
        run.stuckSince = since
        guard ContinuousClock.now - since < setup.limits.timeout else { throw error }
        if run.obstacle != error.message {
            run.obstacle = error.message
            observe(.waiting(error, setup.limits.timeout))
        }
        try? await Task.sleep(for: .milliseconds(200))
    }

    // MARK: - Observation

    private func observation(_ run: inout Run) async throws(BridgeError) -> CutoverMachine.Observation {
        let attempt = run.attempt
        // Asked anew at each step, it would cost more than the steps of the pause do.
        if let until = run.fenceHolds, ContinuousClock.now < until, attempt.aborting == nil {
            return .init(attempt: attempt, fence: .leased, destination: .permanent, isOurs: run.isOurs, isRouted: false)
        }
        let left = setup.tables(of: attempt.services, on: attempt.from).keys.sorted()
        let entered = setup.tables(of: attempt.services, on: attempt.to).keys.sorted()
        // A switch of reads fences nothing on the side that is left.
        let fence: CutoverMachine.Observed = attempt.movesWriters ? try await leftFence(attempt, left) : .none
        let destination = try await setup.session(attempt.to).fence(on: entered)
        let routes = try await setup.session(attempt.to).routes()
        let isRouted = attempt.services.allSatisfy { name in
            routes.contains { $0.service == name && $0.epoch >= attempt.epoch }
        }
        return .init(
            attempt: attempt, fence: fence, destination: observed(destination, of: nil),
            isOurs: run.isOurs, isRouted: isRouted)
    }

    /// That the point of no return was passed is told by the ledger only where the fence cannot tell any more: its entry is
    /// written afterwards, so where it is, the fence was permanent.
    private func leftFence(_ attempt: Attempt, _ tables: [TableName]) async throws(BridgeError) -> CutoverMachine.Observed {
        let isCommitted = attempt.done.contains(.commit)
        do throws(BridgeError) {
            let state = try await setup.session(attempt.from).fence(on: tables)
            // A partition, an index or a bridge that is newer than the fence does not take the point of no return back.
            if isCommitted, case .mixed = state { return .permanent }
            if case .permanentAltered = state { return .permanent }
            return observed(state, of: attempt)
        } catch {
            guard isCommitted else { throw error }
            return .permanent
        }
    }

    /// - Parameter attempt: whose fence counts; nil for anybody's.
    private func observed(_ state: FenceState, of attempt: Attempt?) -> CutoverMachine.Observed {
        switch state {
        case .none: .none
        case .leased(let id, _): attempt == nil || attempt?.id == id ? .leased : .expired
        case .permanent(let id): attempt == nil || attempt?.id == id ? .permanent : .none
        // Removed and, where it is needed, raised anew.
        case .expired, .mixed, .permanentAltered: .expired
        }
    }
}

extension Step {
    /// While the application can write nowhere.
    static let withinPause: Set<Step> = [.fence, .drain, .checkFenced, .setSequences, .commit, .openDestination, .publishRoutes]
}

extension Failpoint {
    /// The intent is in the ledger; nothing was done.
    package static let cutoverBegun = Failpoint("cutover.begun")
}

/// Decides what is done next in an attempt. Pure: what it is told are the ledger and what the databases show; it does
/// nothing itself.
///
/// The rules that may not break:
/// - Before the point of no return every failure leads back; after it every failure leads forward. On which side of it an
///   attempt stands is what the *fence* says, never the ledger: the fence is changed in one transaction, and the ledger
///   only tells of it afterwards.
/// - The database that the application goes to is closed before the fence stands, and opened only when the other one is
///   closed for good.
/// - The point of no return is passed only while the fence stands, by the process that has seen the drain and the check
///   behind it. A process that takes an attempt over did not.
package struct CutoverMachine: Sendable {
    /// The rules as they are; tests break them one by one to see that the explorer notices.
    struct Rules: Sendable {
        var towardsCommit = Step.towardsCommit
        var afterCommit = Step.afterCommit
        /// Whether a process may go on with another one's attempt before the point of no return.
        var takesOver = false
        /// Whether a step behind the fence looks whether the fence still stands.
        var looksAtFence = true
        /// Whether the target is closed before the application reads from it.
        var closesForReads = true
    }

    var rules = Rules()

    package init() {}

    /// What the databases show of the fences.
    package enum Observed: Hashable, Sendable {
        case none
        /// Of this attempt; it stops writes for a while yet.
        case leased
        /// Of this attempt; it stops nobody any more.
        case expired
        case permanent
    }

    package struct Observation: Hashable, Sendable {
        package var attempt: Attempt
        /// On the side that the application leaves.
        package var fence: Observed
        /// On the side that it goes to.
        package var destination: Observed
        /// Whether this process began the attempt and has seen every step of it.
        package var isOurs: Bool
        /// Whether the routes of the attempt's epoch are published.
        package var isRouted: Bool

        package init(attempt: Attempt, fence: Observed, destination: Observed, isOurs: Bool, isRouted: Bool) {
            self.attempt = attempt
            self.fence = fence
            self.destination = destination
            self.isOurs = isOurs
            self.isRouted = isRouted
        }
    }

    package enum Decision: Hashable, Sendable {
        case perform(Step)
        /// Write into the ledger that, and why, the attempt goes back; then ask again.
        case abort(String)
        /// Write the attempt's end into the ledger.
        case end(succeeded: Bool)
    }

    package func next(_ seen: Observation) -> Decision {
        seen.attempt.movesWriters ? nextOfWriters(seen) : nextOfReads(seen)
    }

    /// A step failed. Whether the attempt goes back for it, or tries the step again.
    package func afterFailure(_ seen: Observation, _ why: String) -> Decision {
        guard seen.attempt.movesWriters else {
            return seen.isRouted ? next(seen) : .abort(why)
        }
        if seen.fence == .permanent || seen.attempt.aborting != nil { return next(seen) }
        return .abort(why)
    }

    // MARK: Writers

    private func nextOfWriters(_ seen: Observation) -> Decision {
        let attempt = seen.attempt
        // Whatever the ledger says: past the point of no return, forward.
        if seen.fence == .permanent { return forward(seen) }
        if attempt.aborting != nil { return back(seen) }
        guard seen.isOurs || rules.takesOver else { return .abort("the process that began it is gone") }
        let steps = rules.towardsCommit.filter { $0 != .commit || attempt.goal != .rehearse }
        guard let step = steps.first(where: { !attempt.done.contains($0) }) else {
            // Nothing left but going back; a commit that is done shows as a permanent fence.
            return .abort(attempt.goal == .rehearse ? "the rehearsal is over" : "the fence is not there any more")
        }
        let isFenced = attempt.done.contains(.fence)
        if isFenced, rules.looksAtFence, seen.fence != .leased { return .abort("the fence expired before the switch was done") }
        if attempt.done.contains(.closeDestination), seen.destination != .permanent {
            return .abort("the side that the application goes to is not closed any more")
        }
        return .perform(step)
    }

    private func forward(_ seen: Observation) -> Decision {
        for step in rules.afterCommit {
            let isDone =
                switch step {
                case .openDestination: seen.destination == .none
                case .publishRoutes: seen.isRouted
                default: seen.attempt.done.contains(step)
                }
            if !isDone { return .perform(step) }
        }
        return .end(succeeded: true)
    }

    private func back(_ seen: Observation) -> Decision {
        if seen.fence != .none { return .perform(.unfence) }
        // The hook may have held clients back although the step failed, or its process died before it was written down.
        if seen.attempt.done.contains(.preadvanceSequences), !seen.attempt.done.contains(.restoreClients) {
            return .perform(.restoreClients)
        }
        return .end(succeeded: false)
    }

    // MARK: Reads

    private func nextOfReads(_ seen: Observation) -> Decision {
        if seen.isRouted {
            return seen.attempt.done.contains(.resumeClients) ? .end(succeeded: true) : .perform(.resumeClients)
        }
        if seen.attempt.aborting != nil { return .end(succeeded: false) }
        guard seen.isOurs else { return .abort("the process that began it is gone") }
        // What is read from must not be written to by anybody but the applier.
        if rules.closesForReads, seen.attempt.goal == .switchReads, seen.destination != .permanent { return .perform(.closeDestination) }
        return .perform(.publishRoutes)
    }
}

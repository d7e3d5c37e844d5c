/// What one run of a verb set out to do, as the ledger has it.
package struct Attempt: Codable, Sendable, Hashable {
    package enum Goal: String, Codable, Sendable {
        case switchReads = "switch_reads"
        case readsBack = "reads_back"
        case switchWrites = "switch_writes"
        case writesBack = "writes_back"
        /// All of a switch of writes up to the check behind the fence, and back.
        case rehearse
    }

    /// A random name; fences and markers bear it.
    package var id: String
    package var goal: Goal
    /// All or none of them move.
    package var services: [String]
    /// The epoch of the routes that are published if it succeeds.
    package var epoch: Int64
    package var done: Set<Step> = []
    /// Why it goes back; nil while it goes forward.
    package var aborting: String?

    package init(id: String, goal: Goal, services: [String], epoch: Int64) {
        self.id = id
        self.goal = goal
        self.services = services
        self.epoch = epoch
    }

    /// The side that the application leaves with its writes.
    package var from: Side { goal == .writesBack ? .target : .source }
    package var to: Side { from.other }

    /// The phase of its services once it has succeeded, and while it has not.
    package var phaseAfter: ServicePhase {
        switch goal {
        case .switchReads, .writesBack: .readsSwitched
        case .readsBack: .syncing
        case .switchWrites: .writesSwitched
        case .rehearse: .readsSwitched
        }
    }

    var movesWriters: Bool { [.switchWrites, .writesBack, .rehearse].contains(goal) }
}

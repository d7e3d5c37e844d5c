@testable import BridgeCutover

/// Two databases, an application that writes wherever it may, two links, and a tool that may die at any moment.
struct World: Hashable {
    enum Fence: Hashable { case open, leased, expired, permanent }

    /// Where the tool stands. What it has seen is one state, what it does about it the next: all may happen in between.
    enum Tool: Hashable {
        case dead
        case idle(isOurs: Bool)
        case decided(CutoverMachine.Decision, isOurs: Bool)
        /// The step is done and the ledger does not say so yet.
        case did(Step, isOurs: Bool)
    }

    // What survives the tool.
    var phase = ServicePhase.syncing
    var attempt: Attempt?
    var attemptsLeft: Int
    var fences: [Side: Fence] = [.source: .open, .target: .open]
    var routed = Side.source
    var readsRouted = Side.source
    var reverseMade = false
    var reverseProven = false

    /// Acknowledged writes on a side that the other does not have.
    var unsynced: [Side: Bool] = [.source: false, .target: false]
    /// Whether a side was closed for good without the other having all of it.
    var lost = false
    var tool = Tool.dead

    func isOpen(_ side: Side) -> Bool { [.open, .expired].contains(fences[side, default: .open]) }
    mutating func set(_ side: Side, _ fence: Fence) { fences[side] = fence }
}

/// Rules of the world, which tests break one by one.
struct Physics {
    var machine = CutoverMachine()
    var leaseExpires = true
    /// Whether a drain waits for a marker; without, it ends when the positions look equal.
    var drainsByMarker = true
    /// Whether the fence looks at its expiry when it is made permanent.
    var commitLooksAtExpiry = true
    var goals: [Attempt.Goal] = [.switchReads, .readsBack, .switchWrites, .writesBack, .rehearse]
}

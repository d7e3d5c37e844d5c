/// One of the migration's two databases.
package enum Side: String, Codable, Sendable, CaseIterable {
    case source, target

    package var other: Side { self == .source ? .target : .source }
}

/// How far a service has moved.
package enum ServicePhase: String, Codable, Sendable, CaseIterable, Comparable {
    /// Reads and writes on the source.
    case syncing
    /// Reads on the target, writes on the source.
    case readsSwitched = "reads_switched"
    /// Reads and writes on the target.
    case writesSwitched = "writes_switched"

    private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }
    package static func < (a: ServicePhase, b: ServicePhase) -> Bool { a.rank < b.rank }

    /// Where the application writes.
    package var writes: Side { self == .writesSwitched ? .target : .source }
    package var reads: Side { self == .syncing ? .source : .target }
}

/// A step of an attempt. A step is idempotent: done again, it leaves what once would have left.
package enum Step: String, Codable, Sendable, CaseIterable {
    // While the application writes.
    /// Nobody but appliers writes to the database that the application goes to.
    case closeDestination = "close_destination"
    /// The way back is made: capture on the destination, records on the side that is left.
    case prepareReverse = "prepare_reverse"
    /// A marker came the way back.
    case proveReverse = "prove_reverse"
    case preadvanceSequences = "preadvance_sequences"
    /// Hooks hold clients back; the pause begins.
    case pauseClients = "pause_clients"
    // The pause.
    case fence
    /// A marker written behind the fence has been committed by the destination.
    case drain
    /// What changed since the last full check is equal.
    case checkFenced = "fence_check"
    case setSequences = "set_sequences"
    /// The point of no return: the fence loses its expiry.
    case commit
    // Only forward from here.
    case openDestination = "open_destination"
    case publishRoutes = "publish_routes"
    case resumeClients = "resume_clients"
    // Back to where it was.
    case unfence
    case restoreClients = "restore_clients"

    /// In the order of a switch of writes.
    package static let towardsCommit: [Step] = [
        .closeDestination, .prepareReverse, .proveReverse, .preadvanceSequences, .pauseClients, .fence, .drain,
        .checkFenced, .setSequences, .commit,
    ]
    package static let afterCommit: [Step] = [.openDestination, .publishRoutes, .resumeClients]
    package static let undoing: [Step] = [.unfence, .restoreClients]
    /// A switch of reads, or back, moves no writer.
    package static let forReads: [Step] = [.closeDestination, .publishRoutes, .resumeClients]
}

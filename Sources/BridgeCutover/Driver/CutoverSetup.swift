package import BridgeCore

/// All that an attempt is carried out with.
package struct CutoverSetup: Sendable {
    package var migration: String
    /// With the tables' full names.
    package var forward: LinkDescription
    package var reverse: LinkDescription
    package var services: [CutoverService]
    package var limits: CutoverLimits
    package var source: any CutoverSession
    package var target: any CutoverSession
    /// The ledger and the lease, which are in the target: a session of its own, so that no step waits for an entry.
    package var records: any CutoverSession
    package var machinery: any CutoverMachinery
    /// A name for the operator's lease, different for each process.
    package var owner: String
    /// Whether the process of another name has ended for certain: then its lease is over.
    package var isOwnerGone: @Sendable (String) -> Bool
    package var oldTables: OldTables

    package init(
        migration: String, forward: LinkDescription, reverse: LinkDescription, services: [CutoverService],
        limits: CutoverLimits, source: any CutoverSession, target: any CutoverSession, records: any CutoverSession,
        machinery: any CutoverMachinery, owner: String,
        isOwnerGone: @escaping @Sendable (String) -> Bool = { _ in false }, oldTables: OldTables = .leave
    ) {
        self.migration = migration
        self.forward = forward
        self.reverse = reverse
        self.services = services
        self.limits = limits
        self.source = source
        self.target = target
        self.records = records
        self.machinery = machinery
        self.owner = owner
        self.isOwnerGone = isOwnerGone
        self.oldTables = oldTables
    }

    func session(_ side: Side) -> any CutoverSession { side == .source ? source : target }

    /// The link that carries what is written on a side to the other.
    func link(from side: Side) -> LinkDescription { side == .source ? forward : reverse }

    /// The tables of some services on one side, each with its service.
    func tables(of names: [String], on side: Side) -> [TableName: String] {
        var tables: [TableName: String] = [:]
        for service in services where names.contains(service.name) {
            for mapping in service.tables { tables[side == .source ? mapping.source : mapping.target] = service.name }
        }
        return tables
    }

    /// The table on the other side; nil for a name that is none of the migration's.
    func counterpart(of table: TableName, on side: Side) -> TableName? {
        for mapping in services.lazy.flatMap(\.tables) {
            if side == .source, mapping.source == table { return mapping.target }
            if side == .target, mapping.target == table { return mapping.source }
        }
        return nil
    }
}

/// What becomes of the source's tables when a migration is completed. None is ever dropped.
package enum OldTables: String, Sendable, CaseIterable {
    case leave
    /// Each gets a name that tells of the migration; see ``OldTable``.
    case rename
}

/// Tables that move together.
package struct CutoverService: Hashable, Sendable {
    package var name: String
    /// From source to target, with full names.
    package var tables: [TableMapping]

    package init(name: String, tables: [TableMapping]) {
        self.name = name
        self.tables = tables
    }
}

/// How long things may take.
package struct CutoverLimits: Hashable, Sendable {
    package var maxLag: Duration = .seconds(2)
    /// Of the pause: what is not done by then goes back.
    package var maxPause: Duration = .seconds(2)
    /// For everything that happens while the application writes, and after the point of no return.
    package var timeout: Duration = .seconds(60)
    /// A check that is older opens no gate.
    package var maxCheckAge: Duration = .seconds(15 * 60)
    /// A transaction that is open for longer on the side that is left would hold the fence up.
    package var maxTransactionAge: Duration = .seconds(5)

    package init() {}

    /// How long a fence holds without anybody's help: the pause, and time for its process to remove it in good order.
    var fenceLease: Duration { maxPause + .seconds(2) }
    /// What must be left of it at the point of no return.
    var fenceMargin: Duration { .milliseconds(500) }
}

/// What the driver needs done by the rest of the product.
package protocol CutoverMachinery: Sendable {
    /// Makes the way back, or finds it made: see ``Step/prepareReverse``.
    func prepareReverse() async throws(BridgeError)
    /// Returns once the link in that direction is at work.
    func waitUntilStreaming(_ direction: LinkDescription.Direction, patience: Duration) async throws(BridgeError)
    /// The check of what one direction carries; nothing is done before ``FencedCheck/prepare()``.
    func openCheck(_ direction: LinkDescription.Direction, services: [String]) async throws(BridgeError) -> any FencedCheck
    /// The target of that link served the application until now, and is closed: what the application wrote there was no
    /// intruder's work.
    func noteServed(_ direction: LinkDescription.Direction) async throws(BridgeError)
    /// Runs the operator's command for a moment of the switch; nothing if there is none.
    /// - Throws: `hookFailed`.
    func runHook(_ moment: HookMoment, for event: HookEvent) async throws(BridgeError)
    /// Replaces the routing file.
    func publishFile(_ routes: [Route]) async throws(BridgeError)
}

/// A check that is prepared while the application writes, and finished behind the fence.
package protocol FencedCheck: Sendable {
    /// Looks at what changed since the last full check, and stays ready.
    func prepare() async throws(BridgeError)
    /// The same once more, so that little is left.
    func refresh() async throws(BridgeError)
    /// Behind the fence, once everything has arrived.
    /// - Throws: `inconsistent` or `inconclusive`, with why, unless both sides are proven to be the same.
    func finish(within limit: Duration) async throws(BridgeError)
    /// Lets go of everything. After ``finish(within:)``, or without it.
    func close() async
}

package enum HookMoment: String, Sendable, CaseIterable {
    /// Before the fence: clients are held back.
    case pauseClients = "pause_clients"
    /// After the routes were published: clients are let go to where these say.
    case resumeClients = "resume_clients"
    /// The attempt goes back: clients are let go where they were.
    case restoreClients = "restore_clients"
}

/// What a hook is told.
package struct HookEvent: Hashable, Sendable {
    package var attempt: String
    package var epoch: Int64
    package var goal: Attempt.Goal
    package var services: [String]
    /// Where the application writes when the hook has ended, if all goes well.
    package var writes: Side
    package var reads: Side
}

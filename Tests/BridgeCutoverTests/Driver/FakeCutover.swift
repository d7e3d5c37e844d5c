import BridgeCore
import BridgeCutover
import Synchronization

/// Two databases in memory, as far as a cutover sees them. What a dead process asks of them is refused.
final class FakeWorld: Sendable {
    struct Database {
        /// By table: whose fence it is, and until when; nil for good.
        var fences: [TableName: (attempt: String, until: ContinuousClock.Instant?)] = [:]
        var routes: [String: Route] = [:]
        var markers: [String: String] = [:]
        var sequence: Int64 = 0
        /// Whether a column draws from it, and whether it does so unasked.
        var isNumbered = true
        var isImplicit = false
        var ledger: [LedgerEntry] = []
        var holder: String?
        /// New names by old tables, and new names that somebody else's tables have.
        var renamed: [TableName: String] = [:]
        var taken: Set<String> = []
    }
    struct State {
        var databases: [Side: Database] = [.source: Database(), .target: Database()]
        /// What was asked, in order.
        var calls: [String] = []
        /// The number of calls after which the process is dead.
        var deathAfter: Int?
        /// Calls that fail, how often, and with what.
        var faults: [String: (times: Int, error: BridgeError)] = [:]
        var hasReverse = false
        var isCheckClean = true
        var file: [Route] = []
        /// Both sides could be written to at some moment at which the application may have known of both.
        var violations: [String] = []
    }
    let state = Mutex(State())

    static let killed = BridgeError(.connectionLost, "the process is dead")

    /// Takes note of a call, and fails it if that was planned.
    func call(_ name: String) throws(BridgeError) {
        let error: BridgeError? = state.withLock { state in
            if let limit = state.deathAfter, state.calls.count >= limit { return Self.killed }
            state.calls.append(name)
            guard let fault = state.faults[name], fault.times > 0 else { return nil }
            state.faults[name]?.times -= 1
            return fault.error
        }
        if let error { throw error }
    }

    func isOpen(_ side: Side) -> Bool {
        state.withLock { state in
            state.databases[side]?.fences.values.allSatisfy { fence in fence.until.map { $0 <= .now } ?? false } ?? false
        }
    }

    func session(_ side: Side) -> FakeSession { FakeSession(world: self, side: side) }
}

final class FakeSession: CutoverSession {
    let world: FakeWorld
    let side: Side

    init(world: FakeWorld, side: Side) {
        self.world = world
        self.side = side
    }

    private func change<Value: Sendable>(
        _ name: String, _ body: (inout FakeWorld.Database) throws(BridgeError) -> sending Value
    ) throws(BridgeError) -> Value {
        try world.call("\(side.rawValue).\(name)")
        let result: Result<Value, BridgeError> = world.state.withLock { state in
            do throws(BridgeError) { return .success(try body(&state.databases[side, default: .init()])) } catch { return .failure(error) }
        }
        return try result.get()
    }

    func fence(on tables: [TableName]) throws(BridgeError) -> FenceState {
        try change("fence") { database in
            let found = tables.compactMap { database.fences[$0] }
            guard let first = found.first else { return .none }
            guard found.count == tables.count, found.allSatisfy({ $0.attempt == first.attempt }) else { return .mixed("") }
            guard let until = first.until else { return .permanent(attempt: first.attempt) }
            return until > .now ? .leased(attempt: first.attempt, remaining: until - .now) : .expired(attempt: first.attempt)
        }
    }

    func raise(_ fence: Fence, patience: Duration) throws(BridgeError) {
        try change("raise") { (database) throws(BridgeError) in
            for table in fence.tables.keys {
                if let other = database.fences[table], other.attempt != fence.attempt, other.until != nil || fence.lease != nil { throw BridgeError(.fenceForeign, "another fence") }
                database.fences[table] = (fence.attempt, fence.lease.map { .now + $0 })
            }
        }
    }

    func makePermanent(attempt: String, tables: [TableName], margin: Duration) throws(BridgeError) {
        try change("makePermanent") { (database) throws(BridgeError) in
            for table in tables {
                guard let fence = database.fences[table], fence.attempt == attempt, fence.until.map({ $0 - margin > .now }) ?? true
                else { throw BridgeError(.fenceExpired, "the fence has expired") }
            }
            for table in tables { database.fences[table] = (attempt, nil) }
        }
    }

    func removeFence(attempt: String?, through epoch: Int64?, tables: [TableName]) throws(BridgeError) {
        try change("removeFence") { database in
            for table in tables {
                guard let fence = database.fences[table] else { continue }
                // One that is for good goes only where whatever there is goes.
                if attempt == nil || fence.attempt == attempt && fence.until != nil { database.fences[table] = nil }
            }
        }
        if world.isOpen(.source), world.isOpen(.target), !tables.isEmpty {
            // Legal only before the target was ever closed.
            world.state.withLock { $0.violations.append("both sides are open after \(side) was opened") }
        }
    }

    func writeMarker(_ marker: String, link: LinkDescription) throws(BridgeError) {
        try change("writeMarker") { _ in }
        world.state.withLock { $0.databases[side == .source ? .target : .source]?.markers[link.name] = marker }
    }

    func arrivedMarker(_ link: LinkDescription) throws(BridgeError) -> String? {
        try change("arrivedMarker") { database in database.markers[link.name] }
    }

    func sequences(of tables: [TableName]) throws(BridgeError) -> [CutoverSequence] {
        try change("sequences") { database in
            tables.prefix(database.isNumbered ? 1 : 0).map {
                CutoverSequence(
                    table: $0, column: "id", name: "s", lastValue: database.sequence, increment: 1, isImplicit: database.isImplicit)
            }
        }
    }

    func advance(_ sequences: [SequenceTarget]) throws(BridgeError) -> [SequenceTarget] {
        try change("advance") { (database) throws(BridgeError) in
            guard database.isNumbered else {
                guard !sequences.contains(where: \.isRequired) else { throw BridgeError(.targetTableMismatch, "no sequence") }
                return []
            }
            for target in sequences { database.sequence = max(database.sequence, target.value) }
            return sequences
        }
    }

    func facts(of tables: [TableName]) throws(BridgeError) -> CutoverFacts { try change("facts") { _ in CutoverFacts() } }
    func schemaFingerprints(of tables: [TableName]) throws(BridgeError) -> [TableName: String] {
        try change("schemaFingerprints") { _ in Dictionary(uniqueKeysWithValues: tables.map { ($0, "as made") }) }
    }

    func takeLease(owner: String, lasting: Duration) throws(BridgeError) {
        try change("takeLease") { database in database.holder = owner }
    }
    func releaseLease(owner: String) throws(BridgeError) {
        try change("releaseLease") { database in if database.holder == owner { database.holder = nil } }
    }

    func append(_ entry: LedgerEntry, owner: String) throws(BridgeError) {
        try change("append") { (database) throws(BridgeError) in
            guard database.holder == owner else { throw BridgeError(.leaseLost, "the lease is another's") }
            guard entry.number == Int64(database.ledger.count) + 1 else { throw BridgeError(.ledgerDiverged, "a gap") }
            database.ledger.append(entry)
        }
    }
    func ledger() throws(BridgeError) -> [LedgerEntry] { try change("ledger") { $0.ledger } }

    func publish(_ routes: [Route]) throws(BridgeError) {
        try change("publish") { database in
            for route in routes where route.epoch > database.routes[route.service]?.epoch ?? 0 { database.routes[route.service] = route }
        }
    }
    func routes() throws(BridgeError) -> [Route] { try change("routes") { Array($0.routes.values) } }
    func removeAll() throws(BridgeError) {
        try change("removeAll") { database in
            let (renamed, taken) = (database.renamed, database.taken)
            database = .init()
            (database.renamed, database.taken) = (renamed, taken)
        }
    }
    func close() {}

    func rename(_ tables: [OldTable], isTrial: Bool) throws(BridgeError) {
        try change(isTrial ? "tryRename" : "rename") { (database) throws(BridgeError) in
            for old in tables {
                let (isFenced, name) = (database.fences[old.table].map { $0.until == nil } ?? false, database.renamed[old.table])
                let sight = OldTable.Sight(
                    isFenced: isFenced && name == nil, isRenamed: isFenced && name != nil,
                    isTaken: name != nil || database.taken.contains(old.newName))
                if try old.isToBeRenamed(sight, isTrial: isTrial), !isTrial { database.renamed[old.table] = old.newName }
            }
        }
    }
}

struct FakeMachinery: CutoverMachinery {
    let world: FakeWorld

    func prepareReverse() throws(BridgeError) {
        try world.call("prepareReverse")
        world.state.withLock { $0.hasReverse = true }
    }
    func waitUntilStreaming(_ direction: LinkDescription.Direction, patience: Duration) throws(BridgeError) {
        try world.call("waitUntilStreaming.\(direction.rawValue)")
        guard direction == .forward || world.state.withLock({ $0.hasReverse }) else {
            throw BridgeError(.serverBusy, "there is no reverse link")
        }
    }
    func openCheck(_ direction: LinkDescription.Direction, services: [String]) throws(BridgeError) -> any FencedCheck {
        try world.call("openCheck.\(direction.rawValue)")
        return FakeCheck(world: world)
    }
    func noteServed(_ direction: LinkDescription.Direction) throws(BridgeError) { try world.call("noteServed.\(direction.rawValue)") }
    func runHook(_ moment: HookMoment, for event: HookEvent) throws(BridgeError) { try world.call("hook.\(moment.rawValue)") }
    func publishFile(_ routes: [Route]) throws(BridgeError) {
        try world.call("publishFile")
        world.state.withLock { $0.file = routes }
    }
}

struct FakeCheck: FencedCheck {
    let world: FakeWorld

    func prepare() throws(BridgeError) { try world.call("check.prepare") }
    func refresh() throws(BridgeError) { try world.call("check.refresh") }
    func finish(within limit: Duration) throws(BridgeError) {
        try world.call("check.finish")
        guard world.state.withLock({ $0.isCheckClean }) else { throw BridgeError(.inconsistent, "1 row differs") }
    }
    func close() {}
}

extension CutoverSetup {
    /// Two services of one table each.
    static func fake(_ world: FakeWorld, owner: String = "first", timeout: Duration = .seconds(5)) -> CutoverSetup {
        let services = ["orders", "users"].map { name in
            CutoverService(
                name: name,
                tables: [TableMapping(source: TableName(schema: "old", name: name), target: TableName(schema: "new", name: name))])
        }
        let forward = LinkDescription(
            migration: "shop", direction: .forward, mappings: services.flatMap(\.tables), form: .native)
        var limits = CutoverLimits()
        limits.timeout = timeout
        return CutoverSetup(
            migration: "shop", forward: forward, reverse: forward.reversed, services: services, limits: limits,
            source: world.session(.source), target: world.session(.target), records: world.session(.target),
            machinery: FakeMachinery(world: world), owner: owner)
    }
}

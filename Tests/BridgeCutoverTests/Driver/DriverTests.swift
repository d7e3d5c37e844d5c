import BridgeCore
import Synchronization
import Testing

@testable import BridgeCutover

@Suite struct DriverTests {
    private static let all = ["orders", "users"]

    /// Brings a fresh world to where an attempt of this goal begins.
    private static func prepared(for goal: Attempt.Goal) async throws -> FakeWorld {
        let world = FakeWorld()
        world.state.withLock { state in
            state.databases[.source]?.sequence = 100
            // The target is closed from the switch of reads on.
            if goal != .switchReads {
                for name in all { state.databases[.target]?.fences[TableName(schema: "new", name: name)] = ("before", nil) }
            }
        }
        let earlier: [Attempt.Goal] =
            switch goal {
            case .switchReads: []
            case .readsBack, .switchWrites, .rehearse: [.switchReads]
            case .writesBack: [.switchReads, .switchWrites]
            }
        for goal in earlier { #expect(try await attempt(goal, in: world).succeeded) }
        world.state.withLock {
            $0.calls = []
            $0.violations = []
        }
        return world
    }

    @discardableResult
    private static func attempt(
        _ goal: Attempt.Goal, in world: FakeWorld, owner: String = "first", timeout: Duration = .seconds(5)
    ) async throws -> CutoverOutcome {
        let driver = CutoverDriver(.fake(world, owner: owner, timeout: timeout)) { _ in }
        _ = try await driver.open()
        let result: Result<CutoverOutcome, any Error>
        do { result = .success(try await driver.run(goal, services: all)) } catch { result = .failure(error) }
        await driver.close()
        return try result.get()
    }

    private static func phases(_ world: FakeWorld) throws -> [String: ServicePhase] {
        try Ledger(world.state.withLock { $0.databases[.target]?.ledger ?? [] }).phases
    }

    /// What must hold whenever no attempt is under way.
    private static func expectSettled(
        _ world: FakeWorld, _ note: String, location: SourceLocation = #_sourceLocation
    ) throws {
        let ledger = try Ledger(world.state.withLock { $0.databases[.target]?.ledger ?? [] })
        #expect(ledger.attempt == nil, "\(note)", sourceLocation: location)
        let phase = ledger.phases["orders"] ?? .syncing
        #expect(ledger.phases["users"] ?? .syncing == phase, "\(note)", sourceLocation: location)
        #expect(world.isOpen(phase.writes), "\(note): the application cannot write at \(phase)", sourceLocation: location)
        if phase != .syncing {
            #expect(!world.isOpen(phase.writes.other), "\(note): both sides are open", sourceLocation: location)
            for side in Side.allCases {
                let routes = world.state.withLock { $0.databases[side]?.routes ?? [:] }
                #expect(routes["orders"]?.writes == phase.writes.rawValue, "\(note) \(side)", sourceLocation: location)
                #expect(routes["users"]?.reads == phase.reads.rawValue, "\(note) \(side)", sourceLocation: location)
            }
        }
        #expect(world.state.withLock { $0.violations } == [], "\(note)", sourceLocation: location)
    }

    @Test("C12 C15 C17 C19 a switch of writes does every step in its order, and writes each of them down")
    func switchOfWrites() async throws {
        let world = try await Self.prepared(for: .switchWrites)
        let outcome = try await Self.attempt(.switchWrites, in: world)
        #expect(outcome.succeeded && outcome.pause != nil && outcome.error == nil)
        #expect(outcome.steps.map(\.step) == Step.towardsCommit + Step.afterCommit)
        let entries = world.state.withLock { $0.databases[.target]?.ledger ?? [] }
        let events = entries.filter { $0.attempt == outcome.attempt.id }.compactMap { LedgerEvent(kind: $0.kind, content: $0.content) }
        #expect(events.first == .begin(outcome.attempt.begun))
        #expect(events.compactMap { if case .done(let step, _) = $0 { step } else { nil } } == Step.towardsCommit + Step.afterCommit)
        #expect(events.last == .end(succeeded: true))
        let state = world.state.withLock { $0 }
        #expect(state.databases[.target]?.sequence == 100)
        #expect(state.file.map(\.writes) == ["target", "target"])
        // The check was made ready before the fence, and the way back was tried.
        let calls = state.calls
        let fence = try #require(calls.firstIndex(of: "source.raise"))
        for early in ["prepareReverse", "target.writeMarker", "check.prepare", "check.refresh", "hook.pause_clients"] {
            #expect(try #require(calls.firstIndex(of: early)) < fence, "\(early)")
        }
        try Self.expectSettled(world, "switched")
    }

    @Test(
        "C13 C17 where rows are numbered unasked the other side need not number them, nor where the application comes back to",
        arguments: [true, false])
    func sequenceOnOneSide(_ isImplicit: Bool) async throws {
        let world = try await Self.prepared(for: .switchWrites)
        world.state.withLock {
            $0.databases[.source]?.isImplicit = isImplicit
            $0.databases[.target]?.isNumbered = false
        }
        #expect(try await Self.attempt(.switchWrites, in: world).succeeded == isImplicit)
        let back = try await Self.prepared(for: .writesBack)
        back.state.withLock {
            $0.databases[.source]?.isNumbered = false
            $0.databases[.target]?.isImplicit = isImplicit
        }
        #expect(try await Self.attempt(.writesBack, in: back).succeeded)
    }

    @Test("C13 there and back again, any number of times")
    func forthAndBack() async throws {
        let world = try await Self.prepared(for: .switchWrites)
        for _ in 0..<3 {
            #expect(try await Self.attempt(.switchWrites, in: world).succeeded)
            try Self.expectSettled(world, "forth")
            #expect(try await Self.attempt(.writesBack, in: world).succeeded)
            try Self.expectSettled(world, "back")
            #expect(try Self.phases(world)["orders"] == .readsSwitched)
        }
        #expect(try await Self.attempt(.readsBack, in: world).succeeded)
        #expect(try Self.phases(world)["users"] == .syncing)
        #expect(try await Self.attempt(.switchReads, in: world).succeeded)
        try Self.expectSettled(world, "reads")
    }

    @Test("C16 a rehearsal goes as far as the check behind the fence, and leaves everything as it was")
    func rehearsal() async throws {
        let world = try await Self.prepared(for: .rehearse)
        let before = try Self.phases(world)
        let outcome = try await Self.attempt(.rehearse, in: world)
        #expect(!outcome.succeeded && outcome.error == nil && outcome.pause != nil)
        #expect(outcome.attempt.done.contains(.checkFenced) && !outcome.attempt.done.contains(.commit))
        #expect(try Self.phases(world) == before)
        #expect(world.isOpen(.source) && !world.isOpen(.target))
    }

    @Test(
        "C13 a step that fails before the point of no return leads back to where it was",
        arguments: [
            "prepareReverse", "waitUntilStreaming.reverse", "target.writeMarker", "source.sequences", "target.advance",
            "openCheck.forward", "check.prepare", "check.refresh", "hook.pause_clients", "source.raise", "source.writeMarker",
            "check.finish", "source.makePermanent",
        ])
    func failureBefore(_ call: String) async throws {
        let world = try await Self.prepared(for: .switchWrites)
        world.state.withLock { $0.faults[call] = (1, BridgeError(.serverRefused, "planned")) }
        let outcome = try await Self.attempt(.switchWrites, in: world)
        #expect(!outcome.succeeded && outcome.error?.message == "planned")
        #expect(try Self.phases(world)["orders"] == .readsSwitched)
        try Self.expectSettled(world, call)
        // What may hold clients back, also if it failed, lets them go.
        let calls = world.state.withLock { $0.calls }
        let mayBePaused = [
            "openCheck.forward", "check.prepare", "check.refresh", "hook.pause_clients", "source.raise", "source.writeMarker",
            "check.finish", "source.makePermanent",
        ].contains(call)
        #expect(calls.contains("hook.restore_clients") == mayBePaused)
        #expect(try await Self.attempt(.switchWrites, in: world).succeeded, "and again")
        try Self.expectSettled(world, "again after \(call)")
    }

    @Test(
        "C13 C15 a step that fails behind the point of no return is tried until it is done",
        arguments: ["target.removeFence", "target.publish", "publishFile", "hook.resume_clients"])
    func failureAfter(_ call: String) async throws {
        let world = try await Self.prepared(for: .switchWrites)
        world.state.withLock { $0.faults[call] = (3, BridgeError(.hookFailed, "planned")) }
        let outcome = try await Self.attempt(.switchWrites, in: world)
        #expect(outcome.succeeded)
        #expect(world.state.withLock { $0.calls }.filter { $0 == call }.count == 4)
        try Self.expectSettled(world, call)
    }

    @Test(
        "C19 whatever is waited for, a step, a look or the ledger, is said once, with how long it may take",
        arguments: ["target.publish", "target.routes", "target.append"])
    func waiting(_ call: String) async throws {
        let world = try await Self.prepared(for: .switchWrites)
        let said = Mutex<[String]>([])
        let driver = CutoverDriver(.fake(world)) { event in
            switch event {
            case .began: world.state.withLock { $0.faults[call] = (3, BridgeError(.connectionLost, "planned")) }
            case .waiting(let error, let limit): said.withLock { $0.append("\(error.message), \(limit == .seconds(5))") }
            default: break
            }
        }
        _ = try await driver.open()
        let outcome = try await driver.run(.switchWrites, services: Self.all)
        await driver.close()
        #expect(outcome.succeeded)
        #expect(said.withLock { $0 } == ["planned, true"])
        try Self.expectSettled(world, call)
    }

    @Test("C13 a check behind the fence that finds a difference lets the source serve on")
    func difference() async throws {
        let world = try await Self.prepared(for: .switchWrites)
        world.state.withLock { $0.isCheckClean = false }
        let outcome = try await Self.attempt(.switchWrites, in: world)
        #expect(!outcome.succeeded && outcome.error?.code == .inconsistent)
        try Self.expectSettled(world, "different")
    }

    @Test(
        "C20 C25 killed at any call, run again, an attempt is finished or undone, and the next one works",
        arguments: [Attempt.Goal.switchReads, .readsBack, .switchWrites, .writesBack, .rehearse])
    func killed(_ goal: Attempt.Goal) async throws {
        let reference = try await Self.prepared(for: goal)
        try await Self.attempt(goal, in: reference)
        let total = reference.state.withLock { $0.calls.count }
        #expect(total > 5)
        for moment in 0...total {
            let world = try await Self.prepared(for: goal)
            let before = try Self.phases(world)
            world.state.withLock { $0.deathAfter = moment }
            _ = try? await Self.attempt(goal, in: world, timeout: .zero)
            world.state.withLock { $0.deathAfter = nil }
            // Its lease has run out.
            let driver = CutoverDriver(.fake(world, owner: "second")) { _ in }
            _ = try await driver.open()
            let outcome = try await driver.resume()
            await driver.close()
            try Self.expectSettled(world, "\(goal) killed at \(moment) of \(total)")
            if outcome?.succeeded == false, goal != .rehearse { #expect(try Self.phases(world) == before) }
            if try Self.phases(world) == before, goal != .rehearse {
                #expect(try await Self.attempt(goal, in: world).succeeded, "\(goal) killed at \(moment), then again")
                try Self.expectSettled(world, "\(goal) killed at \(moment), then again")
            }
        }
    }

    @Test("C20 a lease that is lost takes the fence down, and nothing is written into the ledger any more")
    func leaseLost() async throws {
        let world = try await Self.prepared(for: .switchWrites)
        let thief = Mutex(false)
        let driver = CutoverDriver(.fake(world)) { event in
            if case .done(.fence, _) = event, !thief.withLock({ $0 }) {
                thief.withLock { $0 = true }
                world.state.withLock { $0.databases[.target]?.holder = "thief" }
            }
        }
        _ = try await driver.open()
        await #expect(throws: BridgeError.self) { try await driver.run(.switchWrites, services: Self.all) }
        #expect(world.isOpen(.source) && !world.isOpen(.target))
        let ledger = try Ledger(world.state.withLock { $0.databases[.target]?.ledger ?? [] })
        #expect(ledger.attempt?.done.contains(.fence) == false)
    }

    @Test("C20 an attempt that was stopped goes back; behind the point of no return it goes on")
    func stopped() async throws {
        for (step, succeeds) in [(Step.prepareReverse, false), (.drain, false), (.commit, true)] {
            let world = try await Self.prepared(for: .switchWrites)
            let box = Mutex<CutoverDriver?>(nil)
            let stopping = Mutex<[Task<Void, Never>]>([])
            let driver = CutoverDriver(.fake(world)) { event in
                guard case .started(step) = event, let driver = box.withLock({ $0 }) else { return }
                stopping.withLock { $0.append(Task { await driver.stop() }) }
            }
            box.withLock { $0 = driver }
            _ = try await driver.open()
            let outcome = try await driver.run(.switchWrites, services: Self.all)
            await driver.close()
            box.withLock { $0 = nil }
            #expect(outcome.succeeded == succeeds, "\(step)")
            try Self.expectSettled(world, "stopped at \(step)")
        }
    }
}

extension Attempt {
    /// As it was when it was begun.
    var begun: Attempt {
        var attempt = self
        attempt.done = []
        attempt.aborting = nil
        return attempt
    }
}

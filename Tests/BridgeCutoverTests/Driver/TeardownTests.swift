import BridgeCore
import Synchronization
import Testing

@testable import BridgeCutover

@Suite struct TeardownTests {
    private static let renamed = ["old.orders": "orders_before_shop", "old.users": "users_before_shop"]

    /// A migration whose services write to the target.
    private static func switched() async throws -> FakeWorld {
        let world = FakeWorld()
        for goal in [Attempt.Goal.switchReads, .switchWrites] {
            let driver = CutoverDriver(.fake(world)) { _ in }
            _ = try await driver.open()
            let outcome = try await driver.run(goal, services: ["orders", "users"])
            await driver.close()
            #expect(outcome.succeeded)
        }
        world.state.withLock { $0.calls = [] }
        return world
    }

    private static func ledger(_ world: FakeWorld) throws -> Ledger {
        try Ledger(world.state.withLock { $0.databases[.target]?.ledger ?? [] })
    }

    /// - Returns: the steps that were done.
    @discardableResult
    private static func end(_ world: FakeWorld, _ oldTables: OldTables, completed: Bool = true) async throws -> [Teardown.Step] {
        var setup = CutoverSetup.fake(world)
        setup.oldTables = oldTables
        // Nobody uses a capture here.
        setup.limits.timeout = .zero
        let ledger = try ledger(world)
        if !ledger.entries.isEmpty || !completed { try await setup.records.takeLease(owner: setup.owner, lasting: .seconds(30)) }
        let done = Mutex<[Teardown.Step]>([])
        try await Teardown(setup, FakeParts(world: world)) { step, took in
            if took != nil { done.withLock { $0.append(step) } }
        }.run(completed: completed, ledger: ledger.entries.isEmpty && completed ? nil : ledger)
        return done.withLock { $0 }
    }

    private static func names(_ world: FakeWorld, _ side: Side = .source) -> [String: String] {
        let renamed = world.state.withLock { $0.databases[side]?.renamed ?? [:] }
        return Dictionary(uniqueKeysWithValues: renamed.map { ($0.key.description, $0.value) })
    }

    @Test("C23 old tables are renamed where it is asked for, behind the captures and before the fence goes")
    func order() async throws {
        let world = try await Self.switched()
        #expect(try await Self.end(world, .rename) == Teardown.Step.allCases)
        #expect(Self.names(world) == Self.renamed)
        #expect(Self.names(world, .target).isEmpty)
        let calls = world.state.withLock { $0.calls }
        let places = try ["source.tryRename", "parts.archive", "parts.removeCapture.reverse", "source.rename", "source.removeAll", "target.removeAll"]
            .map { try #require(calls.firstIndex(of: $0), "\($0)") }
        #expect(places == places.sorted(), "\(calls)")
        #expect(calls.filter { $0 == "source.rename" }.count == 1)
    }

    @Test("C23 old tables are left where it is not asked for, and where a migration is cancelled", arguments: [(OldTables.leave, true), (.leave, false), (.rename, false)])
    func left(_ oldTables: OldTables, _ completed: Bool) async throws {
        let world = completed ? try await Self.switched() : FakeWorld()
        #expect(try await Self.end(world, oldTables, completed: completed) == Teardown.Step.allCases.filter { $0 != .renameOldTables })
        #expect(Self.names(world).isEmpty)
        #expect(!world.state.withLock { $0.calls }.contains { $0.lowercased().hasSuffix("rename") })
    }

    @Test("C23 a new name that is taken is refused before anything is done, and nothing has to be finished")
    func taken() async throws {
        let world = try await Self.switched()
        world.state.withLock { _ = $0.databases[.source]?.taken.insert("users_before_shop") }
        await #expect { try await Self.end(world, .rename) } throws: { ($0 as? BridgeError)?.code == .configurationInvalid }
        #expect(try Self.ledger(world).isClosing == nil)
        #expect(!world.state.withLock { $0.calls }.contains { $0.hasPrefix("parts.") })
        world.state.withLock { $0.databases[.source]?.taken = [] }
        try await Self.end(world, .rename)
        #expect(Self.names(world) == Self.renamed)
    }

    @Test("C23 C25 killed after any call, the end is finished by the next run, and old tables are renamed once")
    func killed() async throws {
        var calls = 0
        while true {
            let world = try await Self.switched()
            world.state.withLock { $0.deathAfter = calls }
            let died: Bool
            do {
                try await Self.end(world, .rename)
                died = false
            } catch { died = true }
            world.state.withLock { $0.deathAfter = nil }
            try await Self.end(world, .rename)
            #expect(Self.names(world) == Self.renamed, "after \(calls) calls")
            #expect(try Self.ledger(world).entries.isEmpty, "after \(calls) calls")
            if !died { break }
            calls += 1
        }
        #expect(calls > 8)
    }

    @Test("C23 a new name tells table and migration, and fits into 63 bytes")
    func newNames() throws {
        func name(_ table: String, _ migration: String) -> String { OldTable(TableName(schema: "s", name: table), migration: migration).newName }
        #expect(name("users", "shop-users") == "users_before_shop_users")
        let migration = "m" + String(repeating: "-x", count: 19) + "y"
        #expect(migration.utf8.count == 40)
        #expect(name("exactly_fifteen", migration).hasPrefix("exactly_fifteen_before_m_x"))
        let long = ["exactly_sixteen1", "exactly_sixteen2", String(repeating: "ü", count: 31)].map { name($0, migration) }
        #expect(Set(long).count == 3)
        #expect(long.allSatisfy { $0.utf8.count <= 63 && $0.hasSuffix("_before_m" + String(repeating: "_x", count: 19) + "y") })
        #expect(long[0].hasPrefix("exactl_") && long[2].hasPrefix("üüü_"))
        #expect(name("Exactly_Sixteen1", migration).lowercased() == long[0])
        let twice = ["exactly_Sixteen1", "exactly_sixteen1"].map { TableName(name: $0) }
        #expect(throws: BridgeError.self) { try OldTable.all(twice, migration: migration) }
    }
}

private struct FakeParts: TeardownParts {
    let world: FakeWorld

    func archive(_ entries: [LedgerEntry], completed: Bool) throws(BridgeError) { try world.call("parts.archive") }
    func removeLink(_ direction: LinkDescription.Direction) throws(BridgeError) { try world.call("parts.removeLink.\(direction.rawValue)") }
    func removeCapture(_ direction: LinkDescription.Direction) throws(BridgeError) {
        try world.call("parts.removeCapture.\(direction.rawValue)")
    }
    func removeFiles() throws(BridgeError) { try world.call("parts.removeFiles") }
}

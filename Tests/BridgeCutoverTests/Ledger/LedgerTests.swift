import BridgeCore
import Testing

@testable import BridgeCutover

@Suite struct LedgerTests {
    private static func attempt(_ id: String, _ goal: Attempt.Goal, epoch: Int64) -> Attempt {
        Attempt(id: id, goal: goal, services: ["users", "orders"], epoch: epoch)
    }

    /// A ledger of two attempts, one of which went back, and one that is under way.
    private static func make() throws -> Ledger {
        var ledger = Ledger()
        func add(_ event: LedgerEvent, _ id: String) throws { try ledger.append(ledger.entry(event, attempt: id)) }
        try add(.begin(attempt("a", .switchReads, epoch: 1)), "a")
        try add(.done(.closeDestination, seconds: 0.25), "a")
        try add(.done(.publishRoutes, seconds: 0.5), "a")
        try add(.end(succeeded: true), "a")
        try add(.repaired(table: "public.users", rows: 3), "")
        try add(.begin(attempt("b", .switchWrites, epoch: 2)), "b")
        try add(.overridden(gate: "lag", measured: "3 s", reason: "maintenance night"), "b")
        try add(.done(.closeDestination, seconds: 1), "b")
        try add(.failed(.prepareReverse, message: "the server does not answer"), "b")
        try add(.abort("prepare_reverse failed"), "b")
        try add(.end(succeeded: false), "b")
        try add(.begin(attempt("c", .switchWrites, epoch: 3)), "c")
        try add(.done(.closeDestination, seconds: 1), "c")
        return ledger
    }

    @Test("C19 phases, the attempt under way and the epoch are what the entries say")
    func fold() throws {
        let ledger = try Ledger(try Self.make().entries)
        #expect(ledger.phases == ["users": .readsSwitched, "orders": .readsSwitched])
        #expect(ledger.attempt?.id == "c" && ledger.attempt?.done == [.closeDestination] && ledger.attempt?.aborting == nil)
        #expect(ledger.epoch == 3)
    }

    @Test("C19 an entry that was changed, left out, doubled, put in or moved is found")
    func chain() throws {
        let entries = try Self.make().entries
        func isFound(_ changed: [LedgerEntry]) -> Bool {
            do throws(BridgeError) { _ = try Ledger(changed) } catch { return error.code == .ledgerDiverged }
            return false
        }
        #expect(!isFound(entries))
        for index in entries.indices {
            for change in 0..<6 {
                var changed = entries
                switch change {
                case 0: changed[index].number += 1
                case 1: changed[index].writtenAt = Timestamp(microseconds: entries[index].writtenAt.microseconds + 1)
                case 2: changed[index].attempt += "x"
                case 3: changed[index].kind = "end"
                case 4: changed[index].content = changed[index].content.replacing("1", with: "2") + " "
                default: changed[index].checksum = String(changed[index].checksum.reversed())
                }
                if changed != entries { #expect(isFound(changed), "\(index) \(change)") }
            }
            var shorter = entries
            shorter.remove(at: index)
            // Without its last entries it is a ledger of before: only the databases can tell.
            #expect(isFound(shorter) == (index != entries.count - 1), "\(index)")
            var longer = entries
            longer.insert(entries[index], at: index)
            #expect(isFound(longer), "\(index)")
        }
    }

    @Test("C20 one attempt at a time, with an epoch of its own, and nothing of an attempt that is not under way")
    func order() throws {
        let ledger = try Self.make()
        for (event, id) in [
            (LedgerEvent.begin(Self.attempt("d", .rehearse, epoch: 4)), "d"), (.done(.fence, seconds: 1), "b"),
            (.end(succeeded: true), "a"), (.abort("x"), "d"),
        ] {
            var next = ledger
            #expect(throws: BridgeError.self, "\(event)") { try next.append(next.entry(event, attempt: id)) }
        }
        var ended = ledger
        try ended.append(ended.entry(.end(succeeded: false), attempt: "c"))
        #expect(throws: BridgeError.self) {
            try ended.append(ended.entry(.begin(Self.attempt("d", .rehearse, epoch: 3)), attempt: "d"))
        }
    }
}

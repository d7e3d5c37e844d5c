import BridgeConformance
import BridgeConsistency
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Testing

private let rows = #"""
    BEGIN;
    INSERT INTO accounts VALUES (1, 'a', 10, NULL), (2, 'b', -9223372036854775808, ''), (3, 'c', NULL, 'tab\#there'),
      (4, 'd', 9223372036854775807, 'back\slash'), (5, 'e', 0, 'ünï ''quoted'' "x"');
    INSERT INTO items(a, b, price) VALUES (1, 'x', 0.1), (1, 'y', -1.5e300), (2, '', 5e-324), (3, ' ', NULL);
    INSERT INTO "Order ""x""" VALUES ('k', 1, NULL), ('K', 2, 'v'), ('', 3, 'w');
    COMMIT;
    """#

@Suite("Checks between real databases", .serialized)
struct CheckTests {
    @Test("K20 equal sides are consistent, with all six validations and obligations; so are empty ones", arguments: Pair.wanted)
    func consistent(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair)
        try await checked.whileSyncing { _ in
            let empty = try await checked.check()
            #expect(empty.verdict == .consistent, "\(empty.summary)")
            try await checked.source.execute(rows)
            for mode in [CheckReport.Mode.full, .incremental, .sample, .fence] {
                let report = try await checked.check(mode)
                #expect(report.verdict == .consistent, "\(mode): \(report.summary)")
                #expect(report.gate.isOpen == (mode != .sample), "\(mode): \(report.gate.reasons)")
                #expect(report.validations.count == 6)
            }
        }
    }

    @Test("K6 K12 each planted fault is named by kind, key and columns", arguments: Pair.wanted)
    func faults(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair)
        try await checked.source.execute(rows)
        try await checked.whileSyncing { _ in
            let before = try await checked.check()
            #expect(before.verdict == .consistent, "\(before.summary)")
            try await checked.target.plant("UPDATE accounts SET balance = 11 WHERE id = 1")
            try await checked.target.plant("DELETE FROM accounts WHERE id = 2")
            try await checked.target.plant("INSERT INTO accounts VALUES (77, 'extra', 0, NULL)")
            try await checked.target.plant("UPDATE items SET b = 'x ' WHERE b = 'x'")
            try await checked.target.plant(#"UPDATE "Order ""x""" SET data = '' WHERE "select" = 'k'"#)
            let report = try await checked.check()
            #expect(report.verdict == .inconsistent)
            #expect(!report.gate.isOpen)
            let accounts = try checked.table(report, "accounts")
            #expect([accounts.mismatched, accounts.sourceOnly, accounts.targetOnly] == [1, 1, 1], "\(report.summary)")
            let different = try #require(accounts.samples.first { $0.kind == .different })
            #expect(different.key == ["id": "1"])
            #expect(different.columns == ["balance"])
            #expect(accounts.samples.first { $0.kind == .missing }?.key == ["id": "2"])
            #expect(accounts.samples.first { $0.kind == .extra }?.key == ["id": "77"])
            #expect(different.sourceValues == nil && different.targetValues == nil)
            let items = try checked.table(report, "items")
            #expect([items.mismatched, items.sourceOnly, items.targetOnly] == [0, 1, 1], "\(report.summary)")
            let odd = try checked.table(report, #"x""#)
            #expect(odd.samples.first?.columns == ["data"], "\(report.summary)")
            // A later, incremental check still knows.
            let later = try await checked.check(.incremental)
            #expect(later.verdict == .inconsistent, "\(later.summary)")
            try await checked.target.plant("UPDATE accounts SET balance = 10 WHERE id = 1")
            let healed = try await checked.check(.incremental)
            #expect(try checked.table(healed, "accounts").mismatched == 0, "\(healed.summary)")
        }
    }

    @Test("K13 K14 only what was touched since is looked at, and a fault in it is found", arguments: Pair.wanted)
    func incremental(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair)
        try await checked.source.execute(rows)
        try await checked.whileSyncing { runner in
            let first = try await checked.check()
            #expect(first.verdict == .consistent, "\(first.summary)")
            try await checked.source.execute(
                "BEGIN; UPDATE accounts SET id = 40 WHERE id = 4; UPDATE accounts SET note = 'n' WHERE id = 5; COMMIT;")
            let (source, target) = (checked.source, checked.target)
            try await waitUntil { try await source.rows(.accounts) == target.rows(.accounts) }
            let clean = try await checked.check(.incremental)
            #expect(clean.verdict == .consistent, "\(clean.summary)")
            try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'm' WHERE id = 40; COMMIT;")
            try await waitUntil { try await source.rows(.accounts) == target.rows(.accounts) }
            try await checked.target.plant("UPDATE accounts SET note = 'other' WHERE id = 40")
            let found = try await checked.check(.fence)
            #expect(found.verdict == .inconsistent, "\(found.summary)")
            #expect(try checked.table(found, "accounts").samples.map(\.key) == [["id": "40"]])
        }
    }

    @Test("K16 a write to the target by somebody else shuts the gate, and a row it changed is named", arguments: Pair.wanted)
    func foreign(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair)
        try await checked.source.execute(rows)
        try await checked.whileSyncing { _ in
            let first = try await checked.check()
            #expect(first.verdict == .consistent && first.gate.isOpen, "\(first.summary)")
            try await checked.target.execute("BEGIN; UPDATE accounts SET note = 'mine' WHERE id = 3; COMMIT;")
            let found = try await checked.check(.incremental)
            #expect(found.verdict == .inconsistent, "\(found.summary)")
            #expect(try checked.table(found, "accounts").samples.map(\.key) == [["id": "3"]])
            #expect(found.gate.reasons.contains { $0.contains("by others than bridge") })
            // Put back as it was, the rows are equal; that somebody writes there is reason enough to stay shut.
            try await checked.target.execute("BEGIN; UPDATE accounts SET note = 'tab\there' WHERE id = 3; COMMIT;")
            let back = try await checked.check(.incremental)
            #expect(back.verdict == .consistent, "\(back.summary)")
            #expect(!back.gate.isOpen)
            let full = try await checked.check()
            #expect(full.verdict == .consistent && full.gate.isOpen, "\(full.summary)")
        }
    }
}

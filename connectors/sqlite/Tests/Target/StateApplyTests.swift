import BridgeCore
import BridgeSQLite
import BridgeTestSupport
import GRDB
import Testing

/// Changes of sources that log keys: final states, in the order of keys.
@Suite struct StateApplyTests {
    static let relation = sqliteRelation(3, "items", ["id*:INTEGER", "code:TEXT", "n:"])
    static let table = "CREATE TABLE items(id INTEGER PRIMARY KEY, code TEXT UNIQUE, n, extra TEXT DEFAULT 'none')"

    private func apply(_ applier: any ChangeApplier, _ commit: UInt64, _ body: (BatchWriter) -> Void) async throws {
        try await applier.apply(BatchWriter([Self.relation]).transaction(commit, body).batch())
    }

    @Test("S12 upserts and removes with unique values that change places lose no row and no value of the target's own")
    func uniqueSwap() async throws {
        let fixture = try TargetFixture(Self.table)
        let applier = try await fixture.applier([Self.relation])
        try await apply(applier, 10) { writer in
            writer.upsert(3, [1, "a", 1.5])
            writer.upsert(3, [2, "b", nil])
            writer.upsert(3, [3, "c", .blob([0, 255])])
        }
        try fixture.execute("UPDATE items SET extra = 'mine ' || id")
        try await apply(applier, 11) { writer in
            writer.upsert(3, [1, "b", 1])
            writer.upsert(3, [2, "a", 2])
            writer.upsert(3, [4, "c", 4])
            writer.remove(3, [3, .absent, .absent])
            writer.remove(3, [99, .absent, .absent])
            writer.upsert(3, [1, "b", 11])
        }
        #expect(
            try fixture.rows("SELECT * FROM items ORDER BY id") == [
                "i:1|t:b|i:11|t:mine 1", "i:2|t:a|i:2|t:mine 2", "i:4|t:c|i:4|t:none",
            ])
        await applier.close()
    }

    @Test("P31 a unique value that another hand put into the target is a conflict")
    func foreignRow() async throws {
        let fixture = try TargetFixture(Self.table)
        let applier = try await fixture.applier([Self.relation])
        try fixture.execute("INSERT INTO items(id, code) VALUES(50, 'taken')")
        let error = await failure { try await apply(applier, 10) { $0.upsert(3, [1, "taken", 1]) } }
        #expect(error?.code == .conflict)
        #expect(error?.value(.table) == "items")
        #expect(try fixture.rows("SELECT id FROM items") == ["i:50"])
        await applier.close()
    }

    @Test("S10 a transaction older than the copy passes rows of the copy that are ahead of it")
    func olderThanCopy() async throws {
        let fixture = try TargetFixture(Self.table)
        let link = fixture.link([Self.relation])
        // The copy saw the rows at 30: by then they had changed places.
        _ = try await fixture.target.prepareLink(link)
        try await fixture.target.recordOrigin(
            link, CaptureOrigin(identity: [:], position: Position(commit: 1)))
        let load = try await fixture.target.openLoad(
            link, mapping: link.mappings[0], columns: Self.relation.columns, format: .rows)
        try await load.write(chunk([[1, "y", 1], [2, "x", 1]]))
        try await load.finish(position: Position(commit: 30), rows: 2)
        try await fixture.target.finishCopy(link)
        let applier = try await fixture.target.openApplier(link)
        // At 10 row 1 had the value that row 2 has in the copy.
        try await apply(applier, 10) { $0.upsert(3, [1, "x", 0]) }
        try await apply(applier, 20) { writer in
            writer.upsert(3, [1, "y", 1])
            writer.upsert(3, [2, "x", 1])
        }
        #expect(try fixture.rows("SELECT id, code, n FROM items ORDER BY id") == ["i:1|t:y|i:1", "i:2|t:x|i:1"])
        await applier.close()
    }

    @Test("S12 keys that SQLite calls equal and that are other bytes are told apart")
    func equalKeys() async throws {
        let relation = sqliteRelation(3, "keys", ["k*:", "name*:TEXT", "v:TEXT"])
        let fixture = try TargetFixture(
            "CREATE TABLE keys(k, name TEXT COLLATE NOCASE, v TEXT, PRIMARY KEY(k, name)) WITHOUT ROWID")
        let applier = try await fixture.applier([relation])
        func run(_ commit: UInt64, _ body: (BatchWriter) -> Void) async throws {
            try await applier.apply(BatchWriter([relation]).transaction(commit, body).batch())
        }
        try await run(10) { writer in
            writer.upsert(3, [1, "a", "one"])
            writer.upsert(3, [2.5, "b", "two"])
        }
        // The key changed its case and 1 became 1.0: the new key is there, then the old one is not.
        try await run(11) { writer in
            writer.upsert(3, [1.0, "A", "changed"])
            writer.remove(3, [1, "a", .absent])
        }
        #expect(
            try fixture.rows("SELECT * FROM keys ORDER BY k") == [
                "r:3ff0000000000000|t:A|t:changed", "r:4004000000000000|t:b|t:two",
            ])
        try await run(12) { writer in
            writer.remove(3, [2.5, "B", .absent])
            writer.remove(3, [1.0, "A", .absent])
        }
        #expect(try fixture.rows("SELECT v FROM keys") == ["t:two"])
        await applier.close()
    }

    @Test("S16 values of every storage class arrive as they are")
    func values() async throws {
        let relation = sqliteRelation(3, "v", ["id*:INTEGER", "a:", "i:INTEGER", "r:REAL", "t:TEXT", "n:DECIMAL(10,2)", "u:UUID"])
        let fixture = try TargetFixture(
            "CREATE TABLE v(id INTEGER PRIMARY KEY, a, i INTEGER, r REAL, t TEXT, n DECIMAL(10,2), u UUID)")
        let applier = try await fixture.applier([relation])
        let rows: [[Value]] = [
            [1, .integer(.min), .integer(.max), .real(.infinity), "", 1, 2],
            [2, .real(-0.0), .real(2.5), .real(.leastNonzeroMagnitude), .bytes([0x61, 0, 0xFF]), 1.25, "not a number"],
            [3, .blob([]), .integer(9_007_199_254_740_993), .real(-.infinity), .blob([1]), "abc", .blob([2])],
            [4, "007", nil, .real(1e300), "1.10", nil, nil],
        ]
        try await applier.apply(
            BatchWriter([relation]).transaction(10) { writer in for row in rows { writer.upsert(3, row) } }.batch())
        #expect(
            try fixture.rows("SELECT a, i, r, hex(t), typeof(t), n, u FROM v ORDER BY id") == [
                "i:-9223372036854775808|i:9223372036854775807|r:7ff0000000000000|t:|t:text|i:1|i:2",
                "r:8000000000000000|r:4004000000000000|r:1|t:6100FF|t:text|r:3ff4000000000000|t:not a number",
                "x:|i:9007199254740993|r:fff0000000000000|t:01|t:blob|t:abc|x:2",
                "t:007|null|r:7e37e43c8800759c|t:312E3130|t:text|null|null",
            ])
        await applier.close()
    }
}

import BridgeCore
import BridgeSQLite
import BridgeTestSupport
import GRDB
import Testing

@Suite struct LoadTests {
    static let relation = postgresRelation(7, "users", ["id*:bigint", "email:text"])
    static let table = "CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT, note TEXT DEFAULT 'n')"

    private func prepared(_ fixture: TargetFixture) async throws -> LinkDescription {
        let link = fixture.link([Self.relation])
        let state = try await fixture.target.prepareLink(link)
        #expect(state.phase == .preparing)
        #expect(try await fixture.target.prepareLink(link) == state)
        try await fixture.target.recordOrigin(
            link, CaptureOrigin(identity: ["slot": "s", "system": "1"], position: Position(commit: 5)))
        return link
    }

    private func open(_ fixture: TargetFixture, _ link: LinkDescription) async throws -> any TableLoad {
        try await fixture.target.openLoad(
            link, mapping: link.mappings[0], columns: Self.relation.columns, format: .rows)
    }

    @Test("P20 chunks are loaded, and the table is recorded as done with its position and rows")
    func load() async throws {
        let fixture = try TargetFixture(Self.table)
        let link = try await prepared(fixture)
        #expect(try await fixture.target.linkState(link)?.tables[Self.relation.name]?.state == .pending)
        let load = try await open(fixture, link)
        try await load.write(chunk([[1, "a"], [2, nil]]))
        #expect(try await fixture.target.linkState(link)?.tables[Self.relation.name]?.state == .loading)
        try await load.write(chunk([[3, "c"]]))
        try await load.finish(position: Position(commit: 9), rows: 3)
        let state = try await fixture.target.linkState(link)
        #expect(state?.tables[Self.relation.name] == .init(state: .done, position: Position(commit: 9), rows: 3))
        #expect(try fixture.rows("SELECT * FROM users") == ["i:1|t:a|t:n", "i:2|null|t:n", "i:3|t:c|t:n"])
        try await fixture.target.finishCopy(link)
        let synced = try await fixture.target.linkState(link)
        #expect(synced?.phase == .syncing)
        #expect(synced?.checkpoint?.position == Position(commit: 5))
        #expect(synced?.checkpoint?.frontier == Position(commit: 5))
    }

    @Test("P20 an unfinished load is removed before the next, rows of others never are")
    func restart() async throws {
        let fixture = try TargetFixture(Self.table)
        let link = try await prepared(fixture)
        let first = try await open(fixture, link)
        try await first.write(chunk([[1, "a"], [2, "b"]]))
        await first.cancel()
        #expect(try fixture.rows("SELECT count(*) FROM users") == ["i:2"])
        let second = try await open(fixture, link)
        #expect(try fixture.rows("SELECT count(*) FROM users") == ["i:0"])
        try await second.write(chunk([[9, "z"]]))
        try await second.finish(position: .zero, rows: 1)
        #expect(await failure { _ = try await open(fixture, link) }?.code == .internalFault)

        let filled = try TargetFixture(Self.table + "; INSERT INTO users(id) VALUES(77)")
        let other = try await prepared(filled)
        let error = await failure { _ = try await open(filled, other) }
        #expect(error?.code == .targetTableNotEmpty)
        #expect(try filled.rows("SELECT id FROM users") == ["i:77"])
        // The load that did not begin keeps no lock.
        let next = SQLiteTarget(path: filled.path)
        #expect(await failure { _ = try await open(filled, next, other) }?.code == .targetTableNotEmpty)
        #expect(try await filled.target.linkState(other)?.tables[Self.relation.name]?.state == .pending)
    }

    @Test("R1 a load whose rows do not add up, a damaged chunk and an early end are errors")
    func brokenLoads() async throws {
        let fixture = try TargetFixture(Self.table)
        let link = try await prepared(fixture)
        #expect(await failure { try await fixture.target.finishCopy(link) }?.code == .internalFault)
        let load = try await open(fixture, link)
        try await load.write(chunk([[1, "a"]]))
        #expect(await failure { try await load.finish(position: .zero, rows: 2) }?.code == .internalFault)
        let whole = chunk([[2, "bcd"]])
        for length in 1..<whole.count {
            let cut = RecordBuffer()
            cut.append(UnsafeRawBufferPointer(rebasing: whole.bytes[..<length]))
            let load = try await open(fixture, link)
            #expect(await failure { try await load.write(cut) }?.code == .recordMalformed, "cut at \(length)")
            await load.cancel()
        }
        #expect(try fixture.rows("SELECT count(*) FROM users") == ["i:0"])
        await load.cancel()
    }

    @Test("R1 while a process loads, another is told so; removing the link leaves no trace of it")
    func lockAndRemoval() async throws {
        let fixture = try TargetFixture(Self.table)
        let link = try await prepared(fixture)
        let load = try await open(fixture, link)
        let other = SQLiteTarget(path: fixture.path)
        #expect(await failure { _ = try await open(fixture, other, link) }?.code == .alreadyRunning)
        await load.cancel()
        try await fixture.target.removeLink(link)
        try await fixture.target.removeLink(link)
        #expect(try await fixture.target.linkState(link) == nil)
        #expect(try fixture.rows("SELECT name FROM sqlite_master") == ["t:users"])
    }

    private func open(_: TargetFixture, _ target: SQLiteTarget, _ link: LinkDescription) async throws -> any TableLoad {
        try await target.openLoad(link, mapping: link.mappings[0], columns: Self.relation.columns, format: .rows)
    }
}

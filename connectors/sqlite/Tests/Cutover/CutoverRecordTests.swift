import BridgeCore
import BridgeTestSupport
import GRDB
import Testing

@testable import BridgeSQLite

@Suite("SQLite cutover: lease, ledger, routes")
struct CutoverRecordTests {
    static let schema = "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b); INSERT INTO t(b) VALUES(1);"

    static func entry(_ number: Int64, _ kind: String = "begin") -> LedgerEntry {
        LedgerEntry(
            number: number, writtenAt: Timestamp(microseconds: 1_700_000_000_000_001 + number), attempt: "first", kind: kind,
            content: "{\"it's\":\"\(number)\"}", checksum: "c\(number)")
    }

    @Test("C20 one operator at a time: a lease keeps others out until it ends or is given back")
    func lease() async throws {
        let fixture = try await CutoverFixture(Self.schema)
        let other = try await fixture.another()
        try await fixture.session.takeLease(owner: "host a, process 1", lasting: .seconds(60))
        try await fixture.session.takeLease(owner: "host a, process 1", lasting: .seconds(60))
        var error = await failure { try await other.takeLease(owner: "b", lasting: .seconds(60)) }
        #expect(error?.code == .alreadyRunning && error?.value(.processes) == "host a, process 1")
        // Another migration has a lease of its own, and what is not one's own is not given back.
        try await fixture.another(migration: "other").takeLease(owner: "b", lasting: .seconds(60))
        try await other.releaseLease(owner: "b")
        error = await failure { try await other.takeLease(owner: "b", lasting: .seconds(60)) }
        #expect(error?.code == .alreadyRunning)
        try await fixture.session.releaseLease(owner: "host a, process 1")
        try await other.takeLease(owner: "b", lasting: .milliseconds(1))
        try await waitUntil("the lease's end") {
            await failure { try await fixture.session.takeLease(owner: "a", lasting: .seconds(60)) } == nil
        }
        await fixture.close()
    }

    @Test("C19 the ledger takes entries in their order, from the lease's owner only")
    func ledger() async throws {
        let fixture = try await CutoverFixture(Self.schema)
        #expect(try await fixture.session.ledger().isEmpty)
        var error = await failure { try await fixture.session.append(Self.entry(1), owner: "a") }
        #expect(error?.code == .leaseLost)
        try await fixture.session.takeLease(owner: "a", lasting: .seconds(600))
        error = await failure { try await fixture.session.append(Self.entry(2), owner: "a") }
        #expect(error?.code == .ledgerDiverged)
        try await fixture.session.append(Self.entry(1), owner: "a")
        try await fixture.session.append(Self.entry(2, "done"), owner: "a")
        for number in [1, 2, 4] as [Int64] {
            error = await failure { try await fixture.session.append(Self.entry(number), owner: "a") }
            #expect(error?.code == .ledgerDiverged)
        }
        error = await failure { try await fixture.session.append(Self.entry(3), owner: "b") }
        #expect(error?.code == .leaseLost)
        try fixture.database.run("UPDATE _bridge_cutover_lease SET expires = 1")
        error = await failure { try await fixture.session.append(Self.entry(3), owner: "a") }
        #expect(error?.code == .leaseLost)
        #expect(try await fixture.another().ledger() == [Self.entry(1), Self.entry(2, "done")])
        #expect(try await fixture.another(migration: "other").ledger().isEmpty)
        await fixture.close()
    }

    @Test("C19 others neither change nor remove nor add entries")
    func ledgerIsAppendOnly() async throws {
        let fixture = try await CutoverFixture(Self.schema)
        try await fixture.session.takeLease(owner: "a", lasting: .seconds(600))
        try await fixture.session.append(Self.entry(1), owner: "a")
        for sql in [
            "UPDATE _bridge_cutover_ledger SET kind = 'done'", "DELETE FROM _bridge_cutover_ledger",
            "INSERT OR REPLACE INTO _bridge_cutover_ledger SELECT migration, number, written_at, 'x', kind, content, checksum FROM _bridge_cutover_ledger",
            "INSERT INTO _bridge_cutover_ledger SELECT migration, 2, written_at, 'x', kind, content, checksum FROM _bridge_cutover_ledger",
        ] {
            #expect(try attempt(fixture.database.application, sql)?.message?.contains("ledger") == true, "\(sql)")
        }
        #expect(try await fixture.session.ledger() == [Self.entry(1)])
        await fixture.close()
    }

    @Test("C15 a route's epoch only grows, each service for itself")
    func routes() async throws {
        let fixture = try await CutoverFixture(Self.schema)
        #expect(try await fixture.session.routes().isEmpty)
        func route(_ service: String, _ writes: String, _ epoch: Int64) -> Route {
            Route(service: service, reads: "target", writes: writes, epoch: epoch, publishedAt: Timestamp(microseconds: epoch * 10))
        }
        try await fixture.session.publish([route("a", "source", 2), route("b", "source", 2)])
        try await fixture.session.publish([route("a", "target", 2), route("b", "target", 3)])
        #expect(try await fixture.session.routes() == [route("a", "source", 2), route("b", "target", 3)])
        try await fixture.session.publish([route("a", "target", 1), route("b", "source", 1)])
        #expect(try await fixture.another().routes() == [route("a", "source", 2), route("b", "target", 3)])
        #expect(try await fixture.another(migration: "other").routes().isEmpty)
        // As an application asks.
        #expect(try fixture.database.rows("SELECT writes, epoch FROM _bridge_routing WHERE migration = 'shop' AND service = 'b'").map(\.description) == ["[writes:\"target\" epoch:3]"])
        await fixture.close()
    }

    @Test("C23 everything made goes again, and of several migrations only the one's own")
    func removal() async throws {
        let fixture = try await CutoverFixture(Self.schema + "CREATE TABLE u(a INTEGER PRIMARY KEY);")
        let before = try fixture.schema()
        let link = LinkDescription(
            migration: "shop", direction: .reverse,
            mappings: [TableMapping(source: TableName(name: "t"), target: TableName(name: "t"))], form: .native)
        let source = SQLiteSource(path: fixture.database.path)
        _ = try await source.prepareCapture(link, replacingLeftovers: false)
        let captured = try fixture.schema()
        let other = try await fixture.another(migration: "other")
        for session in [fixture.session, other] {
            try await session.takeLease(owner: "a", lasting: .seconds(600))
            try await session.append(Self.entry(1), owner: "a")
            try await session.publish([Route(service: "s", reads: "source", writes: "source", epoch: 1, publishedAt: .now)])
        }
        try await fixture.session.raise(Fence(["t"], lease: nil), patience: .seconds(10))
        try await other.raise(Fence(["u"], lease: nil), patience: .seconds(10))
        try await fixture.session.writeMarker("m1", link: link)
        // None of it is a table to anybody else.
        #expect(try await source.listTables().map(\.name.name) == ["t", "u"])
        #expect(try await SQLiteTarget(path: fixture.database.path).listTables().map(\.name.name) == ["t", "u"])
        try await fixture.session.removeAll()
        #expect(try fixture.database.integer("SELECT count(*) FROM _bridge_shop_reverse_log WHERE k0 = 'm1'") == 0)
        #expect(try attempt(fixture.database.application, "INSERT INTO t(b) VALUES(2)") == nil)
        #expect(try await fixture.session.ledger().isEmpty)
        #expect(try await fixture.session.routes().isEmpty)
        #expect(try await other.ledger().count == 1)
        #expect(try await other.routes().count == 1)
        #expect(try await other.fence(on: names(["u"])) == .permanent(attempt: "first"))
        #expect(try attempt(fixture.database.application, "INSERT INTO u VALUES(2)") != nil)
        try await other.removeAll()
        try await other.removeAll()
        #expect(try fixture.schema() == captured)
        try await source.removeCapture(link)
        #expect(try fixture.schema() == before)
        #expect(try await fixture.session.fence(on: names(["t"])) == .none)
        await source.close()
        await fixture.close()
    }

    @Test("C6 a marker is written to the link's own log, behind a fence too, and is no change of a row")
    func marker() async throws {
        let fixture = try await CutoverFixture(Self.schema)
        let link = forwardLink(["t"], migration: "shop")
        var error = await failure { try await fixture.session.writeMarker("m1", link: link) }
        #expect(error?.code == .captureBroken)
        #expect(try await fixture.session.arrivedMarker(link) == nil)
        let source = SQLiteSource(path: fixture.database.path)
        _ = try await source.prepareCapture(link, replacingLeftovers: false)
        try await fixture.session.raise(Fence(["t"]), patience: .seconds(10))
        try await fixture.session.writeMarker("m1", link: link)
        #expect(try fixture.database.rows("SELECT seq, tbl, k0 FROM _bridge_shop_log ORDER BY seq").map(\.description) == ["[seq:1 tbl:0 k0:NULL]", "[seq:2 tbl:0 k0:\"m1\"]"])
        // A log of another link that has the same name.
        error = await failure { try await fixture.session.writeMarker("m2", link: forwardLink(["t"], migration: "s-hop")) }
        #expect(error?.code == .captureBroken)
        try fixture.database.run("UPDATE _bridge_shop_state SET value = 'else' WHERE key = 'link'")
        error = await failure { try await fixture.session.writeMarker("m2", link: link) }
        #expect(error?.code == .captureBroken)
        await source.close()
        await fixture.close()
    }

    @Test("C6 every commit of the session is durable when a call returns")
    func durability() async throws {
        // The setting that the connection runs with; what it does at a power cut is SQLite's.
        let fixture = try await CutoverFixture(Self.schema)
        let connection = try TargetConnection(path: fixture.database.path, creating: false, busyTimeout: 100)
        #expect(try connection.database.integer("PRAGMA synchronous") == 3)
        await fixture.close()
    }
}

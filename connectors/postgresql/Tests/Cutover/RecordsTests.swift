import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// Markers, lease, ledger and routes.
struct RecordsTests {
    private static func fixture() async throws -> CutoverFixture {
        try await CutoverFixture("CREATE TABLE t (id int PRIMARY KEY)", tables: ["t"])
    }

    private static func entry(_ number: Int64, _ kind: String = "begin") -> LedgerEntry {
        LedgerEntry(
            number: number, writtenAt: Timestamp(microseconds: 1_700_000_000_123_457), attempt: "a'1", kind: kind,
            content: #"{"step":"fence","text":"it's \\ é"}"#, checksum: "c\(number)")
    }

    @Test("C6 a marker is a message of its own transaction, durable at once, and no fence stops it")
    func marker() async throws {
        let fixture = try await Self.fixture()
        let slot = "s_\(fixture.suffix)"
        try await fixture.sql("SELECT pg_create_logical_replication_slot('\(slot)', 'test_decoding'); ALTER DATABASE \(fixture.database) SET synchronous_commit = off")
        try await fixture.raise(lease: nil)
        let session = try await PostgresTarget(connectionString: fixture.url).openCutover(migration: fixture.migration)
        try await session.writeMarker("marker it's 1", link: fixture.link)
        // Nothing but its own flush makes it visible to decoding.
        let decoded = try await fixture.sql("SELECT data FROM pg_logical_slot_get_changes('\(slot)', NULL, NULL)")
        let lines = decoded.split(separator: "\n").map(String.init)
        // Addressed to its link: every capture of the database sees it.
        let place = try #require(
            lines.firstIndex { $0.contains("transactional: 1 prefix: bridge.marker") && $0.hasSuffix("content:\(fixture.link.name)") })
        #expect(lines[place + 1] == "marker it's 1")
        #expect(lines[place - 1].hasPrefix("BEGIN") && lines[place + 2].hasPrefix("COMMIT"), "\(lines)")
        #expect(try await session.arrivedMarker(fixture.link) == nil)
        try await fixture.sql("SELECT pg_drop_replication_slot('\(slot)')")
        await session.close()
        try await fixture.end()
    }

    @Test("C20 one operator at a time, by the database's clock; a lease that has ended is free for others")
    func lease() async throws {
        let fixture = try await Self.fixture()
        let session = fixture.session
        try await session.releaseLease(owner: "one")
        try await session.takeLease(owner: "one", lasting: .seconds(3_600))
        try await session.takeLease(owner: "one", lasting: .seconds(3_600))
        let other = try await PostgresTarget(connectionString: fixture.url).openCutover(migration: fixture.migration)
        let error = try await failure { try await other.takeLease(owner: "two", lasting: .seconds(60)) }
        #expect(error.code == .alreadyRunning && error.context.contains(ErrorContext(.processes, "one")), "\(error)")
        // Another migration has a lease of its own.
        let stranger = try await PostgresTarget(connectionString: fixture.url).openCutover(migration: "stranger")
        try await stranger.takeLease(owner: "three", lasting: .seconds(60))
        try await other.releaseLease(owner: "two")
        #expect(try await failure { try await other.takeLease(owner: "two", lasting: .seconds(60)) }.code == .alreadyRunning)
        try await session.takeLease(owner: "one", lasting: .zero)
        try await other.takeLease(owner: "two", lasting: .seconds(60))
        #expect(try await failure { try await session.append(Self.entry(1), owner: "one") }.code == .leaseLost)
        try await other.releaseLease(owner: "two")
        try await session.takeLease(owner: "one", lasting: .seconds(60))
        try await stranger.removeAll()
        #expect(try await failure { try await other.takeLease(owner: "two", lasting: .seconds(60)) }.code == .alreadyRunning)
        await other.close()
        await stranger.close()
        try await fixture.end()
    }

    @Test("C20 of many operators that ask at once, one gets the lease")
    func race() async throws {
        let fixture = try await Self.fixture()
        var winners: Set<String> = []
        var sessions: [any CutoverSession] = []
        for _ in 0..<6 { sessions.append(try await PostgresTarget(connectionString: fixture.url).openCutover(migration: fixture.migration)) }
        try await withThrowingTaskGroup(of: String?.self) { group in
            for (number, session) in sessions.enumerated() {
                group.addTask {
                    do {
                        try await session.takeLease(owner: "o\(number)", lasting: .seconds(60))
                        return "o\(number)"
                    } catch let error as BridgeError where error.code == .alreadyRunning { return nil }
                }
            }
            for try await winner in group { if let winner { winners.insert(winner) } }
        }
        #expect(winners.count == 1)
        for session in sessions { await session.close() }
        try await fixture.end()
    }

    @Test("C19 the ledger is appended to without gaps, under the lease, and nobody changes what it holds")
    func ledger() async throws {
        let fixture = try await Self.fixture()
        let session = fixture.session
        #expect(try await session.ledger().isEmpty)
        #expect(try await failure { try await session.append(Self.entry(1), owner: "one") }.code == .leaseLost)
        try await session.takeLease(owner: "one", lasting: .seconds(60))
        #expect(try await failure { try await session.append(Self.entry(2), owner: "one") }.code == .ledgerDiverged)
        try await session.append(Self.entry(1), owner: "one")
        #expect(try await failure { try await session.append(Self.entry(1), owner: "one") }.code == .ledgerDiverged)
        try await session.append(Self.entry(2, "done"), owner: "one")
        #expect(try await failure { try await session.append(Self.entry(4), owner: "one") }.code == .ledgerDiverged)
        #expect(try await failure { try await session.append(Self.entry(3), owner: "two") }.code == .leaseLost)
        #expect(try await session.ledger() == [Self.entry(1), Self.entry(2, "done")])
        for statement in [
            "UPDATE _bridge.cutover_ledger SET kind = 'x'", "DELETE FROM _bridge.cutover_ledger", "TRUNCATE _bridge.cutover_ledger",
            "SET session_replication_role = replica; DELETE FROM _bridge.cutover_ledger",
        ] {
            #expect(try await fixture.refusal(statement)?.contains("BR002") == true, "\(statement)")
        }
        #expect(try await session.ledger().count == 2)
        try await session.takeLease(owner: "one", lasting: .zero)
        #expect(try await failure { try await session.append(Self.entry(3), owner: "one") }.code == .leaseLost)
        try await fixture.end()
        #expect(try await PostgresTarget(connectionString: fixture.url).openCutover(migration: fixture.migration).ledger().isEmpty)
    }

    @Test("C15 routes have an epoch that only grows, and each change is notified; an application's role may read them")
    func routes() async throws {
        let fixture = try await Self.fixture()
        let session = fixture.session
        let role = "reader_\(fixture.suffix)"
        try await fixture.sql("CREATE ROLE \(role) LOGIN")
        #expect(try await session.routes().isEmpty)
        func route(_ service: String, _ writes: String, _ epoch: Int64) -> Route {
            Route(service: service, reads: "target", writes: writes, epoch: epoch, publishedAt: Timestamp(microseconds: 1_700_000_000_123_457 + epoch))
        }
        try await session.publish([route("users", "source", 3), route("o'rders", "source", 3)])
        let listener = try ChildProcess(
            [fixture.cluster.program("psql"), "-X", "-q", "-A", "-t", "-d", fixture.url],
            input: "LISTEN bridge_routing;\nSELECT 'ready';\n" + String(repeating: "SELECT pg_sleep(0.1);\n", count: 600))
        try await waitUntil("the listener") { listener.outputSoFar.contains("ready") }
        try await session.publish([route("users", "target", 2), route("o'rders", "target", 4)])
        try await session.publish([route("users", "target", 3)])
        try await session.publish([route("users", "target", 5)])
        let rows = try await session.routes()
        #expect(rows == [route("o'rders", "target", 4), route("users", "target", 5)])
        try await waitUntil("two notifications") { listener.outputSoFar.components("Asynchronous notification").count > 2 }
        let said = listener.outputSoFar
        #expect(said.components("Asynchronous notification").count == 3, "\(said)")
        #expect(said.contains(#""service" : "users", "reads" : "target", "writes" : "target", "epoch" : 5, "published_at" : "2023-11-14T22:13:20.123462Z""#), "\(said)")
        #expect(said.contains(#""migration" : "\#(fixture.migration)", "service" : "o'rders""#))
        listener.send(signal: 9)
        _ = await listener.wait()
        #expect(try await fixture.cluster.psql(fixture.cluster.uri(fixture.database, user: role), "SELECT writes FROM _bridge.routing WHERE service = 'users'") == "target")
        #expect(try await fixture.refusal("SELECT * FROM _bridge.cutover_ledger", user: role)?.contains("42501") == true)
        try await fixture.end()
        try await fixture.sql("DROP ROLE \(role)")
    }

    @Test("C23 what the migration made goes, the tables with the last migration, and the schema with the last table, in any order")
    func removal() async throws {
        for linkFirst in [true, false] {
            let fixture = try await TargetFixture("CREATE TABLE t (id int PRIMARY KEY)", tables: ["t"])
            try await fixture.begin()
            let mine = try await fixture.target.openCutover(migration: fixture.link.migration)
            let other = try await fixture.target.openCutover(migration: "other")
            for session in [mine, other] {
                try await session.takeLease(owner: "o", lasting: .seconds(60))
                try await session.append(Self.entry(1), owner: "o")
                try await session.publish([Route(service: "s", reads: "source", writes: "source", epoch: 1, publishedAt: .now)])
            }
            let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = '_bridge'"
            if linkFirst { try await fixture.target.removeLink(fixture.link) }
            try await other.removeAll()
            try await other.removeAll()
            #expect(try await mine.ledger().count == 1)
            #expect(try await mine.routes().count == 1)
            #expect(try await other.ledger().isEmpty)
            #expect(try await other.routes().isEmpty)
            try await mine.removeAll()
            #expect(try await fixture.sql(schemas) == (linkFirst ? "0" : "1"))
            #expect(try await fixture.sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'cutover%' OR relname = 'routing'") == "0")
            if !linkFirst { #expect(try await fixture.target.linkState(fixture.link) != nil) }
            try await fixture.target.removeLink(fixture.link)
            #expect(try await fixture.sql(schemas) == "0")
            await mine.close()
            await other.close()
            try await fixture.end()
        }
    }
}

extension String {
    /// The pieces between occurrences of a text.
    fileprivate func components(_ separator: String) -> [Substring] { split(separator: separator, omittingEmptySubsequences: false) }
}

import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// What of the stream is not the link's: appliers' own writes, and markers for others.
@Suite struct StreamFilterTests {
    @Test("C6 a marker comes as a message in its own transaction, and one that is addressed only in the link that it is for")
    func markers() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"])
        let (_, stream) = try await fixture.open()
        var other = fixture.link
        other.direction = .reverse
        try await fixture.psql(
            """
            INSERT INTO t VALUES (1);
            SELECT pg_logical_emit_message(true, 'bridge.marker', 'plain');
            \(StreamMarker.statement("mine", link: fixture.link));
            \(StreamMarker.statement("other's", link: other));
            BEGIN; INSERT INTO t VALUES (2); \(StreamMarker.statement("other's again", link: other)); COMMIT;
            """)
        try await stream.catchUp()
        #expect(
            stream.takeLines() == [
                "begin", "relation public.t: id* integer", "insert t (1)", "commit 1",
                "begin", "message bridge.marker plain", "commit 1", "begin", "message bridge.marker mine", "commit 1",
                "begin", "insert t (2)", "commit 1",
            ])
        await stream.session.close()
    }

    /// Statements in a session that writes as a replication's applier.
    private static func asOrigin(_ name: String, _ sql: String) -> String {
        """
        SELECT pg_replication_origin_create('\(name)') WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = '\(name)');
        SELECT pg_replication_origin_session_setup('\(name)');
        \(sql);
        """
    }

    private static func forget(_ fixture: SourceFixture, _ names: [String]) async throws {
        for name in names { try await fixture.psql("SELECT pg_replication_origin_drop('\(name)')") }
    }

    @Test("P19 what the migration's other direction applied is passed over whole, and the frontier moves on")
    func echoes() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY, v text); CREATE TYPE mood AS ENUM ('ok')", tables: ["t"])
        let (_, stream) = try await fixture.open()
        let name = "\(fixture.slot)_reverse"
        // The first that the stream says of the table is said inside a transaction that is passed over.
        try await fixture.psql(
            Self.asOrigin(
                name,
                """
                BEGIN; INSERT INTO t SELECT n, 'x' FROM generate_series(1, 100) n; UPDATE t SET v = 'y' WHERE id < 5;
                DELETE FROM t WHERE id = 7; SELECT pg_logical_emit_message(true, 'bridge.marker', 'echo'); COMMIT;
                TRUNCATE t; INSERT INTO t VALUES (1, 'echo'); ALTER TABLE t ADD COLUMN m mood; INSERT INTO t VALUES (2, 'echo', 'ok')
                """))
        let before = stream.frontier
        try await stream.catchUp()
        #expect(stream.takeLines() == [])
        #expect(stream.frontier > before)
        try await fixture.psql("INSERT INTO t VALUES (3, 'own', 'ok')")
        try await fixture.psql(Self.asOrigin(name, "UPDATE t SET v = 'echo'"))
        try await fixture.psql("DELETE FROM t WHERE id = 3")
        try await stream.catchUp()
        #expect(
            stream.takeLines() == [
                "begin", "relation public.t: id* integer, v text, m public.mood", "insert t (3|own|ok)", "commit 1",
                "begin", "delete t key(3|-|-)", "commit 1",
            ])
        // The server was told of what was passed over.
        let end = try await fixture.source.currentPosition(fixture.link)
        try await waitUntil {
            try await stream.step(patience: .milliseconds(50))
            return try await fixture.source.health(fixture.link, applied: .zero).acknowledged.map { $0 >= end } ?? false
        }
        await stream.session.close()
        try await Self.forget(fixture, [name])
    }

    @Test("P19 what others replicate into the source is captured: other tools, and other migrations of bridge")
    func otherOrigins() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"])
        let (_, stream) = try await fixture.open()
        // Also the link's own name, which marks what this direction writes elsewhere, and names that only begin alike.
        let names = ["other_tool", "bridge_elsewhere", fixture.slot, "\(fixture.slot)_reverse_too", "\(fixture.slot)_revers"]
        for (number, name) in names.enumerated() { try await fixture.psql(Self.asOrigin(name, "INSERT INTO t VALUES (\(number))")) }
        try await stream.catchUp()
        #expect(stream.takeChanges() == names.indices.map { "insert t (\($0))" })
        await stream.session.close()
        try await Self.forget(fixture, names)
    }

    @Test("P19 a reverse link passes over what the forward link applied")
    func reverse() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"])
        var link = fixture.link
        link.direction = .reverse
        let origin = try await fixture.source.prepareCapture(link, replacingLeftovers: false)
        let stream = Stream(
            session: try await fixture.source.openCapture(link, origin: origin, durable: origin.position), source: fixture.source,
            link: link)
        try await fixture.psql(Self.asOrigin(fixture.link.identifier, "INSERT INTO t VALUES (1)"))
        try await fixture.psql("INSERT INTO t VALUES (2)")
        try await stream.catchUp()
        #expect(stream.takeChanges() == ["insert t (2)"])
        await stream.session.close()
        try await Self.forget(fixture, [fixture.link.identifier])
    }
}

import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

struct WatchMarkTests {
    private static func fixture() async throws -> (ComparisonFixture, any ComparisonTarget) {
        let fixture = try await ComparisonFixture(
            """
            CREATE TABLE t (id int PRIMARY KEY, v text);
            CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
            CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
            """, tables: ["t", "p"])
        for table in 0..<2 { _ = try await fixture.requests(table) }
        return (fixture, try #require(fixture.target.target))
    }

    @Test("K15 a watch keeps its identity until its record is made anew, and each check has a counter of its own")
    func identity() async throws {
        let (fixture, target) = try await Self.fixture()
        #expect(try await failure { try await target.watchMark(of: "a") }.code == .captureBroken)
        #expect(try await failure { try await target.raiseMark(of: "a", inPlaceOf: nil) }.code == .captureBroken)
        try await target.watchForeignWrites()
        let first = try await target.watchMark(of: "a")
        #expect(first.counter == 0 && first.unrecorded.isEmpty)
        #expect(try await target.raiseMark(of: "a", inPlaceOf: nil) == WatchMark(identity: first.identity, counter: 1))
        #expect(try await target.raiseMark(of: "b", inPlaceOf: nil).counter == 1)
        #expect(try await target.raiseMark(of: "a", inPlaceOf: "b").counter == 2)
        #expect(try await target.watchMark(of: "a").counter == 2)
        #expect(try await target.watchMark(of: "b").counter == 0)
        #expect(try await target.raiseMark(of: "a", inPlaceOf: "").counter == 3)
        #expect(try await target.foreignWrites(after: 0, limit: 10).isEmpty)
        // Made whole again it is the same: what was missed meanwhile is in the record.
        try await fixture.cluster.psql(fixture.targetURL, "DROP TRIGGER bwi_\(fixture.link.migration) ON t")
        try await target.watchForeignWrites()
        #expect(try await target.watchMark(of: "a").identity == first.identity)
        var identities: Set<String> = [first.identity]
        let suffix = fixture.link.migration
        for damage in [
            "DROP TABLE _bridge.writes_\(suffix)", "DROP TABLE _bridge.marks_\(suffix)", "DELETE FROM _bridge.marks_\(suffix)",
            "DROP TABLE _bridge.writes_\(suffix), _bridge.marks_\(suffix), _bridge.files_\(suffix); DROP FUNCTION _bridge.w0_\(suffix), _bridge.w1_\(suffix) CASCADE",
        ] {
            try await fixture.cluster.psql(fixture.targetURL, "INSERT INTO t SELECT coalesce(max(id), 0) + 1, 'x' FROM t")
            try await fixture.cluster.psql(fixture.targetURL, damage)
            #expect(try await failure { try await target.foreignWrites(after: 0, limit: 10) }.code == .captureBroken, "\(damage)")
            try await target.watchForeignWrites()
            _ = try await target.foreignWrites(after: 0, limit: 10)
            #expect(identities.insert(try await target.watchMark(of: "a").identity).inserted, "\(damage)")
        }
        try await fixture.end()
    }

    @Test("K15 a record that was emptied, or never gave out a number, is no record of what was written")
    func emptied() async throws {
        let (fixture, target) = try await Self.fixture()
        try await target.watchForeignWrites()
        let table = "_bridge.writes_\(fixture.link.migration)"
        for damage in ["DELETE FROM \(table)", "TRUNCATE \(table)", "DELETE FROM \(table) WHERE number > 0", "DELETE FROM \(table) WHERE number > 2"] {
            try await fixture.cluster.psql(fixture.targetURL, "INSERT INTO t SELECT (SELECT coalesce(max(id), 0) FROM t) + n, 'x' FROM generate_series(1, 5) n")
            let last = try #require(try await target.foreignWrites(after: 0, limit: 100).last).number
            #expect(try await target.foreignWrites(after: last, limit: 100).isEmpty)
            #expect(try await failure { try await target.foreignWrites(after: last + 1, limit: 100) }.code == .captureBroken)
            try await fixture.cluster.psql(fixture.targetURL, damage)
            #expect(try await failure { try await target.foreignWrites(after: last, limit: 100) }.code == .captureBroken, "\(damage)")
            try await target.watchForeignWrites()
            // Numbers go on, so whoever saw the last one sees that anything may have been written.
            let writes = try await target.foreignWrites(after: last, limit: 100)
            #expect(writes.map(\.key) == [nil, nil] && writes.map(\.number) == [last + 1, last + 2], "\(damage)")
        }
        try await fixture.end()
    }

    @Test("K15 K16 rules and BEFORE triggers that fire in the applier's session are named, and no others")
    func unrecorded() async throws {
        let (fixture, target) = try await Self.fixture()
        try await target.watchForeignWrites()
        try await fixture.cluster.psql(
            fixture.targetURL,
            """
            CREATE TABLE other (id int);
            CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
            CREATE TRIGGER row_before BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
            CREATE TRIGGER row_after AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
            CREATE TRIGGER statement_before BEFORE INSERT ON t EXECUTE FUNCTION f();
            CREATE TRIGGER part BEFORE DELETE ON p1 FOR EACH ROW EXECUTE FUNCTION f();
            CREATE TRIGGER elsewhere BEFORE DELETE ON other FOR EACH ROW EXECUTE FUNCTION f();
            CREATE RULE "A rule" AS ON INSERT TO t DO ALSO NOTHING;
            ALTER TABLE t ENABLE ALWAYS TRIGGER row_after; ALTER TABLE t ENABLE REPLICA TRIGGER statement_before;
            ALTER TABLE other ENABLE ALWAYS TRIGGER elsewhere;
            """)
        #expect(try await target.watchMark(of: "a").unrecorded == [])
        try await fixture.cluster.psql(
            fixture.targetURL,
            """
            ALTER TABLE t ENABLE ALWAYS TRIGGER row_before; ALTER TABLE p1 ENABLE REPLICA TRIGGER part;
            ALTER TABLE t ENABLE ALWAYS RULE "A rule";
            """)
        #expect(
            try await target.watchMark(of: "a").unrecorded == [#"rule "A rule" on public.t"#, "trigger part on public.p1", "trigger row_before on public.t"])
        try await fixture.cluster.psql(fixture.targetURL, "ALTER TABLE t DISABLE TRIGGER row_before; ALTER TABLE t ENABLE RULE \"A rule\"")
        #expect(try await target.watchMark(of: "a").unrecorded == ["trigger part on public.p1"])
        try await fixture.end()
    }

    @Test("K15 a position after all writers waits also for those that do nothing at the moment")
    func afterWriters() async throws {
        let (fixture, _) = try await Self.fixture()
        let source = try #require(fixture.source.source)
        let idle = try PostgresConnection(try ConnectionString(fixture.sourceURL))
        try idle.execute("BEGIN; INSERT INTO public.t VALUES (1, 'a')")
        _ = try await source.settledPosition(patience: .seconds(30), afterWriters: false)
        let error = try await failure { try await source.settledPosition(patience: .milliseconds(100), afterWriters: true) }
        #expect(error.code == .slotBlocked && error.context.contains(ErrorContext(.processes, "\(idle.backendProcess)")))
        let waiting = Task { try await source.settledPosition(patience: .seconds(60), afterWriters: true) }
        try idle.execute("COMMIT")
        let end = try await source.currentPosition()
        let elsewhere = try PostgresConnection(try ConnectionString(fixture.targetURL))
        try elsewhere.execute("BEGIN; SELECT pg_current_xact_id()")
        _ = try await waiting.value
        #expect(try await source.settledPosition(patience: .seconds(30), afterWriters: true) > end)
        try await fixture.end()
    }
}

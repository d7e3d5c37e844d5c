import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// Old tables that get new names when a migration is completed.
struct TableRenamesTests {
    private static let schema = """
        CREATE TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) VALUES ('a');
        CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
        CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t); CREATE VIEW seen AS SELECT v FROM t;
        """

    private static func fixture(isForGood: Bool = true) async throws -> CutoverFixture {
        let fixture = try await CutoverFixture(schema, tables: ["t", "p"])
        try await fixture.raise(lease: isForGood ? nil : .seconds(3_600))
        return fixture
    }

    private static func old(_ fixture: CutoverFixture) throws -> [OldTable] { try OldTable.all(fixture.tables, migration: fixture.migration) }
    private static func tables(_ fixture: CutoverFixture) async throws -> [String] {
        try await fixture.sql("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1")
            .split(separator: "\n").map(String.init)
    }

    @Test("C23 old tables get their new names with all that refers to them, the fence holds on, and is found to be removed")
    func renamed() async throws {
        let fixture = try await Self.fixture()
        let old = try Self.old(fixture)
        try await fixture.session.rename(old, isTrial: true)
        #expect(try await Self.tables(fixture) == ["child", "p", "p1", "t"])
        try await fixture.session.rename(old, isTrial: false)
        let (p, t) = (old[0].newName, old[1].newName)
        #expect([p, t] == ["p_before_\(fixture.suffix)", "t_before_\(fixture.suffix)"])
        #expect(try await Self.tables(fixture) == ["child", "p1", p, t].sorted())
        for statement in ["INSERT INTO \(t) (v) VALUES ('b')", "DELETE FROM \(p)", "INSERT INTO p1 VALUES (1)"] {
            try await expectFenced(fixture, statement)
        }
        #expect(try await fixture.sql("SELECT v FROM seen") == "a")
        #expect(try await fixture.sql("SELECT confrelid::regclass FROM pg_constraint WHERE conrelid = 'child'::regclass AND contype = 'f'") == t)
        // Again, with tables of others under the names that are free, before and after the fence is gone.
        try await fixture.sql("CREATE TABLE t (id int)")
        try await fixture.session.rename(old, isTrial: false)
        try await fixture.session.removeAll()
        try await fixture.session.rename(old, isTrial: false)
        #expect(try await Self.tables(fixture) == ["child", "p1", "t", p, t].sorted())
        try await fixture.sql("INSERT INTO \(t) (v) VALUES ('b'); INSERT INTO t VALUES (1)")
        #expect(try await fixture.refusal("INSERT INTO child VALUES (1, 9)")?.contains("23503") == true)
        try await fixture.end()
    }

    @Test("C23 a new name that anything has is refused, and no table is renamed", arguments: [
        "CREATE TABLE NAME (id int)", "CREATE VIEW NAME AS SELECT 1", "CREATE INDEX NAME ON child (t)", "CREATE TYPE NAME AS ENUM ('a')",
        "CREATE SEQUENCE NAME",
    ])
    func taken(_ statement: String) async throws {
        let fixture = try await Self.fixture()
        let old = try Self.old(fixture)
        try await fixture.sql(statement.replacing("NAME", with: old[1].newName))
        let before = try await Self.tables(fixture)
        for isTrial in [true, false] {
            let error = try await failure { try await fixture.session.rename(old, isTrial: isTrial) }
            #expect(error.code == .configurationInvalid && error.message.contains(old[1].newName), "\(error)")
            #expect(error.hint.contains("old_tables"))
        }
        #expect(try await Self.tables(fixture) == before)
        try await fixture.end()
    }

    @Test("C23 a table without the fence that is for good is not renamed", arguments: ["leased", "dropped and made again", "another's"])
    func unfenced(_ what: String) async throws {
        let fixture = try await Self.fixture(isForGood: what != "leased")
        if what == "dropped and made again" { try await fixture.sql("DROP TABLE t CASCADE; CREATE TABLE t (id int)") }
        let old = try Self.old(fixture)
        let session = what == "another's" ? try await PostgresSource(connectionString: fixture.url).openCutover(migration: "stranger") : fixture.session
        for isTrial in [true, false] {
            let error = try await failure { try await session.rename(old, isTrial: isTrial) }
            #expect(error.code == .configurationInvalid && error.message.contains("not fenced"), "\(error)")
        }
        #expect(try await Self.tables(fixture) == ["child", "p", "p1", "t"])
        if what == "another's" { await session.close() }
        try await fixture.end()
    }

    @Test("C23 a rename waits for readers in short tries, and is done when they have ended")
    func readers() async throws {
        let fixture = try await Self.fixture()
        let old = try Self.old(fixture)
        let reader = try fixture.application()
        try reader.execute("BEGIN; SELECT count(*) FROM t")
        let renaming = Task { try await fixture.session.rename(old, isTrial: false) }
        try await waitUntil("the rename to wait") {
            try await fixture.sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'") != "0"
        }
        // Others read on in between.
        #expect(try await fixture.sql("SELECT count(*) FROM t") == "1")
        try reader.execute("COMMIT")
        try await renaming.value
        #expect(try await Self.tables(fixture).contains(old[1].newName))
        try await fixture.end()
    }

    @Test("C23 a role that may make nothing in the schema is told so before anything is done")
    func rights() async throws {
        let fixture = try await Self.fixture()
        let role = "mover_\(fixture.suffix)"
        try await fixture.sql(
            """
            CREATE ROLE \(role) LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO \(role);
            ALTER TABLE t OWNER TO \(role); ALTER TABLE p OWNER TO \(role); ALTER TABLE p1 OWNER TO \(role)
            """)
        let session = try await PostgresSource(connectionString: fixture.cluster.uri(fixture.database, user: role)).openCutover(migration: fixture.migration)
        let old = try Self.old(fixture)
        let error = try await failure { try await session.rename(old, isTrial: true) }
        #expect(error.code == .rightsMissing && error.hint.contains("GRANT CREATE ON SCHEMA public TO"), "\(error)")
        try await fixture.sql("GRANT CREATE ON SCHEMA public TO \(role)")
        try await session.rename(old, isTrial: true)
        await session.close()
        try await fixture.end()
        try await fixture.sql("DROP OWNED BY \(role) CASCADE; DROP ROLE \(role)")
    }
}

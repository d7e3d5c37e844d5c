import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

@Suite struct PreflightTests {
    @Test("P35 what a role lacks is named with the statement that mends it, and running those is enough")
    func rights() async throws {
        let fixture = try await SourceFixture(
            """
            CREATE SCHEMA app; CREATE ROLE app_owner; CREATE TABLE app.t(id int PRIMARY KEY); ALTER TABLE app.t OWNER TO app_owner;
            CREATE ROLE poor LOGIN NOINHERIT;
            """, tables: [],
            mappings: [TableMapping(source: TableName(schema: "app", name: "t"), target: TableName(name: "t"))],
            options: .init())
        let uri = fixture.uri.replacing("postgres@", with: "poor@")
        let source = try PostgresSource(connectionString: uri)
        let findings = try await source.preflight(fixture.link)
        #expect(findings.allSatisfy { $0.severity == .blocking && $0.code == .rightsMissing && $0.mend.count == 1 })
        let mends = findings.flatMap(\.mend)
        #expect(
            Set(mends) == [
                "ALTER ROLE \"poor\" REPLICATION", "GRANT CREATE ON DATABASE \"\(fixture.slot.dropFirst(7))\" TO \"poor\"",
                "GRANT USAGE ON SCHEMA \"app\" TO \"poor\"", "GRANT SELECT ON \"app\".\"t\" TO \"poor\"",
                "GRANT \"app_owner\" TO \"poor\"",
            ])
        let refused = try await failure { try await source.prepareCapture(fixture.link, replacingLeftovers: false) }
        #expect(refused.code == .rightsMissing)
        #expect(try await fixture.psql("SELECT count(*) FROM pg_publication") == "0")

        try await fixture.psql((mends + ["ALTER ROLE poor INHERIT"]).joined(separator: ";"))
        let able = try PostgresSource(connectionString: uri)
        #expect((try await able.preflight(fixture.link)).isEmpty)
        let origin = try await able.prepareCapture(fixture.link, replacingLeftovers: false)
        let stream = Stream(session: try await able.openCapture(fixture.link, origin: origin, durable: origin.position), source: able, link: fixture.link)
        try await fixture.psql("INSERT INTO app.t VALUES (1)")
        try await stream.catchUp()
        #expect(stream.takeChanges() == ["insert t (1)"])
        await stream.session.close()
    }

    @Test("P35 tables that cannot be captured are named, each with what mends it")
    func tables() async throws {
        let fixture = try await SourceFixture(
            """
            CREATE TABLE good(id int PRIMARY KEY); CREATE TABLE keyless(a int); CREATE UNLOGGED TABLE unlogged(id int PRIMARY KEY);
            CREATE TABLE nothing(id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
            CREATE TABLE late(id int PRIMARY KEY DEFERRABLE); CREATE VIEW view AS SELECT 1 AS id;
            """, tables: ["good", "keyless", "unlogged", "nothing", "late", "view", "missing"])
        let findings = try await fixture.source.preflight(fixture.link)
        #expect(
            findings.map { "\($0.code.rawValue) \($0.table?.name ?? "") \($0.mend.first ?? "")" } == [
                "table_without_key keyless ALTER TABLE \"public\".\"keyless\" ADD PRIMARY KEY (…)",
                "source_unsupported unlogged ALTER TABLE \"public\".\"unlogged\" SET LOGGED",
                "table_without_key nothing ALTER TABLE \"public\".\"nothing\" REPLICA IDENTITY DEFAULT",
                "table_without_key late ALTER TABLE \"public\".\"late\" REPLICA IDENTITY FULL",
                "table_missing view ", "table_missing missing ",
            ])
        for table in ["keyless", "nothing", "late"] {
            var link = fixture.link
            link.mappings = [TableMapping(source: TableName(name: table), target: TableName(name: table))]
            let error = try await failure { try await fixture.source.prepareCapture(link, replacingLeftovers: false) }
            #expect(error.code == .tableWithoutKey)
            // The application must not be refused a write because of us.
            try await fixture.psql("UPDATE \(table) SET \(table == "keyless" ? "a" : "id") = 1")
        }
        #expect(try await fixture.psql("SELECT count(*) FROM pg_publication") == "0")
    }

    @Test(
        "P35 a row filter that is not a function of the row is refused by preflight and at the start, with what to do",
        arguments: ["made > now()", "made > CURRENT_TIMESTAMP", "random() < 1", "id IN (SELECT 1)", "clock_timestamp() > made", "nonsense > 1", "mine(id)"])
    func rowFilter(_ filter: String) async throws {
        let table = TableName(schema: "public", name: "t")
        let fixture = try await SourceFixture(
            """
            CREATE TABLE t(id int PRIMARY KEY, made timestamptz); ALTER TABLE t REPLICA IDENTITY FULL;
            CREATE FUNCTION mine(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
            """, tables: [],
            mappings: [TableMapping(source: table, target: TableName(name: "t"), rowFilter: filter)], options: .init())
        let findings = try await fixture.source.preflight(fixture.link)
        #expect(findings.map(\.code) == [.configurationInvalid], "\(findings)")
        #expect(findings.allSatisfy { $0.severity == .blocking && !$0.mend.allSatisfy(\.isEmpty) })
        let refused = try await failure { try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false) }
        #expect(refused.code == .configurationInvalid, "\(refused)")
        #expect(try await fixture.psql("SELECT count(*) FROM pg_publication") == "0")
    }

    @Test("P35 a server whose settings do not allow capture is named")
    func settings() async throws {
        let cluster = try await PostgresCluster.started(settings: ["wal_level": "replica", "max_replication_slots": "0", "max_wal_senders": "1"])
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"], cluster: cluster)
        let findings = try await fixture.source.preflight(fixture.link)
        #expect(findings.map(\.code) == [.serverSettings, .serverSettings, .serverSettings])
        #expect(findings.first?.mend.first == "ALTER SYSTEM SET wal_level = 'logical'")
        let error = try await failure { try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false) }
        #expect(error.code == .serverSettings)
        #expect(try await fixture.psql("SELECT count(*) FROM pg_publication") == "0")
    }
}

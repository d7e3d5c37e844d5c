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
        #expect(findings.allSatisfy { $0.code == .rightsMissing && $0.severity == ($0.what.contains("other roles") ? .warning : .blocking) })
        let mends = findings.flatMap(\.mend)
        let database = fixture.slot.dropFirst(7)
        var expected: Set<String> = [
            "ALTER ROLE \"poor\" REPLICATION", "GRANT CREATE ON DATABASE \"\(database)\" TO \"poor\"",
            "GRANT USAGE ON SCHEMA \"app\" TO \"poor\"", "GRANT pg_read_all_stats TO \"poor\"",
        ]
        if try await fixture.psql("SHOW server_version_num") >= "160000" {
            expected.insert("GRANT app_owner TO poor WITH INHERIT TRUE")
        } else {
            expected.formUnion(["GRANT app_owner TO poor", "ALTER ROLE poor INHERIT"])
        }
        #expect(Set(mends) == expected)
        let refused = try await failure { try await source.prepareCapture(fixture.link, replacingLeftovers: false) }
        #expect(refused.code == .rightsMissing)
        #expect(try await fixture.psql("SELECT count(*) FROM pg_publication") == "0")

        try await fixture.psql(mends.joined(separator: ";"))
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
                "table_missing view name the tables that hold the rows under 'services:' in bridge.yaml",
                "table_missing missing correct the name under 'services:' in bridge.yaml",
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

    @Test("P35 what of a table is not in the log is named: children, large objects, foreign and unlogged partitions, what is no table")
    func outsideTheLog() async throws {
        let fixture = try await SourceFixture(
            """
            CREATE TABLE parent(id int PRIMARY KEY); CREATE TABLE child() INHERITS (parent); CREATE TABLE listed(PRIMARY KEY (id)) INHERITS (parent);
            CREATE TABLE large(id int PRIMARY KEY, picture oid); CREATE MATERIALIZED VIEW stored AS SELECT 1 AS id; CREATE SEQUENCE numbers;
            CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE far(id int) SERVER s;
            CREATE TABLE mixed(id int NOT NULL) PARTITION BY RANGE (id); ALTER TABLE mixed REPLICA IDENTITY FULL;
            CREATE FOREIGN TABLE mixed_1 PARTITION OF mixed FOR VALUES FROM (0) TO (9) SERVER s;
            CREATE TABLE half(id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE UNLOGGED TABLE half_1 PARTITION OF half FOR VALUES FROM (0) TO (9);
            """, tables: [],
            mappings: ["parent", "listed", "large", "stored", "numbers", "far", "mixed", "half", "pg_class"].map {
                TableMapping(source: TableName(schema: $0 == "pg_class" ? "pg_catalog" : "public", name: $0), target: TableName(name: $0))
            })
        let findings = try await fixture.source.preflight(fixture.link)
        let expected: [(String, Finding.Severity, String)] = [
            ("parent", .warning, "tables inherit from public.parent and are not in the migration: public.child"),
            ("large", .warning, "columns of public.large may name large objects: picture"),
            ("stored", .blocking, "public.stored is a materialized view, not a table"), ("numbers", .blocking, "public.numbers is a sequence, not a table"),
            ("far", .blocking, "public.far is a foreign table, not a table"), ("mixed", .blocking, "partitions of public.mixed are foreign tables: public.mixed_1"),
            ("half", .blocking, "partitions of public.half are unlogged: public.half_1"),
            ("pg_class", .blocking, "pg_catalog.pg_class is a temporary table or one of the server's own"),
        ]
        for (table, severity, what) in expected {
            let found = findings.filter { $0.table?.name == table && $0.what == what }
            #expect(found.count == 1 && found.allSatisfy { $0.severity == severity && !$0.why.isEmpty && !$0.mend.isEmpty }, "\(what): \(findings.map(\.what))")
        }
        #expect(!findings.contains { $0.table?.name == "listed" })
    }

    @Test("P35 settings, room, encoding, collation, version and a role's limits that will hurt later are named")
    func worries() async throws {
        let cluster = try await PostgresCluster.started(settings: [
            "wal_sender_timeout": "2s", "max_slot_wal_keep_size": "64MB", "logical_decoding_work_mem": "64kB", "max_connections": "12", "max_wal_senders": "5",
        ])
        try await cluster.psql(
            cluster.uri("postgres"),
            """
            CREATE ROLE short LOGIN REPLICATION CONNECTION LIMIT 3 VALID UNTIL '\(try await cluster.psql(cluster.uri("postgres"), "SELECT (now() + interval '9 days')::date"))';
            CREATE DATABASE bytes OWNER short TEMPLATE template0 ENCODING 'SQL_ASCII' CONNECTION LIMIT 4;
            CREATE DATABASE sorted TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en';
            UPDATE pg_database SET datcollversion = '1' WHERE datname = 'sorted'
            """)
        func findings(_ uri: String) async throws -> [Finding] {
            let source = try PostgresSource(connectionString: uri)
            let link = LinkDescription(migration: "worries", direction: .forward, mappings: [], form: .native)
            let findings = try await source.preflight(link)
            await source.close()
            return findings
        }
        let found = try await findings(cluster.uri("bytes", user: "short"))
        for (what, mend) in [
            ("wal_sender_timeout is 2000 ms", "ALTER SYSTEM SET wal_sender_timeout = '60s'"),
            ("max_slot_wal_keep_size is 64 MB", "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'"),
            ("logical_decoding_work_mem is 64 kB", "ALTER SYSTEM SET logical_decoding_work_mem = '64MB'"),
            ("the source database's encoding is SQL_ASCII", "move the rows to a database"), ("the role short may have 3 connections only", "ALTER ROLE short CONNECTION LIMIT -1"),
            ("the database bytes takes 4 connections only", "ALTER DATABASE bytes CONNECTION LIMIT -1"),
            ("the source's server has", "ALTER SYSTEM SET max_connections = 24"), ("the password of the role short ends on", "ALTER ROLE short VALID UNTIL 'infinity'"),
        ] {
            let matching = found.filter { $0.severity == .warning && $0.what.hasPrefix(what) && !$0.why.isEmpty }
            #expect(matching.count == 1, "\(what): \(found.map(\.what))")
            #expect(matching.flatMap(\.mend).contains { $0.hasPrefix(mend) })
        }
        let sorted = try await findings(cluster.uri("sorted"))
        #expect(sorted.contains { $0.what.contains("version 1 of its collation") && $0.mend == ["REINDEX DATABASE sorted", "ALTER DATABASE sorted REFRESH COLLATION VERSION"] }, "\(sorted.map(\.what))")
        let session = try PostgresConnection(try ConnectionString(cluster.uri("sorted")))
        for (version, isOld) in [(140_018, true), (140_019, false), (150_013, true), (160_010, false), (170_005, true), (180_000, false)] {
            let found = try ServerFindings(session: session, part: .source, version: version).findings()
            #expect(found.contains { $0.what.contains("older than") } == isOld, "\(version)")
        }
    }

    @Test("P35 a standby is refused")
    func standby() async throws {
        let cluster = try await PostgresCluster.started()
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"], cluster: cluster)
        try cluster.stop()
        try cluster.folder.write("data/standby.signal", "")
        try cluster.startServer()
        let findings = try await fixture.source.preflight(fixture.link)
        #expect(findings.contains { $0.what == "the source is a standby" && $0.severity == .blocking && !$0.mend.isEmpty })
    }
}

import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

@Suite struct PartedLoadTests {
    private static let columns = [("id", "integer"), ("v", "text")].map {
        Relation.Column(name: $0.0, isKey: false, typeName: $0.1, type: LogicalType(name: $0.1))
    }
    private static let text = CopyFormat(rawValue: "postgresql.copy-text")
    private static let position = Position(commit: 77)

    private static func prepared(_ schema: String) async throws -> TargetFixture {
        let fixture = try await TargetFixture(schema, tables: ["t"])
        _ = try await fixture.target.prepareLink(fixture.link)
        try await fixture.target.recordOrigin(fixture.link, CaptureOrigin(identity: ["system": "7"], position: Position(commit: 1)))
        return fixture
    }

    private static func begin(_ fixture: TargetFixture, parts: Int = 2, dropping: Bool = false) async throws -> any PartedLoad {
        try #require(
            try await fixture.target.openParts(
                fixture.link, mapping: fixture.link.mappings[0], parts: parts, droppingIndexes: dropping))
    }

    private static func open(_ load: any PartedLoad, _ part: Int) async throws -> any TableLoad {
        guard case .load(let opened) = try await load.openPart(part, columns: columns, format: text) else {
            throw ChildProcess.Failure("the part is there already")
        }
        return opened
    }

    private static func write(_ rows: ClosedRange<Int>, _ load: any TableLoad) async throws {
        let buffer = RecordBuffer()
        for row in rows { buffer.append(utf8: "\(row)\tv\n") }
        try await load.write(buffer)
    }

    private static func load(_ rows: ClosedRange<Int>, _ part: Int, _ load: any PartedLoad) async throws {
        let opened = try await open(load, part)
        try await write(rows, opened)
        try await opened.finish(position: position, rows: Int64(rows.count))
    }

    private static func code(_ body: () async throws -> Void) async -> ErrorCode? {
        await #expect(throws: BridgeError.self) { try await body() }?.code
    }

    @Test(
        "P20 a part that is committed late, twice or not at all adds nothing and is not passed over",
        arguments: ["", "CREATE TABLE other (t int REFERENCES t)"])
    func attempts(_ more: String) async throws {
        let fixture = try await Self.prepared("CREATE TABLE t (id int PRIMARY KEY, v text); \(more)")
        let first = try await Self.begin(fixture)
        // While a part of the first attempt is under way, no other begins.
        let late = try await Self.open(first, 0)
        try await Self.write(1...3, late)
        let busy = await #expect(throws: BridgeError.self) { _ = try await Self.begin(fixture) }
        // By the record, which a part holds before it has locked the table.
        #expect(busy?.code == .serverBusy && busy?.message.contains("link_table") == true)
        // Its commit arrives all the same: the successor removes it.
        try await late.finish(position: Self.position, rows: 3)
        #expect(try await fixture.sql("SELECT count(*) FROM t") == "3")
        let second = try await Self.begin(fixture)
        #expect(try await fixture.sql("SELECT count(*) FROM t; SELECT count(*) FROM _bridge.link_part") == "0\n0")
        // What is left of the first attempt can do no more.
        #expect(await Self.code { _ = try await first.openPart(1, columns: Self.columns, format: Self.text) } == .alreadyRunning)
        #expect(await Self.code { try await first.finish(position: Self.position, rows: 3) } == .alreadyRunning)
        // Given up, then repeated; a part that is there is not loaded again.
        let given = try await Self.open(second, 1)
        try await Self.write(4...4, given)
        await given.cancel()
        try await Self.load(1...3, 0, second)
        guard case .loaded(let there) = try await second.openPart(0, columns: Self.columns, format: Self.text) else {
            Issue.record("a part that is there was begun again")
            return
        }
        #expect(there == LoadedPart(rows: 3, position: Self.position))
        // Not with a part missing, not with other rows, not from another position.
        #expect(await Self.code { try await second.finish(position: Self.position, rows: 3) } == .internalFault)
        try await Self.load(4...5, 1, second)
        #expect(await Self.code { try await second.finish(position: Self.position, rows: 6) } == .internalFault)
        #expect(await Self.code { try await second.finish(position: Position(commit: 78), rows: 5) } == .internalFault)
        try await second.finish(position: Self.position, rows: 5)
        try await second.finish(position: Self.position, rows: 5)
        #expect(
            try await fixture.target.linkState(fixture.link)?.tables[fixture.link.mappings[0].source]
                == .init(state: .done, position: Self.position, rows: 5))
        #expect(try await fixture.sql("SELECT count(*) FROM t; SELECT count(*) FROM _bridge.link_part") == "5\n0")
        #expect(await Self.code { _ = try await Self.begin(fixture) } == .serverBusy)
        try await fixture.end()
    }

    @Test("P20 an unfinished load in parts is removed by a load as a whole, and rows of others are left")
    func leftovers() async throws {
        let fixture = try await Self.prepared("CREATE TABLE t (id int PRIMARY KEY, v text)")
        let parts = try await Self.begin(fixture)
        try await Self.load(1...3, 0, parts)
        let mapping = fixture.link.mappings[0]
        try await fixture.cluster.psql(fixture.url, "UPDATE t SET v = 'mine' WHERE id = 2")
        for attempt in 0..<2 {
            let code = await Self.code {
                if attempt == 0 { _ = try await Self.begin(fixture) } else {
                    _ = try await fixture.target.openLoad(fixture.link, mapping: mapping, columns: Self.columns, format: Self.text)
                }
            }
            #expect(code == .targetTableNotEmpty)
        }
        #expect(try await fixture.sql("SELECT string_agg(v, ',' ORDER BY id) FROM t") == "v,mine,v")
        try await fixture.cluster.psql(fixture.url, "DELETE FROM t WHERE id = 2")
        let whole = try await fixture.target.openLoad(fixture.link, mapping: mapping, columns: Self.columns, format: Self.text)
        try await Self.write(7...8, whole)
        try await whole.finish(position: Self.position, rows: 2)
        #expect(try await fixture.sql("SELECT string_agg(id::text, ',' ORDER BY id) FROM t; SELECT count(*) FROM _bridge.link_part") == "7,8\n0")
        try await fixture.end()
    }

    @Test("P20 a table that another link loads too, or of which only some rows are the link's, is loaded as a whole")
    func shared() async throws {
        let fixture = try await Self.prepared("CREATE TABLE t (id int PRIMARY KEY, v text)")
        let filtered = fixture.filtering("t", by: "id > 7")
        #expect(
            try await filtered.target.openParts(filtered.link, mapping: filtered.link.mappings[0], parts: 2, droppingIndexes: true) == nil)
        var link = fixture.link
        link.migration += "-other"
        _ = try await fixture.target.prepareLink(link)
        #expect(
            try await fixture.target.openParts(fixture.link, mapping: fixture.link.mappings[0], parts: 2, droppingIndexes: true) == nil)
        try await fixture.target.removeLink(link)
        try await fixture.end()
    }

    private static let indexed = """
        CREATE TABLE t (id int PRIMARY KEY, v text, w int, UNIQUE (w));
        CREATE TABLE refers (v text, w int); CREATE UNIQUE INDEX referred ON t (id, w);
        ALTER TABLE refers ADD FOREIGN KEY (w) REFERENCES t (w);
        CREATE FUNCTION plain(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
        CREATE INDEX "kept Function" ON t (plain(v));
        CREATE INDEX kept_comment ON t (w); COMMENT ON INDEX kept_comment IS 'c';
        CREATE INDEX kept_clustered ON t (w, v); CLUSTER t USING kept_clustered;
        CREATE INDEX kept_figures ON t ((w + 1)); ALTER INDEX kept_figures ALTER COLUMN 1 SET STATISTICS 7;
        CREATE INDEX "gone Plain" ON t (v DESC NULLS LAST, w) INCLUDE (id) WITH (fillfactor = 70);
        CREATE INDEX gone_expression ON t (lower(v)) WHERE w > 7;
        CREATE UNIQUE INDEX gone_unique ON t (v);
        CREATE INDEX gone_hash ON t USING hash (v);
        """
    private static let definitions = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"
    private static let names = "SELECT string_agg(indexname, ',' ORDER BY indexname) FROM pg_indexes WHERE tablename = 't' AND indexname LIKE 'gone%'"

    @Test("P20 indexes that can wait are dropped with their definition and come back as they were; all others stay")
    func indexes() async throws {
        let fixture = try await Self.prepared(Self.indexed)
        let before = try await fixture.sql(Self.definitions)
        let parts = try await Self.begin(fixture, dropping: true)
        #expect(try await fixture.sql(Self.names) == "")
        #expect(try await fixture.sql("SELECT string_agg(indexname, ',' ORDER BY indexname) FROM pg_indexes WHERE tablename = 't'")
            == "kept Function,kept_clustered,kept_comment,kept_figures,t_pkey,t_w_key")
        try await Self.load(1...1, 0, parts)
        try await Self.load(2...2, 1, parts)
        try await parts.finish(position: Self.position, rows: 2)
        let missing = try await fixture.target.droppedIndexes(fixture.link)
        try #require(missing.map(\.name).sorted() == ["\"gone Plain\"", "gone_expression", "gone_hash", "gone_unique", "referred"])
        #expect(await Self.code { try await fixture.target.finishCopy(fixture.link) } == .internalFault)
        // Two rows with the same value: the unique one is named, and stays on the list. One is there already.
        try await fixture.cluster.psql(fixture.url, "CREATE INDEX gone_hash ON t USING hash (v)")
        for index in missing {
            let restoration = try await fixture.target.restoration(of: index, fixture.link)
            guard index.name == "gone_unique" else {
                try await restoration.run()
                continue
            }
            let error = await #expect(throws: BridgeError.self) { try await restoration.run() }
            #expect(error?.code == .conflict && error?.context.contains(ErrorContext(.detail, "index gone_unique")) == true)
        }
        #expect(try await fixture.target.droppedIndexes(fixture.link).map(\.name) == ["gone_unique"])
        #expect(await Self.code { try await fixture.target.removeLink(fixture.link) } == .conflict)
        try await fixture.cluster.psql(fixture.url, "UPDATE t SET v = 'other' WHERE id = 2")
        try await fixture.target.restoration(of: missing[3], fixture.link).run()
        try await fixture.target.restoration(of: missing[3], fixture.link).run()
        #expect(try await fixture.sql(Self.definitions) == before)
        try await fixture.target.finishCopy(fixture.link)
        try await fixture.end()
    }

    @Test("P20 the indexes come back when the link is removed in the middle of its copy")
    func removed() async throws {
        let fixture = try await Self.prepared(Self.indexed)
        let before = try await fixture.sql(Self.definitions)
        let parts = try await Self.begin(fixture, dropping: true)
        try await Self.load(1...1, 0, parts)
        try await fixture.end()
        #expect(try await fixture.sql(Self.definitions) == before)
        #expect(try await fixture.sql("SELECT count(*) FROM pg_namespace WHERE nspname = '_bridge'") == "0")
    }

    @Test("P20 a role that does not own the table, or may make nothing in its schema, leaves the indexes")
    func rights() async throws {
        let fixture = try await Self.prepared("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE INDEX gone_v ON t (v)")
        let role = "loader_\(fixture.link.migration)"
        try await fixture.cluster.psql(
            fixture.url,
            """
            CREATE ROLE \(role) LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON t TO \(role);
            GRANT USAGE, CREATE ON SCHEMA _bridge TO \(role); GRANT ALL ON ALL TABLES IN SCHEMA _bridge TO \(role);
            \(try await fixture.sql("SHOW server_version_num") >= "150000" ? "GRANT SET ON PARAMETER session_replication_role TO \(role)" : "ALTER ROLE \(role) SUPERUSER")
            """)
        let name = String(fixture.url.split(separator: "/")[2].prefix { $0 != "?" })
        let target = PostgresTarget(connectionString: fixture.cluster.uri(name, user: role))
        let parts = try await target.openParts(fixture.link, mapping: fixture.link.mappings[0], parts: 1, droppingIndexes: true)
        if try await fixture.sql("SELECT rolsuper FROM pg_roles WHERE rolname = '\(role)'") == "f" {
            #expect(try await fixture.sql(Self.names) == "gone_v")
        }
        try await Self.load(1...2, 0, try #require(parts))
        try await parts?.finish(position: Self.position, rows: 2)
        await target.close()
        try await fixture.end()
        try await fixture.cluster.psql(fixture.url, "DROP OWNED BY \(role); DROP ROLE \(role)")
    }
}

import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// What the fence holds against.
struct FenceTests {
    private static let schema = """
        CREATE TABLE t (id int PRIMARY KEY, v text);
        CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
        CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
        CREATE VIEW shown AS SELECT * FROM t;
        CREATE FUNCTION write() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'UPDATE public.t SET v = ''x''';
        \(rows)
        """
    private static let rows = """
        INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO p VALUES (1, 'a'), (101, 'b');
        INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1);
        """

    private static func fixture() async throws -> CutoverFixture {
        try await CutoverFixture(schema, tables: ["t", "p", "child"])
    }

    private static let writes = [
        "INSERT INTO t VALUES (3, 'c')", "UPDATE t SET v = 'x'", "DELETE FROM t", "UPDATE t SET v = 'x' WHERE id = 77",
        "TRUNCATE t", "TRUNCATE p", "TRUNCATE ONLY p1", "TRUNCATE parent CASCADE",
        "COPY t FROM stdin;\n3\tc\n\\.", "COPY p FROM stdin;\n3\tc\n\\.", "COPY p2 FROM stdin;\n103\tc\n\\.",
        "INSERT INTO t VALUES (1, 'x') ON CONFLICT DO NOTHING", "INSERT INTO t VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = 'x'",
        "DELETE FROM parent WHERE id = 1", "UPDATE parent SET id = 3 WHERE id = 1",
        "WITH w AS (DELETE FROM t RETURNING *) SELECT count(*) FROM w", "SELECT write()",
        "INSERT INTO shown VALUES (3, 'c')", "UPDATE shown SET v = 'x'", "DELETE FROM shown",
        "INSERT INTO p VALUES (3, 'c')", "INSERT INTO p1 VALUES (3, 'c')", "UPDATE p1 SET v = 'x'", "DELETE FROM p2",
        "UPDATE p SET id = id + 110 WHERE id = 1",
        "SET session_replication_role = replica; UPDATE t SET v = 'x'", "SET session_replication_role = replica; TRUNCATE p1",
        "SET session_replication_role = replica; INSERT INTO p1 VALUES (3, 'c')",
        "SET session_replication_role = local; UPDATE t SET v = 'x'",
        "SET default_transaction_read_only = on; BEGIN READ WRITE; UPDATE t SET v = 'x'; COMMIT",
        "PREPARE w AS UPDATE t SET v = 'x'; EXECUTE w", "DO $$ BEGIN UPDATE t SET v = 'x'; END $$",
        "BEGIN ISOLATION LEVEL SERIALIZABLE; DELETE FROM t; COMMIT",
    ]

    private static func contents(_ fixture: CutoverFixture) async throws -> String {
        try await fixture.sql(
            "SELECT string_agg(x, ' ' ORDER BY x) FROM (SELECT 't' || id || v FROM t UNION ALL SELECT 'p' || id || v FROM p UNION ALL SELECT 'c' || id || parent FROM child) AS w(x)")
    }

    @Test("C1 C2 no statement of any role writes while the fence stands, and every one does once it has expired")
    func statements() async throws {
        let fixture = try await Self.fixture()
        let version = try fixture.application().serverVersion
        let owner = "owner_\(fixture.suffix)"
        let writer = "writer_\(fixture.suffix)"
        try await fixture.sql(
            """
            CREATE ROLE \(owner) LOGIN; CREATE ROLE \(writer) LOGIN;
            GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO \(writer);
            ALTER TABLE t OWNER TO \(owner); ALTER TABLE p OWNER TO \(owner); ALTER TABLE p1 OWNER TO \(owner); ALTER TABLE p2 OWNER TO \(owner)
            """)
        let before = try await Self.contents(fixture)
        #expect(try await fixture.session.fence(on: fixture.tables) == .none)
        try await fixture.raise()
        var writes = Self.writes
        if version >= 150_000 { writes.append("MERGE INTO t USING (VALUES (1)) AS n(id) ON t.id = n.id WHEN MATCHED THEN UPDATE SET v = 'x'") }
        for statement in writes { try await expectFenced(fixture, statement) }
        for user in [owner, writer] {
            for statement in ["UPDATE t SET v = 'x'", "TRUNCATE t", "INSERT INTO p1 VALUES (3, 'c')"] { try await expectFenced(fixture, statement, user: user) }
        }
        #expect(try await Self.contents(fixture) == before)
        #expect(try await fixture.sql("SELECT count(*) FROM t; SELECT count(*) FROM p") == "2\n2")
        // Reading with locks is no write, and neither is what others write elsewhere.
        try await fixture.sql("BEGIN; SELECT * FROM t FOR UPDATE; COMMIT; INSERT INTO parent VALUES (9)")

        try await fixture.expire()
        #expect(try await fixture.session.fence(on: fixture.tables) == .expired(attempt: "a1"))
        for statement in writes {
            #expect(try await fixture.refusal(statement) == nil, "\(statement)")
            try await fixture.sql("TRUNCATE parent, child, t, p; \(Self.rows)")
        }
        #expect(try await fixture.refusal("UPDATE t SET v = 'y'; DELETE FROM t WHERE id = 2; INSERT INTO p VALUES (5, 'e')", user: writer) == nil)
        #expect(try await Self.contents(fixture) == "c11 p101b p1a p5e t1y")
        try await fixture.end()
        try await fixture.sql("DROP OWNED BY \(writer); DROP ROLE \(writer); REASSIGN OWNED BY \(owner) TO postgres; DROP OWNED BY \(owner); DROP ROLE \(owner)")
    }

    @Test("C5 a refused write names migration, service and epoch, has a SQLSTATE of its own, and a hint")
    func message() async throws {
        let fixture = try await Self.fixture()
        try await fixture.raise()
        let said = try #require(try await fixture.refusal("INSERT INTO p1 VALUES (3, 'secret')"))
        #expect(said.contains("BR001: writes to public.p1 are stopped: migration \(fixture.migration) moves service users (routing epoch 7)"), "\(said)")
        #expect(said.contains("HINT:  Read the route of the service anew") && said.contains("TABLE NAME:  p1"), "\(said)")
        #expect(!said.contains("secret"))
        try await fixture.end()
    }

    @Test("C1 a transaction whose snapshot is older than the fence, and one that has only read, cannot write")
    func snapshots() async throws {
        let fixture = try await Self.fixture()
        let old = try fixture.application()
        try old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM t")
        let prepared = try fixture.application()
        try prepared.execute("PREPARE w AS UPDATE t SET v = 'late'; PREPARE q AS INSERT INTO p VALUES (7, 'late')")
        try prepared.execute("BEGIN; SELECT * FROM p")
        try await fixture.raise()
        #expect(throws: BridgeError.self) { try old.execute("UPDATE t SET v = 'late'") }
        #expect(throws: BridgeError.self) { try prepared.execute("EXECUTE q") }
        try prepared.execute("ROLLBACK")
        #expect(throws: BridgeError.self) { try prepared.execute("EXECUTE w") }
        try await fixture.end()
    }

    @Test("C1 a native subscription's worker, which fires no triggers of statements, does not write either")
    func subscription() async throws {
        let fixture = try await Self.fixture()
        let publisher = try await fixture.cluster.makeDatabase("publisher")
        let name = "sub_\(fixture.suffix)"
        try await fixture.cluster.psql(publisher, "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION \(name) FOR TABLE t; SELECT pg_create_logical_replication_slot('\(name)', 'pgoutput')")
        try await fixture.raise()
        let connection = "host=\(fixture.cluster.folder.path) user=postgres dbname=\(publisher.split(separator: "/")[2].prefix { $0 != "?" })"
        try await fixture.sql("CREATE SUBSCRIPTION \(name) CONNECTION '\(connection)' PUBLICATION \(name) WITH (create_slot = false, copy_data = false, slot_name = '\(name)')")
        try await fixture.cluster.psql(publisher, "INSERT INTO t VALUES (50, 'replicated')")
        let needle = "writes to public.t are stopped: migration \(fixture.migration) "
        try await waitUntil("the worker to be refused") {
            let written = try await fixture.sql("SELECT count(*) FROM t WHERE id = 50")
            return fixture.cluster.log.contains(needle) || written == "1"
        }
        #expect(try await fixture.sql("SELECT count(*) FROM t WHERE id = 50") == "0")
        try await fixture.sql("DROP SUBSCRIPTION \(name)")
        try await fixture.end()
    }

    @Test("C1 a statement that names a parent of a fenced table, which is not fenced itself, does not write")
    func ancestors() async throws {
        let fixture = try await CutoverFixture(
            """
            CREATE TABLE whole (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
            CREATE TABLE part PARTITION OF whole FOR VALUES FROM (0) TO (100); CREATE TABLE rest PARTITION OF whole FOR VALUES FROM (100) TO (200);
            CREATE TABLE base (id int, v text); CREATE TABLE heir () INHERITS (base); CREATE TABLE grandheir () INHERITS (heir);
            INSERT INTO whole VALUES (1, 'a'), (101, 'b'); INSERT INTO base VALUES (1, 'base'); INSERT INTO heir VALUES (2, 'heir'); INSERT INTO grandheir VALUES (3, 'x');
            """, tables: ["part", "heir"])
        try await fixture.raise()
        for statement in [
            "INSERT INTO whole VALUES (2, 'c')", "UPDATE whole SET v = 'x'", "DELETE FROM whole", "TRUNCATE whole",
            "COPY whole FROM stdin;\n3\tc\n\\.", "UPDATE whole SET id = 5 WHERE id = 101", "UPDATE base SET v = 'x'", "DELETE FROM base",
            "TRUNCATE base", "INSERT INTO grandheir VALUES (4, 'x')", "UPDATE heir SET v = 'x' WHERE id = 3",
        ] { try await expectFenced(fixture, statement) }
        try await fixture.sql("INSERT INTO whole VALUES (102, 'c'); UPDATE whole SET v = 'x' WHERE id > 100; UPDATE ONLY base SET v = 'y'")
        try await fixture.end()
    }

    @Test("C1 the fence waits for a transaction that wrote before, and its writes stay")
    func openWriter() async throws {
        let fixture = try await Self.fixture()
        let writer = try fixture.application()
        try writer.execute("BEGIN; UPDATE p SET v = 'before' WHERE id = 101")
        let error = try await failure { try await fixture.session.raise(fixture.fence(), patience: .milliseconds(10)) }
        #expect(error.code == .serverBusy && error.context.contains(ErrorContext(.processes, "\(writer.backendProcess)")), "\(error)")
        #expect(try await fixture.session.fence(on: fixture.tables) == .none)
        let raising = Task { try await fixture.session.raise(fixture.fence(), patience: .seconds(60)) }
        try await waitUntil("the fence to wait") {
            try await fixture.sql("SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND NOT granted") == "1"
        }
        try writer.execute("COMMIT")
        try await raising.value
        #expect(try await fixture.sql("SELECT v FROM p WHERE id = 101") == "before")
        try await expectFenced(fixture, "UPDATE p SET v = 'after'")
        try await fixture.end()
    }

    @Test("C1 C10 a prepared transaction that wrote holds the fence off and is named; one that cannot write does not")
    func preparedTransaction() async throws {
        let fixture = try await Self.fixture()
        let name = "it's \(fixture.migration)"
        try await fixture.sql("BEGIN; UPDATE p1 SET v = 'prepared'; PREPARE TRANSACTION '\(name.replacing("'", with: "''"))'")
        try await fixture.sql("BEGIN; SELECT * FROM t FOR UPDATE; UPDATE parent SET id = 5 WHERE id = 2; PREPARE TRANSACTION 'other \(fixture.migration)'")
        // Its foreign key has been written to by the update above as well.
        let facts = try await fixture.session.facts(of: [fixture.tables[0], fixture.tables[1]])
        #expect(facts.preparedTransactions == [name])
        let error = try await failure { try await fixture.session.raise(fixture.fence(tables: ["t", "p"]), patience: .zero) }
        #expect(error.code == .serverBusy, "\(error)")
        #expect(error.context.contains(ErrorContext(.processes, "the prepared transaction 'it''s \(fixture.migration)'")), "\(error)")
        try await fixture.sql("COMMIT PREPARED '\(name.replacing("'", with: "''"))'")
        try await fixture.session.raise(fixture.fence(tables: ["t", "p"]), patience: .seconds(30))
        try await fixture.sql("ROLLBACK PREPARED 'other \(fixture.migration)'")
        #expect(try await fixture.sql("SELECT v FROM p1") == "prepared")
        try await fixture.end()
    }

    @Test("C1 an applier of the migration goes on writing through the fence; its marks alone do not pass, nor does another's")
    func applier() async throws {
        let fixture = try await TargetFixture(
            "CREATE TABLE t (id int PRIMARY KEY, v text, big text); CREATE TABLE p (id int PRIMARY KEY, v text, big text) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000)",
            tables: ["t", "p"])
        try await fixture.begin()
        let session = try await fixture.target.openCutover(migration: fixture.link.migration)
        let tables = [TargetFixture.name("t"), TargetFixture.name("p")]
        let applier = try await fixture.openApplier()
        try await session.raise(Fence(attempt: "a", tables: [tables[0]: "s", tables[1]: "s"], epoch: 1, lease: nil), patience: .seconds(30))
        let columns = [("id", "integer"), ("v", "text"), ("big", "text")]
        var batch = BatchWriter(relations: [relation(1, "t", columns), relation(2, "p", columns)])
        for rows in [2, 200] {
            batch.begin()
            for id in 0..<rows { for table: UInt32 in [1, 2] { batch.insert(table, [.text("\(id)"), "a", "b"]) } }
            batch.commit()
            try await applier.apply(batch.take())
            batch.begin()
            for id in 0..<rows { for table: UInt32 in [1, 2] { batch.update(table, [.text("\(id)"), "c", "d"]) } }
            batch.delete(1, ["0", nil, nil])
            batch.commit()
            try await applier.apply(batch.take())
            #expect(try await fixture.sql("SELECT count(*) FROM t WHERE v = 'c'; SELECT count(*) FROM p WHERE v = 'c'") == "\(rows - 1)\n\(rows)")
            batch.begin()
            batch.truncate([1, 2])
            batch.commit()
            try await applier.apply(batch.take())
            #expect(try await fixture.sql("SELECT count(*) FROM t; SELECT count(*) FROM p") == "0\n0")
        }
        await applier.close()
        let mark = "SET bridge.applier = '\(fixture.link.identifier)'"
        for statement in [
            mark, "SET session_replication_role = replica", "SET session_replication_role = replica; SET bridge.applier = 'bridge_other'",
            "SET session_replication_role = local; \(mark)",
        ] {
            for write in ["INSERT INTO t VALUES (1)", "INSERT INTO p1 VALUES (1)", "TRUNCATE t"] {
                await #expect(throws: ChildProcess.Failure.self, "\(statement); \(write)") { try await fixture.sql("\(statement); \(write)") }
            }
        }
        #expect(try await session.fence(on: tables) == .permanent(attempt: "a"))
        try await session.removeAll()
        await session.close()
        try await fixture.end()
        #expect(try await fixture.sql("SELECT count(*) FROM pg_namespace WHERE nspname = '_bridge'") == "0")
    }
}

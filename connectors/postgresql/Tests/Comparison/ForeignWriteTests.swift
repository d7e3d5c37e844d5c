import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

struct ForeignWriteTests {
    private static func text(_ writes: [ForeignWrite]) throws -> [String] {
        try writes.map { write in
            guard let key = write.key else { return "\(write.table) whole" }
            return try key.bytes.withUnsafeBytes { bytes in
                var reader = ByteReader(bytes)
                return "\(write.table) \(try Stream.text(try RowImage(&reader)))"
            }
        }.sorted()
    }

    private static let schema = """
        CREATE TABLE t (v text, id int, at timestamptz, PRIMARY KEY (id, at));
        CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
        CREATE TABLE k (a int, b text);
        """

    private static func fixture() async throws -> (ComparisonFixture, any ComparisonTarget) {
        let fixture = try await ComparisonFixture(schema, tables: ["t", "p", "k"])
        for table in 0..<3 { _ = try await fixture.requests(table) }
        let target = try #require(fixture.target.target)
        try await target.watchForeignWrites()
        return (fixture, target)
    }

    @Test("C23 the records are removed although an applier that still works holds some of them and comes to the watched tables")
    func removedBesideApplier() async throws {
        let (fixture, _) = try await Self.fixture()
        let applier = BlockingSession(fixture.targetURL)
        // It finds the deadlock late, so the end of the migration is the one that is refused.
        try await applier.execute("SET deadlock_timeout = '20s'; BEGIN; \(LinkRecords.touch(fixture.link))")
        let removal = Task { try await fixture.targetConnector.removeLink(fixture.link) }
        try await waitUntil("the removal waits for the applier") {
            try await fixture.cluster.psql(
                fixture.targetURL,
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'DELETE FROM _bridge.link %'") == "1"
        }
        try await applier.execute("INSERT INTO k VALUES (1, 'late'); COMMIT")
        try await removal.value
        #expect(try await fixture.cluster.psql(fixture.targetURL, "SELECT count(*) FROM k") == "1")
        #expect(try await fixture.cluster.psql(fixture.targetURL, "SELECT count(*) FROM pg_namespace WHERE nspname = '_bridge'") == "0")
        try await fixture.end()
    }

    @Test("K16 every kind of write by others is recorded with its key, under the application's own settings and rights")
    func recorded() async throws {
        let (fixture, target) = try await Self.fixture()
        try await target.watchForeignWrites()
        #expect(try await target.foreignWrites(after: 0, limit: 100).isEmpty)
        let role = "app_\(fixture.link.migration)"
        try await fixture.cluster.psql(
            fixture.targetURL, "CREATE ROLE \(role) LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON t, p, p1, p2, k TO \(role)")
        let name = String(fixture.targetURL.split(separator: "/")[2].prefix { $0 != "?" })
        let application = fixture.cluster.uri(name, user: role)
        var last: Int64 = 0
        func expect(_ sql: String, _ lines: [String], _ location: SourceLocation = #_sourceLocation) async throws {
            try await fixture.cluster.psql(application, "SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; \(sql)")
            let writes = try await target.foreignWrites(after: last, limit: 100)
            #expect(try Self.text(writes) == lines.sorted(), sourceLocation: location)
            #expect(writes.allSatisfy { $0.number > last && $0.writtenAt != nil }, sourceLocation: location)
            last = writes.map(\.number).max() ?? last
        }
        let time = "s2024-01-01 00:00:00.000000Z"
        try await expect("INSERT INTO t VALUES ('a', 1, '2024-01-01 09:00+09'), ('b', 2, '2024-01-01 09:00+09')", ["public.t i1|\(time)", "public.t i2|\(time)"])
        try await expect("UPDATE t SET v = 'c' WHERE id = 1", ["public.t i1|\(time)"])
        try await expect("UPDATE t SET id = 3 WHERE id = 1", ["public.t i1|\(time)", "public.t i3|\(time)"])
        try await expect("INSERT INTO t VALUES ('d', 2, '2024-01-01 09:00+09') ON CONFLICT (id, at) DO UPDATE SET v = 'd'", ["public.t i2|\(time)"])
        try await expect("UPDATE t SET v = 'e' WHERE id = 77", [])
        try await expect("BEGIN; DELETE FROM t; ROLLBACK", [])
        try await expect("DELETE FROM t WHERE id = 3", ["public.t i3|\(time)"])
        try await expect("TRUNCATE t", ["public.t whole"])
        try await expect("INSERT INTO p VALUES (5, 'a'), (105, 'b')", ["public.p i105", "public.p i5"])
        try await expect("UPDATE p1 SET v = 'x'", ["public.p i5"])
        try await expect("UPDATE p SET id = 106 WHERE id = 5", ["public.p i106", "public.p i5"])
        try await expect("DELETE FROM p2 WHERE id = 105", ["public.p i105"])
        try await expect("TRUNCATE p2", ["public.p whole"])
        try await expect("COPY k FROM STDIN;\n1\t\\N\n\\N\tit's\n\\.\n", ["public.k i1|NULL", "public.k NULL|sit's"])
        try await expect("UPDATE k SET b = 'y' WHERE a = 1", ["public.k i1|NULL", "public.k i1|sy"])
        #expect(try await target.foreignWrites(after: 0, limit: 3).map(\.number) == [1, 2, 3])
        try await fixture.end()
        try await fixture.cluster.psql(fixture.targetURL, "DROP OWNED BY \(role); DROP ROLE \(role)")
    }

    @Test("K16 the applier's own writes are not recorded")
    func applier() async throws {
        let (fixture, target) = try await Self.fixture()
        let applier = try await fixture.targetConnector.openApplier(fixture.link)
        var writer = BatchWriter(relations: [relation(1, "p", [("id", "integer"), ("v", "text")])], lsn: 5_000)
        for rows in [1, 150] {
            writer.begin()
            writer.truncate([1])
            for row in 0..<rows { writer.insert(1, [.text("\(row)"), "x"]) }
            writer.update(1, ["0", "z"])
            writer.delete(1, ["0", .absent])
            writer.commit()
            try await applier.apply(writer.take())
        }
        await applier.close()
        #expect(try await fixture.cluster.psql(fixture.targetURL, "SELECT count(*) FROM p") == "149")
        #expect(try await target.foreignWrites(after: 0, limit: 10).isEmpty)
        try await fixture.end()
    }

    @Test("K16 a write that commits after a later one was read is not passed over")
    func lateCommit() async throws {
        let (fixture, target) = try await Self.fixture()
        let slow = try PostgresConnection(try ConnectionString(fixture.targetURL))
        try slow.execute("BEGIN; INSERT INTO public.k VALUES (1, 'slow')")
        try await fixture.cluster.psql(fixture.targetURL, "INSERT INTO k VALUES (2, 'quick')")
        let first = try await target.foreignWrites(after: 0, limit: 10)
        #expect(try Self.text(first) == ["public.k i2|squick"])
        try slow.execute("COMMIT")
        #expect(try Self.text(try await target.foreignWrites(after: first[0].number, limit: 10)) == ["public.k i1|sslow"])
        try await fixture.end()
    }

    @Test("K15 a watch that is not whole is told, and a new one counts every table as written")
    func broken() async throws {
        let (fixture, target) = try await Self.fixture()
        let suffix = fixture.link.migration
        for damage in [
            "ALTER TABLE t DISABLE TRIGGER bwi_\(suffix)", "ALTER TABLE t ENABLE ALWAYS TRIGGER bwi_\(suffix)",
            "ALTER TABLE t ENABLE REPLICA TRIGGER bwu_\(suffix)", "ALTER TABLE t DISABLE TRIGGER ALL",
            "ALTER TABLE t DISABLE TRIGGER bwd_\(suffix); DELETE FROM t; ALTER TABLE t ENABLE TRIGGER bwd_\(suffix)",
            "ALTER TABLE t DISABLE TRIGGER bxi_\(suffix)", "ALTER TABLE p1 ENABLE TRIGGER bxr_\(suffix)",
            "ALTER TABLE t DISABLE TRIGGER bxd_\(suffix); ALTER TABLE t ENABLE ALWAYS TRIGGER bxd_\(suffix)",
            Self.madeAnew("pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'bwd_\(suffix)' AND tgrelid = 't'::regclass", "DROP TRIGGER bwd_\(suffix) ON t"),
            Self.madeAnew("pg_get_functiondef('_bridge.w2_\(suffix)'::regproc)", "SELECT"),
            "DROP TRIGGER bwt_\(suffix) ON t", "DROP TRIGGER bwt_\(suffix) ON p2", "ALTER TABLE p1 DISABLE TRIGGER USER",
            "CREATE OR REPLACE FUNCTION _bridge.w0_\(suffix)() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NULL; END'",
            "ALTER FUNCTION _bridge.w0_\(suffix)() SECURITY INVOKER", "CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (200) TO (300)",
            "ALTER TABLE t RENAME TO old; CREATE TABLE t (v text, id int, at timestamptz, PRIMARY KEY (id, at))",
        ] {
            let last = try await target.foreignWrites(after: 0, limit: 1_000).last?.number ?? 0
            try await fixture.cluster.psql(fixture.targetURL, damage)
            let error = try await failure { try await target.foreignWrites(after: 0, limit: 10) }
            #expect(error.code == .captureBroken, "\(damage)")
            try await target.watchForeignWrites()
            let writes = try await target.foreignWrites(after: last, limit: 10)
            #expect(try Self.text(writes) == ["public.k whole", "public.p whole", "public.t whole"], "\(damage)")
        }
        try await fixture.end()
    }

    /// What makes a thing anew with the same text.
    private static func madeAnew(_ text: String, _ drop: String) -> String {
        "DO $do$ DECLARE d text; BEGIN d := (SELECT \(text)); EXECUTE '\(drop)'; DELETE FROM t; EXECUTE d; END $do$"
    }

    @Test("K16 what a trigger writes in the applier's session is recorded, and the applier's own writes are not")
    func triggersOfTheApplier() async throws {
        let fixture = try await ComparisonFixture(
            """
            CREATE TABLE a (id int PRIMARY KEY, v text);
            CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
            CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
            CREATE TABLE k (a int, b text);
            """, tables: ["a", "p", "k"])
        for table in 0..<3 { _ = try await fixture.requests(table) }
        let target = try #require(fixture.target.target)
        try await target.watchForeignWrites()
        try await fixture.cluster.psql(
            fixture.targetURL,
            """
            CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $f$ BEGIN
              IF NEW.v = 'insert' THEN INSERT INTO k VALUES (NEW.id, 'n'); INSERT INTO p VALUES (NEW.id, 'n'), (NEW.id + 100, 'n');
              ELSIF NEW.v = 'update' THEN UPDATE k SET b = 'm'; UPDATE p SET id = 102 WHERE id = 1;
              ELSIF NEW.v = 'delete' THEN DELETE FROM k; DELETE FROM p2 WHERE id = 102;
              ELSIF NEW.v = 'empty' THEN TRUNCATE k, p1; END IF; RETURN NULL; END $f$;
            CREATE TRIGGER always AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION public.f(); ALTER TABLE a ENABLE ALWAYS TRIGGER always;
            CREATE FUNCTION public.g() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $f$ BEGIN
              INSERT INTO k VALUES (0, 'g'); RETURN NULL; END $f$;
            CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON a DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.g();
            ALTER TABLE a ENABLE REPLICA TRIGGER late;
            """)
        let applier = try await fixture.targetConnector.openApplier(fixture.link)
        let columns = [("id", "integer"), ("v", "text")]
        var writer = BatchWriter(relations: [relation(1, "a", columns), relation(2, "p", columns)], lsn: 5_000)
        var last: Int64 = 0
        func expect(_ lines: [String], _ location: SourceLocation = #_sourceLocation, _ write: (inout BatchWriter) -> Void) async throws {
            writer.begin()
            write(&writer)
            writer.commit()
            try await applier.apply(writer.take())
            let writes = try await target.foreignWrites(after: last, limit: 100)
            #expect(try Self.text(writes) == lines.sorted(), sourceLocation: location)
            last = writes.last?.number ?? last
        }
        try await expect([]) { $0.insert(2, ["50", "own"]); $0.insert(2, ["150", "own"]) }
        try await expect([]) { $0.truncate([1, 2]); $0.insert(2, ["50", "own"]); $0.insert(1, ["7", "own"]) }
        try await expect(["public.k i1|sn", "public.p i1", "public.p i101"]) { $0.insert(1, ["1", "insert"]) }
        try await expect(["public.k i1|sn", "public.k i1|sm", "public.p i1", "public.p i102"]) { $0.insert(1, ["2", "update"]) }
        try await expect(["public.k i1|sm", "public.p i102"]) { $0.insert(1, ["3", "delete"]) }
        try await expect(["public.k whole", "public.p whole"]) { $0.insert(1, ["4", "empty"]) }
        try await expect(["public.k i0|sg"]) { $0.update(1, ["7", "z"]) }
        try await expect([]) { $0.delete(1, ["7", .absent]); $0.truncate([2]) }
        await applier.close()
        #expect(try await fixture.cluster.psql(fixture.targetURL, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM a") == "1 2 3 4")
        try await fixture.end()
    }

    @Test("K16 a table that was rewritten or emptied past the triggers counts as written, once")
    func rewritten() async throws {
        let fixture = try await ComparisonFixture(
            "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN moods AS mood[]; \(Self.schema) ALTER TABLE k ADD m moods;",
            tables: ["t", "p", "k"])
        for table in 0..<3 { _ = try await fixture.requests(table) }
        let target = try #require(fixture.target.target)
        try await target.watchForeignWrites()
        try await fixture.cluster.psql(fixture.targetURL, "INSERT INTO t VALUES ('a', 1, 'now'); INSERT INTO p VALUES (1, 'a'), (101, 'b'); INSERT INTO k VALUES (1, 'a', '{sad}')")
        var last = try await target.foreignWrites(after: 0, limit: 100).last?.number ?? 0
        for (statement, lines) in [
            ("ALTER TABLE t ALTER v TYPE text USING upper(v)", ["public.t whole"]),
            ("ALTER TABLE p ALTER v TYPE text USING upper(v)", ["public.p whole"]),
            ("ALTER TYPE mood RENAME VALUE 'sad' TO 'bad'", ["public.k whole"]),
            ("CLUSTER t USING t_pkey; VACUUM FULL p1", ["public.p whole", "public.t whole"]),
            ("SET session_replication_role = replica; TRUNCATE k, p2", ["public.k whole", "public.p whole"]),
            ("SET session_replication_role = replica; BEGIN; TRUNCATE k, p2; ROLLBACK", []),
            ("VACUUM; ANALYZE; VACUUM (FREEZE, ANALYZE) t; GRANT SELECT ON t, p, k TO PUBLIC; CREATE INDEX ON k (a); SELECT FROM t", []),
            ("ALTER TABLE t ALTER v SET DEFAULT 'x', ALTER v SET STATISTICS 7; REINDEX TABLE t", []),
        ] {
            try await fixture.cluster.psql(fixture.targetURL, statement)
            let writes = try await target.foreignWrites(after: last, limit: 100)
            #expect(try Self.text(writes) == lines, "\(statement)")
            last = writes.last?.number ?? last
            #expect(try await target.foreignWrites(after: last, limit: 100).isEmpty, "\(statement)")
        }
        // A watch that is asked for again does not forget what happened in between.
        try await fixture.cluster.psql(fixture.targetURL, "ALTER TABLE t ALTER v TYPE text USING lower(v)")
        try await target.watchForeignWrites()
        #expect(try Self.text(try await target.foreignWrites(after: last, limit: 100)) == ["public.t whole"])
        try await fixture.end()
    }

    @Test("K16 removing the link leaves no trace of the watch")
    func removal() async throws {
        let (fixture, _) = try await Self.fixture()
        try await fixture.cluster.psql(fixture.targetURL, "INSERT INTO k VALUES (1, 'a')")
        try await fixture.end()
        #expect(
            try await fixture.cluster.psql(
                fixture.targetURL,
                "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal), (SELECT count(*) FROM pg_namespace WHERE nspname = '_bridge'), (SELECT count(*) FROM pg_proc WHERE proname ~ '^w[0-9]')"
            ) == "0|0|0")
        try await fixture.cluster.psql(fixture.targetURL, "INSERT INTO k VALUES (2, 'b'); TRUNCATE t, p, k")
    }
}

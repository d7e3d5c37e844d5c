import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

struct CutoverFactsTests {
    @Test("C10 P27 foreign keys that rows break are named with how many, among, from and to the tables")
    func foreignKeys() async throws {
        let fixture = try await CutoverFixture(
            """
            CREATE TABLE a (id int PRIMARY KEY, "X y" bigint UNIQUE); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a, x int REFERENCES a ("X y"));
            CREATE TABLE outside (id int PRIMARY KEY); CREATE TABLE c (o int CONSTRAINT to_outside REFERENCES outside);
            CREATE TABLE from_outside (b int REFERENCES b);
            CREATE TABLE two (m int, n int, PRIMARY KEY (m, n));
            CREATE TABLE simple (m int, n int, FOREIGN KEY (m, n) REFERENCES two); CREATE TABLE whole (m int, n int, FOREIGN KEY (m, n) REFERENCES two MATCH FULL);
            CREATE TABLE p (id int PRIMARY KEY, up int REFERENCES p) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
            CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
            CREATE TABLE loose (a int); ALTER TABLE loose ADD FOREIGN KEY (a) REFERENCES a NOT VALID;
            CREATE TABLE heir () INHERITS (a); CREATE TABLE elsewhere (id int REFERENCES outside);
            """, tables: ["a", "b", "c", "two", "simple", "whole", "p", "loose"])
        try await fixture.sql("INSERT INTO a VALUES (1, 10); INSERT INTO b VALUES (1, 1, 10), (2, NULL, NULL); INSERT INTO simple VALUES (1, NULL); INSERT INTO whole VALUES (NULL, NULL); INSERT INTO p VALUES (1, NULL), (101, 1), (2, 101)")
        #expect(try await fixture.session.facts(of: fixture.tables).brokenForeignKeys == [:])
        try await fixture.sql(
            """
            SET session_replication_role = replica; INSERT INTO b VALUES (3, 7, 10), (4, 8, 11), (5, 1, NULL); INSERT INTO c VALUES (1);
            INSERT INTO from_outside VALUES (1), (77), (78), (NULL); INSERT INTO simple VALUES (1, 1), (NULL, 2); INSERT INTO whole VALUES (1, NULL), (2, 2);
            INSERT INTO p VALUES (3, 102); INSERT INTO loose VALUES (99); INSERT INTO heir VALUES (8); INSERT INTO elsewhere VALUES (1);
            INSERT INTO p SELECT g, 150 FROM generate_series(4, 99) g
            """)
        let broken = try await fixture.session.facts(of: fixture.tables).brokenForeignKeys
        #expect(broken == [
            "b_a_fkey on public.b": 2, "b_x_fkey on public.b": 1, "to_outside on public.c": 1, "from_outside_b_fkey on public.from_outside": 2,
            "simple_m_n_fkey on public.simple": 1, "whole_m_n_fkey on public.whole": 2, "p_up_fkey on public.p": 97,
        ])
        try await fixture.sql("SET session_replication_role = replica; INSERT INTO c SELECT 5 FROM generate_series(1, 3000)")
        #expect(try await fixture.session.facts(of: [fixture.tables[2]]).brokenForeignKeys == ["to_outside on public.c": Int64(CutoverFactsReader.countedRows)])
        try await fixture.end()
    }

    @Test("C10 the oldest transaction of others is told with its process; bridge's own are not others")
    func oldest() async throws {
        let fixture = try await CutoverFixture("CREATE TABLE t (id int PRIMARY KEY)", tables: ["t"])
        func facts() async throws -> CutoverFacts { try await fixture.session.facts(of: fixture.tables) }
        #expect(try await facts().oldestTransactionAge == nil)
        #expect(try await facts().oldestTransactionProcess == nil)
        let own = try PostgresConnection(try ConnectionString(fixture.url), applicationName: "bridge check \(fixture.migration)")
        try own.execute("BEGIN; SELECT 1")
        #expect(try await facts().oldestTransactionProcess == nil)
        let first = try fixture.application()
        try first.execute("BEGIN; SELECT 1")
        let second = try fixture.application()
        try second.execute("BEGIN; INSERT INTO t VALUES (1)")
        var seen = try await facts()
        #expect(seen.oldestTransactionProcess == "\(first.backendProcess)" && (seen.oldestTransactionAge ?? .zero) > .zero)
        try first.execute("COMMIT")
        seen = try await facts()
        #expect(seen.oldestTransactionProcess == "\(second.backendProcess)")
        try second.execute("ROLLBACK")
        #expect(try await facts().oldestTransactionProcess == nil)
        try await fixture.end()
    }

    @Test("C10 a role that owns the tables, and no more, can do all; what it lacks is told with the GRANT that mends it")
    func rights() async throws {
        let fixture = try await CutoverFixture("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE mine (id serial PRIMARY KEY)", tables: ["t", "mine"])
        let (role, owner, database) = ("role_\(fixture.suffix)", "owner_\(fixture.suffix)", fixture.database)
        try await fixture.sql("CREATE ROLE \(role) LOGIN; CREATE ROLE \(owner); ALTER TABLE mine OWNER TO \(role); ALTER TABLE t OWNER TO \(owner); GRANT SELECT ON t TO \(role)")
        let session = try await PostgresTarget(connectionString: fixture.cluster.uri(database, user: role)).openCutover(migration: fixture.migration)
        let facts = try await session.facts(of: fixture.tables)
        #expect(facts.unfenceable[fixture.tables[0]] == "the role does not own public.t, and only an owner can fence it; GRANT \(owner) TO \"\(role)\"")
        #expect(facts.unfenceable[fixture.tables[1]] == "the role may not make the fence's function in the schema _bridge; GRANT CREATE ON DATABASE \(database) TO \"\(role)\"")
        let first = try await failure { try await session.raise(fixture.fence(), patience: .zero) }
        #expect(first.code == .rightsMissing && first.hint == "GRANT \(owner) TO \"\(role)\"", "\(first)")
        try await fixture.sql(first.hint)
        for _ in 0..<2 {
            let second = try await failure { try await session.raise(fixture.fence(), patience: .zero) }
            #expect(second.code == .rightsMissing && second.hint == "GRANT CREATE ON DATABASE \(database) TO \"\(role)\"", "\(second)")
        }
        try await fixture.sql("GRANT CREATE ON DATABASE \(database) TO \(role)")
        try await session.raise(fixture.fence(), patience: .seconds(30))
        try await expectFenced(fixture, "INSERT INTO mine VALUES (1)", user: role)
        try await expectFenced(fixture, "INSERT INTO t VALUES (1)")
        #expect(try await session.facts(of: fixture.tables).unfenceable.isEmpty)
        try await session.makePermanent(attempt: "a1", tables: fixture.tables, margin: .zero)
        try await session.takeLease(owner: "o", lasting: .seconds(60))
        try await session.writeMarker("m", link: fixture.link)
        try await session.publish([Route(service: "s", reads: "target", writes: "target", epoch: 1, publishedAt: .now)])
        try await session.advance([SequenceTarget(table: fixture.tables[1], column: "id", value: 5)])
        // What others do cannot be seen: that there is something is.
        let other = try fixture.application()
        try other.execute("BEGIN; SELECT 1")
        let hidden = try await failure { try await session.facts(of: fixture.tables) }
        #expect(hidden.code == .rightsMissing && hidden.hint == "GRANT pg_read_all_stats TO \"\(role)\"", "\(hidden)")
        try await fixture.sql(hidden.hint)
        #expect(try await session.facts(of: fixture.tables).oldestTransactionProcess == "\(other.backendProcess)")
        try other.execute("COMMIT")
        try await session.removeAll()
        #expect(try await fixture.traces() == "")
        await session.close()
        // A schema that is there, and is somebody else's.
        try await fixture.sql("REVOKE CREATE ON DATABASE \(database) FROM \(role)")
        try await fixture.session.takeLease(owner: "o", lasting: .seconds(60))
        let again = try await PostgresTarget(connectionString: fixture.cluster.uri(database, user: role)).openCutover(migration: "else")
        #expect(try await again.facts(of: fixture.tables).unfenceable[fixture.tables[0]]?.contains("GRANT USAGE, CREATE ON SCHEMA _bridge TO \"\(role)\"") == true)
        await again.close()
        try await fixture.end()
        try await fixture.sql("REASSIGN OWNED BY \(role), \(owner) TO postgres; DROP OWNED BY \(role), \(owner); DROP ROLE \(role), \(owner)")
    }

    @Test("C1 C10 what is no table, or is kept elsewhere, cannot be fenced and is told")
    func unfenceable() async throws {
        let fixture = try await CutoverFixture(
            """
            CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT * FROM t; CREATE MATERIALIZED VIEW m AS SELECT * FROM t;
            CREATE FOREIGN DATA WRAPPER none; CREATE SERVER nowhere FOREIGN DATA WRAPPER none; CREATE FOREIGN TABLE f (id int) SERVER nowhere;
            CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE FOREIGN TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9) SERVER nowhere;
            """, tables: ["t", "v", "m", "f", "p", "none"])
        let found = try await fixture.session.facts(of: fixture.tables).unfenceable
        #expect(Dictionary(uniqueKeysWithValues: found.map { ($0.key.name, $0.value) }) == [
            "v": "public.v is a view, and only tables can be fenced", "m": "public.m is a materialized view, and only tables can be fenced",
            "f": "public.f is a foreign table, and only tables can be fenced", "p": "public.p1 is a foreign table, whose rows are written elsewhere",
            "none": "there is no table public.none",
        ])
        for table in ["v", "none"] {
            #expect(try await failure { try await fixture.session.raise(fixture.fence(tables: [table]), patience: .zero) }.code == .tableMissing)
        }
        #expect(try await failure { try await fixture.session.raise(fixture.fence(tables: ["p"]), patience: .zero) }.code == .sourceUnsupported)
        try await fixture.end()
    }

    @Test("C10 the fingerprint of the definitions changes with what matters, and with nothing else")
    func fingerprint() async throws {
        let schema = """
            CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN short AS varchar(9) CHECK (value <> ''); CREATE TYPE pair AS (a int, m mood);
            CREATE TABLE ref (id int PRIMARY KEY);
            CREATE TABLE t (id int PRIMARY KEY, v text, s short, q pair[], n numeric(5, 2) DEFAULT 1, g int GENERATED ALWAYS AS (id + 1) STORED);
            CREATE TABLE p (id int PRIMARY KEY, r int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
            """
        let fixture = try await CutoverFixture(schema, tables: ["t", "p"])
        let twin = try await CutoverFixture("CREATE TABLE unrelated (id int); " + schema, tables: ["p", "t"])
        func read(_ fixture: CutoverFixture) async throws -> [String: String] {
            let found = try await fixture.session.schemaFingerprints(of: fixture.tables)
            return Dictionary(uniqueKeysWithValues: found.map { ($0.key.name, $0.value) })
        }
        var last = try await read(fixture)
        #expect(last.keys.sorted() == ["p", "t"] && last.values.allSatisfy { $0.utf8.count == 32 })
        #expect(try await read(twin) == last)
        for harmless in [
            "INSERT INTO t (id, v) VALUES (1, 'a'); INSERT INTO p VALUES (1)", "VACUUM FULL t", "ANALYZE", "CREATE INDEX i ON t (v)", "GRANT SELECT ON t TO PUBLIC",
            "COMMENT ON TABLE t IS 'x'", "ALTER TABLE t ALTER n SET DEFAULT 2", "ALTER TABLE t SET (fillfactor = 50)", "TRUNCATE p", "REINDEX TABLE t", "CLUSTER t USING i",
            "ALTER TABLE t ALTER v SET STATISTICS 50", "CREATE TABLE other (id int)",
        ] {
            try await fixture.sql(harmless)
            #expect(try await read(fixture) == last, "\(harmless)")
        }
        try await fixture.raise()
        #expect(try await read(fixture) == last)
        try await fixture.session.removeFence(attempt: nil, tables: fixture.tables)
        for change in [
            "ALTER TABLE t ADD w int", "ALTER TABLE t RENAME w TO x", "ALTER TABLE t ALTER x TYPE bigint", "UPDATE t SET x = 0; ALTER TABLE t ALTER x SET NOT NULL", "ALTER TABLE t DROP x",
            "ALTER TABLE t ALTER v TYPE text COLLATE \"C\"", "ALTER TABLE t ALTER n TYPE numeric(6, 2)", "ALTER TABLE t ALTER id ADD GENERATED ALWAYS AS IDENTITY",
            "ALTER TABLE t ADD CONSTRAINT u UNIQUE (v)", "CREATE UNIQUE INDEX iu ON t (n) WHERE n > 0", "ALTER TABLE t ADD CONSTRAINT c CHECK (id > 0) NOT VALID", "ALTER TABLE t VALIDATE CONSTRAINT c",
            "ALTER TABLE p ADD FOREIGN KEY (r) REFERENCES ref", "ALTER TYPE mood ADD VALUE 'new'", "ALTER TYPE mood RENAME VALUE 'sad' TO 'bad'",
            "ALTER DOMAIN short ADD CHECK (value <> 'x')", "ALTER TYPE pair ADD ATTRIBUTE z int", "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200)",
            "ALTER TABLE p DETACH PARTITION p1", "ALTER TABLE p2 REPLICA IDENTITY FULL", "ALTER TABLE t SET UNLOGGED", "ALTER TABLE t DROP CONSTRAINT u", "ALTER TABLE t ALTER g DROP EXPRESSION",
        ] {
            try await fixture.sql(change)
            let now = try await read(fixture)
            // Of the table that it is about, and of no other.
            let altered = change.hasPrefix("ALTER TABLE p") || change.hasPrefix("CREATE TABLE p") ? "p" : "t"
            #expect(now.filter { last[$0.key] != $0.value }.map(\.key) == [altered], "\(change)")
            last = now
        }
        try await twin.end()
        try await fixture.end()
    }

    @Test("C10 a table's fingerprint is the same whatever is asked for beside it; one that is not there has none")
    func fingerprintAlone() async throws {
        let fixture = try await CutoverFixture(
            """
            CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
            CREATE VIEW v AS SELECT * FROM p;
            """, tables: ["p", "p1", "v", "none"])
        let (p, p1) = (fixture.tables[0], fixture.tables[1])
        let all = try await fixture.session.schemaFingerprints(of: fixture.tables)
        #expect(Set(all.keys) == [p, p1] && all[p] != all[p1])
        for table in [p, p1] { #expect(try await fixture.session.schemaFingerprints(of: [table]) == [table: all[table]]) }
        try await fixture.sql("ALTER TABLE p1 ADD CHECK (id > 0)")
        let altered = try await fixture.session.schemaFingerprints(of: [p, p1])
        #expect(altered[p] != all[p] && altered[p1] != all[p1])
        try await fixture.end()
    }
}

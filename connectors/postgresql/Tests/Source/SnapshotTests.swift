import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

@Suite struct SnapshotTests {
    /// The rows of a table after a copy and the changes that follow it, as a target would have them: key → value.
    private struct Mirror {
        var rows: [String: String] = [:]

        mutating func load(_ lines: [String]) {
            for line in lines {
                let cells = line.split(separator: "|")
                #expect(rows.updateValue(String(cells[1]), forKey: String(cells[0])) == nil, "a row was copied twice")
            }
        }

        mutating func apply(_ line: String) {
            let cells = line.split { " (|)".contains($0) }.map(String.init)
            switch cells[0] {
            case "insert": #expect(rows.updateValue(cells[3], forKey: cells[2]) == nil, "an insert hits a row: \(line)")
            case "update" where cells[2] == "key":
                #expect(rows.removeValue(forKey: cells[3]) != nil, "an update hits no row: \(line)")
                #expect(rows.updateValue(cells[6], forKey: cells[5]) == nil, "a key change hits a row: \(line)")
            case "update": #expect(rows.updateValue(cells[3], forKey: cells[2]) != nil, "an update hits no row: \(line)")
            case "delete": #expect(rows.removeValue(forKey: cells[3]) != nil, "a delete hits no row: \(line)")
            default: Issue.record("unexpected \(line)")
            }
        }
    }

    @Test("P1 snapshot and stream fit together without gap or overlap under concurrent writers", arguments: [false, true])
    func fit(later: Bool) async throws {
        let fixture = try await SourceFixture(
            "CREATE TABLE t(id int PRIMARY KEY, v int); INSERT INTO t SELECT g, 0 FROM generate_series(1, 500) g",
            tables: ["t"], form: .canonical)
        let script = try TemporaryDirectory()
        try script.write(
            "script.sql",
            """
            \\set a random(1, 1000)
            \\set b random(1, 1000)
            BEGIN;
            INSERT INTO t VALUES (:a, 1) ON CONFLICT (id) DO UPDATE SET v = t.v + 1;
            DELETE FROM t WHERE id = :b;
            UPDATE t SET id = id + 100000 WHERE id = (SELECT min(id) FROM t WHERE id > :b AND id < 1000) AND NOT EXISTS (SELECT FROM t x WHERE x.id = t.id + 100000);
            COMMIT;
            """)
        let writers = try ChildProcess(
            [fixture.cluster.program("pgbench"), "-n", "-c", "4", "-T", "60", "--max-tries=100", "-f", script.path("script.sql"), fixture.uri])
        let origin = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false)
        let stream = try await fixture.open(origin, origin.position)
        // A copy that starts again later has a snapshot of its own, between transactions of the stream.
        if later {
            try await fixture.source.openSnapshot(fixture.link).close()
            for _ in 0..<50 { try await stream.step() }
        }
        let snapshot = try await fixture.source.openSnapshot(fixture.link)
        let table = try #require(try await fixture.source.describeTables([TableName(name: "t")]).first)
        let reader = try await snapshot.openTable(table, mapping: fixture.link.mappings[0], format: .rows)
        var mirror = Mirror()
        mirror.load(try await rowsText(reader))
        await snapshot.close()
        #expect(later ? reader.position > origin.position : reader.position == origin.position)
        for _ in 0..<50 { try await stream.step() }
        writers.send(signal: 15)
        _ = await writers.wait()
        // The server may still be busy with what a writer that is gone has sent.
        try await waitUntil {
            try await fixture.psql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgbench'") == "0"
        }
        try await stream.catchUp()

        var commits = stream.ends.makeIterator()
        var group: [String] = []
        var applied = 0
        for line in stream.takeLines() {
            if line.hasPrefix("commit") {
                let next = commits.next()
                let end = try #require(next)
                if end.position >= reader.position {
                    for change in group { mirror.apply(change) }
                    applied += 1
                }
                group = []
            } else if !line.hasPrefix("begin") && !line.hasPrefix("relation") {
                group.append(line)
            }
        }
        #expect(applied > 0 && (!later || applied < stream.ends.count))
        let rows = mirror.rows.map { "\($0.key.dropFirst())|\($0.value.dropFirst())" }.sorted()
        let expected = try await fixture.psql("SELECT id || '|' || v FROM t").split(separator: "\n").map(String.init).sorted()
        #expect(rows == expected)
        await stream.session.close()
    }

    @Test("P22 binary and text COPY streams load into another table as they are")
    func rawFormats() async throws {
        let fixture = try await SourceFixture(
            """
            CREATE TABLE t(id int PRIMARY KEY, "odd ""col" text, b bytea, n numeric, twice int GENERATED ALWAYS AS (id * 2) STORED);
            INSERT INTO t SELECT g, repeat(E'x\\t\\n\\\\', g % 5), decode(md5(g::text), 'hex'), g / 7.0 FROM generate_series(1, 1000) g;
            INSERT INTO t VALUES (0, NULL, NULL, 'NaN'), (-1, '\\.', '', 0); CREATE TABLE empty(id int PRIMARY KEY);
            CREATE TABLE copy(LIKE t INCLUDING ALL); CREATE TABLE child() INHERITS (t); INSERT INTO child VALUES (7777);
            """, tables: ["t", "empty"])
        _ = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false)
        let snapshot = try await fixture.source.openSnapshot(fixture.link)
        try await fixture.psql("DELETE FROM t WHERE id = 5")
        let tables = try await fixture.source.describeTables([TableName(name: "t"), TableName(name: "empty")])
        #expect(fixture.source.copyFormats(tables[0]) == [.postgresBinary, .postgresText, .rows])
        for (format, word) in [(CopyFormat.postgresBinary, "binary"), (.postgresText, "text")] {
            let reader = try await snapshot.openTable(tables[0], mapping: fixture.link.mappings[0], format: format)
            #expect(reader.columns.map(\.name) == ["id", "odd \"col", "b", "n"])
            let target = try PostgresConnection(try ConnectionString(fixture.uri))
            try target.beginCopyIn("COPY public.copy(id, \"odd \"\"col\", b, n) FROM STDIN (FORMAT \(word))")
            let rows = try await Loader(target).load(reader)
            #expect(rows == 1002)
            #expect(
                try await fixture.psql(
                    """
                    SELECT count(*) FROM copy; SELECT count(*) FROM (TABLE ONLY t EXCEPT TABLE copy) x;
                    SELECT string_agg(id::text, ',') FROM (TABLE copy EXCEPT TABLE ONLY t) x; TRUNCATE copy;
                    """) == "1002\n0\n5")

            let empty = try await snapshot.openTable(tables[1], mapping: fixture.link.mappings[1], format: format)
            let buffer = RecordBuffer()
            #expect(try await empty.read(into: buffer, limit: 1000) == 0)
            await empty.close()
        }
        await snapshot.close()
        let closed = try await failure {
            try await snapshot.openTable(tables[0], mapping: fixture.link.mappings[0], format: .rows)
        }
        #expect(closed.code == .internalFault)
    }

    @Test("P23 row filter and column list give the same rows in copy and stream")
    func partOfTable() async throws {
        let mapping = TableMapping(
            source: TableName(schema: "public", name: "t"), target: TableName(name: "t"), columns: ["id", "tenant", "name"],
            rowFilter: "tenant = 7")
        let fixture = try await SourceFixture(
            """
            CREATE TABLE t(secret text, name text, tenant int, id int, PRIMARY KEY (tenant, id));
            INSERT INTO t VALUES ('s', 'a', 7, 1), ('s', 'b', 8, 2)
            """, tables: [], form: .canonical, mappings: [mapping])
        #expect((try await fixture.source.preflight(fixture.link)).isEmpty)
        let (_, stream) = try await fixture.open()
        let snapshot = try await fixture.source.openSnapshot(fixture.link)
        let table = try #require(try await fixture.source.describeTables([mapping.source]).first)
        let reader = try await snapshot.openTable(table, mapping: mapping, format: .rows)
        #expect(try await rowsText(reader) == ["sa|i7|i1"])
        await snapshot.close()
        try await fixture.psql(
            "INSERT INTO t VALUES ('s', 'c', 7, 3), ('s', 'd', 9, 4); UPDATE t SET tenant = 7 WHERE id = 2; UPDATE t SET tenant = 9 WHERE id = 1; UPDATE t SET secret = 'z'")
        try await stream.catchUp()
        #expect(
            stream.takeChanges() == [
                "insert t (sc|i7|i3)", "insert t (sb|i7|i2)", "delete t key(-|i7|i1)", "update t (sc|i7|i3)", "update t (sb|i7|i2)",
            ])
        await stream.session.close()
    }

    @Test("P23 a filter or column list that would make the source refuse updates is refused, and nothing is made")
    func uncoveredFilter() async throws {
        for (columns, filter) in [(nil, "name = 'a'"), (["name"], nil), (["name", "tenant"], nil)] as [([String]?, String?)] {
            let mapping = TableMapping(
                source: TableName(name: "t"), target: TableName(name: "t"), columns: columns, rowFilter: filter)
            let fixture = try await SourceFixture(
                "CREATE TABLE t(id int PRIMARY KEY, name text, tenant int)", tables: [], mappings: [mapping])
            let error = try await failure { try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false) }
            #expect(error.code == .configurationInvalid)
            #expect(try await fixture.psql("SELECT count(*) FROM pg_publication") == "0")
            #expect(try await fixture.slotFact("count(*)") == "0")
            try await fixture.psql("INSERT INTO t VALUES (1, 'a', 1); UPDATE t SET name = 'b', tenant = 2")
        }
    }

    @Test("P30 a partitioned table is copied and streamed as one")
    func partitioned() async throws {
        let fixture = try await SourceFixture(
            """
            CREATE TABLE t(id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
            CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10); CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20);
            INSERT INTO t VALUES (1, 1), (2, 11)
            """, tables: ["t"])
        #expect(try await fixture.source.listTables().map(\.name.name) == ["t"])
        let (_, stream) = try await fixture.open()
        let snapshot = try await fixture.source.openSnapshot(fixture.link)
        let table = try #require(try await fixture.source.describeTables([TableName(name: "t")]).first)
        let reader = try await snapshot.openTable(table, mapping: fixture.link.mappings[0], format: .rows)
        #expect(try await rowsText(reader) == ["i1|i1", "i2|i11"])
        await snapshot.close()
        try await fixture.psql("INSERT INTO t VALUES (3, 3); UPDATE t SET k = 13 WHERE id = 3")
        try await stream.catchUp()
        #expect(stream.takeChanges() == ["insert t (3|3)", "delete t key(3|3)", "insert t (3|13)"])
        await stream.session.close()
    }

    @Test("P20 a table that was rewritten after the snapshot is not copied from it, where it would be empty")
    func rewritten() async throws {
        let partitioned = ["same_parts", "type_parts", "truncated_parts", "detached_parts", "attached_parts"]
        let plain = ["same", "parent", "added", "typed", "truncated", "clustered", "replaced"]
        var script = ""
        for table in plain {
            script += "CREATE TABLE \(table)(id int PRIMARY KEY, v int); INSERT INTO \(table) VALUES (1, 1), (2, 11);"
        }
        for table in partitioned {
            script += """
                CREATE TABLE \(table)(id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
                CREATE TABLE \(table)_1 PARTITION OF \(table) FOR VALUES FROM (0) TO (2);
                CREATE TABLE \(table)_2 PARTITION OF \(table) FOR VALUES FROM (2) TO (4) PARTITION BY RANGE (id);
                CREATE TABLE \(table)_3 PARTITION OF \(table)_2 FOR VALUES FROM (2) TO (4);
                INSERT INTO \(table) VALUES (1, 1), (2, 11);
                """
        }
        script += "CREATE TABLE child() INHERITS (parent); CREATE TABLE spare(id int PRIMARY KEY, v int)"
        let tables = plain + partitioned
        let fixture = try await SourceFixture(script, tables: tables)
        _ = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false)
        let schemas = try await fixture.source.describeTables(fixture.link.mappings.map(\.source))
        let snapshot = try await fixture.source.openSnapshot(fixture.link)
        try await fixture.psql(
            """
            UPDATE same SET v = 0; ANALYZE same; UPDATE same_parts SET v = 0; TRUNCATE child;
            ALTER TABLE same ADD COLUMN w int DEFAULT 1; ALTER TABLE same_parts ADD COLUMN w int DEFAULT 1;
            ALTER TABLE added ADD COLUMN w float8 DEFAULT random();
            ALTER TABLE typed ALTER COLUMN v TYPE bigint; TRUNCATE truncated; CLUSTER clustered USING clustered_pkey;
            DROP TABLE replaced; CREATE TABLE replaced(id int PRIMARY KEY, v int); INSERT INTO replaced VALUES (1, 1);
            ALTER TABLE type_parts ALTER COLUMN v TYPE bigint; TRUNCATE truncated_parts_3;
            ALTER TABLE detached_parts_2 DETACH PARTITION detached_parts_3;
            ALTER TABLE attached_parts ATTACH PARTITION spare FOR VALUES FROM (4) TO (6);
            """)
        for (mapping, schema) in zip(fixture.link.mappings, schemas) {
            #expect(mapping.source.name == schema.name.name)
            let name = schema.name.name
            if ["same", "parent", "same_parts"].contains(name) {
                let reader = try await snapshot.openTable(schema, mapping: mapping, format: .rows)
                #expect(try await rowsText(reader) == ["i1|i1", "i2|i11"], "\(name)")
                continue
            }
            for format in fixture.source.copyFormats(schema) {
                let error = try await failure { try await snapshot.openTable(schema, mapping: mapping, format: format) }
                #expect(error.code == .connectionLost && error.code.retry == .backoff, "\(name): \(error)")
                #expect(error.context.first { $0.key == .table }?.value == schema.name.description)
            }
        }
        await snapshot.close()

        // A new snapshot shows them.
        let next = try await fixture.source.openSnapshot(fixture.link)
        for (mapping, schema) in zip(fixture.link.mappings, schemas) {
            let name = schema.name.name
            let expected = ["truncated": [], "replaced": ["i1|i1"], "truncated_parts": ["i1|i1"], "detached_parts": ["i1|i1"]]
            let reader = try await next.openTable(schema, mapping: mapping, format: .rows)
            let same = ["i1|i" + (name.hasPrefix("same") ? "0" : "1"), "i2|i" + (name.hasPrefix("same") ? "0" : "11")]
            #expect(try await rowsText(reader).sorted() == expected[name] ?? same, "\(name)")
        }
        await next.close()
    }

    @Test("P20 the copy of a table that stays locked is serverBusy, and goes on afterwards")
    func locked() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t VALUES (1)", tables: ["t"])
        _ = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false)
        let table = try #require(try await fixture.source.describeTables([TableName(name: "t")]).first)
        let snapshot = try await fixture.source.openSnapshot(fixture.link)
        let session = BlockingSession(fixture.uri)
        try await session.execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        let error = try await failure {
            try await snapshot.openTable(table, mapping: fixture.link.mappings[0], format: .rows)
        }
        #expect(error.code == .serverBusy)
        #expect(error.context.first { $0.key == .table }?.value == table.name.description)
        try await session.execute("ROLLBACK")
        await session.close()
        let reader = try await snapshot.openTable(table, mapping: fixture.link.mappings[0], format: .rows)
        #expect(try await rowsText(reader) == ["i1"])
        await snapshot.close()
    }

    @Test("P15 a composite value with fields that are NULL is not taken for NULL")
    func composite() async throws {
        let fixture = try await SourceFixture(
            """
            CREATE TYPE pair AS (a int, b text); CREATE DOMAIN named AS pair; CREATE TABLE t(id int PRIMARY KEY, c pair, d named);
            INSERT INTO t VALUES (1, (1, NULL), (1, NULL)), (2, (NULL, NULL), (NULL, NULL)), (3, NULL, NULL), (4, (1, 'x'), (1, 'x'))
            """, tables: ["t"])
        _ = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false)
        let table = try #require(try await fixture.source.describeTables([TableName(name: "t")]).first)
        let snapshot = try await fixture.source.openSnapshot(fixture.link)
        let reader = try await snapshot.openTable(table, mapping: fixture.link.mappings[0], format: .rows)
        #expect(try await rowsText(reader) == ["i1|s(1,)|s(1,)", "i2|s(,)|s(,)", "i3|NULL|NULL", "i4|s(1,x)|s(1,x)"])
        await snapshot.close()
    }
}

/// Pushes what a reader gives into a COPY, the way a target's loader does.
private actor Loader {
    private nonisolated let executor = ThreadExecutor(name: "test-loader")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private let connection: PostgresConnection

    init(_ connection: sending PostgresConnection) { self.connection = connection }

    func load(_ reader: any CopyReader) async throws -> Int64 {
        let buffer = RecordBuffer()
        var rows: Int64 = 0
        while true {
            buffer.removeAll()
            let count = try await reader.read(into: buffer, limit: 5_000)
            try connection.writeCopy(buffer.bytes)
            rows += Int64(count)
            if count == 0 { break }
        }
        #expect(try connection.endCopyIn() == rows)
        await reader.close()
        return rows
    }
}

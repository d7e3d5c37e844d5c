import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

struct ViewTests {
    private static func session(_ uri: String) throws -> PostgresConnection {
        try PostgresConnection(try ConnectionString(uri), applicationName: "application")
    }

    private static func number(_ session: PostgresConnection) throws -> UInt64 {
        try #require(try session.rows("SELECT pg_current_xact_id()").first?[0].flatMap { UInt64($0) })
    }

    @Test("K1 a source view sees what its mark says: no open transaction, no sub-transaction, nothing later")
    func sourceMark() async throws {
        let fixture = try await ComparisonFixture(
            "CREATE TABLE t (id int PRIMARY KEY, v text)", tables: ["t"])
        let (request, _) = try await fixture.requests()
        let first = try Self.session(fixture.sourceURL)
        let second = try Self.session(fixture.sourceURL)
        try first.execute("BEGIN; INSERT INTO t VALUES (1, 'first'); SAVEPOINT a; INSERT INTO t VALUES (2, 'sub')".qualified)
        let open = try Self.number(first)
        try second.execute("BEGIN; SAVEPOINT a; INSERT INTO t VALUES (3, 'second'); RELEASE SAVEPOINT a".qualified)
        let ended = try Self.number(second)
        try second.execute("COMMIT")
        let view = try await fixture.source.openView()
        try first.execute("COMMIT")
        try second.execute("BEGIN; INSERT INTO t VALUES (4, 'later')".qualified)
        let later = try Self.number(second)
        try second.execute("COMMIT")
        #expect(!view.sees.sees(open, commit: .zero))
        #expect(view.sees.sees(ended, commit: .zero))
        #expect(!view.sees.sees(later, commit: .zero))
        #expect(try await drain(view.openRows(request)) == ["i3|ssecond"])
        #expect(try await view.digest(request, buckets: 1)[0].count == 1)
        let buffer = RecordBuffer()
        #expect(try await view.findRows(request, keys: [1, 2, 3, 4].map { key(.integer($0)) }, into: buffer) == 1)
        await view.close()
        let next = try await fixture.source.openView()
        #expect([open, ended, later].allSatisfy { next.sees.sees($0, commit: .zero) })
        #expect(try await drain(next.openRows(request)).count == 4)
        await next.close()
        try await fixture.end()
    }

    @Test("K1 a target view has the checkpoint and the rows of one moment")
    func targetMark() async throws {
        let fixture = try await ComparisonFixture("CREATE TABLE t (id int PRIMARY KEY, v text)", tables: ["t"])
        let (_, request) = try await fixture.requests()
        let view = try await fixture.target.openView()
        #expect(view.sees == .before(ComparisonFixture.frontier))
        let applier = try await fixture.targetConnector.openApplier(fixture.link)
        var writer = BatchWriter(relations: [relation(1, "t", [("id", "integer"), ("v", "text")])], lsn: 5_000)
        writer.begin()
        writer.insert(1, ["1", "a"])
        writer.commit()
        let batch = writer.take()
        let checkpoint = try #require(batch.checkpoint)
        try await applier.apply(batch)
        await applier.close()
        #expect(try await drain(view.openRows(request)).isEmpty)
        await view.close()
        let next = try await fixture.target.openView()
        #expect(next.sees == .before(checkpoint.frontier))
        #expect(try await drain(next.openRows(request)) == ["i1|sa"])
        await next.close()
        try await fixture.end()
    }

    @Test("K1 a later view uses the connection of an earlier one that was closed, with a picture and settings of its own")
    func keptConnection() async throws {
        let fixture = try await ComparisonFixture(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')", tables: ["t"])
        let (request, _) = try await fixture.requests()
        let sessions = """
            SELECT count(*), bool_or(state LIKE 'idle in%') FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'bridge check%'
            """
        let first = try await fixture.source.openView(sparing: true)
        #expect(try await first.digest(request, buckets: 1)[0].count == 1)
        let before = try await fixture.cluster.psql(fixture.sourceURL, sessions)
        await first.close()
        // Nothing is held open between two views.
        #expect(before.hasSuffix("|t"))
        #expect(try await fixture.cluster.psql(fixture.sourceURL, sessions) == before.dropLast() + "f")
        try await fixture.cluster.psql(fixture.sourceURL, "INSERT INTO t VALUES (2, 'b')")
        let second = try await fixture.source.openView()
        #expect(try await second.digest(request, buckets: 1)[0].count == 2)
        #expect(try await fixture.cluster.psql(fixture.sourceURL, sessions) == before)
        // A second one at the same time has one of its own.
        let third = try await fixture.source.openView()
        await third.close()
        await second.close()
        // One that died while nobody used it is not missed.
        try await fixture.cluster.psql(
            fixture.sourceURL,
            """
            SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'bridge check%'
            """)
        let fourth = try await fixture.source.openView()
        #expect(try await fourth.digest(request, buckets: 1)[0].count == 2)
        await fourth.close()
        try await fixture.end()
    }

    @Test("K1 a table rewritten after the snapshot is refused, not read as empty")
    func rewritten() async throws {
        for statement in ["TRUNCATE t", "ALTER TABLE t ALTER v TYPE varchar(9)", "CLUSTER t USING t_pkey"] {
            let fixture = try await ComparisonFixture(
                "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')", tables: ["t"])
            let (request, _) = try await fixture.requests()
            let view = try await fixture.source.openView()
            try await fixture.cluster.psql(fixture.sourceURL, statement)
            let error = try await failure { try await view.openRows(request) }
            #expect(error.code == .connectionLost, "\(statement): \(error)")
            await view.close()
            // Once it was read, the view's lock holds the rewrite off.
            let next = try await fixture.source.openView()
            let (again, _) = try await fixture.requests()
            _ = try await next.digest(again, buckets: 1)
            await #expect(throws: ChildProcess.Failure.self) {
                try await fixture.cluster.psql(fixture.sourceURL, "SET lock_timeout = '100ms'; \(statement)")
            }
            await next.close()
            try await fixture.end()
        }
    }

    @Test("K18 a stream closed before its end leaves the view as it was, and other calls may come between its reads")
    func earlyClose() async throws {
        let fixture = try await ComparisonFixture(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g",
            tables: ["t"])
        let (request, _) = try await fixture.requests()
        let view = try await fixture.source.openView()
        let buffer = RecordBuffer()
        let stream = try await view.openRows(request)
        let count = try await stream.read(into: buffer, limit: 10_000)
        #expect(count > 0 && count < 20 && buffer.count < 12_000)
        #expect(try await view.digest(request, buckets: 1)[0].count == 20_000)
        buffer.removeAll()
        #expect(try await view.findRows(request, keys: [key(.integer(7))], into: buffer) == 1)
        #expect(try await stream.read(into: buffer, limit: 1) == 1)
        await stream.close()
        _ = try await failure { try await stream.read(into: buffer, limit: 1) }
        try await fixture.cluster.psql(fixture.sourceURL, "DELETE FROM t WHERE id > 10")
        #expect(try await drain(view.openRows(request)).count == 20_000)
        #expect(try await view.digest(request, buckets: 1)[0].count == 20_000)
        await view.close()
        try await waitUntil("the sessions to end") {
            try await fixture.cluster.psql(fixture.sourceURL, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'") == "0"
        }
        try await fixture.end()
    }

    @Test("K1 a view is given up where somebody who waits to empty its table would keep its rows from being read")
    func waitedFor() async throws {
        let fixture = try await ComparisonFixture(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'one')", tables: ["t"])
        let (request, _) = try await fixture.requests()
        let view = try await fixture.source.openView()
        let buffer = RecordBuffer()
        #expect(try await view.findRows(request, keys: [key(.integer(1))], into: buffer) == 1)
        let (cluster, url) = (fixture.cluster, fixture.sourceURL)
        // If both waited for each other for ever, the server would end this one, and the test fails instead of standing still.
        let emptying = Task { try await cluster.psql(url, "SET statement_timeout = '30s'; TRUNCATE t") }
        let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted"
        try await waitUntil("the TRUNCATE to queue") { try await cluster.psql(url, waiting) == "1" }
        let error = await #expect(throws: BridgeError.self) { try await view.openRows(request) }
        #expect(error?.code == .connectionLost)
        await view.close()
        _ = try await emptying.value
        let next = try await fixture.source.openView()
        #expect(try await drain(next.openRows(request)) == [])
        await next.close()
        try await fixture.end()
    }

    @Test("K6 lookups by canonical and native keys, of several columns, with what is not there")
    func lookups() async throws {
        let fixture = try await ComparisonFixture(
            """
            CREATE TYPE mood AS ENUM ('sad', 'happy');
            CREATE TABLE t (v text, a int, m mood, at timestamptz, n numeric, q text, PRIMARY KEY (a, m, at, n, q));
            INSERT INTO t VALUES ('one', 1, 'sad', '2024-01-01 00:00:00Z', 1.50, E'it''s "q" \\\\ {,}'),
              ('two', 2, 'happy', 'infinity', 'NaN', U&'''\\0301');
            """, tables: ["t"], rowFilter: "a < 10")
        let (request, _) = try await fixture.requests()
        let view = try await fixture.source.openView()
        let one = key(.integer(1), "sad", .string("2024-01-01 00:00:00.000000Z"), .string("1.5"), .string("it's \"q\" \\ {,}"))
        let native = key("1", "sad", "2024-01-01 00:00:00+00", "1.50", "it's \"q\" \\ {,}")
        let two = key(.integer(2), .string("happy"), .string("infinity"), .string("NaN"), .string("'\u{301}"))
        let absent = [
            key(.integer(3), "sad", .string("infinity"), .string("1"), .string("x")),
            // None of these is a value of its column.
            key(.integer(1), "angry", .string("2024-01-01 00:00:00.000000Z"), .string("1.5"), .string("x")),
            key(.integer(5_000_000_000), "sad", .string("infinity"), .string("1"), .string("x")),
            key(.string("one"), "sad", .string("infinity"), .string("1"), .string("x")),
            key("abc", "sad", "infinity", "1", "x"),
            key(.integer(1), "sad", .string("2024-01-01 00:00:00.000000Z"), .string("1.5"), nil),
        ]
        let buffer = RecordBuffer()
        let first = "sone|i1|ssad|s2024-01-01 00:00:00.000000Z|s1.50|sit's \"q\" \\ {,}"
        let second = "stwo|i2|shappy|sinfinity|sNaN|s'\u{301}"
        #expect(try await view.findRows(request, keys: [one, two, one, native] + absent, into: buffer) == 2)
        #expect(try lines(buffer) == [first, second])
        buffer.removeAll()
        #expect(try await view.findRows(request, keys: [native], into: buffer) == 1)
        #expect(try lines(buffer) == [first])
        buffer.removeAll()
        #expect(try await view.findHashes(request, keys: absent + [two], into: buffer) == 1)
        #expect(try lines(buffer)[0].hasPrefix("i2|shappy|sinfinity|sNaN|s'\u{301}|i"))
        #expect(try await view.findRows(request, keys: absent, into: buffer) == 0)
        #expect(try await view.findRows(request, keys: [], into: buffer) == 0)
        // The lookup's failures have not hurt the view; the row filter counts.
        #expect(try await view.digest(request, buckets: 1)[0].count == 2)
        var filtered = request
        filtered.rowFilter = "a <> 1"
        buffer.removeAll()
        #expect(try await view.findRows(filtered, keys: [one, two], into: buffer) == 1)
        await view.close()
        try await fixture.end()
    }

    @Test("K6 keys of an extension's type, and keys that are NULL or twice on a target without the source's key")
    func oddKeys() async throws {
        let fixture = try await ComparisonFixture(
            "CREATE EXTENSION citext SCHEMA public; CREATE TABLE c (k public.citext PRIMARY KEY, v int); INSERT INTO c VALUES ('Ann', 1), ('bob', 2); CREATE TABLE t (id int PRIMARY KEY)",
            target: "CREATE EXTENSION citext SCHEMA public; CREATE TABLE c (k public.citext PRIMARY KEY, v int); INSERT INTO c VALUES ('ann', 1), ('bob', 2); CREATE TABLE t (id int); INSERT INTO t VALUES (NULL), (1), (1), (2)",
            tables: ["c", "t"])
        let (left, right) = try await fixture.requests()
        #expect(left.layout.keyOrder == nil && left.layout.serverHash == right.layout.serverHash)
        let (_, unkeyed) = try await fixture.requests(1)
        let view = try await fixture.target.openView()
        let other = try await fixture.source.openView()
        let buffer = RecordBuffer()
        #expect(try await view.findRows(right, keys: [key("Ann")], into: buffer) == 1)
        #expect(try lines(buffer) == ["sann|i1"])
        #expect(try await view.digest(right, buckets: 1) != other.digest(left, buckets: 1))
        buffer.removeAll()
        #expect(try await view.findRows(unkeyed, keys: [key(nil), key(.integer(1))], into: buffer) == 3)
        #expect(try lines(buffer) == ["NULL", "i1", "i1"])
        #expect(try await view.findHashes(unkeyed, keys: [key(.integer(1)), key(.integer(3))], into: buffer) == 2)
        let facts = try await fixture.target.facts()
        #expect(facts.first??.extensions.keys.sorted() == ["citext"])
        await view.close()
        await other.close()
        try await fixture.end()
    }

    @Test("K7 a keyless table's rows are looked up whole, NULLs and pairs included")
    func keyless() async throws {
        let fixture = try await ComparisonFixture(
            """
            CREATE TABLE t (a int, j json, n numeric, p point);
            INSERT INTO t VALUES (1, '{"x":1}', 1.0, '(1,2)'), (1, '{"x":1}', 1.0, '(1,2)'), (1, '{"x":1}', 1.00, '(1,2)'),
              (NULL, NULL, NULL, NULL), (2, NULL, 'NaN', NULL);
            """, tables: ["t"])
        let (request, _) = try await fixture.requests()
        #expect(request.layout.keyOrder == nil && request.layout.columns.allSatisfy { !$0.isKey })
        let view = try await fixture.source.openView()
        func find(_ keys: [KeyImage]) async throws -> [String] {
            let buffer = RecordBuffer()
            try await view.findRows(request, keys: keys, into: buffer)
            return try lines(buffer)
        }
        let pair = key(.integer(1), .string("{\"x\":1}"), .string("1.0"), .string("(1,2)"))
        #expect(try await find([pair]) == Array(repeating: "i1|s{\"x\":1}|s1.0|s(1,2)", count: 2))
        #expect(try await find([key(nil, nil, nil, nil)]) == ["NULL|NULL|NULL|NULL"])
        #expect(try await find([pair, pair, key("2", nil, "NaN", nil), key("3", nil, "NaN", nil)]).count == 3)
        #expect(try await find([key(nil, nil, .string("NaN"), nil)]).isEmpty)
        let buffer = RecordBuffer()
        #expect(try await view.findHashes(request, keys: [pair], into: buffer) == 2)
        await view.close()
        try await fixture.end()
    }

    @Test("K6 ranges follow each other along the key without a gap, also where many rows share its first column")
    func ranges() async throws {
        let fixture = try await ComparisonFixture(
            """
            CREATE TABLE i (id int PRIMARY KEY); INSERT INTO i SELECT g * 3 - 100 FROM generate_series(1, 1000) g;
            CREATE TABLE s (a int, b int, PRIMARY KEY (a, b)); INSERT INTO s SELECT g / 250, g FROM generate_series(0, 999) g;
            CREATE TABLE x (k text COLLATE "C" PRIMARY KEY); INSERT INTO x SELECT chr(40 + g % 80) || g FROM generate_series(1, 1000) g;
            CREATE TABLE b (k bytea PRIMARY KEY); INSERT INTO b SELECT decode(md5(g::text), 'hex') FROM generate_series(1, 1000) g;
            CREATE TABLE u (k uuid PRIMARY KEY); INSERT INTO u SELECT md5(g::text)::uuid FROM generate_series(1, 1000) g;
            CREATE TABLE t (k timestamptz PRIMARY KEY); INSERT INTO t SELECT '2024-01-01Z'::timestamptz + g * '1 h'::interval FROM generate_series(1, 998) g;
            INSERT INTO t VALUES ('-infinity'), ('0044-03-15 00:00Z BC');
            CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (300);
            CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (300) TO (2000); INSERT INTO p SELECT generate_series(1, 1000);
            """, tables: ["i", "s", "x", "b", "u", "t", "p"])
        let view = try await fixture.source.openView()
        for index in fixture.link.mappings.indices {
            let (request, other) = try await fixture.requests(index)
            try #require(request.layout.keyOrder != nil && request.layout.keyOrder == other.layout.keyOrder, "\(request.layout.table)")
            let whole = try await view.digest(request, buckets: 1)[0]
            #expect(whole.count == 1_000)
            for rows in [1, 99, 100, 999, 1_000] {
                if rows == 1, index != 1 { continue }
                var part = request
                var sum = RowDigest()
                var ranges = 0
                repeat {
                    part.to = nil
                    part.to = try await view.boundary(part, rows: rows)
                    let digest = try await view.digest(part, buckets: 1)[0]
                    #expect(digest.count > 0)
                    sum = total([sum, digest])
                    if ranges == 1 { #expect(try await drain(view.openRows(part)).count == Int(digest.count)) }
                    ranges += 1
                    part.from = part.to
                } while part.to != nil
                #expect(sum == whole, "\(request.layout.table) \(rows)")
                #expect(ranges == (index == 1 ? (rows == 1_000 ? 1 : rows == 999 ? 2 : 4) : (1_000 + rows - 1) / rows), "\(request.layout.table) \(rows)")
            }
        }
        await view.close()
        try await fixture.end()
    }

    @Test("K5 an order is named only where another database can share it")
    func orders() async throws {
        let cases: [(String, String?)] = [
            ("k smallint PRIMARY KEY", "integer"), ("k bigint PRIMARY KEY", "integer"), ("k bytea PRIMARY KEY", "bytes"),
            ("k text PRIMARY KEY", "utf8"), ("k varchar(4) COLLATE \"POSIX\" PRIMARY KEY", "utf8"), ("k uuid PRIMARY KEY", "uuid"),
            ("k date PRIMARY KEY", "pg:date"), ("k numeric PRIMARY KEY", nil), ("k float8 PRIMARY KEY", nil), ("k char(4) PRIMARY KEY", nil),
            ("k text COLLATE anycase PRIMARY KEY", nil), ("k int", nil),
            // No index along it.
            ("k int, l int, PRIMARY KEY (l, k)", nil),
        ]
        let fixture = try await ComparisonFixture(
            "CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
                + cases.enumerated().map { "CREATE TABLE c\($0.offset) (\($0.element.0));" }.joined()
                + "CREATE TABLE c\(cases.count) (k text COLLATE \"en-x-icu\" PRIMARY KEY);",
            tables: (0...cases.count).map { "c\($0)" })
        for (index, item) in cases.enumerated() {
            #expect(try await fixture.requests(index).source.layout.keyOrder == item.1, "\(item.0)")
        }
        let icu = try await fixture.requests(cases.count).source.layout.keyOrder
        #expect(icu?.hasPrefix("pg:i:en:") == true && icu?.hasSuffix(":") == false, "\(icu ?? "nil")")
        try await fixture.end()
    }

    @Test("K5 layouts: what travels on the source, the same names with own types on the target, and what is missing")
    func layouts() async throws {
        let fixture = try await ComparisonFixture(
            "CREATE TABLE t (id int PRIMARY KEY, v text, twice int GENERATED ALWAYS AS (id * 2) STORED); CREATE TABLE gone (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY, w int)",
            target: "CREATE TABLE t (v varchar(9), extra int, id bigint PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)", tables: ["t", "gone", "other"])
        let (source, target) = try await fixture.requests()
        #expect(source.layout.columns.map { "\($0.name) \($0.typeName) \($0.isKey)" } == ["id integer true", "v text false"])
        #expect(target.layout.columns.map { "\($0.name) \($0.typeName) \($0.isKey)" } == ["id bigint true", "v character varying(9) false"])
        #expect(try await failure { try await fixture.requests(1) }.code == .targetTableMissing)
        #expect(try await failure { try await fixture.requests(2) }.code == .targetTableMismatch)
        let nothing = TableMapping(source: TableName(name: "nothing"), target: TableName(name: "nothing"))
        #expect(try await failure { try await fixture.source.layout(of: nothing, columns: nil) }.code == .tableMissing)
        try await fixture.end()
    }

    @Test("K18 cancelling a check ends its statement on the server")
    func cancellation() async throws {
        let fixture = try await ComparisonFixture(
            "CREATE FUNCTION public.slow(int) RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT pg_sleep(60) IS NOT NULL'; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
            tables: ["t"], rowFilter: "public.slow(id)")
        let (request, _) = try await fixture.requests()
        let view = try await fixture.source.openView()
        let task = Task { try await view.digest(request, buckets: 1) }
        let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        try await waitUntil("the statement to run") { try await fixture.cluster.psql(fixture.sourceURL, running) == "1" }
        task.cancel()
        let error = try await failure { try await task.value }
        #expect(error.code == .interrupted)
        #expect(try await fixture.cluster.psql(fixture.sourceURL, running) == "0")
        await view.close()
        try await fixture.end()
    }
}

extension String {
    /// Sessions of ours look names up in pg_catalog alone.
    fileprivate var qualified: String { replacing("INTO t ", with: "INTO public.t ") }
}

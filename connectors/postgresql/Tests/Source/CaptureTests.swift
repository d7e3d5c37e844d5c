import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

@Suite struct CaptureTests {
    @Test("changes come as records, in commit order, whole and counted")
    func records() async throws {
        let fixture = try await SourceFixture(
            "CREATE TABLE t(id int PRIMARY KEY, name text); CREATE TABLE u(a int, b int, PRIMARY KEY (b, a)); CREATE TABLE other(a int)",
            tables: ["t", "u"])
        let (origin, stream) = try await fixture.open()
        #expect(stream.frontier == .zero)
        try await fixture.psql(
            """
            INSERT INTO t VALUES (1, 'a'), (2, NULL);
            INSERT INTO other VALUES (1);
            BEGIN; UPDATE t SET name = 'b' WHERE id = 1; UPDATE t SET id = 3 WHERE id = 2; DELETE FROM t WHERE id = 3; COMMIT;
            BEGIN; INSERT INTO t VALUES (9, 'never'); ROLLBACK;
            INSERT INTO u VALUES (1, 2); DELETE FROM u; TRUNCATE t, u RESTART IDENTITY CASCADE;
            SELECT pg_logical_emit_message(true, 'app', 'hello'); SELECT pg_logical_emit_message(false, 'app', 'lost');
            """)
        try await stream.catchUp()
        #expect(
            stream.takeLines() == [
                "begin", "relation public.t: id* integer, name text", "insert t (1|a)", "insert t (2|NULL)", "commit 2",
                "begin", "update t (1|b)", "update t key(2|-) (3|NULL)", "delete t key(3|-)", "commit 3",
                "begin", "relation public.u: a* integer, b* integer", "insert u (1|2)", "commit 1",
                "begin", "delete u key(1|2)", "commit 1",
                "begin", "truncate 3 t,u", "commit 1",
                "begin", "message app hello", "commit 1",
            ])
        #expect(zip(stream.ends, stream.ends.dropFirst()).allSatisfy { $0.position < $1.position && $0.end <= $1.position.commit })
        #expect(stream.starts.map(\.position) == stream.ends.map(\.position))
        #expect(stream.ends.allSatisfy { $0.position >= origin.position })
        await stream.session.close()
    }

    @Test("transaction numbers and commit times are the server's own, 64 bits wide")
    func transactionFacts() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"])
        let (_, stream) = try await fixture.open()
        let facts = try await fixture.psql(
            "BEGIN; INSERT INTO t VALUES (1); SELECT pg_current_xact_id(), (extract(epoch FROM now()) * 1000000)::bigint; COMMIT")
        try await stream.catchUp()
        let parts = facts.split(separator: "|")
        let start = try #require(stream.starts.first)
        #expect(String(start.transaction) == parts[0])
        let began = try #require(Int64(parts[1]))
        #expect(start.commitTime.microseconds >= began && start.commitTime.microseconds < began + 60_000_000)
        await stream.session.close()
    }

    @Test("P2 the slot is never told more than was acknowledged, and nothing while nothing is known")
    func feedback() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"])
        let (origin, stream) = try await fixture.open()
        stream.acknowledges = false
        for round in 0..<5 {
            try await fixture.psql("INSERT INTO t VALUES (\(round))")
            try await stream.catchUp()
            #expect(LogSequenceNumber.parse(try await fixture.slotFact("confirmed_flush_lsn")) == origin.position.commit)
        }
        // An acknowledgement in the middle: the server is told that and no more, without another read being needed
        // for longer than one takes.
        let middle = Position(commit: stream.ends[2].end)
        stream.session.acknowledge(middle)
        stream.session.acknowledge(Position(commit: stream.ends[1].end))
        try await waitUntil("the server knowing the acknowledged position") {
            try await stream.step()
            return LogSequenceNumber.parse(try await fixture.slotFact("confirmed_flush_lsn")) == middle.commit
        }
        // Beyond what was delivered nothing is confirmed, whatever is acknowledged.
        stream.session.acknowledge(Position(commit: stream.frontier.commit + 1_000_000))
        try await stream.catchUp()
        await stream.session.close()
        let confirmed = try #require(LogSequenceNumber.parse(try await fixture.slotFact("confirmed_flush_lsn")))
        #expect(confirmed >= middle.commit && confirmed <= stream.frontier.commit)
    }

    @Test("P3 equal positions of neighbouring messages make nothing skipped or repeated when a session ends anywhere")
    func resumption() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY, k int)", tables: ["t"])
        var (origin, stream) = try await fixture.open()
        stream.acknowledges = false
        stream.limit = 300
        var durable = origin.position
        var seen: [String] = []
        var sessions = 0
        for batch in 0..<6 {
            try await fixture.psql(
                (0..<40).map { "INSERT INTO t SELECT \(batch * 1000 + $0 * 10) + g, g FROM generate_series(0, \($0 % 4)) g;" }
                    .joined(separator: "\n"))
            let position = try await fixture.source.currentPosition(fixture.link)
            while stream.frontier < position {
                let progress = try await stream.step()
                // Sessions end at a commit, in the middle of a transaction, told or untold.
                guard Int.random(in: 0..<12) == 0 else { continue }
                var lines = stream.takeLines()
                if progress.isInsideTransaction { lines.removeSubrange((lines.lastIndex(of: "begin") ?? 0)...) }
                seen += lines
                if let end = stream.ends.last { durable = Position(commit: end.end) }
                if Bool.random() { stream.session.acknowledge(durable) }
                await stream.session.close()
                stream = try await fixture.open(origin, durable)
                stream.acknowledges = false
                stream.limit = 300
                sessions += 1
            }
        }
        seen += stream.takeLines()
        await stream.session.close()
        let inserts = seen.filter { $0.hasPrefix("insert") }
        let expected = try await fixture.psql("SELECT 'insert t (' || id || '|' || k || ')' FROM t ORDER BY id")
        #expect(inserts.joined(separator: "\n") == expected)
        #expect(sessions > 0)
    }

    @Test("P4 the stream starts at the slot's own position, and what the journal has is passed over")
    func startPosition() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"])
        let (origin, stream) = try await fixture.open()
        stream.acknowledges = false
        try await fixture.psql("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); INSERT INTO t VALUES (3)")
        try await stream.catchUp()
        let second = stream.ends[1]
        await stream.session.close()
        // Nothing was confirmed, so the server sends all three again; the journal has two of them.
        #expect(LogSequenceNumber.parse(try await fixture.slotFact("confirmed_flush_lsn")) == origin.position.commit)
        let again = try await fixture.open(origin, Position(commit: second.end))
        try await again.catchUp()
        #expect(again.takeChanges() == ["insert t (3)"])
        await again.session.close()
    }

    @Test("P9 a changed table is described anew in mid-stream and in mid-transaction, and old rows keep their columns")
    func relationChange() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY, a text)", tables: ["t"])
        let (_, stream) = try await fixture.open()
        try await fixture.psql(
            """
            INSERT INTO t VALUES (1, 'x');
            ALTER TABLE t ADD COLUMN b numeric(5,2) DEFAULT 7;
            BEGIN; INSERT INTO t VALUES (2, 'y'); ALTER TABLE t RENAME COLUMN a TO c; INSERT INTO t VALUES (3, 'z'); COMMIT;
            ALTER TABLE t DROP COLUMN c; INSERT INTO t VALUES (4); ANALYZE t; INSERT INTO t VALUES (5);
            """)
        try await stream.catchUp()
        #expect(
            stream.takeLines() == [
                "begin", "relation public.t: id* integer, a text", "insert t (1|x)", "commit 1",
                "begin", "relation public.t: id* integer, a text, b numeric(5,2)", "insert t (2|y|7.00)",
                "relation public.t: id* integer, c text, b numeric(5,2)", "insert t (3|z|7.00)", "commit 2",
                "begin", "relation public.t: id* integer, b numeric(5,2)", "insert t (4|7.00)", "commit 1",
                "begin", "insert t (5|7.00)", "commit 1",
            ])
        await stream.session.close()
    }

    @Test("P12 P13 unchanged large values, key changes, and each replica identity arrive as what they are")
    func identities() async throws {
        let fixture = try await SourceFixture(
            """
            CREATE TABLE t(id int PRIMARY KEY, big text, small text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
            CREATE TABLE f(a int, b text); ALTER TABLE f REPLICA IDENTITY FULL;
            CREATE TABLE i(a int, b int NOT NULL, c int); CREATE UNIQUE INDEX ib ON i(b); ALTER TABLE i REPLICA IDENTITY USING INDEX ib;
            INSERT INTO t VALUES (1, repeat('x', 20000), 'a');
            INSERT INTO f VALUES (NULL, 'n'), (NULL, 'n'); INSERT INTO i VALUES (1, 2, 3);
            """, tables: ["t", "f", "i"])
        let (_, stream) = try await fixture.open()
        try await fixture.psql(
            """
            UPDATE t SET small = 'b'; UPDATE t SET id = 2; UPDATE t SET big = repeat('y', 20000);
            UPDATE f SET b = 'm' WHERE ctid = '(0,1)'; DELETE FROM f WHERE b = 'n'; UPDATE i SET c = 4; UPDATE i SET b = 5; DELETE FROM i;
            """)
        try await stream.catchUp()
        #expect(
            stream.takeChanges() == [
                "update t (1|~|b)", "update t key(1|-|-) (2|~|b)", "update t (2|20000 bytes|b)",
                "update f full(NULL|n) (NULL|m)", "delete f full(NULL|n)",
                "update i (1|2|4)", "update i key(-|2|-) (1|5|4)", "delete i key(-|5|-)",
            ])
        #expect(Set(stream.relations.values.map { "\($0.name.name) \($0.identity)" }) == ["t key", "f full", "i key"])
        await stream.session.close()
    }

    @Test("P14 settings of role and database do not leak into the stream or the copy")
    func pinnedSettings() async throws {
        let fixture = try await SourceFixture(
            "CREATE TABLE t(id int PRIMARY KEY, f float8, r real, at timestamptz, d date, i interval, b bytea, m money)",
            tables: ["t"])
        let hostile = "hostile_\(fixture.slot)"
        let database = fixture.slot.dropFirst("bridge_".count)
        let settings = [
            "extra_float_digits = -15", "DateStyle = 'German'", "IntervalStyle = 'sql_standard'", "TimeZone = 'Asia/Tokyo'",
            "bytea_output = 'escape'", "search_path = 'nowhere'", "client_encoding = 'LATIN1'", "statement_timeout = '1ms'",
            "default_transaction_read_only = 'on'", "row_security = 'on'",
        ]
        try await fixture.psql(
            "CREATE ROLE \"\(hostile)\" LOGIN SUPERUSER;"
                + settings.map { "ALTER ROLE \"\(hostile)\" IN DATABASE \"\(database)\" SET \($0);" }.joined()
                + settings.map { "ALTER DATABASE \"\(database)\" SET \($0);" }.joined())
        let source = try PostgresSource(connectionString: fixture.uri.replacing("postgres@", with: "\(hostile)@"))
        let link = LinkDescription(
            migration: fixture.link.migration, direction: .forward,
            mappings: [TableMapping(source: TableName(schema: "public", name: "t"), target: TableName(name: "t"))], form: .native)
        let origin = try await source.prepareCapture(link, replacingLeftovers: false)
        // Not by a SET: the time of the database's own setting may be over before it is read.
        try await fixture.cluster.psql(
            fixture.uri + "&options=-c%20statement_timeout%3D0%20-c%20default_transaction_read_only%3Doff",
            """
            SET client_encoding = 'UTF8';
            INSERT INTO public.t VALUES (1, 0.1::float8 + 0.2::float8, 1/3.0, '2024-02-03 04:05:06.7+00', '2024-02-03',
                '1 mon 2 days 03:04:05', '\\xff00', 12.5)
            """)
        let expected = "1|0.30000000000000004|0.33333334|2024-02-03 04:05:06.7+00|2024-02-03|1 mon 2 days 03:04:05|\\xff00|$12.50"
        let stream = Stream(session: try await source.openCapture(link, origin: origin, durable: origin.position), source: source, link: link)
        try await stream.catchUp()
        #expect(stream.takeChanges() == ["insert t (\(expected))"])
        await stream.session.close()

        // The exported snapshot stands before the row; a new one holds it.
        try await source.openSnapshot(link).close()
        let snapshot = try await source.openSnapshot(link)
        let table = try #require(try await source.describeTables([TableName(schema: "public", name: "t")]).first)
        let reader = try await snapshot.openTable(table, mapping: link.mappings[0], format: .postgresText)
        let buffer = RecordBuffer()
        #expect(try await reader.read(into: buffer, limit: 1 << 20) == 1)
        #expect(
            String(decoding: buffer.bytes, as: UTF8.self)
                == expected.replacing("|", with: "\t").replacing("\\", with: "\\\\") + "\n")
        await reader.close()
        await snapshot.close()
    }

    @Test("S15 an unknown type is looked up, a domain travels as its base, canonical values have their form")
    func canonicalForm() async throws {
        let fixture = try await SourceFixture(
            """
            CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS bigint;
            CREATE TABLE t(id positive PRIMARY KEY, flag bool, f float8, r real, n numeric, b bytea, at timestamptz, m mood,
                ip inet, c char(3), tags text[], j json, u uuid, s smallint);
            """, tables: ["t"], form: .canonical)
        let rows = """
            INSERT INTO t VALUES
            (9223372036854775807, true, 'NaN', 1e-45, 1.10, '\\x00ff', '0044-03-15 12:00:00.5+00 BC', 'ok', '10.0.0.1', 'a', '{a,NULL}', '{"a": 1}',
             'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', -32768),
            (-9223372036854775808, false, '-Infinity', 0.1, 'NaN', '', 'infinity', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
            (3, NULL, 5e-324, '-0', NULL, NULL, '294276-12-31 23:59:59.999999+00', 'sad', '::1/64', '', '{}', 'null', NULL, 0)
            """
        let (_, stream) = try await fixture.open()
        try await fixture.psql(rows)
        try await stream.catchUp()
        let expected = [
            "i9223372036854775807|i1|rnan|r1.401298464324817e-45|s1.10|x0.ff|s0044-03-15 12:00:00.500000Z BC|sok|s10.0.0.1|sa  |s{a,NULL}|s{\"a\": 1}|sa0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|i-32768",
            "i-9223372036854775808|i0|r-inf|r0.10000000149011612|sNaN|x|sinfinity|NULL|NULL|NULL|NULL|NULL|NULL|NULL",
            "i3|NULL|r5e-324|r-0.0|NULL|NULL|s294276-12-31 23:59:59.999999Z|ssad|s::1/64|s   |s{}|snull|NULL|i0",
        ]
        #expect(stream.takeChanges() == expected.map { "insert t (\($0))" })
        let relation = try #require(stream.relations.values.first)
        #expect(relation.form == .canonical)
        #expect(relation.columns.map(\.typeName).prefix(2) == ["public.positive", "boolean"])
        #expect(relation.columns[0].type == .int64 && relation.columns[7].type == .other("public.mood"))

        // The copy gives the same cells.
        try await fixture.source.openSnapshot(fixture.link).close()
        let snapshot = try await fixture.source.openSnapshot(fixture.link)
        let table = try #require(try await fixture.source.describeTables([TableName(name: "t")]).first)
        let reader = try await snapshot.openTable(table, mapping: fixture.link.mappings[0], format: .rows)
        #expect(try await rowsText(reader) == expected)
        #expect(reader.columns == relation.columns)
        await snapshot.close()
        await stream.session.close()
    }

    @Test("R2 a row of 100 MB passes")
    func giantRow() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY, big text)", tables: ["t"])
        let (_, stream) = try await fixture.open()
        try await fixture.psql("INSERT INTO t VALUES (1, repeat('0123456789', 10 * 1024 * 1024))")
        try await stream.catchUp()
        #expect(stream.takeChanges() == ["insert t (1|104857600 bytes)"])
        await stream.session.close()
    }

    @Test("R4 a waiting read returns when it is interrupted, and patience ends by itself")
    func interruption() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"])
        let (_, stream) = try await fixture.open()
        try await stream.catchUp()
        let session = stream.session
        let buffer = RecordBuffer()
        async let waiting = session.read(into: buffer, limit: 1000, patience: .seconds(600))
        session.interrupt()
        #expect(try await waiting.rows == 0)
        #expect(try await session.read(into: buffer, limit: 1000, patience: .milliseconds(1)).rows == 0)
        await session.close()
    }

    @Test("P6 beside a busy neighbour an idle slot retains little, and does not wait for the server to say who is running", .timeLimit(.minutes(1)))
    func idleSlot() async throws {
        let cluster = try await PostgresCluster.started()
        let fixture = try await SourceFixture(
            "CREATE TABLE t(id int PRIMARY KEY); CREATE TABLE neighbour(a text)", tables: ["t"], cluster: cluster)
        let (_, stream) = try await fixture.open()
        let retained = "pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint"
        // By itself the server would come to it every 15 seconds: too seldom for the time limit.
        for _ in 0..<8 {
            try await fixture.psql(
                "INSERT INTO neighbour SELECT repeat('x', 1000) FROM generate_series(1, 20000); TRUNCATE neighbour")
            try await waitUntil("the slot lets go of what was written") {
                try await stream.step(patience: .milliseconds(20))
                return (Int64(try await fixture.slotFact(retained)) ?? .max) < 28 << 20
            }
        }
        try await stream.catchUp()
        await stream.session.close()
        try await waitUntil("what was made for it is gone") {
            try await fixture.psql("SELECT count(*) FROM pg_replication_slots WHERE temporary") == "0"
        }
    }

    @Test("P7 a capture that nobody reads stays connected, with nothing to read and with more than the socket holds", arguments: [0, 50_000])
    func silence(rows: Int) async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY, b text)", tables: ["t"])
        let (origin, first) = try await fixture.open()
        await first.session.close()
        try await fixture.psql("ALTER DATABASE \"\(fixture.slot.dropFirst(7))\" SET wal_sender_timeout = '4s'")
        let stream = try await fixture.open(origin, origin.position)
        try await fixture.psql("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, \(rows)) g")
        let start = try await fixture.psql("SELECT clock_timestamp()")
        try await waitUntil("replies for longer than the server would wait") {
            try await fixture.psql(
                "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE slot_name = '\(fixture.slot)' AND reply_time > '\(start)'::timestamptz + interval '9 s'"
            ) == "1"
        }
        try await stream.catchUp()
        #expect(stream.takeChanges().count == rows)
        await stream.session.close()
    }

    @Test("P1 a mark in the log is told of as soon as it is passed, and the messages of others are not")
    func marks() async throws {
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"])
        let (_, stream) = try await fixture.open()
        try await fixture.psql("SELECT pg_logical_emit_message(false, 'app', 'x')")
        try await fixture.psql("INSERT INTO t VALUES (1)")
        var awaited = 0
        while stream.ends.isEmpty { awaited += try await stream.step().isAwaited ? 1 : 0 }
        #expect(awaited == 0)
        for _ in 0..<5 {
            let position = try await fixture.source.currentPosition(fixture.link)
            var reached = Position.zero
            try await waitUntil("the frontier that is awaited") {
                let progress = try await stream.step()
                if progress.isAwaited { reached = progress.frontier }
                return progress.isAwaited
            }
            #expect(reached >= position)
        }
        #expect(try await !stream.step().isAwaited)
        await stream.session.close()
    }

    @Test("P1 the end of an idle or busy log is always reached", arguments: [false, true])
    func currentPosition(busy: Bool) async throws {
        let fixture = try await SourceFixture(
            "CREATE TABLE t(id int PRIMARY KEY); CREATE TABLE other(a int, b text)", tables: ["t"])
        let (_, stream) = try await fixture.open()
        let holder = BlockingSession(fixture.uri)
        if busy {
            // An open transaction leaves records in the log that nobody flushes.
            try await holder.execute("BEGIN; INSERT INTO other SELECT g, 'x' FROM generate_series(1, 100) g")
        }
        for _ in 0..<20 {
            if busy { try await holder.execute("INSERT INTO other VALUES (1, repeat('x', \(Int.random(in: 0..<3000))))") }
            try await stream.catchUp()
        }
        let health = try await fixture.source.health(fixture.link, applied: stream.frontier)
        #expect(health.lagBytes ?? -1 >= 0 && health.retainedBytes ?? -1 >= 0)
        #expect(health.acknowledged != nil)
        await stream.session.close()
    }
}

/// Rows of a reader in the common format, as readable lines.
func rowsText(_ reader: any CopyReader) async throws -> [String] {
    var lines: [String] = []
    while true {
        let buffer = RecordBuffer()
        let count = try await reader.read(into: buffer, limit: 10_000)
        if count == 0 { break }
        var bytes = ByteReader(buffer.bytes)
        for _ in 0..<count {
            let length = Int(try bytes.readInteger(UInt32.self))
            var row = ByteReader(try bytes.readBytes(length))
            lines.append(try Stream.text(try RowImage(&row)))
            #expect(row.isAtEnd)
        }
        #expect(bytes.isAtEnd)
    }
    await reader.close()
    return lines
}

/// A session of an application, on a thread of its own.
actor BlockingSession {
    private nonisolated let executor = ThreadExecutor(name: "test-session")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private let uri: String
    private var connection: PostgresConnection?

    init(_ uri: String) { self.uri = uri }

    @discardableResult
    func execute(_ sql: String) throws -> Int32 {
        let connection = try self.connection ?? PostgresConnection(try ConnectionString(uri))
        if self.connection == nil { try connection.execute("SET search_path TO public") }
        self.connection = connection
        try connection.execute(sql)
        return connection.backendProcess
    }

    func close() { connection = nil }
}

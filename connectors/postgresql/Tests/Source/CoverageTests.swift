import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// What happens to captured tables without showing in the stream (P5, P10).
@Suite struct CoverageTests {
    private static let tables = """
        CREATE TABLE t(id int PRIMARY KEY, v text); CREATE TABLE u(id int PRIMARY KEY);
        CREATE TABLE parts(id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
        CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
        CREATE TABLE part_2 PARTITION OF parts FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
        CREATE TABLE part_21 PARTITION OF part_2 FOR VALUES FROM (10) TO (15);
        """

    private static var options: PostgresSource.Options {
        var options = PostgresSource.Options()
        options.coverageInterval = .milliseconds(50)
        return options
    }

    private func open() async throws -> (SourceFixture, CaptureOrigin, Stream) {
        let fixture = try await SourceFixture(Self.tables, tables: ["t", "parts"], options: Self.options)
        let (origin, stream) = try await fixture.open()
        return (fixture, origin, stream)
    }

    struct Change: Sendable, CustomTestStringConvertible {
        var sql: String
        var code: ErrorCode
        var table = "public.t"
        /// What the error names beside the table.
        var named = ""
        /// Whether a later run can go on.
        var passes = true
        /// What a later run fails with if it cannot.
        var later = ErrorCode.captureBroken
        var testDescription: String { sql }
    }

    static let changes = [
        Change(sql: "DROP TABLE t; CREATE TABLE t(id int PRIMARY KEY, v text)", code: .captureBroken, passes: false),
        Change(sql: "ALTER PUBLICATION p DROP TABLE t", code: .captureBroken, passes: false),
        Change(
            sql: "BEGIN; ALTER PUBLICATION p DROP TABLE t; ALTER PUBLICATION p ADD TABLE t; COMMIT", code: .captureBroken,
            table: "", passes: false),
        Change(sql: "ALTER PUBLICATION p ADD TABLE u", code: .captureBroken, table: "", passes: false),
        Change(sql: "ALTER PUBLICATION p SET (publish_via_partition_root = false)", code: .captureBroken, table: "", passes: false),
        Change(
            sql: "ALTER TABLE t RENAME TO old; CREATE TABLE t(id int PRIMARY KEY, v text)", code: .tableMissing,
            named: "now public.old", passes: false, later: .tableMissing),
        Change(
            sql: "BEGIN; ALTER TABLE t RENAME TO old; ALTER TABLE parts RENAME TO t; ALTER TABLE old RENAME TO parts; COMMIT",
            code: .tableMissing, table: "", passes: false, later: .tableMissing),
        Change(sql: "ALTER TABLE t DROP COLUMN v; ALTER TABLE t ADD COLUMN v text DEFAULT 'x'", code: .changesUnseen, named: "v"),
        Change(sql: "ALTER TABLE parts DETACH PARTITION part_1", code: .changesUnseen, table: "public.parts", named: "partition public.part_1"),
        Change(sql: "INSERT INTO parts VALUES (1); TRUNCATE part_1; INSERT INTO parts VALUES (2)", code: .changesUnseen, table: "public.parts", named: "partition public.part_1"),
        Change(sql: "INSERT INTO parts VALUES (11); TRUNCATE part_2", code: .changesUnseen, table: "public.parts", named: "partition public.part_21"),
        Change(sql: "INSERT INTO parts VALUES (1), (11); TRUNCATE part_1, part_21", code: .changesUnseen, table: "public.parts"),
        Change(
            sql: "INSERT INTO parts VALUES (1); BEGIN; TRUNCATE part_1; INSERT INTO part_1 VALUES (2); ANALYZE part_1; COMMIT",
            code: .changesUnseen, table: "public.parts", named: "partition public.part_1"),
        Change(
            sql: "INSERT INTO parts VALUES (1); BEGIN; ALTER TABLE parts DETACH PARTITION part_1; UPDATE part_1 SET v = 'alone'; ALTER TABLE parts ATTACH PARTITION part_1 FOR VALUES FROM (0) TO (10); COMMIT",
            code: .changesUnseen, table: "public.parts", named: "partition public.part_1"),
        Change(sql: "DROP TABLE part_21", code: .changesUnseen, table: "public.parts", named: "partition public.part_21"),
        Change(
            sql: "CREATE TABLE late(id int PRIMARY KEY, v text); INSERT INTO late VALUES (25); ALTER TABLE parts ATTACH PARTITION late FOR VALUES FROM (20) TO (30)",
            code: .changesUnseen, table: "public.parts", named: "partition public.late"),
    ]

    @Test("P5 P10 what the stream would not tell stops a running capture by name", arguments: changes)
    func stops(_ change: Change) async throws {
        let (fixture, origin, stream) = try await open()
        try await fixture.psql("INSERT INTO t VALUES (1)")
        try await stream.catchUp()
        try await fixture.psql(change.sql.replacing("PUBLICATION p", with: "PUBLICATION \(fixture.slot)"))
        let error = try await bounded(stream)
        #expect(error?.code == change.code, "\(String(describing: error))")
        let context = error?.context ?? []
        if !change.table.isEmpty { #expect(context.contains(ErrorContext(.table, change.table)), "\(context)") }
        if !change.named.isEmpty { #expect(context.contains { $0.value == change.named }, "\(context)") }
        await stream.session.close()
        if change.passes {
            let again = try await fixture.open(origin, stream.frontier)
            try await fixture.psql("INSERT INTO t VALUES (2)")
            try await again.catchUp()
            #expect(again.takeChanges().last?.hasPrefix("insert t (2|") == true)
            await again.session.close()
        } else {
            let refused = try await failure { try await fixture.open(origin, stream.frontier) }
            #expect(refused.code == change.later, "\(refused)")
        }
    }

    /// The error that ends the stream; nil if none comes.
    private func bounded(_ stream: Stream) async throws -> BridgeError? {
        let end = ContinuousClock.now + .seconds(30)
        while ContinuousClock.now < end {
            do { try await stream.step() } catch let error as BridgeError { return error }
        }
        return nil
    }

    @Test("P10 a table that is renamed or moved stops capture by name, and once it is back nothing is lost",
        arguments: [("RENAME TO old", "public.old RENAME TO t"), ("SET SCHEMA app", "app.t SET SCHEMA public")])
    func renamed(_ there: String, _ back: String) async throws {
        let (fixture, origin, stream) = try await open()
        // The journal's end stays where it was.
        stream.acknowledges = false
        try await fixture.psql("CREATE SCHEMA app; ALTER TABLE t \(there)")
        let table = back.split(separator: " ")[0]
        try await fixture.psql("INSERT INTO \(table) VALUES (1); BEGIN; INSERT INTO \(table) VALUES (2); ALTER TABLE \(table) ADD COLUMN w int; INSERT INTO \(table) VALUES (3); COMMIT")
        let error = try await bounded(stream)
        #expect(error?.code == .tableMissing && error?.context.contains(ErrorContext(.detail, "now \(table)")) == true)
        #expect(error?.hint.contains("ALTER TABLE \(table == "app.t" ? "\"app\".\"t\" SET SCHEMA \"public\"" : "\"public\".\"old\" RENAME TO \"t\"")") == true)
        await stream.session.close()
        let refused = try await failure { try await fixture.open(origin, origin.position) }
        #expect(refused.code == .tableMissing && refused.hint == error?.hint)
        try await fixture.psql("ALTER TABLE \(back); INSERT INTO t VALUES (4)")
        let again = try await fixture.open(origin, origin.position)
        try await again.catchUp()
        #expect(again.takeLines().filter { $0.hasPrefix("insert") || $0.hasPrefix("relation") } == [
            "relation public.t: id* integer, v text", "insert t (1|NULL)", "insert t (2|NULL)",
            "relation public.t: id* integer, v text, w integer", "insert t (3|NULL|NULL)", "insert t (4|NULL|NULL)",
        ])
        await again.session.close()
    }

    /// Waits until a look that begins now is over, and reads meanwhile.
    /// - Parameter stream: nil to read nothing.
    private func passLook(_ fixture: SourceFixture, _ stream: Stream? = nil) async throws {
        // What was written so far is older than any transaction that a look then finds at work, of autovacuum's too.
        let next = try await fixture.psql("SELECT pg_snapshot_xmax(pg_current_snapshot())")
        try await waitUntil("transactions that are older are over") {
            try await stream?.step(patience: .milliseconds(20))
            return try await fixture.psql("SELECT pg_snapshot_xmin(pg_current_snapshot()) >= '\(next)'::xid8") == "t"
        }
        let moment = try await fixture.psql("SELECT clock_timestamp()")
        try await waitUntil("a look that began afterwards is over") {
            try await stream?.step(patience: .milliseconds(20))
            return try await fixture.psql(
                """
                SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'bridge capture%'
                  AND query LIKE '%tree(root%' AND query_start > '\(moment)' AND state = 'idle'
                """) == "1"
        }
    }

    @Test("P10 what happens while the session is made anew is noticed by the next one, once, and what the old one brought is no alarm")
    func betweenSessions() async throws {
        let (fixture, origin, first) = try await open()
        try await fixture.psql("INSERT INTO parts VALUES (1), (11)")
        try await first.catchUp()
        await first.session.close()
        try await fixture.psql("TRUNCATE part_1")
        // A link that is tried again has sources of its own.
        let another = try PostgresSource(connectionString: fixture.uri, options: Self.options)
        let second = Stream(
            continuing: first, try await another.openCapture(fixture.link, origin: origin, durable: first.frontier))
        let error = try await bounded(second)
        #expect(error?.code == .changesUnseen && error?.context.contains { $0.value == "partition public.part_1" } == true)
        await second.session.close()

        let third = try await fixture.open(origin, second.frontier)
        try await fixture.psql("INSERT INTO parts VALUES (2); TRUNCATE parts; INSERT INTO parts VALUES (3)")
        try await third.catchUp()
        await third.session.close()
        let fourth = try await fixture.open(origin, third.frontier)
        try await passLook(fixture, fourth)
        try await passLook(fixture, fourth)
        try await fixture.psql("INSERT INTO parts VALUES (4)")
        try await fourth.catchUp()
        #expect(third.takeChanges() + fourth.takeChanges() == [
            "insert parts (2|NULL)", "truncate 0 parts", "insert parts (3|NULL)", "insert parts (4|NULL)",
        ])
        await fourth.session.close()
    }

    @Test("P10 a column that is dropped, and made anew looks later, stops a running capture")
    func columnAnew() async throws {
        let (fixture, _, stream) = try await open()
        try await fixture.psql("INSERT INTO t VALUES (1, 'x'); ALTER TABLE t DROP COLUMN v")
        try await passLook(fixture, stream)
        try await passLook(fixture, stream)
        try await fixture.psql("ALTER TABLE t ADD COLUMN v text DEFAULT '7'")
        let error = try await bounded(stream)
        #expect(error?.code == .changesUnseen && error?.context.contains(ErrorContext(.column, "v")) == true)
        await stream.session.close()
    }

    @Test("P10 a partition that was emptied by itself is told from one whose root was, however late the stream brings that",
        arguments: [false, true])
    func emptiedUnread(beforeReading: Bool) async throws {
        let (fixture, _, stream) = try await open()
        try await fixture.psql("INSERT INTO parts VALUES (1), (11)")
        try await stream.catchUp()
        try await fixture.psql("TRUNCATE parts")
        // Nobody reads while the watch looks.
        try await passLook(fixture)
        try await passLook(fixture)
        let rows = "INSERT INTO parts VALUES (1), (11); TRUNCATE part_1, part_21"
        if beforeReading {
            try await fixture.psql(rows)
            try await passLook(fixture)
        }
        if !beforeReading {
            try await stream.catchUp()
            try await passLook(fixture, stream)
            #expect(stream.takeChanges().last == "truncate 0 parts")
            try await fixture.psql(rows)
        }
        let error = try await bounded(stream)
        #expect(error?.code == .changesUnseen, "\(String(describing: error))")
        await stream.session.close()
    }

    @Test("P10 a root's TRUNCATE whose commit was in the log, and not yet to be seen, when the watch looked is no alarm")
    func truncatedDuringLook() async throws {
        let (fixture, _, stream) = try await open()
        for number in 1...3 {
            try await fixture.psql("INSERT INTO parts VALUES (1), (11)")
            // A commit that waits is in the log for as long, and its transaction in progress.
            try await fixture.psql("SET commit_delay = 100000; SET commit_siblings = 0; TRUNCATE parts")
            try await passLook(fixture, stream)
            try await passLook(fixture, stream)
            #expect(stream.takeChanges().last == "truncate 0 parts", "\(number)")
        }
        await stream.session.close()
    }

    @Test("P10 P30 what the stream tells, or what harms nothing, stops nobody")
    func goesOn() async throws {
        let (fixture, _, stream) = try await open()
        try await fixture.psql(
            """
            CREATE TABLE part_3 PARTITION OF parts FOR VALUES FROM (20) TO (30); CREATE ROLE "\(fixture.slot)_owner";
            ALTER TABLE part_3 OWNER TO "\(fixture.slot)_owner"; ALTER TABLE part_3 RENAME TO part_three;
            CREATE TABLE part_22 PARTITION OF part_2 DEFAULT; INSERT INTO parts VALUES (1), (11), (16), (25);
            ALTER TABLE t ADD COLUMN a int; ALTER TABLE t ADD COLUMN b int;
            BEGIN; ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b; COMMIT;
            ALTER TABLE t DROP COLUMN v; ALTER TABLE t ALTER COLUMN id TYPE bigint; VACUUM FULL t; CREATE INDEX ON t(a);
            COMMENT ON PUBLICATION \(fixture.slot) IS 'ours';
            """)
        try await passLook(fixture, stream)
        try await fixture.psql(
            """
            SET allow_in_place_tablespaces = on; CREATE TABLESPACE "\(fixture.slot)" LOCATION '';
            ALTER TABLE part_1 SET TABLESPACE "\(fixture.slot)";
            """)
        try await passLook(fixture, stream)
        try await fixture.psql("VACUUM FULL parts")
        try await passLook(fixture, stream)
        try await fixture.psql("TRUNCATE parts")
        try await passLook(fixture, stream)
        try await fixture.psql("ALTER TABLE parts ALTER COLUMN v TYPE varchar(100)")
        try await passLook(fixture, stream)
        try await fixture.psql("INSERT INTO t VALUES (1, 2, 3)")
        try await stream.catchUp()
        #expect(stream.takeChanges() == [
            "insert parts (1|NULL)", "insert parts (11|NULL)", "insert parts (16|NULL)", "insert parts (25|NULL)",
            "truncate 0 parts", "insert t (1|2|3)",
        ])
        await stream.session.close()
        try await fixture.psql(
            """
            ALTER TABLE part_three OWNER TO postgres; DROP ROLE "\(fixture.slot)_owner";
            ALTER TABLE part_1 SET TABLESPACE pg_default; DROP TABLESPACE "\(fixture.slot)"
            """)
    }
}

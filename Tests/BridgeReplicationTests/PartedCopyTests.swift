import BridgeConformance
import BridgeCore
import BridgePostgreSQL
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Logging
import Testing

/// Two databases of the shared cluster with the same tables, and a link that copies them in small parts.
private struct PartedPair {
    let cluster: PostgresCluster
    let source: String
    let target: String
    let folder: TemporaryDirectory
    let migration = "parted-\(UInt32.random(in: 0...UInt32.max))"
    let tables: [String]

    init(_ schema: String, onTarget: String? = nil, tables: [String]) async throws {
        cluster = try PostgresCluster.shared
        source = try await cluster.makeDatabase("parted")
        target = try await cluster.makeDatabase("parted")
        folder = try TemporaryDirectory(prefix: "parted")
        self.tables = tables
        try await cluster.psql(source, schema)
        try await cluster.psql(target, onTarget ?? schema)
    }

    var link: LinkDescription {
        LinkDescription(
            migration: migration, direction: .forward,
            mappings: tables.map {
                TableMapping(source: TableName(schema: "public", name: $0), target: TableName(schema: "public", name: $0))
            }, form: .native)
    }

    func runner(jobs: Int = 3, partBytes: Int64 = 64 << 10) throws -> LinkRunner {
        try LinkRunner(
            configuration: LinkConfiguration(
                link: link, journalDirectory: folder.path("journal"), batchBytes: 64 << 10, copyJobs: jobs,
                copyPartBytes: partBytes, patience: .seconds(30)),
            source: PostgresSource(connectionString: source), target: PostgresTarget(connectionString: target),
            logger: Logger(label: "parted") { _ in SwiftLogNoOpLogHandler() })
    }

    /// Compares by psql alone: the rows as text, whatever the order of rows and columns.
    func expectEqual(_ comment: Comment = "") async throws {
        for table in tables {
            let digest = "SELECT count(*), md5(string_agg(r, E'\\n' ORDER BY r)) FROM (SELECT to_jsonb(t)::text AS r FROM \"\(table)\" t) x"
            let (expected, found) = (try await cluster.psql(source, digest), try await cluster.psql(target, digest))
            #expect(expected == found, "\(table) \(comment)")
        }
    }

    func indexes(_ database: String) async throws -> String {
        try await cluster.psql(
            database, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
    }

    func record(_ table: String, _ column: String) async throws -> String {
        try await cluster.psql(target, "SELECT \(column) FROM _bridge.link_table WHERE source_name = '\(table)'")
    }

    /// Ends the sessions of one of the link's roles.
    func terminate(_ database: String, _ condition: String) async throws -> Int {
        Int(
            try await cluster.psql(
                database,
                """
                SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND \(condition)
                """)) ?? 0
    }

    func end() async throws {
        try await cluster.psql(
            source, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database() AND NOT active")
    }
}

@Suite("The copy in parts", .serialized)
struct PartedCopyTests {
    /// Tables of every shape; a third of the rows of each are dead, and the end of some is empty.
    private static let shapes = """
        CREATE TABLE bloated (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
        INSERT INTO bloated SELECT g, repeat('x', 90) FROM generate_series(1, 6000) g;
        DELETE FROM bloated WHERE id % 3 = 0 OR id > 4500; UPDATE bloated SET v = v || 'y' WHERE id % 7 = 0;
        CREATE TABLE empty (id int PRIMARY KEY);
        CREATE TABLE emptied (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
        INSERT INTO emptied SELECT g, repeat('x', 90) FROM generate_series(1, 3000) g; DELETE FROM emptied;
        CREATE TABLE hashed (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
        CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 3, REMAINDER 0);
        CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 3, REMAINDER 1);
        CREATE TABLE hashed_2 PARTITION OF hashed FOR VALUES WITH (MODULUS 3, REMAINDER 2);
        INSERT INTO hashed SELECT g, repeat('h', 60) FROM generate_series(1, 5000) g;
        CREATE TABLE ranged (v text, id int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE ranged_low PARTITION OF ranged FOR VALUES FROM (0) TO (1000);
        CREATE TABLE ranged_high (id int NOT NULL, gone int, v text) PARTITION BY RANGE (id);
        ALTER TABLE ranged_high DROP COLUMN gone;
        CREATE TABLE ranged_high_a PARTITION OF ranged_high FOR VALUES FROM (1000) TO (2500);
        CREATE TABLE ranged_high_b PARTITION OF ranged_high DEFAULT;
        ALTER TABLE ranged ATTACH PARTITION ranged_high FOR VALUES FROM (1000) TO (5000);
        CREATE TABLE ranged_rest PARTITION OF ranged DEFAULT;
        INSERT INTO ranged SELECT repeat('r', 60), g FROM generate_series(1, 6000) g;
        CREATE TABLE keyless (a int, v text); ALTER TABLE keyless REPLICA IDENTITY FULL;
        INSERT INTO keyless SELECT g % 50, repeat('k', 80) FROM generate_series(1, 3000) g;
        CREATE TABLE named (name text PRIMARY KEY, v int);
        INSERT INTO named SELECT 'name of ' || md5(g::text), g FROM generate_series(1, 3000) g;
        CREATE TABLE numbered (id uuid PRIMARY KEY, v int);
        INSERT INTO numbered SELECT md5(g::text)::uuid, g FROM generate_series(1, 3000) g;
        CREATE TABLE wide (id int PRIMARY KEY, v text); ALTER TABLE wide ALTER v SET STORAGE EXTERNAL;
        INSERT INTO wide SELECT g, repeat(md5(g::text), 300) FROM generate_series(1, 120) g;
        CREATE TABLE dropped (a int, id int PRIMARY KEY, b text, c numeric(9,2));
        ALTER TABLE dropped DROP COLUMN a;
        INSERT INTO dropped SELECT g, repeat('d', 70), g / 7.0 FROM generate_series(1, 3000) g;
        CREATE TABLE growing (id int PRIMARY KEY, v text);
        INSERT INTO growing SELECT g, repeat('g', 70) FROM generate_series(1, 3000) g;
        """
    private static let tables = [
        "bloated", "empty", "emptied", "hashed", "ranged", "keyless", "named", "numbered", "wide", "dropped", "growing",
    ]

    @Test("P20 P21 tables of every shape are copied in parts by three workers, with writes all through")
    func shapes() async throws {
        let indexes = "CREATE INDEX ON bloated (v); CREATE UNIQUE INDEX ON named (v); CREATE INDEX ON growing (lower(v)) WHERE id > 7;"
        let pair = try await PartedPair(
            Self.shapes + indexes,
            onTarget: Self.shapes + Self.tables.map { "TRUNCATE \($0); " }.joined() + indexes, tables: Self.tables)
        let before = try await pair.indexes(pair.target)
        let writing = StopFlag()
        async let rounds: Int = {
            var round = 0
            while !Task.isCancelled, !writing.isSet || round < 5 {
                round += 1
                try await pair.cluster.psql(
                    pair.source,
                    """
                    BEGIN; INSERT INTO growing SELECT 10000 + \(round) * 200 + g, repeat('n', 70) FROM generate_series(1, 200) g; COMMIT;
                    BEGIN; UPDATE growing SET v = v || '.' WHERE id % 97 = \(round); UPDATE bloated SET v = v || 'z' WHERE id % 31 = \(round);
                    UPDATE hashed SET id = -id WHERE id = \(round); UPDATE ranged SET id = id + 10000 WHERE id = \(round) + 100;
                    DELETE FROM named WHERE v = \(round); UPDATE wide SET v = v || 'w' WHERE id = \(round);
                    DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless); COMMIT;
                    """)
            }
            return round
        }()
        let runner = try pair.runner()
        #expect(try await runner.run(untilCaughtUp: true))
        writing.set()
        #expect(try await rounds >= 5)
        #expect(try await pair.runner().run(untilCaughtUp: true))
        try await pair.expectEqual()
        for table in Self.tables where table != "empty" {
            #expect(try await pair.record(table, "attempt") == "1", "\(table) was not loaded in parts")
        }
        #expect(try await pair.record("empty", "attempt") == "0")
        #expect(try await pair.indexes(pair.target) == before)
        #expect(try await pair.cluster.psql(pair.target, "SELECT count(*) FROM _bridge.link_part, _bridge.link_index") == "0")
        let copied = try await pair.cluster.psql(pair.target, "SELECT sum(rows) FROM _bridge.link_table")
        #expect(runner.progress.tables.reduce(0) { $0 + $1.rowsDone } == Int64(copied))
        try await pair.end()
    }

    private static let two = """
        CREATE TABLE big (id int PRIMARY KEY, v text); CREATE INDEX big_v ON big (v); CREATE UNIQUE INDEX big_u ON big (id, v);
        CREATE TABLE other (id int PRIMARY KEY, v text); CREATE INDEX other_v ON other (v);
        """

    @Test("P20 killed at every boundary of a copy in parts and resumed, with writes all through, the target is equal")
    func killed() async throws {
        let fill = """
            INSERT INTO big SELECT g, repeat('b', 90) || g FROM generate_series(1, 6000) g;
            INSERT INTO other SELECT g, repeat('o', 90) || g FROM generate_series(1, 4000) g;
            """
        let pair = try await PartedPair(Self.two + fill, onTarget: Self.two, tables: ["big", "other"])
        let before = try await pair.indexes(pair.target)
        let configuration = try BridgeProgram.configure(
            in: pair.folder, migration: pair.migration, source: pair.source, target: pair.target, tables: pair.tables,
            settings: "replication: { copy_jobs: 3, copy_part_bytes: 64KiB, batch_bytes: 64KiB }\n")
        let arguments = ["run", "--until-caught-up", "--config", configuration]
        let writing = StopFlag()
        async let rounds: Int = {
            var round = 0
            while !Task.isCancelled, !writing.isSet {
                round += 1
                try await pair.cluster.psql(
                    pair.source,
                    """
                    BEGIN; INSERT INTO big VALUES (100000 + \(round), 'new'); UPDATE big SET v = v || '.' WHERE id % 500 = \(round % 500);
                    DELETE FROM other WHERE id = \(round); UPDATE other SET id = -id WHERE id = \(round) + 2000; COMMIT;
                    """)
            }
            return round
        }()
        let places: [(Failpoint, Int)] = [
            (.copyPartsBeforeBegin, 1), (.copyPartsAfterBegin, 1), (.copyPartBegin, 5), (.copyChunk, 6), (.copyPartBeforeCommit, 4),
            (.copyPartAfterCommit, 4), (.copyPartsLoaded, 1), (.copyTableBeforeCommit, 1), (.copyTableAfterCommit, 1),
            (.copyIndexBeforeCommit, 1), (.copyIndexAfterCommit, 1), (.copyFinished, 1),
        ]
        #expect(Set(Failpoint.ofPartedCopy.map(\.name)).isSubset(of: places.map(\.0.name)))
        var done = ""
        for (failpoint, passage) in places {
            let outcome = try await BridgeProgram.run(
                arguments, environment: ["BRIDGE_FAILPOINTS": "\(failpoint.name)=kill@\(passage)"])
            #expect(outcome.status == -9, "\(failpoint.name): \(outcome.errors)")
            // The killed process's sessions may still be committing.
            try await waitUntil {
                try await pair.cluster.psql(
                    pair.target, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'bridge%'") == "0"
            }
            // What was finished is not copied again.
            let now = try await pair.cluster.psql(pair.target, "SELECT source_name, attempt, position FROM _bridge.link_table WHERE state = 'done' ORDER BY 1")
            #expect(now.contains(done) || done.isEmpty, "\(failpoint.name)")
            done = now
        }
        writing.set()
        #expect(try await rounds > 0)
        let last = try await BridgeProgram.run(arguments)
        #expect(last.status == 0, "\(last.errors)")
        try await pair.expectEqual()
        #expect(try await pair.indexes(pair.target) == before)
        #expect(try await pair.cluster.psql(pair.target, "SELECT source_name, attempt, position FROM _bridge.link_table ORDER BY 1") == done)
        try await pair.end()
    }

    /// A table of some parts, the first of which waits on the target for a lock that the test holds, while all others are
    /// committed; then `cut` happens, and the lock goes.
    private func interrupted(
        _ cut: (PartedPair) async throws -> Void
    ) async throws -> (pair: PartedPair, reconnects: Int, finished: String, last: String) {
        let fill = "INSERT INTO big SELECT g, repeat('b', 900) || g FROM generate_series(1, 9000) g; INSERT INTO other VALUES (1, 'x');"
        let holding = """
            CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END';
            CREATE TRIGGER hold BEFORE INSERT ON big FOR EACH ROW WHEN (NEW.id = 1) EXECUTE FUNCTION hold();
            ALTER TABLE big ENABLE ALWAYS TRIGGER hold;
            """
        let pair = try await PartedPair(Self.two + fill, onTarget: Self.two + holding, tables: ["big", "other"])
        let lock = try ChildProcess(
            [pair.cluster.program("psql"), "-qXAt", "-d", pair.target], input: "SELECT pg_advisory_lock(42); SELECT pg_sleep(120);")
        try await waitUntil { try await pair.cluster.psql(pair.target, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "1" }
        let runner = try pair.runner(partBytes: 2 << 20)
        async let outcome = runner.run(untilCaughtUp: true)
        try await waitUntil {
            try await pair.cluster.psql(pair.target, "SELECT to_regclass('_bridge.link_part') IS NOT NULL") == "t"
        }
        try await waitUntil {
            try await pair.cluster.psql(
                pair.target,
                """
                SELECT (SELECT count(*) FROM _bridge.link_part) >= 3
                  AND (SELECT state = 'done' FROM _bridge.link_table WHERE source_name = 'other')
                  AND (SELECT array_agg(wait_event) = '{advisory}' FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name LIKE 'bridge copy%')
                """) == "t"
        }
        let finished = try await pair.cluster.psql(
            pair.target, "SELECT writer, rows FROM _bridge.link_part ORDER BY writer::text::bigint")
        try await cut(pair)
        _ = try await pair.terminate(pair.target, "query LIKE '%pg_sleep(120)%'")
        _ = await lock.wait()
        #expect(try await outcome)
        try await pair.expectEqual()
        let last = try await pair.cluster.psql(
            pair.target, "SELECT xmin, count(*) FROM big GROUP BY xmin ORDER BY xmin::text::bigint")
        let copied = try await pair.cluster.psql(pair.target, "SELECT sum(rows) FROM _bridge.link_table")
        #expect(runner.progress.tables.reduce(0) { $0 + $1.rowsDone } == Int64(copied))
        #expect(try await pair.indexes(pair.target) == pair.indexes(pair.source))
        try await pair.end()
        return (pair, runner.progress.reconnects, finished, last)
    }

    @Test("P20 a part whose session is lost, on either side, is copied again alone", arguments: [true, false])
    func partLost(onTarget: Bool) async throws {
        let result = try await interrupted { pair in
            let ended =
                onTarget
                ? try await pair.terminate(pair.target, "application_name LIKE 'bridge copy%'")
                : try await pair.terminate(pair.source, "application_name LIKE 'bridge copy%'")
            #expect(ended > 0)
        }
        #expect(result.reconnects > 0)
        #expect(try await result.pair.record("big", "attempt") == "1")
        // The rows of the finished parts are those that their transactions wrote.
        let last = Set(result.last.split(separator: "\n"))
        #expect(!result.finished.isEmpty && result.finished.split(separator: "\n").allSatisfy { last.contains($0) })
    }

    @Test("P20 when the snapshot is gone, the unfinished table is copied anew from another and finished ones stay")
    func snapshotLost() async throws {
        let result = try await interrupted { pair in
            let snapshots = try await pair.terminate(pair.source, "application_name LIKE 'bridge snapshot%'")
            let loads = try await pair.terminate(pair.target, "application_name LIKE 'bridge copy%'")
            #expect(snapshots > 0 && loads > 0)
        }
        #expect(result.reconnects > 0)
        #expect(try await result.pair.record("big", "attempt") == "2")
        let last = Set(result.last.split(separator: "\n"))
        #expect(result.finished.split(separator: "\n").allSatisfy { !last.contains($0) })
        // One transaction, one position: the first snapshot's.
        #expect(try await result.pair.cluster.psql(result.pair.target, "SELECT count(DISTINCT position) FROM _bridge.link_table") == "2")
    }

    @Test("P20 rows that somebody else wrote into an unfinished table are not removed")
    func foreignRows() async throws {
        let fill = "INSERT INTO big SELECT g, repeat('b', 90) || g FROM generate_series(1, 6000) g;"
        let pair = try await PartedPair(Self.two + fill, onTarget: Self.two, tables: ["big", "other"])
        let configuration = try BridgeProgram.configure(
            in: pair.folder, migration: pair.migration, source: pair.source, target: pair.target, tables: pair.tables,
            settings: "replication: { copy_part_bytes: 64KiB }\n")
        let arguments = ["run", "--until-caught-up", "--config", configuration]
        let killed = try await BridgeProgram.run(arguments, environment: ["BRIDGE_FAILPOINTS": "copy.part-after-commit=kill@3"])
        #expect(killed.status == -9)
        try await pair.cluster.psql(pair.target, "INSERT INTO big VALUES (-1, 'mine')")
        let refused = try await BridgeProgram.run(arguments)
        #expect(refused.status == ExitStatus.configuration.rawValue, "\(refused.errors)")
        #expect(refused.errors.contains("rows that bridge did not load"))
        #expect(try await pair.cluster.psql(pair.target, "SELECT v FROM big WHERE id = -1") == "mine")
        try await pair.cluster.psql(pair.target, "DELETE FROM big WHERE id = -1")
        let last = try await BridgeProgram.run(arguments)
        #expect(last.status == 0, "\(last.errors)")
        try await pair.expectEqual()
        try await pair.end()
    }
}

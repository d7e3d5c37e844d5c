import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// How a fence comes, stays, changes and goes.
struct FenceLifeTests {
    private static let schema = """
        CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a');
        CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
        """

    private static func fixture() async throws -> CutoverFixture { try await CutoverFixture(schema, tables: ["t", "p"]) }

    private static func isLeased(_ state: FenceState, _ attempt: String = "a1") -> Bool {
        if case .leased(attempt, let remaining) = state { return remaining > .zero }
        return false
    }

    @Test("C2 C20 a fence of the same attempt is kept with the new expiry; one of another attempt or migration is refused")
    func again() async throws {
        let fixture = try await Self.fixture()
        try await fixture.raise(lease: .seconds(60))
        try await fixture.raise(lease: .seconds(3_600))
        guard case .leased("a1", let remaining) = try await fixture.session.fence(on: fixture.tables) else { throw ChildProcess.Failure("no fence") }
        #expect(remaining > .seconds(1_000))
        let other = try await failure { try await fixture.raise("a2") }
        #expect(other.code == .fenceForeign && other.context.contains(ErrorContext(.detail, "attempt a1")), "\(other)")
        let stranger = try await PostgresTarget(connectionString: fixture.url).openCutover(migration: "stranger")
        let foreign = try await failure { try await stranger.raise(fixture.fence(), patience: .zero) }
        #expect(foreign.code == .fenceForeign, "\(foreign)")
        if case .mixed(let why) = try await stranger.fence(on: fixture.tables) { #expect(why.contains(fixture.suffix)) } else { Issue.record("not seen") }
        try await stranger.removeFence(attempt: nil, tables: fixture.tables)
        try await fixture.session.removeFence(attempt: "a2", tables: fixture.tables)
        #expect(Self.isLeased(try await fixture.session.fence(on: fixture.tables)))
        // An expired one is raised anew by its own attempt, and by no other.
        try await fixture.expire()
        #expect(try await failure { try await fixture.raise("a2") }.code == .fenceForeign)
        try await fixture.raise()
        #expect(Self.isLeased(try await fixture.session.fence(on: fixture.tables)))
        try await fixture.session.removeFence(attempt: "a1", tables: fixture.tables)
        try await fixture.session.removeFence(attempt: "a1", tables: fixture.tables)
        #expect(try await fixture.session.fence(on: fixture.tables) == .none)
        try await fixture.sql("UPDATE t SET v = 'x'; INSERT INTO p VALUES (5); TRUNCATE p")
        #expect(try await fixture.sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'bridge%'") == "0")
        await stranger.close()
        try await fixture.end()
    }

    @Test("C2 a fence becomes permanent only while margin remains, and stays so")
    func permanent() async throws {
        let fixture = try await Self.fixture()
        func commit(_ attempt: String = "a1", margin: Duration = .seconds(1)) async throws {
            try await fixture.session.makePermanent(attempt: attempt, tables: fixture.tables, margin: margin)
        }
        #expect(try await failure { try await commit() }.code == .fenceExpired)
        try await fixture.raise()
        #expect(try await failure { try await commit("a2") }.code == .fenceExpired)
        #expect(try await failure { try await commit(margin: .seconds(7_200)) }.code == .fenceExpired)
        #expect(Self.isLeased(try await fixture.session.fence(on: fixture.tables)))
        try await fixture.expire()
        #expect(try await failure { try await commit() }.code == .fenceExpired)
        try await fixture.raise()
        try await commit()
        #expect(try await fixture.session.fence(on: fixture.tables) == .permanent(attempt: "a1"))
        try await commit()
        try await fixture.expire()
        #expect(try await fixture.session.fence(on: fixture.tables) == .permanent(attempt: "a1"))
        try await expectFenced(fixture, "UPDATE p1 SET v = 'x'")
        #expect(try await fixture.refusal("UPDATE t SET v = 'x'")?.contains("service users (routing epoch 7)") == true)
        try await fixture.session.removeFence(attempt: nil, tables: fixture.tables)
        #expect(try await fixture.session.fence(on: fixture.tables) == .none)
        try await fixture.end()
    }

    @Test("C2 the point of no return is decided under the locks: a write that got through after the expiry is seen by the clock")
    func late() async throws {
        let fixture = try await Self.fixture()
        try await fixture.raise(lease: .seconds(2))
        let writer = try fixture.application()
        try await waitUntil("the fence to run out") {
            do throws(BridgeError) {
                try writer.execute("BEGIN; UPDATE t SET v = 'late'")
                return true
            } catch {
                try writer.execute("ROLLBACK")
                guard error.sqlState == FenceText.sqlState else { throw error }
                return false
            }
        }
        func commit() async throws -> BridgeError {
            try await failure { try await fixture.session.makePermanent(attempt: "a1", tables: fixture.tables, margin: .zero) }
        }
        let held = try await commit()
        #expect(held.code == .fenceExpired && held.context.contains(ErrorContext(.processes, "\(writer.backendProcess)")), "\(held)")
        try writer.execute("COMMIT")
        #expect(try await commit().code == .fenceExpired)
        #expect(try await fixture.sql("SELECT v FROM t") == "late")
        #expect(try await fixture.session.fence(on: fixture.tables) == .expired(attempt: "a1"))
        try await fixture.end()
    }

    @Test("C1 a fence that is not on all tables as it was made is told, with what differs, and raising it mends it")
    func mixed() async throws {
        let fixture = try await Self.fixture()
        let trigger = "bridge_fence_\(fixture.suffix)"
        for (change, said) in [
            ("ALTER TABLE t DISABLE TRIGGER \(trigger)", "is not enabled ALWAYS"), ("ALTER TABLE t ENABLE TRIGGER \(trigger)", "is not enabled ALWAYS"),
            ("ALTER TABLE p1 DISABLE TRIGGER ALL", "public.p1"), ("DROP TRIGGER \(trigger) ON p", "lacks the trigger"),
            ("DROP TRIGGER bridge_rows_\(fixture.suffix) ON p1", "lacks the trigger"),
            ("ALTER TRIGGER \(trigger) ON t RENAME TO other", "lacks the trigger"),
            ("DROP TRIGGER \(trigger) ON t; CREATE TRIGGER \(trigger) BEFORE DELETE ON t FOR EACH STATEMENT EXECUTE FUNCTION _bridge.fence_\(fixture.suffix)('a1', 'Infinity', 's', '1', '1'); ALTER TABLE t ENABLE ALWAYS TRIGGER \(trigger)", "is not as it was made"),
            ("CREATE OR REPLACE FUNCTION _bridge.fence_\(fixture.suffix)() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", "function is not as it was made"),
            ("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200)", "public.p2 lacks the trigger"),
            ("CREATE TABLE p3 (id int PRIMARY KEY, v text); ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (200) TO (300)", "public.p3 lacks the trigger"),
            ("ALTER TABLE p DETACH PARTITION p1", "public.p1 has the fence and is no part"),
        ] {
            try await fixture.raise()
            #expect(Self.isLeased(try await fixture.session.fence(on: fixture.tables)), "\(change)")
            #expect(try await fixture.session.facts(of: fixture.tables).unfenceable.isEmpty)
            try await fixture.sql(change)
            let seen = try await fixture.session.fence(on: fixture.tables)
            let why: String
            switch seen {
            case .mixed(let text), .permanentAltered(let text): why = text
            default:
                Issue.record("not seen: \(change)")
                continue
            }
            // One trigger that is for good is enough: what it was made for cannot be gone back from.
            if case .permanentAltered = seen { #expect(change.contains("Infinity")) } else { #expect(!change.contains("Infinity")) }
            #expect(why.contains(said), "\(change): \(why)")
            #expect(try await !fixture.session.facts(of: fixture.tables).unfenceable.isEmpty, "\(change)")
            #expect(try await failure { try await fixture.session.makePermanent(attempt: "a1", tables: fixture.tables, margin: .zero) }.code == .fenceExpired)
        }
        // What was below the tables when the fence was made is opened with them.
        try await fixture.session.removeFence(attempt: "a1", tables: fixture.tables)
        #expect(try await fixture.session.fence(on: fixture.tables) == .none)
        try await fixture.sql("INSERT INTO p1 VALUES (7); UPDATE t SET v = 'x'")
        try await fixture.end()
    }

    @Test("C1 a table that is dropped under the fence is told")
    func dropped() async throws {
        let fixture = try await Self.fixture()
        let error = try await failure { try await fixture.session.fence(on: [TableName(schema: "public", name: "nothing")]) }
        #expect(error.code == .tableMissing)
        try await fixture.raise()
        try await fixture.sql("DROP TABLE t")
        #expect(try await fixture.session.fence(on: fixture.tables) == .mixed("the table public.t is gone"))
        try await fixture.session.removeFence(attempt: "a1", tables: fixture.tables)
        #expect(try await failure { try await fixture.raise() }.code == .tableMissing)
        try await fixture.sql("INSERT INTO p VALUES (5)")
        try await fixture.end()
    }

    @Test("C13 C20 what an older attempt's process does late undoes nothing of a newer one")
    func olderAttempt() async throws {
        let fixture = try await Self.fixture()
        var newer = fixture.fence("a2", lease: nil)
        newer.epoch = 7
        try await fixture.session.raise(newer, patience: .seconds(30))
        try await fixture.session.removeFence(attempt: nil, through: 6, tables: fixture.tables)
        try await fixture.session.removeFence(attempt: "a2", tables: fixture.tables)
        #expect(try await fixture.session.fence(on: fixture.tables) == .permanent(attempt: "a2"))
        try await fixture.session.removeFence(attempt: nil, through: 7, tables: fixture.tables)
        #expect(try await fixture.session.fence(on: fixture.tables) == .none)
        try await fixture.session.publish([Route(service: "s", reads: "target", writes: "target", epoch: 7, publishedAt: .now)])
        for epoch in [6, 7] {
            var older = fixture.fence("a1", lease: nil)
            older.epoch = Int64(epoch)
            let fence = older
            #expect(try await failure { try await fixture.session.raise(fence, patience: .seconds(30)) }.code == .leaseLost)
        }
        try await fixture.sql("UPDATE t SET v = 'x'")
        try await fixture.end()
    }

    @Test("C9 the services of a migration are fenced each by itself")
    func services() async throws {
        let fixture = try await Self.fixture()
        try await fixture.session.raise(fixture.fence("a1", tables: ["t"]), patience: .seconds(30))
        try await fixture.session.raise(fixture.fence("a2", lease: nil, tables: ["p"]), patience: .seconds(30))
        #expect(Self.isLeased(try await fixture.session.fence(on: [fixture.tables[0]])))
        #expect(try await fixture.session.fence(on: [fixture.tables[1]]) == .permanent(attempt: "a2"))
        if case .permanentAltered = try await fixture.session.fence(on: fixture.tables) {} else { Issue.record("two attempts are no one fence") }
        try await fixture.session.removeFence(attempt: nil, tables: [fixture.tables[0]])
        try await fixture.sql("UPDATE t SET v = 'x'")
        try await expectFenced(fixture, "UPDATE p SET v = 'x'")
        try await fixture.end()
    }

    @Test("C3 a try asks for the locks for less than 500 ms, and a waiting writer gets through before the next")
    func tries() async throws {
        let fixture = try await Self.fixture()
        let holder = try fixture.application()
        try holder.execute("BEGIN; UPDATE p SET v = 'held'; LOCK TABLE p1 IN ROW EXCLUSIVE MODE")
        let raising = Task { try await fixture.session.raise(fixture.fence(), patience: .seconds(120)) }
        let waiting = "SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE a.application_name LIKE 'bridge cutover%' AND NOT l.granted"
        // While the fence waits for one table, it holds another, and is in the way of its writers.
        var got = 0
        while got < 3 {
            try await waitUntil("the fence to wait") { try await !fixture.sql(waiting).isEmpty }
            try await fixture.sql("INSERT INTO t VALUES (\(10 + got), 'through')")
            got += 1
        }
        #expect(!raising.isCancelled)
        try holder.execute("COMMIT")
        try await raising.value
        #expect(try await fixture.sql("SELECT count(*) FROM t WHERE v = 'through'") == "3")
        try await fixture.end()
    }

    @Test("C3 what a try is allowed to wait is bounded on the server, for all tables together")
    func bounds() async throws {
        let cluster = try await PostgresCluster.started(settings: ["log_statement": "all"])
        let fixture = try await CutoverFixture(Self.schema, tables: ["t", "p"], cluster: cluster)
        let holder = try fixture.application()
        try holder.execute("BEGIN; UPDATE t SET v = 'held'")
        #expect(try await failure { try await fixture.session.raise(fixture.fence(), patience: .seconds(1)) }.code == .serverBusy)
        try holder.execute("COMMIT")
        try await fixture.raise()
        try await fixture.session.removeFence(attempt: nil, tables: fixture.tables)
        let lines = cluster.log.split(separator: "\n").filter { $0.contains("statement: ") }
        let timeouts = lines.flatMap { $0.matches(of: /(?:lock|statement)_timeout = (\d+)/).compactMap { Int($0.1) } }.filter { $0 > 0 }
        #expect(timeouts.count >= 4 && timeouts.allSatisfy { $0 <= 500 }, "\(timeouts)")
        // Each of them stands under both limits.
        for (index, line) in lines.enumerated() where line.contains("LOCK TABLE") {
            #expect(lines[index - 1].contains("SET LOCAL statement_timeout = 4"), "\(lines[index - 1])")
            #expect(line.contains("ONLY") && line.contains("SHARE ROW EXCLUSIVE"))
        }
        try await fixture.end()
    }

    @Test("C3 a vacuum by the server itself does not keep the fence off")
    func vacuum() async throws {
        let cluster = try await PostgresCluster.started(settings: [
            "autovacuum_naptime": "1s", "autovacuum_vacuum_cost_delay": "100ms", "autovacuum_vacuum_cost_limit": "1", "autovacuum_vacuum_threshold": "10",
            "autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_insert_threshold": "-1",
        ])
        let fixture = try await CutoverFixture(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g; UPDATE t SET v = 'y'", tables: ["t"], cluster: cluster)
        try await waitUntil("a vacuum") {
            try await fixture.sql("SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 't'::regclass AND heap_blks_scanned > 0") == "1"
        }
        try await fixture.session.raise(fixture.fence(), patience: .seconds(30))
        #expect(cluster.log.contains("canceling autovacuum task"))
        try await expectFenced(fixture, "UPDATE t SET v = 'x'")
        try await fixture.end()
    }

    @Test("C13 a reader in the way does not keep the application from writing again; what is left behind goes with removeAll")
    func readers() async throws {
        let fixture = try await Self.fixture()
        try await fixture.raise()
        let reader = try fixture.application()
        try reader.execute("BEGIN; SELECT * FROM t; SELECT * FROM p")
        try await fixture.session.removeFence(attempt: "a1", tables: fixture.tables)
        #expect(try await fixture.session.fence(on: fixture.tables) == .none)
        try await fixture.sql("UPDATE t SET v = 'x'; INSERT INTO p VALUES (5); SET session_replication_role = replica; DELETE FROM p")
        #expect(try await fixture.sql("SELECT count(*) > 0 FROM pg_trigger WHERE tgname LIKE 'bridge%'") == "t")
        // Another attempt builds upon it.
        try await fixture.raise("a2")
        #expect(Self.isLeased(try await fixture.session.fence(on: fixture.tables), "a2"))
        try await fixture.session.removeFence(attempt: "a2", tables: fixture.tables)
        try reader.execute("COMMIT")
        try await fixture.end()
    }

    @Test("C1 a fence over many tables is durable when it is raised, whatever the server's default")
    func crash() async throws {
        let cluster = try await PostgresCluster.started(settings: ["synchronous_commit": "off", "wal_writer_delay": "10s"])
        let many = (0..<40).map { "CREATE TABLE many\($0) (id int PRIMARY KEY)" }.joined(separator: ";")
        let fixture = try await CutoverFixture(many, tables: (0..<40).map { "many\($0)" }, cluster: cluster)
        try await fixture.raise(lease: nil)
        try await BlockingWork().run { try cluster.restart(mode: .immediate) }
        #expect(try await fixture.session.fence(on: fixture.tables) == .permanent(attempt: "a1"))
        try await fixture.end()
    }

    @Test("C10 C23 a fence on the source changes nothing that a check's fingerprint of the capture rests on; other DDL does")
    func fingerprint() async throws {
        let source = try await SourceFixture(Self.schema, tables: ["t", "p"])
        let (_, stream) = try await source.open()
        let session = try await source.source.openCutover(migration: source.link.migration)
        let comparison = try await source.source.openComparison(source.link, role: .source)
        let reader = try #require(comparison.source)
        let first = try await reader.captureFingerprint()
        let tables = source.link.mappings.map(\.source)
        let fence = Fence(attempt: "a", tables: [tables[0]: "s", tables[1]: "s"], epoch: 1, lease: .seconds(600))
        let version = "SELECT string_agg(xmin::text, ' ' ORDER BY oid) FROM pg_class WHERE relname IN ('t', 'p', 'p1')"
        let before = try await source.psql(version)
        try await session.raise(fence, patience: .seconds(30))
        #expect(try await source.psql(version) != before)
        #expect(try await reader.captureFingerprint() == first)
        try await session.removeFence(attempt: "a", tables: tables)
        // It takes back the flag that a table has triggers.
        try await source.psql("VACUUM t; VACUUM p1")
        try await session.raise(fence, patience: .seconds(30))
        try await session.makePermanent(attempt: "a", tables: tables, margin: .zero)
        #expect(try await reader.captureFingerprint() == first)
        try await source.psql("ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t REPLICA IDENTITY DEFAULT")
        #expect(try await reader.captureFingerprint().changedTables(since: first) == [0])
        await stream.session.close()
        try await session.removeAll()
        await session.close()
        await comparison.close()
        try await source.source.removeCapture(source.link)
    }

    @Test("C1 K16 a fence on the target is no trigger that could alter the applier's rows")
    func unrecorded() async throws {
        let fixture = try await ComparisonFixture("CREATE TABLE t (id int PRIMARY KEY)", tables: ["t"])
        let target = try #require(fixture.target.target)
        try await target.watchForeignWrites()
        let session = try await fixture.targetConnector.openCutover(migration: fixture.link.migration)
        try await session.raise(Fence(attempt: "a", tables: [fixture.link.mappings[0].target: "s"], epoch: 1, lease: nil), patience: .seconds(30))
        #expect(try await target.watchMark(of: "c").unrecorded.isEmpty)
        #expect(try await target.foreignWrites(after: 0, limit: 10).isEmpty)
        try await session.removeAll()
        await session.close()
        try await fixture.end()
    }
}

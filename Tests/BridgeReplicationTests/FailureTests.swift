import BridgeConformance
import BridgeCore
import BridgePostgreSQL
import BridgeReplication
import BridgeTestSupport
import Testing

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// What goes wrong with servers, networks and sessions while a link runs: it goes on by itself, and no change is lost.
///
/// `BRIDGE_FAULTS=all` tries every kind of fault on either side, rather than those that no other covers.
@Suite("Failures", .serialized)
struct FailureTests {
    private static let triesAll = environment("BRIDGE_FAULTS") == "all"

    /// The kinds of fault that either side may have.
    private func breakServer(_ end: FailurePlace.End, _ runner: LinkRunner) async throws {
        let proxy = try #require(end.proxy)
        if Self.triesAll {
            try await FailurePlace.fault(runner, "a restart") { try await end.blocking { try $0.restart(mode: .fast) } }
            try await FailurePlace.fault(runner, "a crash") { try await end.blocking { try $0.restart(mode: .immediate) } }
            try await FailurePlace.fault(runner, "a dropped connection") { proxy.drop() }
        }
        try await FailurePlace.fault(runner, "a kill") {
            try await end.blocking {
                try $0.kill()
                try $0.startAfterKill()
            }
        }
    }

    /// A connection that stands while less than all passes over it.
    private func silence(
        _ end: FailurePlace.End, _ runner: LinkRunner, toServer: TCPProxy.Flow, _ what: String
    ) async throws {
        let proxy = try #require(end.proxy)
        try await FailurePlace.fault(runner, what) {
            let before = runner.progress.reconnects
            proxy.set(toServer: toServer, toClient: .stalled)
            try await waitUntil("the silence is noticed") { runner.progress.reconnects > before }
            proxy.drop()
            proxy.restore()
        }
    }

    @Test("P18 the source restarted, crashed, killed, cut off and struck dumb under writers: the link goes on, both sides equal")
    func source() async throws {
        let place = try await FailurePlace(source: .proxied(), target: .shared())
        let proxy = try #require(place.source.proxy)
        try await place.run { runner in
            try await breakServer(place.source, runner)
            try await FailurePlace.fault(runner, "a cut") {
                let before = runner.progress.reconnects
                proxy.cut()
                try await waitUntil("several tries") { runner.progress.reconnects > before + 2 }
                proxy.restore()
            }
            try await silence(place.source, runner, toServer: .stalled, "a connection that stands and passes nothing")
        }
    }

    @Test("P18 P24 the target restarted, crashed, killed, cut off, struck dumb, and its sessions ended: nothing lost or repeated")
    func target() async throws {
        let place = try await FailurePlace(source: .shared(), target: .proxied())
        try await place.run { runner in
            try await breakServer(place.target, runner)
            try await FailurePlace.fault(runner, "ended sessions") {
                try await place.target.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'bridge%' AND datname = current_database()")
            }
            try await silence(place.target, runner, toServer: .passing, "answers that do not arrive")
        }
    }

    @Test("P18 P20 the target killed, and the source cut off, in the middle of the copy")
    func copy() async throws {
        let place = try await FailurePlace(source: .proxied(), target: .proxied())
        try await place.source.sql("INSERT INTO a SELECT -g, g, repeat('x', 200) FROM generate_series(1, 60000) g")
        let (from, to) = (try #require(place.source.proxy), try #require(place.target.proxy))
        let runner = try place.runner()
        let running = Task { () async -> Result<Bool, BridgeError> in
            do throws(BridgeError) { return .success(try await runner.run(untilCaughtUp: true)) } catch { return .failure(error) }
        }
        func inTheMiddle() async throws {
            try await waitUntil(deadline: .seconds(60), "rows are being copied") {
                let table = runner.progress.tables.first { $0.name.name == "a" }
                return table?.state != .done && (table?.rowsDone ?? 0) > 0
            }
        }
        try await inTheMiddle()
        to.set(toServer: .stalled, toClient: .passing)
        try await place.target.blocking { try $0.kill() }
        to.drop()
        try await waitUntil("the kill is noticed") { runner.progress.reconnects > 0 }
        to.restore()
        try await place.target.blocking { try $0.startAfterKill() }
        try await inTheMiddle()
        let before = runner.progress.reconnects
        from.set(toServer: .passing, toClient: .stalled)
        try await waitUntil(deadline: .seconds(60), "the silence is noticed") { runner.progress.reconnects > before }
        from.drop()
        from.restore()
        #expect(try await running.value.get())
        #expect(try await FailurePlace.contents(place.source) == FailurePlace.contents(place.target))
        #expect(try await place.target.sql("SELECT count(*) FROM a") == "60000")
    }

    @Test("P32 limits of the role, a deadlock and a lock that is waited for: tried again by kind, never a change lost")
    func limits() async throws {
        var target = try await FailurePlace.End.shared()
        try await target.sql(
            """
            DO $$ BEGIN CREATE ROLE limited SUPERUSER LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
            ALTER ROLE limited SET statement_timeout = '50ms'; ALTER ROLE limited SET lock_timeout = '50ms';
            ALTER ROLE limited SET default_transaction_isolation = 'serializable';
            ALTER ROLE limited SET idle_in_transaction_session_timeout = '50ms'; ALTER ROLE limited SET idle_session_timeout = '50ms';
            ALTER ROLE limited SET default_transaction_read_only = on;
            """)
        target.address = target.uri.replacing("postgres@", with: "limited@")
        let place = try await FailurePlace(source: .shared(), target: target)
        let psql = target.cluster.program("psql")
        try await place.run { runner in
            // A lock that is held for longer than the role's limits allow to wait.
            let holder = try ChildProcess(
                [psql, "-qXAt", "-d", target.uri], input: "BEGIN; LOCK TABLE b; SELECT pg_sleep(1); COMMIT;")
            try await waitUntil("the applier waits for the lock") {
                try await target.sql("SELECT count(*) FROM pg_locks WHERE relation = 'b'::regclass AND NOT granted") != "0"
            }
            let before = runner.progress
            #expect(await holder.wait().status == 0)
            try await waitUntil("the link goes on") { runner.progress.transactionsApplied > before.transactionsApplied }
            #expect(runner.progress.reconnects == before.reconnects)

            // Two sessions that wait for each other, of which the applier looks for deadlocks last.
            let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            let other = try ChildProcess(
                [psql, "-qXAt", "-d", target.uri],
                input: """
                    SET deadlock_timeout = '1h'; BEGIN; LOCK TABLE b IN SHARE MODE; SELECT pg_sleep(0.3);
                    LOCK TABLE a IN SHARE MODE; COMMIT;
                    """)
            _ = await other.wait()
            try await waitUntil("the applier was the victim", condition: { try await target.sql(deadlocks) != "0" })
            let applied = runner.progress.transactionsApplied
            try await waitUntil("the link goes on") { runner.progress.transactionsApplied > applied }
        }
    }

    @Test("P18 a full disk of the target is told of and waited for, and with room the link goes on where it was", .timeLimit(.minutes(3)))
    func fullDisk() async throws {
        let target = try await FailurePlace.End.shared()
        let place = try await FailurePlace(source: .shared(), target: target)
        let disk = try FullDisk(target.cluster)
        try await target.sql(disk.confine("a"))
        #expect(try await place.runner().run(untilCaughtUp: true))
        try await place.source.sql(
            "INSERT INTO b SELECT g, g, NULL FROM generate_series(1, 100) g; INSERT INTO a SELECT g, g, repeat('x', 1000) FROM generate_series(1, 6000) g")
        let runner = try place.runner()
        let run = Task { try await runner.run(untilCaughtUp: true) }
        try await waitUntil("the trouble is told of") { runner.progress.trouble?.hasPrefix("applying: ") == true }
        try await target.sql(disk.relieve("a"))
        try await place.source.sql("UPDATE a SET v = v + 1; DELETE FROM a WHERE id % 2 = 0")
        #expect(try await run.value)
        #expect(try await place.runner().run(untilCaughtUp: true))
        #expect(try await FailurePlace.contents(place.source) == FailurePlace.contents(target))
        #expect(try await target.sql("SELECT count(*) FROM a") == "3000")
    }
}

/// A disk with too little room for a table: a small file system for its tablespace where mounting is allowed; else a trigger
/// that fails as the server would, once a few rows are there.
private final class FullDisk: Sendable {
    private let folder: TemporaryDirectory
    private let isMounted: Bool
    private let name = "small_\(UInt32.random(in: 0...UInt32.max))"

    init(_ cluster: PostgresCluster) throws {
        folder = try TemporaryDirectory(prefix: "disk")
        mkdir(folder.path("small"), 0o700)
        isMounted = mount("tmpfs", folder.path("small"), "tmpfs", 0, "size=4m,mode=0777") == 0
        chmod(folder.path, 0o755)
        if isMounted { cluster.entrustFolder(folder.path("small")) }
    }

    deinit { if isMounted { umount2(folder.path("small"), Int32(2)) } }

    func confine(_ table: String) -> String {
        guard !isMounted else {
            return "CREATE TABLESPACE \(name) LOCATION '\(folder.path("small"))';\nALTER TABLE \(table) SET TABLESPACE \(name);"
        }
        return """
            CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF NEW.id > 2000 THEN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END IF;
              RETURN NEW; END $$;
            CREATE TRIGGER full_disk BEFORE INSERT ON \(table) FOR EACH ROW EXECUTE FUNCTION full_disk();
            ALTER TABLE \(table) ENABLE ALWAYS TRIGGER full_disk;
            """
    }

    func relieve(_ table: String) -> String {
        isMounted
            ? "ALTER TABLE \(table) SET TABLESPACE pg_default;\nDROP TABLESPACE \(name);" : "DROP TRIGGER full_disk ON \(table)"
    }
}

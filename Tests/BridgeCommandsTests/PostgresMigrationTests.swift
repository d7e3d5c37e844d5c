import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands

/// A folder with a bridge.yaml from a fresh database of the shared cluster to an SQLite file.
struct PostgresWorkplace {
    let cluster: PostgresCluster
    let uri: String
    let folder: TemporaryDirectory

    init(cluster: PostgresCluster? = nil, migration: String) async throws {
        self.cluster = if let cluster { cluster } else { try PostgresCluster.shared }
        folder = try TemporaryDirectory(prefix: "migration")
        uri = try await self.cluster.makeDatabase("commands")
        try await sql(
            """
            CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL UNIQUE, at timestamptz NOT NULL DEFAULT now());
            INSERT INTO users SELECT i, 'u' || i, '2024-05-01 12:00:00.5+02' FROM generate_series(1, 1000) AS i;
            """)
        try configure(source: uri, migration: migration)
    }

    /// - Parameter settings: more lines of the file.
    func configure(source: String, migration: String, settings: String = "") throws {
        try folder.write(
            "bridge.yaml",
            """
            migration: \(migration)
            source: \(YAMLText.scalar(source))
            target: sqlite:new.db
            services: { app: { tables: [users] } }
            \(settings)

            """)
    }

    @discardableResult
    func sql(_ text: String) async throws -> String { try await cluster.psql(uri, text) }

    func bridge(_ arguments: String..., environment: [String: String?] = [:]) async throws -> ChildProcess.Outcome {
        try await Executable.run(arguments, in: folder, environment: environment)
    }

    @discardableResult
    func succeeding(_ arguments: String...) async throws -> ChildProcess.Outcome {
        let outcome = try await Executable.run(arguments, in: folder)
        try #require(outcome.status == 0, "\(arguments): \(outcome.status) \(outcome.errors)\(outcome.output)")
        return outcome
    }

    func link() async throws -> [String: Any] {
        let json = try object(try await succeeding("status", "--json"))
        return try #require((json["links"] as? [[String: Any]])?.first)
    }
}

@Suite("A migration out of PostgreSQL")
struct PostgresMigrationTests {
    @Test("from schema apply to a target that has caught up; status agrees with the server's own view")
    func wholeWay() async throws {
        let place = try await PostgresWorkplace(migration: "whole-way")
        try await place.succeeding("schema", "apply")
        try await place.succeeding("preflight")
        try await place.succeeding("run", "--until-caught-up")
        try await place.sql("UPDATE users SET email = 'x' || id WHERE id <= 500; DELETE FROM users WHERE id > 900")
        let behind = try await place.link()
        #expect((behind["lag_bytes"] as? Int ?? 0) > 0)
        #expect((behind["slot_retained_bytes"] as? Int ?? 0) > 0)
        try await place.succeeding("run", "--until-caught-up")
        let after = try await place.link()
        let server = try await place.sql(
            "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'bridge_whole_way'")
        #expect(after["acknowledged_position"] as? String == server)
        let rows = try await ChildProcess.run(
            ["sqlite3", place.folder.path("new.db")],
            input: "SELECT count(*), sum(id), min(email), max(at), min(at) FROM users")
        #expect(rows == "900|405450|u501|2024-05-01 10:00:00.500000Z|2024-05-01 10:00:00.500000Z\n")
    }

    @Test("status tells what it knows with the source away, and names it")
    func sourceAway() async throws {
        let place = try await PostgresWorkplace(migration: "source-away")
        try await place.succeeding("schema", "apply")
        try await place.succeeding("run", "--until-caught-up")
        let away = ["BRIDGE_SOURCE": "postgresql://nobody@127.0.0.1:1/gone"]
        let outcome = try await place.bridge("status", "--json", environment: away)
        #expect(outcome.status == 0)
        let json = try object(outcome)
        #expect(json["phase"] as? String == "syncing")
        #expect((json["source"] as? [String: Any])?["reachable"] as? Bool == false)
        #expect(((json["copy"] as? [String: Any])?["tables"] as? [[String: Any]])?.first?["rows_done"] as? Int == 1000)
    }

    @Test(
        "a server that is not there exits with 69",
        arguments: [["run"], ["preflight"], ["schema", "show"], ["status"]])
    func unreachable(_ arguments: [String]) async throws {
        let folder = try TemporaryDirectory(prefix: "unreachable")
        try folder.write(
            "bridge.yaml",
            """
            migration: gone
            source: postgresql://nobody:hunter2@127.0.0.1:1/a
            target: postgresql://nobody:hunter2@127.0.0.1:1/b
            services: { app: { tables: [users] } }

            """)
        let outcome = try await Executable.run(arguments, in: folder)
        #expect(outcome.status == 69)
        #expect(!(outcome.output + outcome.errors).contains("hunter2"))
        #expect(
            try Set(FileManager.default.contentsOfDirectory(atPath: folder.path)).subtracting([
                "bridge.yaml", "bridge-data",
            ]).isEmpty)
    }

    @Test(
        "a wrong password exits with 77, and no password is ever printed",
        arguments: [["run"], ["preflight"], ["schema", "show"]])
    func wrongPassword(_ arguments: [String]) async throws {
        let place = try await PostgresWorkplace(migration: "wrong-password")
        try await place.sql(
            """
            DO $$ BEGIN CREATE ROLE guarded LOGIN PASSWORD 'right-one' IN ROLE password_required;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$
            """)
        let database = place.uri.split(separator: "/").last?.split(separator: "?").first ?? ""
        try place.configure(
            source: place.cluster.uri(String(database), user: "guarded", password: "hunter2"),
            migration: "wrong-password")
        let outcome = try await Executable.run(arguments, in: place.folder)
        #expect(outcome.status == 77, "\(outcome.errors)\(outcome.output)")
        #expect((outcome.output + outcome.errors).contains("PGPASSWORD"))
        #expect(!(outcome.output + outcome.errors).contains("hunter2"))
    }

    @Test("P5 a slot that is gone exits with 65, and nothing starts over")
    func slotGone() async throws {
        let place = try await PostgresWorkplace(migration: "slot-gone")
        try await place.succeeding("schema", "apply")
        try await place.succeeding("run", "--until-caught-up")
        try await waitUntil("the slot can be dropped") {
            (try? await place.sql("SELECT pg_drop_replication_slot('bridge_slot_gone')")) != nil
        }
        let outcome = try await place.bridge("run")
        #expect(outcome.status == 65)
        #expect(outcome.errors.contains("bridge_slot_gone"))
        #expect(
            try await place.sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'bridge_slot_gone'") == "0"
        )
    }

    @Test("P35 a server without logical decoding exits with 78 and the setting, and keeps no trace")
    func walLevel() async throws {
        let place = try await PostgresWorkplace(
            cluster: try PostgresCluster.start(settings: ["wal_level": "replica"]), migration: "wal-level")
        try await place.succeeding("schema", "apply")
        for command in ["run", "preflight"] {
            let outcome = try await place.bridge(command)
            #expect(outcome.status == 78)
            #expect((outcome.output + outcome.errors).contains("wal_level"))
        }
        #expect(
            try await place.sql(
                "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots)") == "0")
    }
}

@Suite("Stopping a run that a database holds up")
struct HeldStopTests {
    /// A run into PostgreSQL whose applier waits for a lock that a psql holds.
    private func held(_ body: (ChildProcess) async throws -> Void) async throws {
        let cluster = try PostgresCluster.shared
        let folder = try TemporaryDirectory(prefix: "held")
        let uri = try await cluster.makeDatabase("held")
        try await cluster.psql(uri, "CREATE TABLE users (id bigint PRIMARY KEY)")
        let source = folder.path("old.db")
        try await ChildProcess.run(
            ["sqlite3", source], input: "PRAGMA journal_mode = WAL; CREATE TABLE users (id INTEGER PRIMARY KEY);")
        try folder.write(
            "bridge.yaml",
            """
            migration: held
            source: sqlite:old.db
            target: \(YAMLText.scalar(uri))
            services: { app: { tables: [users] } }

            """)
        let run = try Executable.start(["run"], in: folder)
        try await waitUntil(deadline: .seconds(120), "the run syncs") {
            RunReport.read(from: DataDirectory(folder.path("bridge-data")))?.activity == "streaming"
        }
        let lock = try ChildProcess(
            [cluster.program("psql"), "-qXAt", "-d", uri], input: "BEGIN; LOCK TABLE users; SELECT pg_sleep(600);")
        let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'users'::regclass AND granted"
        try await waitUntil { try await cluster.psql(uri, waiting + " AND mode = 'AccessExclusiveLock'") == "1" }
        try await ChildProcess.run(["sqlite3", "-cmd", ".timeout 10000", source], input: "INSERT INTO users VALUES (1);")
        try await waitUntil {
            // The applier, and no other session of the run, stands at the lock.
            try await cluster.psql(
                uri,
                """
                SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
                WHERE relation = 'users'::regclass AND NOT granted AND application_name LIKE 'bridge app%'
                """) == "1"
        }
        try await body(run)
        lock.send(signal: SIGKILL)
        _ = await lock.wait()
        try await cluster.psql(
            uri, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()")
        #expect(try await Executable.run(["run", "--until-caught-up"], in: folder).status == 0)
        #expect(try await cluster.psql(uri, "SELECT count(*) FROM users") == "1")
    }

    @Test("R4 a second signal ends a run at once with 130, and the next run loses nothing")
    func secondSignal() async throws {
        try await held { run in
            run.send(signal: SIGTERM)
            try await waitUntil { run.errorsSoFar.contains("a second signal stops at once") }
            run.send(signal: SIGTERM)
            #expect(await run.wait().status == 130)
        }
    }

    @Test("R4 one SIGTERM ends a run with 0 although the target does not answer, and the next run loses nothing")
    func oneSignal() async throws {
        try await held { run in
            run.send(signal: SIGTERM)
            let outcome = await run.wait()
            #expect(outcome.status == 0)
            #expect(outcome.errors.contains("a database does not answer"))
        }
    }
}

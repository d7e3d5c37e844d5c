import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands

/// A migration between two databases of an engine, with the executable at work in its folder. The target's table has a
/// column of its own and a constraint that the source has not.
private struct Workplace {
    enum Engine: String, CaseIterable { case postgresql, sqlite }

    let engine: Engine
    let folder: TemporaryDirectory
    private let cluster: PostgresCluster?
    private var uris = ["", ""]

    init(_ engine: Engine, policy: String = "stop", batch: String = "8MB") async throws {
        self.engine = engine
        folder = try TemporaryDirectory(prefix: "conflicts")
        cluster = engine == .postgresql ? try PostgresCluster.shared : nil
        let name = "c\(UInt32.random(in: .min ... .max))"
        var addresses = ["sqlite:old.db", "sqlite:new.db"]
        if let cluster {
            uris = [try await cluster.makeDatabase("old"), try await cluster.makeDatabase("new")]
            addresses = uris
        }
        try folder.write(
            "bridge.yaml",
            """
            migration: \(name)
            source: \(YAMLText.scalar(addresses[0]))
            target: \(YAMLText.scalar(addresses[1]))
            services: { app: { tables: [t] } }
            replication: { on_conflict: \(policy), batch_bytes: \(batch) }

            """)
        let type = engine == .postgresql ? "bigint" : "INTEGER"
        if engine == .sqlite { try await old("PRAGMA journal_mode = WAL") }
        try await old("CREATE TABLE t (id \(type) PRIMARY KEY, v text NOT NULL); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
        try await new("CREATE TABLE t (id \(type) PRIMARY KEY, v text NOT NULL CHECK (length(v) <> 6), own text)")
        try await succeeding("run", "--until-caught-up")
    }

    @discardableResult func old(_ sql: String) async throws -> String { try await self.sql(0, sql) }
    @discardableResult func new(_ sql: String) async throws -> String { try await self.sql(1, sql) }

    private func sql(_ side: Int, _ sql: String) async throws -> String {
        if let cluster { return try await cluster.psql(uris[side], sql) }
        let file = folder.path(side == 0 ? "old.db" : "new.db")
        let output = try await ChildProcess.run(["sqlite3", "-bail", "-cmd", ".timeout 10000", file], input: sql + ";")
        return output.trimmingCharacters(in: .newlines)
    }

    func bridge(_ arguments: String..., failing: String? = nil) async throws -> ChildProcess.Outcome {
        try await Executable.run(arguments, in: folder, environment: ["BRIDGE_FAILPOINTS": failing])
    }

    @discardableResult
    func succeeding(_ arguments: String...) async throws -> ChildProcess.Outcome {
        let outcome = try await Executable.run(arguments, in: folder)
        try #require(outcome.status == 0, "\(arguments): \(outcome.status) \(outcome.errors)\(outcome.output)")
        return outcome
    }

    func list() async throws -> (open: [[String: Any]], records: [[String: Any]]) {
        let json = try object(try await succeeding("conflicts", "list", "--json"))
        #expect(json["format_version"] as? Int == 1)
        return (json["open"] as? [[String: Any]] ?? [], json["records"] as? [[String: Any]] ?? [])
    }

    var deadLetters: [String] {
        let path = folder.path("bridge-data/forward/conflicts/dead-letters.jsonl")
        let text = FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) } ?? ""
        return text.split(separator: "\n").map(String.init)
    }

    /// Runs into the change that the link cannot apply.
    @discardableResult
    func stopping(failing: String? = nil) async throws -> ChildProcess.Outcome {
        let outcome = try await bridge("run", "--until-caught-up", failing: failing)
        #expect(failing != nil || outcome.status == 65, "\(outcome.errors)")
        return outcome
    }
}

@Suite("Conflicts, by the executable")
struct ConflictsEndToEndTests {
    @Test("P32 stop, list, skip, and the run goes on; what needed the change is a conflict of its own", arguments: Workplace.Engine.allCases)
    private func skip(_ engine: Workplace.Engine) async throws {
        let place = try await Workplace(engine)
        let none = try await place.bridge("conflicts", "skip")
        #expect(none.status == 64 && none.errors.contains("conflicts list"))
        try await place.old("BEGIN; INSERT INTO t VALUES (3, 'c'); INSERT INTO t VALUES (4, 'secret'); INSERT INTO t VALUES (5, 'e'); COMMIT")
        let stopped = try await place.stopping()
        #expect(stopped.errors.contains("table: ") && stopped.errors.contains("ordinal: 1") && stopped.errors.contains("bridge conflicts list"))
        #expect(!stopped.errors.contains("secret"))
        #expect(try await place.new("SELECT count(*) FROM t") == "2")

        let status = try object(try await place.succeeding("status", "--json"))
        #expect((status["conflicts"] as? [String: Any])?["open"] as? Int == 1)
        #expect((status["next_steps"] as? [String]) == ["bridge conflicts list"])
        #expect(try await place.succeeding("status").output.contains("stands at a change"))
        let open = try #require(try await place.list().open.first)
        #expect(open["reason"] as? String == "change_refused" && open["ordinal"] as? Int == 1)
        #expect((open["key"] as? String)?.contains("4") == true)
        let position = try #require(open["position"] as? String)
        #expect(try await place.succeeding("conflicts", "list").output.contains(position))

        #expect(try await place.bridge("conflicts", "skip", "--position", "17.1").status == 64)
        #expect(place.deadLetters.isEmpty)
        let skipped = try object(try await place.succeeding("conflicts", "skip", "--position", position, "--json"))
        #expect(skipped["done"] as? String == "skipped" && skipped["format_version"] as? Int == 1)
        #expect(place.deadLetters.count == 1)
        let dumped = try await place.succeeding("journal", "dump").output
        #expect(dumped.split(separator: "\n").map(String.init).contains(place.deadLetters.first ?? ""))
        #expect(place.deadLetters.first?.contains("secret") == true)

        try await place.succeeding("run", "--until-caught-up")
        #expect(try await place.new("SELECT id FROM t ORDER BY id") == "1\n2\n3\n5")
        let after = try await place.list()
        #expect(after.open.isEmpty)
        #expect(after.records.map { $0["outcome"] as? String } == ["passed_over"])
        #expect(after.records.first?["position"] as? String == position)

        guard engine == .postgresql else { return }
        try await place.old("UPDATE t SET v = 'fine' WHERE id = 4")
        try await place.stopping()
        #expect(try await place.list().open.first?["reason"] as? String == "update_found_no_row")
        #expect(try await place.succeeding("conflicts", "skip").output.contains("passed over"))
        try await place.succeeding("run", "--until-caught-up")
        let counts = try object(try await place.succeeding("status", "--json"))["conflicts"] as? [String: Any]
        #expect(counts?["open"] as? Int == 0 && counts?["recorded"] as? Int == 2)
    }

    @Test("P31 P26 what a deferrable constraint shows at the commit is no one change: the run stops whatever the policy", arguments: ["stop", "skip"])
    func deferrable(_ policy: String) async throws {
        let place = try await Workplace(.postgresql, policy: policy)
        try await place.new("ALTER TABLE t ADD CONSTRAINT later UNIQUE (v) DEFERRABLE; INSERT INTO t VALUES (90, 'held')")
        try await place.old("INSERT INTO t VALUES (3, 'held')")
        let stopped = try await place.stopping()
        #expect(stopped.errors.contains("public.t") && stopped.errors.contains("constraint later"), "\(stopped.errors)")
        let open = try #require(try await place.list().open.first)
        #expect(open["table"] as? String == "public.t" && open["reason"] as? String == "conflict")
        #expect(open["ordinal"] is NSNull && open["can_be_skipped"] as? Bool == false)
        #expect(try await !place.succeeding("conflicts", "list").output.contains("bridge conflicts skip"))
        let skipped = try await place.bridge("conflicts", "skip")
        #expect(skipped.status == 64 && skipped.errors.contains("no one change") && place.deadLetters.isEmpty, "\(skipped.errors)")
        try await place.new("DELETE FROM t WHERE id = 90")
        try await place.succeeding("run", "--until-caught-up")
        #expect(try await place.new("SELECT v FROM t WHERE id = 3") == "held")
        let list = try await place.list()
        #expect(list.open.isEmpty && list.records.isEmpty)
    }

    @Test("P32 dead letters outlive the migration, and the verb that ends it names them")
    func ended() async throws {
        let place = try await Workplace(.sqlite)
        try await place.old("INSERT INTO t VALUES (4, 'secret')")
        try await place.stopping()
        try await place.succeeding("conflicts", "skip")
        try await place.succeeding("run", "--until-caught-up")
        let letters = place.deadLetters
        #expect(letters.count == 1)
        // The second finds it ended, and removes what is left.
        for _ in 0..<2 {
            let report = try object(try await place.succeeding("cutover", "cancel", "--json"))
            #expect(report["phase"] as? String == "cancelled")
            let files = report["dead_letter_files"] as? [String] ?? []
            #expect(files.count == 1 && files.first?.hasSuffix("bridge-data/forward/conflicts/dead-letters.jsonl") == true)
            #expect(place.deadLetters == letters)
            for (folder, left) in [("forward", ["conflicts"]), ("forward/conflicts", ["dead-letters.jsonl"])] {
                let path = place.folder.path("bridge-data/\(folder)")
                #expect(try FileManager.default.contentsOfDirectory(atPath: path) == left)
            }
            #expect(!FileManager.default.fileExists(atPath: place.folder.path("bridge-data/reverse")))
        }
        #expect(try await place.succeeding("cutover", "cancel").output.contains("dead-letters.jsonl"))
    }

    @Test("P32 stop, mend the target, retry; without a retry the next run gets on as well", arguments: Workplace.Engine.allCases)
    private func retry(_ engine: Workplace.Engine) async throws {
        let place = try await Workplace(engine)
        try await place.old("INSERT INTO t VALUES (4, 'secret')")
        try await place.stopping()
        let told = try object(try await place.succeeding("conflicts", "retry", "--json"))
        #expect(told["running"] as? Bool == false && told["done"] as? String == "forgotten")
        #expect(try await place.list().open.isEmpty)
        try await place.stopping()
        #expect(try await place.list().open.count == 1)
        if engine == .postgresql {
            try await place.new("ALTER TABLE t DROP CONSTRAINT t_v_check")
        } else {
            try await place.new("PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, 'CHECK (length(v) <> 6)', '') WHERE name = 't'; PRAGMA writable_schema = RESET")
        }
        try await place.succeeding("run", "--until-caught-up")
        #expect(try await place.new("SELECT v FROM t WHERE id = 4") == "secret")
        let list = try await place.list()
        #expect(list.open.isEmpty && list.records.isEmpty)
        #expect(place.deadLetters.isEmpty)
        let ended = try object(try await place.succeeding("cutover", "cancel", "--json"))
        #expect((ended["dead_letter_files"] as? [String])?.isEmpty == true)
        #expect(!FileManager.default.fileExists(atPath: place.folder.path("bridge-data/forward")))
    }

    @Test("P32 killed between stop, dead letter, decision and apply: the change is passed over and recorded once", arguments: Workplace.Engine.allCases)
    private func kills(_ engine: Workplace.Engine) async throws {
        let place = try await Workplace(engine)
        try await place.old("BEGIN; INSERT INTO t VALUES (3, 'c'); INSERT INTO t VALUES (4, 'secret'); COMMIT")
        #expect(try await place.stopping(failing: "conflict.stop-recorded=kill").status == -SIGKILL)
        #expect(try await place.list().open.count == 1)
        for failpoint in ["conflict.dead-letter-written", "conflict.skip-decided"] {
            #expect(try await place.bridge("conflicts", "skip", failing: "\(failpoint)=kill").status == -SIGKILL)
            #expect(place.deadLetters.count == 1)
            #expect(try await place.list().open.count == 1)
        }
        try await place.succeeding("conflicts", "skip")
        #expect(place.deadLetters.count == 1)
        for failpoint in ["apply.before-commit", "apply.after-commit"] {
            #expect(try await place.bridge("run", "--until-caught-up", failing: "\(failpoint)=kill").status == -SIGKILL)
        }
        try await place.succeeding("run", "--until-caught-up")
        #expect(try await place.new("SELECT id FROM t ORDER BY id") == "1\n2\n3")
        let list = try await place.list()
        #expect(list.open.isEmpty && list.records.count == 1)
    }

    @Test("P31 skip and overwrite killed around a commit record each conflict once", arguments: ["skip", "overwrite"])
    func policies(_ policy: String) async throws {
        let place = try await Workplace(.postgresql, policy: policy)
        for (number, failpoint) in ["apply.before-commit", "apply.after-commit"].enumerated() {
            let id = 10 + number
            try await place.new("INSERT INTO t VALUES (\(id), 'other', 'own')")
            try await place.old("INSERT INTO t VALUES (\(id), 'new'), (\(id + 50), 'x')")
            #expect(try await place.bridge("run", "--until-caught-up", failing: "\(failpoint)=kill").status == -SIGKILL)
            try await place.succeeding("run", "--until-caught-up")
            #expect(
                try await place.new("SELECT v, own FROM t WHERE id = \(id)") == (policy == "skip" ? "other|own" : "new|own"))
            #expect(try await place.new("SELECT v FROM t WHERE id = \(id + 50)") == "x")
            let records = try await place.list().records
            #expect(records.count == number + 1, "\(failpoint)")
        }
    }

    @Test("P32 a change is passed over in a transaction of several parts, killed between them", arguments: Workplace.Engine.allCases)
    private func parts(_ engine: Workplace.Engine) async throws {
        let place = try await Workplace(engine, batch: "64KiB")
        let series = engine == .postgresql ? "generate_series(100, 400) AS value" : "generate_series(100, 400)"
        let filler = engine == .postgresql ? "repeat('x', 1000)" : "hex(zeroblob(500))"
        try await place.old(
            "BEGIN; INSERT INTO t SELECT value, CASE WHEN value = 250 THEN 'secret' ELSE \(filler) END FROM \(series); COMMIT")
        try await place.stopping()
        #expect(try await place.list().open.first?["ordinal"] as? Int == 150)
        try await place.succeeding("conflicts", "skip")
        #expect(try await place.bridge("run", "--until-caught-up", failing: "apply.part=kill@3").status == -SIGKILL)
        #expect(try await place.new("SELECT count(*) FROM t") == "2")
        try await place.succeeding("run", "--until-caught-up")
        #expect(try await place.new("SELECT count(*), sum(id) FROM t") == "302|\(1 + 2 + (100...400).reduce(0, +) - 250)")
        #expect(try await place.list().records.map { $0["outcome"] as? String } == ["passed_over"])
    }

    @Test("P31 skip in SQLite: a unique value that is held at the end of the transaction")
    func heldUniqueValue() async throws {
        let place = try await Workplace(.sqlite, policy: "skip")
        try await place.new("CREATE UNIQUE INDEX t_v ON t(v); INSERT INTO t VALUES (90, 'held', NULL)")
        try await place.old("BEGIN; INSERT INTO t VALUES (10, 'ten'); INSERT INTO t VALUES (11, 'held'); UPDATE t SET v = 'held too' WHERE id = 2; COMMIT")
        try await place.succeeding("run", "--until-caught-up")
        #expect(try await place.new("SELECT id, v FROM t ORDER BY id") == "1|a\n2|held too\n10|ten\n90|held")
        let records = try await place.list().records
        #expect(records.map { $0["reason"] as? String } == ["unique_value_taken"])
        #expect(records.first?["key"] as? String == "{\"id\":11}")
    }

    @Test("P32 a server that is busy or full is waited for: no stop, no dead letter")
    func waits() async throws {
        let place = try await Workplace(.postgresql)
        try await place.new(
            """
            CREATE TABLE trouble (state text);
            INSERT INTO trouble VALUES ('53100');
            CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
              EXECUTE format('DO $x$ BEGIN %s END $x$', coalesce((SELECT format('RAISE EXCEPTION USING ERRCODE = %L, MESSAGE = ''busy'';', state) FROM public.trouble), ''));
              RETURN NEW;
            END $$;
            CREATE TRIGGER busy BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION busy();
            ALTER TABLE t ENABLE ALWAYS TRIGGER busy
            """)
        try await place.old("INSERT INTO t VALUES (3, 'c')")
        let run = try Executable.start(["run", "--until-caught-up"], in: place.folder)
        for state in ["53100", "40P01", "57P01"] {
            try await place.new("UPDATE trouble SET state = '\(state)'")
            try await waitUntil(deadline: .seconds(60), "\(state) is waited for") {
                RunReport.read(from: DataDirectory(place.folder.path("bridge-data")))?.trouble?.contains("sqlstate: \(state)") == true
            }
        }
        #expect(try await place.list().open.isEmpty)
        try await place.new("DELETE FROM trouble")
        let outcome = await run.wait()
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(place.deadLetters.isEmpty)
        #expect(try await place.new("SELECT v FROM t WHERE id = 3") == "c")
    }

    @Test("P10 a target that lost a column is no bad change: nothing can be passed over")
    func schemaChange() async throws {
        let place = try await Workplace(.postgresql)
        try await place.new("ALTER TABLE t RENAME COLUMN v TO w")
        try await place.old("INSERT INTO t VALUES (3, 'c')")
        try await place.stopping()
        #expect(try await place.list().open.isEmpty)
        #expect(try await place.bridge("conflicts", "skip").status == 64)
        try await place.new("ALTER TABLE t RENAME COLUMN w TO v")
        try await place.succeeding("run", "--until-caught-up")
    }
}

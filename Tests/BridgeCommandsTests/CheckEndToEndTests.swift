import BridgeConsistency
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands

/// A migration of two tables into an SQLite file, and the executable at work on it.
private struct Place: Sendable {
    enum Engine: String, CaseIterable, Sendable { case sqlite, postgres }

    let folder: TemporaryDirectory
    let engine: Engine
    private let uri: String

    /// Copied and in sync, with nothing running.
    init(_ engine: Engine, users: Int = 400, check: String = "") async throws {
        self.engine = engine
        folder = try TemporaryDirectory(prefix: "endtoend")
        let integer = engine == .sqlite ? "INTEGER" : "bigint"
        let series = engine == .sqlite ? "value" : "generate_series"
        uri = engine == .sqlite ? "sqlite:old.db" : try await PostgresCluster.shared.makeDatabase("endtoend")
        try await source(
            """
            CREATE TABLE users (id \(integer) PRIMARY KEY, email TEXT NOT NULL, note TEXT);
            CREATE TABLE orders (user_id \(integer) NOT NULL, number \(integer) NOT NULL, total \(integer),
                PRIMARY KEY (user_id, number));
            INSERT INTO users SELECT \(series), 'u' || \(series), '' FROM generate_series(1, \(users));
            INSERT INTO orders SELECT \(series) % 10, \(series), \(series) * 3 FROM generate_series(1, 300);
            """)
        try folder.write(
            "bridge.yaml",
            """
            migration: endtoend-\(String(UInt32.random(in: 0 ... .max), radix: 16))
            source: \(YAMLText.scalar(uri))
            target: sqlite:new.db
            services: { app: { tables: [users, orders] } }
            \(check)

            """)
        for arguments in [["schema", "apply"], ["run", "--until-caught-up"]] {
            let outcome = try await Executable.run(arguments, in: folder)
            try #require(outcome.status == 0, "\(arguments): \(outcome.errors)")
        }
    }

    @discardableResult
    func source(_ sql: String) async throws -> String {
        guard engine == .sqlite else { return try await PostgresCluster.shared.psql(uri, sql) }
        return try await ChildProcess.run(
            ["sqlite3", "-bail", "-cmd", ".timeout 10000", folder.path("old.db")], input: "PRAGMA journal_mode = WAL; " + sql)
    }

    @discardableResult
    func target(_ sql: String, triggers: Bool = true) async throws -> String {
        let off = triggers ? [] : ["-cmd", ".dbconfig enable_trigger off"]
        return try await ChildProcess.run(
            ["sqlite3", "-bail", "-cmd", ".timeout 10000"] + off + [folder.path("new.db")], input: sql)
    }

    /// Five faults that no trigger sees.
    func plant() async throws {
        try await target(
            """
            UPDATE users SET email = email || ' ' WHERE id = 7;
            DELETE FROM users WHERE id = 11;
            UPDATE users SET note = NULL WHERE id = 13;
            INSERT INTO users VALUES (90001, 'nobody', '');
            UPDATE orders SET total = total + 1 WHERE user_id = 3 AND number = 103;
            """, triggers: false)
    }

    static let planted: Set = [
        "users different id=7", "users missing id=11", "users different id=13", "users extra id=90001",
        "orders different number=103,user_id=3",
    ]

    func isEqual() async throws -> Bool {
        for table in ["users ORDER BY id", "orders ORDER BY user_id, number"] {
            let rows = "SELECT * FROM \(table)"
            let lines = { (text: String) in text.split(separator: "\n").filter { $0 != "wal" } }
            guard lines(try await source(rows)) == lines(try await target(rows)) else { return false }
        }
        return true
    }

    struct Checked {
        let status: Int32
        let report: CheckReport
        let errors: String

        /// What differs, by table, kind and key.
        var keys: Set<String> {
            Set(
                report.tables.flatMap { table in
                    table.samples.map { sample in
                        let key = sample.key.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value ?? "NULL")" }
                        let name = table.target.split(separator: ".").last.map(String.init) ?? ""
                        return "\(name) \(sample.kind.rawValue) \(key.joined(separator: ","))"
                    }
                })
        }

        var rowsCompared: Int64 { report.tables.reduce(0) { $0 + $1.rowsCompared } }
    }

    /// Checks, and holds the report against its schema.
    func check(_ arguments: String...) async throws -> Checked {
        try checked(try await Executable.run(["check", "--json"] + arguments, in: folder))
    }

    func checked(_ outcome: ChildProcess.Outcome) throws -> Checked {
        let problems = try JSONSchemaValidator(CheckReportSchema.text).problems(outcome.output)
        #expect(problems == [])
        let report = try #require(
            CheckReport.read(Data(outcome.output.utf8)), "\(outcome.status) \(outcome.output)\(outcome.errors)")
        return Checked(status: outcome.status, report: report, errors: outcome.errors)
    }

    /// What a check in progress has written down.
    var state: (checkId: String, isComplete: Bool, rows: Int)? {
        CheckRunner.kept(stateDirectory: folder.path("bridge-data/forward/check")).map { ($0.checkId, $0.isComplete, Int($0.rowsCompared)) }
    }

    func startRun() async throws -> ChildProcess {
        let run = try Executable.start(["run"], in: folder)
        try await waitUntil(deadline: .seconds(120), "the run streams") {
            let report = RunReport.read(from: DataDirectory(folder.path("bridge-data")))
            return report?.process == run.processIdentifier && report?.activity == "streaming"
        }
        return run
    }

    var background: [CheckReport] {
        get throws {
            try CheckHistory(DataDirectory(folder.path("bridge-data"))).entries().compactMap(\.report).filter(\.background)
        }
    }
}

@Suite("bridge check, the executable end to end")
struct CheckEndToEndTests {
    @Test("K6, K19, K22 five planted faults are found by their keys, repaired, and gone", arguments: Place.Engine.allCases)
    private func wholeWay(_ engine: Place.Engine) async throws {
        let place = try await Place(engine)
        let early = try await place.check("--mode", "incremental")
        #expect(early.status == 2)
        #expect(early.report.verdict == .inconclusive)
        let clean = try await place.check()
        #expect(clean.status == 0, "\(clean.report.json.pretty)\(clean.errors)")
        #expect(clean.report.verdict == .consistent)
        #expect(clean.report.gate.isOpen)
        #expect(clean.rowsCompared == 700)

        try await place.plant()
        let faulty = try await place.check()
        #expect(faulty.status == 1)
        #expect(faulty.report.verdict == .inconsistent)
        #expect(faulty.keys == Place.planted)
        #expect(!faulty.report.gate.isOpen)

        let repaired = try await place.check("--repair")
        #expect(repaired.status == 0, "\(repaired.report.json.pretty)\(repaired.errors)")
        #expect(repaired.report.tables.reduce(0) { $0 + $1.repaired } == 5)
        #expect(repaired.keys.isEmpty)
        #expect(try await place.isEqual())
        let ledger = try await place.target("SELECT number, kind, content FROM _bridge_cutover_ledger ORDER BY number")
        #expect(ledger == #"1|repaired|{"rows":4,"table":"users"}"# + "\n" + #"2|repaired|{"rows":1,"table":"orders"}"# + "\n")
        // A verb of a cutover is at work.
        #expect(try await place.target("SELECT count(*) FROM _bridge_cutover_lease") == "0\n")
        try await place.target("INSERT INTO _bridge_cutover_lease SELECT migration, 'another', 9e15 FROM _bridge_cutover_ledger LIMIT 1")
        let refused = try await Executable.run(["check", "--repair", "--json"], in: place.folder)
        #expect(refused.status == 75 && refused.errors.contains("another operator"), "\(refused.output)\(refused.errors)")
        try await place.target("DELETE FROM _bridge_cutover_lease")
        let changed = try await place.check("--mode", "incremental")
        #expect(changed.status == 0, "\(changed.report.json.pretty)\(changed.errors)")
        #expect(changed.report.tables.allSatisfy { $0.repaired == 0 && $0.mismatched == 0 })
        let after = try await place.check()
        #expect(after.status == 0)
        #expect(after.keys.isEmpty)
        #expect(after.report.gate.isOpen)

        let listed = try object(try await Executable.run(["check", "--history", "--json"], in: place.folder))
        let checks = try #require(listed["checks"] as? [[String: Any]])
        #expect(
            checks.map { $0["verdict"] as? String } == [
                "consistent", "consistent", "consistent", "inconsistent", "consistent", "inconclusive",
            ])
        #expect(checks.allSatisfy { $0["readable"] as? Bool == true && $0["background"] as? Bool == false })
        #expect(checks.map { $0["check_id"] as? String }.contains(faulty.report.checkId))
    }

    @Test(
        "K13, K16 beside a run: a check works, a repair is refused, and the run goes on checking by itself",
        arguments: Place.Engine.allCases)
    private func besideRun(_ engine: Place.Engine) async throws {
        let place = try await Place(engine, check: "check: { max_age: 30s }")
        let run = try await place.startRun()
        try await place.source("UPDATE users SET email = 'changed' WHERE id < 50")
        let beside = try await place.check()
        #expect(beside.status == 0, "\(beside.report.json.pretty)\(beside.errors)")
        #expect(try await Executable.run(["check", "--repair", "--json"], in: place.folder).status == 75)

        try await waitUntil(deadline: .seconds(120), "the run has checked") {
            try place.background.first?.verdict == .consistent
        }
        let status = try object(try await Executable.run(["status", "--json"], in: place.folder))
        let last = try #require(status["last_check"] as? [String: Any])
        #expect(last["background"] as? Bool == true)
        #expect(last["mode"] as? String == "incremental")
        #expect(last["verdict"] as? String == "consistent")
        #expect(last["age_seconds"] is Double)

        try await place.target("UPDATE users SET email = 'by hand' WHERE id IN (60, 61)")
        try await waitUntil(deadline: .seconds(120), "the run has found it") {
            try place.background.first?.verdict == .inconsistent
        }
        try await waitUntil(deadline: .seconds(20), "it is said") { run.errorsSoFar.contains("users: 2 rows differ") }
        #expect(run.errorsSoFar.contains("bridge check"))
        #expect(try place.background.count == 1)
        run.send(signal: SIGTERM)
        try await run.wait().checked(["bridge run"])
        let faulty = try await place.check()
        #expect(faulty.status == 1)
        #expect(faulty.keys == ["users different id=60", "users different id=61"])
    }

    @Test(
        "K18 a check that was stopped, then one that was killed, are gone on with: the same verdict, no row twice",
        arguments: Place.Engine.allCases)
    private func goesOn(_ engine: Place.Engine) async throws {
        let place = try await Place(engine, users: 5000)
        try await place.plant()
        let small = ["check", "--json", "--chunk-rows", "20"]
        let stopped = try Executable.start(small, in: place.folder)
        try await waitUntil(deadline: .seconds(120), "a chunk is compared") { (place.state?.rows ?? 0) > 0 }
        stopped.send(signal: SIGTERM)
        #expect(await stopped.wait().status == 130)
        let first = try #require(place.state)
        #expect(!first.isComplete)

        let killed = try Executable.start(small, in: place.folder)
        try await waitUntil(deadline: .seconds(120), "more is compared") { (place.state?.rows ?? 0) > first.rows }
        killed.send(signal: SIGKILL)
        _ = await killed.wait()
        let second = try #require(place.state)
        #expect(!second.isComplete)
        #expect(second.checkId == first.checkId)

        let last = try await place.check()
        #expect(last.status == 1)
        #expect(last.report.checkId == first.checkId)
        #expect(last.keys == Place.planted)
        let whole = try await place.check()
        #expect(whole.report.checkId != first.checkId)
        #expect(whole.status == last.status)
        #expect(whole.keys == last.keys)
        #expect(whole.rowsCompared == last.rowsCompared)
        #expect(whole.report.total(\.matching) == last.report.total(\.matching))
    }

    @Test("K18 a check waits for another one out of the same folder, and is not made beside it")
    func oneAtATime() async throws {
        let place = try await Place(.sqlite)
        let folder = place.folder.path("bridge-data/forward/check")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let held = open(folder + "/check.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        try #require(held >= 0 && flock(held, LOCK_EX | LOCK_NB) == 0)
        let waiting = try Executable.start(["check", "--json"], in: place.folder)
        try await waitUntil(deadline: .seconds(60), "the check's link is in sync") {
            let report = RunReport.read(from: DataDirectory(place.folder.path("bridge-data")))
            return report?.process == waiting.processIdentifier && report?.activity == "streaming"
        }
        #expect(place.state == nil)
        #expect(waiting.outputSoFar.isEmpty)
        close(held)
        #expect(try place.checked(await waiting.wait()).status == 0)
    }
}

import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands

/// A folder with a source in it, and the executable at work there. SQL goes through the real sqlite3 program.
private struct Workplace {
    let folder: TemporaryDirectory

    init(_ statements: String) async throws {
        folder = try TemporaryDirectory(prefix: "migration")
        try await sql("old.db", "PRAGMA journal_mode = WAL; " + statements)
    }

    @discardableResult
    func sql(_ file: String, _ sql: String) async throws -> String {
        try await ChildProcess.run(["sqlite3", "-bail", "-cmd", ".timeout 10000", folder.path(file)], input: sql)
    }

    func bridge(_ arguments: String..., environment: [String: String?] = [:]) async throws -> ChildProcess.Outcome {
        try await Executable.run(arguments, in: folder, environment: environment)
    }

    /// Runs it and expects it to go well.
    @discardableResult
    func succeeding(_ arguments: String...) async throws -> ChildProcess.Outcome {
        let outcome = try await Executable.run(arguments, in: folder)
        try #require(outcome.status == 0, "\(arguments): \(outcome.status) \(outcome.errors)\(outcome.output)")
        return outcome
    }

    var files: Set<String> { Set((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []) }
}

private let shop = """
    CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE);
    CREATE TABLE orders (user_id INTEGER NOT NULL, number INTEGER NOT NULL, total REAL, PRIMARY KEY (user_id, number));
    CREATE TABLE log (line TEXT);
    INSERT INTO users SELECT value, 'u' || value || '@example.com' FROM generate_series(1, 2000);
    INSERT INTO orders SELECT value % 100, value, value / 3.0 FROM generate_series(1, 3000);
    """

@Suite("A migration between two SQLite files")
struct SQLiteMigrationTests {
    @Test("from init to a target that has caught up, each command saying what it did")
    func wholeWay() async throws {
        let place = try await Workplace(shop)
        let written = try await place.succeeding("init", "sqlite:old.db", "sqlite:new.db", "--json")
        #expect(try object(written)["tables"] as? [String] == ["orders", "users"])
        let before = try await place.bridge("preflight", "--json")
        #expect(before.status == 78)
        #expect(try object(before)["ready"] as? Bool == false)
        let fresh = try object(try await place.succeeding("status", "--json"))
        #expect(fresh["phase"] as? String == "preparing")
        #expect(try await place.succeeding("schema", "show").output.contains("CREATE TABLE"))
        try await place.succeeding("schema", "apply")
        let again = try object(try await place.succeeding("schema", "apply", "--json"))
        #expect((again["statements"] as? [[String: Any]])?.allSatisfy { $0["created"] as? Bool == false } == true)
        #expect(try await place.bridge("preflight").status == 0)

        let run = try object(try await place.succeeding("run", "--until-caught-up", "--json"))
        #expect(run["caught_up"] as? Bool == true)
        #expect(run["rows_copied"] as? Int == 5000)
        try await place.sql(
            "old.db", "UPDATE users SET email = 'x' WHERE id = 7; DELETE FROM orders WHERE number % 3 = 0")
        let behind = try object(try await place.succeeding("status", "--json"))
        #expect(((behind["links"] as? [[String: Any]])?.first?["lag_bytes"] as? Int ?? 0) > 0)
        try await place.succeeding("run", "--until-caught-up")
        for table in ["users ORDER BY id", "orders ORDER BY user_id, number"] {
            let query = "SELECT * FROM \(table)"
            #expect(try await place.sql("old.db", query) == (try await place.sql("new.db", query)))
        }
        let after = try object(try await place.succeeding("status", "--json"))
        let link = try #require((after["links"] as? [[String: Any]])?.first)
        #expect(after["phase"] as? String == "syncing")
        #expect(link["state"] as? String == "stopped")
        #expect(link["lag_bytes"] as? Int == 0)
        #expect((link["journal_bytes"] as? Int ?? 0) > 0)
        try await place.succeeding("journal", "verify")
        let dumped = try await place.succeeding("journal", "dump")
        for line in dumped.output.split(separator: "\n") {
            #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: Data(line.utf8)) }
        }
        #expect(!dumped.output.isEmpty)
    }

    @Test("R4 the first SIGTERM ends a run with 0, and a second run in the same folder is refused meanwhile")
    func signals() async throws {
        let place = try await Workplace(shop)
        try await place.succeeding("init", "sqlite:old.db", "sqlite:new.db")
        try await place.succeeding("schema", "apply")
        let run = try Executable.start(["run"], in: place.folder)
        try await waitUntil(deadline: .seconds(120), "the run syncs") {
            RunReport.read(from: DataDirectory(place.folder.path("bridge-data")))?.activity == "streaming"
        }
        let second = try await place.bridge("run")
        #expect(second.status == 75)
        #expect(second.errors.contains("processes: \(run.processIdentifier)"))
        let status = try object(try await place.succeeding("status", "--json"))
        #expect((status["links"] as? [[String: Any]])?.first?["state"] as? String == "running")
        run.send(signal: SIGTERM)
        try await run.wait().checked(["bridge run"])
        let stopped = try object(try await place.succeeding("status", "--json"))
        #expect((stopped["links"] as? [[String: Any]])?.first?["state"] as? String == "stopped")
    }

    @Test("a run that was killed is seen as stopped, and the next one goes on")
    func killed() async throws {
        let place = try await Workplace(shop)
        try await place.succeeding("init", "sqlite:old.db", "sqlite:new.db")
        try await place.succeeding("schema", "apply")
        let run = try Executable.start(["run"], in: place.folder)
        try await waitUntil(deadline: .seconds(120), "the run syncs") {
            RunReport.read(from: DataDirectory(place.folder.path("bridge-data")))?.activity == "streaming"
        }
        run.send(signal: SIGKILL)
        #expect(await run.wait().status == -SIGKILL)
        let status = try object(try await place.succeeding("status", "--json"))
        #expect((status["links"] as? [[String: Any]])?.first?["state"] as? String == "stopped")
        try await place.sql("old.db", "DELETE FROM users WHERE id > 100")
        try await place.succeeding("run", "--until-caught-up")
        #expect(try await place.sql("new.db", "SELECT count(*) FROM users") == "100\n")
    }

    @Test(
        "what cannot be done is refused with its status and its hint, and leaves nothing behind",
        arguments: [
            (["run"], "tables: [usres]", 78, "write 'users' under services"),
            (["run"], "tables: [log]", 78, "primary key"),
            (["run"], "tables: [New]", 78, "ALTER TABLE \"New\" RENAME TO"),
            (["run"], "tables: [New, log]", 78, "bridge preflight prints each"),
            (["run"], "tables: [users]", 78, "bridge schema apply"),
            (["run"], "tables: [{from: users, columns: [id, mail]}]", 78, "write 'email' in 'columns'"),
            (["schema", "show"], "tables: [nothing]", 78, "under services"),
        ])
    func refused(_ arguments: [String], _ tables: String, _ status: Int32, _ hint: String) async throws {
        let place = try await Workplace(shop + "CREATE TABLE \"New\" (id INTEGER PRIMARY KEY);")
        try await place.sql("new.db", "PRAGMA journal_mode = WAL; CREATE TABLE other (id INTEGER PRIMARY KEY)")
        try place.folder.write(
            "bridge.yaml",
            "migration: shop\nsource: sqlite:old.db\ntarget: sqlite:new.db\nservices:\n  app:\n    \(tables)\n")
        let outcome = try await Executable.run(arguments, in: place.folder)
        #expect(outcome.status == status)
        #expect(outcome.errors.contains("error: "))
        #expect(outcome.errors.contains(hint), "\(outcome.errors)")
        let left = try await place.sql("old.db", "SELECT name FROM sqlite_master WHERE name LIKE '\\_b%' ESCAPE '\\'")
        #expect(left == "")
        #expect(!place.files.contains("bridge-data"))
        let leftOnTarget = try await place.sql("new.db", "SELECT count(*) FROM sqlite_master WHERE name <> 'other'")
        #expect(leftOnTarget == "0\n")
    }

    @Test("a source that is not there exits with 69, and nothing is made in its place")
    func missingSource() async throws {
        let place = try await Workplace(shop)
        let outcome = try await place.bridge("init", "sqlite:none.db", "sqlite:new.db")
        #expect(outcome.status == 69)
        #expect(outcome.errors.contains("try: "))
        #expect(!place.files.contains("none.db"))
        #expect(!place.files.contains("bridge.yaml"))
    }

    @Test("init replaces a file only when told to")
    func existingFile() async throws {
        let place = try await Workplace(shop)
        try place.folder.write("bridge.yaml", "mine")
        let refused = try await place.bridge("init", "sqlite:old.db", "sqlite:new.db")
        #expect(refused.status == 78)
        #expect(refused.errors.contains("--force"))
        #expect(try place.folder.read("bridge.yaml") == "mine")
        try await place.succeeding(
            "init", "sqlite:old.db", "sqlite:new.db", "--force", "--tables", "users", "--migration", "m-1")
        #expect(try place.folder.read("bridge.yaml").contains("migration: m-1"))
        let config = try object(try await place.succeeding("config", "--json"))
        #expect(((config["services"] as? [String: Any])?["app"] as? [String: Any])?["tables"] is [Any])
    }
}

@Suite("Demo")
struct DemoTests {
    @Test("the demo between SQLite files ends equal, and leaves nothing behind")
    func sqlite() async throws {
        let folder = try TemporaryDirectory(prefix: "demo")
        let outcome = try await Executable.run(
            ["demo", "--seconds", "1", "--seed", "1", "--json"], environment: ["TMPDIR": folder.path])
        #expect(outcome.status == 0, "\(outcome.errors)")
        let json = try object(outcome)
        expectMovedAndEqual(json)
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasPrefix("bridge-demo") }
                .isEmpty)
    }

    private func expectMovedAndEqual(_ json: [String: Any], sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(json["equal"] as? Bool == true, sourceLocation: sourceLocation)
        #expect(json["accounted_for"] as? Bool == true, sourceLocation: sourceLocation)
        let tables = json["tables"] as? [[String: Any]] ?? []
        #expect(tables.count == 7, sourceLocation: sourceLocation)
        // Each that was acknowledged has left a receipt.
        let commits = json["writer_commits"] as? Int ?? 0
        #expect(commits > 0, sourceLocation: sourceLocation)
        let receipts = tables.first { $0["table"] as? String == "receipts" }
        #expect(receipts?["target_rows"] as? Int == commits, sourceLocation: sourceLocation)
        let pauses = json["pauses"] as? [[String: Any]] ?? []
        #expect(
            pauses.map { $0["verb"] as? String } == ["switch-writes", "rollback", "switch-writes"],
            sourceLocation: sourceLocation)
        #expect(pauses.allSatisfy { $0["pause_ms"] as? Double ?? 0 > 0 }, sourceLocation: sourceLocation)
    }

    @Test("the demo between PostgreSQL clusters ends equal, and leaves neither folder nor server behind")
    func postgres() async throws {
        let folder = try TemporaryDirectory(prefix: "demo")
        // The servers' account must be able to pass through.
        chmod(folder.path, 0o711)
        let outcome = try await Executable.run(
            ["demo", "--postgres", "--seconds", "1", "--seed", "1", "--json"], environment: ["TMPDIR": folder.path])
        #expect(outcome.status == 0, "\(outcome.errors)")
        expectMovedAndEqual(try object(outcome))
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasPrefix("bridge-demo") }
                .isEmpty)
    }

    @Test("the demo's comparison finds one different value, one missing and one surplus row")
    func comparison() async throws {
        let folder = try TemporaryDirectory(prefix: "compare")
        let source = DemoAddress(engine: .sqlite, place: folder.path("a.db"))
        let target = DemoAddress(engine: .sqlite, place: folder.path("b.db"))
        let shop = DemoShop(engine: .sqlite)
        for address in [source, target] {
            let session = try SQLiteDemoSession(path: address.place, create: true)
            for statement in shop.schema + shop.seed { try session.execute(statement) }
        }
        // The pictures are random.
        let session = try target.openSession()
        try session.execute(
            "ATTACH '\(source.place)' AS a; DELETE FROM products; INSERT INTO products SELECT * FROM a.products")
        #expect(try DemoComparison.run(source: source, target: target).isEqual)
        for (damage, table, row) in [
            ("UPDATE customers SET name = name || ' ' WHERE id = 5", "customers", 5),
            ("UPDATE inventory SET on_hand = CAST(on_hand AS TEXT) || 'x' WHERE product_id = 1", "inventory", 1),
            ("DELETE FROM orders WHERE id = 30000", "orders", 30_000),
            ("INSERT INTO events VALUES ('a', 'b', 'c', NULL)", "events", 1),
        ] {
            try session.execute("BEGIN")
            try session.execute(damage)
            try session.execute("COMMIT")
            let comparison = try DemoComparison.run(source: source, target: target)
            #expect(!comparison.isEqual)
            #expect(comparison.tables.first { $0.name == table }?.firstDifference == row)
        }
    }

    @Test("the demo accounts for each acknowledged transaction: none missing, none changed, none surplus")
    func accounting() throws {
        let folder = try TemporaryDirectory(prefix: "account")
        let address = DemoAddress(engine: .sqlite, place: folder.path("a.db"))
        let session = try SQLiteDemoSession(path: address.place, create: true)
        for statement in DemoShop(engine: .sqlite).schema { try session.execute(statement) }
        #expect(try DemoComparison.hasAll([:], address))
        try session.execute("INSERT INTO receipts VALUES (0, 1), (0, 2), (0, 3), (1, 1), (1, 2)")
        #expect(try DemoComparison.hasAll([0: 3, 1: 2], address))
        for (writer, last) in [(0, 2), (0, 4), (1, 1), (1, 3), (2, 1)] {
            var acknowledged = [0: 3, 1: 2]
            acknowledged[writer] = last
            #expect(try !DemoComparison.hasAll(acknowledged, address))
        }
        for damage in [
            "DELETE FROM receipts WHERE writer = 0 AND number = 2", "DELETE FROM receipts WHERE writer = 1",
            "INSERT INTO receipts VALUES (2, 1)", "UPDATE receipts SET number = 9 WHERE writer = 0 AND number = 2",
            "UPDATE receipts SET number = 0 WHERE writer = 0 AND number = 2",
        ] {
            try session.execute("BEGIN")
            try session.execute(damage)
            try session.execute("COMMIT")
            #expect(try !DemoComparison.hasAll([0: 3, 1: 2], address), "\(damage)")
            try session.execute("DELETE FROM receipts")
            try session.execute("INSERT INTO receipts VALUES (0, 1), (0, 2), (0, 3), (1, 1), (1, 2)")
        }
    }

    @Test("the demo's writers keep to their rate, and lose nothing of it while they keep up", arguments: [1, 7, 50, 400])
    func pace(rate: Int) {
        let start = ContinuousClock.now
        for slowest in [0, 3] {
            var pace = DemoPace(rate: rate, seed: 5, start: start)
            var random = SeededRandom(seed: 6)
            var now = start
            var begun: [ContinuousClock.Instant] = []
            for _ in 0..<500 {
                now += pace.delay(at: now)
                begun.append(now)
                // Some take longer than a part of the time.
                now += .seconds(1) * Int(random.next() % 10 * UInt64(slowest)) / (10 * rate)
            }
            for (index, moment) in begun.enumerated() where index > rate {
                #expect(moment - begun[index - rate - 1] >= .milliseconds(999))
            }
            if slowest == 0 { #expect(begun[499] - start <= .seconds(1) * 500 / rate) }
        }
    }

    @Test("an interrupted demo exits with 130 and leaves nothing behind")
    func interrupted() async throws {
        let folder = try TemporaryDirectory(prefix: "demo")
        let demo = try Executable.start(["demo", "--seconds", "600"], environment: ["TMPDIR": folder.path])
        try await waitUntil(deadline: .seconds(120), "the demo syncs") { demo.outputSoFar.contains("syncing") }
        demo.send(signal: SIGINT)
        #expect(await demo.wait().status == 130)
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasPrefix("bridge-demo") }
                .isEmpty)
    }
}

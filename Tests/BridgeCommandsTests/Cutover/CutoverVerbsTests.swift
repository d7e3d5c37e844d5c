import BridgeConformance
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands

/// The verbs as an operator types them, between real databases.
@Suite("Verbs of a cutover", .serialized)
struct CutoverVerbsTests {
    @Test("C13 C23 there, back and there again loses no write, and leaves nothing in the end", arguments: Pair.all)
    func whole(_ pair: Pair) async throws {
        let place = try await LinkPlace(pair)
        try await begin(place)
        try await succeed(place, "switch-reads")
        let rehearsal = try await succeed(place, "rehearse")
        #expect(rehearsal["phase"] as? String == "reads_switched")
        #expect(rehearsal["pause_ms"] as? Double ?? -1 > 0)
        try await place.source.execute(LinkPlace.insert(60))
        try await succeed(place, "switch-writes")
        await #expect(throws: (any Error).self) { try await place.source.execute(LinkPlace.insert(61)) }
        try await place.target.execute(LinkPlace.insert(61))
        try await succeed(place, "rollback")
        await #expect(throws: (any Error).self) { try await place.target.execute(LinkPlace.insert(62)) }
        try await place.source.execute(LinkPlace.insert(62))
        try await succeed(place, "switch-writes")
        try await place.target.execute(LinkPlace.insert(63))
        let end = try await succeed(place, "complete")
        #expect(end["phase"] as? String == "completed")
        #expect(try await place.source.rows(.accounts) == place.target.rows(.accounts))
        #expect(try await place.target.rows(.accounts).count == 6)
        try await expectNothing(place)
        for database in [place.source, place.target] { try await database.execute(LinkPlace.insert(64)) }
    }

    @Test("C23 cancelled from any phase, the source serves on and nothing is left", arguments: Pair.all, ["", "switch-reads", "switch-writes"])
    func cancelled(_ pair: Pair, _ last: String) async throws {
        let place = try await LinkPlace(pair)
        try await begin(place)
        for verb in ["switch-reads", "switch-writes"].prefix(last.isEmpty ? 0 : last == "switch-reads" ? 1 : 2) {
            try await succeed(place, verb)
        }
        if last == "switch-writes" { try await place.target.execute(LinkPlace.insert(60)) }
        try await succeed(place, "cancel")
        #expect(try await place.source.rows(.accounts).count == (last == "switch-writes" ? 3 : 2))
        #expect(try await place.source.rows(.accounts) == place.target.rows(.accounts))
        try await expectNothing(place)
        for database in [place.source, place.target] { try await database.execute(LinkPlace.insert(64)) }
    }

    @Test("C9 C13 services switch and go back each by itself, and no write of either is lost", arguments: Pair.all)
    func services(_ pair: Pair) async throws {
        let place = try await LinkPlace(pair, twoServices: true)
        func item(_ number: Int) -> String { "INSERT INTO items VALUES (\(number), 'n', NULL, NULL);" }
        try await begin(place)
        let run = try place.start()
        try await place.waitUntilStreaming(.forward, process: run)
        try await succeed(place, "switch-reads")
        try await succeed(place, "switch-writes", "--service", "first")
        try await place.target.execute(LinkPlace.insert(60))
        try await place.source.execute(item(1))
        await #expect(throws: (any Error).self) { try await place.source.execute(LinkPlace.insert(61)) }
        await #expect(throws: (any Error).self) { try await place.target.execute(item(2)) }
        #expect(try await place.run("check", "--mode", "full").status == 0)
        try await succeed(place, "rollback", "--service", "first")
        try await place.source.execute(LinkPlace.insert(61))
        try await succeed(place, "switch-writes", "--service", "first")
        try await succeed(place, "switch-writes", "--service", "second")
        try await place.target.execute(item(2))
        #expect(try await place.run("check").status == 0)
        let repair = try await place.run("check", "--repair")
        #expect(repair.status != 0)
        try await succeed(place, "rollback", "--service", "second")
        try await place.source.execute(item(3))
        try await place.target.execute(LinkPlace.insert(62))
        let end = try await succeed(place, "cancel")
        #expect(end["phase"] as? String == "cancelled")
        try await run.wait().checked(["bridge run"])
        #expect(try await place.source.rows(.accounts) == place.target.rows(.accounts))
        #expect(try await place.source.rows(.items) == place.target.rows(.items))
        #expect(try await place.source.rows(.accounts).count == 5)
        #expect(try await place.source.rows(.items).count == 3)
        try await expectNothing(place)
    }

    @Test("C16 a dry run and a look change nothing, and keep nobody from the data directory", arguments: Pair.all)
    func dryRun(_ pair: Pair) async throws {
        let links = try await LinkPlace(pair)
        try await begin(links)
        let place = CutoverPlace(links: links)
        let before = try await place.dump()
        for verb in ["switch-reads", "switch-writes", "rehearse", "rollback", "complete", "cancel", "resume"] {
            // Writes are switched, and migrations completed, only from where reads are on the target.
            let isShut = ["switch-writes", "rehearse", "complete"].contains(verb)
            let report = try await place.verb(verb, "--dry-run", status: isShut ? 1 : 0)
            #expect((report["steps"] as? [Any])?.isEmpty == (verb == "resume"), "\(verb)")
            let shut = (report["gates"] as? [[String: Any]] ?? []).filter { $0["open"] as? Bool == false }
            #expect(shut.contains { $0["name"] as? String == "phase" } == isShut, "\(verb): \(shut)")
        }
        try await place.verb("status")
        #expect(try await links.run("status").status == 0)
        #expect(try await place.dump() == before)
    }

    @Test("C8 C19 status tells the phase, the gates of what comes next, and what is not as the ledger says", arguments: Pair.all)
    func status(_ pair: Pair) async throws {
        let (place, run) = try await CutoverPlace.ready(pair)
        func look() async throws -> [String: Any] {
            let outcome = try await place.links.run("status", "--json")
            #expect(outcome.status == 0, "\(outcome.errors)")
            return try #require(try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
        }
        func gates(_ status: [String: Any]) -> [String: Bool] {
            var gates: [String: Bool] = [:]
            for gate in status["gates"] as? [[String: Any]] ?? [] {
                if let name = gate["name"] as? String { gates[name] = gate["open"] as? Bool }
            }
            return gates
        }
        try await waitUntil("the gates to open") {
            let open = gates(try await look())
            return open.count > 3 && open.values.allSatisfy { $0 }
        }
        try await place.verb("switch-reads")
        var status = try await look()
        #expect(status["phase"] as? String == "reads_switched")
        #expect(gates(status)["check"] == true && gates(status)["untouched"] == true, "\(gates(status))")
        #expect(gates(status)["foreign_keys"] == nil, "what reads whole tables is not asked in passing")
        try await place.verb("switch-writes")
        status = try await look()
        #expect(status["phase"] as? String == "writes_switched")
        #expect(gates(status)["soak"] == true, "\(gates(status))")
        #expect((status["drift"] as? [String])?.isEmpty == true)
        // The old database may be gone by now: the new one has the ledger.
        let settings = try place.links.folder.read("bridge.yaml")
        let nowhere = pair.source is SQLiteEngine ? "sqlite:/nowhere/old.db" : "postgresql://postgres@/old?host=/nowhere"
        try place.links.folder.write("bridge.yaml", settings.replacingOccurrences(of: place.source.url, with: nowhere))
        status = try await look()
        #expect(status["phase"] as? String == "writes_switched", "\(status)")
        #expect((status["services"] as? [String: String])?.values.allSatisfy { $0 == "writes_switched" } == true)
        try place.links.folder.write("bridge.yaml", settings)
        try await place.target.execute(LinkPlace.insert(60))
        try await place.verb("complete")
        try await run.wait().checked(["bridge run"])
        status = try await look()
        #expect(status["phase"] as? String == "completed")
        #expect((status["next_steps"] as? [String])?.isEmpty == true)
    }

    @Test("C8 a shut gate stops a switch with 1, and is passed by a reason that the ledger keeps", arguments: [Pair.all[0]])
    func gates(_ pair: Pair) async throws {
        let links = try await LinkPlace(pair)
        #expect(try await links.run("run", "--until-caught-up").status == 0)
        let place = CutoverPlace(links: links)
        let shut = try await place.verb("switch-reads", status: 1)
        #expect((shut["reason"] as? String)?.contains("check") == true)
        #expect(try await place.start(["switch-reads", "--override", "check"]).wait().status == 64)
        try await place.verb("switch-reads", "--override", "check", "--reason", "tried elsewhere")
        #expect(try await place.phase() == "reads_switched")
        try await place.verb("switch-writes", status: 1)
        try await place.verb("cancel")
        #expect(try links.folder.read("data/cutover.json").contains("tried elsewhere"))
    }

    @Test("C10 a check of tables that were altered since shuts the gate until there is another one, or a reason", arguments: Pair.all)
    func alteredSince(_ pair: Pair) async throws {
        // Without a run, which checks by itself.
        let place = CutoverPlace(links: try await LinkPlace(pair))
        try await begin(place.links)
        func gate(_ report: [String: Any]) throws -> (isOpen: Bool, measured: String, hint: String?) {
            let found = try #require((report["gates"] as? [[String: Any]])?.first { $0["name"] as? String == "check" })
            return (found["open"] as? Bool == true, found["measured"] as? String ?? "", found["hint"] as? String)
        }
        func expectShut(_ report: [String: Any], _ word: String) throws {
            let gate = try gate(report)
            #expect(!gate.isOpen && gate.measured.contains("\(word): ") && gate.measured.contains("accounts on the target"), "\(gate)")
            #expect(gate.hint == "bridge check", "\(gate)")
        }
        func check() async throws { #expect(try await place.links.run("check").status == 0) }
        #expect(try gate(await place.verb("switch-reads", "--dry-run")).isOpen)
        // A check of the keys that changed since says nothing of the other rows: neither an operator's nor a run's.
        try await place.target.execute("CREATE UNIQUE INDEX extra ON accounts(id, email)")
        let later = try await place.links.run("check", "--mode", "incremental")
        // SQLite's watch sees every alteration by itself.
        #expect(later.status == (pair.target is SQLiteEngine ? 2 : 0), "\(later.output)")
        let shut = try gate(await place.verb("switch-reads", status: 1))
        #expect(!shut.isOpen && shut.measured.contains("altered since: ") && shut.measured.contains("accounts on the target"), "\(shut)")
        try await place.target.execute("DROP INDEX extra")
        if pair.target is SQLiteEngine { try await check() }
        #expect(try gate(await place.verb("switch-reads", "--dry-run")).isOpen)
        try await place.target.execute("ALTER TABLE accounts ADD COLUMN extra integer")
        try expectShut(await place.verb("switch-reads", status: 1), "altered since")
        try expectShut(object(await place.links.run("status", "--json")), "altered since")
        try await check()
        try await place.verb("switch-reads")
        // Reports of older versions tell nothing.
        let reports = place.links.folder.path("data/checks")
        let newest = "data/checks/" + (try #require(try FileManager.default.contentsOfDirectory(atPath: reports).max()))
        try place.links.folder.write(newest, try place.links.folder.read(newest).replacingOccurrences(of: "\"target_schema\"", with: "\"unheard_of\""))
        for verb in ["rehearse", "switch-writes"] { try expectShut(await place.verb(verb, status: 1), "definition unknown") }
        try await check()
        try await place.verb("rehearse")
        try await place.target.execute("ALTER TABLE accounts ADD COLUMN checked integer CHECK (checked > 0)")
        for verb in ["rehearse", "switch-writes"] { try expectShut(await place.verb(verb, status: 1), "altered since") }
        try await place.verb("rollback")
        try expectShut(await place.verb("switch-reads", status: 1), "altered since")
        try await place.verb("switch-reads", "--override", "check", "--reason", "nothing is ever written there")
        #expect(try await place.phase() == "reads_switched")
        try await place.verb("cancel")
    }

    private func begin(_ place: LinkPlace) async throws {
        #expect(try await place.run("run", "--until-caught-up").status == 0)
        #expect(try await place.run("check").status == 0)
    }

    @discardableResult
    private func succeed(_ place: LinkPlace, _ verb: String, _ options: String...) async throws -> [String: Any] {
        let outcome = try await Executable.run(
            ["cutover", verb] + options + ["--json", "--config", place.folder.path("bridge.yaml")])
        #expect(outcome.status == 0, "\(verb): \(outcome.output)\(outcome.errors)")
        let report = try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any]
        #expect(report?["succeeded"] as? Bool == true)
        return try #require(report)
    }

    private func expectNothing(_ place: LinkPlace) async throws {
        #expect(try await place.source.traces().isEmpty)
        #expect(try await place.target.traces().isEmpty)
        for direction in [LinkDirection.forward, .reverse] {
            #expect(!FileManager.default.fileExists(atPath: place.directory.linkDirectory(direction)))
        }
    }
}

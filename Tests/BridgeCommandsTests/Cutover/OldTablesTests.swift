import BridgeConformance
import BridgeCore
import BridgeCutover
import BridgeTestEngines
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands

/// Source tables that get other names when a migration is completed, where bridge.yaml asks for it.
@Suite("Old tables that are renamed", .serialized)
struct OldTablesTests {
    private static let settings = "cutover: { old_tables: rename }\n"

    private static func newName(_ place: CutoverPlace) -> String {
        OldTable(TableName(name: "accounts"), migration: place.links.configuration.migration).newName
    }

    /// Where a migration can be completed.
    private static func switched(_ pair: Pair) async throws -> (CutoverPlace, ChildProcess, clean: [String]) {
        let place = CutoverPlace(links: try await LinkPlace(pair))
        let clean = try await place.dump()
        try place.links.folder.write("bridge.yaml", try place.links.folder.read("bridge.yaml") + settings)
        let run = try await place.begin()
        try await place.verb("switch-reads")
        try await place.verb("switch-writes")
        try await place.target.execute(LinkPlace.insert(60))
        return (place, run, clean)
    }

    /// The rows are under the new name, the old name is free, and nothing else is left of bridge.
    private static func expectRenamed(_ place: CutoverPlace, _ clean: [String]) async throws {
        let name = newName(place)
        await #expect(throws: (any Error).self) { try await place.source.execute(LinkPlace.insert(61)) }
        try await place.source.execute("CREATE TABLE accounts (id INTEGER);")
        try await place.source.execute("DROP TABLE accounts;")
        try await place.source.execute("ALTER TABLE \(name) RENAME TO accounts;")
        #expect(try await place.source.rows(.accounts) == place.target.rows(.accounts))
        #expect(try await place.source.rows(.accounts).count == 3)
        #expect(try await place.dump() == clean)
        #expect(try await place.origins().isEmpty)
        try await place.source.execute(LinkPlace.insert(61))
    }

    @Test("C23 completed, the source's rows are under a name that tells the migration, and nothing else is left of it", arguments: Pair.all)
    func completed(_ pair: Pair) async throws {
        let (place, run, clean) = try await Self.switched(pair)
        let name = Self.newName(place)
        let plan = try object(try await place.start(["complete", "--dry-run"]).wait())
        #expect((plan["steps"] as? [[String: Any]])?.contains { $0["name"] as? String == "rename_old_tables" } == true)
        // A name that is taken is found before anything is done.
        try await place.source.execute("CREATE TABLE \(name) (id INTEGER);")
        let refused = try await place.start(["complete"]).wait()
        #expect(refused.status == ExitStatus.configuration.rawValue, "\(refused.output)\(refused.errors)")
        #expect(refused.errors.contains(name) && refused.errors.contains("old_tables"), "\(refused.errors)")
        #expect(try await place.phase() == "writes_switched")
        #expect(!FileManager.default.fileExists(atPath: place.links.folder.path("data/cutover.json")))
        try await place.target.execute(LinkPlace.insert(59))
        try await place.links.waitUntilEqual(4)
        try await place.target.execute("DELETE FROM accounts WHERE id = 59;")
        try await place.source.execute("DROP TABLE \(name);")
        let report = try await place.verb("complete")
        #expect((report["reason"] as? String)?.contains(name) == true)
        try await run.wait().checked(["bridge run"])
        #expect(try await place.phase() == "completed")
        let status = try object(try await place.links.run("status", "--json"))
        #expect(status["phase"] as? String == "completed", "\(status)")
        try await Self.expectRenamed(place, clean)
    }

    @Test("C23 C25 killed behind the rename, the end is finished, whatever has the old name by then", arguments: Pair.all, [false, true])
    func killed(_ pair: Pair, _ isReused: Bool) async throws {
        let (place, run, clean) = try await Self.switched(pair)
        let failpoint = Failpoint.afterTeardown(.renameOldTables).name
        #expect(try await place.start(["complete"], failpoints: "\(failpoint)=kill").wait().status == -SIGKILL)
        try await run.wait().checked(["bridge run"])
        let name = Self.newName(place)
        // No client that was left behind writes before the end.
        await #expect(throws: (any Error).self) {
            try await place.source.execute(LinkPlace.insert(61).replacingOccurrences(of: "accounts", with: name))
        }
        if isReused { try await place.source.execute("CREATE TABLE accounts (other INTEGER PRIMARY KEY);") }
        let status = try await place.verb("status")
        #expect((status["drift"] as? [String])?.isEmpty == true, "\(status["drift"] ?? "")")
        let whole = try object(try await place.links.run("status", "--json"))
        #expect(whole["phase"] as? String == "completing", "\(whole)")
        #expect(whole["next_steps"] as? [String] == ["bridge cutover complete"], "\(whole)")
        let plan = try await place.verb("complete", "--dry-run")
        #expect((plan["steps"] as? [[String: Any]])?.contains { $0["name"] as? String == "rename_old_tables" } == true)
        try await place.verb("complete")
        if isReused { try await place.source.execute("DROP TABLE accounts;") }
        try await Self.expectRenamed(place, clean)
    }

    @Test("C23 a migration that is cancelled renames nothing", arguments: [Pair.all[0]])
    func cancelled(_ pair: Pair) async throws {
        let (place, run, clean) = try await Self.switched(pair)
        let plan = try await place.verb("cancel", "--dry-run")
        #expect((plan["steps"] as? [[String: Any]])?.contains { $0["name"] as? String == "rename_old_tables" } == false)
        try await place.verb("cancel")
        try await run.wait().checked(["bridge run"])
        #expect(try await place.source.rows(.accounts).count == 3)
        #expect(try await place.dump() == clean)
    }
}

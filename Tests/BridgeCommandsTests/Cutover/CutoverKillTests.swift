import BridgeConformance
import BridgeCore
import BridgeCutover
import BridgeTestEngines
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands

/// Processes that die in the middle of a verb, under an application that writes all along.
@Suite("Cutovers that are killed", .serialized)
struct CutoverKillTests {
    /// One pair has each engine left and entered, there and back; `BRIDGE_TEST_PAIR` names another.
    static let pairs = environment("BRIDGE_TEST_PAIR").map { name in Pair.all.filter { $0.description == name } }
        ?? Pair.all.filter { $0.description == "PostgreSQL to SQLite" }

    private static let beforeCommit = [Failpoint.cutoverBegun] + Step.towardsCommit.dropLast().map(Failpoint.afterStep)
    private static let behindCommit = ([.commit] + Step.afterCommit).map(Failpoint.afterStep)

    @Test("C13 C14 C20 C25 killed after any step, there and back, resume finishes or undoes it, and no write is lost", arguments: pairs)
    func everyStep(_ pair: Pair) async throws {
        let place = CutoverPlace(links: try await LinkPlace(pair))
        let clean = try await place.dump()
        let run = try await place.begin()
        try await place.verb("switch-reads")
        let writer = FollowingWriter(place)
        for verb in ["switch-writes", "rollback"] {
            let (here, there) = verb == "rollback" ? ("writes_switched", "reads_switched") : ("reads_switched", "writes_switched")
            for failpoint in Self.beforeCommit {
                try await kill(place, verb, at: failpoint)
                // Left alone, the fence expires and the application goes on where it was.
                try await writer.waitForWrite()
                try await place.verb("resume")
                #expect(try await place.phase() == here, "\(verb) \(failpoint.name)")
            }
            for failpoint in Self.behindCommit {
                try await kill(place, verb, at: failpoint)
                try await place.verb("resume")
                #expect(try await place.phase() == there, "\(verb) \(failpoint.name)")
                try await writer.waitForWrite()
                // Back to where the next one begins, but for the last.
                if verb == "rollback" || failpoint.name != Self.behindCommit.last?.name {
                    try await place.verb(verb == "rollback" ? "switch-writes" : "rollback")
                }
            }
            if verb == "switch-writes" { #expect(try await place.phase() == there) }
        }
        try await place.verb("rollback")
        try await place.account(writer)
        try await place.verb("cancel")
        try await run.wait().checked(["bridge run"])
        #expect(try await place.dump() == clean)
    }

    @Test("C23 C25 killed after any step of its end, the same verb finishes it and leaves nothing", arguments: pairs, [("complete", OldTables.leave), ("complete", .rename), ("cancel", .rename)])
    func end(_ pair: Pair, _ ending: (verb: String, oldTables: OldTables)) async throws {
        let (verb, oldTables) = ending
        let place = CutoverPlace(links: try await LinkPlace(pair))
        let before = try await place.dump()
        try place.links.folder.write(
            "bridge.yaml", try place.links.folder.read("bridge.yaml") + "cutover: { old_tables: \(oldTables.rawValue) }\n")
        let steps = Teardown.steps(completed: verb == "complete", oldTables)
        for failpoint in steps.map(Failpoint.afterTeardown) {
            let run = try await place.begin()
            try await place.verb("switch-reads")
            if verb == "complete" { try await place.verb("switch-writes") }
            try await kill(place, verb, at: failpoint)
            let report = try await place.verb(verb)
            #expect(report["succeeded"] as? Bool == true, "\(failpoint.name)")
            #expect(await run.wait().status == 0, "\(failpoint.name)")
            if steps.contains(.renameOldTables) {
                let old = OldTable(TableName(name: "accounts"), migration: place.links.configuration.migration)
                try await place.source.execute("ALTER TABLE \(old.newName) RENAME TO accounts;")
            }
            #expect(try await place.dump() == before, "\(failpoint.name)")
            #expect(try await place.origins().isEmpty)
            // The next migration begins with nothing on the target.
            try await place.target.execute("DELETE FROM accounts;")
            try? FileManager.default.removeItem(atPath: place.links.folder.path("data"))
        }
    }

    @Test("C25 every failpoint of a cutover lies in this table")
    func table() {
        let tested = Set((Self.beforeCommit + Self.behindCommit + Teardown.Step.allCases.map(Failpoint.afterTeardown)).map(\.name))
        let undoing = Set(Step.undoing.map { Failpoint.afterStep($0).name })
        #expect(Set(Failpoint.ofCutover.map(\.name)).subtracting(tested).filter { !$0.contains(".before-") } == undoing)
    }

    private func kill(_ place: CutoverPlace, _ verb: String, at failpoint: Failpoint) async throws {
        let outcome = try await place.start([verb], failpoints: "\(failpoint.name)=kill").wait()
        #expect(outcome.status == -SIGKILL, "\(verb) \(failpoint.name): \(outcome.output)\(outcome.errors)")
    }
}

import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands

@Suite("A run follows the way back", .serialized)
struct LinkFollowTests {
    @Test("C12 P19 the way back starts in a run that is alive; writes on either side arrive on the other, and none comes back", arguments: Pair.all)
    func starts(_ pair: Pair) async throws {
        let place = try await LinkPlace(pair)
        let run = try place.start("--json")
        try await place.waitUntilStreaming(.forward, process: run)
        #expect(try await place.links().map { $0["direction"] as? String } == ["forward"])
        try await place.prepareReverse()
        try await place.waitUntilStreaming(.reverse, process: run)
        try await place.target.execute(LinkPlace.insert(10))
        try await place.waitUntilEqual(3)
        try await place.source.execute(LinkPlace.insert(11))
        try await place.waitUntilEqual(4)
        // Whatever went round would be in front of these.
        try await place.target.execute(LinkPlace.insert(12))
        try await place.source.execute(LinkPlace.insert(13))
        try await place.waitUntilEqual(6)

        let links = try await place.links()
        #expect(links.map { $0["direction"] as? String } == ["forward", "reverse"])
        for link in links {
            #expect(link["state"] as? String == "running")
            #expect(link["process"] as? Int == Int(run.processIdentifier))
            for key in ["captured_position", "journaled_position", "applied_position", "source_position"] {
                #expect(link[key] is String, "\(key) of \(link)")
            }
            for key in ["lag_seconds", "lag_bytes", "rows_per_second", "journal_bytes"] { #expect(link[key] is NSNumber, "\(key)") }
        }
        run.send(signal: SIGTERM)
        let outcome = await run.wait()
        #expect(outcome.status == 0, "\(outcome.errors)")
        let summary = try object(outcome)
        let figures = try #require(summary["links"] as? [[String: Any]])
        #expect(figures.map { $0["rows_applied"] as? Int } == [2, 2])
        #expect(try await place.links().map { $0["state"] as? String } == ["stopped", "stopped"])
    }

    @Test("C25 killed and run again, both links go on; until caught up is said of both", arguments: Pair.all)
    func killed(_ pair: Pair) async throws {
        let place = try await LinkPlace(pair)
        let run = try place.start()
        try await place.waitUntilStreaming(.forward, process: run)
        try await place.prepareReverse()
        try await place.waitUntilStreaming(.reverse, process: run)
        run.send(signal: SIGKILL)
        #expect(await run.wait().status == -SIGKILL)
        #expect(try await place.links().map { $0["state"] as? String } == ["stopped", "stopped"])
        try await place.source.execute(LinkPlace.insert(20))
        try await place.target.execute(LinkPlace.insert(21))
        let caughtUp = try await place.run("run", "--until-caught-up")
        #expect(caughtUp.status == 0, "\(caughtUp.errors)")
        #expect(try await place.source.rows(.accounts) == place.target.rows(.accounts))
        #expect(try await place.source.rows(.accounts).count == 4)

        let again = try place.start()
        try await place.waitUntilStreaming(.forward, .reverse, process: again)
        try await place.target.execute(LinkPlace.insert(22))
        try await place.source.execute(LinkPlace.insert(23))
        try await place.waitUntilEqual(6)
        again.send(signal: SIGTERM)
        try await again.wait().checked(["bridge run"])
    }

    @Test("C23 a way back whose records are gone ends, the way forward goes on; when both are gone the run ends with 0", arguments: Pair.all)
    func removed(_ pair: Pair) async throws {
        let place = try await LinkPlace(pair)
        let run = try place.start()
        try await place.waitUntilStreaming(.forward, process: run)
        try await place.prepareReverse()
        try await place.waitUntilStreaming(.reverse, process: run)
        try await place.removeRecords(.reverse)
        try await waitUntil(deadline: .seconds(60), "the way back ended") {
            RunReport.read(from: place.directory, direction: .reverse) == nil
        }
        try await place.removeCapture(.reverse)
        try await place.source.execute(LinkPlace.insert(30))
        try await place.waitUntilEqual(3)
        #expect(try await place.links().map { $0["direction"] as? String } == ["forward"])

        try FileManager.default.removeItem(atPath: place.directory.journalDirectory(.reverse))
        try await place.prepareReverse()
        try await place.waitUntilStreaming(.reverse, process: run)
        try await place.removeRecords(.forward)
        try await place.removeRecords(.reverse)
        for direction in [LinkDirection.forward, .reverse] {
            try await waitUntil(deadline: .seconds(60), "the capture is free") {
                do {
                    try await place.removeCapture(direction)
                    return true
                } catch let error as BridgeError where error.retry == .backoff { return false }
            }
        }
        let outcome = await run.wait()
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(outcome.errors.contains("completed or cancelled"))
        #expect(try await place.source.traces().isEmpty)
        #expect(try await place.target.traces().isEmpty)
    }

    @Test("a way back that fails for good leaves the way forward at work, is tried again, and status says so", arguments: Pair.all)
    func reverseFails(_ pair: Pair) async throws {
        let place = try await LinkPlace(pair)
        #expect(try await place.run("run", "--until-caught-up").status == 0)
        try await place.prepareReverse()
        // As if somebody had dropped its slot, or its log.
        try await place.removeCapture(.reverse)
        let run = try place.start()
        try await place.waitUntilStreaming(.forward, process: run)
        try await waitUntil(deadline: .seconds(60), "the failure is reported") {
            RunReport.read(from: place.directory, direction: .reverse)?.retryAt != nil
        }
        try await place.source.execute(LinkPlace.insert(40))
        try await waitUntil(deadline: .seconds(60)) { try await place.target.rows(.accounts).count == 3 }
        try await waitUntil(deadline: .seconds(60), "it was tried again") {
            run.errorsSoFar.components(separatedBy: "the way back failed, and is tried again").count > 2
        }
        try await waitUntil(deadline: .seconds(60), "status says so") {
            let link = try #require(try await place.links().last)
            return link["state"] as? String == "failed" && link["error"] is String && link["retried_at"] is String
        }
        #expect(try await place.links().first?["state"] as? String == "running")
        // While it is being tried there is no such line.
        try await waitUntil(deadline: .seconds(60), "it is printed") {
            try await place.run("status").output.contains("the way back failed, and is tried again: ")
        }
        run.send(signal: SIGTERM)
        let status = await run.wait().status
        #expect([65, 78].contains(status))
    }

    @Test("a way forward that fails for good leaves the way back at work", arguments: Pair.all)
    func forwardFails(_ pair: Pair) async throws {
        let place = try await LinkPlace(pair)
        #expect(try await place.run("run", "--until-caught-up").status == 0)
        try await place.prepareReverse()
        try await place.removeCapture(.forward)
        let run = try place.start()
        try await place.waitUntilStreaming(.reverse, process: run)
        try await waitUntil(deadline: .seconds(60), "the failure is reported") {
            RunReport.read(from: place.directory)?.retryAt != nil
        }
        try await place.target.execute(LinkPlace.insert(50))
        try await waitUntil(deadline: .seconds(60)) { try await place.source.rows(.accounts).count == 3 }
        // In between it is tried.
        try await waitUntil(deadline: .seconds(60), "status says so") {
            try await place.links().map { $0["state"] as? String } == ["failed", "running"]
        }
        run.send(signal: SIGTERM)
        let status = await run.wait()
        #expect([65, 78].contains(status.status), "\(status.status) \(status.errors)")
    }

    @Test("C13 where only the way back is left, a run does not begin the way forward anew", arguments: Pair.all)
    func notAnew(_ pair: Pair) async throws {
        let place = try await LinkPlace(pair)
        #expect(try await place.run("run", "--until-caught-up").status == 0)
        try await place.prepareReverse()
        try await place.removeRecords(.forward)
        try await place.removeCapture(.forward)
        try FileManager.default.removeItem(atPath: place.directory.journalDirectory(.forward))
        // Nothing in its way but the rule.
        try await place.target.execute("DELETE FROM accounts;")
        let run = try place.start()
        try await place.waitUntilStreaming(.reverse, process: run)
        try await waitUntil(deadline: .seconds(60)) { try await place.source.rows(.accounts).isEmpty }
        #expect(!FileManager.default.fileExists(atPath: place.directory.journalDirectory(.forward)))
        run.send(signal: SIGTERM)
        try await run.wait().checked(["bridge run"])
    }

    @Test("status shows both links with either database away, and with no run alive")
    func away() async throws {
        let place = try await LinkPlace(Pair(source: PostgreSQLEngine(), target: PostgreSQLEngine()))
        #expect(try await place.run("run", "--until-caught-up").status == 0)
        try await place.prepareReverse()
        #expect(try await place.run("run", "--until-caught-up").status == 0)
        let nobody = "postgresql://nobody@127.0.0.1:1/gone"
        for name in ["BRIDGE_SOURCE", "BRIDGE_TARGET"] {
            let outcome = try await Executable.run(
                ["status", "--json", "--config", place.folder.path("bridge.yaml")], environment: [name: nobody])
            #expect(outcome.status == 0)
            let links = try #require(try object(outcome)["links"] as? [[String: Any]])
            #expect(links.map { $0["direction"] as? String } == ["forward", "reverse"], "\(name)")
            #expect(links.allSatisfy { $0["state"] as? String == "stopped" && $0["applied_position"] is String }, "\(name) \(links)")
        }
    }
}

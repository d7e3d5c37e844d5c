import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands

@Suite("Links kept at work while a command is", .serialized)
struct LinkAttendanceTests {
    @Test("C12 without a run it runs both links itself, and gives the data directory back", arguments: Pair.all)
    func own(_ pair: Pair) async throws {
        let place = try await LinkPlace(pair)
        #expect(try await place.run("run", "--until-caught-up").status == 0)
        let links = try LinkSupervisor.start(place.configuration, .standard, logger: place.logger)
        #expect(links.process == getpid())
        try await links.waitUntilStreaming(.forward, patience: .seconds(60))
        let early = await #expect(throws: BridgeError.self) { try await links.waitUntilStreaming(.reverse, patience: .zero) }
        #expect(early?.code == .serverBusy)
        try await place.prepareReverse()
        try await links.waitUntilStreaming(.reverse, patience: .seconds(60))
        try await place.target.execute(LinkPlace.insert(60))
        try await place.source.execute(LinkPlace.insert(61))
        try await place.waitUntilEqual(4)
        try await waitUntil(deadline: .seconds(60)) {
            links.standing(.forward)?.lagSeconds == 0 && links.standing(.reverse)?.lagSeconds == 0
        }
        await links.stop()
        #expect(DirectoryLock.holder(of: place.directory) == nil)
    }

    @Test("C12 beside a run it relies on that; when the run is killed it takes over")
    func other() async throws {
        let place = try await LinkPlace(Pair(source: SQLiteEngine(), target: PostgreSQLEngine()))
        let run = try place.start()
        try await place.waitUntilStreaming(.forward, process: run)
        let links = try LinkSupervisor.start(place.configuration, .standard, logger: place.logger)
        #expect(links.process == run.processIdentifier)
        try await links.waitUntilStreaming(.forward, patience: .seconds(60))
        try await place.prepareReverse()
        try await links.waitUntilStreaming(.reverse, patience: .seconds(60))
        #expect(links.process == run.processIdentifier)
        run.send(signal: SIGKILL)
        _ = await run.wait()
        #expect(links.standing(.reverse) == nil)
        try await links.waitUntilStreaming(.reverse, patience: .seconds(60))
        #expect(links.process == getpid())
        await links.stop()
    }

    @Test("it does not begin a migration that was not begun, and says what a link failed with")
    func refuses() async throws {
        let place = try await LinkPlace(Pair(source: SQLiteEngine(), target: SQLiteEngine()))
        let links = try LinkSupervisor.start(place.configuration, .standard, logger: place.logger)
        let error = await #expect(throws: BridgeError.self) { try await links.waitUntilStreaming(.forward, patience: .seconds(60)) }
        #expect(error?.code == .checkpointForeign)
        await links.stop()
        #expect(try await place.source.traces().isEmpty)
        #expect(try await place.target.traces().isEmpty)
    }

    @Test("C23 records that are gone while the capture stays are lost records, not an ended migration")
    func lostRecords() async throws {
        let place = try await LinkPlace(Pair(source: SQLiteEngine(), target: SQLiteEngine()))
        #expect(try await place.run("run", "--until-caught-up").status == 0)
        var options = LinkSupervisor.Options()
        options.farewell = .milliseconds(300)
        let links = LinkSupervisor(place.configuration, .standard, options: options, logger: place.logger)
        async let end = links.run { _ in }
        try await waitUntil(deadline: .seconds(60)) { links.isStreaming(.forward) }
        try await place.removeRecords(.forward)
        let result = await end
        guard case .failure(let error) = result else {
            Issue.record("\(result)")
            return
        }
        #expect(error.code == .checkpointForeign)
        #expect(error.message.contains("capture"))
    }
}

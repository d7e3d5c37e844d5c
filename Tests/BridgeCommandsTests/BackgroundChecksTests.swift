import BridgeConsistency
import BridgeCore
import BridgeReplication
import BridgeTestSupport
import Foundation
import Logging
import Synchronization
import Testing

@testable import BridgeCommands

/// Keeps the warnings and errors.
private final class Said: LogHandler {
    private let texts = Mutex<[String]>([])
    var warnings: [String] { texts.withLock { $0 } }

    var metadata: Logger.Metadata { get { [:] } set {} }
    var logLevel: Logger.Level { get { .trace } set {} }
    subscript(metadataKey _: String) -> Logger.Metadata.Value? { get { nil } set {} }

    func log(event: LogEvent) {
        if event.level >= .warning { texts.withLock { $0.append("\(event.message)") } }
    }
}

private final class Flag: Sendable {
    private let value = Mutex(false)
    var isSet: Bool { value.withLock { $0 } }
    func set() { value.withLock { $0 = true } }
}

@Suite("The checks that a run makes by itself")
struct BackgroundChecksTests {
    private func checks(
        _ place: CheckPlace, interval: Duration = .milliseconds(1), logger: Logger? = nil,
        _ body: @escaping @Sendable (FakeCheck) async throws(BridgeError) -> CheckReport
    ) throws -> BackgroundChecks {
        BackgroundChecks(
            try place.migration().configuration, ConnectorRegistry.standard,
            factory: { _, options, _, _, _, access throws(BridgeError) in
                #expect(options.mode == .incremental)
                #expect(!options.waitsForOthers)
                #expect(access == nil)
                return FakeCheck(body)
            }, interval: interval, logger: logger ?? place.logger)
    }

    private static func report(_ number: Int, _ verdict: CheckReport.Verdict = .consistent) -> CheckReport {
        var report = Reports.clean(id: "20361121T055900Z-000\(number)", verdict: verdict)
        report.mode = .incremental
        return report
    }

    @Test("K13 nothing is checked before a full check was completed; then each report takes the last one's place")
    func replaces() async throws {
        let place = try await CheckPlace.syncing()
        let number = Mutex(0)
        let checks = try checks(place) { _ in
            Self.report(
                number.withLock {
                    $0 += 1
                    return $0
                })
        }
        if case .skipped = await checks.turn() {} else { Issue.record("a check without a base") }
        #expect(try place.history.isEmpty)
        try await place.succeeding("check")
        for turn in 1...3 {
            guard case .made(let report) = await checks.turn() else {
                Issue.record("no check was made")
                return
            }
            #expect(report.background)
            #expect(try place.history.map { $0.report?.background } == [true, false])
            #expect(try place.history.first?.checkId == Self.report(turn).checkId)
        }
    }

    @Test("K13 what fails is said once and tried again, and puts nothing into the history")
    func failures() async throws {
        let place = try await CheckPlace.syncing()
        try await place.succeeding("check")
        let said = Said()
        let logger = Logger(label: "test") { _ in said }
        let turns = Mutex(0)
        let checks = try checks(place, logger: logger) { _ throws(BridgeError) in
            turns.withLock { $0 += 1 }
            throw BridgeError(.serverBusy, "the journal does not move")
        }
        async let running: Void = checks.run { _ in true }
        try await waitUntil("it was tried again") { turns.withLock { $0 } > 2 }
        await checks.end()
        await running
        #expect(said.warnings.count == 1)
        #expect(said.warnings.first?.contains("the journal does not move") == true)
        #expect(try place.history.count == 1)
    }

    @Test("K13 while the application writes on the target the way back is checked, once there is a full check of it")
    func wayBack() async throws {
        let place = try await CheckPlace.syncing()
        try await place.succeeding("check")
        let forward = try place.migration(), back = try forward.reversed()
        let link = try await back.open()
        try await ReversePreparation(
            configuration: back.linkConfiguration(link), source: back.source, target: back.target, logger: place.logger
        ).prepare()
        let checked = Mutex<[LinkDescription.Direction]>([])
        let checks = BackgroundChecks(
            forward.configuration, ConnectorRegistry.standard,
            factory: { link, options, source, target, _, _ throws(BridgeError) in
                checked.withLock { $0.append(link.direction) }
                #expect(source.displayName.hasSuffix("new.db"))
                #expect(target.displayName.hasSuffix("old.db"))
                #expect(options.stateDirectory.hasSuffix("reverse/check"))
                #expect(options.journalDirectory.hasSuffix("reverse/journal"))
                return FakeCheck { _ in Self.report(1) }
            }, interval: .milliseconds(1), writingSides: { WritingSides(.target) }, logger: place.logger)
        // The full check of the way forward is nothing to build upon.
        if case .skipped = await checks.turn() {} else { Issue.record("a check without a base") }

        let links = try LinkSupervisor.start(forward.configuration, .standard, logger: place.logger)
        try await links.waitUntilStreaming(.reverse, patience: .seconds(60))
        let directory = forward.directory
        let report = try await CheckRunner(
            link: link.description,
            options: CheckOptions(
                mode: .full, stateDirectory: directory.checkDirectory(.reverse), journalDirectory: directory.journalDirectory(.reverse)),
            source: back.source, target: back.target, logger: place.logger
        ).run()
        #expect(report.verdict == .consistent)
        await links.stop()
        await back.close()
        guard case .made = await checks.turn() else {
            Issue.record("no check was made")
            return
        }
        #expect(checked.withLock { $0 } == [.reverse])
        // It waits for the link that it is about.
        let asked = Mutex<Set<String>>([])
        async let running: Void = checks.run { direction in
            asked.withLock { _ = $0.insert(direction.rawValue) }
            return false
        }
        try await waitUntil { !asked.withLock { $0.isEmpty } }
        await checks.end()
        await running
        #expect(asked.withLock { $0 } == ["reverse"])
    }

    @Test("K13 the end of a run stops the check under way")
    func ends() async throws {
        let place = try await CheckPlace.syncing()
        try await place.succeeding("check")
        let isRunning = Mutex(false)
        let checks = try checks(place) { check async throws(BridgeError) in
            isRunning.withLock { $0 = true }
            return try await check.waitForStop()
        }
        async let running: Void = checks.run { _ in true }
        try await waitUntil("it checks") { isRunning.withLock { $0 } }
        await checks.end()
        await running
        #expect(try place.history.count == 1)
    }

    @Test("K13 a check that does not end when it is told to does not hold up the run's end")
    func hangs() async throws {
        let place = try await CheckPlace.syncing()
        try await place.succeeding("check")
        let (isRunning, mayEnd) = (Flag(), Flag())
        let checks = try checks(place) { _ in
            isRunning.set()
            while !mayEnd.isSet { try? await Task.sleep(for: .milliseconds(5)) }
            return Self.report(1)
        }
        async let running: Void = checks.run { _ in true }
        try await waitUntil("it checks") { isRunning.isSet }
        await checks.end(patience: .milliseconds(20))
        mayEnd.set()
        await running
    }

    @Test("K16 what a verdict that turned says names the tables and what to do, and no key")
    func alarm() {
        let text = BackgroundChecks.alarm(Reports.fiveFaults(showingValues: true))
        #expect(text.contains("users: 4 rows differ"))
        #expect(text.contains("bridge check"))
        #expect(!text.contains("9007199254740993") && !text.contains("a@example.com"))
    }

    @Test("a turn comes three times within the greatest age, between ten seconds and five minutes")
    func interval() {
        #expect(BackgroundChecks.interval(maxAge: .seconds(900)) == .seconds(300))
        #expect(BackgroundChecks.interval(maxAge: .seconds(60)) == .seconds(20))
        #expect(BackgroundChecks.interval(maxAge: .seconds(1)) == .seconds(10))
        #expect(BackgroundChecks.interval(maxAge: .seconds(86_400)) == .seconds(300))
    }
}

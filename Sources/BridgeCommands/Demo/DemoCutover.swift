import BridgeCore
import BridgeCutover
import Foundation
import Synchronization

/// The second part of a demo: the application moves over, back, over again, and the migration is completed, with the links
/// kept at work as `bridge run` does it.
final class DemoCutover: Sendable {
    /// How long the application could write nowhere, in milliseconds, by the verb.
    struct Pause: Sendable {
        let verb: CutoverVerb
        let milliseconds: Double
    }

    private let configuration: Configuration
    private let context: CommandContext
    private let writers: DemoWriters
    private let say: @Sendable (String) -> Void
    private struct State {
        var lock: DirectoryLock?
        var stop: (@Sendable () -> Void)?
        var isInterrupted = false
        var pauses: [Pause] = []
    }
    private let state: Mutex<State>

    /// - Parameter lock: of the data directory; given up before the migration is completed.
    init(
        _ configuration: Configuration, _ writers: DemoWriters, _ lock: DirectoryLock, context: CommandContext,
        say: @escaping @Sendable (String) -> Void
    ) {
        self.configuration = configuration
        self.context = context
        self.writers = writers
        self.say = say
        state = Mutex(State(lock: lock))
    }

    /// Asks for the end. From any thread.
    func interrupt() {
        let stop = state.withLock { state in
            state.isInterrupted = true
            return state.stop
        }
        stop?()
    }

    /// - Returns: the pauses, after the writers were stopped and nothing of the migration is left.
    func run() async throws(BridgeError) -> [Pause] {
        let links = LinkSupervisor(configuration, context.registry, logger: context.logger)
        let running = Task { await links.run { _ in } }
        let result: Result<Void, BridgeError>
        do throws(BridgeError) { result = .success(try await move()) } catch { result = .failure(error) }
        links.stop()
        _ = await running.value
        state.withLock { $0.lock = nil }
        try result.get()
        try await verb(.complete)
        return state.withLock { $0.pauses }
    }

    private func move() async throws(BridgeError) {
        say("bridge check, with throttle \(Demo.throttle)")
        let migration = try Migration(configuration, registry: context.registry)
        let check = try await CheckProcedure(migration: migration, logger: context.logger).run(CheckSession.Request()) { attach($0) }
        let rows = check.report.tables.reduce(0) { $0 + $1.rowsCompared }
        say("  \(check.report.verdict.rawValue), \(Numbers.grouped(rows)) rows compared while they write")
        for verb in [CutoverVerb.switchReads, .switchWrites, .rollback, .switchWrites] {
            try await self.verb(verb)
            try await followWriters(to: verb == .switchWrites ? .target : .source)
        }
        let counts = writers.stop()
        if let failure = writers.failure { throw failure }
        say("writers stopped after \(Numbers.grouped(Int64(counts.commits))) commits")
    }

    /// Waits until the writers have committed what they commit in a second, on the side where they are to write.
    private func followWriters(to side: Side) async throws(BridgeError) {
        func commits(_ counts: DemoWriterCommand.Counts) -> Int {
            side == .target ? counts.commitsOnTarget : counts.commits - counts.commitsOnTarget
        }
        let began = ContinuousClock.now
        let before = commits(writers.counts)
        try await writers.wait { commits($0) >= before + DemoWriters.number * DemoWriters.rate }
        let took = Numbers.duration(seconds: (ContinuousClock.now - began) / .seconds(1))
        say("  the writers go on at the \(side.rawValue): \(commits(writers.counts) - before) commits in \(took)")
    }

    private func attach(_ stop: @escaping @Sendable () -> Void) {
        let isInterrupted = state.withLock { state in
            state.stop = stop
            return state.isInterrupted
        }
        if isInterrupted { stop() }
    }

    private func verb(_ verb: CutoverVerb) async throws(BridgeError) {
        if state.withLock({ $0.isInterrupted }) {
            throw BridgeError(.interrupted, "the demo was interrupted", hint: "bridge demo starts anew")
        }
        say("bridge cutover \(verb.rawValue)")
        let stage = try await CutoverStage.open(configuration, context.registry, CutoverRequest(), logger: context.logger)
        let say = say
        let procedure = CutoverProcedure(stage, verb, CutoverRequest(), lines: CutoverLines(style: .plain)) { say("  \($0)") }
        attach { procedure.stop() }
        let result: Result<CutoverReport, BridgeError>
        do throws(BridgeError) { result = .success(try await procedure.run()) } catch { result = .failure(error) }
        await stage.close()
        let report = try result.get()
        guard report.succeeded else {
            throw BridgeError(.gateShut, "the demo's \(verb.rawValue) went back: \(report.reason ?? "unknown")")
        }
        if let pause = report.pause {
            let milliseconds = pause / .milliseconds(1)
            state.withLock { $0.pauses.append(Pause(verb: verb, milliseconds: milliseconds)) }
            say("  the application could not write for \(Int(milliseconds.rounded())) ms")
        }
    }
}

import BridgeCore
import BridgeReplication
import Foundation
import Logging
import Synchronization

/// Runs whatever links a migration has: the way forward, and, as soon as it is made and for as long as it is there, the
/// way back beside it. Which application writes where makes no difference, so a switch has nothing to start.
///
/// The caller holds the data directory's lock. ``LinkCourse`` decides; this does.
final class LinkSupervisor: Sendable {
    struct Options: Sendable {
        var policy = LinkCourse.Policy()
        /// From one look at the databases to the next.
        var interval = Duration.milliseconds(200)
        /// How long a look that a decision waits for may take.
        var lookPatience = Duration.seconds(5)
        /// How long whoever completes or cancels the migration may take to remove the capture after the records.
        var farewell = Duration.seconds(30)
    }

    private struct State {
        var sessions: [LinkDirection: RunSession] = [:]
        var toStop: Set<LinkDirection> = []
        /// Each link's last figures.
        var last: [LinkDirection: LinkProgress] = [:]
        var errors: [LinkDirection: BridgeError] = [:]
        /// What a link missed of its source in this run. It goes on after the next try as if nothing had been.
        var missed: [LinkDirection: String] = [:]
        var isStopping = false
        /// What was last seen of the way back; it keeps the way forward's capture from being given up.
        var reverse = LinkRecords.Sight.unknown
    }

    private let configuration: Configuration
    private let registry: ConnectorRegistry
    private let options: Options
    private let checks: BackgroundChecks?
    private let logger: Logger
    private let state = Mutex(State())
    private let events: AsyncStream<LinkCourse.Event>
    private let post: AsyncStream<LinkCourse.Event>.Continuation

    /// - Parameter checks: what is checked meanwhile; nil for nothing.
    init(
        _ configuration: Configuration, _ registry: ConnectorRegistry, options: Options = Options(),
        checks: BackgroundChecks? = nil, logger: Logger
    ) {
        self.configuration = configuration
        self.registry = registry
        self.options = options
        self.checks = checks
        self.logger = logger
        (events, post) = AsyncStream.makeStream()
    }

    private var directory: DataDirectory { DataDirectory(configuration.dataDirectory) }

    // MARK: - From outside

    /// Asks for a stop of all links in good order. From any thread, as often as wished.
    func stop() {
        let isFirst = state.withLock { state in
            defer { state.isStopping = true }
            return !state.isStopping
        }
        guard isFirst else { return }
        checks?.stop()
        post.yield(.stop)
    }

    /// How a link goes, or went last; nil if it never ran.
    func progress(_ direction: LinkDirection) -> LinkProgress? {
        state.withLock { $0.sessions[direction]?.progress ?? $0.last[direction] }
    }

    /// What the link failed with, until it streams again.
    func error(_ direction: LinkDirection) -> BridgeError? { state.withLock { $0.errors[direction] } }

    /// Whether the link captures and applies now.
    func isStreaming(_ direction: LinkDirection) -> Bool {
        state.withLock { $0.sessions[direction] }?.progress.isStreaming ?? false
    }

    // MARK: - Running

    /// Runs until the links are to end. Calls `observe` for each link, twice a second and when it turns.
    func run(_ observe: @escaping @Sendable (RunReport) -> Void) async -> Result<LinkEnding, BridgeError> {
        let watch: LinkWatch
        do throws(BridgeError) { watch = try LinkWatch(configuration, registry, interval: options.interval) } catch {
            return .failure(error)
        }
        let post = post
        let watching = Task {
            await watch.run { seen, answers in
                self.state.withLock { $0.reverse = seen.reverse }
                post.yield(.looked(seen, answers: answers))
            }
        }
        let checking = checks.map { checks in Task { await checks.run { self.isStreaming($0) } } }
        var course = LinkCourse(options.policy)
        var result: Result<LinkEnding, BridgeError> = .success(.stopped)
        running: for await event in events {
            for action in course.handle(event) {
                if case .finish(let end) = action {
                    result = end
                    break running
                }
                perform(action, watch, observe)
            }
        }
        await watch.end()
        watching.cancel()
        await checks?.end()
        checking?.cancel()
        if case .success(.over) = result { return await farewell() }
        return result
    }

    private func perform(
        _ action: LinkCourse.Action, _ watch: LinkWatch, _ observe: @escaping @Sendable (RunReport) -> Void
    ) {
        switch action {
        case .start(let direction, let mayBegin):
            if direction == .reverse { logger.notice("the way back is there; it runs beside the way forward") }
            // It may have been told to stop when it had ended by itself already.
            state.withLock { _ = $0.toStop.remove(direction) }
            Task { await self.attempt(direction, mayBegin: mayBegin, observe) }
        case .stop(let direction):
            state.withLock { state in
                state.toStop.insert(direction)
                return state.sessions[direction]
            }?.stop()
        case .look(let number):
            watch.hurry(number)
            later(options.lookPatience, .lookOverdue(number))
        case .retry(let direction, let pause, let error): retry(direction, after: pause, error)
        case .gone(let direction):
            logger.notice("\(direction.way): its records are gone, and it does not run any more")
            state.withLock { $0.errors[direction] = nil }
            if direction == .reverse { RunReport.remove(direction, from: directory) }
        case .forget: RunReport.remove(.reverse, from: directory)
        case .finish: break
        }
    }

    private func later(_ pause: Duration, _ event: LinkCourse.Event) {
        let post = post
        Task {
            try? await Task.sleep(for: pause)
            post.yield(event)
        }
    }

    private func retry(_ direction: LinkDirection, after pause: Duration, _ error: BridgeError) {
        // Both links may fail for the same reason; they need not come back at the same moment.
        let pause = pause / 2 + pause / 2 * Double.random(in: 0...1)
        logger.error(
            "\(direction.way) failed, and is tried again in \(Numbers.duration(seconds: pause / .seconds(1))): \(ErrorRenderer.headline(error)); try: \(error.hint)")
        let missed = state.withLock { state in
            state.errors[direction] = error
            // The first says when it began; what came later is in the log.
            if error.code == .changesUnseen, state.missed[direction] == nil {
                state.missed[direction] = ErrorRenderer.headline(error)
            }
            return state.missed[direction]
        }
        RunReport.noteFailure(
            direction, migration: configuration.migration, error: error, missed: missed,
            retryAt: Timestamp.now.microseconds + Int64(pause / .microseconds(1)), in: directory)
        let conflicts = ConflictFiles(directory: directory.conflictDirectory(direction))
        guard error.isOfChange, conflicts.hasStop else { return later(pause, .due(direction)) }
        // Whoever says what is to become of the change need not wait for the pause to end.
        let post = post
        Task {
            let end = ContinuousClock.now + pause
            while conflicts.hasStop, ContinuousClock.now < end { try? await Task.sleep(for: .milliseconds(100)) }
            post.yield(.due(direction))
        }
    }

    /// One run of a link, over connections of its own.
    private func attempt(
        _ direction: LinkDirection, mayBegin: Bool, _ observe: @escaping @Sendable (RunReport) -> Void
    ) async {
        let streamedSince = Mutex<ContinuousClock.Instant?>(nil)
        var result: Result<Bool, BridgeError>
        do throws(BridgeError) {
            let migration = try Migration(configuration, registry: registry, direction: direction)
            do throws(BridgeError) {
                let session = try await RunSession.prepare(
                    migration, mayBegin: mayBegin, mayDropSlot: { self.state.withLock { $0.reverse == .absent } },
                    missed: state.withLock { $0.missed[direction] }, logger: logger(of: direction))
                let isStopped = state.withLock { state in
                    state.sessions[direction] = session
                    return state.toStop.contains(direction)
                }
                if isStopped { session.stop() }
                result = await session.run(untilCaughtUp: options.policy.untilCaughtUp) { report in
                    if session.progress.isStreaming {
                        streamedSince.withLock { $0 = $0 ?? .now }
                        self.state.withLock { $0.errors[direction] = nil }
                    }
                    observe(report)
                }
                state.withLock { state in
                    state.last[direction] = session.progress
                    state.sessions[direction] = nil
                }
            } catch { result = .failure(error) }
            await migration.close()
        } catch { result = .failure(error) }
        // A try that was cut short says nothing against what the link failed with before.
        if case .success(false) = result, let error = error(direction) { result = .failure(error) }
        state.withLock { _ = $0.toStop.remove(direction) }
        let ranWell = streamedSince.withLock { $0 }.map { .now - $0 >= options.policy.longestPause } ?? false
        post.yield(.ended(direction, result, ranWell: ranWell))
    }

    private func logger(of direction: LinkDirection) -> Logger {
        guard direction == .reverse else { return logger }
        var logger = logger
        logger[metadataKey: "link"] = "reverse"
        return logger
    }

    // MARK: - The end of the migration

    /// Records alone may have been lost; who completes or cancels a migration removes the capture as well.
    private func farewell() async -> Result<LinkEnding, BridgeError> {
        let deadline = ContinuousClock.now + options.farewell
        var trouble: BridgeError?
        repeat {
            do throws(BridgeError) {
                let source = try registry.source(configuration.source)
                let left: Result<Bool, BridgeError>
                do throws(BridgeError) {
                    try await source.connect()
                    left = .success(try await source.captureExists(configuration.link()))
                } catch { left = .failure(error) }
                await source.close()
                guard try left.get() else { return .success(.over) }
                trouble = nil
            } catch { trouble = error }
            guard !state.withLock({ $0.isStopping }) else { break }
            try? await Task.sleep(for: .milliseconds(200))
        } while ContinuousClock.now < deadline
        if let trouble { return .failure(trouble) }
        return .failure(
            BridgeError(
                .checkpointForeign, "the migration's records are gone from both databases, but its capture is still on the source",
                context: [.init(.migration, configuration.migration)],
                hint: "if the migration was cancelled or completed, run that command again; if not, restore the target's records"))
    }
}

extension LinkDescription.Direction {
    /// For people.
    var way: String { self == .forward ? "the way forward" : "the way back" }
}

extension LinkProgress {
    /// Whether the link captures and applies now.
    var isStreaming: Bool { activity == .streaming && isCapturing && trouble == nil }
}

extension RunReport {
    /// Puts a failure that a run will try again into the link's last report, or into one that says nothing else.
    static func noteFailure(
        _ direction: LinkDirection, migration: String, error: BridgeError, missed: String?, retryAt: Int64,
        in directory: DataDirectory
    ) {
        let now = Timestamp.now.microseconds
        let known = RunReport.read(from: directory, direction: direction).flatMap { $0.migration == migration ? $0 : nil }
        var report =
            known
            ?? RunReport(
                migration: migration, direction: direction.rawValue, process: getpid(), startedAt: now, updatedAt: now,
                state: .failed, phase: "preparing")
        report.process = getpid()
        report.updatedAt = now
        report.state = .failed
        report.error = ErrorRenderer.headline(error)
        report.missed = missed
        report.retryAt = retryAt
        // What cannot be written is in the log.
        try? report.write(to: directory)
    }
}

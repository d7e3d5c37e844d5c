import BridgeCore
import Foundation
import Logging
import Synchronization

/// Sees to it that a migration's links are at work while a command is: relies on the process that runs them, and runs them
/// here where, or as soon as, none does.
final class LinkAttendance: Sendable {
    private struct State {
        var own: LinkSupervisor?
        /// Counts what was started here, so that an old end does not end what is new.
        var generation = 0
        var isStopped = false
    }

    private let configuration: Configuration
    private let registry: ConnectorRegistry
    private let options: LinkSupervisor.Options
    private let logger: Logger
    private let state = Mutex(State())
    private let lock = Mutex<DirectoryLock?>(nil)
    private let running = Mutex<Task<Void, Never>?>(nil)

    fileprivate init(
        _ configuration: Configuration, _ registry: ConnectorRegistry, options: LinkSupervisor.Options, logger: Logger
    ) {
        self.configuration = configuration
        self.registry = registry
        self.options = options
        self.logger = logger
    }

    private var directory: DataDirectory { DataDirectory(configuration.dataDirectory) }

    /// The process that runs the links now; nil if none does.
    var process: Int32? { DirectoryLock.holder(of: directory) }

    private var own: LinkSupervisor? { state.withLock { $0.own } }

    // MARK: - Running

    /// Runs the links here unless another process does.
    /// - Throws: what makes the data directory unusable.
    fileprivate func ensure() throws(BridgeError) {
        guard !state.withLock({ $0.isStopped || $0.own != nil }) else { return }
        let taken: DirectoryLock
        do throws(BridgeError) {
            try directory.create()
            taken = try DirectoryLock(directory)
        } catch {
            guard error.code == .alreadyRunning else { throw error }
            return
        }
        lock.withLock { $0 = taken }
        let supervisor = LinkSupervisor(configuration, registry, options: options, logger: logger)
        let generation = state.withLock { state in
            state.own = supervisor
            state.generation += 1
            return state.generation
        }
        let task = Task {
            let result = await supervisor.run { _ in }
            if case .failure(let error) = result, !self.state.withLock({ $0.isStopped }) {
                self.logger.error("the links ended: \(ErrorRenderer.headline(error)); try: \(error.hint)")
            }
            // A migration that is over needs nobody, and its folder is about to be removed.
            self.lock.withLock { $0 = nil }
            self.state.withLock { if $0.generation == generation { $0.own = nil } }
        }
        running.withLock { $0 = task }
    }

    /// Stops what runs here, in good order, and gives the data directory back. Another process's links run on.
    func stop() async {
        state.withLock { state in
            state.isStopped = true
            return state.own
        }?.stop()
        await running.withLock { $0 }?.value
    }

    // MARK: - What is said

    /// What is known of a link that is at work, here or elsewhere.
    struct Standing: Hashable, Sendable {
        /// Whether it captures and applies now.
        var isStreaming: Bool
        /// What it waits for, or failed with.
        var trouble: String?
        /// Of the last report; nil while unknown.
        var lagSeconds: Double?
    }

    /// Nil while nobody runs it.
    func standing(_ direction: LinkDirection) -> Standing? {
        let report = RunReport.read(from: directory, direction: direction)
        let current = report.flatMap { $0.migration == configuration.migration && $0.process == process ? $0 : nil }
        if let own {
            guard let progress = own.progress(direction) else {
                return own.error(direction).map { Standing(isStreaming: false, trouble: ErrorRenderer.headline($0)) }
            }
            return Standing(
                isStreaming: own.isStreaming(direction),
                trouble: own.error(direction).map(ErrorRenderer.headline) ?? progress.trouble, lagSeconds: current?.lagSeconds)
        }
        guard let current else { return nil }
        return Standing(
            isStreaming: current.state == .running && current.activity == "streaming" && current.isCapturing == true
                && current.trouble == nil,
            trouble: current.state == .failed ? current.error : current.trouble, lagSeconds: current.lagSeconds)
    }

    /// Waits until a link captures and applies, in whichever process. If that process dies, its links are run here.
    /// - Throws: what the link failed with, if it runs here and cannot pass; `serverBusy` after `patience`.
    func waitUntilStreaming(_ direction: LinkDirection, patience: Duration) async throws(BridgeError) {
        let deadline = ContinuousClock.now + patience
        while true {
            try ensure()
            let standing = standing(direction)
            if let standing, standing.isStreaming { return }
            if let error = own?.error(direction), error.retry == .never { throw error }
            guard !state.withLock({ $0.isStopped }), !Task.isCancelled else {
                throw BridgeError(.interrupted, "stopped while \(direction.way) was waited for")
            }
            guard ContinuousClock.now < deadline else { throw late(direction, standing) }
            try? await Task.sleep(for: .milliseconds(20))
        }
    }

    private func late(_ direction: LinkDirection, _ standing: Standing?) -> BridgeError {
        var context: [ErrorContext] = [.init(.migration, configuration.migration)]
        if let process { context.append(.init(.processes, "\(process)")) }
        if let trouble = standing?.trouble { context.append(.init(.detail, trouble)) }
        return BridgeError(
            .serverBusy, "\(direction.way) is not at work", context: context,
            hint: "bridge status tells what it waits for; then run the command again")
    }
}

extension LinkSupervisor {
    /// Runs a migration's links in the background of a command, or relies on the process that does already. A migration
    /// that was not begun is not begun by it.
    /// - Throws: what makes the data directory unusable.
    static func start(
        _ configuration: Configuration, _ registry: ConnectorRegistry, options: Options = Options(), logger: Logger
    ) throws(BridgeError) -> LinkAttendance {
        var options = options
        options.policy.mayBegin = false
        options.policy.keepsTrying = true
        let attendance = LinkAttendance(configuration, registry, options: options, logger: logger)
        try attendance.ensure()
        return attendance
    }
}

extension LinkAttendance: KeptLinks {}

/// For what only looks: to run links writes to both databases, and keeps a `bridge run` that is just starting from its folder.
struct UnkeptLinks: KeptLinks {
    func waitUntilStreaming(_ direction: LinkDirection, patience: Duration) async throws(BridgeError) {
        throw BridgeError(.internalFault, "a command that only looks waits for a link")
    }
    func stop() async {}
}

extension CutoverStage {
    /// The same with the links kept at work by whichever process.
    static func open(
        _ configuration: Configuration, _ registry: ConnectorRegistry, _ request: CutoverRequest, isReading: Bool = false,
        logger: Logger
    ) async throws(BridgeError) -> CutoverStage {
        try await open(configuration, registry, request, logger: logger) { (migration, _) throws(BridgeError) -> any KeptLinks in
            if isReading || request.isDryRun { return UnkeptLinks() }
            return try LinkSupervisor.start(migration.configuration, registry, logger: logger)
        }
    }

    /// For what only looks, over connectors that are there already.
    static func open(_ migration: Migration, back: Migration) async throws(BridgeError) -> CutoverStage {
        try await open(
            migration, back: back, CutoverRequest(), logger: Logger(label: "bridge") { _ in SwiftLogNoOpLogHandler() }
        ) { (_, _) throws(BridgeError) -> any KeptLinks in UnkeptLinks() }
    }
}

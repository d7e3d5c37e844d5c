package import BridgeCore
package import Logging
import Synchronization

/// Compares a link's source and target while both go on: see the documentation for what each mode proves.
package final class CheckRunner: ConsistencyCheck {
    private let link: LinkDescription
    private let options: CheckOptions
    private let source: any SourceConnector
    private let target: any TargetConnector
    private let logger: Logger
    private let access: ApplierAccess?
    private let board = CheckBoard()

    /// - Parameter access: the way to the link's applier, which repairs need; nil where another process has it.
    package init(
        link: LinkDescription, options: CheckOptions, source: any SourceConnector, target: any TargetConnector,
        logger: Logger, access: ApplierAccess? = nil
    ) {
        self.access = access
        self.link = link
        self.options = options
        self.source = source
        self.target = target
        self.logger = logger
    }

    package func stop() { board.stop() }

    package var progress: CheckReport.Progress { board.progress }

    /// What the last check of all tables left, whether it was completed or not; nil if nothing can be built upon. Blocks.
    package static func kept(
        stateDirectory: String
    ) -> (checkId: String, isComplete: Bool, rowsCompared: Int64, policies: EqualityPolicies)? {
        CheckStateFile(directory: stateDirectory, tables: nil).readHead().map { state in
            (
                state.checkId, state.isComplete, state.tables.reduce(0) { $0 + $1.report.rowsCompared },
                state.policies.reduce(into: EqualityPolicies()) { $0.formUnion(EqualityPolicies(name: $1) ?? []) }
            )
        }
    }

    package func run() async throws(BridgeError) -> CheckReport {
        let lock = try await CheckLock.take(
            options.stateDirectory, patience: options.waitsForOthers ? options.patience : .zero, board: board)
        defer { withExtendedLifetime(lock) {} }
        return try await runAlone()
    }

    private func runAlone() async throws(BridgeError) -> CheckReport {
        // While a check of the mode fence lasts, the application waits.
        let session = try await CheckSession.open(
            link: link, options: options, source: source, target: target, board: board, access: access,
            tellsSchemas: options.mode != .fence, logger: logger)
        let result: Result<CheckReport, BridgeError>
        do throws(BridgeError) { result = .success(try await session.run()) } catch { result = .failure(error) }
        await session.close()
        return try result.get()
    }
}

/// What a running check shows and is told, from any thread.
final class CheckBoard: Sendable {
    private struct State {
        var progress = CheckReport.Progress()
        var began: ContinuousClock.Instant?
        var isStopping = false
    }
    private let state = Mutex(State())

    var isStopping: Bool { state.withLock { $0.isStopping } }
    func stop() { state.withLock { $0.isStopping = true } }

    var progress: CheckReport.Progress { state.withLock { $0.progress } }

    func begin(rowsEstimated: Int64?) {
        state.withLock {
            $0.began = .now
            $0.progress.rowsEstimated = rowsEstimated
        }
    }

    func add(rows: Int64) {
        state.withLock { state in
            state.progress.rowsDone += rows
            guard let began = state.began, let estimated = state.progress.rowsEstimated, state.progress.rowsDone > 0
            else { return }
            let seconds = Double((ContinuousClock.now - began) / .microseconds(1)) / 1e6
            let left = max(0, estimated - state.progress.rowsDone)
            state.progress.etaSeconds = seconds / Double(state.progress.rowsDone) * Double(left)
        }
    }

    /// - Throws: `interrupted` once a stop was asked for.
    func goOn() throws(BridgeError) {
        if isStopping { throw BridgeError(.interrupted, "the check was stopped; the next one goes on from here") }
    }

    /// Waits, but not for longer than until a stop is asked for.
    func sleep(_ duration: Duration) async {
        let end = ContinuousClock.now + duration
        while !isStopping {
            let left = end - ContinuousClock.now
            guard left > .zero else { return }
            try? await Task.sleep(for: min(left, .milliseconds(100)))
        }
    }
}

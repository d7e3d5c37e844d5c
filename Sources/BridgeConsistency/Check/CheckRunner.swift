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
        try await source.connect()
        try await target.connect()
        guard let state = try await target.linkState(link), state.phase == .syncing, let origin = state.origin else {
            throw BridgeError(
                .serverBusy, "the target does not hold a whole copy yet", context: [.init(.migration, link.migration)],
                hint: "let bridge run finish the copy, then check")
        }
        let (sourceSide, targetSide) = try await openSides()
        let result: Result<CheckReport, BridgeError>
        do throws(BridgeError) {
            let session = try await CheckSession(
                link: link, options: options, source: source, target: target, sourceSide: sourceSide,
                targetSide: targetSide, origin: origin, board: board,
                access: access, logger: logger)
            result = .success(try await session.run())
        } catch { result = .failure(error) }
        await sourceSide.close()
        await targetSide.close()
        return try result.get()
    }

    private func openSides() async throws(BridgeError) -> (any ComparisonSession, any ComparisonSession) {
        async let opening = Self.opened { [source, link] () async throws(BridgeError) in
            try await source.openComparison(link, role: .source)
        }
        let target = await Self.opened { [target, link] () async throws(BridgeError) in
            try await target.openComparison(link, role: .target)
        }
        let source = await opening
        do throws(BridgeError) { return (try source.get(), try target.get()) } catch {
            if case .success(let side) = source { await side.close() }
            if case .success(let side) = target { await side.close() }
            throw error
        }
    }

    private static func opened(
        _ open: @Sendable () async throws(BridgeError) -> any ComparisonSession
    ) async -> Result<any ComparisonSession, BridgeError> {
        do throws(BridgeError) { return .success(try await open()) } catch { return .failure(error) }
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

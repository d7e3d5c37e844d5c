package import BridgeCore
package import Logging

/// The check behind a cutover's fence, prepared before the fence stands, so that the application's writes pause for as long
/// only as it takes to look at the last keys.
///
/// Call ``prepare()`` in good time, ``refresh()`` just before the fence is raised, ``finish(within:)`` behind it, and
/// ``close()`` once the pause is over, or whenever the attempt is given up. Calls come one at a time, but for ``stop()``.
package actor FenceCheck {
    private let link: LinkDescription
    private let options: CheckOptions
    private let source: any SourceConnector
    private let target: any TargetConnector
    private let logger: Logger
    private let board = CheckBoard()
    private var lock: CheckLock?
    private var session: CheckSession?

    /// - Parameter options: mode and repair do not count.
    package init(
        link: LinkDescription, options: CheckOptions, source: any SourceConnector, target: any TargetConnector,
        logger: Logger
    ) {
        self.link = link
        self.options = options
        self.source = source
        self.target = target
        self.logger = logger
    }

    /// Asks whatever is under way to stop in good order. From any thread.
    package nonisolated func stop() { board.stop() }

    /// Takes up the last full check and looks at all that changed since, while both sides are written to; then holds the
    /// check's lock, its connections and what it knows until it is closed.
    /// - Returns: an incremental check's report. Gates find in it the verdict and ``CheckReport/fenceSeconds``.
    /// - Throws: `alreadyRunning` if another check is under way; then nothing is held.
    package func prepare() async throws(BridgeError) -> CheckReport {
        guard session == nil else { throw BridgeError(.internalFault, "the fence check is prepared already") }
        var options = options
        options.mode = .incremental
        options.repair = false
        do throws(BridgeError) {
            lock = try await CheckLock.take(
                options.stateDirectory, patience: options.waitsForOthers ? options.patience : .zero, board: board)
            let session = try await CheckSession.open(
                link: link, options: options, source: source, target: target, board: board, access: nil,
                tellsSchemas: false, logger: logger)
            self.session = session
            return try await session.prepareFence()
        } catch {
            await close()
            throw error
        }
    }

    /// Looks once more at what changed meanwhile, so that little is left for behind the fence.
    package func refresh() async throws(BridgeError) -> CheckReport { try await prepared().refreshFence() }

    /// Looks at what is left. To be called when the fence stands on the source, so that no transaction that wrote to its
    /// tables is open and none can begin, and when the target has committed a marker that was written behind the fence; and
    /// the fence has to stand for as long as the verdict is to count.
    ///
    /// A state that says more than the last one is written down by ``close()``, but at once if the verdict is not
    /// `consistent`.
    /// - Parameter limit: how long the databases, or the link, may keep it waiting.
    /// - Returns: a report of the mode `fence`.
    package func finish(within limit: Duration) async throws(BridgeError) -> CheckReport {
        try await prepared().finishFence(patience: limit)
    }

    /// Lets go of everything. What was found is not lost: a later check goes on from it. Closing twice does nothing.
    package func close() async {
        let ended = session
        session = nil
        await ended?.endFence()
        lock = nil
    }

    private func prepared() throws(BridgeError) -> CheckSession {
        guard let session else { throw BridgeError(.internalFault, "the fence check is not prepared") }
        return session
    }
}

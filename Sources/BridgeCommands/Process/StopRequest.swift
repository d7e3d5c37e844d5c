import BridgeCore
import Foundation
import Logging
import Synchronization

/// The first signal's wish to stop in good order, from the moment the process begins until it ends.
final class StopRequest: Sendable {
    /// How long a database may hold up a stop. Nothing is lost by leaving: an open transaction is rolled back by its
    /// database, and the next run goes on from the checkpoint, as it would after a crash.
    private static let patience: TimeInterval = 8

    private let state = Mutex<(stop: (@Sendable () -> Void)?, isRequested: Bool)>((nil, false))
    private let status: ExitStatus
    private let work: String
    private let logger: Logger

    /// - Parameters:
    ///   - status: what the process ends with when it was asked to stop.
    ///   - work: what is finished before it stops.
    init(status: ExitStatus, finishing work: String = "batch", logger: Logger) {
        self.status = status
        self.work = work
        self.logger = logger
    }

    /// What stops the work in good order; called at once if a stop was asked for before.
    func attach(_ stop: @escaping @Sendable () -> Void) {
        let isRequested = state.withLock { state in
            state.stop = stop
            return state.isRequested
        }
        if isRequested { stop() }
    }

    func request() {
        logger.notice("stopping after the present \(work); a second signal stops at once")
        let stop = state.withLock { state in
            state.isRequested = true
            return state.stop
        }
        stop?()
        let (logger, status) = (logger, status)
        let watch = Thread {
            Thread.sleep(forTimeInterval: Self.patience)
            logger.warning("a database does not answer; its open transaction is left to it, the next run goes on from the checkpoint")
            _exit(status.rawValue)
        }
        watch.name = "stop-watch"
        watch.start()
    }
}

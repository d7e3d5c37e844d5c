import BridgeCore
import Foundation
import Logging
import Synchronization

/// The first signal's wish to stop in good order, from the moment the process begins until it ends.
final class StopRequest: Sendable {
    /// How long a database may hold up a stop. Nothing is lost by leaving: an open transaction is rolled back by its
    /// database, and the next run goes on from the checkpoint, as it would after a crash.
    private static let patience: TimeInterval = 8

    private let state = Mutex<(session: RunSession?, isRequested: Bool)>((nil, false))
    private let status: ExitStatus
    private let logger: Logger

    /// - Parameter status: what the process ends with when it was asked to stop.
    init(status: ExitStatus, logger: Logger) {
        self.status = status
        self.logger = logger
    }

    /// The session that is to be stopped; at once if a stop was asked for before.
    func attach(_ session: RunSession) {
        let isRequested = state.withLock { state in
            state.session = session
            return state.isRequested
        }
        if isRequested { session.stop() }
    }

    func request() {
        logger.notice("stopping after the present batch; a second signal stops at once")
        let session = state.withLock { state in
            state.isRequested = true
            return state.session
        }
        session?.stop()
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

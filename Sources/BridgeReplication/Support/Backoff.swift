import BridgeCore
import Logging

/// Growing, jittered delays between attempts, so that many clients of a server that comes back do not come at once.
struct Backoff: Sendable {
    private var attempt = 0
    private var failingSince: ContinuousClock.Instant?
    private let patience: Duration?

    /// - Parameter patience: how long attempts may go on failing; nil for ever.
    init(patience: Duration?) { self.patience = patience }

    /// The delay before the next attempt: 100 ms doubled each time up to 10 s, half of it at random.
    /// - Throws: the error itself if it cannot pass by itself, or has lasted too long.
    mutating func delay(after error: BridgeError) throws(BridgeError) -> Duration {
        guard case .backoff = error.retry else { throw error }
        let since = failingSince ?? .now
        failingSince = since
        if let patience, since.duration(to: .now) > patience { throw error }
        attempt += 1
        let ceiling = min(10_000, 100 << min(attempt - 1, 10))
        return .milliseconds(ceiling / 2 + Int.random(in: 0...ceiling / 2))
    }

    /// An attempt made progress.
    mutating func reset() {
        attempt = 0
        failingSince = nil
    }
}

/// Takes a stage's work up again after errors that can pass by themselves, until a stop is requested.
struct Retrying: Sendable {
    /// What is interrupted, for people: `capture`, `the copy`.
    let work: String
    let patience: Duration?
    let board: ProgressBoard
    let stop: StopSignal
    let logger: Logger

    /// - Parameter body: the work; it resets the backoff whenever it gets on. When it returns, the stage is over.
    /// - Throws: an error that cannot pass, or that has lasted too long.
    func run(_ body: (inout Backoff) async throws(BridgeError) -> Void) async throws(BridgeError) {
        var backoff = Backoff(patience: patience)
        while !stop.isRequested {
            do throws(BridgeError) {
                try await body(&backoff)
                return
            } catch {
                let delay = try backoff.delay(after: error)
                logger.warning("\(work) was interrupted and continues in \(delay): \(error)")
                board.update {
                    $0.reconnects += 1
                    $0.trouble = "\(work): \(error)"
                }
                await stop.sleep(delay)
            }
        }
    }
}

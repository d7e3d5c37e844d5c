import BridgeCore

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

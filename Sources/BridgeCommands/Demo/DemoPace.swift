import BridgeCore

/// Divides time into equal parts and gives each a moment, drawn at random, for one transaction to begin in: no second holds
/// many more than the rate says, and two writers do not go in step. What was missed is not made up for.
struct DemoPace: Sendable {
    private let part: Duration
    private var random: SeededRandom
    private var next: ContinuousClock.Instant

    /// - Parameter rate: parts of a second, from 1 to 10,000.
    init(rate: Int, seed: UInt64, start: ContinuousClock.Instant) {
        part = .seconds(1) / max(1, min(rate, 10_000))
        random = SeededRandom(seed: seed)
        next = start
    }

    /// How long to wait until the next transaction, for a writer that is ready for it.
    mutating func delay(at now: ContinuousClock.Instant) -> Duration {
        let begin = max(next, now)
        next = begin + part
        let within = Int64(random.next() % UInt64(part / .microseconds(1)))
        return begin + .microseconds(within) - now
    }
}

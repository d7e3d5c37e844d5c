/// Events a second over the last few seconds.
struct RateMeter: Sendable {
    private static let slots = 5
    private var counts = [Int64](repeating: 0, count: Self.slots)
    private var newest: Int64 = 0
    private var first: ContinuousClock.Instant?

    mutating func add(_ count: Int64, at instant: ContinuousClock.Instant) {
        let start = first ?? instant
        first = start
        advance(to: Self.second(instant, since: start))
        counts[Int(newest % Int64(Self.slots))] += count
    }

    /// The rate over the window that ends at `instant`.
    func perSecond(at instant: ContinuousClock.Instant) -> Double {
        guard let first else { return 0 }
        var copy = self
        copy.advance(to: Self.second(instant, since: first))
        let age = first.duration(to: instant)
        let elapsed = Double(age.components.seconds) + Double(age.components.attoseconds) / 1e18
        // The newest slot is filled only in part, so the window is as long as what has passed of it.
        let partial = elapsed - elapsed.rounded(.down)
        let window = min(elapsed, Double(Self.slots - 1) + partial)
        return window > 0.05 ? Double(copy.counts.reduce(0, +)) / window : 0
    }

    private static func second(_ instant: ContinuousClock.Instant, since start: ContinuousClock.Instant) -> Int64 {
        max(0, start.duration(to: instant).components.seconds)
    }

    private mutating func advance(to second: Int64) {
        guard second > newest else { return }
        for step in 1...min(second - newest, Int64(Self.slots)) {
            counts[Int((newest + step) % Int64(Self.slots))] = 0
        }
        newest = second
    }
}

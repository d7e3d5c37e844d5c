/// When a database is looked at again after its files were written to.
///
/// A write is told of when it has been made, but what it commits can be seen only when the WAL's index follows: some
/// microseconds later, or a sync of the disk later, and nothing tells of that. So the next look is soon, and those behind
/// it are further and further apart. While an application goes on writing, a large transaction say, they are no closer than
/// they need be.
struct Rechecks {
    /// The first pause, in microseconds.
    static let shortest: Int = 40
    /// The pause after which no more looks follow: with those before it longer than most disks take for a sync.
    static let longest: Int = 10_240
    /// The shortest pause behind a further write.
    static let shortestWhileWriting: Int = 320

    private var pause: Int? = shortest
    /// Whether a write ends the pause that ``next()`` gave last. A short one is slept through.
    private(set) var heedsWrites = false

    /// How long to sleep before the next look, in microseconds; nil if there is to be none.
    mutating func next() -> Int? {
        guard let now = pause else { return nil }
        heedsWrites = now > Self.shortestWhileWriting
        pause = now < Self.longest ? now * 2 : nil
        return now
    }

    /// The files were written to again.
    mutating func noteWrite() { pause = min(pause ?? .max, Self.shortestWhileWriting) }
}

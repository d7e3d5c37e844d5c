import BridgeCore
import Synchronization

/// What a process knows of the captured tables. It outlasts the sessions: what happens while one is made anew must not pass
/// for how things always were.
final class CoverageMemory: Sendable {
    struct Known: Sendable {
        /// How the tables were, as far as it is accounted for.
        var facts: CoverageFacts
        /// Facts with partitions in new files, until the stream has come to where they were read.
        var pending: CoverageFacts?
        /// The transaction of the last TRUNCATE of each table that came through the stream.
        fileprivate var truncations: [UInt32: UInt64] = [:]
        fileprivate var generation = 0

        init(facts: CoverageFacts) { self.facts = facts }
    }

    /// The one of this process: sources are made anew with each try of a link.
    static let ofProcess = CoverageMemory()

    private let state = Mutex<[CaptureOrigin: Known]>([:])
    /// Never the same twice, so that a late look of a session that was told off is not taken for its successor's.
    private let sessions = Atomic<Int>(0)

    /// Begins a session, with these facts unless older ones are known.
    /// - Returns: the session's number.
    func begin(_ origin: CaptureOrigin, _ facts: CoverageFacts) -> Int {
        let generation = sessions.add(1, ordering: .relaxed).newValue
        state.withLock { $0[origin, default: Known(facts: facts)].generation = generation }
        return generation
    }

    func known(_ origin: CaptureOrigin) -> Known? { state.withLock { $0[origin] } }

    /// Keeps what a look found, beside the truncations that came meanwhile; not that of a session that is no more.
    func store(_ known: Known, _ origin: CaptureOrigin, _ generation: Int) {
        state.withLock {
            guard let truncations = $0[origin]?.truncations, $0[origin]?.generation == generation else { return }
            $0[origin] = known
            $0[origin]?.truncations = truncations
        }
    }

    /// What was missed has been told; the next session begins anew.
    func forget(_ origin: CaptureOrigin) { state.withLock { $0[origin] = nil } }

    func note(_ truncated: [UInt32: UInt64], _ origin: CaptureOrigin) {
        guard !truncated.isEmpty else { return }
        state.withLock { $0[origin]?.truncations.merge(truncated) { _, last in last } }
    }

    func truncation(of table: UInt32, _ origin: CaptureOrigin) -> UInt64? { state.withLock { $0[origin]?.truncations[table] } }
}

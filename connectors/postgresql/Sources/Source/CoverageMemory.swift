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
        /// The commit of the last TRUNCATE of each table that came through the stream.
        fileprivate var truncations: [UInt32: UInt64] = [:]

        init(facts: CoverageFacts) { self.facts = facts }
    }

    private let state = Mutex<[CaptureOrigin: Known]>([:])

    /// Begins with these facts unless older ones are known.
    func begin(_ origin: CaptureOrigin, _ facts: CoverageFacts) {
        state.withLock { if $0[origin] == nil { $0 = [origin: Known(facts: facts)] } }
    }

    func known(_ origin: CaptureOrigin) -> Known? { state.withLock { $0[origin] } }

    /// Keeps what a look found, beside the truncations that came meanwhile.
    func store(_ known: Known, _ origin: CaptureOrigin) {
        state.withLock {
            guard let truncations = $0[origin]?.truncations else { return }
            $0[origin] = known
            $0[origin]?.truncations = truncations
        }
    }

    func forget(_ origin: CaptureOrigin) { state.withLock { $0[origin] = nil } }

    func note(_ truncated: [UInt32: UInt64], _ origin: CaptureOrigin) {
        guard !truncated.isEmpty else { return }
        state.withLock { $0[origin]?.truncations.merge(truncated) { max($0, $1) } }
    }

    func truncation(of table: UInt32, _ origin: CaptureOrigin) -> UInt64? { state.withLock { $0[origin]?.truncations[table] } }
}

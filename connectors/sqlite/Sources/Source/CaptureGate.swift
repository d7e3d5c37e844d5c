import BridgeCore
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Keeps the beginning of a table's copy out of the middle of a captured transaction.
///
/// A captured transaction is named by the log's newest change when it was opened. One that needs several reads takes in
/// later changes as well, up to the log's newest at its last read. Were a copy's position to fall between the two, the
/// applier would take the whole transaction for one that is in the copy already. So a copy begins only while no
/// transaction is open. A captured transaction takes one read nearly always; a copy then waits for milliseconds.
///
/// A transaction can stay open for long, since whoever reads it may have to wait for room, and that may come only when the
/// copy is done. So a copy waits for seconds, no longer, and then takes the beginning of the open transaction for its
/// position: changes that its rows hold already come again, as states of rows, which does no harm but to take time.
///
/// The other way about, a copy has to see every key that the log gets while it runs, so what it has not seen is not pruned.
final class CaptureGate: Sendable {
    private struct State {
        var isCapturing = false
        /// The begin's sequence of a transaction that is open between reads.
        var openBegin: Int64?
        var waiting = 0
        /// The newest row of the log that each running copy has seen.
        var seenByCopies: [Int: Int64] = [:]
        var nextCopy = 0
    }

    /// How long a copy waits for an open transaction to end.
    static let patience: Duration = .seconds(5)
    private let state = Mutex(State())

    /// Called by the session before a read that may open a transaction. Gives a waiting copy a moment to begin.
    func enterCapture() {
        for attempt in 0..<200 {
            let entered = state.withLock { state in
                guard state.waiting == 0 || attempt == 199 else { return false }
                state.isCapturing = true
                return true
            }
            if entered { return }
            usleep(500)
        }
    }

    /// Called by the session when no transaction is open any more.
    func leaveCapture() {
        state.withLock { state in
            state.isCapturing = false
            state.openBegin = nil
        }
    }

    /// Called by the session after a read that left a transaction open.
    func stayInCapture(begin: Int64) { state.withLock { $0.openBegin = begin } }

    /// Runs `body`, which fixes a read transaction and returns its newest change, at a moment when no captured transaction is
    /// open, or after long enough in one that is. Blocks the thread.
    /// - Returns: the sequence that serves as the snapshot's position.
    func beginSnapshot(
        patience: Duration = patience, _ body: () throws(BridgeError) -> Int64
    ) throws(BridgeError) -> Int64 {
        state.withLock { $0.waiting += 1 }
        defer { state.withLock { $0.waiting -= 1 } }
        let deadline = ContinuousClock.now + patience
        while true {
            let position: Int64? = try state.withLock { state throws(BridgeError) in
                guard state.isCapturing else { return try body() }
                guard let begin = state.openBegin, ContinuousClock.now >= deadline else { return nil }
                return min(begin, try body())
            }
            if let position { return position }
            usleep(500)
        }
    }

    // MARK: What copies still need of the log

    /// A copy's claim to the part of the log that it has not seen. It ends with the value, if not before.
    final class CopyHold: Sendable {
        let gate: CaptureGate
        private let number: Int

        fileprivate init(_ gate: CaptureGate, _ number: Int) {
            self.gate = gate
            self.number = number
        }

        deinit { end() }

        /// The copy needs nothing that stands before a row any more.
        func hasSeen(_ row: Int64) {
            gate.state.withLock { state in
                if state.seenByCopies[number] != nil { state.seenByCopies[number] = row }
            }
        }

        func end() { gate.state.withLock { $0.seenByCopies[number] = nil } }
    }

    /// Keeps all of the log that is there; for a copy that is about to begin.
    func holdForCopy() -> CopyHold {
        state.withLock { state in
            state.nextCopy += 1
            state.seenByCopies[state.nextCopy] = 0
            return CopyHold(self, state.nextCopy)
        }
    }

    /// The first row of the log that a copy needs; nil if none is running.
    var firstRowForCopies: Int64? { state.withLock { $0.seenByCopies.values.min() } }

    // MARK: One for each log of the process

    private final class Reference: Sendable {
        private let gate: WeakGate
        init(_ gate: CaptureGate) { self.gate = WeakGate(gate) }
        var current: CaptureGate? { gate.value }
    }

    private struct WeakGate: @unchecked Sendable {
        // Only read after it was set; the runtime guards weak references themselves.
        weak let value: CaptureGate?
        init(_ value: CaptureGate) { self.value = value }
    }

    private static let known = Mutex<[String: Reference]>([:])

    /// The gate of a log, the same for everyone who asks in this process.
    static func shared(path: String, names: CaptureNames) -> CaptureGate {
        known.withLock { known in
            let key = path + "\u{0}" + names.prefix
            if let gate = known[key]?.current { return gate }
            let gate = CaptureGate()
            known[key] = Reference(gate)
            return gate
        }
    }
}

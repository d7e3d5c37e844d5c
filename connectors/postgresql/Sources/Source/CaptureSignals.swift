import BridgeCore
import Synchronization

/// What other threads tell a capture that may be waiting for its server.
final class CaptureSignals: Sendable {
    private let acknowledged: Atomic<UInt64>
    private let delivered: Atomic<UInt64>
    private let isInterrupted = Atomic<Bool>(false)
    private let reported = Mutex<BridgeError?>(nil)
    let interrupter: Interrupter

    /// - Parameter durable: what the journal holds already.
    init(durable: Position) throws(BridgeError) {
        acknowledged = Atomic(durable.commit)
        delivered = Atomic(0)
        interrupter = try Interrupter()
    }

    /// Everything that commits before it is durable here.
    var acknowledgedPosition: UInt64 { acknowledged.load(ordering: .acquiring) }

    /// Everything that commits before it has come through the stream; 0 while nothing has.
    var deliveredPosition: UInt64 { delivered.load(ordering: .acquiring) }

    /// Says how far the stream has come.
    func deliver(_ position: UInt64) { delivered.store(position, ordering: .releasing) }

    /// Raises the acknowledged position and wakes the reader, which tells the server.
    func acknowledge(_ position: UInt64) {
        let (old, new) = acknowledged.max(position, ordering: .acquiringAndReleasing)
        if new > old { interrupter.signal() }
    }

    func interrupt() {
        isInterrupted.store(true, ordering: .releasing)
        interrupter.signal()
    }

    /// Ends the capture's next read with an error.
    func fail(_ error: BridgeError) {
        reported.withLock { $0 = $0 ?? error }
        interrupt()
    }

    /// What ``fail(_:)`` was told.
    var failure: BridgeError? { reported.withLock { $0 } }

    /// Whether an interrupt came since the last call.
    func takeInterrupt() -> Bool {
        // The counter first: a signal that comes in between finds it reset and wakes the next wait.
        interrupter.reset()
        return isInterrupted.exchange(false, ordering: .acquiringAndReleasing)
    }
}

import BridgeCore
import Synchronization

/// Buffers that go round between stages, so that a batch costs no allocation.
final class BufferPool: Sendable {
    private let free: Mutex<[RecordBuffer]>
    private let capacity: Int
    private let count: Int

    init(count: Int, capacity: Int) {
        self.capacity = capacity
        self.count = count
        free = Mutex([])
    }

    /// A buffer without contents.
    func take() -> RecordBuffer {
        let buffer = free.withLock { $0.popLast() } ?? RecordBuffer(capacity: capacity)
        buffer.removeAll(retaining: capacity)
        return buffer
    }

    func put(_ buffer: RecordBuffer) {
        free.withLock { free in
            if free.count < count { free.append(buffer) }
        }
    }
}

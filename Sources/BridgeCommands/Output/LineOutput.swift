import BridgeCore
import Foundation
import Synchronization

/// stdout for many lines: written in large pieces, and an error when nobody reads any more.
final class LineOutput: Sendable {
    private let pending = Mutex<[UInt8]>([])

    func write(_ line: String) throws(BridgeError) {
        let isFull = pending.withLock { pending in
            pending.append(contentsOf: line.utf8)
            pending.append(UInt8(ascii: "\n"))
            return pending.count >= 64 << 10
        }
        if isFull { try flush() }
    }

    func flush() throws(BridgeError) {
        let bytes = pending.withLock { pending in
            defer { pending.removeAll(keepingCapacity: true) }
            return pending
        }
        var offset = 0
        while offset < bytes.count {
            let count = bytes[offset...].withUnsafeBytes { Foundation.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else {
                throw BridgeError(
                    errno == ENOSPC ? .diskFull : .inputOutput, "the output cannot be written",
                    context: [.init(.detail, String(cString: strerror(errno)))])
            }
            offset += count
        }
    }
}

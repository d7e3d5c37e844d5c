package import BridgeCore
import CLibPQ

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Wakes a connection that waits for its server. From any thread.
///
/// It stays signalled until ``reset()``, so a signal that comes between two waits is not lost.
package final class Interrupter: Sendable {
    let descriptor: Int32

    package init() throws(BridgeError) {
        descriptor = bridge_eventfd()
        guard descriptor >= 0 else {
            throw BridgeError(.serverBusy, "the system refuses another file descriptor")
        }
    }

    deinit { close(descriptor) }

    package func signal() { bridge_eventfd_signal(descriptor) }

    package func reset() { bridge_eventfd_reset(descriptor) }

    package var isSignalled: Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, 0) == 1
    }
}

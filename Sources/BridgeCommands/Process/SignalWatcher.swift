import Foundation
import Synchronization

/// Turns SIGINT and SIGTERM into calls: the first asks for a graceful stop, the second ends the process at once.
///
/// The handler only writes a byte into a pipe, which is all that a signal handler may do; a thread reads it.
package final class SignalWatcher: Sendable {
    private struct Callbacks {
        var graceful: (@Sendable () -> Void)?
        var emergency: (@Sendable () -> Void)?
        var count = 0
    }
    private let callbacks = Mutex(Callbacks())

    /// Whether a signal has asked for a stop.
    package var wasInterrupted: Bool { callbacks.withLock { $0.count > 0 } }

    package static let shared = SignalWatcher()

    private init() {}

    /// Begins to watch. `emergency` runs before the process ends by a second signal, and must be quick.
    package func watch(graceful: @escaping @Sendable () -> Void, emergency: (@Sendable () -> Void)? = nil) {
        let isFirst = callbacks.withLock { callbacks in
            let isFirst = callbacks.graceful == nil
            callbacks.graceful = graceful
            callbacks.emergency = emergency
            return isFirst
        }
        guard isFirst, signalPipe.reading >= 0 else { return }
        let thread = Thread { [self] in
            var byte: UInt8 = 0
            while true {
                let count = read(signalPipe.reading, &byte, 1)
                if count == 1 { received() } else if count == 0 || errno != EINTR { return }
            }
        }
        thread.name = "signals"
        thread.start()
        for number in [SIGINT, SIGTERM] {
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { _ in
                var byte: UInt8 = 1
                let saved = errno
                _ = write(signalPipe.writing, &byte, 1)
                errno = saved
            }
            action.sa_flags = SA_RESTART
            sigaction(number, &action, nil)
        }
    }

    private func received() {
        let (count, graceful, emergency) = callbacks.withLock { callbacks in
            callbacks.count += 1
            return (callbacks.count, callbacks.graceful, callbacks.emergency)
        }
        if count == 1 {
            graceful?()
        } else {
            emergency?()
            _exit(130)
        }
    }
}

private let signalPipe: (reading: Int32, writing: Int32) = {
    var descriptors: [Int32] = [-1, -1]
    guard pipe(&descriptors) == 0 else { return (-1, -1) }
    for descriptor in descriptors { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
    return (descriptors[0], descriptors[1])
}()

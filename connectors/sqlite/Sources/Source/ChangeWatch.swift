import CSQLite
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// A flag that another thread can raise while this one sleeps in `poll`.
final class WakeFlag: Sendable {
    let descriptor: Int32
    private let isRaised = Mutex(false)

    init() { descriptor = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC)) }

    deinit { close(descriptor) }

    func raise() {
        isRaised.withLock { $0 = true }
        var one: UInt64 = 1
        // A full counter is a raised flag as well.
        _ = write(descriptor, &one, 8)
    }

    /// Lowers the flag; true if it was raised.
    func take() -> Bool {
        var count: UInt64 = 0
        _ = read(descriptor, &count, 8)
        return isRaised.withLock { raised in
            defer { raised = false }
            return raised
        }
    }

    /// Sleeps until the flag is raised or the time has passed.
    func wait(milliseconds: Int32) {
        var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        _ = poll(&request, 1, milliseconds)
    }
}

/// Tells that a database's files were written to.
///
/// inotify reports a write when it has been made, which is before the commit can be seen: the WAL's index follows. So the
/// caller looks again shortly after (see ``Rechecks``). Without inotify, whose instances are limited, its polling remains.
final class ChangeWatch {
    private let descriptor: Int32
    private let path: String
    private var logWatch: Int32 = -1
    private let wake: WakeFlag

    /// - Parameters:
    ///   - path: with symbolic links resolved, as SQLite names its files.
    ///   - notifies: false to go without inotify, as where it cannot be had.
    init(path: String, wake: WakeFlag, notifies: Bool = true) {
        self.path = path
        self.wake = wake
        descriptor = notifies ? inotify_init1(Int32(IN_NONBLOCK | IN_CLOEXEC)) : -1
        guard descriptor >= 0 else { return }
        inotify_add_watch(descriptor, path, UInt32(IN_MODIFY))
        let folder = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        inotify_add_watch(descriptor, folder.isEmpty ? "/" : folder, UInt32(IN_CREATE | IN_MOVED_TO))
        watchLog()
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// Watches the WAL, if it is there; it comes and goes with the connections.
    private func watchLog() {
        guard descriptor >= 0 else { return }
        logWatch = inotify_add_watch(descriptor, path + "-wal", UInt32(IN_MODIFY | IN_DELETE_SELF))
    }

    enum Event { case written, raised, nothing }

    /// Sleeps until a file is written to, the flag is raised, or the time has passed.
    func wait(milliseconds: Int32) -> Event {
        var requests = [
            pollfd(fd: wake.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
        ]
        let count = poll(&requests, descriptor >= 0 ? 2 : 1, milliseconds)
        guard count > 0 else { return .nothing }
        if requests[1].revents != 0 { drain() }
        if requests[0].revents != 0 { return .raised }
        return requests[1].revents != 0 ? .written : .nothing
    }

    private func drain() {
        var buffer = [UInt8](repeating: 0, count: 4096)
        while descriptor >= 0, read(descriptor, &buffer, buffer.count) > 0 {}
        // Adding a watch that is there already changes nothing; a WAL made anew gets one.
        watchLog()
    }
}

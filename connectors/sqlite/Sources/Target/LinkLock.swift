import BridgeCore
import Glibc
import Synchronization

/// The right to write for one link. Held through a lock on a file beside the database, which ends with the process
/// however it dies.
///
/// The loads and the applier of one connector share it; of appliers there is one.
///
/// The lock is not on the database file itself: closing any descriptor of that file would drop SQLite's own locks.
final class LinkLock: Sendable {
    private let descriptor: Int32
    private let path: String
    private let link: LinkDescription
    private let hasApplier = Mutex(false)

    /// - Throws: `alreadyRunning` if another process, or another connector in this one, has it.
    init(databasePath: String, link: LinkDescription) throws(BridgeError) {
        self.link = link
        path = "\(Self.resolved(databasePath))-\(link.identifier).lock"
        var attempts = 0
        while true {
            let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
            guard file >= 0 else { throw Self.failure(path, errno) }
            guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
                let reason = errno
                close(file)
                guard reason == EWOULDBLOCK else { throw Self.failure(path, reason) }
                throw Self.taken(path, link)
            }
            // The last holder removes the file; what was locked may be a file that has no name any more.
            if Self.isSame(file, path) {
                descriptor = file
                return
            }
            close(file)
            attempts += 1
            guard attempts < 100 else { throw Self.failure(path, EAGAIN) }
        }
    }

    deinit {
        unlink(path)
        close(descriptor)
    }

    /// - Throws: `alreadyRunning` while another applier of this connector is open.
    func beginApplying() throws(BridgeError) {
        let isFirst = hasApplier.withLock { taken in
            defer { taken = true }
            return !taken
        }
        guard isFirst else { throw Self.taken(path, link) }
    }

    func endApplying() { hasApplier.withLock { $0 = false } }

    private static func taken(_ path: String, _ link: LinkDescription) -> BridgeError {
        BridgeError(
            .alreadyRunning, "another bridge writes to this target for \(link.name)",
            context: [.init(.file, path), .init(.migration, link.migration)])
    }

    /// One name for one file, so that two ways to write its path meet at one lock.
    private static func resolved(_ path: String) -> String {
        guard let whole = realpath(path, nil) else { return path }
        defer { free(whole) }
        return String(cString: whole)
    }

    private static func isSame(_ file: Int32, _ path: String) -> Bool {
        var opened = stat()
        var named = stat()
        guard fstat(file, &opened) == 0, stat(path, &named) == 0 else { return false }
        return opened.st_ino == named.st_ino && opened.st_dev == named.st_dev
    }

    private static func failure(_ path: String, _ number: Int32) -> BridgeError {
        BridgeError(
            number == EACCES || number == EROFS || number == EPERM ? .rightsMissing : .inputOutput,
            "the link's lock file cannot be used",
            context: [.init(.file, path), .init(.detail, String(cString: strerror(number)))],
            hint: "allow this user to write the folder that the target file is in")
    }
}

package import BridgeCore
import Foundation

/// The exclusive right to run a migration out of a data directory. Gone with the process, however it ends, because it is
/// a lock on an open file.
package final class DirectoryLock: Sendable {
    private let descriptor: Int32

    /// - Throws: `alreadyRunning` naming the process that holds it; `inputOutput`.
    package init(_ directory: DataDirectory) throws(BridgeError) {
        let path = directory.lockFile
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Self.failure("the lock file cannot be opened", path) }
        var result = flock(descriptor, LOCK_EX | LOCK_NB)
        // `status` holds a shared lock for an instant to see whether somebody runs; nobody waits for one who does.
        for _ in 0..<20 where result != 0 && errno == EWOULDBLOCK {
            guard flock(descriptor, LOCK_SH | LOCK_NB) == 0 else { break }
            flock(descriptor, LOCK_UN)
            usleep(10_000)
            result = flock(descriptor, LOCK_EX | LOCK_NB)
        }
        guard result == 0 else {
            let wasBusy = errno == EWOULDBLOCK
            let holder = Self.readProcess(descriptor)
            close(descriptor)
            guard wasBusy else { throw Self.failure("the lock cannot be taken", path) }
            throw BridgeError(
                .alreadyRunning, "another bridge process runs this migration",
                context: (holder.map { [.init(.processes, "\($0)")] } ?? []) + [.init(.file, path)])
        }
        let text = "\(getpid())\n"
        guard ftruncate(descriptor, 0) == 0, pwrite(descriptor, text, text.utf8.count, 0) == text.utf8.count else {
            close(descriptor)
            throw Self.failure("the lock file cannot be written", path)
        }
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    /// The process that holds the lock now; nil if none does.
    package static func holder(of directory: DataDirectory) -> Int32? {
        let descriptor = open(directory.lockFile, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        guard flock(descriptor, LOCK_SH | LOCK_NB) != 0 else {
            flock(descriptor, LOCK_UN)
            return nil
        }
        return readProcess(descriptor)
    }

    private static func readProcess(_ descriptor: Int32) -> Int32? {
        var buffer = [UInt8](repeating: 0, count: 32)
        let count = pread(descriptor, &buffer, buffer.count, 0)
        guard count > 0 else { return nil }
        return Int32(String(decoding: buffer[..<count], as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines))
    }

    private static func failure(_ message: String, _ path: String) -> BridgeError {
        BridgeError(
            errno == ENOSPC ? .diskFull : .inputOutput, message,
            context: [.init(.file, path), .init(.detail, String(cString: strerror(errno)))])
    }
}

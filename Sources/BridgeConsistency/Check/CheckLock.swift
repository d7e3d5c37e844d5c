import BridgeCore
import Foundation

/// The exclusive right to check out of one state directory: two checks at once would write over what the other one left.
/// Gone with the process, however it ends, because it is a lock on an open file.
final class CheckLock: Sendable {
    private let descriptor: Int32

    private init(_ descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    /// Waits for another check to end, but not for longer than `patience`, and not once a stop was asked for.
    /// - Throws: `alreadyRunning`; `interrupted`; `inputOutput`.
    static func take(
        _ directory: String, patience: Duration, board: CheckBoard
    ) async throws(BridgeError) -> CheckLock {
        let path = directory + "/check.lock"
        do {
            try FileManager.default.createDirectory(
                atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw BridgeError(.inputOutput, "the check's folder cannot be made", context: [.init(.file, directory)])
        }
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw BridgeError(.inputOutput, "the check's lock file cannot be opened", context: [.init(.file, path)])
        }
        let lock = CheckLock(descriptor)
        let deadline = ContinuousClock.now + patience
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            guard errno == EWOULDBLOCK || errno == EINTR else {
                throw BridgeError(.inputOutput, "the check's lock cannot be taken", context: [.init(.file, path)])
            }
            guard ContinuousClock.now < deadline else {
                throw BridgeError(
                    .alreadyRunning, "another check of this migration is under way", context: [.init(.file, path)],
                    hint: "wait until it is over, then run the command again; bridge check --history lists its verdict")
            }
            try board.goOn()
            await board.sleep(.milliseconds(50))
        }
        return lock
    }
}

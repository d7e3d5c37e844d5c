package import BridgeCore
import Foundation

/// A file that is replaced as a whole: after a crash there is the old one or the new one.
package struct WholeFile: Sendable {
    package let path: String
    /// What it is, for errors.
    let what: String
    /// As for `open(2)`.
    let permissions: UInt32

    package init(path: String, what: String, permissions: UInt32) {
        self.path = path
        self.what = what
        self.permissions = permissions
    }

    /// Blocks. What was written is durable when this returns.
    /// - Throws: `inputOutput`, `diskFull`.
    package func write(_ text: String) throws(BridgeError) {
        let temporary = "\(path).\(getpid()).tmp"
        do throws(BridgeError) {
            try write(text, to: temporary)
            guard rename(temporary, path) == 0 else { throw failure("cannot be put into its place") }
        } catch {
            unlink(temporary)
            throw error
        }
        let folder = open((path as NSString).deletingLastPathComponent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else { throw failure("is in a folder that cannot be opened") }
        defer { close(folder) }
        guard fsync(folder) == 0 else { throw failure("cannot be made durable") }
    }

    private func write(_ text: String, to temporary: String) throws(BridgeError) {
        let file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, permissions)
        guard file >= 0 else { throw failure("cannot be made") }
        defer { close(file) }
        let bytes = Array(text.utf8)
        var offset = 0
        while offset < bytes.count {
            let count = bytes[offset...].withUnsafeBytes { Foundation.write(file, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failure("cannot be written") }
            offset += count
        }
        guard fsync(file) == 0 else { throw failure("cannot be made durable") }
    }

    private func failure(_ problem: String) -> BridgeError {
        let reason = errno
        return BridgeError(
            reason == ENOSPC || reason == EDQUOT ? .diskFull : .inputOutput, "\(what) \(problem)",
            context: [.init(.file, path), .init(.detail, String(cString: strerror(reason)))])
    }
}

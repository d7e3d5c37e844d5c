import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// A file that is added to at its end, in large pieces, and can be cut back. Its owner closes it. Blocks.
struct AppendedFile: Sendable {
    private static let piece = 256 << 10

    let path: String
    private let descriptor: Int32
    private var pending: [UInt8] = []
    private var written = 0

    /// How long it is, with what is still held back.
    var size: Int { written + pending.count }

    /// Makes the file, or empties it; only its owner may read it.
    init(path: String) throws(BridgeError) {
        self.path = path
        descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Self.failure("cannot be made", path) }
    }

    /// A file without a name.
    init(in folder: String) throws(BridgeError) {
        path = folder
        var template = Array("\(folder)/bridge-check-XXXXXX".utf8CString)
        descriptor = mkstemp(&template)
        guard descriptor >= 0 else { throw Self.failure("cannot be made", folder) }
        unlink(template)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }

    func close() { _ = closeDescriptor(descriptor) }

    mutating func append(_ bytes: some Collection<UInt8>) throws(BridgeError) {
        pending.append(contentsOf: bytes)
        if pending.count >= Self.piece { try flush() }
    }

    /// Hands all that is held back to the system.
    mutating func flush() throws(BridgeError) {
        guard !pending.isEmpty else { return }
        let bytes = pending
        pending.removeAll(keepingCapacity: true)
        try write(bytes, at: written)
        written += bytes.count
    }

    /// Makes it durable.
    mutating func synchronize() throws(BridgeError) {
        try flush()
        guard fsync(descriptor) == 0 else { throw Self.failure("cannot be made durable", path) }
    }

    mutating func cut(to size: Int) throws(BridgeError) {
        try flush()
        guard ftruncate(descriptor, off_t(size)) == 0 else { throw Self.failure("cannot be cut", path) }
        written = size
    }

    /// Moves a part of it towards its beginning.
    mutating func move(from: Int, to: Int, count: Int) throws(BridgeError) {
        try flush()
        var done = 0
        while done < count, from != to {
            let part = try read(at: from + done, count: min(Self.piece, count - done))
            try write(part, at: to + done)
            done += part.count
        }
    }

    /// Nothing may be held back.
    func read(at offset: Int, count: Int) throws(BridgeError) -> [UInt8] {
        var failed = false
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { room, filled in
            while filled < count, let base = room.baseAddress {
                let got = pread(descriptor, base + filled, count - filled, off_t(offset + filled))
                if got < 0, errno == EINTR { continue }
                guard got > 0 else {
                    failed = true
                    return
                }
                filled += got
            }
        }
        if failed { throw Self.failure("cannot be read", path) }
        return bytes
    }

    private func write(_ bytes: [UInt8], at offset: Int) throws(BridgeError) {
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { all in
                pwrite(descriptor, all.baseAddress.map { $0 + done }, all.count - done, off_t(offset + done))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Self.failure("cannot be written", path) }
            done += count
        }
    }

    private static func failure(_ what: String, _ path: String) -> BridgeError {
        let number = errno
        return BridgeError(
            number == ENOSPC || number == EDQUOT ? .diskFull : .inputOutput, "a file of the check \(what)",
            context: [.init(.file, path), .init(.detail, String(cString: strerror(number)))])
    }
}

private func closeDescriptor(_ descriptor: Int32) -> Int32 { close(descriptor) }

import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// A temporary file without a name: it is gone when its owner is, however that ends.
actor SpillFile {
    private nonisolated let executor = ThreadExecutor(name: "check-spill")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let folder: String
    private var descriptor: Int32 = -1
    private var size = 0

    init(folder: String?) {
        self.folder = folder ?? getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// Appends; returns where.
    func append(_ buffer: RecordBuffer) throws(BridgeError) -> Int {
        if descriptor < 0 { try open() }
        let bytes = buffer.bytes
        var done = 0
        while done < bytes.count, let base = bytes.baseAddress {
            let count = pwrite(descriptor, base + done, bytes.count - done, off_t(size + done))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failure("cannot be written") }
            done += count
        }
        defer { size += bytes.count }
        return size
    }

    /// Appends a part of the file to a buffer.
    func read(at offset: Int, count: Int, into buffer: RecordBuffer) throws(BridgeError) {
        try buffer.appendUninitialized(count) { room throws(BridgeError) in
            var done = 0
            while done < count, let base = room.baseAddress {
                let got = pread(descriptor, base + done, count - done, off_t(offset + done))
                if got < 0, errno == EINTR { continue }
                guard got > 0 else { throw failure("cannot be read") }
                done += got
            }
            return done
        }
    }

    private func open() throws(BridgeError) {
        var template = Array("\(folder)/bridge-check-XXXXXX".utf8CString)
        descriptor = mkstemp(&template)
        guard descriptor >= 0 else { throw failure("cannot be made") }
        unlink(template)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }

    private func failure(_ what: String) -> BridgeError {
        let number = errno
        return BridgeError(
            number == ENOSPC || number == EDQUOT ? .diskFull : .inputOutput, "a temporary file of the check \(what)",
            context: [.init(.file, folder), .init(.detail, String(cString: strerror(number)))])
    }
}

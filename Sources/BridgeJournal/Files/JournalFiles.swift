import BridgeCore
import CBridgeSystem

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// An open file. Closed when the last owner lets go of it, so that a sync or a read under way never loses it.
final class OpenFile: Sendable {
    let descriptor: Int32
    let path: String

    init(descriptor: Int32, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    deinit { close(descriptor) }
}

/// The few operations on files that a journal consists of. Tests put failures, a trace or a count in between.
///
/// Everything blocks; callers are on a thread of their own.
protocol JournalFiles: Sendable {
    /// Makes a file that is not there yet and opens it for reading and writing.
    func create(_ path: String) throws(BridgeError) -> OpenFile
    func open(_ path: String, forWriting: Bool) throws(BridgeError) -> OpenFile
    func size(_ file: OpenFile) throws(BridgeError) -> UInt64
    /// Fills `buffer` from `offset` on; returns how many bytes there were, fewer only at the end of the file.
    func read(_ file: OpenFile, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(BridgeError)
        -> Int
    /// Writes all of the bytes.
    func write(_ bytes: UnsafeRawBufferPointer, to file: OpenFile, at offset: UInt64) throws(BridgeError)
    func truncate(_ file: OpenFile, to size: UInt64) throws(BridgeError)
    /// `fdatasync`.
    func synchronize(_ file: OpenFile) throws(BridgeError)
    /// `fsync` of a directory.
    func synchronizeDirectory(_ path: String) throws(BridgeError)
    func rename(_ path: String, to newPath: String) throws(BridgeError)
    func remove(_ path: String) throws(BridgeError)
    /// Lets the page cache forget the file, so that the next read tells what the disk has.
    func dropCache(_ file: OpenFile)
}

/// The system's own files.
struct SystemFiles: JournalFiles {
    func create(_ path: String) throws(BridgeError) -> OpenFile {
        try open(path, flags: O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC)
    }

    func open(_ path: String, forWriting: Bool) throws(BridgeError) -> OpenFile {
        try open(path, flags: (forWriting ? O_RDWR : O_RDONLY) | O_CLOEXEC)
    }

    func open(_ path: String, flags: Int32) throws(BridgeError) -> OpenFile {
        let descriptor = bridge_open_file(path, flags, 0o640)
        guard descriptor >= 0 else { throw .system("cannot open a file of the journal", path) }
        return OpenFile(descriptor: descriptor, path: path)
    }

    func size(_ file: OpenFile) throws(BridgeError) -> UInt64 {
        var status = stat()
        guard fstat(file.descriptor, &status) == 0 else {
            throw .system("cannot look at a file of the journal", file.path)
        }
        return UInt64(max(0, status.st_size))
    }

    func read(
        _ file: OpenFile, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(BridgeError) -> Int {
        var done = 0
        while done < buffer.count {
            let count = pread(
                file.descriptor, buffer.baseAddress.map { $0 + done }, buffer.count - done,
                off_t(clamping: offset) + done)
            if count == 0 { break }
            if count < 0 {
                if errno == EINTR { continue }
                throw .system("cannot read the journal", file.path)
            }
            done += count
        }
        return done
    }

    func write(_ bytes: UnsafeRawBufferPointer, to file: OpenFile, at offset: UInt64) throws(BridgeError) {
        var done = 0
        while done < bytes.count {
            let count = pwrite(
                file.descriptor, bytes.baseAddress.map { $0 + done }, bytes.count - done, off_t(clamping: offset) + done
            )
            if count < 0 {
                if errno == EINTR { continue }
                throw .system("cannot write the journal", file.path)
            }
            done += count
        }
    }

    func truncate(_ file: OpenFile, to size: UInt64) throws(BridgeError) {
        guard ftruncate(file.descriptor, off_t(clamping: size)) == 0 else {
            throw .system("cannot cut a file of the journal", file.path)
        }
    }

    func synchronize(_ file: OpenFile) throws(BridgeError) {
        guard fdatasync(file.descriptor) == 0 else { throw .system("cannot make the journal durable", file.path) }
    }

    func synchronizeDirectory(_ path: String) throws(BridgeError) {
        let directory = try open(path, flags: O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard fsync(directory.descriptor) == 0 else { throw .system("cannot make a directory durable", path) }
    }

    func rename(_ path: String, to newPath: String) throws(BridgeError) {
        guard Glibc.rename(path, newPath) == 0 else { throw .system("cannot rename a file of the journal", path) }
    }

    func remove(_ path: String) throws(BridgeError) {
        guard unlink(path) == 0 || errno == ENOENT else { throw .system("cannot remove a file of the journal", path) }
    }

    func dropCache(_ file: OpenFile) {
        // Advice: where it is not followed, nothing is lost but the certainty.
        _ = posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
    }
}

extension BridgeError {
    /// The error for a system call that just failed, by `errno`.
    static func system(_ what: String, _ path: String) -> BridgeError {
        let number = errno
        let code: ErrorCode = number == ENOSPC || number == EDQUOT ? .diskFull : .inputOutput
        return BridgeError(code, "\(what): \(String(cString: strerror(number)))", context: [.init(.file, path)])
    }

    static func damaged(_ file: String, _ offset: UInt64, _ what: String) -> BridgeError {
        BridgeError(
            .journalDamaged, "the journal is damaged: \(what)",
            context: [.init(.file, file), .init(.offset, String(offset))])
    }
}

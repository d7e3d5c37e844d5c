import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Which processes stand in the way of a writer, as far as the kernel tells.
///
/// It is read from `/proc/locks`. The database is not opened for it: closing it again would drop all locks that this
/// process has on the file. Processes outside this container are not seen.
struct LockHolders {
    let path: String

    /// Bytes that SQLite locks: of the WAL's index, its writer and its readers; of the file, its writer (two bytes), then its
    /// readers.
    private static let walWriter: ClosedRange<UInt64> = 120...120
    private static let walReaders: ClosedRange<UInt64> = 123...127
    private static let fileWriter: ClosedRange<UInt64> = 0x4000_0000...0x4000_0001
    private static let fileReaders: ClosedRange<UInt64> = 0x4000_0002...0x4000_01FF

    private struct Lock {
        let process: Int32
        let isExclusive: Bool
        let file: String
        let bytes: ClosedRange<UInt64>
    }

    /// `app (1234)` for each, the writer or else the readers that its commit would wait for; empty if nothing is known.
    func describe(isWriteAhead: Bool) -> [String] {
        let locks = Self.readLocks()
        var found: [Lock] = []
        if isWriteAhead {
            let file = Self.identity(path + "-shm")
            found = locks.filter { $0.file == file && $0.isExclusive && $0.bytes.overlaps(Self.walWriter) }
        } else {
            let ours = getpid()
            let file = Self.identity(path)
            let own = locks.filter { $0.file == file }
            found = own.filter { $0.isExclusive && $0.bytes.overlaps(Self.fileWriter) }
            if found.isEmpty { found = own.filter { $0.process != ours && $0.bytes.overlaps(Self.fileReaders) } }
        }
        return Set(found.map(\.process)).sorted().map { "\(Self.name(of: $0)) (\($0))" }
    }

    /// Whether another process has a read or a write transaction.
    func isUsedByOthers(isWriteAhead: Bool) -> Bool {
        let file = Self.identity(path + (isWriteAhead ? "-shm" : ""))
        let ours = getpid()
        return Self.readLocks().contains { lock in
            guard lock.file == file, lock.process != ours else { return false }
            return isWriteAhead
                ? lock.bytes.overlaps(Self.walReaders) || lock.bytes.overlaps(Self.walWriter)
                : lock.bytes.overlaps(Self.fileReaders) || lock.bytes.overlaps(Self.fileWriter)
        }
    }

    /// Waits until no other process has a transaction, but no longer than `patience`. Blocks the thread.
    func waitUntilUnused(isWriteAhead: Bool, patience: Duration) {
        let deadline = ContinuousClock.now + patience
        while isUsedByOthers(isWriteAhead: isWriteAhead), ContinuousClock.now < deadline { usleep(5_000) }
    }

    /// `major:minor:inode` in the spelling of `/proc/locks`.
    private static func identity(_ path: String) -> String? {
        var facts = stat()
        guard stat(path, &facts) == 0 else { return nil }
        let device = UInt64(facts.st_dev)
        let major = (device >> 8) & 0xFFF | (device >> 32) & 0xFFFF_F000
        let minor = device & 0xFF | (device >> 12) & 0xFFFF_FF00
        func digits(_ number: UInt64) -> String {
            let text = String(number, radix: 16)
            return text.count < 2 ? "0" + text : text
        }
        return "\(digits(major)):\(digits(minor)):\(facts.st_ino)"
    }

    /// `1: POSIX  ADVISORY  WRITE 1234 08:01:5678 120 120`
    private static func readLocks() -> [Lock] {
        read("/proc/locks").split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ", omittingEmptySubsequences: true)
            // A process that waits is marked by an arrow.
            guard words.count == 8, words[1] == "POSIX", let process = Int32(words[4]), let start = UInt64(words[6]) else {
                return nil
            }
            let end = UInt64(words[7]) ?? .max
            guard end >= start else { return nil }
            return Lock(process: process, isExclusive: words[3] == "WRITE", file: String(words[5]), bytes: start...end)
        }
    }

    private static func name(of process: Int32) -> String {
        let name = read("/proc/\(process)/comm").filter { $0 != "\n" }
        return name.isEmpty ? "process" : name
    }

    private static func read(_ path: String) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return "" }
        defer { _ = systemClose(descriptor) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4_096)
        while true {
            let count = buffer.withUnsafeMutableBytes { systemRead(descriptor, $0) }
            guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
            bytes += buffer[0..<count]
        }
    }
}

private func systemClose(_ descriptor: Int32) -> Int32 { close(descriptor) }
private func systemRead(_ descriptor: Int32, _ buffer: UnsafeMutableRawBufferPointer) -> Int {
    read(descriptor, buffer.baseAddress, buffer.count)
}

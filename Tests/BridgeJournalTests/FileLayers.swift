import BridgeCore
import Synchronization

@testable import BridgeJournal

/// The system's files with something put in between. By itself it only leaves out waiting for the disk.
class InterposedFiles: JournalFiles, @unchecked Sendable {
    let system = SystemFiles()

    func create(_ path: String) throws(BridgeError) -> OpenFile { try system.create(path) }
    func open(_ path: String, forWriting: Bool) throws(BridgeError) -> OpenFile {
        try system.open(path, forWriting: forWriting)
    }
    func size(_ file: OpenFile) throws(BridgeError) -> UInt64 { try system.size(file) }
    func read(
        _ file: OpenFile, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(BridgeError) -> Int { try system.read(file, at: offset, into: buffer) }
    func write(_ bytes: UnsafeRawBufferPointer, to file: OpenFile, at offset: UInt64) throws(BridgeError) {
        try system.write(bytes, to: file, at: offset)
    }
    func truncate(_ file: OpenFile, to size: UInt64) throws(BridgeError) { try system.truncate(file, to: size) }
    func synchronize(_ file: OpenFile) throws(BridgeError) {}
    func synchronizeDirectory(_ path: String) throws(BridgeError) {}
    func rename(_ path: String, to newPath: String) throws(BridgeError) { try system.rename(path, to: newPath) }
    func remove(_ path: String) throws(BridgeError) { try system.remove(path) }
    func dropCache(_ file: OpenFile) {}
}

/// What reached the file system, in order.
enum FileOperation {
    case create(String)
    case write(String, offset: Int, bytes: [UInt8])
    case truncate(String, size: Int)
    case synchronize(String)
    case synchronizeDirectory
    case rename(String, to: String)
    case remove(String)
}

/// Keeps a trace of everything that changes files.
final class TracingFiles: InterposedFiles, @unchecked Sendable {
    private let operations = Mutex<[FileOperation]>([])

    var trace: [FileOperation] { operations.withLock { $0 } }
    var count: Int { operations.withLock { $0.count } }

    private func add(_ operation: FileOperation) { operations.withLock { $0.append(operation) } }
    private static func name(_ path: String) -> String { String(path.split(separator: "/").last ?? "") }

    override func create(_ path: String) throws(BridgeError) -> OpenFile {
        add(.create(Self.name(path)))
        return try super.create(path)
    }
    override func write(_ bytes: UnsafeRawBufferPointer, to file: OpenFile, at offset: UInt64) throws(BridgeError) {
        add(.write(Self.name(file.path), offset: Int(offset), bytes: Array(bytes)))
        try super.write(bytes, to: file, at: offset)
    }
    override func truncate(_ file: OpenFile, to size: UInt64) throws(BridgeError) {
        add(.truncate(Self.name(file.path), size: Int(size)))
        try super.truncate(file, to: size)
    }
    override func synchronize(_ file: OpenFile) throws(BridgeError) { add(.synchronize(Self.name(file.path))) }
    override func synchronizeDirectory(_ path: String) throws(BridgeError) { add(.synchronizeDirectory) }
    override func rename(_ path: String, to newPath: String) throws(BridgeError) {
        add(.rename(Self.name(path), to: Self.name(newPath)))
        try super.rename(path, to: newPath)
    }
    override func remove(_ path: String) throws(BridgeError) {
        add(.remove(Self.name(path)))
        try super.remove(path)
    }
}

/// Fails writes and syncs when it is told to, and counts what is read and synced.
final class FaultyFiles: InterposedFiles, @unchecked Sendable {
    struct Faults {
        /// Bytes that may still be written before the disk is full; nil for no end.
        var room: Int?
        var syncsFail = false
        var bytesRead = 0
        var syncs = 0
    }
    let faults = Mutex(Faults())

    override func read(
        _ file: OpenFile, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(BridgeError) -> Int {
        let count = try super.read(file, at: offset, into: buffer)
        faults.withLock { $0.bytesRead += count }
        return count
    }

    override func write(_ bytes: UnsafeRawBufferPointer, to file: OpenFile, at offset: UInt64) throws(BridgeError) {
        let allowed = faults.withLock { faults -> Int in
            guard let room = faults.room, !file.path.hasSuffix(JournalFileName.state) else { return bytes.count }
            let allowed = min(room, bytes.count)
            faults.room = room - allowed
            return allowed
        }
        try super.write(UnsafeRawBufferPointer(rebasing: bytes[..<allowed]), to: file, at: offset)
        if allowed < bytes.count {
            throw BridgeError(.diskFull, "cannot write the journal: no space", context: [.init(.file, file.path)])
        }
    }

    override func synchronize(_ file: OpenFile) throws(BridgeError) {
        let fails = faults.withLock {
            $0.syncs += 1
            return $0.syncsFail
        }
        if fails {
            throw BridgeError(
                .inputOutput, "cannot make the journal durable: I/O error", context: [.init(.file, file.path)])
        }
    }
}

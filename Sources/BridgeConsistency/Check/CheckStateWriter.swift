import BridgeCore
import BridgeJournal
import Foundation

/// Form of the file: a mark, then frames. A frame is its checksum (CRC-32C of what follows), the checksum of the frame
/// before it (0 for the first), 1 if a state is whole with it, its length, and that many bytes of entries.
///
/// A state is whole with the frame that holds its head. What is behind the last such frame does not count: an addition
/// that was cut off by a crash leaves the state that was there before it.
enum CheckStateForm {
    static let mark = Array("bridge check state 2\n".utf8)
    static let headBytes = 20
    /// A frame is closed when it has so many bytes.
    static let frameBytes = 1 << 20

    enum Entry: UInt8 {
        case touched = 1
        case settled, suspect, cleared, clearedTable, table, head
    }
}

/// Writes the state of a check: the first time as a whole, then what changed, until the file has twice the size that it
/// had as a whole. Belongs to one check, blocks.
final class CheckStateWriter {
    private let path: String
    private let least: Int
    private var file: AppendedFile?
    private var wholeSize = 0
    private var last: [CheckState.Table] = []
    private var before: UInt32 = 0
    private var entries: [UInt8] = []
    /// Bytes written since it was made.
    private(set) var written = 0

    /// - Parameter least: a file below this size is not replaced for having grown.
    init(path: String, least: Int = 1 << 20) {
        self.path = path
        self.least = least
    }

    deinit { file?.close() }

    /// Durable when it returns: the keys, and with them the position up to which they are complete.
    /// - Parameter asWhole: replaces the file. Needed where the older state may not be fallen back to.
    /// - Throws: `inputOutput`, `diskFull`.
    func save(
        _ state: CheckState, _ dirty: inout DirtySet, _ suspects: inout SuspectSet, asWhole: Bool
    ) throws(BridgeError) {
        if let file, !asWhole, !dirty.hasLostChanges, file.size < max(least, 2 * wholeSize) {
            try append(state, dirty, suspects)
        } else {
            try replace(state, dirty, suspects)
        }
        last = state.tables
        dirty.saved()
        suspects.saved()
    }

    private func replace(_ state: CheckState, _ dirty: DirtySet, _ suspects: SuspectSet) throws(BridgeError) {
        let folder = URL(fileURLWithPath: path).deletingLastPathComponent()
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        } catch {
            throw BridgeError(.inputOutput, "the check's folder cannot be made", context: [.init(.file, folder.path)])
        }
        file?.close()
        file = nil
        before = 0
        entries.removeAll()
        var made = try AppendedFile(path: path + ".new")
        do throws(BridgeError) {
            try made.append(CheckStateForm.mark)
            for (table, keys) in dirty.keys {
                for key in keys.keys { try add(.touched, table, key.bytes, to: &made) }
            }
            for (table, rows) in suspects.rows {
                for (key, sample) in rows { try add(key, sample, table, to: &made) }
            }
            for index in state.tables.indices { try add(.table, index, try json(state.tables[index]), to: &made) }
            try finish(state, &made)
            guard rename(path + ".new", path) == 0 else { throw failure("cannot be put into its place") }
            try synchronize(folder.path)
        } catch {
            made.close()
            throw error
        }
        wholeSize = made.size
        written += made.size
        file = made
    }

    private func append(_ state: CheckState, _ dirty: DirtySet, _ suspects: SuspectSet) throws(BridgeError) {
        guard var made = file else { return }
        let size = made.size
        // Whatever goes wrong, the next time the file is written as a whole.
        file = nil
        do throws(BridgeError) {
            for (table, keys) in dirty.changed {
                for key in keys { try add(dirty.contains(table, key) ? .touched : .settled, table, key.bytes, to: &made) }
            }
            for table in suspects.cleared { try add(.clearedTable, table, [], to: &made) }
            for (table, keys) in suspects.changed {
                for key in keys {
                    if let row = suspects.rows[table]?[key] {
                        try add(key, row, table, to: &made)
                    } else {
                        try add(.cleared, table, key.bytes, to: &made)
                    }
                }
            }
            for index in state.tables.indices where index >= last.count || last[index] != state.tables[index] {
                try add(.table, index, try json(state.tables[index]), to: &made)
            }
            try finish(state, &made)
        } catch {
            made.close()
            throw error
        }
        written += made.size - size
        file = made
    }

    // MARK: - Entries

    private func add(
        _ key: KeyImage, _ sample: CheckReport.Sample?, _ table: Int, to file: inout AppendedFile
    ) throws(BridgeError) {
        // Values were asked for in one report, not in the next ones.
        var sample = sample
        sample?.sourceValues = nil
        sample?.targetValues = nil
        var bytes: [UInt8] = []
        Self.append(UInt32(clamping: key.bytes.count), to: &bytes)
        bytes += key.bytes
        if let sample { bytes += try json(sample) }
        try add(.suspect, table, bytes, to: &file)
    }

    private func add(
        _ entry: CheckStateForm.Entry, _ table: Int, _ bytes: [UInt8], to file: inout AppendedFile
    ) throws(BridgeError) {
        guard let length = UInt32(exactly: bytes.count) else {
            throw BridgeError(.valueDoesNotFit, "a key is larger than 4 GB")
        }
        entries.append(entry.rawValue)
        Self.append(UInt32(truncatingIfNeeded: table), to: &entries)
        Self.append(length, to: &entries)
        entries += bytes
        if entries.count >= CheckStateForm.frameBytes { try closeFrame(isWhole: false, &file) }
    }

    private func finish(_ state: CheckState, _ file: inout AppendedFile) throws(BridgeError) {
        entries.append(CheckStateForm.Entry.head.rawValue)
        let head = try json(state)
        Self.append(UInt32(0), to: &entries)
        Self.append(UInt32(clamping: head.count), to: &entries)
        entries += head
        try closeFrame(isWhole: true, &file)
        try file.synchronize()
    }

    private func closeFrame(isWhole: Bool, _ file: inout AppendedFile) throws(BridgeError) {
        var frame: [UInt8] = []
        frame.reserveCapacity(entries.count + CheckStateForm.headBytes)
        Self.append(before, to: &frame)
        Self.append(UInt32(isWhole ? 1 : 0), to: &frame)
        Self.append(UInt64(entries.count), to: &frame)
        frame += entries
        let checksum = frame.withUnsafeBytes { Checksum.of($0) }
        var head: [UInt8] = []
        Self.append(checksum, to: &head)
        try file.append(head)
        try file.append(frame)
        before = checksum
        entries.removeAll(keepingCapacity: true)
    }

    private static func append(_ number: some FixedWidthInteger, to bytes: inout [UInt8]) {
        withUnsafeBytes(of: number.bigEndian) { bytes.append(contentsOf: $0) }
    }

    private func json(_ value: some Encodable) throws(BridgeError) -> [UInt8] {
        guard let data = try? JSONEncoder().encode(value) else {
            throw BridgeError(.internalFault, "the check's state cannot be written as JSON")
        }
        return Array(data)
    }

    // MARK: - Plumbing

    private func synchronize(_ folder: String) throws(BridgeError) {
        let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure("has a folder that cannot be opened") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw failure("has a folder that cannot be made durable") }
    }

    private func failure(_ what: String) -> BridgeError {
        BridgeError(.inputOutput, "the check's state \(what)", context: [.init(.file, path)])
    }
}

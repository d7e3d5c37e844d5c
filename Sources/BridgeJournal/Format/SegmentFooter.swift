import BridgeCore

/// One entry of a segment's index: a stretch of blocks.
struct IndexEntry: Hashable, Sendable {
    static let size = 32
    /// A stretch ends with the first block that makes it this long.
    static let stretchBytes: UInt64 = 256 << 10

    var offset: UInt64
    var firstRecord: UInt64
    /// The last commit before the stretch.
    var commitBefore: UInt64?
    var hasRelations: Bool
    var beginsInside: Bool
}

/// The last 160 bytes of a finished segment.
struct SegmentSummary: Hashable, Sendable {
    static let size = 160

    var segment: UInt64
    /// Where the footer begins, which is where the blocks end.
    var footerOffset: UInt64
    var blocks: UInt64
    var firstRecord: UInt64
    var commits: UInt64
    var firstCommit: UInt64?
    var end: StreamState
    var firstWritten: Timestamp
    var closed: Timestamp
    var recordBytes: UInt64
    var lastChecksum: UInt32
    var footerBytes: UInt32

    func encode(into bytes: UnsafeMutableRawBufferPointer) {
        var flags: FrameFlags = []
        if end.openTransaction != nil { flags.insert(.endsInside) }
        if end.lastCommit != nil { flags.insert(.hasLastCommit) }
        var writer = FieldWriter(bytes)
        writer.put(ascii: "BJFS")
        writer.put(flags.rawValue)
        writer.put(UInt16(0))
        writer.put(segment)
        writer.put(footerOffset)
        writer.put(blocks)
        writer.put(firstRecord)
        writer.put(end.records &- firstRecord)
        writer.put(commits)
        writer.put(firstCommit ?? 0)
        writer.put(end.lastCommit)
        writer.put(end.frontier)
        writer.put(end.openTransaction ?? 0)
        writer.put(end.openChanges)
        writer.put(firstWritten.microseconds)
        writer.put(closed.microseconds)
        writer.put(recordBytes)
        writer.put(lastChecksum)
        writer.put(footerBytes)
        writer.put(UInt32(0))
        _ = writer.putChecksum()
    }

    /// Reads a summary; nil if it is none or damaged.
    static func decode(_ bytes: UnsafeRawBufferPointer) -> SegmentSummary? {
        guard bytes.count == size else { return nil }
        var reader = FieldReader(bytes)
        let checksum = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: size - 4, as: UInt32.self))
        guard reader.matches(ascii: "BJFS"),
            Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[..<(size - 4)])) == checksum
        else { return nil }
        let flags = FrameFlags(rawValue: reader.take())
        reader.skip(2)
        let segment = reader.take(UInt64.self)
        let footerOffset = reader.take(UInt64.self)
        let blocks = reader.take(UInt64.self)
        let firstRecord = reader.take(UInt64.self)
        let records = reader.take(UInt64.self)
        let commits = reader.take(UInt64.self)
        let first = reader.take(UInt64.self)
        let last = reader.takeCommit(isPresent: flags.contains(.hasLastCommit))
        let frontier = reader.take(UInt64.self)
        let open = reader.take(UInt64.self)
        let end = StreamState(
            lastCommit: last, frontier: frontier, openTransaction: flags.contains(.endsInside) ? open : nil,
            openChanges: reader.take(), records: firstRecord &+ records)
        return SegmentSummary(
            segment: segment, footerOffset: footerOffset, blocks: blocks, firstRecord: firstRecord, commits: commits,
            firstCommit: commits > 0 ? first : nil, end: end, firstWritten: Timestamp(microseconds: reader.take()),
            closed: Timestamp(microseconds: reader.take()), recordBytes: reader.take(), lastChecksum: reader.take(),
            footerBytes: reader.take())
    }
}

/// The last frame of a finished segment: its index and its summary.
enum SegmentFooter {
    static let fixedSize = 20 + SegmentSummary.size

    static func size(entries: Int) -> Int { fixedSize + entries * IndexEntry.size }

    static func encoded(_ entries: [IndexEntry], _ summary: SegmentSummary) -> [UInt8] {
        let size = size(entries: entries.count)
        return [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            let bytes = UnsafeMutableRawBufferPointer(buffer)
            var writer = FieldWriter(bytes)
            writer.put(littleEndian: FrameMagic.footer)
            writer.put(littleEndian: UInt32(size - 8))
            writer.put(ascii: "BJFI")
            writer.put(UInt32(entries.count))
            for entry in entries {
                var flags: FrameFlags = []
                if entry.hasRelations { flags.insert(.relations) }
                if entry.beginsInside { flags.insert(.beginsInside) }
                if entry.commitBefore != nil { flags.insert(.hasLastCommit) }
                writer.put(entry.offset)
                writer.put(entry.firstRecord)
                writer.put(entry.commitBefore ?? 0)
                writer.put(UInt32(flags.rawValue))
                writer.put(UInt32(0))
            }
            _ = writer.putChecksum()
            var closing = summary
            closing.footerBytes = UInt32(size)
            closing.encode(into: UnsafeMutableRawBufferPointer(rebasing: bytes[writer.offset...]))
            count = size
        }
    }

    /// Reads the index out of the footer's bytes before the summary; nil if it is damaged.
    static func decodeIndex(_ bytes: UnsafeRawBufferPointer) -> [IndexEntry]? {
        guard bytes.count >= 20 else { return nil }
        var reader = FieldReader(bytes)
        let magic = reader.takeLittleEndian()
        let following = reader.takeLittleEndian()
        let isIndex = reader.matches(ascii: "BJFI")
        let count = Int(reader.take(UInt32.self))
        guard magic == FrameMagic.footer, isIndex, bytes.count == 20 + count * IndexEntry.size,
            Int(following) == bytes.count + SegmentSummary.size - 8,
            Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count - 4)]))
                == UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: bytes.count - 4, as: UInt32.self))
        else { return nil }
        var entries: [IndexEntry] = []
        entries.reserveCapacity(count)
        for _ in 0..<count {
            let offset = reader.take(UInt64.self)
            let firstRecord = reader.take(UInt64.self)
            let before = reader.take(UInt64.self)
            let flags = FrameFlags(rawValue: UInt16(truncatingIfNeeded: reader.take(UInt32.self)))
            reader.skip(4)
            entries.append(
                IndexEntry(
                    offset: offset, firstRecord: firstRecord,
                    commitBefore: flags.contains(.hasLastCommit) ? before : nil,
                    hasRelations: flags.contains(.relations), beginsInside: flags.contains(.beginsInside)))
        }
        return entries
    }
}

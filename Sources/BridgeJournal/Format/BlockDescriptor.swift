import BridgeCore

/// The skippable frame before each block's LZ4 frame.
struct BlockDescriptor: Hashable, Sendable {
    static let size = 160

    var flags: FrameFlags
    var segment: UInt64
    /// Of this descriptor in the segment.
    var offset: UInt64
    var frameBytes: UInt64
    var recordBytes: UInt64
    var firstRecord: UInt64
    var records: UInt32
    var commits: UInt32
    /// The position of the first commit record in the block.
    var firstCommit: UInt64?
    /// Behind the block's last record.
    var end: StreamState
    var written: Timestamp
    /// Bytes of the segment that were durable when the block was written.
    var durableBytes: UInt64
    var predecessor: UInt32
    var frameChecksum: UInt32

    /// The offset behind the block.
    var nextOffset: UInt64 { offset + UInt64(Self.size) + frameBytes }

    /// Writes the descriptor into its 160 bytes; returns the block's checksum.
    func encode(into bytes: UnsafeMutableRawBufferPointer) -> UInt32 {
        var writer = FieldWriter(bytes)
        writer.put(littleEndian: FrameMagic.descriptor)
        writer.put(littleEndian: UInt32(Self.size - 8))
        writer.put(ascii: "BJBK")
        writer.put(UInt16(Self.size))
        writer.put(flags.rawValue)
        writer.put(segment)
        writer.put(offset)
        writer.put(frameBytes)
        writer.put(recordBytes)
        writer.put(firstRecord)
        writer.put(records)
        writer.put(commits)
        writer.put(firstCommit ?? 0)
        writer.put(end.lastCommit)
        writer.put(end.frontier)
        writer.put(end.openTransaction ?? 0)
        writer.put(written.microseconds)
        writer.put(durableBytes)
        writer.put(predecessor)
        writer.put(frameChecksum)
        writer.put(end.openChanges)
        writer.put(UInt32(0))
        return writer.putChecksum()
    }

    /// Reads a descriptor and its checksum; nil unless all of it is as it was written. `bytes` may be longer.
    static func decode(_ bytes: UnsafeRawBufferPointer) -> (descriptor: BlockDescriptor, checksum: UInt32)? {
        guard bytes.count >= size else { return nil }
        var reader = FieldReader(bytes)
        let magic = reader.takeLittleEndian()
        let following = reader.takeLittleEndian()
        guard magic == FrameMagic.descriptor, following == UInt32(size - 8), reader.matches(ascii: "BJBK") else {
            return nil
        }
        let checksum = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: size - 4, as: UInt32.self))
        guard Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[..<(size - 4)])) == checksum,
            reader.take(UInt16.self) == UInt16(size)
        else { return nil }
        return (BlockDescriptor(fields: &reader), checksum)
    }

    private init(fields reader: inout FieldReader) {
        flags = FrameFlags(rawValue: reader.take())
        segment = reader.take()
        offset = reader.take()
        frameBytes = reader.take()
        recordBytes = reader.take()
        firstRecord = reader.take()
        records = reader.take()
        commits = reader.take()
        let first = reader.take(UInt64.self)
        firstCommit = commits > 0 ? first : nil
        let last = reader.takeCommit(isPresent: flags.contains(.hasLastCommit))
        let frontier = reader.take(UInt64.self)
        let open = reader.take(UInt64.self)
        written = Timestamp(microseconds: reader.take())
        durableBytes = reader.take()
        predecessor = reader.take()
        frameChecksum = reader.take()
        end = StreamState(
            lastCommit: last, frontier: frontier, openTransaction: flags.contains(.endsInside) ? open : nil,
            openChanges: reader.take(), records: firstRecord &+ UInt64(records))
    }

    init(
        flags: FrameFlags, segment: UInt64, offset: UInt64, frameBytes: UInt64, recordBytes: UInt64,
        firstRecord: UInt64, records: UInt32, commits: UInt32, firstCommit: UInt64?, end: StreamState,
        written: Timestamp, durableBytes: UInt64, predecessor: UInt32, frameChecksum: UInt32
    ) {
        self.flags = flags
        self.segment = segment
        self.offset = offset
        self.frameBytes = frameBytes
        self.recordBytes = recordBytes
        self.firstRecord = firstRecord
        self.records = records
        self.commits = commits
        self.firstCommit = firstCommit
        self.end = end
        self.written = written
        self.durableBytes = durableBytes
        self.predecessor = predecessor
        self.frameChecksum = frameChecksum
    }
}

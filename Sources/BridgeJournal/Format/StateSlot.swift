/// One slot of the state file: what is known to be durable, and what must be there.
struct StateSlot: Hashable, Sendable {
    static let size = 64
    static let spacing = 512
    static let fileSize = 1024

    var sequence: UInt64 = 0
    /// The first segment that must be there.
    var firstSegment: UInt64
    var durableSegment: UInt64
    var durableOffset: UInt64
    var durableRecords: UInt64
    /// A sync of the last segment failed.
    var isDistrusted = false

    var fileOffset: UInt64 { sequence % 2 * UInt64(Self.spacing) }

    func encoded() -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Self.size) { buffer, count in
            var writer = FieldWriter(UnsafeMutableRawBufferPointer(buffer))
            writer.put(ascii: "BRIDGEJS")
            writer.put(SegmentHeader.formatVersion)
            writer.put(isDistrusted ? UInt16(1) : 0)
            writer.put(UInt32(0))
            writer.put(sequence)
            writer.put(firstSegment)
            writer.put(durableSegment)
            writer.put(durableOffset)
            writer.put(durableRecords)
            writer.put(UInt32(0))
            _ = writer.putChecksum()
            count = writer.offset
        }
    }

    /// Reads one slot; nil if it is empty or torn.
    static func decode(_ bytes: UnsafeRawBufferPointer) -> StateSlot? {
        guard bytes.count >= size else { return nil }
        var reader = FieldReader(bytes)
        let checksum = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: size - 4, as: UInt32.self))
        guard reader.matches(ascii: "BRIDGEJS"), reader.take(UInt16.self) == SegmentHeader.formatVersion,
            Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[..<(size - 4)])) == checksum
        else { return nil }
        let flags = reader.take(UInt16.self)
        reader.skip(4)
        return StateSlot(
            sequence: reader.take(), firstSegment: reader.take(), durableSegment: reader.take(),
            durableOffset: reader.take(), durableRecords: reader.take(), isDistrusted: flags & 1 != 0)
    }

    /// The valid slot with the higher sequence number in a whole state file; nil if neither is valid.
    static func newest(inFile bytes: UnsafeRawBufferPointer) -> StateSlot? {
        let slots = [0, spacing].compactMap { start -> StateSlot? in
            guard bytes.count >= start + size else { return nil }
            return decode(UnsafeRawBufferPointer(rebasing: bytes[start..<start + size]))
        }
        return slots.max { $0.sequence < $1.sequence }
    }
}

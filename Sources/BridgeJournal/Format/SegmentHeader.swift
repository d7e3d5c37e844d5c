import BridgeCore

/// The first frame of a segment.
struct SegmentHeader: Hashable, Sendable {
    static let fixedSize = 136
    static let formatVersion: UInt16 = 1
    /// More than any binding needs; a size beyond it is damage.
    static let largestSize = 1 << 20

    var number: UInt64
    var created: Timestamp
    var binding: JournalBinding
    var start: StreamState
    /// The checksum of the predecessor's last block; nil for the first segment.
    var predecessor: UInt32?

    /// The frame's bytes, and its checksum.
    func encoded() -> (bytes: [UInt8], checksum: UInt32) {
        let link = Array(binding.link.utf8.prefix(Int(UInt16.max)))
        let identity = Array(binding.identity.utf8)
        let size = Self.fixedSize + link.count + identity.count + 4
        var flags: FrameFlags = []
        if start.lastCommit != nil { flags.insert(.hasLastCommit) }
        if start.openTransaction != nil { flags.insert(.beginsInside) }
        if predecessor != nil { flags.insert(.hasPredecessor) }
        var checksum: UInt32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            var writer = FieldWriter(UnsafeMutableRawBufferPointer(buffer))
            writer.put(littleEndian: FrameMagic.header)
            writer.put(littleEndian: UInt32(size - 8))
            writer.put(ascii: "BRIDGEJL")
            writer.put(Self.formatVersion)
            writer.put(flags.rawValue)
            writer.put(UInt32(size))
            writer.put(number)
            writer.put(created.microseconds)
            writer.put(start.records)
            writer.put(predecessor ?? 0)
            writer.put(UInt32(0))
            writer.put(start.lastCommit)
            writer.put(start.frontier)
            writer.put(start.openTransaction ?? 0)
            writer.put(start.openChanges)
            writer.put(binding.origin.commit)
            writer.put(binding.origin.ordinal)
            writer.put(binding.direction == .forward ? UInt8(0) : 1)
            writer.put(UInt8(0))
            writer.put(UInt16(link.count))
            writer.put(UInt32(identity.count))
            link.withUnsafeBytes { writer.put($0) }
            identity.withUnsafeBytes { writer.put($0) }
            checksum = writer.putChecksum()
            count = writer.offset
        }
        return (bytes, checksum)
    }

    /// How many bytes the header has in all, going by its first 24; nil if they cannot be a header's. This much is the
    /// same in every format version.
    static func size(_ bytes: UnsafeRawBufferPointer) -> Int? {
        guard bytes.count >= 24 else { return nil }
        var reader = FieldReader(bytes)
        let magic = reader.takeLittleEndian()
        let following = reader.takeLittleEndian()
        guard magic == FrameMagic.header, reader.matches(ascii: "BRIDGEJL") else { return nil }
        reader.skip(4)
        let size = Int(reader.take(UInt32.self))
        guard Int(following) == size - 8, size >= 28, size <= largestSize else { return nil }
        return size
    }

    /// Reads a whole header, whose size ``size(_:)`` has told; nil if it is damaged.
    /// - Throws: `journalVersion` for an undamaged header of a version that is not known here.
    static func decode(_ bytes: UnsafeRawBufferPointer, file: String) throws(BridgeError) -> SegmentHeader? {
        let size = bytes.count
        guard size >= 28,
            Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[..<(size - 4)]))
                == UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: size - 4, as: UInt32.self))
        else { return nil }
        var reader = FieldReader(bytes, offset: 16)
        let version = reader.take(UInt16.self)
        guard version == formatVersion else {
            throw BridgeError(
                .journalVersion, "the journal has format version \(version), which is not known here",
                context: [.init(.file, file)])
        }
        guard size >= fixedSize + 4 else { return nil }
        return SegmentHeader(checked: bytes)
    }
}

extension SegmentHeader {
    /// Reads the fields of a header whose checksum is right.
    private init?(checked bytes: UnsafeRawBufferPointer) {
        let size = bytes.count
        var reader = FieldReader(bytes, offset: 18)
        let flags = FrameFlags(rawValue: reader.take())
        reader.skip(4)
        number = reader.take()
        created = Timestamp(microseconds: reader.take())
        let records = reader.take(UInt64.self)
        let predecessor = reader.take(UInt32.self)
        reader.skip(4)
        let lastCommit = reader.takeCommit(isPresent: flags.contains(.hasLastCommit))
        let frontier = reader.take(UInt64.self)
        let open = reader.take(UInt64.self)
        let changes = reader.take(UInt64.self)
        let origin = Position(commit: reader.take(), ordinal: reader.take())
        let direction: LinkDescription.Direction = reader.take(UInt8.self) == 0 ? .forward : .reverse
        reader.skip(1)
        let linkCount = Int(reader.take(UInt16.self))
        let identityCount = Int(reader.take(UInt32.self))
        guard Self.fixedSize + linkCount + identityCount + 4 == size else { return nil }
        let names = Self.fixedSize
        let link = String(decoding: bytes[names..<names + linkCount], as: UTF8.self)
        let identity = String(
            decoding: bytes[(names + linkCount)..<(names + linkCount + identityCount)], as: UTF8.self)
        binding = JournalBinding(link: link, direction: direction, identity: identity, origin: origin)
        self.predecessor = flags.contains(.hasPredecessor) ? predecessor : nil
        start = StreamState(
            lastCommit: lastCommit, frontier: frontier,
            openTransaction: flags.contains(.beginsInside) ? open : nil, openChanges: changes, records: records)
    }
}

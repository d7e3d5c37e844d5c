import BridgeCore

/// The walk through a segment that has no footer yet: where its valid blocks end, and whether what follows is a torn
/// tail or damage.
struct TailScan {
    var entry: SegmentEntry
    var tornAt: UInt64?

    /// - Parameter entry: as the header gives it.
    /// - Throws: `journalDamaged` unless a crash explains the end of the file.
    static func walk(_ file: SegmentFile, _ entry: SegmentEntry, state: StateSlot?) throws(BridgeError) -> TailScan {
        let size = try file.size()
        let durable = state.map { $0.durableSegment == entry.number ? $0.durableOffset : 0 } ?? 0
        var scan = TailScan(entry: entry)
        while scan.entry.dataEnd < size, !scan.entry.isClosed {
            guard try scan.takeBlock(file, size, durable) else {
                scan.tornAt = scan.entry.dataEnd
                break
            }
        }
        return scan
    }

    /// Takes in the next block or the footer; false where the torn tail begins.
    private mutating func takeBlock(_ file: SegmentFile, _ size: UInt64, _ durable: UInt64) throws(BridgeError) -> Bool
    {
        let offset = entry.dataEnd
        guard let (block, checksum) = try file.descriptor(at: offset, segment: entry.number, limit: size) else {
            // A writer in another process may have finished the segment meanwhile.
            if let summary = try file.summary(entry), summary.footerOffset == offset, summary.end == entry.end,
                try file.index(from: offset, to: offset + UInt64(summary.footerBytes)) != nil
            {
                entry.close(summary)
                return true
            }
            try judge(
                file, offset, size, durable, endsEarly: try isCutOff(file, offset, size), end: size,
                "a block's descriptor is not what was written")
            return false
        }
        guard block.predecessor == entry.lastChecksum, block.firstRecord == entry.end.records else {
            throw .damaged(file.path, offset, "a block does not follow the one before it")
        }
        guard let frame = try file.frame(of: block, limit: size) else {
            try judge(file, offset, size, durable, endsEarly: true, end: size, "a block is cut off")
            return false
        }
        guard Checksum.of(frame) == block.frameChecksum else {
            try judge(
                file, offset, size, durable, endsEarly: false, end: block.nextOffset,
                "a block's data is not what was written")
            return false
        }
        entry.add(block, checksum: checksum)
        return true
    }

    /// Whether the file ends before a descriptor does, or before the footer does that begins here.
    private func isCutOff(_ file: SegmentFile, _ offset: UInt64, _ size: UInt64) throws(BridgeError) -> Bool {
        guard size - offset >= UInt64(BlockDescriptor.size) else { return true }
        var reader = FieldReader(try file.bytes(at: offset, 12, limit: size))
        let magic = reader.takeLittleEndian()
        let following = reader.takeLittleEndian()
        return magic == FrameMagic.footer && reader.matches(ascii: "BJFI") && UInt64(following) + 8 > size - offset
    }

    /// Returns if the bytes from `offset` on are a torn tail, by the format's rule 4 of recovery.
    private func judge(
        _ file: SegmentFile, _ offset: UInt64, _ size: UInt64, _ durable: UInt64, endsEarly: Bool, end: UInt64,
        _ what: String
    ) throws(BridgeError) {
        let known = max(durable, try Self.durableByLaterBlocks(file, entry.number, from: offset + 1, size))
        guard known <= offset else { throw .damaged(file.path, offset, what) }
        if endsEarly { return }
        guard try Self.hasUnwrittenSector(file, offset, end) else { throw .damaged(file.path, offset, what) }
    }

    /// The most that any valid descriptor behind `start` says was durable.
    private static func durableByLaterBlocks(
        _ file: SegmentFile, _ segment: UInt64, from start: UInt64, _ size: UInt64
    ) throws(BridgeError) -> UInt64 {
        var known: UInt64 = 0
        var offset = start
        let magic = withUnsafeBytes(of: FrameMagic.descriptor.littleEndian) { Array($0) }
        while offset + UInt64(BlockDescriptor.size) <= size {
            let bytes = try file.bytes(at: offset, SegmentFile.readAhead, limit: size)
            guard bytes.count >= BlockDescriptor.size else { break }
            let starts = bytes.count - BlockDescriptor.size + 1
            for index in 0..<starts where bytes[index] == magic[0] && bytes[index + 1] == magic[1] {
                guard
                    let (block, _) = BlockDescriptor.decode(UnsafeRawBufferPointer(rebasing: bytes[index...])),
                    block.segment == segment, block.offset == offset + UInt64(index)
                else { continue }
                known = max(known, block.durableBytes)
            }
            offset += UInt64(starts)
        }
        return known
    }

    /// Whether some sector's share of the bytes is all zeros: a sector that was not written.
    private static func hasUnwrittenSector(
        _ file: SegmentFile, _ start: UInt64, _ end: UInt64
    ) throws(BridgeError) -> Bool {
        var offset = start
        while offset < end {
            let next = min(end, (offset / 512 + 1) * 512)
            let share = try file.bytes(at: offset, Int(next - offset), limit: end)
            guard !share.isEmpty else { return false }
            if share.allSatisfy({ $0 == 0 }) { return true }
            offset = next
        }
        return false
    }
}

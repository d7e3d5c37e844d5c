import BridgeCore

/// Finds the relations that are known at some place in a segment. Only blocks that hold relation records are decoded,
/// and whole stretches without any are not even looked at.
enum RelationSearch {
    /// The relations known before the block at `end`.
    /// - Parameter entry: with its index.
    static func relations(
        _ file: SegmentFile, _ entry: SegmentEntry, before end: UInt64, _ decompressor: borrowing FrameDecompressor
    ) throws(BridgeError) -> RelationTable {
        var table = RelationTable()
        let records = RecordBuffer()
        for (number, stretch) in entry.index.enumerated() where stretch.hasRelations && stretch.offset < end {
            let next = number + 1 < entry.index.count ? entry.index[number + 1].offset : entry.dataEnd
            var offset = stretch.offset
            while offset < min(next, end) {
                let block = try file.soundDescriptor(at: offset, entry)
                if block.flags.contains(.relations) {
                    records.removeAll()
                    try file.decode(block, limit: entry.dataEnd, decompressor, into: records)
                    try table.insertAll(in: records.bytes)
                }
                offset = block.nextOffset
            }
        }
        return table
    }
}

extension SegmentFile {
    /// The descriptor at `offset`, read alone, without the data behind it.
    /// - Throws: `journalDamaged`.
    func soundDescriptor(at offset: UInt64, _ entry: SegmentEntry) throws(BridgeError) -> BlockDescriptor {
        guard
            let (block, _) = try descriptor(
                at: offset, segment: entry.number, limit: entry.dataEnd, ahead: BlockDescriptor.size)
        else { throw .damaged(path, offset, "a block's descriptor is not what was written") }
        return block
    }

    /// Appends a block's records to `buffer`.
    /// - Throws: `journalDamaged`, with nothing appended.
    func decode(
        _ block: BlockDescriptor, limit: UInt64, _ decompressor: borrowing FrameDecompressor, into buffer: RecordBuffer
    ) throws(BridgeError) {
        guard let frame = try frame(of: block, limit: limit) else {
            throw .damaged(path, block.offset, "a block is cut off")
        }
        guard Checksum.of(frame) == block.frameChecksum else {
            throw .damaged(path, block.offset, "a block's data is not what was written")
        }
        guard let count = Int(exactly: block.recordBytes),
            decompressor.decompress(frame, count: count, into: buffer)
        else { throw .damaged(path, block.offset, "a block's data cannot be decompressed") }
    }
}

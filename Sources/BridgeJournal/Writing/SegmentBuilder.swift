import BridgeCore

/// Makes segments: a segment gets its name only when header and repeated relations are durable.
struct SegmentBuilder {
    let directory: JournalDirectory
    let binding: JournalBinding
    let blockBytes: Int

    /// Makes a segment that follows `state`, durable with its directory entry when this returns.
    /// - Parameters:
    ///   - predecessor: the checksum of the last block before it; nil for the first segment.
    ///   - relations: what the segment repeats.
    func make(
        _ number: UInt64, after state: StreamState, predecessor: UInt32?, relations: RelationTable,
        compressor: borrowing FrameCompressor
    ) throws(BridgeError) -> (entry: SegmentEntry, file: OpenFile) {
        let files = directory.files
        let unfinished = directory.path(of: JournalFileName.unfinished(number))
        let path = directory.path(of: JournalFileName.segment(number))
        let header = SegmentHeader(
            number: number, created: .now, binding: binding, start: state, predecessor: predecessor)
        let (bytes, checksum) = header.encoded()
        let file = try files.create(unfinished)
        try bytes.withBytes { bytes throws(BridgeError) in try files.write(bytes, to: file, at: 0) }
        var entry = SegmentEntry(
            header: header, path: path, headerBytes: UInt64(bytes.count), headerChecksum: checksum)
        try repeatRelations(relations, in: &entry, file, compressor)
        try files.synchronize(file)
        try files.rename(unfinished, to: path)
        try Failpoint.journalNewSegment.hit()
        try files.synchronizeDirectory(directory.path)
        // Under its final name, so that errors name what a person finds.
        return (entry, try files.open(path, forWriting: true))
    }

    private func repeatRelations(
        _ relations: RelationTable, in entry: inout SegmentEntry, _ file: OpenFile,
        _ compressor: borrowing FrameCompressor
    ) throws(BridgeError) {
        guard !relations.isEmpty else { return }
        let records = RecordBuffer()
        relations.appendAll(to: records)
        let plans = try RecordScanner.plan(
            records.bytes, state: entry.start, known: RelationTable(), blockBytes: blockBytes)
        let output = RecordBuffer()
        for plan in plans {
            let (block, checksum) = try BlockEncoder.encode(
                plan, of: records.bytes, after: entry, extraFlags: .repeats, durableBytes: 0, compressor, into: output)
            try directory.files.write(output.bytes, to: file, at: block.offset)
            entry.add(block, checksum: checksum)
        }
    }
}

/// Makes the bytes of a block.
enum BlockEncoder {
    /// Replaces what `output` holds by descriptor and frame of the planned block, which follows `entry`.
    static func encode(
        _ plan: BlockPlan, of records: UnsafeRawBufferPointer, after entry: SegmentEntry, extraFlags: FrameFlags = [],
        durableBytes: UInt64, _ compressor: borrowing FrameCompressor, into output: RecordBuffer
    ) throws(BridgeError) -> (block: BlockDescriptor, checksum: UInt32) {
        try encode(
            plan, of: records, segment: entry.number, offset: entry.dataEnd, predecessor: entry.lastChecksum,
            extraFlags: extraFlags, durableBytes: durableBytes, compressor, into: output)
    }

    static func encode(
        _ plan: BlockPlan, of records: UnsafeRawBufferPointer, segment: UInt64, offset: UInt64, predecessor: UInt32,
        extraFlags: FrameFlags = [], durableBytes: UInt64, _ compressor: borrowing FrameCompressor,
        into output: RecordBuffer
    ) throws(BridgeError) -> (block: BlockDescriptor, checksum: UInt32) {
        let input = UnsafeRawBufferPointer(rebasing: records[plan.bytes])
        var block = BlockDescriptor(
            flags: plan.flags.union(extraFlags), segment: segment, offset: offset, frameBytes: 0,
            recordBytes: UInt64(input.count), firstRecord: plan.firstRecord, records: plan.records,
            commits: plan.commits, firstCommit: plan.firstCommit, end: plan.end, written: .now,
            durableBytes: durableBytes, predecessor: predecessor, frameChecksum: 0)
        var checksum: UInt32 = 0
        output.removeAll()
        try output.appendUninitialized(BlockDescriptor.size + FrameCompressor.bound(input.count)) {
            room throws(BridgeError) in
            let frame = UnsafeMutableRawBufferPointer(rebasing: room[BlockDescriptor.size...])
            let size = try compressor.compress(input, into: frame)
            block.frameBytes = UInt64(size)
            block.frameChecksum = Checksum.of(UnsafeRawBufferPointer(rebasing: frame[..<size]))
            checksum = block.encode(into: room)
            return BlockDescriptor.size + size
        }
        return (block, checksum)
    }
}

import BridgeCore

/// Where a reader begins, found by binary search over segments and index entries and a short walk over descriptors.
///
/// A reader that wants everything behind position P begins right behind the last commit record at or before P. Commit
/// positions rise strictly, so there is one such place; what follows it is neither committed at or before P nor cut.
struct ReadingStart: Sendable {
    var segment: UInt64
    var offset: UInt64
    /// The checksum of the block before.
    var predecessor: UInt32
    var firstRecord: UInt64
    /// Bytes of records in the first block that come before the place.
    var skippedBytes: Int
    var relations: [UInt32: Relation]

    /// - Parameters:
    ///   - position: nil for everything that the journal still has, even a transaction whose beginning retention
    ///     removed.
    ///   - segments: at least one.
    /// - Throws: `journalMissing` if transactions behind `position` were removed; `journalDamaged`.
    static func find(
        after position: Position?, in segments: [SegmentEntry], files: any JournalFiles
    ) throws(BridgeError) -> ReadingStart {
        guard let oldest = segments.first else { throw BridgeError(.journalMissing, "there is no journal") }
        guard let position else { return try atStart(of: oldest, files) }
        if let removed = oldest.start.lastPosition, removed > position.commit {
            throw BridgeError(
                .journalMissing, "the journal no longer holds what follows the position",
                context: [.init(.position, position.storedForm), .init(.file, oldest.path)])
        }
        var index = lastIndex(segments) { $0.start.lastPosition.map { $0 <= position.commit } ?? true }
        // The commit at or before the position stands in that segment or in an earlier one. Only if the segment begins
        // inside a transaction does it matter which: that transaction began back there.
        while !(segments[index].firstCommit.map { $0 <= position.commit } ?? false) {
            guard segments[index].start.openTransaction != nil else { return try atStart(of: segments[index], files) }
            guard index > 0 else {
                throw BridgeError(
                    .journalMissing, "the journal no longer holds the beginning of what follows the position",
                    context: [.init(.position, position.storedForm), .init(.file, oldest.path)])
            }
            index -= 1
        }
        return try within(segments[index], after: position.commit, files)
    }

    /// The last element for which `holds` is true, which it is for a run from the first element on.
    private static func lastIndex<Element>(_ elements: [Element], _ holds: (Element) -> Bool) -> Int {
        var low = 0
        var high = elements.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if holds(elements[middle]) { low = middle } else { high = middle }
        }
        return low
    }

    /// Behind the relations that the segment repeats.
    private static func atStart(
        of entry: SegmentEntry, _ files: any JournalFiles
    ) throws(BridgeError) -> ReadingStart {
        let file = try SegmentFile(entry.path, files: files)
        let decompressor = try FrameDecompressor()
        let records = RecordBuffer()
        var table = RelationTable()
        var start = ReadingStart(
            segment: entry.number, offset: entry.headerBytes, predecessor: entry.headerChecksum,
            firstRecord: entry.start.records, skippedBytes: 0, relations: [:])
        while start.offset < entry.dataEnd {
            let block = try file.block(
                at: start.offset, segment: entry.number, limit: entry.dataEnd, predecessor: start.predecessor,
                firstRecord: start.firstRecord)
            guard block.descriptor.flags.contains(.repeats) else { break }
            records.removeAll()
            try file.decode(block.descriptor, limit: entry.dataEnd, decompressor, into: records)
            try table.insertAll(in: records.bytes)
            start.offset = block.descriptor.nextOffset
            start.predecessor = block.checksum
            start.firstRecord = block.descriptor.end.records
        }
        start.relations = try table.relations()
        return start
    }

    /// The place in a segment that has a commit at or before `position`.
    private static func within(
        _ segment: SegmentEntry, after position: UInt64, _ files: any JournalFiles
    ) throws(BridgeError) -> ReadingStart {
        var entry = segment
        let file = try SegmentFile(entry.path, files: files)
        try file.readIndex(&entry)
        let block = try lastBlock(withCommitAtOrBefore: position, file, entry)
        let decompressor = try FrameDecompressor()
        let records = RecordBuffer()
        try file.decode(block, limit: entry.dataEnd, decompressor, into: records)
        var table = try RelationSearch.relations(file, entry, before: block.offset, decompressor)
        var skipped = 0
        var cursor = RecordCursor(records.bytes)
        while let record = try cursor.next() {
            guard record.kind == .commit else { continue }
            guard try record.transactionEnd().position.commit <= position else { break }
            skipped = record.offset + record.size
        }
        try table.insertAll(in: UnsafeRawBufferPointer(rebasing: records.bytes[..<skipped]))
        return ReadingStart(
            segment: entry.number, offset: block.offset, predecessor: block.predecessor,
            firstRecord: block.firstRecord, skippedBytes: skipped, relations: try table.relations())
    }

    private static func lastBlock(
        withCommitAtOrBefore position: UInt64, _ file: SegmentFile, _ entry: SegmentEntry
    ) throws(BridgeError) -> BlockDescriptor {
        guard !entry.index.isEmpty else {
            throw .damaged(file.path, entry.dataEnd, "the segment's index does not fit its data")
        }
        var start = lastIndex(entry.index) { $0.commitBefore.map { $0 <= position } ?? true }
        // If no block from there on has such a commit, it stands in an earlier stretch: the one before the first with
        // the same commit before it.
        let before = entry.index[start].commitBefore
        while start > 0, entry.index[start].commitBefore == before { start -= 1 }
        var found: BlockDescriptor?
        var offset = entry.index[start].offset
        while offset < entry.dataEnd {
            let block = try file.soundDescriptor(at: offset, entry)
            if let first = block.firstCommit {
                if first > position { break }
                found = block
            }
            offset = block.nextOffset
        }
        guard let found else { throw .damaged(file.path, offset, "the segment's index does not fit its data") }
        return found
    }
}

import BridgeCore

/// What is known of one segment without reading its data.
struct SegmentEntry: Sendable {
    let header: SegmentHeader
    let path: String
    let headerBytes: UInt64
    let headerChecksum: UInt32

    /// Where the blocks end: nothing behind it is read.
    var dataEnd: UInt64
    var fileBytes: UInt64
    var isClosed = false
    var blocks: UInt64 = 0
    var commits: UInt64 = 0
    var firstCommit: UInt64?
    var end: StreamState
    var lastChecksum: UInt32
    var firstWritten: Timestamp
    var lastWritten: Timestamp
    var recordBytes: UInt64 = 0
    var index: [IndexEntry] = []
    /// False for a finished segment whose index was not needed yet.
    var isIndexRead = true

    var number: UInt64 { header.number }
    var start: StreamState { header.start }

    /// A segment that has its header and no blocks yet.
    init(header: SegmentHeader, path: String, headerBytes: UInt64, headerChecksum: UInt32) {
        self.header = header
        self.path = path
        self.headerBytes = headerBytes
        self.headerChecksum = headerChecksum
        dataEnd = headerBytes
        fileBytes = headerBytes
        end = header.start
        lastChecksum = headerChecksum
        firstWritten = header.created
        lastWritten = header.created
    }

    /// Takes in the next block.
    mutating func add(_ block: BlockDescriptor, checksum: UInt32) {
        if blocks == 0 { firstWritten = block.written }
        blocks += 1
        commits += UInt64(block.commits)
        if firstCommit == nil { firstCommit = block.firstCommit }
        extendIndex(block)
        end = block.end
        lastChecksum = checksum
        lastWritten = block.written
        recordBytes += block.recordBytes
        dataEnd = block.nextOffset
        fileBytes = dataEnd
    }

    private mutating func extendIndex(_ block: BlockDescriptor) {
        let hasRelations = block.flags.contains(.relations)
        if let last = index.last, block.offset - last.offset < IndexEntry.stretchBytes {
            if hasRelations { index[index.count - 1].hasRelations = true }
        } else {
            index.append(
                IndexEntry(
                    offset: block.offset, firstRecord: block.firstRecord, commitBefore: end.lastPosition,
                    hasRelations: hasRelations, beginsInside: block.flags.contains(.beginsInside)))
        }
    }

    /// Takes over what a finished segment says of itself.
    mutating func close(_ summary: SegmentSummary) {
        dataEnd = summary.footerOffset
        fileBytes = summary.footerOffset + UInt64(summary.footerBytes)
        isClosed = true
        blocks = summary.blocks
        commits = summary.commits
        firstCommit = summary.firstCommit
        end = summary.end
        lastChecksum = summary.lastChecksum
        firstWritten = summary.firstWritten
        lastWritten = summary.closed
        recordBytes = summary.recordBytes
    }

    /// The summary that closes the segment.
    func summary(closed: Timestamp) -> SegmentSummary {
        SegmentSummary(
            segment: number, footerOffset: dataEnd, blocks: blocks, firstRecord: start.records, commits: commits,
            firstCommit: firstCommit, end: end, firstWritten: firstWritten, closed: closed, recordBytes: recordBytes,
            lastChecksum: lastChecksum,
            footerBytes: UInt32(clamping: SegmentFooter.size(entries: index.count)))
    }
}

extension JournalEnd {
    init(_ state: StreamState, origin: Position, segment: UInt64, offset: UInt64) {
        self.init(
            lastCommit: state.lastCommit, frontier: max(origin, Position(commit: state.frontier)),
            isInsideTransaction: state.openTransaction != nil, records: state.records, segment: segment,
            offset: offset)
    }
}

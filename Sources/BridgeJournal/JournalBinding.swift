package import BridgeCore

/// What a journal was captured from. It stands in the header of every segment; a journal whose binding is another one
/// is refused with `journalForeign` and never started over.
package struct JournalBinding: Hashable, Sendable {
    /// ``LinkDescription/name``.
    package var link: String
    package var direction: LinkDescription.Direction
    /// ``CaptureOrigin/identityText``.
    package var identity: String
    /// Transactions at or after it are in the journal.
    package var origin: Position

    package init(link: String, direction: LinkDescription.Direction, identity: String, origin: Position) {
        self.link = link
        self.direction = direction
        self.identity = identity
        self.origin = origin
    }
}

/// How a journal is written.
package struct JournalOptions: Sendable {
    /// A segment that has this many bytes is closed and the next one begun, at the end of a block.
    package var segmentBytes: Int64
    /// Record bytes that one block holds at most; a longer record has a block of its own.
    package var blockBytes: Int
    /// Bytes on disk from which on ``JournalWriter/write(_:)`` refuses; nil for no limit. One write may overshoot it.
    package var budgetBytes: Int64?

    package init(segmentBytes: Int64 = 64 << 20, blockBytes: Int = 512 << 10, budgetBytes: Int64? = nil) {
        self.segmentBytes = max(segmentBytes, 4096)
        self.blockBytes = max(blockBytes, 256)
        self.budgetBytes = budgetBytes
    }

    /// With segments of at most a quarter of the budget, so that some can go while others are still needed.
    var withinBudget: JournalOptions {
        guard let budgetBytes else { return self }
        var options = self
        options.segmentBytes = min(segmentBytes, max(budgetBytes / 4, 1 << 20))
        return options
    }
}

/// Where a journal ends.
package struct JournalEnd: Hashable, Sendable {
    /// The last whole transaction in the journal, kept or already removed by retention.
    package var lastCommit: TransactionEnd?
    /// Everything committed on the source before it is in the journal: the furthest of the last commit's end, the last
    /// frontier record and the origin.
    package var frontier: Position
    package var isInsideTransaction: Bool
    /// The number behind the last record's. Records that a segment repeats at its start count too.
    package var records: UInt64
    package var segment: UInt64
    /// Bytes of that segment.
    package var offset: UInt64

    package init(
        lastCommit: TransactionEnd?, frontier: Position, isInsideTransaction: Bool, records: UInt64, segment: UInt64,
        offset: UInt64
    ) {
        self.lastCommit = lastCommit
        self.frontier = frontier
        self.isInsideTransaction = isInsideTransaction
        self.records = records
        self.segment = segment
        self.offset = offset
    }
}

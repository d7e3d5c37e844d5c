/// Tells where in the source's order the changes of a batch stand.
///
/// A change is named by its transaction's commit and its place among the rows and truncates that the journal holds of that
/// transaction. A batch may begin inside a transaction, and may leave changes out, so this says what the records cannot.
/// Only asked when something is to be told of one change; it then goes through the batch from its start.
package struct ChangePlaces: Hashable, Sendable {
    /// Behind changes that were left out: the next one at or behind `offset` has this ordinal.
    package struct Jump: Hashable, Sendable {
        package var offset: Int
        package var ordinal: UInt64

        package init(offset: Int, ordinal: UInt64) {
            self.offset = offset
            self.ordinal = ordinal
        }
    }

    /// The transaction that the batch begins in, and the ordinal of its first change; nil if it begins between two.
    package var opening: TransactionStart?
    package var ordinal: UInt64 = 0
    /// By offset.
    package var jumps: [Jump] = []

    package init() {}
}

/// Finds places of changes in a batch. Asked in the order of the batch it goes through it once.
package struct ChangeLocator {
    private let places: ChangePlaces
    private let fallback: Position
    private var transaction: Position
    private var commitTime: Timestamp
    private var next: UInt64
    private var jump = 0
    /// Everything before it has been counted.
    private var reached = 0

    /// - Parameter fallback: the transaction that a batch begins in that does not say so.
    package init(_ places: ChangePlaces, fallback: Position = .zero) {
        self.places = places
        self.fallback = fallback
        transaction = places.opening?.position ?? fallback
        commitTime = places.opening?.commitTime ?? Timestamp(microseconds: 0)
        next = places.ordinal
    }

    /// Where the change stands whose record holds the byte at an offset, and when its transaction committed.
    package mutating func change(
        at offset: Int, in records: UnsafeRawBufferPointer
    ) -> (position: Position, commitTime: Timestamp) {
        if offset < reached { self = ChangeLocator(places, fallback: fallback) }
        var cursor = RecordCursor(records, offset: reached)
        while let record = try? cursor.next(), record.offset <= offset {
            let ordinal: UInt64
            switch record.kind {
            case .begin:
                if let start = try? record.transactionStart() {
                    (transaction, commitTime, next) = (start.position, start.commitTime, 0)
                }
                reached = cursor.offset
                continue
            case .insert, .update, .delete, .upsert, .remove, .truncate:
                let isJump = jump < places.jumps.count && places.jumps[jump].offset <= record.offset
                ordinal = isJump ? places.jumps[jump].ordinal : next
                if offset < cursor.offset {
                    // Not counted yet: it may be asked for again.
                    return (Position(commit: transaction.commit, ordinal: ordinal), commitTime)
                }
                if isJump { jump += 1 }
                next = ordinal + 1
            default: break
            }
            reached = cursor.offset
        }
        return (Position(commit: transaction.commit, ordinal: next), commitTime)
    }
}

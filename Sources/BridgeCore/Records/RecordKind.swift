/// The kinds of record that a journal holds. The raw value is the kind byte.
///
/// A record is a 32-bit length, counting what follows it, then the kind byte, then the payload. All integers are in
/// network order. The journal's format document gives every payload byte by byte.
package enum RecordKind: UInt8, Sendable {
    /// Describes a table: see ``Relation``.
    case relation = 1
    /// Opens a transaction: see ``TransactionStart``.
    case begin = 2
    /// A row was inserted: relation, new row.
    case insert = 3
    /// A row was updated: relation, how the old row is given, the old row or key if given, new row.
    case update = 4
    /// A row was deleted: relation, how the old row is given, old row or key.
    case delete = 5
    /// Tables were emptied by one statement: option bits, relations.
    case truncate = 6
    /// Closes a transaction: see ``TransactionEnd``.
    case commit = 7
    /// The row with this key is now this row, whatever was there before: relation, row. From sources that log keys.
    case upsert = 8
    /// No row with this key is there now, whether or not there was one before: relation, key. From sources that log keys.
    case remove = 9
    /// What was written since the last begin is void; the source sends that transaction again.
    case abandon = 10
    /// An application's or the tool's own message in the stream: prefix, content.
    case message = 11
    /// Everything the source committed before this position has been written: see ``RecordBuffer/appendFrontier(_:time:)``.
    case frontier = 12
}

/// How an update or delete gives the row that it changed.
package enum OldRowKind: UInt8, Sendable {
    /// Not at all: the key did not change and stands in the new row.
    case none = 0
    /// The key's columns; all others are ``CellTag/absent``.
    case key = 1
    /// The whole row.
    case full = 2
}

/// Options of a truncate.
package struct TruncateOptions: OptionSet, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    package static let cascade = TruncateOptions(rawValue: 1)
    package static let restartIdentity = TruncateOptions(rawValue: 2)
}

/// What is known of a transaction when it opens.
package struct TransactionStart: Hashable, Sendable {
    /// The source's transaction number widened to 64 bits; 0 where the source has none.
    package var transaction: UInt64
    /// Where its commit stands; the identity of the transaction.
    package var position: Position
    package var commitTime: Timestamp

    package init(transaction: UInt64, position: Position, commitTime: Timestamp) {
        self.transaction = transaction
        self.position = position
        self.commitTime = commitTime
    }
}

/// What is known of a transaction when it closes.
package struct TransactionEnd: Hashable, Sendable {
    package var position: Position
    /// The first place in the source's log behind the commit: what the source may be told is flushed.
    package var end: UInt64
    package var commitTime: Timestamp
    /// Changes and messages between begin and commit, for a pair assertion.
    package var changes: UInt64

    package init(position: Position, end: UInt64, commitTime: Timestamp, changes: UInt64) {
        self.position = position
        self.end = end
        self.commitTime = commitTime
        self.changes = changes
    }
}

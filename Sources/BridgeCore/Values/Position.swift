/// A point in a source's commit order.
///
/// Outside the connector that made it a position is opaque: it can be compared, stored and shown, nothing else.
/// PostgreSQL puts the LSN of the commit record in `commit`; SQLite the change-log sequence at the end of a batch.
/// `ordinal` numbers the changes inside one transaction, from 0; a position that stands for a whole transaction has
/// ordinal 0. Rows of one PostgreSQL transaction share LSNs with its BEGIN and RELATION messages, so an LSN alone
/// never identifies a row.
package struct Position: Hashable, Comparable, Sendable {
    /// The transaction's place in the source's commit order.
    package var commit: UInt64
    /// The change's place in its transaction.
    package var ordinal: UInt64

    package init(commit: UInt64, ordinal: UInt64 = 0) {
        self.commit = commit
        self.ordinal = ordinal
    }

    /// Before everything.
    package static let zero = Position(commit: 0)

    package static func < (a: Position, b: Position) -> Bool {
        a.commit != b.commit ? a.commit < b.commit : a.ordinal < b.ordinal
    }

    /// `commit.ordinal` in decimal, the form in which a position is stored in targets and in JSON of the journal.
    /// A connector shows its own form to people: see ``SourceConnector/describe(_:)``.
    package var storedForm: String { ordinal == 0 ? String(commit) : "\(commit).\(ordinal)" }

    /// Reads back ``storedForm``; nil for anything else.
    package init?(storedForm text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard let first = parts.first, let commit = UInt64(first), parts.count <= 2 else { return nil }
        guard parts.count == 2 else {
            self.init(commit: commit)
            return
        }
        guard let ordinal = UInt64(parts[1]) else { return nil }
        self.init(commit: commit, ordinal: ordinal)
    }
}

/// What is done with a change that the target's data contradicts.
package enum ConflictPolicy: String, CaseIterable, Sendable {
    /// Nothing from this change on is applied, and the link stops with the change named.
    case stop
    /// The change is left out, and recorded.
    case skip
    /// The target's row becomes the source's where the change tells all of it, and that is recorded. Where it does not, and
    /// where a row that the change does not name would have to go, the link stops.
    case overwrite
}

/// How a change and the target's data contradict each other.
package enum ConflictKind: String, CaseIterable, Sendable {
    case updateFoundNoRow = "update_found_no_row"
    case deleteFoundNoRow = "delete_found_no_row"
    case insertFoundRow = "insert_found_row"
    /// An update gives a row a key that another row has.
    case keyTaken = "key_taken"
    /// Another row holds a value, not the key, that must be unique.
    case uniqueValueTaken = "unique_value_taken"

    /// One sentence, lower case.
    package var sentence: String {
        switch self {
        case .updateFoundNoRow: "an update of the source found no such row on the target"
        case .deleteFoundNoRow: "a delete of the source found no such row on the target"
        case .insertFoundRow: "an insert of the source found a row with its key on the target"
        case .keyTaken: "an update of the source gives a row a key that another row has on the target"
        case .uniqueValueTaken: "a value that must be unique is held by another row of the target"
        }
    }
}

/// A change that did not go to the target as the source made it. It is stored in the target's transaction that goes past
/// the change, so there is exactly one for each, whatever is killed when.
package struct ConflictRecord: Hashable, Sendable {
    /// What became of the change.
    package enum Outcome: String, Sendable {
        /// Left out by `on_conflict: skip`.
        case skipped
        /// The target's row was made the source's by `on_conflict: overwrite`.
        case overwritten
        /// Left out because a person said so; its content is in the dead-letter file.
        case passedOver = "passed_over"
    }

    /// Of the change: its transaction's commit, and its place in the transaction.
    package var position: Position
    /// When the transaction committed on the source.
    package var commitTime: Timestamp
    /// The target's name of the table.
    package var table: String
    /// What the change does: `insert`, `update` and so on.
    package var change: String
    /// Why it could not be applied as it is: a ``ConflictKind``, or an ``ErrorCode`` for another reason.
    package var reason: String
    package var outcome: Outcome
    /// The row's key as a JSON object of column names and values. Values of rows stand here and in no error or log.
    package var key: String
    /// When the target got past the change; nil before.
    package var recordedAt: Timestamp?

    package init(
        position: Position, commitTime: Timestamp, table: String, change: String, reason: String, outcome: Outcome,
        key: String, recordedAt: Timestamp? = nil
    ) {
        self.position = position
        self.commitTime = commitTime
        self.table = table
        self.change = change
        self.reason = reason
        self.outcome = outcome
        self.key = key
        self.recordedAt = recordedAt
    }
}

/// What a target has recorded of conflicts.
package struct ConflictHistory: Hashable, Sendable {
    /// How many there are.
    package var total: Int64
    /// The newest of them, in the order of the source.
    package var newest: [ConflictRecord]

    package init(total: Int64 = 0, newest: [ConflictRecord] = []) {
        self.total = total
        self.newest = newest
    }
}

extension BridgeError {
    /// A conflict of one change.
    package init(_ kind: ConflictKind, table: String) {
        self.init(.conflict, kind.sentence, context: [.init(.table, table), .init(.conflict, kind.rawValue)])
    }

    /// Which kind of conflict it is, if it is one that is named.
    package var conflictKind: ConflictKind? {
        context.first { $0.key == .conflict }.flatMap { ConflictKind(rawValue: $0.value) }
    }

    /// The same error at a change: where its transaction commits, and its place in it.
    package func at(_ change: Position) -> BridgeError {
        adding(.position, change.storedForm).adding(.ordinal, "\(change.ordinal)")
    }

    /// The change that it is about; nil where that is not known exactly.
    package var changePosition: Position? {
        guard let ordinal = context.first(where: { $0.key == .ordinal }).flatMap({ UInt64($0.value) }),
            let position = context.first(where: { $0.key == .position }).flatMap({ Position(storedForm: $0.value) })
        else { return nil }
        return Position(commit: position.commit, ordinal: ordinal)
    }

    /// Whether the change itself is what cannot be applied: neither the servers, nor the connection, nor a table's shape.
    package var isOfChange: Bool {
        switch code {
        case .conflict, .changeRefused, .valueDoesNotFit, .valueMissing: true
        default: false
        }
    }
}

extension RowChange {
    /// The key of the row that the change is about, as a JSON object; all columns where the relation's rows have no key.
    package func keyText(_ relation: Relation) throws(BridgeError) -> String {
        var line = JSONLine()
        line.beginObject()
        if let image = old ?? new {
            let isWhole = relation.identity != .key
            var cells = image.cells
            var index = 0
            while let cell = try cells.next() {
                defer { index += 1 }
                guard index < relation.columns.count, isWhole || relation.columns[index].isKey else { continue }
                line.plainCell(relation.columns[index].name, cell)
            }
        }
        line.endObject()
        return line.text
    }
}

package import BridgeCore

/// Which link of which capture something is said of. Whatever stands in the data directory of another one is not for it.
package struct LinkBinding: Codable, Hashable, Sendable {
    package var link: String
    /// ``CaptureOrigin/identityText``.
    package var identity: String
    /// Where the capture began, in its stored form.
    package var origin: String

    package init(link: String, identity: String, origin: String) {
        self.link = link
        self.identity = identity
        self.origin = origin
    }

    package init(_ link: LinkDescription, _ origin: CaptureOrigin) {
        self.init(link: link.name, identity: origin.identityText, origin: origin.position.storedForm)
    }
}

/// The change that a link stands at, because it cannot be applied; or the transaction, where only its commit showed that
/// and the change cannot be told. Holds no values of rows.
package struct ConflictStop: Codable, Hashable, Sendable {
    package static let currentVersion = 1

    package var formatVersion = ConflictStop.currentVersion
    package var binding: LinkBinding
    /// The commit of the change's transaction, in decimal, and the change's place in it, where that can be told.
    package var commit: String
    package var ordinal: UInt64?
    /// The target's name of the table.
    package var table: String
    /// An ``ErrorCode``.
    package var code: String
    /// A ``ConflictKind``, where it is one.
    package var conflict: String?
    /// One line about it, with its facts.
    package var message: String
    /// Microseconds since 1970.
    package var since: Int64

    package var position: Position { Position(commit: UInt64(commit) ?? 0, ordinal: ordinal ?? 0) }
    /// Whether it is one change, which can be passed over.
    package var canBeSkipped: Bool { ordinal != nil }
    /// Why it could not be applied, in one word.
    package var reason: String { conflict ?? code }

    /// - Returns: nil for an error that is not of changes, or does not tell of which transaction.
    package init?(_ error: BridgeError, _ binding: LinkBinding, since: Timestamp = .now) {
        let transaction = error.context.first { $0.key == .position }.flatMap { Position(storedForm: $0.value) }
        guard error.isOfChange, let position = error.changePosition ?? transaction else { return nil }
        self.binding = binding
        commit = String(position.commit)
        ordinal = error.changePosition?.ordinal
        table = error.context.first { $0.key == .table }?.value ?? ""
        code = error.code.rawValue
        conflict = error.conflictKind?.rawValue
        message = "\(error)"
        self.since = since.microseconds
    }
}

/// That one change is to be passed over, because a person said so.
package struct SkipDecision: Codable, Hashable, Sendable {
    package var binding: LinkBinding
    package var commit: String
    package var ordinal: UInt64
    /// The source's name of the table, as the journal has it.
    package var source: String
    /// The target's.
    package var table: String
    package var change: String
    package var reason: String
    package var key: String
    /// Microseconds since 1970.
    package var commitTime: Int64
    package var decidedAt: Int64

    package var position: Position { Position(commit: UInt64(commit) ?? 0, ordinal: ordinal) }

    package init(_ stop: ConflictStop, source: String, change: String, key: String, commitTime: Timestamp, at now: Timestamp) {
        binding = stop.binding
        commit = stop.commit
        ordinal = stop.position.ordinal
        self.source = source
        table = stop.table
        self.change = change
        reason = stop.reason
        self.key = key
        self.commitTime = commitTime.microseconds
        decidedAt = now.microseconds
    }

    /// For the one who cuts batches.
    package var passed: PassedChange {
        PassedChange(
            source: source,
            record: ConflictRecord(
                position: position, commitTime: Timestamp(microseconds: commitTime), table: table, change: change,
                reason: reason, outcome: .passedOver, key: key))
    }
}

package import BridgeCore

/// Cuts the journal's records into batches for a target. A value type without I/O.
///
/// A batch spans as many whole transactions as fit into its bound. A transaction that alone exceeds the bound is cut into
/// parts, which the target keeps in one transaction. Left out are transactions that the checkpoint has already, rows of
/// tables whose copy already holds them, and changes that are to be passed over.
package struct BatchBuilder {
    /// What reading records asks the owner to do before it hands on more.
    package enum Action {
        /// Nothing: go on.
        case none
        /// A part of a transaction has been handed out and the transaction turned out void: roll the target back.
        case rollback
    }

    private enum Mode {
        case between
        case skipping
        case collecting
    }

    private let bound: Int
    private let copied: [TableName: Position]
    private let newestCopy: Position
    private let applied: Position

    /// The relations known behind everything consumed.
    private var relations: [UInt32: Relation]
    /// The relations known before the first byte of `output`.
    private var relationsAtStart: [UInt32: Relation]
    /// The relations known at the last commit in `output`: what the records behind it start from.
    private var relationsAtComplete: [UInt32: Relation]
    /// Relations whose rows the present transaction's copy holds already.
    private var skippedRelations: Set<UInt32> = []
    /// Where the present transaction commits.
    private var transaction: Position = .zero
    private var mode: Mode = .between
    /// The last marker in the present transaction. Like the transaction, it counts only from its commit on.
    private var marker: String?
    /// Whether a part of the present transaction has been handed out.
    package private(set) var isOpenOnTarget = false

    /// Whether a source that logs keys is being read: its records say how rows are, not what happened to them.
    ///
    /// Such a transaction may have grown while it was read, so its beginning does not tell whether a table's copy holds all
    /// of it. Its rows are applied in any case. One that is older than the copy takes the row back for a moment only:
    /// whatever changed the row between the two has a later entry in the source's log, and so a later record. For the same
    /// reason the owner must not apply such records before they are durable in the journal: captured anew after a crash,
    /// the borders of transactions would be others, and a checkpoint would lie inside one.
    package private(set) var holdsStates = false

    private var output: RecordBuffer
    /// Behind the last commit in `output`.
    private var completeBytes = 0
    private var completeRows = 0
    private var completeTransactions = 0
    private var completeCheckpoint: Checkpoint?
    private var rows = 0
    /// Whether the present transaction brings a table's new shape, and whole transactions wait before it. They are handed
    /// out by themselves: were the target to be altered for both, no shape of it could take them together.
    private var isCut = false

    /// Changes that are to be left out, in the source's order, and how many of them are behind what was consumed.
    private let passedOver: [PassedChange]
    private var passedCount = 0
    /// The place in the present transaction of the next one; none if it is in no part of it.
    private var nextPassed = UInt64.max
    /// What was left out of what is in `output`, and how much of it stands before its last commit.
    private var leftOut: [ConflictRecord] = []
    private var completeLeftOut = 0
    /// Where the source counts the changes in `output`.
    private var places = ChangePlaces()
    /// The present transaction, and the place of its next change in it.
    private var start: TransactionStart?
    private var ordinal: UInt64 = 0
    /// Whether the place of the next change is not the one behind the last change in `output`.
    private var isBehindGap = false

    /// - Parameters:
    ///   - bound: bytes of a batch.
    ///   - applied: transactions before it are left out.
    ///   - copied: for each table, by its source name, the position of its copy.
    ///   - relations: what is known before the first record.
    ///   - passedOver: changes that are to be left out.
    package init(
        bound: Int, applied: Position, copied: [TableName: Position], relations: [UInt32: Relation],
        passedOver: [PassedChange] = [], output: RecordBuffer
    ) {
        self.bound = bound
        self.applied = applied
        self.copied = copied
        self.newestCopy = copied.values.max() ?? .zero
        self.relations = relations
        self.relationsAtStart = relations
        self.relationsAtComplete = relations
        self.output = output
        self.passedOver = passedOver.sorted { $0.record.position < $1.record.position }
    }

    /// Whether a whole transaction is waiting to be handed out.
    package var hasComplete: Bool { completeCheckpoint != nil }
    /// Whether the bound is reached, or the batch must end for another reason.
    package var isFull: Bool { isCut && hasComplete || output.count >= bound && (hasComplete || mode == .collecting) }

    /// Reads records up to the end of `bytes` or until the bound is reached.
    /// - Returns: how many bytes were consumed, always whole records, and what has to be done before going on.
    package mutating func consume(_ bytes: UnsafeRawBufferPointer) throws(BridgeError) -> (consumed: Int, action: Action) {
        var cursor = RecordCursor(bytes)
        // Records that are kept are copied in runs, not one by one.
        var run = 0..<0
        // At least one record is read, so that a caller who goes on always comes to an end.
        while cursor.offset == 0 || output.count + run.count < bound && !isCut, let record = try cursor.next() {
            let isKept: Bool
            switch record.kind {
            case .insert, .update, .delete:
                isKept = try keepsRow(record) ? !isPassedOver(record) : false
                if isKept { rows += 1 }
                count(isKept: isKept, at: output.count + run.count)
            case .upsert, .remove:
                // Never left out for the copy's sake: see `holdsStates`.
                isKept = try mode == .collecting ? !isPassedOver(record) : false
                if mode == .collecting { holdsStates = true }
                if isKept { rows += 1 }
                count(isKept: isKept, at: output.count + run.count)
            case .begin: isKept = try open(record)
            case .commit: isKept = mode == .collecting
            case .relation: isKept = learn(try Relation(payload: record.payload), isFirst: output.isEmpty && run.isEmpty)
            case .truncate:
                isKept = try keepsTruncate(record)
                if isKept { count(isKept: true, at: output.count + run.count) }
            case .message:
                try note(record)
                isKept = false
            case .frontier, .abandon: isKept = false
            }
            if isKept, record.offset == run.upperBound {
                run = run.lowerBound..<cursor.offset
            } else if isKept {
                append(bytes, run)
                run = record.offset..<cursor.offset
            }
            switch record.kind {
            case .commit:
                append(bytes, run)
                run = cursor.offset..<cursor.offset
                try close(record)
            case .truncate where !isKept:
                append(bytes, run)
                run = cursor.offset..<cursor.offset
                try appendRestOfTruncate(record)
            case .abandon:
                append(bytes, run)
                run = cursor.offset..<cursor.offset
                if abandon() { return (cursor.offset, .rollback) }
            default: break
            }
        }
        append(bytes, run)
        return (cursor.offset, .none)
    }

    private func append(_ bytes: UnsafeRawBufferPointer, _ run: Range<Int>) {
        if !run.isEmpty { output.append(UnsafeRawBufferPointer(rebasing: bytes[run])) }
    }

    /// Takes the next batch: every whole transaction, or, with the bound reached inside one, the part that is there; nil if
    /// there is nothing to hand out. The records that follow go into `replacement`.
    package mutating func takeBatch(replacement: RecordBuffer) -> ChangeBatch? {
        replacement.removeAll()
        if let checkpoint = completeCheckpoint {
            // What comes after the last commit belongs to the next batch.
            let tail = UnsafeRawBufferPointer(rebasing: output.bytes[completeBytes...])
            replacement.append(tail)
            output.truncate(to: completeBytes)
            var batch = ChangeBatch(
                records: output, relations: relationsAtStart, checkpoint: checkpoint, rows: completeRows,
                transactions: completeTransactions)
            batch.places = places
            batch.places.jumps.removeAll { $0.offset >= completeBytes }
            batch.leftOut = Array(leftOut[..<completeLeftOut])
            places = ChangePlaces(places.jumps.filter { $0.offset >= completeBytes }, movedBy: -completeBytes)
            leftOut.removeSubrange(..<completeLeftOut)
            rows -= completeRows
            isCut = false
            output = replacement
            resetComplete()
            relationsAtStart = relationsAtComplete
            return batch
        }
        guard isFull, mode == .collecting else { return nil }
        var batch = ChangeBatch(
            records: output, relations: relationsAtStart, checkpoint: nil, rows: rows, transactions: 0)
        batch.places = places
        batch.leftOut = leftOut
        places = ChangePlaces()
        (places.opening, places.ordinal) = (start, ordinal)
        leftOut = []
        rows = 0
        output = replacement
        relationsAtStart = relations
        isOpenOnTarget = true
        return batch
    }

    // MARK: - Records

    /// Whether the transaction that begins here is wanted.
    private mutating func open(_ record: RecordView) throws(BridgeError) -> Bool {
        guard mode == .between else { throw BridgeError.malformedRecord(at: record.offset) }
        let start = try record.transactionStart()
        guard start.position >= applied else {
            mode = .skipping
            return false
        }
        mode = .collecting
        marker = nil
        transaction = start.position
        self.start = start
        (ordinal, isBehindGap) = (0, false)
        // Back too: a transaction that a crash cut off stands in the journal once more, whole.
        while passedCount > 0, passedOver[passedCount - 1].record.position.commit >= transaction.commit { passedCount -= 1 }
        while passedCount < passedOver.count, passedOver[passedCount].record.position.commit < transaction.commit {
            passedCount += 1
        }
        aimAtNextPassed()
        skippedRelations.removeAll(keepingCapacity: true)
        if transaction < newestCopy {
            for (id, relation) in relations where isCopied(relation) { skippedRelations.insert(id) }
        }
        return true
    }

    /// Whether the copy of the relation's table holds the present transaction already.
    private func isCopied(_ relation: Relation) -> Bool { copied[relation.name].map { transaction < $0 } ?? false }

    private mutating func close(_ record: RecordView) throws(BridgeError) {
        // A reader that was placed inside a transaction before the checkpoint sees its end without its beginning.
        defer { mode = .between }
        guard mode == .collecting else { return }
        let end = try record.transactionEnd()
        // What was handed out of it is committed with the rest, whatever becomes of the transactions behind it.
        isOpenOnTarget = false
        completeBytes = output.count
        completeRows = rows
        completeTransactions += 1
        completeLeftOut = leftOut.count
        completeCheckpoint = Checkpoint(
            position: end.position, frontier: Position(commit: end.end), commitTime: end.commitTime,
            marker: marker ?? completeCheckpoint?.marker)
        relationsAtComplete = relations
    }

    /// Takes note of a message that is a marker. Nothing of it goes into the batch's records.
    private mutating func note(_ record: RecordView) throws(BridgeError) {
        guard mode == .collecting else { return }
        let (prefix, content) = try record.message()
        guard prefix == Marker.prefix, let text = Marker.text(content) else { return }
        marker = text
    }

    /// Whether a row belongs into the batch.
    @inline(__always)
    private func keepsRow(_ record: RecordView) throws(BridgeError) -> Bool {
        guard mode == .collecting else { return false }
        guard !skippedRelations.isEmpty else { return true }
        guard record.payload.count >= 4 else { throw BridgeError.malformedRecord(at: record.offset) }
        return !skippedRelations.contains(UInt32(bigEndian: record.payload.loadUnaligned(as: UInt32.self)))
    }

    /// Takes note of a relation; whether its record has to stand among the batch's, because rows come before it.
    private mutating func learn(_ relation: Relation, isFirst: Bool) -> Bool {
        if mode == .collecting, hasComplete, let known = relations[relation.id], known != relation { isCut = true }
        relations[relation.id] = relation
        if mode == .collecting {
            if isCopied(relation) { skippedRelations.insert(relation.id) } else { skippedRelations.remove(relation.id) }
        }
        guard isFirst else { return true }
        relationsAtStart[relation.id] = relation
        return false
    }

    /// Whether a truncate can be kept as it is.
    private func keepsTruncate(_ record: RecordView) throws(BridgeError) -> Bool {
        guard mode == .collecting, ordinal != nextPassed else { return false }
        return try !record.truncation().relations.contains(where: skippedRelations.contains)
    }

    /// Keeps the part of a truncate that concerns tables whose copy came before it.
    private mutating func appendRestOfTruncate(_ record: RecordView) throws(BridgeError) {
        guard mode == .collecting else { return }
        let (options, truncated) = try record.truncation()
        let kept = try isPassedOver(record) ? [] : truncated.filter { !skippedRelations.contains($0) }
        count(isKept: !kept.isEmpty, at: output.count)
        if !kept.isEmpty { output.appendTruncate(kept, options: options) }
    }

    // MARK: - Places

    /// Counts a change of the present transaction.
    @inline(__always)
    private mutating func count(isKept: Bool, at offset: Int) {
        guard mode == .collecting else { return }
        if !isKept {
            isBehindGap = true
        } else if isBehindGap {
            places.jumps.append(.init(offset: offset, ordinal: ordinal))
            isBehindGap = false
        }
        ordinal += 1
    }

    /// Whether the next change is to be left out; takes note of it then.
    @inline(__always)
    private mutating func isPassedOver(_ record: RecordView) throws(BridgeError) -> Bool {
        guard mode == .collecting, ordinal == nextPassed else { return false }
        try passOver(record)
        return true
    }

    private mutating func passOver(_ record: RecordView) throws(BridgeError) {
        let passed = passedOver[passedCount]
        let relation: UInt32? =
            record.kind == .truncate ? try record.truncation().relations.first : try RowChange(record).relation
        // Whoever decided it looked at this very change; another one in its place is never left out.
        guard String(describing: record.kind) == passed.record.change,
            relation.flatMap({ relations[$0]?.name.description }) == passed.source
        else {
            throw BridgeError(
                .journalForeign, "a change that is to be passed over is another one in the journal",
                context: [.init(.table, passed.source)]
            ).at(passed.record.position)
        }
        leftOut.append(passed.record)
        passedCount += 1
        aimAtNextPassed()
    }

    private mutating func aimAtNextPassed() {
        nextPassed = .max
        guard passedCount < passedOver.count else { return }
        let position = passedOver[passedCount].record.position
        if position.commit == transaction.commit { nextPassed = position.ordinal }
    }

    /// Forgets the transaction at hand; true if part of it has been handed out.
    private mutating func abandon() -> Bool {
        defer { mode = .between }
        guard mode == .collecting else { return false }
        output.truncate(to: completeBytes)
        rows = completeRows
        places.jumps.removeAll { $0.offset >= completeBytes }
        leftOut.removeSubrange(completeLeftOut...)
        if !hasComplete { places = ChangePlaces() }
        if hasComplete {
            // Relations that the void transaction brought are known from here on all the same.
            for (id, relation) in relations where relationsAtComplete[id] != relation {
                output.appendRelation(relation)
            }
        } else {
            relationsAtStart = relations
        }
        defer { isOpenOnTarget = false }
        return isOpenOnTarget
    }

    private mutating func resetComplete() {
        completeBytes = 0
        completeRows = 0
        completeTransactions = 0
        completeLeftOut = 0
        completeCheckpoint = nil
    }
}

/// A change that is to be left out when its transaction is applied.
package struct PassedChange: Hashable, Sendable {
    /// The source's name of the table, as the journal has it.
    package var source: String
    /// What the target records of it.
    package var record: ConflictRecord

    package init(source: String, record: ConflictRecord) {
        self.source = source
        self.record = record
    }
}

extension ChangePlaces {
    fileprivate init(_ jumps: [Jump], movedBy distance: Int) {
        self.init()
        self.jumps = jumps.map { Jump(offset: $0.offset + distance, ordinal: $0.ordinal) }
    }
}

import BridgeCore

/// A run of records that becomes one block.
struct BlockPlan {
    var bytes: Range<Int>
    var firstRecord: UInt64
    var records: UInt32 = 0
    var commits: UInt32 = 0
    var firstCommit: UInt64?
    var beginsInside: Bool
    /// Behind the last record.
    var end: StreamState
    /// Where the block's relation records stand.
    var relations: [Range<Int>] = []

    var flags: FrameFlags {
        var flags: FrameFlags = []
        if !relations.isEmpty { flags.insert(.relations) }
        if beginsInside { flags.insert(.beginsInside) }
        if end.openTransaction != nil { flags.insert(.endsInside) }
        if end.lastCommit != nil { flags.insert(.hasLastCommit) }
        return flags
    }
}

/// Walks a run of records before it is written, holds it against the journal's invariants and cuts it into blocks.
///
/// It looks at lengths, kinds and the few fields that say where a transaction stands; rows it passes over. A run that
/// breaks an invariant is refused whole, so what is in the journal always has transactions that are whole, in order and
/// counted.
struct RecordScanner {
    private let bytes: UnsafeRawBufferPointer
    private let blockBytes: Int
    private let known: RelationTable
    private var state: StreamState
    private var described: Set<UInt32> = []
    /// The relation that the last change named: most changes name the same.
    private var lastRelation: UInt32?
    private var plan: BlockPlan

    private init(_ bytes: UnsafeRawBufferPointer, state: StreamState, known: RelationTable, blockBytes: Int) {
        self.bytes = bytes
        self.blockBytes = blockBytes
        self.known = known
        self.state = state
        plan = BlockPlan(
            bytes: 0..<0, firstRecord: state.records, beginsInside: state.openTransaction != nil, end: state)
    }

    /// - Parameters:
    ///   - state: where the journal stands before the first record.
    ///   - known: the relations described so far.
    /// - Throws: `recordMalformed`, with the offset in the run.
    static func plan(
        _ bytes: UnsafeRawBufferPointer, state: StreamState, known: RelationTable, blockBytes: Int
    ) throws(BridgeError) -> [BlockPlan] {
        var scanner = RecordScanner(bytes, state: state, known: known, blockBytes: blockBytes)
        return try scanner.run()
    }

    private mutating func run() throws(BridgeError) -> [BlockPlan] {
        var plans: [BlockPlan] = []
        var offset = 0
        while offset < bytes.count {
            guard bytes.count - offset >= 5 else { throw refused(offset, "a record is cut off") }
            let length = Int(UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
            guard length >= 1, length <= bytes.count - offset - 4 else {
                throw refused(offset, "a record is cut off")
            }
            let end = offset + 4 + length
            if end - plan.bytes.lowerBound > blockBytes || plan.records == .max, offset > plan.bytes.lowerBound {
                plans.append(closedPlan(at: offset))
            }
            switch bytes[offset + 4] {
            case RecordKind.insert.rawValue, RecordKind.update.rawValue, RecordKind.delete.rawValue,
                RecordKind.upsert.rawValue, RecordKind.remove.rawValue:
                try scanRow(offset, length)
            case RecordKind.begin.rawValue: try scanBegin(offset, length)
            case RecordKind.commit.rawValue: try scanCommit(offset, length)
            case RecordKind.relation.rawValue: try scanRelation(offset, length)
            case RecordKind.truncate.rawValue: try scanTruncate(offset, length)
            case RecordKind.abandon.rawValue: try scanAbandon(offset, length)
            case RecordKind.message.rawValue: if state.openTransaction != nil { state.openChanges &+= 1 }
            case RecordKind.frontier.rawValue: try scanFrontier(offset, length)
            default: throw refused(offset, "a record is of an unknown kind")
            }
            state.records &+= 1
            plan.records += 1
            offset = end
        }
        if plan.records > 0 { plans.append(closedPlan(at: offset)) }
        return plans
    }

    /// Ends the current block before `offset` and begins the next.
    private mutating func closedPlan(at offset: Int) -> BlockPlan {
        var closed = plan
        closed.bytes = closed.bytes.lowerBound..<offset
        closed.end = state
        plan = BlockPlan(
            bytes: offset..<offset, firstRecord: state.records, beginsInside: state.openTransaction != nil, end: state)
        return closed
    }

    @inline(__always)
    private mutating func scanRow(_ offset: Int, _ length: Int) throws(BridgeError) {
        guard state.openTransaction != nil else { throw refused(offset, "a change stands outside a transaction") }
        guard length >= 7 else { throw refused(offset, "a change is too short") }
        let relation = field(offset + 5, UInt32.self)
        if relation != lastRelation { try check(relation, offset) }
        state.openChanges &+= 1
    }

    private mutating func check(_ relation: UInt32, _ offset: Int) throws(BridgeError) {
        guard known.contains(relation) || described.contains(relation) else {
            throw refused(offset, "a change names a relation that was not described")
        }
        lastRelation = relation
    }

    private mutating func scanBegin(_ offset: Int, _ length: Int) throws(BridgeError) {
        guard state.openTransaction == nil else { throw refused(offset, "a transaction begins inside another") }
        guard length == 25 else { throw refused(offset, "a begin record has the wrong length") }
        let position = field(offset + 13, UInt64.self)
        if let last = state.lastPosition, position <= last {
            throw refused(offset, "a transaction is not behind the one before it")
        }
        guard position >= state.frontier else { throw refused(offset, "a transaction is behind the frontier") }
        state.openTransaction = position
        state.openChanges = 0
    }

    private mutating func scanCommit(_ offset: Int, _ length: Int) throws(BridgeError) {
        guard let open = state.openTransaction else { throw refused(offset, "a commit without a begin") }
        guard length == 33 else { throw refused(offset, "a commit record has the wrong length") }
        let commit = TransactionEnd(
            position: Position(commit: field(offset + 5)), end: field(offset + 13),
            commitTime: Timestamp(microseconds: field(offset + 21)), changes: field(offset + 29))
        // A transaction of a source that logs keys may grow while it is read.
        guard commit.position.commit >= open else { throw refused(offset, "a commit stands before its begin") }
        guard commit.changes == state.openChanges else {
            throw refused(
                offset, "a transaction has \(state.openChanges) changes and its commit states \(commit.changes)")
        }
        state.lastCommit = commit
        state.openTransaction = nil
        state.openChanges = 0
        state.frontier = max(state.frontier, commit.end)
        if plan.firstCommit == nil { plan.firstCommit = open }
        plan.commits += 1
    }

    private mutating func scanRelation(_ offset: Int, _ length: Int) throws(BridgeError) {
        guard length >= 5 else { throw refused(offset, "a relation record is too short") }
        described.insert(field(offset + 5))
        plan.relations.append(offset..<offset + 4 + length)
    }

    private mutating func scanTruncate(_ offset: Int, _ length: Int) throws(BridgeError) {
        guard state.openTransaction != nil else { throw refused(offset, "a change stands outside a transaction") }
        guard length >= 4 else { throw refused(offset, "a truncate record is too short") }
        let count = Int(field(offset + 6, UInt16.self))
        guard length == 4 + 4 * count else { throw refused(offset, "a truncate record has the wrong length") }
        for index in 0..<count { try check(field(offset + 8 + 4 * index), offset) }
        state.openChanges &+= 1
    }

    private mutating func scanAbandon(_ offset: Int, _ length: Int) throws(BridgeError) {
        guard state.openTransaction != nil else { throw refused(offset, "an abandon record outside a transaction") }
        guard length == 1 else { throw refused(offset, "an abandon record has the wrong length") }
        state.openTransaction = nil
        state.openChanges = 0
    }

    private mutating func scanFrontier(_ offset: Int, _ length: Int) throws(BridgeError) {
        guard length == 17 else { throw refused(offset, "a frontier record has the wrong length") }
        let position = field(offset + 5, UInt64.self)
        if let open = state.openTransaction, position > open {
            throw refused(offset, "a frontier is beyond the transaction that it stands in")
        }
        state.frontier = max(state.frontier, position)
    }

    @inline(__always)
    private func field<Value: FixedWidthInteger>(_ offset: Int, _ type: Value.Type = Value.self) -> Value {
        Value(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }

    private func refused(_ offset: Int, _ what: String) -> BridgeError {
        BridgeError(
            .recordMalformed, "records cannot be journaled: \(what)", context: [.init(.offset, String(offset))])
    }
}

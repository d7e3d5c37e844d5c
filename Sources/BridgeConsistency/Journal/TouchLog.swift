import BridgeCore

/// What one transaction of the source touched in the tables that are compared.
struct TouchedTransaction: Sendable {
    /// The source's 64-bit number; 0 where it has none.
    var number: UInt64
    /// Where it commits.
    var commit: Position
    var keys: [Int: Set<KeyImage>] = [:]
    /// Tables of which any row may have been touched.
    var wholeTables: Set<Int> = []
    /// Tables of which it touched more keys than are kept here: any of their keys may be among them.
    var crowded: Set<Int> = []

    var isEmpty: Bool { keys.isEmpty && wholeTables.isEmpty && crowded.isEmpty }

    /// Bytes that keys of a table take, nearly.
    func footprint(of table: Int) -> Int { keys[table]?.reduce(0) { $0 + DirtySet.footprint($1) } ?? 0 }
}

/// Turns journal records into transactions and what they touched. A value type without I/O.
///
/// It forgets a transaction only when told that both views see it, and every later view does too. Where the keys of those
/// that it keeps take too much memory, it forgets the keys of a table and keeps that some were touched: the table is in
/// dispute as a whole until both views see all of these transactions.
struct TouchLog {
    private let limit: Int
    /// Bytes of the keys that are kept, by table.
    private var sizes: [Int: Int] = [:]
    private var openSizes: [Int: Int] = [:]
    private var extractor: KeyExtractor
    private var open: TouchedTransaction?
    /// Committed and not yet forgotten, in commit order.
    private(set) var transactions: [TouchedTransaction] = []
    /// Everything that committed before it has been read.
    private(set) var frontier: Position
    /// Transactions read to their end since the beginning.
    private(set) var count = 0

    /// - Parameter limit: bytes of keys that are kept.
    init(
        layouts: [ComparisonLayout], names: [TableName] = [], relations: [UInt32: Relation], frontier: Position,
        limit: Int = .max
    ) {
        self.limit = limit
        extractor = KeyExtractor(layouts, names: names)
        for relation in relations.values { _ = extractor.take(relation) }
        self.frontier = frontier
    }

    /// Takes in records.
    /// - Parameter isKept: whether a transaction must be remembered.
    /// - Returns: the transactions that ended among them and touched something; of a very large one, parts before it ends.
    /// - Throws: `recordMalformed`.
    mutating func take(
        _ records: UnsafeRawBufferPointer, keeping isKept: (TouchedTransaction) -> Bool = { _ in true }
    ) throws(BridgeError) -> [TouchedTransaction] {
        var ended: [TouchedTransaction] = []
        var cursor = RecordCursor(records)
        while let record = try cursor.next() {
            switch record.kind {
            case .relation:
                // Outside of a transaction too: what comes next is of the new shape, and so is the table by then.
                if let table = extractor.take(try Relation(payload: record.payload)) { touchWhole(table) }
            case .begin:
                let start = try record.transactionStart()
                let pending = open?.commit == .zero ? open?.wholeTables ?? [] : []
                open = TouchedTransaction(number: start.transaction, commit: start.position, wholeTables: pending)
                openSizes = [:]
            case .insert, .update, .delete, .upsert, .remove:
                if let part = try takeRow(record) { ended.append(part) }
            case .truncate:
                for relation in try record.truncation().relations {
                    if let table = extractor.table(relation) { touchWhole(table) }
                }
            case .commit:
                let end = try record.transactionEnd()
                if var transaction = open {
                    // A transaction of a source that logs keys may commit behind where it began.
                    transaction.commit = end.position
                    if !transaction.isEmpty {
                        ended.append(transaction)
                        if isKept(transaction) { keep(transaction) }
                    }
                }
                open = nil
                count += 1
                frontier = max(frontier, Position(commit: end.position.commit + 1))
            case .abandon: open = nil
            case .frontier: frontier = max(frontier, try record.frontier().position)
            case .message: break
            }
        }
        return ended
    }

    /// - Returns: the keys of a table so far, where the transaction has so many that it does not keep them.
    private mutating func takeRow(_ record: RecordView) throws(BridgeError) -> TouchedTransaction? {
        guard let (table, what) = try extractor.touched(by: try RowChange(record)) else { return nil }
        guard case .keys(let keys) = what else {
            touchWhole(table)
            return nil
        }
        guard open?.wholeTables.contains(table) != true else { return nil }
        for key in keys where open?.keys[table, default: []].insert(key).inserted == true {
            openSizes[table, default: 0] += DirtySet.footprint(key)
        }
        guard let size = openSizes[table], size > limit / 2, let open else { return nil }
        // Looked at again they must be, also if the transaction is abandoned: that costs a look.
        let part = TouchedTransaction(number: open.number, commit: open.commit, keys: [table: open.keys[table] ?? []])
        self.open?.keys[table] = nil
        self.open?.crowded.insert(table)
        openSizes[table] = 0
        return part
    }

    private mutating func keep(_ transaction: TouchedTransaction) {
        var kept = transaction
        for table in kept.crowded { kept.keys[table] = nil }
        for table in kept.keys.keys { sizes[table, default: 0] += kept.footprint(of: table) }
        transactions.append(kept)
        while sizes.values.reduce(0, +) > limit, let table = sizes.max(by: { $0.value < $1.value })?.key {
            for index in transactions.indices where transactions[index].keys.removeValue(forKey: table) != nil {
                transactions[index].crowded.insert(table)
            }
            sizes[table] = nil
        }
    }

    private mutating func touchWhole(_ table: Int) {
        // Between transactions it is kept for the next one.
        if open == nil { open = TouchedTransaction(number: 0, commit: .zero) }
        open?.wholeTables.insert(table)
        open?.keys[table] = nil
    }

    /// What is in dispute between two views. Of a transaction that is read in part, keys were handed on that none of those
    /// kept has, and it may be seen by the next views: its tables are in dispute until its end is read.
    func dispute(source: ViewMark, target: ViewMark) -> Dispute {
        var dispute = Dispute(transactions, source: source, target: target)
        for table in open?.crowded ?? [] {
            dispute.excludedTables.insert(table)
            dispute.unsettledTables.insert(table)
        }
        return dispute
    }

    /// The place of the last transaction before `end` that is not forgotten yet; nil if there is none.
    func lastCommit(before end: Position) -> Position? { transactions.lazy.map(\.commit).filter { $0 < end }.max() }

    /// Counts a table as emptied by a transaction that committed at `position`, of which the journal does not tell. It has
    /// no number, so every view of the source sees it that is behind the position.
    mutating func touchWhole(_ table: Int, at position: Position) {
        transactions.append(TouchedTransaction(number: 0, commit: position, wholeTables: [table]))
    }

    /// Forgets the transactions for which `isSeenByAll` holds.
    mutating func forget(_ isSeenByAll: (TouchedTransaction) -> Bool) {
        transactions.removeAll { transaction in
            guard isSeenByAll(transaction) else { return false }
            for table in transaction.keys.keys { sizes[table, default: 0] -= transaction.footprint(of: table) }
            return true
        }
    }
}

/// Which keys cannot be compared between two views, and which are not yet settled by comparing them.
struct Dispute: Sendable {
    /// Keys of transactions that one view may hold and the other not: left out of the comparison.
    var excluded: [Int: Set<KeyImage>] = [:]
    var excludedTables: Set<Int> = []
    /// Keys of transactions that are not in both views: equal now, they may still be touched once more.
    var unsettled: [Int: Set<KeyImage>] = [:]
    var unsettledTables: Set<Int> = []

    /// - Parameter transactions: every transaction that is not known to be in both views, read until the journal had
    ///   passed the end of the source's log as it was after both views were opened.
    ///
    /// Where the source's view is a snapshot of transactions, rows are copies of what transactions wrote: one that neither
    /// view holds has left no trace in either. Where it is a point in a log of keys, the target's rows may be newer than
    /// their log entries, so only what both views hold for certain counts.
    init(_ transactions: [TouchedTransaction], source: ViewMark, target: ViewMark) {
        let holdsStates = if case .before = source { true } else { false }
        for transaction in transactions {
            let onSource = source.sees(transaction.number, commit: transaction.commit)
            let onTarget = target.sees(transaction.number, commit: transaction.commit)
            if onSource && onTarget { continue }
            unsettledTables.formUnion(transaction.wholeTables)
            unsettledTables.formUnion(transaction.crowded)
            excludedTables.formUnion(transaction.crowded)
            // What empties or rewrites a table shows in older snapshots too, though they do not see it.
            excludedTables.formUnion(transaction.wholeTables)
            for (table, keys) in transaction.keys { unsettled[table, default: []].formUnion(keys) }
            guard holdsStates || onSource != onTarget else { continue }
            for (table, keys) in transaction.keys { excluded[table, default: []].formUnion(keys) }
        }
    }
}

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

    var isEmpty: Bool { keys.isEmpty && wholeTables.isEmpty }
}

/// Turns journal records into transactions and what they touched. A value type without I/O.
///
/// It forgets a transaction only when told that both views see it, and every later view does too.
struct TouchLog {
    /// Above so many keys of one table a single transaction counts as having touched the whole table.
    static let mostKeys = 1_000_000

    private var extractor: KeyExtractor
    private var open: TouchedTransaction?
    /// Committed and not yet forgotten, in commit order.
    private(set) var transactions: [TouchedTransaction] = []
    /// Everything that committed before it has been read.
    private(set) var frontier: Position
    /// Transactions read to their end since the beginning.
    private(set) var count = 0

    init(
        layouts: [ComparisonLayout], names: [TableName] = [], relations: [UInt32: Relation], frontier: Position
    ) {
        extractor = KeyExtractor(layouts, names: names)
        for relation in relations.values { _ = extractor.take(relation) }
        self.frontier = frontier
    }

    /// Takes in records.
    /// - Returns: the transactions that ended among them and touched something.
    /// - Throws: `recordMalformed`.
    mutating func take(_ records: UnsafeRawBufferPointer) throws(BridgeError) -> [TouchedTransaction] {
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
            case .insert, .update, .delete, .upsert, .remove: try takeRow(record)
            case .truncate:
                for relation in try record.truncation().relations {
                    if let table = extractor.table(relation) { touchWhole(table) }
                }
            case .commit:
                let end = try record.transactionEnd()
                if var transaction = open {
                    // A transaction of a source that logs keys may commit behind where it began.
                    transaction.commit = end.position
                    if !transaction.isEmpty { ended.append(transaction) }
                }
                open = nil
                count += 1
                frontier = max(frontier, Position(commit: end.position.commit + 1))
            case .abandon: open = nil
            case .frontier: frontier = max(frontier, try record.frontier().position)
            case .message: break
            }
        }
        transactions += ended
        return ended
    }

    private mutating func takeRow(_ record: RecordView) throws(BridgeError) {
        guard let (table, what) = try extractor.touched(by: try RowChange(record)) else { return }
        guard case .keys(let keys) = what else { return touchWhole(table) }
        guard open?.wholeTables.contains(table) != true else { return }
        open?.keys[table, default: []].formUnion(keys)
        if let count = open?.keys[table]?.count, count > Self.mostKeys { touchWhole(table) }
    }

    private mutating func touchWhole(_ table: Int) {
        // Between transactions it is kept for the next one.
        if open == nil { open = TouchedTransaction(number: 0, commit: .zero) }
        open?.wholeTables.insert(table)
        open?.keys[table] = nil
    }

    /// The place of the last transaction before `end` that is not forgotten yet; nil if there is none.
    func lastCommit(before end: Position) -> Position? { transactions.lazy.map(\.commit).filter { $0 < end }.max() }

    /// Counts a table as emptied by a transaction that committed at `position`, of which the journal does not tell. It has
    /// no number, so every view of the source sees it that is behind the position.
    mutating func touchWhole(_ table: Int, at position: Position) {
        transactions.append(TouchedTransaction(number: 0, commit: position, wholeTables: [table]))
    }

    /// Forgets the transactions for which `isSeenByAll` holds.
    mutating func forget(_ isSeenByAll: (TouchedTransaction) -> Bool) { transactions.removeAll(where: isSeenByAll) }
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
            // What empties or rewrites a table shows in older snapshots too, though they do not see it.
            excludedTables.formUnion(transaction.wholeTables)
            for (table, keys) in transaction.keys { unsettled[table, default: []].formUnion(keys) }
            guard holdsStates || onSource != onTarget else { continue }
            for (table, keys) in transaction.keys { excluded[table, default: []].formUnion(keys) }
        }
    }
}

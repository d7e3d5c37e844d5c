import BridgeCore
import BridgeJournal

/// Follows a link's journal on behalf of the checker, whoever writes it.
actor JournalTail {
    private let reader: JournalReader
    private var log: TouchLog
    private let buffer = RecordBuffer(capacity: 1 << 20)
    /// What was read and not fetched yet by ``takeTouched()``.
    private var fresh: [TouchedTransaction] = []
    private var isAtEnd = true

    /// Opens a journal so that every transaction whose commit stands at or after `start` is delivered.
    /// - Throws: `journalMissing` if it no longer has them all; `journalDamaged`.
    static func open(
        directory: String, from start: Position, layouts: [ComparisonLayout], names: [TableName], memory: Int = .max
    ) async throws(BridgeError) -> JournalTail {
        // Position zero would mean: whatever is left.
        let before = Position(commit: max(start.commit, 2) - 1)
        let reader = try await JournalReader.open(directory: directory, after: before)
        return JournalTail(
            reader,
            TouchLog(layouts: layouts, names: names, relations: reader.relations, frontier: start, limit: memory))
    }

    private init(_ reader: JournalReader, _ log: TouchLog) {
        self.reader = reader
        self.log = log
    }

    /// Everything committed before it has been read.
    var frontier: Position { log.frontier }
    var transactionCount: Int { log.count }

    /// Reads some of what there is.
    /// - Parameter views: two views that are open. A transaction that both see, and so all later ones, is not remembered.
    /// - Returns: whether there may be more.
    func advance(views: (source: ViewMark, target: ViewMark)?) async throws(BridgeError) -> Bool {
        if isAtEnd { try await reader.refresh() }
        buffer.removeAll()
        isAtEnd = try await reader.read(into: buffer, limit: 1 << 20) == 0
        if !isAtEnd {
            fresh += try log.take(buffer.bytes) { transaction in
                views.map { !Self.isSeen(transaction, $0.source, $0.target) } ?? true
            }
        }
        return !isAtEnd
    }

    /// Whether both views see it, and all that are opened later.
    private static func isSeen(_ transaction: TouchedTransaction, _ source: ViewMark, _ target: ViewMark) -> Bool {
        guard target.sees(transaction.number, commit: transaction.commit) else { return false }
        switch source {
        // Below its minimum all have ended, so every later snapshot sees them.
        case .transactions(let snapshot): return transaction.number < snapshot.minimum
        case .before: return source.sees(transaction.number, commit: transaction.commit)
        }
    }

    /// What transactions that were read since the last call touched.
    func takeTouched() -> [TouchedTransaction] {
        defer { fresh = [] }
        return fresh
    }

    /// Forgets what both views, and so all later ones, see; says what is in dispute between them.
    func dispute(source: ViewMark, target: ViewMark) -> Dispute {
        let dispute = log.dispute(source: source, target: target)
        log.forget { Self.isSeen($0, source, target) }
        return dispute
    }

    /// The place of the last transaction before `end` that not both views are known to see; nil if they see all.
    func lastUnseen(before end: Position) -> Position? { log.lastCommit(before: end) }

    /// See ``TouchLog/touchWhole(_:at:)``.
    func touchWhole(_ table: Int, at position: Position) { log.touchWhole(table, at: position) }

    /// A position such that both of the last two views, and so all later ones, see every transaction before it.
    var settled: Position { log.transactions.map(\.commit).min() ?? log.frontier }

    func close() async { await reader.close() }
}

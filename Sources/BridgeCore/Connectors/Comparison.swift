/// One database as the checker reads it, in one of its two roles. Opened by a connector; has connections and threads of
/// its own, and disturbs neither capture nor applier.
///
/// The argument that the checker makes out of these calls stands in BridgeConsistency's documentation. In short: a
/// *view* is a picture of the database together with an exact statement of which transactions it sees; keys that a
/// transaction touched which is not seen by both views are left out of the comparison and looked at again later.
package protocol ComparisonSession: Sendable {
    /// How a table of the link is compared here.
    /// - Parameter columns: nil on the source, for the columns that travel. On the target the source's columns: the
    ///   answer has the same names in the same order, with this database's own types.
    /// - Throws: `tableMissing`, `targetTableMissing`, `targetTableMismatch`, `configurationInvalid`.
    func layout(
        of mapping: TableMapping, columns: [Relation.Column]?
    ) async throws(BridgeError) -> ComparisonLayout

    /// A consistent picture of all tables, held until it is closed.
    /// - Parameter sparing: whether work in the view leaves the server's other processors to the application.
    func openView(sparing: Bool) async throws(BridgeError) -> any ComparisonView

    /// What is asked of the role: one of the two, the other is nil.
    var source: (any ComparisonSource)? { get }
    var target: (any ComparisonTarget)? { get }

    /// Facts about the tables that are not rows, for the validations of schemas, indexes and constraints. In the order of
    /// the mappings; nil for a table that is not there.
    func facts() async throws(BridgeError) -> [TableFacts?]

    func close() async
}

extension ComparisonSession {
    /// A view that spares the application.
    package func openView() async throws(BridgeError) -> any ComparisonView { try await openView(sparing: true) }
}

package enum ComparisonRole: Sendable { case source, target }

/// What only a source is asked.
package protocol ComparisonSource: Sendable {
    /// A position such that every transaction whose commit stands before it is seen by every view that is opened later.
    ///
    /// PostgreSQL writes a commit to its log before snapshots see it, and the time between has no bound, so the end of the
    /// log at some moment will not do: the transactions that were open at that moment are waited for, or found not to be
    /// committing.
    /// - Parameter afterWriters: whether every transaction that had written something when this was called must have ended
    ///   before the position; then all that it wrote, in whatever way it was captured, is seen as well.
    /// - Throws: `slotBlocked`, naming the processes, if some transaction stays undecided for longer than `patience`.
    func settledPosition(patience: Duration, afterWriters: Bool) async throws(BridgeError) -> Position

    /// The end of the source's log: whatever a view opened before this call sees stands before it.
    func currentPosition() async throws(BridgeError) -> Position

    /// Waits until every transaction that wrote to the tables before the call has ended, by taking and at once releasing
    /// a lock that writers hold off. Under a fence no writer is then left.
    /// - Throws: `serverBusy` after `patience`.
    func waitForWriters(patience: Duration) async throws(BridgeError)

    /// All that capture rests on: slot with its creation point, publication, operations, filters, replica identities and
    /// columns; or log, triggers and table definitions. Two equal answers, and a capture that was not interrupted, mean
    /// that every change in between was captured in the same way; two that differ in the part of one table, that this is
    /// so of all other tables.
    /// - Throws: `slotMissing`, `slotLost`, `captureBroken`, `sourceReplaced`.
    func captureFingerprint() async throws(BridgeError) -> CaptureFingerprint
}

extension ComparisonSource {
    package func settledPosition(patience: Duration) async throws(BridgeError) -> Position {
        try await settledPosition(patience: patience, afterWriters: false)
    }
}

/// What capture rests on, as text that is only compared.
package struct CaptureFingerprint: Hashable, Codable, Sendable {
    /// What all tables share.
    package var common: String
    /// For each table of the link, in the order of its mappings, what concerns it alone.
    package var tables: [String]

    package init(common: String, tables: [String]) {
        self.common = common
        self.tables = tables
    }

    /// The places of the tables whose parts are others than in `older`; nil if what all share differs.
    package func changedTables(since older: CaptureFingerprint) -> [Int]? {
        guard common == older.common, tables.count == older.tables.count else { return nil }
        return tables.indices.filter { tables[$0] != older.tables[$0] }
    }
}

/// What only a target is asked.
package protocol ComparisonTarget: Sendable {
    /// Begins to record every write to the link's tables by anyone but an applier of bridge, if it is not recorded
    /// already. What is made is named after the link and goes with `removeLink`.
    func watchForeignWrites() async throws(BridgeError)

    /// What was recorded.
    /// - Parameter after: the number of the last one seen; 0 for all.
    /// - Throws: `captureBroken` if the watch is not there whole (a trigger dropped, disabled, or other than it was made),
    ///   or never gave out the number `after`.
    func foreignWrites(after: Int64, limit: Int) async throws(BridgeError) -> [ForeignWrite]

    /// Which watch it is, and the mark that `check` left beside it. Writes nothing.
    /// - Throws: `captureBroken` if there is no watch.
    func watchMark(of check: String) async throws(BridgeError) -> WatchMark

    /// Raises the counter of `check`, durably, and so that nobody takes it for a write by others.
    /// - Parameter old: another check whose counter is needed no more.
    /// - Throws: `captureBroken` if there is no watch.
    func raiseMark(of check: String, inPlaceOf old: String?) async throws(BridgeError) -> WatchMark
}

/// Which watch over foreign writes a target has, and how often a check raised the counter that it keeps beside it. A target
/// that is put back to an earlier state has a lower counter, or another watch.
package struct WatchMark: Hashable, Sendable {
    /// Made with the record of writes, and never again: a record that is dropped and made anew has another one.
    package var identity: String
    /// 0 if the check has none.
    package var counter: Int64
    /// What may alter the applier's rows, or write others, unrecorded: rules and triggers by name.
    package var unrecorded: [String]

    package init(identity: String, counter: Int64, unrecorded: [String] = []) {
        self.identity = identity
        self.counter = counter
        self.unrecorded = unrecorded
    }
}

/// A write to the target by someone else than an applier.
package struct ForeignWrite: Hashable, Sendable {
    package var number: Int64
    /// The target's table.
    package var table: TableName
    /// The row's key, in canonical cells; nil if the whole table was emptied.
    package var key: KeyImage?
    package var writtenAt: Timestamp?

    package init(number: Int64, table: TableName, key: KeyImage?, writtenAt: Timestamp? = nil) {
        self.number = number
        self.table = table
        self.key = key
        self.writtenAt = writtenAt
    }
}

/// A row's key as a row image of the key's columns alone, in the order in which the layout has them. Cells are canonical,
/// or, as read from a journal whose link has the native form, the engine's own text.
package struct KeyImage: Hashable, Sendable {
    package var bytes: [UInt8]
    package init(_ bytes: [UInt8]) { self.bytes = bytes }
}

/// How one side has a table that is compared.
package struct ComparisonLayout: Hashable, Sendable {
    /// The table's name on this side.
    package var table: TableName
    /// The columns compared. `isKey` marks those that name a row; without any the whole row does, and may occur twice.
    package var columns: [Relation.Column]
    /// In what order this side ranges over the first key column. Ranges are used only if both sides give the same
    /// answer; nil where there is no order that another database could share. Known ones: `integer`, `bytes` (memcmp),
    /// `utf8` (memcmp of UTF-8); others name engine, collation and its version.
    package var keyOrder: String?
    package var estimatedRows: Int64?
    /// What the rows take on disk, in bytes; nil if that is not known.
    package var estimatedBytes: Int64?
    /// Names the way in which this side can hash the rows by itself: engine, major version, and for each column how it
    /// enters the hash. If both sides give the same answer, equal rows have equal hashes and different rows have
    /// different ones, as far as a hash can. Nil if it cannot.
    package var serverHash: String?
    /// Columns whose values cannot be compared, with why: the table's verdict is then inconclusive.
    package var incomparable: [String: String]
    /// Columns that hold numbers without a scale whatever they are given, so that zeros at the end of decimals say nothing on
    /// the other side either: 1.10 is 1.1.
    package var scaleless: Set<String>

    package init(
        table: TableName, columns: [Relation.Column], keyOrder: String? = nil, estimatedRows: Int64? = nil,
        estimatedBytes: Int64? = nil, serverHash: String? = nil, incomparable: [String: String] = [:],
        scaleless: Set<String> = []
    ) {
        self.table = table
        self.columns = columns
        self.keyOrder = keyOrder
        self.estimatedRows = estimatedRows
        self.estimatedBytes = estimatedBytes
        self.serverHash = serverHash
        self.incomparable = incomparable
        self.scaleless = scaleless
    }
}

/// Which rows of a table are meant.
package struct ComparisonRequest: Hashable, Sendable {
    package var layout: ComparisonLayout
    /// On the source, the mapping's row filter.
    package var rowFilter: String?
    /// Bounds on the first key column, in the order that the layout names: rows at or above `from` and below `to`. Each
    /// is a row image of one canonical cell; nil is no bound.
    package var from: KeyImage?
    package var to: KeyImage?

    package init(layout: ComparisonLayout, rowFilter: String? = nil, from: KeyImage? = nil, to: KeyImage? = nil) {
        self.layout = layout
        self.rowFilter = rowFilter
        self.from = from
        self.to = to
    }
}

/// A picture of a database at one moment. Calls of one view come one at a time.
package protocol ComparisonView: Sendable {
    /// Which transactions of the *source* the picture holds: on the source those that the snapshot sees, on the target
    /// those before the checkpoint that was read in the same picture.
    var sees: ViewMark { get }

    /// Opens the rows as images in canonical form, one after the other in any order.
    func openRows(_ request: ComparisonRequest) async throws(BridgeError) -> any RowStream

    /// Appends the rows with these keys as ``RowStream/read(into:limit:)`` does, in any order; keys without a row give
    /// nothing. Bounds of the request do not count, its row filter does.
    /// - Returns: the number of rows.
    @discardableResult
    func findRows(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer
    ) async throws(BridgeError) -> Int

    /// The same, but not if the rows take more than `limit` bytes: nil then, and the buffer is as it was. A single key is
    /// never too much.
    func findRows(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer, limit: Int
    ) async throws(BridgeError) -> Int?

    /// The keys of rows that are drawn at random, each row as likely as any other and nearly independently: about `count`
    /// of them, all where there are no more; fewer where keys are large. Bounds of the request do not count, its row
    /// filter does.
    /// - Parameter seed: with the same seed and the same rows, stored in the same way, the same keys.
    func drawKeys(_ request: ComparisonRequest, count: Int, seed: UInt64) async throws(BridgeError) -> [KeyImage]

    /// The lower bound of the range that follows a range of about `rows` rows which begins at `request.from`; nil if
    /// there are no more rows than that. Only for tables with a `keyOrder`.
    func boundary(_ request: ComparisonRequest, rows: Int) async throws(BridgeError) -> KeyImage?

    /// Counts and hashes on the server. Only where the layout has a `serverHash`.
    /// - Parameter buckets: rows are told apart by a hash of their key into so many buckets; 1 for none. The same rows
    ///   fall into the same buckets on every server with an equal `serverHash`.
    func digest(_ request: ComparisonRequest, buckets: Int) async throws(BridgeError) -> [RowDigest]

    /// Opens keys with their server-side hashes: images of the key's cells (all columns, if there is no key), then the
    /// row's hash as an integer cell. Only rows in one of `wanted` out of `buckets`.
    func openHashes(
        _ request: ComparisonRequest, buckets: Int, wanted: Set<Int>
    ) async throws(BridgeError) -> any RowStream

    /// The same for the rows with these keys.
    @discardableResult
    func findHashes(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer
    ) async throws(BridgeError) -> Int

    func close() async
}

/// Rows that are read one after the other.
package protocol RowStream: Sendable {
    /// Appends whole rows, each a 32-bit length and a row image, until `limit` bytes or more are there; returns how many,
    /// 0 only at the end.
    func read(into buffer: RecordBuffer, limit: Int) async throws(BridgeError) -> Int

    /// Ends reading, also before the end.
    func close() async
}

/// Count and sum of rows' hashes. Sums wrap. Two sides with the same rows have the same digest, whatever the order.
package struct RowDigest: Hashable, Sendable {
    package var count: UInt64
    package var sum: UInt128

    package init(count: UInt64 = 0, sum: UInt128 = 0) {
        self.count = count
        self.sum = sum
    }

    package mutating func add(_ hash: UInt128) {
        count &+= 1
        sum &+= hash
    }

    package mutating func subtract(_ hash: UInt128) {
        count &-= 1
        sum &-= hash
    }
}

/// Which of the source's transactions a view sees.
package enum ViewMark: Hashable, Sendable {
    /// Those that a snapshot sees, by their 64-bit numbers.
    case transactions(TransactionSnapshot)
    /// Those that committed before this position, and no other.
    case before(Position)

    /// Whether the view sees a transaction.
    package func sees(_ transaction: UInt64, commit: Position) -> Bool {
        switch self {
        case .transactions(let snapshot): snapshot.sees(transaction)
        case .before(let position): commit < position
        }
    }
}

/// PostgreSQL's `pg_snapshot`: top-level transaction numbers, 64 bits wide.
package struct TransactionSnapshot: Hashable, Sendable {
    /// All below have ended.
    package var minimum: UInt64
    /// At and above none had ended.
    package var maximum: UInt64
    /// Between the two, those still in progress.
    package var inProgress: Set<UInt64>

    package init(minimum: UInt64, maximum: UInt64, inProgress: Set<UInt64>) {
        self.minimum = minimum
        self.maximum = maximum
        self.inProgress = inProgress
    }

    /// Whether it sees the writes of a transaction that has committed by now.
    package func sees(_ transaction: UInt64) -> Bool {
        transaction < minimum || (transaction < maximum && !inProgress.contains(transaction))
    }

    /// Reads `xmin:xmax:xip,…`, as `pg_current_snapshot()::text` prints it; nil for anything else.
    package init?(_ text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 3, let minimum = UInt64(parts[0]), let maximum = UInt64(parts[1]), minimum <= maximum
        else { return nil }
        var open: Set<UInt64> = []
        for part in parts[2].split(separator: ",") {
            guard let number = UInt64(part), number >= minimum, number < maximum else { return nil }
            open.insert(number)
        }
        self.init(minimum: minimum, maximum: maximum, inProgress: open)
    }
}

/// What a database says about one table beyond its rows.
package struct TableFacts: Hashable, Sendable {
    package struct Index: Hashable, Sendable {
        package var schema: IndexSchema
        /// Whether the engine uses it and keeps it up to date.
        package var isValid: Bool

        package init(schema: IndexSchema, isValid: Bool = true) {
            self.schema = schema
            self.isValid = isValid
        }
    }

    package struct Constraint: Hashable, Sendable {
        package enum Kind: String, Sendable { case primaryKey, unique, check, foreignKey, exclusion, notNull }
        package var kind: Kind
        package var name: String?
        /// The columns it is about, in its own order.
        package var columns: [String]
        /// The engine's text of it, without its name.
        package var definition: String
        /// Whether all rows were proven to fulfil it.
        package var isValidated: Bool

        package init(kind: Kind, name: String?, columns: [String], definition: String, isValidated: Bool = true) {
            self.kind = kind
            self.name = name
            self.columns = columns
            self.definition = definition
            self.isValidated = isValidated
        }
    }

    /// A sequence that a column draws from; for SQLite the AUTOINCREMENT counter.
    package struct Sequence: Hashable, Sendable {
        package var column: String
        package var lastValue: Int64?
        package var increment: Int64

        package init(column: String, lastValue: Int64?, increment: Int64 = 1) {
            self.column = column
            self.lastValue = lastValue
            self.increment = increment
        }
    }

    package var schema: TableSchema
    package var indexes: [Index]
    package var constraints: [Constraint]
    package var sequences: [Sequence]
    /// Extensions that the table's types and indexes come from, with their versions.
    package var extensions: [String: String]

    package init(
        schema: TableSchema, indexes: [Index] = [], constraints: [Constraint] = [], sequences: [Sequence] = [],
        extensions: [String: String] = [:]
    ) {
        self.schema = schema
        self.indexes = indexes
        self.constraints = constraints
        self.sequences = sequences
        self.extensions = extensions
    }
}

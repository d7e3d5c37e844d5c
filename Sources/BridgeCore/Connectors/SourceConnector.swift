/// A database as the place that changes come from.
///
/// The order of calls is: `preflight`, `prepareCapture` (once in the life of a link), then for every run
/// `openCapture`, and while tables are still to be copied `openSnapshot`. Everything that a connector makes on the
/// source is named after ``LinkDescription/identifier`` and removed by ``removeCapture(_:)``.
package protocol SourceConnector: Connector {
    /// A position for people: `0/16B3748`, `seq 4711`.
    func describe(_ position: Position) -> String

    /// The same as ``Connector/describeTables(_:)``, with the types as which the values travel. Where the catalog does not fix
    /// these, every value is looked at: for preflight and for the plan of a schema only.
    func planTables(_ names: [TableName]) async throws(BridgeError) -> [TableSchema]

    /// Whatever would make `run` impossible or worse. Changes nothing.
    func preflight(_ link: LinkDescription) async throws(BridgeError) -> [Finding]

    /// Whether something that ``prepareCapture(_:replacingLeftovers:)`` would make is there already, of whosever making.
    func captureExists(_ link: LinkDescription) async throws(BridgeError) -> Bool

    /// Makes what capture needs (publication and slot; log and triggers), so that every transaction that commits at or
    /// after the returned origin's position will be delivered.
    ///
    /// The target holds the intent before this is called and the origin after it, so a crash in between leaves things
    /// that no record names. `replacingLeftovers` says that the intent was already there when the process started, and
    /// the intent is only written while nothing of that name exists: leftovers are then this link's own, and are removed
    /// and made anew. Without it, something of that name is somebody else's.
    /// - Throws: `slotForeign` for a name that is taken; `slotBlocked` naming the processes that are waited for.
    func prepareCapture(_ link: LinkDescription, replacingLeftovers: Bool) async throws(BridgeError) -> CaptureOrigin

    /// A consistent picture of the tables. Transactions before the snapshot's position are in it, all others are not.
    /// - Parameter origin: what ``prepareCapture(_:replacingLeftovers:)`` returned. The picture gives no table that was
    ///   another one then.
    func openSnapshot(_ link: LinkDescription, origin: CaptureOrigin) async throws(BridgeError) -> any SourceSnapshot

    /// Begins to deliver transactions.
    /// - Parameters:
    ///   - origin: what ``prepareCapture(_:replacingLeftovers:)`` returned in the first run. If the source no longer is
    ///     what the origin says, the call throws: `slotMissing`, `slotLost`, `slotForeign`, `sourceReplaced`,
    ///     `captureBroken`. It never starts over by itself.
    ///   - durable: everything before it is in the journal already and is not delivered again. Never earlier than
    ///     what the source was told; if the source says it was told more, that is `slotForeign`: changes are lost.
    ///   - workspace: where the session may put what it cannot deliver yet, and what it knows the source by; nil:
    ///     nowhere. A source that needs none ignores it.
    func openCapture(
        _ link: LinkDescription, origin: CaptureOrigin, durable: Position, workspace: CaptureWorkspace?
    ) async throws(BridgeError) -> any CaptureSession

    /// A position such that everything that is committed now stands before it.
    func currentPosition(_ link: LinkDescription) async throws(BridgeError) -> Position

    /// The source's own view of the link.
    /// - Parameter applied: everything before it is on the target.
    func health(_ link: LinkDescription, applied: Position) async throws(BridgeError) -> SourceHealth

    /// What the source keeps for the link because nobody has taken it; nil for a source of which that is not asked, or
    /// one that keeps nothing. Over a connection of its own, so that it waits for nothing else and nothing for it.
    func retention(_ link: LinkDescription) async throws(BridgeError) -> SourceRetention?

    /// What preflight has to say of a limit to what the source may keep for the link. Changes nothing.
    func retentionFindings(_ link: LinkDescription, limit: Int64) async throws(BridgeError) -> [Finding]

    /// In which forms ``SourceSnapshot/openTable(_:format:)`` can give a table, best first. Always ends with `rows`.
    func copyFormats(_ table: TableSchema) -> [CopyFormat]

    /// Removes all that ``prepareCapture(_:replacingLeftovers:)`` made. Nothing there is not an error.
    func removeCapture(_ link: LinkDescription) async throws(BridgeError)
}

extension SourceConnector {
    package func retention(_ link: LinkDescription) async throws(BridgeError) -> SourceRetention? { nil }

    package func retentionFindings(
        _ link: LinkDescription, limit: Int64
    ) async throws(BridgeError) -> [Finding] { [] }

    /// Begins to deliver transactions, without a folder to work in.
    package func openCapture(
        _ link: LinkDescription, origin: CaptureOrigin, durable: Position
    ) async throws(BridgeError) -> any CaptureSession {
        try await openCapture(link, origin: origin, durable: durable, workspace: nil)
    }
}

/// What a source keeps for a link.
package struct SourceRetention: Hashable, Sendable {
    /// Log that only this link holds back, in bytes.
    package var bytes: Int64
    /// What the server calls the state of it: `reserved`, `extended`, `unreserved`, `lost`.
    package var state: String?
    /// How much more may be written before the server itself gives the link up; nil if it never does, or does not say.
    package var safeBytes: Int64?
    /// Where the source's log ended at that moment; nil if it does not say.
    package var logEnd: Position?

    package init(bytes: Int64, state: String? = nil, safeBytes: Int64? = nil, logEnd: Position? = nil) {
        self.bytes = bytes
        self.state = state
        self.safeBytes = safeBytes
        self.logEnd = logEnd
    }
}

/// A folder for what a capture session holds back until it may be delivered, such as transactions that are still running.
///
/// One session at a time has it. No change is lost with what is in it once the session has ended, in whatever way: the
/// source sends it again, and the next session removes what it finds. A source may also keep there what it knows itself by;
/// without that, it finds fewer faults.
package struct CaptureWorkspace: Hashable, Sendable {
    /// Made if it does not exist.
    package var directory: String
    /// How many bytes may be put there; nil for no bound. A source that would need more must do without.
    package var budget: Int64?

    package init(directory: String, budget: Int64? = nil) {
        self.directory = directory
        self.budget = budget
    }
}

/// What a link's capture began with. It is stored on the target and binds the journal.
package struct CaptureOrigin: Hashable, Sendable {
    /// What the source was, as facts that must not change: system identifier, timeline, slot, creation point; or
    /// database identity and change-log epoch. The key and the value hold no line break and the key no `=`.
    package var identity: [String: String]
    /// Transactions at or after this position are delivered.
    package var position: Position

    package init(identity: [String: String], position: Position) {
        self.identity = identity
        self.position = position
    }

    /// The identity as sorted `key=value` lines: what the journal is bound to.
    package var identityText: String {
        identity.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: "\n")
    }

    /// Reads back ``identityText``.
    package static func identity(fromText text: String) -> [String: String] {
        var facts: [String: String] = [:]
        for line in text.split(separator: "\n") {
            guard let equals = line.firstIndex(of: "=") else { continue }
            facts[String(line[..<equals])] = String(line[line.index(after: equals)...])
        }
        return facts
    }
}

/// What a source says about a link.
package struct SourceHealth: Hashable, Sendable {
    /// Everything committed now stands before it.
    package var current: Position
    /// What the source was told is durable; nil if it keeps no such thing.
    package var acknowledged: Position?
    /// Log that the source keeps for this link only, in bytes; nil if unknown.
    package var retainedBytes: Int64? {
        get { retention?.bytes }
        set { retention = newValue.map { SourceRetention(bytes: $0, state: retention?.state, safeBytes: retention?.safeBytes) } }
    }
    /// The same with what else the server says of it.
    package var retention: SourceRetention?
    /// How far the target is behind, in bytes of the source's log; nil if the source cannot say.
    package var lagBytes: Int64?

    package init(
        current: Position, acknowledged: Position? = nil, retainedBytes: Int64? = nil, retention: SourceRetention? = nil,
        lagBytes: Int64? = nil
    ) {
        self.current = current
        self.acknowledged = acknowledged
        self.retention = retention ?? retainedBytes.map { SourceRetention(bytes: $0) }
        self.lagBytes = lagBytes
    }
}

/// Delivers a source's committed transactions as records, in commit order.
///
/// Between reads the session keeps its connection to the source alive by itself, however long nobody reads.
///
/// Records come as: relation (before its first use and after each change), begin, rows, commit. A transaction may stretch
/// over many reads. Transactions never interleave. A commit's position is its begin's, except for sources that log keys
/// (upsert and remove records): there a transaction may grow while it is read, and its commit stands later than its begin.
package protocol CaptureSession: Sendable {
    /// Appends records to `buffer`. Returns as soon as something was received and nothing more is at hand, or `limit`
    /// bytes are there, or `patience` has passed with nothing, or ``interrupt()`` was called. Whole rows only; one row
    /// may exceed the limit.
    /// - Throws: `connectionLost`, or `streamingRefused`, when a new session may go on; anything else is final.
    func read(into buffer: RecordBuffer, limit: Int, patience: Duration) async throws(BridgeError) -> CaptureProgress

    /// States that everything before `position` is durable here; the source may forget it. Returns at once; the source
    /// hears of it from the reading thread. Positions that go backwards are ignored.
    func acknowledge(_ position: Position)

    /// Makes a waiting ``read(into:limit:patience:)`` return soon. From any thread.
    func interrupt()

    /// Ends the session after telling the source of the last acknowledged position.
    func close() async
}

/// What one read delivered.
package struct CaptureProgress: Hashable, Sendable {
    /// The last transaction that the read closed.
    package var lastCommit: TransactionEnd?
    /// The commit position of the first transaction that the read opened or continued.
    package var firstCommit: Position?
    /// Whether the records end in the middle of a transaction.
    package var isInsideTransaction: Bool
    /// Everything committed before it has been delivered, by this read or an earlier one. Never goes backwards.
    package var frontier: Position
    /// Whether somebody waits for the journal to reach this frontier, who had the source's log marked for it.
    package var isAwaited = false
    package var rows: Int
    package var transactions: Int

    package init(
        lastCommit: TransactionEnd? = nil, firstCommit: Position? = nil, isInsideTransaction: Bool = false,
        frontier: Position, rows: Int = 0, transactions: Int = 0
    ) {
        self.lastCommit = lastCommit
        self.firstCommit = firstCommit
        self.isInsideTransaction = isInsideTransaction
        self.frontier = frontier
        self.rows = rows
        self.transactions = transactions
    }
}

/// The form in which a table's rows are copied.
package struct CopyFormat: RawRepresentable, Hashable, Sendable {
    package let rawValue: String
    package init(rawValue: String) { self.rawValue = rawValue }
    /// A 32-bit length, then a row image in canonical form, row after row. Every connector reads and writes it.
    package static let rows = CopyFormat(rawValue: "rows")
}

/// A consistent picture of a source. Several tables may be read at a time, each by a reader of its own.
package protocol SourceSnapshot: Sendable {
    /// Cuts each table into parts of about `partBytes`, which together hold each of its rows once. A table that is small,
    /// or that the engine cannot cut, is one part, the whole.
    /// - Returns: the parts of each table, in the order of the tables, numbered from 0.
    func planParts(_ tables: [CopiedTable], partBytes: Int64) async throws(BridgeError) -> [[CopyPart]]

    /// Opens the rows of a table's part as they were at the reader's position, which is the same for all parts of a table
    /// that has several.
    /// - Parameters:
    ///   - table: as the source described it; only `columns` and rows of `mapping` travel.
    ///   - part: one that this snapshot planned, or the whole.
    func openTable(
        _ table: TableSchema, mapping: TableMapping, part: CopyPart, format: CopyFormat
    ) async throws(BridgeError) -> any CopyReader

    /// Whether readers can be opened still: false once the picture is gone, or was found to show a table no more.
    func isUsable() async -> Bool

    /// Releases the picture.
    func close() async
}

/// Reads one table for the copy.
package protocol CopyReader: Sendable {
    /// Transactions before it are in the rows, all others are not.
    var position: Position { get }
    /// The columns in the order in which the rows have them.
    var columns: [Relation.Column] { get }

    /// Appends whole rows to `buffer` until `limit` bytes are there; returns how many rows, 0 only at the end.
    func read(into buffer: RecordBuffer, limit: Int) async throws(BridgeError) -> Int

    func close() async
}

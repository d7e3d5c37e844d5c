/// One of the migration's two databases as a cutover deals with it. Opened by a connector; has a connection and a thread of
/// its own. The two databases are asked the same things: which of them the application leaves, and which it goes to, is
/// the caller's knowledge, and changes with the direction.
///
/// Everything that is made here is named after the migration and goes with ``removeAll()``.
package protocol CutoverSession: Sendable {
    // MARK: Fence

    /// What stands on these tables.
    func fence(on tables: [TableName]) async throws(BridgeError) -> FenceState

    /// Stops the application's writes to the tables, all of them or none, by a change of the catalog. When it returns, the
    /// fence is durable, no transaction that wrote to one of the tables is still open, and none can begin: for no role, in
    /// no session, by no statement, except for appliers of bridge.
    ///
    /// A fence of the same attempt is found and kept, with the new expiry; one of another attempt is refused, but where both
    /// are for good. So is an epoch at or below one that is published here: its attempt is over.
    /// Locks are asked for a few hundred milliseconds at a time, with pauses in between, so that no statement of the
    /// application waits longer than that behind an attempt that fails.
    /// - Throws: `serverBusy` after `patience`, naming the processes, or the prepared transactions, that hold the tables;
    ///   `fenceForeign` for a fence of somebody else.
    func raise(_ fence: Fence, patience: Duration) async throws(BridgeError)

    /// Takes the expiry away: the point of no return. Decided under the tables' locks, by the database's own clock.
    /// - Throws: `fenceExpired`, with nothing changed, unless the fence of this attempt stands and `margin` remains.
    func makePermanent(attempt: String, tables: [TableName], margin: Duration) async throws(BridgeError)

    /// Removes fences of this migration. Nothing there is not an error.
    /// - Parameters:
    ///   - attempt: whose fence goes, expired or not, and what others left that has expired; never one that is for good. Nil
    ///     for whatever fence there is.
    ///   - epoch: with nil for the attempt, a fence of a later epoch stays: a newer attempt made it. Nil for all.
    func removeFence(attempt: String?, through epoch: Int64?, tables: [TableName]) async throws(BridgeError)

    // MARK: Marker

    /// Writes a marker that travels through capture and journal like a change, in a transaction of its own, and is durable
    /// when this returns. Fences do not stop it.
    func writeMarker(_ marker: String, link: LinkDescription) async throws(BridgeError)

    /// The last marker that the link's applier has committed here, together with the checkpoint behind it.
    func arrivedMarker(_ link: LinkDescription) async throws(BridgeError) -> String?

    // MARK: Sequences

    /// The sequences that columns of these tables draw from, whoever owns them.
    func sequences(of tables: [TableName]) async throws(BridgeError) -> [CutoverSequence]

    /// Sees to it that each column's next value is above the given one (below it, for a sequence that counts down), and
    /// above every value in the column. A sequence that is ahead already is left alone.
    /// - Returns: what had to be moved.
    /// - Throws: `sequenceExhausted` where the value does not fit the sequence's bounds or type.
    @discardableResult
    func advance(_ sequences: [SequenceTarget]) async throws(BridgeError) -> [SequenceTarget]

    // MARK: Facts

    /// What a gate must know of this side.
    func facts(of tables: [TableName]) async throws(BridgeError) -> CutoverFacts

    /// What each table's definition is, as a short hash: equal hashes, equal definitions, whichever tables are asked for
    /// beside it. What bridge itself makes is not in it. Only the catalog is read. A table that is not there is left out.
    func schemaFingerprints(of tables: [TableName]) async throws(BridgeError) -> [TableName: String]

    // MARK: Records

    /// Takes the migration's operator lease, or renews the caller's own: one operator at a time.
    /// - Throws: `alreadyRunning`, naming the holder, while another's lease lasts.
    func takeLease(owner: String, lasting: Duration) async throws(BridgeError)
    func releaseLease(owner: String) async throws(BridgeError)

    /// Appends to the ledger. The caller's lease is checked in the same transaction.
    /// - Throws: `ledgerDiverged` if `entry.number` does not follow the last one's; `leaseLost`.
    func append(_ entry: LedgerEntry, owner: String) async throws(BridgeError)
    /// All entries, oldest first.
    func ledger() async throws(BridgeError) -> [LedgerEntry]

    /// Publishes routes in this database: rows in its routing table, and a notification where the engine has them. An
    /// epoch that is not above the published one is left alone.
    func publish(_ routes: [Route]) async throws(BridgeError)
    func routes() async throws(BridgeError) -> [Route]

    /// Removes fences, markers, routes, lease and ledger of this migration. Nothing there is not an error.
    func removeAll() async throws(BridgeError)

    func close() async

    // MARK: Old tables

    /// Gives tables that the application has left their new names, all of them in one transaction; one that has its new
    /// name already is left alone. Only what this migration's fence stands on for good is renamed, and the fence with it.
    /// - Parameter isTrial: before the first try: finds what stands in the way, and changes nothing.
    /// - Throws: `configurationInvalid` for a name that is taken, a table that is not fenced, or what the engine refuses;
    ///   `serverBusy`.
    func rename(_ tables: [OldTable], isTrial: Bool) async throws(BridgeError)
}

/// What stops the application's writes, and for how long.
package struct Fence: Hashable, Sendable {
    /// Who raised it: a random name, the same in the ledger.
    package var attempt: String
    /// With the service that each table belongs to.
    package var tables: [TableName: String]
    /// The routing epoch that the application finds its new home under.
    package var epoch: Int64
    /// From the moment it stands, by the database's own clock; nil for good.
    package var lease: Duration?

    package init(attempt: String, tables: [TableName: String], epoch: Int64, lease: Duration?) {
        self.attempt = attempt
        self.tables = tables
        self.epoch = epoch
        self.lease = lease
    }
}

/// What stands on some tables.
package enum FenceState: Hashable, Sendable {
    case none
    /// Writes are stopped for so long yet.
    case leased(attempt: String, remaining: Duration)
    /// It is there and stops nobody any more.
    case expired(attempt: String)
    case permanent(attempt: String)
    /// Not the same on all tables, or not as it was made: somebody else changed it.
    case mixed(String)
    /// The same of a fence that is for good, on one of the tables at least: what it was made for is behind the point of no
    /// return.
    case permanentAltered(String)
}

/// A sequence that a column draws from.
package struct CutoverSequence: Hashable, Sendable {
    package var table: TableName
    package var column: String
    /// The sequence's name, for people.
    package var name: String
    /// No value at or below it (above, for one that counts down) is given out again; nil if none was given out yet.
    package var lastValue: Int64?
    package var increment: Int64
    /// Whether the engine gives out values for such a column by itself, so that nobody may ever have asked for one.
    package var isImplicit: Bool

    package init(
        table: TableName, column: String, name: String, lastValue: Int64?, increment: Int64, isImplicit: Bool = false
    ) {
        self.table = table
        self.column = column
        self.name = name
        self.lastValue = lastValue
        self.increment = increment
        self.isImplicit = isImplicit
    }
}

/// How far a column's sequence has to be.
package struct SequenceTarget: Hashable, Sendable {
    package var table: TableName
    package var column: String
    package var value: Int64
    /// Whether it is an error if the column draws from no sequence here.
    package var isRequired: Bool

    package init(table: TableName, column: String, value: Int64, isRequired: Bool = true) {
        self.isRequired = isRequired
        self.table = table
        self.column = column
        self.value = value
    }
}

/// What gates must know of a database.
package struct CutoverFacts: Hashable, Sendable {
    /// Transactions prepared for two-phase commit that hold one of the tables, or may.
    package var preparedTransactions: [String]
    /// How long the oldest open transaction of this database has been open, and its process; nil if there is none.
    package var oldestTransactionAge: Duration?
    package var oldestTransactionProcess: String?
    /// Foreign keys among these tables, or from and to them, that rows break: constraint and how many rows.
    package var brokenForeignKeys: [String: Int64]
    /// Tables that are not as they were when the fence was raised, or cannot be fenced, with why.
    package var unfenceable: [TableName: String]

    package init(
        preparedTransactions: [String] = [], oldestTransactionAge: Duration? = nil, oldestTransactionProcess: String? = nil,
        brokenForeignKeys: [String: Int64] = [:], unfenceable: [TableName: String] = [:]
    ) {
        self.preparedTransactions = preparedTransactions
        self.oldestTransactionAge = oldestTransactionAge
        self.oldestTransactionProcess = oldestTransactionProcess
        self.brokenForeignKeys = brokenForeignKeys
        self.unfenceable = unfenceable
    }
}

/// One line of the ledger: what was meant to be done, or what came of it.
package struct LedgerEntry: Hashable, Sendable {
    /// 1 for the first; without gaps.
    package var number: Int64
    package var writtenAt: Timestamp
    /// Of the attempt that it belongs to.
    package var attempt: String
    /// What kind of entry, such as `begin`, `done`, `abort`, `end`: the caller's words.
    package var kind: String
    /// Details as one line of JSON with sorted keys: the caller's.
    package var content: String
    /// Checksum over all of this and the predecessor's checksum, as the caller reckons it.
    package var checksum: String

    package init(
        number: Int64, writtenAt: Timestamp, attempt: String, kind: String, content: String, checksum: String
    ) {
        self.number = number
        self.writtenAt = writtenAt
        self.attempt = attempt
        self.kind = kind
        self.content = content
        self.checksum = checksum
    }
}

/// Where a service reads and writes.
package struct Route: Hashable, Sendable {
    package var service: String
    /// `source` or `target`.
    package var reads: String
    package var writes: String
    /// Only grows.
    package var epoch: Int64
    package var publishedAt: Timestamp

    package init(service: String, reads: String, writes: String, epoch: Int64, publishedAt: Timestamp) {
        self.service = service
        self.reads = reads
        self.writes = writes
        self.epoch = epoch
        self.publishedAt = publishedAt
    }
}

extension CutoverSession {
    /// The same whatever the epoch.
    package func removeFence(attempt: String?, tables: [TableName]) async throws(BridgeError) {
        try await removeFence(attempt: attempt, through: nil, tables: tables)
    }
}

/// A database as the place that changes go to.
///
/// The target keeps the link's records beside the data (phase, origin, checkpoint, which tables are copied), because only
/// there can they be written in the same transaction as the data.
package protocol TargetConnector: Connector {
    /// How many tables, or parts of them, may be loaded at a time; 1 for an engine with a single writer.
    var maximumParallelLoads: Int { get }

    /// Whatever would make `run` impossible or worse. Changes nothing.
    /// - Parameter sources: the source's tables, in the order of the link's mappings.
    func preflight(_ link: LinkDescription, sources: [TableSchema]) async throws(BridgeError) -> [Finding]

    /// The link's records; nil if there are none.
    func linkState(_ link: LinkDescription) async throws(BridgeError) -> LinkState?

    /// The origin that the link's records name; nil if there are no records, or they name none yet. Goes by the link's name
    /// alone, and is cheap, as it is asked for several times a second: by whoever waits for a link that another process makes.
    func linkOrigin(_ link: LinkDescription) async throws(BridgeError) -> CaptureOrigin?

    /// Makes the link's records with the phase `preparing`, if there are none: the intent. Returns them.
    func prepareLink(_ link: LinkDescription) async throws(BridgeError) -> LinkState

    /// Stores the origin and moves the phase to `copying`, in one transaction.
    func recordOrigin(_ link: LinkDescription, _ origin: CaptureOrigin) async throws(BridgeError)

    /// Moves the phase from `copying` to `syncing`, with the checkpoint at the origin. Every table is copied by then, and
    /// every index that was dropped for it is back.
    func finishCopy(_ link: LinkDescription) async throws(BridgeError)

    /// Makes the records of a link that needs no copy, because both sides hold the same already: phase `syncing`, every
    /// table done and the checkpoint at the origin's position, in one transaction. The same origin again changes nothing.
    /// - Throws: `checkpointForeign` if there are records with another origin.
    func adoptLink(_ link: LinkDescription, _ origin: CaptureOrigin) async throws(BridgeError)

    /// The first of `offered` that this target can load into the table.
    func chooseCopyFormat(
        _ offered: [CopyFormat], source: TableSchema, mapping: TableMapping
    ) async throws(BridgeError) -> CopyFormat

    /// Begins to load a table. What an earlier, unfinished load of this link left in it is removed first, where the engine
    /// loads in more than one transaction; rows of anybody else are refused with `targetTableNotEmpty`.
    func openLoad(
        _ link: LinkDescription, mapping: TableMapping, columns: [Relation.Column], format: CopyFormat
    ) async throws(BridgeError) -> any TableLoad

    /// Begins to load a table in parts, after removing what an earlier, unfinished load of this link left in it; rows of
    /// anybody else are refused with `targetTableNotEmpty`.
    /// - Parameter droppingIndexes: drops the indexes that can wait until the rows are there, and records each with what
    ///   makes it again; see ``droppedIndexes(_:)``.
    /// - Returns: nil if the target wants the table as a whole, by ``openLoad(_:mapping:columns:format:)``.
    func openParts(
        _ link: LinkDescription, mapping: TableMapping, parts: Int, droppingIndexes: Bool
    ) async throws(BridgeError) -> (any PartedLoad)?

    /// The indexes that were dropped for the link's copy and are still missing.
    func droppedIndexes(_ link: LinkDescription) async throws(BridgeError) -> [DroppedIndex]

    /// What builds a dropped index again. Several may run at a time.
    func restoration(of index: DroppedIndex, _ link: LinkDescription) async throws(BridgeError) -> any IndexRestoration

    /// Opens what applies the link's changes. Only one may be open for a link; the target enforces it.
    /// - Parameter onConflict: what it does with changes that the target's data contradicts.
    func openApplier(
        _ link: LinkDescription, onConflict: ConflictPolicy
    ) async throws(BridgeError) -> any ChangeApplier

    /// What the target recorded of changes that were not applied as the source made them.
    /// - Parameter limit: of the newest so many are told.
    func conflictHistory(_ link: LinkDescription, limit: Int) async throws(BridgeError) -> ConflictHistory

    /// Builds the indexes again that were dropped for the link's copy, removes the link's records, then waits until its
    /// applier is gone, wherever that runs: it finds no records to commit its checkpoint to, and ends. Data stays. Nothing
    /// there is not an error.
    /// - Throws: `alreadyRunning`, or what the engine calls it, if the applier is still there after a while; the records are
    ///   gone then.
    func removeLink(_ link: LinkDescription) async throws(BridgeError)

    /// How this engine would hold the source's tables: statements in an order that works, and what cannot be carried over.
    /// Statements for what exists already are marked so.
    func schemaPlan(for sources: [TableSchema], mappings: [TableMapping]) async throws(BridgeError) -> SchemaPlan

    /// Runs the plan's statements that are not marked as existing; all or nothing.
    func execute(_ plan: SchemaPlan) async throws(BridgeError)
}

extension TargetConnector {
    package var maximumParallelLoads: Int { .max }

    package func openApplier(_ link: LinkDescription) async throws(BridgeError) -> any ChangeApplier {
        try await openApplier(link, onConflict: .stop)
    }

    package func linkOrigin(_ link: LinkDescription) async throws(BridgeError) -> CaptureOrigin? {
        try await linkState(link)?.origin
    }
}

/// Where a link stands, as the target has it.
package struct LinkState: Hashable, Sendable {
    package enum Phase: String, Sendable { case preparing, copying, syncing }

    package struct Table: Hashable, Sendable {
        package enum State: String, Sendable { case pending, loading, done }
        package var state: State
        /// Transactions before it are in the copy; changes of earlier ones are not applied to this table.
        package var position: Position
        package var rows: Int64

        package init(state: State, position: Position = .zero, rows: Int64 = 0) {
            self.state = state
            self.position = position
            self.rows = rows
        }
    }

    package var phase: Phase
    package var origin: CaptureOrigin?
    /// What has been applied; nil before `syncing`.
    package var checkpoint: Checkpoint?
    /// By the source's name; every table of the link has an entry once the phase is `copying`.
    package var tables: [TableName: Table]

    package init(
        phase: Phase, origin: CaptureOrigin? = nil, checkpoint: Checkpoint? = nil, tables: [TableName: Table] = [:]
    ) {
        self.phase = phase
        self.origin = origin
        self.checkpoint = checkpoint
        self.tables = tables
    }
}

/// How far a target has applied.
package struct Checkpoint: Hashable, Sendable {
    /// The last transaction that was applied.
    package var position: Position
    /// Everything before it has been applied, and nothing at or behind it: what decides whether a transaction is skipped.
    package var frontier: Position
    /// When that transaction committed on the source.
    package var commitTime: Timestamp
    /// The last marker that was applied with it, or before; see ``CutoverSession/writeMarker(_:link:)``. Where a checkpoint
    /// is stored, nil leaves the marker that is there.
    package var marker: String?

    package init(position: Position, frontier: Position, commitTime: Timestamp, marker: String? = nil) {
        self.position = position
        self.frontier = frontier
        self.commitTime = commitTime
        self.marker = marker
    }
}

/// The bulk load of a table, or of one of its parts. Nothing of it is visible as finished before
/// ``finish(position:rows:)`` has returned.
package protocol TableLoad: Sendable {
    /// Loads the chunk that a ``CopyReader`` read.
    func write(_ chunk: RecordBuffer) async throws(BridgeError)

    /// Makes the load durable and, in the same transaction, records the table, or the part, as done.
    func finish(position: Position, rows: Int64) async throws(BridgeError)

    /// Gives up; the table, or the part, is loaded again from the start later.
    func cancel() async
}

/// A run of records handed to a target as one piece.
package struct ChangeBatch: Sendable {
    /// Whole records. Row records are those of the link's tables; transactions are whole but for the first and the last.
    package var records: RecordBuffer
    /// The relations that are known before the first record; relation records among `records` change them.
    package var relations: [UInt32: Relation]
    /// What to store as checkpoint when the batch commits; nil if the batch ends inside a transaction, which then stays
    /// open on the target until a later batch brings its end.
    package var checkpoint: Checkpoint?
    package var rows: Int
    package var transactions: Int
    /// Where the source counts the batch's changes.
    package var places = ChangePlaces()
    /// Changes of the batch's transactions that a person or a policy left out of it: to be recorded with its checkpoint.
    package var leftOut: [ConflictRecord] = []

    package init(
        records: RecordBuffer, relations: [UInt32: Relation], checkpoint: Checkpoint?, rows: Int, transactions: Int
    ) {
        self.records = records
        self.relations = relations
        self.checkpoint = checkpoint
        self.rows = rows
        self.transactions = transactions
    }
}

/// Applies batches to a target.
package protocol ChangeApplier: Sendable {
    /// Applies a batch and, if it has a checkpoint, commits both in one target transaction. When it returns, the
    /// checkpoint is durable. After an error the target's transaction has been rolled back to the last checkpoint.
    /// - Throws: `connectionLost` and `serverBusy` when the same changes may be tried again with a new applier;
    ///   `conflict`, `valueDoesNotFit`, `valueMissing`, `changeRefused` when one change cannot be applied, with the place of
    ///   that change (``BridgeError/changePosition``) wherever it can be told; `schemaChanged` when a person must act.
    func apply(_ batch: ChangeBatch) async throws(BridgeError)

    /// Undoes what was applied since the last checkpoint: the source abandoned the transaction.
    func rollback() async throws(BridgeError)

    func close() async
}

/// What `schema show` prints and `schema apply` runs.
package struct SchemaPlan: Hashable, Sendable {
    package struct Statement: Hashable, Sendable {
        package var sql: String
        /// What it makes, for people: `table accounts.users`, `index users_email`.
        package var makes: String
        package var exists: Bool

        package init(sql: String, makes: String, exists: Bool = false) {
            self.sql = sql
            self.makes = makes
            self.exists = exists
        }
    }
    package var statements: [Statement]
    /// What is not carried over, and why; one sentence each.
    package var notes: [String]

    package init(statements: [Statement] = [], notes: [String] = []) {
        self.statements = statements
        self.notes = notes
    }
}

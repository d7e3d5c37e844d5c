import BridgeCore

/// An SQLite database as a cutover deals with it.
///
/// Its connection runs with triggers off, as an applier's does, so fences and the ledger's own guard do not stop it, and
/// with `synchronous = EXTRA`: what it commits is on disk when a call returns. It never takes the WAL back into the file:
/// that would be done by a commit inside the application's pause.
actor SQLiteCutoverSession: CutoverSession {
    private let executor = ThreadExecutor(name: "sqlite-cutover")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let path: String
    private let migration: String
    private let fence: SQLiteFence
    private let records: CutoverRecords
    private var openConnection: TargetConnection?

    /// How long a statement waits for a lock before it gives way for a moment, in milliseconds. In a rollback-journal mode
    /// new readers wait for as long behind a commit that waits for old ones.
    private static let attempt: Int64 = 200
    /// How long calls that have no patience of their own try to get the write lock.
    private static let patience: Duration = .seconds(10)

    init(path: String, migration: String) {
        self.path = path
        self.migration = migration
        fence = SQLiteFence(migration: migration)
        records = CutoverRecords(migration: migration)
    }

    func open() throws(BridgeError) {
        let connection = try TargetConnection(path: path, creating: false, busyTimeout: 10_000)
        try connection.database.execute("PRAGMA wal_autocheckpoint = 0")
        // Opening reads nothing; this does.
        _ = try connection.database.integer("SELECT count(*) FROM main.sqlite_master")
        openConnection = connection
    }

    func close() async { openConnection = nil }

    private func connection() throws(BridgeError) -> TargetConnection {
        guard let openConnection else { throw BridgeError(.internalFault, "the cutover's session is closed") }
        return openConnection
    }

    // MARK: Transactions

    private func read<Result>(
        _ body: (TargetConnection) throws(BridgeError) -> Result
    ) throws(BridgeError) -> Result {
        let connection = try connection()
        connection.database.setBusyTimeout(10_000)
        return try connection.database.transaction(.deferred) { () throws(BridgeError) in try body(connection) }
    }

    /// Runs a transaction under the write lock, again and again until it was committed or patience ends. In between the
    /// lock, and whatever a commit holds up, is the application's.
    private func write<Result>(
        patience: Duration = SQLiteCutoverSession.patience,
        _ body: (TargetConnection) throws(BridgeError) -> Result
    ) async throws(BridgeError) -> Result {
        let deadline = ContinuousClock.now + patience
        while true {
            do throws(BridgeError) {
                return try writeOnce(until: deadline, body)
            } catch {
                guard error.code == .serverBusy else { throw error }
                guard ContinuousClock.now < deadline else { throw try busy(error) }
            }
            let rest = deadline - ContinuousClock.now
            try? await Task.sleep(for: min(max(rest, .milliseconds(1)), .milliseconds(Int64.random(in: 20...100))))
            if Task.isCancelled { throw BridgeError(.interrupted, "the wait for the database's write lock was interrupted") }
        }
    }

    private func writeOnce<Result>(
        until deadline: ContinuousClock.Instant, _ body: (TargetConnection) throws(BridgeError) -> Result
    ) throws(BridgeError) -> Result {
        let connection = try connection()
        let rest = (deadline - ContinuousClock.now).millisecondsRoundedUp
        connection.database.setBusyTimeout(Int32(clamping: min(max(rest, 0), Self.attempt)))
        let result = try connection.database.transaction(.immediate) { () throws(BridgeError) in
            let result = try OwnSchemaChanges.counting(connection.database) { () throws(BridgeError) in try body(connection) }
            try Failpoint.cutoverBeforeCommit.hit()
            return result
        }
        try Failpoint.cutoverAfterCommit.hit()
        return result
    }

    private func busy(_ error: BridgeError) throws(BridgeError) -> BridgeError {
        let mode = try? connection().database.string("PRAGMA main.journal_mode")
        let holders = LockHolders(path: path).describe(isWriteAhead: mode == "wal")
        return BridgeError(
            .serverBusy, "other transactions hold the database, so it could not be locked for a moment",
            context: error.context + (holders.isEmpty ? [] : [.init(.processes, holders.joined(separator: ", "))]),
            hint: "end the long transactions of the processes that use the file, then run the command again")
    }

    // MARK: Fence

    func fence(on tables: [TableName]) async throws(BridgeError) -> FenceState {
        try read { connection throws(BridgeError) in try fence.state(tables, connection.database) }
    }

    func raise(_ fence: Fence, patience: Duration) async throws(BridgeError) {
        try await write(patience: patience) { connection throws(BridgeError) in
            try self.fence.raise(fence, connection.database)
        }
    }

    func makePermanent(attempt: String, tables: [TableName], margin: Duration) async throws(BridgeError) {
        try await write { connection throws(BridgeError) in
            try fence.makePermanent(attempt: attempt, tables: tables, margin: margin, connection.database)
        }
    }

    func removeFence(attempt: String?, through epoch: Int64?, tables: [TableName]) async throws(BridgeError) {
        guard try read({ connection throws(BridgeError) in try fence.isThere(tables, connection.database) }) else { return }
        try await write { connection throws(BridgeError) in
            try fence.remove(attempt: attempt, through: epoch, tables: tables, connection.database)
        }
    }

    // MARK: Marker

    /// A row of the link's change log that stands for no change and holds the marker as its key.
    func writeMarker(_ marker: String, link: LinkDescription) async throws(BridgeError) {
        let names = CaptureNames(link)
        try await write { connection throws(BridgeError) in
            guard try CaptureState.exists(names.log, connection.database),
                try CaptureState.read(names, connection.database)?.link == link.name
            else {
                throw BridgeError(
                    .captureBroken, "the database has no change log of this link, so no marker can travel along it",
                    context: [.init(.slot, names.log)])
            }
            let insert = try connection.prepare(
                "INSERT INTO main.\(quoteIdentifier(names.log))(tbl, k0) VALUES(\(CaptureState.markerTable), ?1)")
            try insert.bind(1, string: marker)
            try insert.run()
        }
    }

    func arrivedMarker(_ link: LinkDescription) async throws(BridgeError) -> String? {
        try read { connection throws(BridgeError) in
            try LinkRecords(connection: connection, link: link).read()?.checkpoint?.marker
        }
    }

    /// Takes the markers out of the migration's logs; the rows stay, since the newest of a log may never go.
    private func clearMarkers(_ connection: TargetConnection) throws(BridgeError) {
        for direction in [LinkDescription.Direction.forward, .reverse] {
            let link = LinkDescription(migration: migration, direction: direction, mappings: [], form: .native)
            let names = CaptureNames(link)
            guard try CaptureState.exists(names.log, connection.database),
                try CaptureState.read(names, connection.database)?.link == link.name
            else { continue }
            try connection.database.execute(
                """
                UPDATE main.\(quoteIdentifier(names.log)) SET k0 = NULL
                WHERE tbl = \(CaptureState.markerTable) AND k0 IS NOT NULL
                """)
        }
    }

    // MARK: Sequences

    func sequences(of tables: [TableName]) async throws(BridgeError) -> [CutoverSequence] {
        try read { connection throws(BridgeError) in try CutoverSequences().list(tables, connection.database) }
    }

    @discardableResult
    func advance(_ sequences: [SequenceTarget]) async throws(BridgeError) -> [SequenceTarget] {
        try await write { connection throws(BridgeError) in
            try CutoverSequences().advance(sequences, connection.database)
        }
    }

    // MARK: Facts

    /// Foreign keys are checked table by table, each in a read of its own: in a rollback-journal mode nobody can commit while
    /// it lasts.
    func facts(of tables: [TableName]) async throws(BridgeError) -> CutoverFacts {
        let reader = CutoverFactReader(fence: fence)
        var (facts, related) = try read { connection throws(BridgeError) in
            (try reader.facts(tables, connection.database), try reader.tablesWithKeys(tables, connection.database))
        }
        for table in related {
            let broken = try reader.brokenKeys(table, among: tables, connection().database)
            facts.brokenForeignKeys.merge(broken, uniquingKeysWith: +)
            if Task.isCancelled { throw BridgeError(.interrupted, "the check of foreign keys was interrupted") }
        }
        return facts
    }

    func schemaFingerprints(of tables: [TableName]) async throws(BridgeError) -> [TableName: String] {
        try read { connection throws(BridgeError) in try SchemaText.fingerprints(of: tables, connection.database) }
    }

    // MARK: Records

    func takeLease(owner: String, lasting: Duration) async throws(BridgeError) {
        try await write { connection throws(BridgeError) in
            try records.takeLease(owner: owner, lasting: lasting, connection.database)
        }
    }

    func releaseLease(owner: String) async throws(BridgeError) {
        try await write { connection throws(BridgeError) in
            try records.releaseLease(owner: owner, connection.database)
        }
    }

    func append(_ entry: LedgerEntry, owner: String) async throws(BridgeError) {
        try await write { connection throws(BridgeError) in
            try records.append(entry, owner: owner, connection.database)
        }
    }

    func ledger() async throws(BridgeError) -> [LedgerEntry] {
        try read { connection throws(BridgeError) in try records.ledger(connection.database) }
    }

    func publish(_ routes: [Route]) async throws(BridgeError) {
        try await write { connection throws(BridgeError) in try records.publish(routes, connection.database) }
    }

    func routes() async throws(BridgeError) -> [Route] {
        try read { connection throws(BridgeError) in try records.routes(connection.database) }
    }

    func removeAll() async throws(BridgeError) {
        try await write { connection throws(BridgeError) in
            try fence.removeAllTriggers(connection.database)
            try clearMarkers(connection)
            try CutoverTables.remove(migration, connection.database)
        }
    }

    // MARK: Old tables

    func rename(_ tables: [OldTable], isTrial: Bool) async throws(BridgeError) {
        try await write { connection throws(BridgeError) in
            try TableRenames(migration: migration).perform(tables, isTrial: isTrial, connection.database)
        }
    }
}

/// Not in the list of those that a migration without a cutover passes.
extension Failpoint {
    static let cutoverBeforeCommit = Failpoint("cutover.before-commit")
    static let cutoverAfterCommit = Failpoint("cutover.after-commit")
}

package import BridgeCore

extension PostgresSource {
    package func openCutover(migration: String) async throws(BridgeError) -> any CutoverSession {
        let session = try PostgresCutover(connectionString, migration: migration)
        try await session.open()
        return session
    }
}

extension PostgresTarget {
    package func openCutover(migration: String) async throws(BridgeError) -> any CutoverSession {
        let session = try PostgresCutover(try connectionString(), migration: migration)
        try await session.open()
        return session
    }
}

/// PostgreSQL as a cutover deals with it, over a connection and a thread of its own.
actor PostgresCutover: CutoverSession {
    private nonisolated let executor = ThreadExecutor(name: "pg-cutover")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private nonisolated let string: ConnectionString
    private nonisolated let migration: String
    private nonisolated let interrupter: Interrupter
    private var connection: PostgresConnection?
    private var isClosed = false
    /// Columns without an index that were read from end to end; see ``CutoverSequences/advance(_:scanned:)``.
    private var scanned: Set<String> = []

    /// - Throws: `configurationInvalid` if the migration's name is too long for the names that are made from it.
    init(_ string: ConnectionString, migration: String) throws(BridgeError) {
        guard migration.utf8.count <= 48 else {
            throw BridgeError(
                .configurationInvalid, "the migration's name is too long for the name of a trigger",
                context: [.init(.migration, migration)], hint: "use at most 48 characters")
        }
        self.string = string
        self.migration = migration
        interrupter = try Interrupter()
    }

    func open() throws(BridgeError) { _ = try connected() }

    func close() {
        connection = nil
        isClosed = true
    }

    /// The session's connection, made anew if it was lost.
    private func connected() throws(BridgeError) -> PostgresConnection {
        guard !isClosed else { throw BridgeError(.connectionLost, "the cutover's session is closed") }
        if let connection, connection.isReusable { return connection }
        let made = try PostgresConnection(string, applicationName: "bridge cutover \(migration)", interrupter: interrupter)
        try made.requireSupported()
        // What is done here is durable when it returns; a stronger setting stays.
        try made.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')")
        connection = made
        return made
    }

    // MARK: Fence

    func fence(on tables: [TableName]) async throws(BridgeError) -> FenceState {
        try await withFence { (fence) throws(BridgeError) in try fence.state(of: tables) }
    }

    func raise(_ fence: Fence, patience: Duration) async throws(BridgeError) {
        try await withFence { (made) throws(BridgeError) in try made.raise(fence, patience: patience) }
    }

    func makePermanent(attempt: String, tables: [TableName], margin: Duration) async throws(BridgeError) {
        try await withFence { (fence) throws(BridgeError) in
            try fence.makePermanent(attempt: attempt, tables: tables, margin: margin)
        }
    }

    func removeFence(attempt: String?, through epoch: Int64?, tables: [TableName]) async throws(BridgeError) {
        try await withFence { (fence) throws(BridgeError) in try fence.remove(attempt: attempt, through: epoch, tables: tables) }
    }

    // MARK: Marker

    /// A message that belongs to its transaction is decoded with it, in the order of commits, behind all that committed
    /// before: the position in the log says less, since a transaction commits behind the place where it wrote.
    func writeMarker(_ marker: String, link: LinkDescription) async throws(BridgeError) {
        try await with { (connection) throws(BridgeError) in
            try connection.execute(StreamMarker.statement(marker, link: link), during: "writing a marker")
        }
    }

    func arrivedMarker(_ link: LinkDescription) async throws(BridgeError) -> String? {
        try await with { (connection) throws(BridgeError) in try LinkRecords.read(link, connection)?.checkpoint?.marker }
    }

    // MARK: Sequences and facts

    func sequences(of tables: [TableName]) async throws(BridgeError) -> [CutoverSequence] {
        try await with { (connection) throws(BridgeError) in try CutoverSequences(connection: connection).read(tables) }
    }

    @discardableResult
    func advance(_ sequences: [SequenceTarget]) async throws(BridgeError) -> [SequenceTarget] {
        try await with { (connection) throws(BridgeError) in
            try CutoverSequences(connection: connection).advance(sequences, scanned: &scanned)
        }
    }

    func facts(of tables: [TableName]) async throws(BridgeError) -> CutoverFacts {
        try await withFence { (fence) throws(BridgeError) in
            try CutoverFactsReader(connection: fence.connection, fence: fence).read(tables)
        }
    }

    func schemaFingerprints(of tables: [TableName]) async throws(BridgeError) -> [TableName: String] {
        try await with { (connection) throws(BridgeError) in try SchemaFingerprint.read(tables, connection) }
    }

    // MARK: Records

    func takeLease(owner: String, lasting: Duration) async throws(BridgeError) {
        try await withRecords { (records) throws(BridgeError) in try records.takeLease(owner: owner, lasting: lasting) }
    }

    func releaseLease(owner: String) async throws(BridgeError) {
        try await withRecords { (records) throws(BridgeError) in try records.releaseLease(owner: owner) }
    }

    func append(_ entry: LedgerEntry, owner: String) async throws(BridgeError) {
        try await withRecords { (records) throws(BridgeError) in try records.append(entry, owner: owner) }
    }

    func ledger() async throws(BridgeError) -> [LedgerEntry] {
        try await withRecords { (records) throws(BridgeError) in try records.ledger() }
    }

    func publish(_ routes: [Route]) async throws(BridgeError) {
        try await withRecords { (records) throws(BridgeError) in try records.publish(routes) }
    }

    func routes() async throws(BridgeError) -> [Route] {
        try await withRecords { (records) throws(BridgeError) in try records.routes() }
    }

    func removeAll() async throws(BridgeError) {
        let migration = migration
        try await with { (connection) throws(BridgeError) in
            try PostgresFence(migration: migration, connection).removeAll()
            try CutoverRecords(migration: migration, connection: connection).removeAll()
        }
    }

    // MARK: Old tables

    func rename(_ tables: [OldTable], isTrial: Bool) async throws(BridgeError) {
        try await withFence { (fence) throws(BridgeError) in try TableRenames(fence).perform(tables, isTrial: isTrial) }
    }

    // MARK: Plumbing

    private func withFence<Value>(_ body: (PostgresFence) throws(BridgeError) -> Value) async throws(BridgeError) -> Value {
        let migration = migration
        return try await with { (connection) throws(BridgeError) in try body(PostgresFence(migration: migration, connection)) }
    }

    private func withRecords<Value>(_ body: (CutoverRecords) throws(BridgeError) -> Value) async throws(BridgeError) -> Value {
        let migration = migration
        return try await with { (connection) throws(BridgeError) in
            try body(CutoverRecords(migration: migration, connection: connection))
        }
    }

    /// Runs what blocks; when the task is cancelled, its statement is too. A signal that is left over from a cancelled call
    /// must not end the next one.
    private func with<Value>(_ body: (PostgresConnection) throws(BridgeError) -> Value) async throws(BridgeError) -> Value {
        let interrupter = interrupter
        interrupter.reset()
        let result: Result<Value, BridgeError> = await withTaskCancellationHandler {
            self.result(of: body)
        } onCancel: {
            interrupter.signal()
        }
        return try result.get()
    }

    /// A method, so that the closure above captures the actor: one that does not is run on the cooperative pool.
    private func result<Value>(of body: (PostgresConnection) throws(BridgeError) -> Value) -> Result<Value, BridgeError> {
        preconditionIsolated()
        do throws(BridgeError) { return .success(try body(try connected())) } catch { return .failure(error) }
    }
}

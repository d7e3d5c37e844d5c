package import BridgeCore

/// PostgreSQL as the place that changes come from: a publication and a logical slot of pgoutput, made by the tool.
package actor PostgresSource: SourceConnector {
    /// What may be set; the defaults are for production.
    package struct Options: Sendable {
        /// How long the making of a slot may wait for transactions that are open on the source.
        package var slotPatience: Duration = .seconds(10)
        /// How long a slot's last reader, perhaps of a process that was killed, may take to go.
        package var readerPatience: Duration = .seconds(3)
        /// How long a capture that begins may wait for a table that is locked, as by a long ALTER TABLE. It is tried again.
        package var lockPatience: Duration = .seconds(5)
        /// How often a capture looks whether its publication still covers the tables. A look costs the server about a
        /// millisecond.
        package var coverageInterval: Duration = .seconds(2)

        package init() {}
    }

    nonisolated let executor = ThreadExecutor(name: "pg-source")
    package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    package nonisolated let engine = EngineName.postgresql
    package nonisolated let displayName: String
    nonisolated let connectionString: ConnectionString
    nonisolated let options: Options
    /// Whether captures of this process stream transactions while they run.
    nonisolated let streaming = StreamingConsent()
    private nonisolated let coverage = CoverageMemory.ofProcess

    private nonisolated let retentionLook: RetentionLook
    private var openSession: PostgresConnection?
    /// The snapshot that was exported when this process made the slot; the first copy uses it.
    private var exported: (slot: String, snapshot: PostgresSnapshot)?

    /// - Throws: `configurationInvalid` for a string that is none.
    package init(connectionString: String, options: Options = Options()) throws(BridgeError) {
        self.connectionString = try ConnectionString(connectionString)
        self.options = options
        displayName = self.connectionString.displayName
        retentionLook = RetentionLook(self.connectionString)
    }

    // MARK: Connection

    package func connect() async throws(BridgeError) {
        try session().execute("SELECT 1")
    }

    /// The connector's own session; made anew if it was lost.
    func session() throws(BridgeError) -> PostgresConnection {
        if let openSession, openSession.isAlive() { return openSession }
        let connection = try PostgresConnection(connectionString, applicationName: "bridge source")
        try connection.requireSupported()
        openSession = connection
        return connection
    }

    package func close() async {
        openSession = nil
        retentionLook.end()
        if let exported { await exported.snapshot.close() }
        exported = nil
    }

    // MARK: Tables

    package func listTables() async throws(BridgeError) -> [TableSchema] { try PostgresCatalog(session()).listTables() }

    package func describeTables(_ names: [TableName]) async throws(BridgeError) -> [TableSchema] {
        try PostgresCatalog(session()).describeTables(names)
    }

    package func planTables(_ names: [TableName]) async throws(BridgeError) -> [TableSchema] { try await describeTables(names) }

    package func preflight(_ link: LinkDescription) async throws(BridgeError) -> [Finding] {
        try SourcePreflight(session: session(), link: link).findings()
    }

    package nonisolated func copyFormats(_ table: TableSchema) -> [CopyFormat] { [.postgresBinary, .postgresText, .rows] }

    package nonisolated func describe(_ position: Position) -> String {
        let text = LogSequenceNumber.text(position.commit)
        return position.ordinal == 0 ? text : "\(text)+\(position.ordinal)"
    }

    // MARK: Capture

    package func captureExists(_ link: LinkDescription) async throws(BridgeError) -> Bool {
        let names = try CaptureNames(link)
        let session = try session()
        if try SlotState.read(names.slot, session) != nil { return true }
        return try Publication(name: names.publication, session: session).read() != nil
    }

    package func prepareCapture(
        _ link: LinkDescription, replacingLeftovers: Bool
    ) async throws(BridgeError) -> CaptureOrigin {
        let names = try CaptureNames(link)
        let session = try session()
        let publication = Publication(name: names.publication, session: session)
        let slots = ReplicationSlots(session: session)
        if let exported { await exported.snapshot.close() }
        exported = nil
        if replacingLeftovers {
            try slots.drop(names.slot, patience: options.readerPatience)
            try publication.drop()
        } else if try SlotState.read(names.slot, session) != nil {
            throw BridgeError(.slotForeign, "a replication slot of this name exists already", context: [.init(.slot, names.slot)])
        }
        let tables = try Publication.tables(of: link, session)
        let snapshot = PostgresSnapshot(connectionString, link: link)
        let system = try await snapshot.connect()
        // The publication comes first: changes after the slot's point are decoded with the catalog of their time, and
        // a publication that is not in it yet would be an error for ever.
        let published = try publication.create(tables, link: link)
        let slot: CreatedSlot
        do throws(BridgeError) {
            slot = try await snapshot.export(slot: names.slot, patience: options.slotPatience)
        } catch {
            try? publication.drop()
            await snapshot.close()
            throw error
        }
        let database = try session.rows("SELECT oid, datname FROM pg_database WHERE datname = current_database()").first
        let position = Position(commit: slot.consistentPoint)
        exported = (names.slot, snapshot)
        return CaptureOrigin(
            identity: [
                OriginKey.systemIdentifier: system.identifier, OriginKey.timeline: system.timeline,
                OriginKey.databaseOid: database?[0] ?? "", OriginKey.database: Self.oneLine(database?[1] ?? ""),
                OriginKey.slot: names.slot, OriginKey.slotCreated: LogSequenceNumber.text(slot.consistentPoint),
                OriginKey.publication: names.publication, OriginKey.publicationOid: published.oid,
                OriginKey.publicationTables: published.tablesFingerprint,
            ].merging(CaptureNames.facts(tables)) { own, _ in own }, position: position)
    }

    /// A database's name may hold a line break; a fact of the origin may not.
    private static func oneLine(_ text: String) -> String { text.map { $0.isNewline ? " " : String($0) }.joined() }

    package func openSnapshot(
        _ link: LinkDescription, origin: CaptureOrigin
    ) async throws(BridgeError) -> any SourceSnapshot {
        let names = try CaptureNames(link)
        if let exported, exported.slot == names.slot {
            self.exported = nil
            await exported.snapshot.bind(to: origin)
            return exported.snapshot
        }
        let snapshot = PostgresSnapshot(connectionString, link: link)
        _ = try await snapshot.connect()
        _ = try await snapshot.export(slot: nil, patience: options.slotPatience)
        await snapshot.bind(to: origin)
        return snapshot
    }

    package func openCapture(
        _ link: LinkDescription, origin: CaptureOrigin, durable: Position, workspace: CaptureWorkspace?
    ) async throws(BridgeError) -> any CaptureSession {
        do throws(BridgeError) {
            let capture = try PostgresCapture(
                connectionString, link: link, origin: origin, durable: durable, options: options, workspace: workspace, consent: streaming, memory: coverage)
            try await capture.start()
            return capture
        } catch {
            streaming.withdraw(after: error)
            throw error
        }
    }

    package func removeCapture(_ link: LinkDescription) async throws(BridgeError) {
        let names = try CaptureNames(link)
        let session = try session()
        if let exported { await exported.snapshot.close() }
        exported = nil
        try ReplicationSlots(session: session).drop(names.slot, patience: options.readerPatience)
        try Publication(name: names.publication, session: session).drop()
    }

    // MARK: Where the source stands

    package func currentPosition(_ link: LinkDescription) async throws(BridgeError) -> Position {
        try LogMark.write(try session())
    }

    package func health(_ link: LinkDescription, applied: Position) async throws(BridgeError) -> SourceHealth {
        let names = try CaptureNames(link)
        let row = try session().rows(
            """
            SELECT pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn(), current_setting('wal_block_size')
            """, during: "reading the log's end").first
        guard let row, let inserted = LogSequenceNumber.parse(row[0]) else {
            throw BridgeError(.serverRefused, "the server did not say where its log ends")
        }
        let flushed = LogSequenceNumber.parse(row[1]) ?? inserted
        let slot = try SlotState.read(names.slot, session())
        return SourceHealth(
            current: Position(
                commit: WALPages.endOfLastRecord(inserted, page: row[2].flatMap { UInt64($0) } ?? 8_192)),
            acknowledged: slot?.confirmed.map { Position(commit: $0) }, retention: slot?.retention,
            // What is not flushed cannot be sent; against the insert position an idle source would show a lag.
            lagBytes: Int64(clamping: flushed > applied.commit ? flushed - applied.commit : 0))
    }

    // MARK: What it keeps

    package nonisolated func retention(_ link: LinkDescription) async throws(BridgeError) -> SourceRetention? {
        try await retentionLook.look(try CaptureNames(link).slot)
    }

    package func retentionFindings(_ link: LinkDescription, limit: Int64) async throws(BridgeError) -> [Finding] {
        try RetentionLook.findings(session(), limit: limit)
    }
}

/// The layout of WAL pages, as far as positions show it.
enum WALPages {
    /// The server gives the insert position as the place of the next record's first byte. At the start of a page that
    /// lies behind the page's header, of 24 bytes, or 40 in the first page of a segment; the last record ended before it.
    static func endOfLastRecord(_ position: UInt64, page: UInt64 = 8_192) -> UInt64 {
        guard page > 40 else { return position }
        let offset = position % page
        return offset == 24 || offset == 40 ? position - offset : position
    }
}

/// What IDENTIFY_SYSTEM answers.
struct SystemIdentity: Sendable {
    let identifier: String
    let timeline: String

    init(_ stream: PostgresConnection) throws(BridgeError) {
        let result = try stream.simpleQuery("IDENTIFY_SYSTEM", during: "asking for the server's identity")
        guard let identifier = result.text(0, 0), let timeline = result.text(0, 1) else {
            throw BridgeError(.serverRefused, "the server did not say which one it is")
        }
        self.identifier = identifier
        self.timeline = timeline
    }
}

extension CopyFormat {
    /// The server's binary COPY stream, with its header and its trailer.
    package static let postgresBinary = CopyFormat(rawValue: "postgresql.copy-binary")
    /// The server's text COPY stream, without an end marker.
    package static let postgresText = CopyFormat(rawValue: "postgresql.copy-text")
}

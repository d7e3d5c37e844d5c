package import BridgeCore

/// PostgreSQL as the database that changes go to.
///
/// The connector's own connection serves the catalog and the link's records. Loads and the applier are actors with a
/// connection each.
package actor PostgresTarget: TargetConnector {
    private nonisolated let executor = ThreadExecutor(name: "pg-target")
    package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    package nonisolated let engine = EngineName.postgresql
    package nonisolated let displayName: String

    /// Read when the connector was made; a string that cannot be read is told by ``connect()``.
    private let string: Result<ConnectionString, BridgeError>
    private var connection: PostgresConnection?

    /// - Parameter connectionString: a `postgresql://` URI or libpq's `key=value` words.
    package init(connectionString: String) {
        do throws(BridgeError) {
            let string = try ConnectionString(connectionString)
            displayName = string.displayName
            self.string = .success(string)
        } catch {
            displayName = "PostgreSQL"
            string = .failure(error)
        }
    }

    // MARK: Connector

    package func connect() throws(BridgeError) { _ = try connected() }

    package func close() { connection = nil }

    package func listTables() throws(BridgeError) -> [TableSchema] {
        try PostgresCatalog(try connected()).listTables().filter { $0.name.schema != LinkRecords.schema }
    }

    package func describeTables(_ names: [TableName]) throws(BridgeError) -> [TableSchema] {
        try PostgresCatalog(try connected()).describeTables(names)
    }

    func connectionString() throws(BridgeError) -> ConnectionString { try string.get() }

    /// The connection, made anew if it was lost.
    private func connected() throws(BridgeError) -> PostgresConnection {
        if let connection, !connection.isBroken { return connection }
        let made = try PostgresConnection(try string.get(), applicationName: "bridge target")
        connection = made
        return made
    }

    // MARK: The link's records

    package func preflight(_ link: LinkDescription, sources: [TableSchema]) throws(BridgeError) -> [Finding] {
        try TargetPreflight(link: link, sources: sources, connection: try connected()).findings()
    }

    package func linkState(_ link: LinkDescription) throws(BridgeError) -> LinkState? {
        try LinkRecords.read(link, try connected())
    }

    package func linkOrigin(_ link: LinkDescription) throws(BridgeError) -> CaptureOrigin? {
        try LinkRecords.origin(link, try connected())
    }

    package func prepareLink(_ link: LinkDescription) throws(BridgeError) -> LinkState {
        let connection = try connected()
        try LinkRecords.prepare(link, connection)
        guard let state = try LinkRecords.read(link, connection) else { throw LinkRecords.missing(link) }
        return state
    }

    package func recordOrigin(_ link: LinkDescription, _ origin: CaptureOrigin) throws(BridgeError) {
        try LinkRecords.recordOrigin(link, origin, try connected())
    }

    package func finishCopy(_ link: LinkDescription) throws(BridgeError) {
        try DeferredConstraint.checkLoaded(link, try connected())
        try LinkRecords.finishCopy(link, try connected())
    }

    package func adoptLink(_ link: LinkDescription, _ origin: CaptureOrigin) throws(BridgeError) {
        try LinkRecords.adopt(link, origin, try connected())
    }

    package func removeLink(_ link: LinkDescription) throws(BridgeError) {
        try LinkRecords.remove(link, try connected())
    }

    // MARK: Copy

    package func chooseCopyFormat(
        _ offered: [CopyFormat], source: TableSchema, mapping: TableMapping
    ) throws(BridgeError) -> CopyFormat {
        guard let table = try TargetTable.read(mapping.target, try connected()) else {
            throw BridgeError(
                .targetTableMissing, "the target table does not exist",
                context: [.init(.table, mapping.target.description)])
        }
        let isBinarySafe = source.engine == engine && Self.hasSameBinaryForm(source, mapping, table)
        for format in offered {
            switch format {
            case .postgresBinary where isBinarySafe: return format
            case .postgresText where source.engine == engine: return format
            case .rows: return format
            default: continue
            }
        }
        throw BridgeError(
            .internalFault, "the source offers no form in which PostgreSQL can load the table",
            context: [.init(.table, source.name.description)])
    }

    /// Binary COPY says nothing of types, so they must be the same on both ends, and of the kind whose binary form does
    /// not hold numbers of the database that it came from, as arrays and composites of own types do.
    private static func hasSameBinaryForm(_ source: TableSchema, _ mapping: TableMapping, _ table: TargetTable) -> Bool {
        for column in source.columns where column.generation == nil {
            if let chosen = mapping.columns, !chosen.contains(column.name) { continue }
            guard let target = table.column(named: column.name), target.typeName == column.typeName,
                TypeCompatibility.hasPortableBinaryForm(column.typeName)
            else { return false }
        }
        return true
    }

    package func openLoad(
        _ link: LinkDescription, mapping: TableMapping, columns: [Relation.Column], format: CopyFormat
    ) async throws(BridgeError) -> any TableLoad {
        let load = try PostgresTableLoad(link: link, mapping: mapping, string: try string.get(), format: format)
        do throws(BridgeError) {
            try await load.openWhole(columns)
        } catch {
            await load.cancel()
            throw error
        }
        return load
    }

    package func openParts(
        _ link: LinkDescription, mapping: TableMapping, parts: Int, droppingIndexes: Bool
    ) async throws(BridgeError) -> (any PartedLoad)? {
        let session = LoadRecordSession(link: link, mapping: mapping, string: try string.get())
        guard let attempt = try await session.begin(droppingIndexes: droppingIndexes) else { return nil }
        return PostgresPartedLoad(
            link: link, mapping: mapping, string: try string.get(), attempt: attempt, parts: parts)
    }

    package func droppedIndexes(_ link: LinkDescription) async throws(BridgeError) -> [DroppedIndex] {
        try IndexRecords.read(link, try connected())
    }

    package func restoration(
        of index: DroppedIndex, _ link: LinkDescription
    ) async throws(BridgeError) -> any IndexRestoration {
        try PostgresIndexRestoration(index: index, link: link, string: try string.get())
    }

    // MARK: Apply

    package func conflictHistory(_ link: LinkDescription, limit: Int) throws(BridgeError) -> ConflictHistory {
        try ConflictTable.read(link, limit: limit, try connected())
    }

    package func openApplier(
        _ link: LinkDescription, onConflict: ConflictPolicy
    ) async throws(BridgeError) -> any ChangeApplier {
        let applier = PostgresApplier(link: link, string: try string.get(), policy: onConflict)
        do throws(BridgeError) {
            try await applier.open()
        } catch {
            await applier.close()
            throw error
        }
        return applier
    }

    // MARK: Schema

    package func schemaPlan(
        for sources: [TableSchema], mappings: [TableMapping]
    ) throws(BridgeError) -> SchemaPlan {
        try SchemaPlanner(connection: try connected()).plan(for: sources, mappings: mappings)
    }

    package func execute(_ plan: SchemaPlan) throws(BridgeError) {
        let connection = try connected()
        try connection.inTransaction { () throws(BridgeError) in
            for statement in plan.statements where !statement.exists {
                do throws(BridgeError) {
                    try connection.execute(statement.sql, during: "making \(statement.makes)")
                } catch { throw error.adding(.detail, statement.makes) }
            }
        }
    }
}

import BridgeCore

/// Proves that the source still is what the link's capture began with (requirement P5). Each way in which it may not be
/// has an error of its own; nothing is mended here, since a mended capture would have a hole.
struct CaptureVerification {
    let session: PostgresConnection
    let names: CaptureNames
    let origin: CaptureOrigin

    /// Checks the cluster.
    /// - Parameter server: the answer of IDENTIFY_SYSTEM.
    func checkServer(systemIdentifier: String?, timeline: String?) throws(BridgeError) {
        try same(OriginKey.systemIdentifier, systemIdentifier, "the source is another database cluster")
        try same(OriginKey.timeline, timeline, "the source is on another timeline: it was restored, or a standby took over")
        let database = try session.rows("SELECT oid FROM pg_database WHERE datname = current_database()").first?[0]
        try same(OriginKey.databaseOid, database, "the source is another database")
    }

    private func same(_ key: String, _ value: String?, _ message: String) throws(BridgeError) {
        guard origin.identity[key] == value else {
            throw BridgeError(
                .sourceReplaced, message,
                context: [.init(.detail, "\(key) \(origin.identity[key] ?? "unknown"), now \(value ?? "unknown")")])
        }
    }

    /// Checks the slot.
    /// - Parameter durable: how far the journal reaches. The server was never told more, so a slot that says more was
    ///   read, advanced or made anew by somebody else, and changes are lost.
    /// - Returns: where the slot stands.
    func checkSlot(durable: Position) throws(BridgeError) -> UInt64 {
        let slot = ErrorContext(.slot, names.slot)
        guard let state = try SlotState.read(names.slot, session) else {
            throw BridgeError(.slotMissing, "the replication slot is gone", context: [slot])
        }
        guard state.plugin == "pgoutput", state.databaseOid == origin.identity[OriginKey.databaseOid] else {
            throw BridgeError(
                .slotForeign, "the replication slot of this name belongs to something else",
                context: [slot, .init(.detail, "plugin \(state.plugin ?? "none"), database \(state.database ?? "none")")])
        }
        guard state.walStatus != "lost", let confirmed = state.confirmed, state.restart != nil else {
            throw BridgeError(.slotLost, "the server has removed WAL that the replication slot still needed", context: [slot])
        }
        guard confirmed <= durable.commit, confirmed >= origin.position.commit else {
            let detail =
                "the slot stands at \(LogSequenceNumber.text(confirmed)), the journal at \(LogSequenceNumber.text(durable.commit))"
            throw BridgeError(
                .slotForeign, "the replication slot was made anew or advanced by somebody else; changes are lost",
                context: [slot, .init(.detail, detail)],
                hint: "empty the target tables and begin again under a new migration name, with a new data_dir")
        }
        return confirmed
    }

    /// Finds the link's tables, and says of one that is not there under its name whether it was renamed.
    func publishedTables(of link: LinkDescription) throws(BridgeError) -> [CapturedTable] {
        do throws(BridgeError) {
            return try Publication.tables(of: link, session)
        } catch where error.code == .tableMissing {
            guard let missing = error.context.first(where: { $0.key == .table })?.value,
                let mapping = link.mappings.first(where: { $0.source.description == missing }),
                let oid = origin.identity[OriginKey.publicationOid]
            else { throw error }
            // Only the link's tables are published, so one that has none of their names is the one.
            let strangers = try session.rows(
                """
                SELECT n.nspname, c.relname FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
                JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = $1::oid
                """, [oid], during: "looking for a renamed table"
            ).compactMap { row in row[1].map { TableName(schema: row[0], name: $0) } }
            .filter { name in
                !link.mappings.contains { mapping in
                    mapping.source.name == name.name
                        && mapping.source.schema.map { $0 == name.schema } ?? session.defaultSchemas.contains(name.schema ?? "")
                }
            }
            guard strangers.count == 1, let name = strangers.first else { throw error }
            throw CoverageFacts.renamed(
                TableName(schema: mapping.source.schema ?? session.defaultSchemas.first, name: mapping.source.name), name)
        }
    }

    /// Checks that each name still means the table that it meant when the capture was made.
    func checkNames(_ tables: [CapturedTable]) throws(BridgeError) {
        let binding = NameBinding(origin: origin, session: session)
        for table in tables { try binding.check(table.schema.name, table.oid) }
    }

    /// Checks the publication against the link's tables.
    func checkPublication(_ tables: [CapturedTable]) throws(BridgeError) {
        let publication = Publication(name: names.publication, session: session)
        guard let state = try publication.read() else { throw broken("the publication is gone") }
        guard state.oid == origin.identity[OriginKey.publicationOid] else {
            throw broken("the publication was dropped and made anew")
        }
        try checkCoverage(state, tables)
        // Migrations that began with an older version do not know it.
        guard origin.identity[OriginKey.publicationTables].map({ $0 == state.tablesFingerprint }) ?? true else {
            throw broken("a table was taken out of the publication and put back, or its columns or rows there were changed")
        }
    }

    /// Checks that a publication is about exactly these tables, columns and rows, and all that happens to them.
    func checkCoverage(_ state: Publication.State, _ tables: [CapturedTable]) throws(BridgeError) {
        guard !state.isForAllTables, state.isComplete else { throw broken("the publication's options were changed") }
        for table in tables {
            let name = table.schema.name
            guard let published = state.tables[table.oid] else { throw broken("the publication lacks a table", name) }
            guard published.columns == table.mapping.columns.map(Set.init),
                published.hasFilter == (table.mapping.rowFilter != nil)
            else { throw broken("the publication has other columns or rows of a table than the configuration", name) }
        }
        guard state.tables.count == tables.count else { throw broken("the publication has tables that the configuration lacks") }
    }

    private func broken(_ message: String, _ table: TableName? = nil) -> BridgeError {
        BridgeError(
            .captureBroken, message,
            context: [.init(.detail, "publication \(names.publication)")] + (table.map { [.init(.table, $0.description)] } ?? []),
            hint: "changes may be missing: empty the target tables and begin again under a new migration name, with a new data_dir")
    }
}

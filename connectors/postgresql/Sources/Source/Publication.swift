import BridgeCore

/// One table of a link as the source has it.
struct CapturedTable {
    var oid: UInt32
    var mapping: TableMapping
    var schema: TableSchema
    var isPartitioned: Bool
}

/// The link's publication: which tables, columns and rows the server decodes.
struct Publication {
    let name: String
    let session: PostgresConnection

    /// What is there under the name.
    struct State {
        var oid: String
        var isForAllTables: Bool
        /// insert, update, delete and truncate are published, and partitions as their root.
        var isComplete: Bool
        /// By the table's OID: the published columns (nil: all) and whether there is a row filter.
        var tables: [UInt32: (columns: Set<String>?, hasFilter: Bool)]
        /// Of the entries that make tables part of it: one that is dropped and made again is another.
        var tablesFingerprint = ""
    }

    /// Finds the link's tables.
    /// - Throws: `tableMissing`.
    static func tables(
        of link: LinkDescription, _ session: PostgresConnection
    ) throws(BridgeError) -> [CapturedTable] {
        let catalog = PostgresCatalog(session)
        let oids = try catalog.resolve(link.mappings.map(\.source))
        var found: [(UInt32, TableMapping)] = []
        for (mapping, oid) in zip(link.mappings, oids) {
            guard let oid else {
                throw BridgeError(
                    .tableMissing, "the source has no such table", context: [.init(.table, mapping.source.description)])
            }
            found.append((oid, mapping))
        }
        let schemas = try catalog.describe(found.map { $0.0 })
        guard schemas.count == found.count else {
            throw BridgeError(.tableMissing, "a table of the migration was dropped just now")
        }
        let partitioned = Set(
            try session.rows(
                "SELECT oid FROM pg_class WHERE relkind = 'p' AND oid = ANY ($1::oid[])",
                [ArrayLiteral.make(found.map { $0.0 })]
            ).compactMap { $0[0].flatMap { UInt32($0) } })
        return zip(found, schemas).map { found, schema in
            CapturedTable(
                oid: found.0, mapping: found.1, schema: schema, isPartitioned: partitioned.contains(found.0))
        }
    }

    /// The statement that makes it. ONLY, because a copy of a table does not hold the rows of its children either.
    func statement(_ tables: [CapturedTable]) -> String {
        let list = tables.map { table in
            var text = "ONLY \(table.schema.name.quoted)"
            if let columns = table.mapping.columns { text += " (\(columns.map(quoteIdentifier).joined(separator: ", ")))" }
            if let filter = table.mapping.rowFilter { text += " WHERE (\(filter))" }
            return text
        }
        return """
            CREATE PUBLICATION \(quoteIdentifier(name)) FOR TABLE \(list.joined(separator: ", ")) \
            WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)
            """
    }

    /// Makes it, in one transaction with the proof that no application will be refused a write because of it: an update
    /// or delete of a published table fails unless its replica identity exists and covers the filter's and the
    /// list's columns.
    /// - Throws: `tableWithoutKey`, `configurationInvalid` for a filter or list that the key does not cover,
    ///   `rightsMissing`, `slotForeign` if the name is taken.
    /// - Returns: the publication as it was made.
    func create(_ tables: [CapturedTable], link: LinkDescription) throws(BridgeError) -> State {
        try session.inTransaction { () throws(BridgeError) in
            // Its lock conflicts with DDL and VACUUM only, but it must not queue behind those for long.
            try session.execute("SET LOCAL lock_timeout = '5s'")
            do throws(BridgeError) {
                try session.execute(statement(tables), during: "making the publication")
            } catch {
                if tables.contains(where: { $0.mapping.rowFilter != nil }), Self.isAboutFilter(error) {
                    throw Self.filterRefusal(error)
                }
                guard error.sqlState == "42710" else { throw error }
                throw BridgeError(
                    .slotForeign, "a publication of this name exists already", context: [.init(.slot, name)],
                    hint: "choose another migration name, or drop the publication if nothing else uses it")
            }
            try session.execute(
                "COMMENT ON PUBLICATION \(quoteIdentifier(name)) IS \(quoteLiteral("made by bridge for the migration \(link.name)"))")
            for table in tables { try checkIdentity(table) }
            guard let state = try read() else { throw BridgeError(.internalFault, "the publication vanished") }
            return state
        }
    }

    /// Whether the server refused an expression: as such, or because it is not made of immutable functions and the row's own
    /// columns.
    private static func isAboutFilter(_ error: BridgeError) -> Bool {
        guard let state = error.sqlState else { return false }
        return state == "0A000" || (state.hasPrefix("42") && !["42501", "42710"].contains(state))
    }

    private static func filterRefusal(_ error: BridgeError) -> BridgeError {
        BridgeError(
            .configurationInvalid, "the source does not take the row filter: \(error.message)",
            hint: """
                use only the table's own columns and built-in functions that always give the same for the same row, with a \
                fixed date in place of the current one, in 'where:' in bridge.yaml
                """, cause: error)
    }

    /// Tries a table's row filter as a publication's, which is not kept: the server alone knows which it takes.
    /// - Returns: why the server refuses it; nil if it does not, or refuses something else.
    func filterObstacle(_ table: CapturedTable) throws(BridgeError) -> BridgeError? {
        try session.execute("BEGIN; SET LOCAL lock_timeout = '2s'; SET LOCAL client_min_messages = error")
        do throws(BridgeError) {
            try session.execute(statement([table]), during: "trying the row filter")
        } catch {
            if session.isBroken { throw error }
            try session.execute("ROLLBACK")
            return Self.isAboutFilter(error) ? Self.filterRefusal(error) : nil
        }
        try session.execute("ROLLBACK")
        return nil
    }

    private func checkIdentity(_ table: CapturedTable) throws(BridgeError) {
        let context = [ErrorContext(.table, table.schema.name.description)]
        guard !table.schema.identity.isEmpty else {
            throw BridgeError(
                .tableWithoutKey, "the table has no primary key and no other replica identity", context: context)
        }
        // With REPLICA IDENTITY FULL the whole old row is known.
        if table.schema.options.contains("REPLICA IDENTITY FULL") {
            guard table.mapping.columns == nil else {
                throw BridgeError(
                    .configurationInvalid, "a table with REPLICA IDENTITY FULL cannot have a column list",
                    context: context, hint: "remove 'columns:', or give the table a key as its replica identity")
            }
            return
        }
        if let columns = table.mapping.columns, let missing = table.schema.identity.first(where: { !columns.contains($0) }) {
            throw BridgeError(
                .configurationInvalid, "the column list leaves out a column of the key",
                context: context + [.init(.column, missing)], hint: "add the column to 'columns:'")
        }
        guard table.mapping.rowFilter != nil else { return }
        // The server checks the filter's columns only when the application updates; the dependencies tell now.
        let used = try session.rows(
            """
            SELECT a.attname FROM pg_depend d
            JOIN pg_publication_rel r ON r.oid = d.objid AND d.classid = 'pg_publication_rel'::regclass
            JOIN pg_publication p ON p.oid = r.prpubid
            JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE p.pubname = $1 AND r.prrelid = $2 AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
              AND d.refobjid = r.prrelid AND (r.prattrs IS NULL OR pg_get_expr(r.prqual, r.prrelid) ~ ('\\y' || a.attname || '\\y'))
            """, [name, String(table.oid)], during: "checking the row filter")
        if let column = used.compactMap({ $0[0] }).first(where: { !table.schema.identity.contains($0) }) {
            throw BridgeError(
                .configurationInvalid, "the row filter uses a column that is not part of the key, so the source would refuse updates",
                context: context + [.init(.column, column)],
                hint: "ALTER TABLE \(table.schema.name.quoted) REPLICA IDENTITY FULL, or filter by the key")
        }
    }

    /// - Returns: nil if there is none.
    func read() throws(BridgeError) -> State? {
        let heads = try session.rows(
            """
            SELECT oid, puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot
            FROM pg_publication WHERE pubname = $1
            """, [name], during: "reading the publication")
        guard let head = heads.first, let oid = head[0] else { return nil }
        // Column lists and filters exist from version 15 on.
        let details = session.serverVersion >= 150_000
            ? """
            CASE WHEN r.prattrs IS NOT NULL THEN ARRAY(SELECT a.attname::text FROM pg_attribute a
                 WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)) END, r.prqual IS NOT NULL
            """ : "NULL, false"
        // FNV-1a: nobody gains by forging it.
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        var state = State(oid: oid, isForAllTables: head[1] == "t", isComplete: head[2] == "t", tables: [:])
        for row in try session.rows(
            "SELECT r.prrelid, \(details), r.oid FROM pg_publication_rel r WHERE r.prpubid = $1::oid ORDER BY r.prrelid", [oid],
            during: "reading the publication")
        {
            guard let table = row[0].flatMap({ UInt32($0) }) else { continue }
            state.tables[table] = (row[1].map { Set(ArrayLiteral.elements($0)) }, row[2] == "t")
            for byte in "\(table):\(row[3] ?? "");".utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        }
        state.tablesFingerprint = String(hash, radix: 16)
        return state
    }

    /// Drops it if it is there.
    func drop() throws(BridgeError) {
        try session.inTransaction { () throws(BridgeError) in
            try session.execute("SET LOCAL lock_timeout = '5s'")
            try session.execute("DROP PUBLICATION IF EXISTS \(quoteIdentifier(name))", during: "dropping the publication")
        }
    }
}

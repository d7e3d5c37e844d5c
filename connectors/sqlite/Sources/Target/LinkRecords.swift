import BridgeCore

/// The link's records in the target file: `_bridge_link` has a row a link, `_bridge_link_table` a row a table of it,
/// `_bridge_conflict` a row a change that was not applied as the source made it.
///
/// Positions are stored as text (``Position/storedForm``): an unsigned 64-bit number does not fit an SQLite integer.
/// All functions work inside the caller's transaction, if there is one.
struct LinkRecords {
    let connection: TargetConnection
    let link: LinkDescription

    static let tables = ["_bridge_link", "_bridge_link_table", ConflictTable.name]

    func exist() throws(BridgeError) -> Bool {
        try connection.database.integer(
            "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = '_bridge_link'") != nil
    }

    /// Makes the tables, and the link's row with the phase `preparing`, where they are missing.
    func prepare() throws(BridgeError) {
        try connection.database.execute(
            """
            CREATE TABLE IF NOT EXISTS main._bridge_link(
                name TEXT PRIMARY KEY NOT NULL, migration TEXT NOT NULL, direction TEXT NOT NULL, phase TEXT NOT NULL,
                identity TEXT, origin TEXT, position TEXT, frontier TEXT, commit_time INTEGER,
                marker TEXT) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS main._bridge_link_table(
                link TEXT NOT NULL, source_schema TEXT NOT NULL, source_name TEXT NOT NULL, target TEXT NOT NULL,
                state TEXT NOT NULL, position TEXT NOT NULL, rows INTEGER NOT NULL,
                PRIMARY KEY(link, source_schema, source_name)) WITHOUT ROWID;
            \(ConflictTable.create);
            """)
        try upgrade()
        try run(
            """
            INSERT INTO main._bridge_link(name, migration, direction, phase) VALUES(?1, ?2, ?3, 'preparing')
            ON CONFLICT(name) DO NOTHING
            """, link.name, link.migration, link.direction.rawValue)
    }

    private func haveMarker() throws(BridgeError) -> Bool {
        try connection.database.integer(
            "SELECT 1 FROM pragma_table_info('_bridge_link', 'main') WHERE name = 'marker'") != nil
    }

    /// Whether an earlier version made them: they have no place for a marker, or none for conflicts.
    func areOld() throws(BridgeError) -> Bool {
        guard try exist() else { return false }
        guard try haveMarker() else { return true }
        return try !ConflictTable(connection: connection, link: link).exists()
    }

    func upgrade() throws(BridgeError) {
        guard try areOld() else { return }
        if try !haveMarker() { try connection.database.execute("ALTER TABLE main._bridge_link ADD COLUMN marker TEXT") }
        try connection.database.execute(ConflictTable.create)
    }

    func read() throws(BridgeError) -> LinkState? {
        guard try exist() else { return nil }
        let row = try connection.prepare(
            """
            SELECT phase, identity, origin, position, frontier, commit_time, \(haveMarker() ? "marker" : "NULL")
            FROM main._bridge_link WHERE name = ?1
            """)
        try row.bind(1, string: link.name)
        guard try row.step() else { return nil }
        guard let phase = row.string(0).flatMap(LinkState.Phase.init(rawValue:)) else { throw Self.unreadable("phase") }
        var state = LinkState(phase: phase, tables: try readTables())
        if let identity = row.string(1) {
            state.origin = CaptureOrigin(
                identity: CaptureOrigin.identity(fromText: identity), position: try Self.position(row.string(2)))
        }
        if row.storageClass(3) != .null {
            state.checkpoint = Checkpoint(
                position: try Self.position(row.string(3)), frontier: try Self.position(row.string(4)),
                commitTime: Timestamp(microseconds: row.integer(5)), marker: row.string(6))
        }
        return state
    }

    /// Nil if there are no records, or they name none yet.
    func origin() throws(BridgeError) -> CaptureOrigin? {
        guard try exist() else { return nil }
        let row = try connection.prepare("SELECT identity, origin FROM main._bridge_link WHERE name = ?1")
        try row.bind(1, string: link.name)
        guard try row.step(), let identity = row.string(0) else { return nil }
        return CaptureOrigin(
            identity: CaptureOrigin.identity(fromText: identity), position: try Self.position(row.string(1)))
    }

    private func readTables() throws(BridgeError) -> [TableName: LinkState.Table] {
        let rows = try connection.prepare(
            """
            SELECT source_schema, source_name, state, position, rows FROM main._bridge_link_table WHERE link = ?1
            """)
        try rows.bind(1, string: link.name)
        var tables: [TableName: LinkState.Table] = [:]
        while try rows.step() {
            guard let schema = rows.string(0), let name = rows.string(1),
                let state = rows.string(2).flatMap(LinkState.Table.State.init(rawValue:))
            else { throw Self.unreadable("state") }
            tables[TableName(schema: schema.isEmpty ? nil : schema, name: name)] = LinkState.Table(
                state: state, position: try Self.position(rows.string(3)), rows: rows.integer(4))
        }
        return tables
    }

    /// Stores the origin, gives every table of the link an entry, and moves the phase from `preparing` to `copying`.
    func recordOrigin(_ origin: CaptureOrigin) throws(BridgeError) {
        try run(
            """
            UPDATE main._bridge_link SET phase = 'copying', identity = ?2, origin = ?3
            WHERE name = ?1 AND phase = 'preparing'
            """, link.name, origin.identityText, origin.position.storedForm)
        try requireOneRow("the link's origin is recorded already, or its records are missing")
        for mapping in link.mappings {
            try run(
                """
                INSERT INTO main._bridge_link_table(link, source_schema, source_name, target, state, position, rows)
                VALUES(?1, ?2, ?3, ?4, 'pending', '0', 0) ON CONFLICT DO NOTHING
                """, link.name, mapping.source.schema ?? "", mapping.source.name, mapping.target.name)
        }
    }

    /// Moves the phase from `copying` to `syncing`; the checkpoint begins at the origin.
    func finishCopy() throws(BridgeError) {
        let unfinished = try connection.prepare(
            "SELECT source_name FROM main._bridge_link_table WHERE link = ?1 AND state <> 'done' LIMIT 1")
        try unfinished.bind(1, string: link.name)
        if try unfinished.step() {
            throw BridgeError(
                .internalFault, "the copy was to be finished before every table is copied",
                context: [.init(.table, unfinished.string(0) ?? "")])
        }
        try run(
            """
            UPDATE main._bridge_link SET phase = 'syncing', position = origin, frontier = origin, commit_time = ?2
            WHERE name = ?1 AND phase = 'copying'
            """, link.name, String(Timestamp.now.microseconds))
        try requireOneRow("the link is not copying")
    }

    /// Begins the link where both sides hold the same, without a copy.
    func adopt(_ origin: CaptureOrigin) throws(BridgeError) {
        try prepare()
        guard let state = try read() else { throw Self.unreadable("name") }
        if let known = state.origin {
            guard known == origin, state.phase == .syncing else {
                throw BridgeError(
                    .checkpointForeign, "the target's records of this migration belong to another capture",
                    context: [.init(.migration, link.name)])
            }
            return
        }
        try recordOrigin(origin)
        for mapping in link.mappings { try setTable(mapping, .done, position: origin.position) }
        try finishCopy()
    }

    /// What stands of a table's load.
    func tableState(_ mapping: TableMapping) throws(BridgeError) -> LinkState.Table.State? {
        let row = try connection.prepare(
            """
            SELECT state FROM main._bridge_link_table WHERE link = ?1 AND source_schema = ?2 AND source_name = ?3
            """)
        try row.bind(1, string: link.name)
        try row.bind(2, string: mapping.source.schema ?? "")
        try row.bind(3, string: mapping.source.name)
        guard try row.step() else { return nil }
        return row.string(0).flatMap(LinkState.Table.State.init(rawValue:))
    }

    func setTable(
        _ mapping: TableMapping, _ state: LinkState.Table.State, position: Position = .zero, rows: Int64 = 0
    ) throws(BridgeError) {
        try run(
            """
            UPDATE main._bridge_link_table SET state = ?4, position = ?5, rows = ?6
            WHERE link = ?1 AND source_schema = ?2 AND source_name = ?3
            """, link.name, mapping.source.schema ?? "", mapping.source.name, state.rawValue, position.storedForm,
            String(rows))
        try requireOneRow("the link has no record of the table")
    }

    /// Removes the link's rows, and the tables with the last link.
    func remove() throws(BridgeError) {
        guard try exist() else { return }
        try upgrade()
        try run("DELETE FROM main._bridge_conflict WHERE link = ?1", link.name)
        try run("DELETE FROM main._bridge_link_table WHERE link = ?1", link.name)
        try run("DELETE FROM main._bridge_link WHERE name = ?1", link.name)
        guard try connection.database.integer("SELECT 1 FROM main._bridge_link LIMIT 1") == nil else { return }
        try connection.database.execute(
            "DROP TABLE main._bridge_conflict; DROP TABLE main._bridge_link_table; DROP TABLE main._bridge_link")
    }

    // MARK: Details

    private func run(_ sql: String, _ values: String...) throws(BridgeError) {
        let statement = try connection.prepare(sql)
        for (place, value) in values.enumerated() { try statement.bind(place + 1, string: value) }
        try statement.run()
    }

    private func requireOneRow(_ what: String) throws(BridgeError) {
        guard connection.database.changes() == 1 else {
            throw BridgeError(.internalFault, what, context: [.init(.migration, link.migration)])
        }
    }

    static func position(_ text: String?) throws(BridgeError) -> Position {
        guard let position = text.flatMap(Position.init(storedForm:)) else { throw unreadable("position") }
        return position
    }

    private static func unreadable(_ column: String) -> BridgeError {
        BridgeError(
            .checkpointForeign, "the link's records on the target cannot be read", context: [.init(.column, column)])
    }
}

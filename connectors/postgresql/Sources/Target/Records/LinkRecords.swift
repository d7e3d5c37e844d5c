import BridgeCore

/// The link's records on the target, in the schema `_bridge`.
///
/// Positions are text in their stored form (`commit.ordinal` in decimal), which holds all 64 bits exactly. Nothing is
/// compared in SQL: a link has one applier, which holds its lock.
enum LinkRecords {
    static let schema = "_bridge"

    /// What makes the records' tables. Run inside one transaction under ``schemaLock``.
    static let create = [
        "CREATE SCHEMA IF NOT EXISTS _bridge",
        """
        CREATE TABLE IF NOT EXISTS _bridge.link (
          name text PRIMARY KEY,
          migration text NOT NULL,
          direction text NOT NULL,
          phase text NOT NULL CHECK (phase IN ('preparing', 'copying', 'syncing')),
          origin_position text,
          origin_identity text,
          checkpoint_position text,
          checkpoint_frontier text,
          checkpoint_time bigint,
          created_at timestamptz NOT NULL DEFAULT now(),
          updated_at timestamptz NOT NULL DEFAULT now(),
          marker text
        ) WITH (fillfactor = 20)
        """,
        """
        CREATE TABLE IF NOT EXISTS _bridge.link_table (
          link text NOT NULL REFERENCES _bridge.link ON DELETE CASCADE,
          ordinal integer NOT NULL,
          source_schema text,
          source_name text NOT NULL,
          target_schema text,
          target_name text NOT NULL,
          state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'loading', 'done')),
          position text NOT NULL DEFAULT '0',
          rows bigint NOT NULL DEFAULT 0,
          attempt bigint NOT NULL DEFAULT 0,
          PRIMARY KEY (link, ordinal)
        )
        """,
        ConflictTable.create,
    ] + createForCopy

    /// The records of a copy in parts: which parts are there, and which indexes are missing.
    private static let createForCopy = [
        """
        CREATE TABLE IF NOT EXISTS _bridge.link_part (
          link text NOT NULL,
          ordinal integer NOT NULL,
          part integer NOT NULL,
          attempt bigint NOT NULL,
          position text,
          rows bigint,
          writer xid,
          PRIMARY KEY (link, ordinal, part),
          FOREIGN KEY (link, ordinal) REFERENCES _bridge.link_table ON DELETE CASCADE
        )
        """,
        """
        CREATE TABLE IF NOT EXISTS _bridge.link_index (
          link text NOT NULL,
          ordinal integer NOT NULL,
          name text NOT NULL,
          definition text NOT NULL,
          PRIMARY KEY (link, ordinal, name),
          FOREIGN KEY (link, ordinal) REFERENCES _bridge.link_table
        )
        """,
    ]

    /// All tables of the records, each before those that it refers to.
    static let tables = ["conflict", "link_part", "link_index", "link_table", "link"]

    /// The key of the advisory locks: the first half says that they are bridge's, the second which link.
    static func lockKey(_ link: LinkDescription) -> String {
        "pg_catalog.hashtextextended(\(quoteLiteral("bridge applier " + link.name)), 0)"
    }

    static let schemaLock = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('bridge records', 0))"

    // MARK: Reading

    static func exists(_ connection: PostgresConnection) throws(BridgeError) -> Bool {
        try connection.rows("SELECT pg_catalog.to_regclass('_bridge.link_table') IS NOT NULL", during: "reading the link's records")
            .first?.first == "t"
    }

    /// The link's records; nil if there are none.
    /// - Throws: `configurationInvalid` if they are about another set of tables.
    static func read(_ link: LinkDescription, _ connection: PostgresConnection) throws(BridgeError) -> LinkState? {
        guard try exists(connection) else { return nil }
        let action = "reading the link's records"
        let rows = try connection.rows(
            """
            SELECT phase, origin_position, origin_identity, checkpoint_position, checkpoint_frontier, checkpoint_time,
                   to_jsonb(l) ->> 'marker'
            FROM _bridge.link AS l WHERE name = $1
            """, [link.name], during: action)
        guard let row = rows.first else { return nil }
        guard let phase = LinkState.Phase(rawValue: row[0] ?? "") else { throw damaged(link) }
        var state = LinkState(phase: phase)
        if let position = row[1] {
            state.origin = CaptureOrigin(
                identity: CaptureOrigin.identity(fromText: row[2] ?? ""), position: try parse(position, link))
        }
        if phase == .syncing, let position = row[3], let frontier = row[4], let time = row[5].flatMap({ Int64($0) }) {
            state.checkpoint = Checkpoint(
                position: try parse(position, link), frontier: try parse(frontier, link),
                commitTime: Timestamp(microseconds: time), marker: row[6])
        }
        let tables = try connection.rows(
            """
            SELECT source_schema, source_name, target_schema, target_name, state, position, rows
            FROM _bridge.link_table WHERE link = $1 ORDER BY ordinal
            """, [link.name], during: action)
        var stored: [TableName: TableName] = [:]
        for table in tables {
            let source = TableName(schema: table[0], name: table[1] ?? "")
            stored[source] = TableName(schema: table[2], name: table[3] ?? "")
            guard let word = LinkState.Table.State(rawValue: table[4] ?? "") else { throw damaged(link) }
            state.tables[source] = LinkState.Table(
                state: word, position: try parse(table[5] ?? "", link), rows: table[6].flatMap { Int64($0) } ?? 0)
        }
        try check(link, against: stored)
        return state
    }

    static func origin(_ link: LinkDescription, _ connection: PostgresConnection) throws(BridgeError) -> CaptureOrigin? {
        guard try exists(connection) else { return nil }
        let row = try connection.rows(
            "SELECT origin_position, origin_identity FROM _bridge.link WHERE name = $1", [link.name],
            during: "reading the link's records"
        ).first
        guard let row, let position = row[0] else { return nil }
        return CaptureOrigin(identity: CaptureOrigin.identity(fromText: row[1] ?? ""), position: try parse(position, link))
    }

    private static func parse(_ text: String, _ link: LinkDescription) throws(BridgeError) -> Position {
        guard let position = Position(storedForm: text) else { throw damaged(link) }
        return position
    }

    /// The set of tables cannot change under a link that has begun: changes of a new table before now are not in the
    /// journal.
    private static func check(_ link: LinkDescription, against stored: [TableName: TableName]) throws(BridgeError) {
        var wanted: [TableName: TableName] = [:]
        for mapping in link.mappings { wanted[mapping.source] = mapping.target }
        guard wanted != stored else { return }
        let added = wanted.keys.filter { stored[$0] == nil }.sorted().map(\.description)
        let removed = stored.keys.filter { wanted[$0] == nil }.sorted().map(\.description)
        let moved = wanted.keys.filter { stored[$0] != nil && stored[$0] != wanted[$0] }.sorted().map(\.description)
        var parts: [String] = []
        if !added.isEmpty { parts.append("added: " + added.joined(separator: ", ")) }
        if !removed.isEmpty { parts.append("removed: " + removed.joined(separator: ", ")) }
        if !moved.isEmpty { parts.append("with another target: " + moved.joined(separator: ", ")) }
        throw BridgeError(
            .configurationInvalid,
            "the tables of the migration differ from those that it began with (\(parts.joined(separator: "; ")))",
            context: [.init(.migration, link.name)],
            hint: "put the tables back into bridge.yaml as they were, or start another migration for the new ones")
    }

    // MARK: Writing

    static func prepare(_ link: LinkDescription, _ connection: PostgresConnection) throws(BridgeError) {
        try connection.inTransaction { () throws(BridgeError) in
            try insert(link, connection)
        }
        try upgrade(connection)
    }

    /// Records that an earlier version made have no place for a marker, nor for conflicts, nor for a copy in parts.
    static func upgrade(_ connection: PostgresConnection) throws(BridgeError) {
        let isOld = try connection.rows(
            """
            SELECT to_regclass('_bridge.link') IS NOT NULL AND (
              to_regclass('_bridge.conflict') IS NULL
              OR to_regclass('_bridge.link_part') IS NULL OR to_regclass('_bridge.link_index') IS NULL
              OR (SELECT count(*) FROM pg_attribute WHERE NOT attisdropped
                  AND (attrelid, attname) IN ((to_regclass('_bridge.link'), 'marker'), (to_regclass('_bridge.link_table'), 'attempt'))) < 2)
            """, during: "reading the link's records").first?.first
        guard isOld == "t" else { return }
        try connection.inTransaction { () throws(BridgeError) in
            try connection.execute("SET LOCAL lock_timeout = '5s'; \(schemaLock)")
            let statements = [
                "ALTER TABLE _bridge.link ADD COLUMN IF NOT EXISTS marker text",
                "ALTER TABLE _bridge.link_table ADD COLUMN IF NOT EXISTS attempt bigint NOT NULL DEFAULT 0",
            ]
            try connection.execute(
                (statements + [ConflictTable.create] + createForCopy).joined(separator: "; "), during: "making room in the link's records")
        }
    }

    /// In the caller's transaction.
    private static func insert(_ link: LinkDescription, _ connection: PostgresConnection) throws(BridgeError) {
        try connection.execute(schemaLock)
        if try !exists(connection) { try connection.execute(create.joined(separator: "; "), during: "making the link's records") }
        let made = try connection.rows(
            """
            INSERT INTO _bridge.link (name, migration, direction, phase) VALUES ($1, $2, $3, 'preparing')
            ON CONFLICT (name) DO NOTHING RETURNING name
            """, [link.name, link.migration, link.direction.rawValue], during: "making the link's records")
        guard !made.isEmpty else { return }
        for (ordinal, mapping) in link.mappings.enumerated() {
            _ = try connection.query(
                """
                INSERT INTO _bridge.link_table (link, ordinal, source_schema, source_name, target_schema, target_name)
                VALUES ($1, $2, $3, $4, $5, $6)
                """,
                [
                    link.name, "\(ordinal)", mapping.source.schema, mapping.source.name, mapping.target.schema,
                    mapping.target.name,
                ], during: "making the link's records")
        }
    }

    /// Begins the link where both sides hold the same, without a copy.
    static func adopt(
        _ link: LinkDescription, _ origin: CaptureOrigin, _ connection: PostgresConnection
    ) throws(BridgeError) {
        try connection.inTransaction { () throws(BridgeError) in
            try insert(link, connection)
            // Two at once: the second waits here, and finds what the first made.
            try connection.execute("SELECT FROM _bridge.link WHERE name = \(quoteLiteral(link.name)) FOR UPDATE")
            guard let state = try read(link, connection) else { throw missing(link) }
            if let known = state.origin {
                guard known == origin, state.phase == .syncing else { throw foreign(link) }
                return
            }
            let position = origin.position.storedForm
            _ = try connection.query(
                """
                UPDATE _bridge.link SET phase = 'syncing', origin_position = $2, origin_identity = $3, checkpoint_position = $2,
                  checkpoint_frontier = $2, checkpoint_time = $4::bigint, updated_at = now() WHERE name = $1
                """, [link.name, position, origin.identityText, "\(Timestamp.now.microseconds)"],
                during: "beginning the link without a copy")
            _ = try connection.query(
                "UPDATE _bridge.link_table SET state = 'done', position = $2 WHERE link = $1", [link.name, position],
                during: "beginning the link without a copy")
        }
        try upgrade(connection)
    }

    private static func foreign(_ link: LinkDescription) -> BridgeError {
        BridgeError(
            .checkpointForeign, "the target's records of this migration belong to another capture",
            context: [.init(.migration, link.name)])
    }

    static func recordOrigin(
        _ link: LinkDescription, _ origin: CaptureOrigin, _ connection: PostgresConnection
    ) throws(BridgeError) {
        try connection.inTransaction { () throws(BridgeError) in
            let changed = try connection.query(
                """
                UPDATE _bridge.link SET phase = 'copying', origin_position = $2, origin_identity = $3, updated_at = now()
                WHERE name = $1 AND phase = 'preparing'
                """, [link.name, origin.position.storedForm, origin.identityText], during: "storing the link's origin"
            ).affectedRows
            if changed == 1 { return }
            guard let state = try read(link, connection) else { throw missing(link) }
            // The same origin again is what a repeated step brings; another one would leave a gap.
            guard state.origin == origin else { throw foreign(link) }
        }
    }

    static func finishCopy(_ link: LinkDescription, _ connection: PostgresConnection) throws(BridgeError) {
        try connection.inTransaction { () throws(BridgeError) in
            let open = try connection.rows(
                "SELECT count(*) FROM _bridge.link_table WHERE link = $1 AND state <> 'done'", [link.name]
            ).first?.first
            guard open == "0" else {
                throw BridgeError(
                    .internalFault, "the copy cannot be finished while tables are missing",
                    context: [.init(.migration, link.name)])
            }
            if let index = try IndexRecords.read(link, connection).first {
                throw BridgeError(
                    .internalFault, "the copy cannot be finished while an index is missing",
                    context: [.init(.migration, link.name), .init(.detail, "index \(index.name)")])
            }
            let changed = try connection.query(
                """
                UPDATE _bridge.link SET phase = 'syncing', updated_at = now(), checkpoint_position = origin_position,
                  checkpoint_frontier = origin_position, checkpoint_time = $2::bigint
                WHERE name = $1 AND phase = 'copying'
                """, [link.name, "\(Timestamp.now.microseconds)"], during: "finishing the copy"
            ).affectedRows
            if changed == 1 { return }
            guard try read(link, connection)?.phase == .syncing else { throw missing(link) }
        }
    }

    /// Removes the link's records and its replication origin, and the tables with the last link. Indexes that were dropped
    /// for its copy are built again first: nobody else would know of them.
    static func remove(_ link: LinkDescription, _ connection: PostgresConnection) throws(BridgeError) {
        let action = "removing the link's records"
        for index in try IndexRecords.read(link, connection) { try IndexRecords.restore(index, link, connection) }
        // The applier may be at work until it misses the records. It holds the link's row and comes to the tables, which are
        // locked here, or the other way round.
        let deadline = ContinuousClock.now + .seconds(15)
        while true {
            do throws(BridgeError) {
                try removeRecords(link, connection, during: action)
                break
            } catch where error.sqlState == "40P01" && ContinuousClock.now < deadline { continue }
        }
        try removeOrigin(link, connection)
    }

    private static func removeRecords(
        _ link: LinkDescription, _ connection: PostgresConnection, during action: String
    ) throws(BridgeError) {
        try connection.inTransaction { () throws(BridgeError) in
            try connection.execute(schemaLock)
            guard try exists(connection) else { return }
            try ForeignWriteWatch.remove(link, connection)
            _ = try connection.query("DELETE FROM _bridge.link WHERE name = $1", [link.name], during: action)
            guard try connection.rows("SELECT 1 FROM _bridge.link LIMIT 1", during: action).isEmpty else { return }
            let tables = Self.tables.map { "\(schema).\($0)" }.joined(separator: ", ")
            try connection.execute("DROP TABLE IF EXISTS \(tables)", during: action)
            try dropSchemaIfEmpty(connection, during: action)
        }
    }

    /// Drops the schema unless something of ours is left in it. In a transaction under ``schemaLock``.
    static func dropSchemaIfEmpty(_ connection: PostgresConnection, during action: String) throws(BridgeError) {
        let others = try connection.rows(
            "SELECT 1 FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = to_regnamespace('_bridge') LIMIT 1",
            during: action)
        if others.isEmpty { try connection.execute("DROP SCHEMA IF EXISTS _bridge", during: action) }
    }

    /// A server process that has just lost its applier holds the origin for a moment longer.
    ///
    /// A capture here that comes to what the link wrote only later still knows it: the server looks the origin's name up
    /// as the catalog was then, and keeps that for the slot.
    private static func removeOrigin(_ link: LinkDescription, _ connection: PostgresConnection) throws(BridgeError) {
        let deadline = ContinuousClock.now + .seconds(15)
        while true {
            do throws(BridgeError) {
                _ = try connection.query(
                    "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname = $1",
                    [link.identifier], during: "removing the link's replication origin")
                return
            } catch where error.sqlState == "55006" && ContinuousClock.now < deadline {
                try connection.execute("SELECT pg_sleep(0.02)")
            }
        }
    }

    // MARK: Checkpoint

    static let checkpointStatement = """
        UPDATE _bridge.link SET checkpoint_position = $2, checkpoint_frontier = $3, checkpoint_time = $4::bigint, \
        marker = coalesce($5, marker), updated_at = now() WHERE name = $1 AND phase = 'syncing'
        """

    static func checkpointParameters(_ link: LinkDescription, _ checkpoint: Checkpoint) -> [String?] {
        [
            link.name, checkpoint.position.storedForm, checkpoint.frontier.storedForm,
            "\(checkpoint.commitTime.microseconds)", checkpoint.marker,
        ]
    }

    /// The same statement with its values in it, for a query of several statements.
    static func checkpointUpdate(_ link: LinkDescription, _ checkpoint: Checkpoint) -> String {
        let marker = checkpoint.marker.map { "marker = \(quoteLiteral($0)), " } ?? ""
        return """
        UPDATE _bridge.link SET checkpoint_position = \(quoteLiteral(checkpoint.position.storedForm)), \
        checkpoint_frontier = \(quoteLiteral(checkpoint.frontier.storedForm)), \
        checkpoint_time = \(checkpoint.commitTime.microseconds), \(marker)updated_at = now() \
        WHERE name = \(quoteLiteral(link.name)) AND phase = 'syncing'
        """
    }

    /// Changes the link's row for the sake of the change: a transaction of the applier that may begin with anything but
    /// a row begins with this. A server that streams a transaction while it runs tells its replication origin once, as
    /// that of the first change, and changes of the catalog (TRUNCATE, a table made for staging) carry none. A capture in
    /// the other direction would take such a transaction for somebody else's and send it back.
    static func touch(_ link: LinkDescription) -> String {
        "UPDATE _bridge.link SET updated_at = now() WHERE name = \(quoteLiteral(link.name))"
    }

    static func missing(_ link: LinkDescription) -> BridgeError {
        BridgeError(
            .checkpointForeign, "the target's records of this migration are gone", context: [.init(.migration, link.name)],
            hint: "restore the schema _bridge on the target, or empty the target tables and begin again under a new migration name")
    }

    private static func damaged(_ link: LinkDescription) -> BridgeError {
        BridgeError(
            .checkpointForeign, "the target's records of this migration cannot be read",
            context: [.init(.migration, link.name)])
    }
}

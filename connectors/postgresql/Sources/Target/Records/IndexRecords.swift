import BridgeCore

/// The indexes that are dropped for a table's load and built again after it.
enum IndexRecords {
    private static let action = "dropping an index for the copy"

    /// The indexes that can be dropped and come back as they were, by the definition that the server gives: all others
    /// stay. An index goes with what depends on it; its comment, its tablespace, its figures and its functions' search
    /// path would not come back.
    private static let candidatesQuery = """
        SELECT x.oid::regclass::text, quote_ident(x.relname), pg_get_indexdef(x.oid)
        FROM pg_index i
        JOIN pg_class x ON x.oid = i.indexrelid
        JOIN pg_class t ON t.oid = i.indrelid
        WHERE i.indrelid = $1::oid AND t.relkind = 'r' AND x.relkind = 'i' AND NOT x.relispartition
          AND i.indisvalid AND i.indisready AND i.indislive
          AND NOT i.indisprimary AND NOT i.indisreplident AND NOT i.indisexclusion AND NOT i.indisclustered
          AND x.reltablespace = 0
          AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = x.oid)
          AND NOT EXISTS (SELECT FROM pg_description d WHERE d.classoid = 'pg_class'::regclass AND d.objoid = x.oid)
          AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = x.oid AND (a.attstattarget >= 0 OR a.attoptions IS NOT NULL))
          AND NOT EXISTS (
            SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = x.oid)
          AND NOT EXISTS (
            SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = x.oid
              AND (d.refclassid IN ('pg_proc'::regclass, 'pg_extension'::regclass)))
          AND pg_has_role(t.relowner, 'USAGE') AND has_schema_privilege(t.relnamespace, 'CREATE')
          AND current_setting('default_tablespace') = ''
        ORDER BY x.relname
        """

    /// Drops what can be dropped, each with its record; what cannot stays. In the caller's transaction.
    static func drop(
        _ table: TargetTable, _ link: LinkDescription, _ mapping: TableMapping, _ connection: PostgresConnection
    ) throws(BridgeError) {
        for row in try connection.rows(candidatesQuery, ["\(table.oid)"], during: action) {
            guard let full = row[0], let name = row[1], let definition = row[2] else { continue }
            try connection.execute("SAVEPOINT bridge_index")
            do throws(BridgeError) {
                _ = try connection.query(
                    """
                    INSERT INTO _bridge.link_index (link, ordinal, name, definition)
                    SELECT link, ordinal, $4, $5 FROM _bridge.link_table
                    WHERE link = $1 AND source_name = $2 AND source_schema IS NOT DISTINCT FROM $3
                    ON CONFLICT (link, ordinal, name) DO UPDATE SET definition = EXCLUDED.definition
                    """, [link.name, mapping.source.name, mapping.source.schema, name, definition], during: action)
                try connection.execute("SET LOCAL lock_timeout = '5s'; DROP INDEX \(full)", during: action)
                try connection.execute("RELEASE SAVEPOINT bridge_index")
            } catch {
                guard !connection.isBroken, error.code != .interrupted else { throw error }
                try connection.execute("ROLLBACK TO SAVEPOINT bridge_index")
                // The table is locked by somebody: the next index would wait as long.
                if error.sqlState == "55P03" { return }
            }
        }
    }

    /// The indexes that are missing.
    static func read(_ link: LinkDescription, _ connection: PostgresConnection) throws(BridgeError) -> [DroppedIndex] {
        let action = "reading the indexes that wait for the copy"
        guard try connection.rows("SELECT to_regclass('_bridge.link_index') IS NOT NULL", during: action).first?.first == "t"
        else { return [] }
        return try connection.rows(
            """
            SELECT t.source_schema, t.source_name, i.name FROM _bridge.link_index i JOIN _bridge.link_table t USING (link, ordinal)
            WHERE i.link = $1 ORDER BY t.ordinal, i.name
            """, [link.name], during: action
        ).map { DroppedIndex(table: TableName(schema: $0[0], name: $0[1] ?? ""), name: $0[2] ?? "") }
    }

    /// Builds an index again and removes its record, in one transaction. Nothing is done if there is no record, because
    /// another process has built it, or no table any more.
    static func restore(
        _ index: DroppedIndex, _ link: LinkDescription, _ connection: PostgresConnection
    ) throws(BridgeError) {
        do throws(BridgeError) {
            try connection.inTransaction { () throws(BridgeError) in
                // Two that build the same index wait for each other here.
                let record = try connection.rows(
                    """
                    DELETE FROM _bridge.link_index i USING _bridge.link_table t
                    WHERE t.link = i.link AND t.ordinal = i.ordinal AND i.link = $1 AND i.name = $2
                      AND t.source_name = $3 AND t.source_schema IS NOT DISTINCT FROM $4
                    RETURNING i.definition, t.target_schema, t.target_name
                    """, [link.name, index.name, index.table.name, index.table.schema], during: "building an index"
                ).first
                guard let record, let definition = record[0] else { return }
                let table = TableName(schema: record[1] ?? connection.defaultSchemas.first ?? "public", name: record[2] ?? "")
                try build(definition, named: index.name, on: table, connection)
                try Failpoint.copyIndexBeforeCommit.hit()
            }
            try Failpoint.copyIndexAfterCommit.hit()
        } catch where error.code != .interrupted && error.retry == .never {
            throw BridgeError(
                error.code, "an index that was dropped for the copy cannot be built again: \(error.message)",
                context: error.context + [.init(.detail, "index \(index.name)")],
                hint: "mend what the server says, then run the command again; its definition is in _bridge.link_index on the target, "
                    + "and deleting that row gives the index up")
        }
    }

    private static func build(
        _ definition: String, named name: String, on table: TableName, _ connection: PostgresConnection
    ) throws(BridgeError) {
        let action = "building an index"
        let there = try connection.rows(
            """
            SELECT pg_get_indexdef(i.indexrelid), i.indisvalid, t.oid::regclass::text
            FROM pg_class t LEFT JOIN pg_class x ON x.relnamespace = t.relnamespace AND quote_ident(x.relname) = $2
            LEFT JOIN pg_index i ON i.indexrelid = x.oid
            WHERE t.oid = to_regclass($1)
            """, [table.quoted, name], during: action
        ).first
        guard let there else { return }
        // Somebody, or 'schema apply', made it meanwhile.
        if there[0] == definition, there[1] == "t" { return }
        try connection.execute(definition, during: action)
        // Figures of expressions are gathered with the index, and not without it.
        let hasExpressions = try connection.rows(
            "SELECT bool_or(indexprs IS NOT NULL) FROM pg_index WHERE indrelid = to_regclass($1)", [table.quoted], during: action)
        if hasExpressions.first?.first == "t", let name = there[2] { try connection.execute("ANALYZE \(name)", during: action) }
    }
}

/// Builds one index over a session of its own.
actor PostgresIndexRestoration: IndexRestoration {
    private nonisolated let executor = ThreadExecutor(name: "pg-index")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let index: DroppedIndex
    private let link: LinkDescription
    private let string: ConnectionString
    private nonisolated let interrupter: Interrupter

    init(index: DroppedIndex, link: LinkDescription, string: ConnectionString) throws(BridgeError) {
        interrupter = try Interrupter()
        self.index = index
        self.link = link
        self.string = string
    }

    func run() throws(BridgeError) {
        let connection = try PostgresConnection(string, applicationName: "bridge index \(link.name)", interrupter: interrupter)
        try ReplicaSession.begin(connection)
        try IndexRecords.restore(index, link, connection)
    }

    nonisolated func cancel() { interrupter.signal() }
}

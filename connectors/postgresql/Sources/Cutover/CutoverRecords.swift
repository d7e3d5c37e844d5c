import BridgeCore

/// The migration's lease, ledger and routes in this database, in the schema `_bridge`. What others of bridge keep there is
/// in ``LinkRecords`` and goes its own way: whoever empties the schema drops it.
struct CutoverRecords {
    let migration: String
    let connection: PostgresConnection

    private static let tables = ["cutover_lease", "cutover_ledger", "cutover_version", "routing"]
    /// The channel of route changes.
    static let channel = "bridge_routing"
    /// The SQLSTATE of a change to what the ledger holds.
    static let ledgerState = "BR002"

    // MARK: The tables

    /// Applications may read the routes; all else is for bridge.
    private static let create = [
        """
        CREATE TABLE IF NOT EXISTS _bridge.cutover_lease (
          migration text PRIMARY KEY, owner text NOT NULL, expires_at timestamptz NOT NULL)
        """,
        """
        CREATE TABLE IF NOT EXISTS _bridge.cutover_ledger (
          migration text, number bigint CHECK (number > 0), written_at timestamptz NOT NULL, attempt text NOT NULL,
          kind text NOT NULL, content text NOT NULL, checksum text NOT NULL, PRIMARY KEY (migration, number))
        """,
        """
        CREATE OR REPLACE FUNCTION _bridge.cutover_ledger_only_grows() RETURNS trigger LANGUAGE plpgsql
        SET search_path = pg_catalog, pg_temp AS '
        BEGIN
          IF coalesce(current_setting(''bridge.removing'', true), '''') <> ''on'' THEN
            RAISE EXCEPTION USING ERRCODE = ''\(ledgerState)'', MESSAGE = ''the ledger of a cutover is only appended to'';
          END IF;
          IF TG_LEVEL = ''STATEMENT'' THEN RETURN NULL; END IF;
          RETURN OLD;
        END'
        """,
        """
        CREATE OR REPLACE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON _bridge.cutover_ledger FOR EACH STATEMENT
        EXECUTE FUNCTION _bridge.cutover_ledger_only_grows()
        """,
        "ALTER TABLE _bridge.cutover_ledger ENABLE ALWAYS TRIGGER only_grows",
        """
        CREATE TABLE IF NOT EXISTS _bridge.cutover_version (
          migration text NOT NULL, relation oid NOT NULL, before text NOT NULL, after text NOT NULL)
        """,
        """
        CREATE TABLE IF NOT EXISTS _bridge.routing (
          migration text, service text, reads text NOT NULL, writes text NOT NULL, epoch bigint NOT NULL,
          published_at timestamptz NOT NULL, PRIMARY KEY (migration, service))
        """,
        "GRANT USAGE ON SCHEMA _bridge TO PUBLIC; GRANT SELECT ON _bridge.routing TO PUBLIC",
    ]

    private static func exist(_ connection: PostgresConnection) throws(BridgeError) -> Bool {
        let all = tables.map { "to_regclass('_bridge.\($0)') IS NOT NULL" }.joined(separator: " AND ")
        return try connection.rows("SELECT \(all)", during: "reading the cutover's records").first?[0] == "t"
    }

    /// Makes the tables where they are not there.
    static func make(_ connection: PostgresConnection) throws(BridgeError) {
        guard try !exist(connection) else { return }
        do throws(BridgeError) {
            try connection.inTransaction { () throws(BridgeError) in
                try connection.execute(LinkRecords.schemaLock)
                if try !hasSchema(connection) { try connection.execute("CREATE SCHEMA _bridge", during: "making the cutover's records") }
                try connection.execute(create.joined(separator: "; "), during: "making the cutover's records")
            }
        } catch where error.code == .rightsMissing {
            throw BridgeError(
                .rightsMissing, "the role may not make the cutover's records in the schema _bridge",
                context: error.context, hint: try rights(connection).joined(separator: "; "))
        }
    }

    private static func hasSchema(_ connection: PostgresConnection) throws(BridgeError) -> Bool {
        try connection.rows("SELECT to_regnamespace('_bridge') IS NOT NULL").first?[0] == "t"
    }

    /// What the role lacks to make records and functions; empty if nothing.
    static func rights(_ connection: PostgresConnection) throws(BridgeError) -> [String] {
        let row = try connection.rows(
            """
            SELECT n.oid IS NOT NULL,
              CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE')
                ELSE has_schema_privilege(n.oid, 'CREATE') AND has_schema_privilege(n.oid, 'USAGE') END,
              quote_ident(current_database())
            FROM (SELECT to_regnamespace('_bridge')::oid) AS n(oid)
            """, during: "looking at the role's rights"
        ).first ?? []
        guard row.count == 3, row[1] != "t" else { return [] }
        let role = Rights.role(connection)
        return row[0] == "t"
            ? ["GRANT USAGE, CREATE ON SCHEMA _bridge TO \(role)"] : ["GRANT CREATE ON DATABASE \(row[2] ?? "") TO \(role)"]
    }

    /// Runs `body` in a transaction that finds the tables; another migration may be removing the last of what they held.
    private func writing<Result>(_ body: () throws(BridgeError) -> Result) throws(BridgeError) -> Result {
        for _ in 0..<5 {
            try Self.make(connection)
            do throws(BridgeError) {
                return try connection.inTransaction { () throws(BridgeError) in
                    try connection.execute("SELECT pg_advisory_xact_lock_shared(\(Self.removalLock))")
                    return try body()
                }
            } catch where error.sqlState == "42P01" || error.sqlState == "3F000" { continue }
        }
        throw BridgeError(.serverBusy, "the cutover's records were removed again and again", context: context)
    }

    private static let removalLock = "hashtextextended('bridge cutover records', 0)"
    private var context: [ErrorContext] { [.init(.migration, migration)] }

    private func reading<Row>(_ sql: String, _ row: ([String?]) throws(BridgeError) -> Row) throws(BridgeError) -> [Row] {
        guard try Self.exist(connection) else { return [] }
        return try connection.rows(sql, [migration], during: "reading the cutover's records").map(row)
    }

    // MARK: Lease

    /// By the database's clock: two operators' own may differ.
    func takeLease(owner: String, lasting: Duration) throws(BridgeError) {
        let holder = try writing { () throws(BridgeError) -> String? in
            let taken = try connection.query(
                """
                INSERT INTO _bridge.cutover_lease AS l (migration, owner, expires_at)
                VALUES ($1, $2, clock_timestamp() + $3::bigint * interval '1 microsecond')
                ON CONFLICT (migration) DO UPDATE SET owner = excluded.owner,
                  expires_at = clock_timestamp() + $3::bigint * interval '1 microsecond'
                WHERE l.owner = excluded.owner OR l.expires_at <= clock_timestamp()
                """, [migration, owner, "\(lasting.wholeMicroseconds)"], during: "taking the operator's lease"
            ).affectedRows
            if taken == 1 { return nil }
            let rows = try connection.rows("SELECT owner FROM _bridge.cutover_lease WHERE migration = $1", [migration])
            return rows.first?[0] ?? "unknown"
        }
        guard let holder else { return }
        throw BridgeError(
            .alreadyRunning, "another operator deals with this migration's cutover", context: context + [.init(.processes, holder)],
            hint: "wait until that process has ended and its lease with it, or end it")
    }

    func releaseLease(owner: String) throws(BridgeError) {
        guard try Self.exist(connection) else { return }
        _ = try connection.query(
            "DELETE FROM _bridge.cutover_lease WHERE migration = $1 AND owner = $2", [migration, owner],
            during: "giving up the operator's lease")
    }

    // MARK: Ledger

    func append(_ entry: LedgerEntry, owner: String) throws(BridgeError) {
        let action = "writing the ledger"
        try writing { () throws(BridgeError) in
            // Locked, so that nobody takes the lease over before the entry is committed.
            let lease = try connection.rows(
                """
                SELECT owner = $2 AND expires_at > clock_timestamp(), owner FROM _bridge.cutover_lease
                WHERE migration = $1 FOR UPDATE
                """, [migration, owner], during: action)
            guard lease.first?[0] == "t" else {
                let holder = lease.first?[1].flatMap { $0 == owner ? nil : "held by \($0)" }
                throw BridgeError(
                    .leaseLost, "the operator's lease has ended or was taken over",
                    context: context + (holder.map { [.init(.detail, $0)] } ?? []))
            }
            let last = try connection.rows(
                "SELECT coalesce(max(number), 0) FROM _bridge.cutover_ledger WHERE migration = $1", [migration], during: action
            ).first?[0].flatMap { Int64($0) } ?? 0
            guard entry.number == last + 1 else {
                throw BridgeError(
                    .ledgerDiverged, "the ledger's last entry here is \(last), so \(entry.number) cannot follow", context: context)
            }
            _ = try connection.query(
                """
                INSERT INTO _bridge.cutover_ledger (migration, number, written_at, attempt, kind, content, checksum)
                VALUES ($1, $2::bigint, \(Self.time("$3")), $4, $5, $6, $7)
                """,
                [
                    migration, "\(entry.number)", "\(entry.writtenAt.microseconds)", entry.attempt, entry.kind, entry.content,
                    entry.checksum,
                ], during: action)
        }
    }

    func ledger() throws(BridgeError) -> [LedgerEntry] {
        try reading(
            """
            SELECT number, \(Self.microseconds("written_at")), attempt, kind, content, checksum
            FROM _bridge.cutover_ledger WHERE migration = $1 ORDER BY number
            """
        ) { (row) throws(BridgeError) in
            guard let number = row[0].flatMap({ Int64($0) }), let time = row[1].flatMap({ Int64($0) }) else {
                throw BridgeError(.ledgerDiverged, "an entry of the ledger cannot be read", context: context)
            }
            return LedgerEntry(
                number: number, writtenAt: Timestamp(microseconds: time), attempt: row[2] ?? "", kind: row[3] ?? "",
                content: row[4] ?? "", checksum: row[5] ?? "")
        }
    }

    private static func time(_ parameter: String) -> String { "'epoch'::timestamptz + \(parameter)::bigint * interval '1 microsecond'" }
    private static func microseconds(_ column: String) -> String { "(extract(epoch FROM \(column)) * 1000000)::bigint" }

    // MARK: Routes

    func publish(_ routes: [Route]) throws(BridgeError) {
        guard !routes.isEmpty else { return }
        try writing { () throws(BridgeError) in
            // In one order, so that two who publish at once do not wait for each other.
            for route in routes.sorted(by: { $0.service < $1.service }) {
                _ = try connection.query(
                    """
                    WITH published AS (
                      INSERT INTO _bridge.routing AS r (migration, service, reads, writes, epoch, published_at)
                      VALUES ($1, $2, $3, $4, $5::bigint, \(Self.time("$6")))
                      ON CONFLICT (migration, service) DO UPDATE SET reads = excluded.reads, writes = excluded.writes,
                        epoch = excluded.epoch, published_at = excluded.published_at WHERE r.epoch < excluded.epoch
                      RETURNING *)
                    SELECT pg_notify('\(Self.channel)', json_build_object('migration', migration, 'service', service,
                      'reads', reads, 'writes', writes, 'epoch', epoch, 'published_at', $7::text)::text) FROM published
                    """,
                    [
                        migration, route.service, route.reads, route.writes, "\(route.epoch)",
                        "\(route.publishedAt.microseconds)", route.publishedAt.rfc3339,
                    ], during: "publishing a route")
            }
        }
    }

    func routes() throws(BridgeError) -> [Route] {
        try reading(
            """
            SELECT service, reads, writes, epoch, \(Self.microseconds("published_at")) FROM _bridge.routing
            WHERE migration = $1 ORDER BY service COLLATE "C"
            """
        ) { (row) throws(BridgeError) in
            guard let service = row[0], let epoch = row[3].flatMap({ Int64($0) }), let time = row[4].flatMap({ Int64($0) }) else {
                throw BridgeError(.ledgerDiverged, "a published route cannot be read", context: context)
            }
            return Route(
                service: service, reads: row[1] ?? "", writes: row[2] ?? "", epoch: epoch,
                publishedAt: Timestamp(microseconds: time))
        }
    }

    // MARK: Removal

    /// Removes what the migration has here, the tables with the last migration's, and the schema with the last table.
    func removeAll() throws(BridgeError) {
        let action = "removing the cutover's records"
        try connection.inTransaction { () throws(BridgeError) in
            try connection.execute("\(LinkRecords.schemaLock); SELECT pg_advisory_xact_lock(\(Self.removalLock)); SET LOCAL bridge.removing = 'on'")
            guard try Self.exist(connection) else { return }
            for table in Self.tables {
                _ = try connection.query("DELETE FROM _bridge.\(table) WHERE migration = $1", [migration], during: action)
            }
            let left = Self.tables.map { "EXISTS (SELECT FROM _bridge.\($0))" }.joined(separator: " OR ")
            if try connection.rows("SELECT \(left)", during: action).first?[0] == "t" { return }
            try connection.execute(
                """
                DROP TABLE \(Self.tables.map { "_bridge.\($0)" }.joined(separator: ", ")); \
                DROP FUNCTION _bridge.cutover_ledger_only_grows(); REVOKE USAGE ON SCHEMA _bridge FROM PUBLIC
                """, during: action)
            try LinkRecords.dropSchemaIfEmpty(connection, during: action)
        }
    }
}

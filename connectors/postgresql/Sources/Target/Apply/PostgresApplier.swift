import BridgeCore

/// Applies a link's changes over a connection and a thread of its own. See ``ApplySession`` for how.
actor PostgresApplier: ChangeApplier {
    private nonisolated let executor = ThreadExecutor(name: "pg-apply")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let link: LinkDescription
    private let string: ConnectionString
    private let policy: ConflictPolicy
    private var session: ApplySession?

    init(link: LinkDescription, string: ConnectionString, policy: ConflictPolicy) {
        self.link = link
        self.string = string
        self.policy = policy
    }

    /// Connects and takes the link's lock.
    func open() throws(BridgeError) {
        let connection = try PostgresConnection(string, applicationName: "bridge apply \(link.name)")
        try ReplicaSession.begin(connection)
        try ReplicaSession.lock(link, connection)
        try ReplicaSession.setOrigin(link, connection)
        try LinkRecords.upgrade(connection)
        try connection.execute(ReplicaSession.mark(link))
        // Read under the lock: an earlier applier whose last commit was still on its way has finished by now.
        guard let state = try LinkRecords.read(link, connection) else { throw LinkRecords.missing(link) }
        guard let checkpoint = state.checkpoint else {
            throw BridgeError(
                .internalFault, "changes cannot be applied before the copy is finished",
                context: [.init(.migration, link.name)])
        }
        try connection.execute(Self.settings)
        session = ApplySession(link: link, connection: connection, checkpoint: checkpoint, policy: policy)
    }

    /// Every set-wise statement joins a batch of known size with a table of any size by its key. A nested loop over the
    /// key's index costs by the batch alone; the planner, which knows nothing of a staging table just filled, would else
    /// read the whole target for a hash join now and then.
    ///
    /// Statements for single rows are prepared, and a plan made while the table was empty would read it from end to end
    /// for each row of a long transaction that fills it. Set-wise statements, which are planned each time and must read
    /// their staging table, switch that back for themselves.
    private static let settings = """
        SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; SET random_page_cost = 1.0; \
        SET jit = off; SET max_parallel_workers_per_gather = 0; SET temp_buffers = '32MB'; SET work_mem = '32MB'; \
        SET synchronous_commit = on
        """

    func apply(_ batch: ChangeBatch) throws(BridgeError) {
        guard let session else { throw BridgeError(.connectionLost, "the applier is closed") }
        try session.apply(batch)
    }

    func rollback() { session?.rollback() }

    func close() {
        session?.rollback()
        session = nil
    }
}

/// What sets a session apart that writes what came from the source.
enum ReplicaSession {
    /// Triggers and foreign keys stay quiet, and a server process whose client is gone ends within seconds even in the
    /// middle of a statement.
    static func begin(_ connection: PostgresConnection) throws(BridgeError) {
        do throws(BridgeError) {
            try connection.execute("SET session_replication_role = replica", during: "switching to the replica role")
        } catch where error.code == .rightsMissing {
            throw BridgeError(
                .rightsMissing, "the role may not switch the session to the replica role",
                hint: Rights.replicaRole(connection).joined(separator: "; "), cause: nil)
        }
        if connection.serverVersion >= 140_000 {
            // Not every platform has it; it only shortens a wait.
            try? connection.execute("SET client_connection_check_interval = '1s'")
        }
    }

    /// Lets the session pass the fences of its migration. The setting is nobody's, so everybody may make it; it counts in
    /// the replica role only.
    static func mark(_ link: LinkDescription) -> String { "SET bridge.applier = \(quoteLiteral(link.identifier))" }

    /// How long to wait for an earlier applier's server process to notice that its client is gone.
    private static let patience = Duration.seconds(10)

    /// Takes the link's lock for the session.
    static func lock(_ link: LinkDescription, _ connection: PostgresConnection) throws(BridgeError) {
        let milliseconds = patience.components.seconds * 1_000
        do throws(BridgeError) {
            try connection.execute(
                "SET lock_timeout = \(milliseconds); SELECT pg_advisory_lock(\(LinkRecords.lockKey(link))); SET lock_timeout = 0")
        } catch where error.sqlState == "55P03" {
            try connection.execute("SET lock_timeout = 0")
            throw try running(link, connection)
        }
    }

    private static func running(
        _ link: LinkDescription, _ connection: PostgresConnection
    ) throws(BridgeError) -> BridgeError {
        let rows = try connection.rows(
            """
            SELECT string_agg(pid::text, ', ') FROM pg_locks
            WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND (classid::bigint << 32 | objid::bigint) = \(LinkRecords.lockKey(link))
            """)
        return BridgeError(
            .alreadyRunning, "another process applies this migration to the target",
            context: [.init(.migration, link.name), .init(.processes, rows.first?.first.flatMap { $0 } ?? "unknown")],
            hint: "stop the other bridge process, or end its session on the target")
    }

    /// Marks what the session writes, so that a capture in the other direction can leave it out.
    static func setOrigin(_ link: LinkDescription, _ connection: PostgresConnection) throws(BridgeError) {
        let name = quoteLiteral(link.identifier)
        let deadline = ContinuousClock.now + patience
        while true {
            do throws(BridgeError) {
                try connection.execute(
                    """
                    SELECT pg_replication_origin_create(\(name)) \
                    WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = \(name))
                    """, during: "making the replication origin")
                try connection.execute(
                    "SELECT pg_replication_origin_session_setup(\(name))", during: "taking the replication origin")
                return
            } catch {
                switch error.sqlState {
                case "42501":
                    throw BridgeError(
                        .rightsMissing, "the role may not use replication origins",
                        hint: Rights.origins(connection).joined(separator: "; "))
                // A server process that ends gives up its locks a moment before the origin.
                case "55006" where ContinuousClock.now < deadline:
                    try connection.execute("SELECT pg_sleep(0.02)")
                case "55006":
                    throw BridgeError(
                        .alreadyRunning, "another process uses the link's replication origin on the target",
                        context: [.init(.migration, link.name), .init(.detail, link.identifier)])
                case "53400":
                    throw BridgeError(
                        .serverSettings, "the target has no free replication origin state",
                        hint: "raise max_replication_slots on the target and restart it")
                default: throw error
                }
            }
        }
    }
}

/// The statements that give the target's role what it needs.
enum Rights {
    static func role(_ connection: PostgresConnection) -> String {
        (try? connection.rows("SELECT current_user").first?.first).flatMap { $0 }.map(quoteIdentifier) ?? "CURRENT_USER"
    }

    static func replicaRole(_ connection: PostgresConnection) -> [String] {
        let role = role(connection)
        return connection.serverVersion >= 150_000
            ? ["GRANT SET ON PARAMETER session_replication_role TO \(role)"]
            : ["ALTER ROLE \(role) SUPERUSER"]
    }

    static let originFunctions = [
        "pg_replication_origin_create(text)", "pg_replication_origin_drop(text)",
        "pg_replication_origin_session_setup(text)",
    ]

    /// Those that are lacking; every role may read the origins' names, unless that was taken away.
    static func origins(_ connection: PostgresConnection) -> [String] {
        let role = role(connection)
        let lacking = try? connection.rows(
            """
            SELECT 'EXECUTE ON FUNCTION pg_catalog.' || f FROM unnest($1::text[]) WITH ORDINALITY AS w(f, i)
            WHERE NOT has_function_privilege('pg_catalog.' || f, 'EXECUTE')
            UNION ALL SELECT 'SELECT ON pg_catalog.pg_replication_origin' WHERE NOT has_table_privilege('pg_catalog.pg_replication_origin', 'SELECT')
            """, [ArrayLiteral.make(originFunctions)])
        return (lacking ?? []).compactMap { row in row.first.flatMap { $0 }.map { "GRANT \($0) TO \(role)" } }
    }
}

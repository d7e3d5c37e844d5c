import BridgeCore

/// Keeps a slot from holding back log that capture is done with (requirement P6).
///
/// What a slot retains begins at its `restart_lsn`, and that moves only where the log holds a record of the transactions
/// that are running. The server writes one every 15 seconds, so beside a busy neighbour gigabytes are retained for an
/// idle migration, however promptly capture confirms. The server also writes one when a logical slot is made: before it
/// waits for anybody, so a temporary slot whose making is given up at once does as well.
actor SlotKeeper {
    /// How far the restart position may stay behind the confirmed one, in bytes of log.
    static let allowance: UInt64 = 16 << 20
    /// How much must be confirmed before the slot is looked at again.
    private static let stride: UInt64 = 4 << 20
    private static let pause = Duration.milliseconds(100)
    private static let pauseAfterFailure = Duration.seconds(1)

    private nonisolated let executor = ThreadExecutor(name: "pg-slot-keeper")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private nonisolated let connectionString: ConnectionString
    private nonisolated let slot: String
    private nonisolated let applicationName: String
    private var session: PostgresConnection?
    /// The oldest transaction that ran at the last look.
    private var oldestSeen: UInt64 = 0

    init(_ connectionString: ConnectionString, slot: String, applicationName: String) {
        self.connectionString = connectionString
        self.slot = slot
        self.applicationName = applicationName
    }

    /// Looks after the slot until the task is cancelled.
    /// - Parameter signals: where capture says what is confirmed.
    nonisolated func run(_ signals: CaptureSignals) async {
        var last = signals.acknowledgedPosition
        var pause = Self.pause
        while !Task.isCancelled {
            try? await Task.sleep(for: pause)
            let confirmed = signals.acknowledgedPosition
            guard confirmed >= last &+ Self.stride, !Task.isCancelled else { continue }
            if await look() {
                last = confirmed
                pause = Self.pause
            } else {
                pause = Self.pauseAfterFailure
            }
        }
        await close()
    }

    /// Has a record of the running transactions written if the slot needs one. It is a service, not a duty: where it fails,
    /// the server's own record comes later, and whatever is wrong with the connection capture will say.
    ///
    /// Nothing is tried while a transaction runs that ran at the last look: the making of the slot would wait for it, and be
    /// given up with an error in the server's log. Nor is the last free slot taken, which somebody else may need.
    /// - Returns: false if it is to be tried again.
    private func look() -> Bool {
        do throws(BridgeError) {
            let session = try connected()
            let row = try session.rows(Self.query, [slot]).first ?? []
            guard row.count == 4, let behind = row[0].flatMap({ UInt64($0) }), behind > Self.allowance else { return true }
            let (oldest, next) = (row[1].flatMap { UInt64($0) } ?? 0, row[2].flatMap { UInt64($0) } ?? 0)
            let seen = oldestSeen
            oldestSeen = oldest
            guard let free = row[3].flatMap({ Int($0) }), free >= 2, oldest == next || oldest > seen else { return false }
            let name = quoteLiteral("bridge_keep_\(session.backendProcess)")
            do throws(BridgeError) {
                try session.execute("SELECT pg_create_logical_replication_slot(\(name), 'pgoutput', true)")
            } catch {
                guard !session.isBroken else { throw error }
                return false
            }
            try session.execute("SELECT pg_drop_replication_slot(\(name))")
            return true
        } catch {
            session = nil
            return false
        }
    }

    /// How much is retained behind what is confirmed, the oldest running transaction and the next one, and the free slots.
    private static let query = """
        SELECT pg_wal_lsn_diff(confirmed_flush_lsn, restart_lsn)::bigint,
          pg_snapshot_xmin(pg_current_snapshot()), pg_snapshot_xmax(pg_current_snapshot()),
          (SELECT setting::int FROM pg_settings WHERE name = 'max_replication_slots') - (SELECT count(*) FROM pg_replication_slots)
        FROM pg_replication_slots WHERE slot_name = $1
        """

    private func connected() throws(BridgeError) -> PostgresConnection {
        if let session, !session.isBroken { return session }
        let made = try PostgresConnection(connectionString, applicationName: applicationName)
        try made.execute("SET statement_timeout = '1s'")
        session = made
        return made
    }

    private func close() { session = nil }
}

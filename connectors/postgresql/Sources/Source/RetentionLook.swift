import BridgeCore
import Synchronization

/// Looks at how much log a slot holds back, over a session of its own.
///
/// The server's free disk cannot be seen by an ordinary role, so the measure is the slot's share alone.
actor RetentionLook {
    nonisolated let executor = ThreadExecutor(name: "pg-retention")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private let connectionString: ConnectionString
    private nonisolated let interrupter = Mutex<Interrupter?>(nil)
    private var openSession: PostgresConnection?

    init(_ connectionString: ConnectionString) { self.connectionString = connectionString }

    /// - Returns: nil if there is no such slot.
    func look(_ slot: String) throws(BridgeError) -> SourceRetention? {
        try SlotState.read(slot, session())?.retention
    }

    private func session() throws(BridgeError) -> PostgresConnection {
        if let openSession, openSession.isAlive() { return openSession }
        openSession = nil
        let interrupter = try Interrupter()
        self.interrupter.withLock { $0 = interrupter }
        let session = try PostgresConnection(connectionString, applicationName: "bridge slot", interrupter: interrupter)
        openSession = session
        return session
    }

    /// Closes the session soon, and makes a look that waits for its server fail. From any thread.
    nonisolated func end() {
        let interrupter = interrupter.withLock { $0 }
        guard let interrupter else { return }
        interrupter.signal()
        Task { await self.drop(interrupter) }
    }

    private func drop(_ ended: Interrupter) {
        if openSession?.interrupter === ended { openSession = nil }
    }

    // MARK: Preflight

    /// While bridge does not run, only the server itself can keep a forgotten slot from filling its disk.
    static func findings(_ session: PostgresConnection, limit: Int64) throws(BridgeError) -> [Finding] {
        let setting = try session.rows(
            "SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'",
            during: "looking at the server's settings").first?.first.flatMap { $0 }
        guard setting == "-1" else { return [] }
        return [
            Finding(
                .warning, .serverSettings, what: "max_slot_wal_keep_size is -1: the server keeps log for a slot without a limit",
                why: "while bridge does not run nobody watches its slot, and the log could fill the server's disk; with a "
                    + "limit the server would give the slot up there, and the migration would have to begin again",
                mend: [
                    "ALTER SYSTEM SET max_slot_wal_keep_size = '\(max(1, limit / 1_048_576))MB'", "SELECT pg_reload_conf()",
                ])
        ]
    }
}

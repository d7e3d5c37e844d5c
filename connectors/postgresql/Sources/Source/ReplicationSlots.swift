import BridgeCore

/// What the server says about a replication slot.
struct SlotState {
    var plugin: String?
    var databaseOid: String?
    var database: String?
    var activeProcess: String?
    var restart: UInt64?
    var confirmed: UInt64?
    var walStatus: String?
    /// Log that the slot holds back; nil if it was lost.
    var retained: Int64?
    /// How much more may be written before the slot is in danger; nil without a limit of the server.
    var safe: Int64?
    /// Where the log ended at that moment; nil on a standby.
    var logEnd: UInt64?

    /// - Returns: nil if there is no slot of that name.
    static func read(_ name: String, _ connection: PostgresConnection) throws(BridgeError) -> SlotState? {
        let rows = try connection.rows(
            """
            SELECT plugin, datoid, database, active_pid, restart_lsn, confirmed_flush_lsn, wal_status,
                   CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint END,
                   safe_wal_size, CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn() END
            FROM pg_replication_slots WHERE slot_name = $1
            """, [name], during: "reading the replication slots")
        guard let row = rows.first else { return nil }
        return SlotState(
            plugin: row[0], databaseOid: row[1], database: row[2], activeProcess: row[3],
            restart: LogSequenceNumber.parse(row[4]), confirmed: LogSequenceNumber.parse(row[5]), walStatus: row[6],
            retained: row[7].flatMap { Int64($0) }, safe: row[8].flatMap { Int64($0) }, logEnd: LogSequenceNumber.parse(row[9]))
    }

    var retention: SourceRetention? {
        guard retained != nil || walStatus != nil else { return nil }
        return SourceRetention(bytes: max(0, retained ?? 0), state: walStatus, safeBytes: safe, logEnd: logEnd.map { Position(commit: $0) })
    }
}

/// A slot that was just made.
struct CreatedSlot: Sendable {
    /// Transactions that commit at or after it come through the slot.
    var consistentPoint: UInt64
    /// The picture of the database at that point; usable while the connection that made it runs nothing else.
    var snapshot: String
}

/// Making and dropping slots.
struct ReplicationSlots {
    /// Looks at the server and drops; an ordinary session.
    let session: PostgresConnection

    /// Makes a pgoutput slot and exports its snapshot.
    ///
    /// The server waits for every transaction that was open when it began, so an old one can hold it up for ever. After
    /// `patience` the attempt is cancelled, the slot is gone again, and the error names who was waited for.
    /// - Parameter stream: a replication connection, which keeps the snapshot.
    func create(
        _ name: String, temporary: Bool, on stream: PostgresConnection, patience: Duration
    ) throws(BridgeError) -> CreatedSlot {
        // The older spelling is understood by every version.
        let command = "CREATE_REPLICATION_SLOT \(quoteIdentifier(name))\(temporary ? " TEMPORARY" : "") LOGICAL pgoutput EXPORT_SNAPSHOT"
        var blockers: String?
        do throws(BridgeError) {
            let result = try stream.simpleQuery(command, deadline: .now + patience, during: "making a replication slot") {
                () throws(BridgeError) in
                blockers = try self.blockers(of: stream.backendProcess)
            }
            guard let point = LogSequenceNumber.parse(result.text(0, 1)), let snapshot = result.text(0, 2) else {
                throw BridgeError(.serverRefused, "the server made a slot but did not describe it")
            }
            return CreatedSlot(consistentPoint: point, snapshot: snapshot)
        } catch {
            if !temporary, error.sqlState != "42710" { try dropLeftover(name) }
            guard let blockers else { throw Self.explained(error, name) }
            throw BridgeError(
                .slotBlocked, "older transactions are still open, and a replication slot must wait for them",
                context: [.init(.slot, name), .init(.processes, blockers)])
        }
    }

    /// The processes that a slot creation waits for: those in its way now, else all that hold a transaction open.
    private func blockers(of process: Int32) throws(BridgeError) -> String {
        let rows = try session.rows(
            """
            SELECT coalesce(nullif(concat_ws(', ',
                (SELECT string_agg(DISTINCT CASE WHEN b.pid = 0 THEN 'a prepared transaction' ELSE b.pid::text END, ', ')
                 FROM unnest(pg_blocking_pids($1)) AS b(pid))), ''),
                (SELECT string_agg(pid::text, ', ' ORDER BY xact_start) FROM pg_stat_activity
                 WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND pid <> $1),
                'unknown')
            """, [String(process)], during: "looking for the transactions in the way")
        return rows.first?.first.flatMap { $0 } ?? "unknown"
    }

    private static func explained(_ error: BridgeError, _ slot: String) -> BridgeError {
        switch error.sqlState {
        case "42710":
            BridgeError(.slotForeign, "a replication slot of this name exists already", context: [.init(.slot, slot)])
        case "53400":
            BridgeError(
                .serverSettings, "all replication slots of the server are in use", context: [.init(.slot, slot)],
                hint: "drop slots that nobody uses, or raise max_replication_slots and restart the server")
        case "55000":
            // wal_level is too low, or the server is a standby.
            BridgeError(.serverSettings, error.message, context: error.context)
        default: error
        }
    }

    /// A cancelled creation leaves nothing behind by itself; this makes sure.
    private func dropLeftover(_ name: String) throws(BridgeError) {
        guard let state = try SlotState.read(name, session), state.plugin == "pgoutput" else { return }
        try drop(name, patience: .seconds(5))
    }

    /// Drops a slot of ours. Waits for a reader that is about to go, such as one of a process that was killed.
    /// - Throws: `slotForeign` for a slot of another database or plugin; `slotInUse` naming the reader.
    func drop(_ name: String, patience: Duration) throws(BridgeError) {
        let end = ContinuousClock.now + patience
        while let state = try SlotState.read(name, session) {
            try checkOwnership(state, name)
            if state.activeProcess == nil {
                do throws(BridgeError) {
                    try session.execute("SELECT pg_drop_replication_slot(\(quoteLiteral(name)))")
                    return
                } catch {
                    // Taken, or dropped, between the two statements.
                    guard error.sqlState == "55006" || error.sqlState == "42704" else { throw error }
                }
            }
            guard ContinuousClock.now < end else { throw Self.inUse(name, state.activeProcess) }
            try session.pause(.milliseconds(50))
        }
    }

    private func checkOwnership(_ state: SlotState, _ name: String) throws(BridgeError) {
        let database = try session.rows("SELECT oid FROM pg_database WHERE datname = current_database()")
        guard state.plugin == "pgoutput", state.databaseOid == database.first?.first.flatMap({ $0 }) else {
            throw BridgeError(
                .slotForeign, "the replication slot of this name belongs to something else",
                context: [.init(.slot, name), .init(.detail, "plugin \(state.plugin ?? "none"), database \(state.database ?? "none")")])
        }
    }

    static func inUse(_ name: String, _ process: String?) -> BridgeError {
        BridgeError(
            .slotInUse, "another process reads the replication slot",
            context: [.init(.slot, name), .init(.processes, process ?? "unknown")])
    }
}

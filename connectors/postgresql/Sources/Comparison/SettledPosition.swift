import BridgeCore

/// Finds a position such that every transaction whose commit stands before it is seen by all later snapshots.
///
/// The server writes a commit to its log, then perhaps waits for a standby, and only then takes the transaction out of
/// the list that snapshots are made from. So:
///
/// 1. The position A is read: the end of a message written now.
/// 2. Then a snapshot S. A transaction whose commit stands before A had its number by then, and has either left the list,
///    so that S and all later ones see it, or is in S as being in progress. (Numbers are assigned before a commit is
///    written, hence before S, so none is at or above S's upper end.)
/// 3. Each transaction X that S has in progress is settled as soon as one of these is known:
///    - a later snapshot does not have it in progress: it has ended, and is seen if it committed;
///    - its process was found outside of any statement (`idle in transaction`) after A. A commit is part of a statement,
///      and ends with X gone from the process; so X was not committing then, and commits, if ever, behind A;
///    - its process was found after A in another statement than in an earlier look that came after A too. X was in
///      neither's commit when the second began, so its commit comes later. Whether the statement is another is told by
///      comparing the times that the server keeps for it for equality; they are never compared with a clock;
///    - it belongs to another database, and so has written nothing that the link captures;
///    - it is prepared, and no process can be in the middle of its COMMIT PREPARED: each process that was at work in a
///      first look, and whose text could be that command, has been seen doing something else, or is gone. (COMMIT
///      PREPARED is refused inside of functions and of strings of several statements, so the word is in the text; a
///      text that may be cut, or may not be read, counts as one that could be it.)
///
/// pg_stat_activity is read so that for each process its state comes before its transaction number; both after A, since
/// the query begins after A is known. If it says that X's process was idle, X was either not assigned yet, which S
/// excludes, or open and idle. A state that is unknown (other roles without pg_read_all_stats, `track_activities` off,
/// server processes) settles nothing; such a transaction is waited for. So is a single long statement, and a commit that
/// waits for a standby. Workers of subscriptions and extensions, whose text says nothing, count as ones that could be
/// committing a prepared transaction.
struct SettledPosition {
    let session: PostgresConnection
    let patience: Duration

    /// What a process was found to be doing.
    private struct Process: Equatable {
        var started: String?
        var state: String?
        var queryStart: String?
        var stateChange: String?
        var couldCommitPrepared: Bool

        var isIdleInTransaction: Bool { state?.hasPrefix("idle in transaction") == true }
        var isKnown: Bool { state != nil && state != "disabled" && queryStart != nil }
    }

    private struct Look {
        /// By process and transaction, cut to 32 bits.
        var holders: [UInt32: (process: String, isElsewhere: Bool, state: Process)] = [:]
        /// All processes but ours that are in a statement, or of which that is not known.
        var busy: [String: Process] = [:]
        /// Whether a prepared transaction is in another database.
        var prepared: [UInt32: Bool] = [:]
    }

    func find() throws(BridgeError) -> Position {
        let end = ContinuousClock.now + patience
        let position = try LogMark.write(session)
        var open = try snapshot().inProgress
        var first: [UInt64: Process] = [:]
        var couldBePreparing: [String: Process]?
        while !open.isEmpty {
            let look = try look()
            if let known = couldBePreparing {
                couldBePreparing = known.filter { process, state in look.busy[process] == state }
            } else {
                couldBePreparing = look.busy.filter { $0.value.couldCommitPrepared }
            }
            for transaction in open {
                let number = UInt32(truncatingIfNeeded: transaction)
                if let holder = look.holders[number] {
                    if holder.isElsewhere || holder.state.isIdleInTransaction {
                        open.remove(transaction)
                    } else if holder.state.isKnown {
                        let earlier = first[transaction] ?? holder.state
                        first[transaction] = earlier
                        // A reused process number has another start, and the transaction would be gone.
                        if earlier.queryStart != holder.state.queryStart { open.remove(transaction) }
                    }
                } else if let isElsewhere = look.prepared[number] {
                    if isElsewhere || couldBePreparing?.isEmpty == true { open.remove(transaction) }
                }
            }
            let now = try snapshot()
            open = open.filter { !now.sees($0) }
            guard !open.isEmpty else { break }
            guard ContinuousClock.now < end else { throw blocked(open, look) }
            try session.pause(.milliseconds(20))
        }
        return position
    }

    /// Waits until every transaction of this database that has a number by now has ended. One that wrote anything has one.
    func waitForWriters() throws(BridgeError) {
        let end = ContinuousClock.now + patience
        var open = try snapshot().inProgress
        while !open.isEmpty {
            let look = try look()
            let now = try snapshot()
            open = open.filter { transaction in
                let number = UInt32(truncatingIfNeeded: transaction)
                let isElsewhere = look.holders[number]?.isElsewhere ?? look.prepared[number] ?? false
                return !isElsewhere && !now.sees(transaction)
            }
            guard !open.isEmpty else { return }
            guard ContinuousClock.now < end else {
                throw blocked(open, look, "transactions on the source that began before a table was altered are still open")
            }
            try session.pause(.milliseconds(20))
        }
    }

    private func snapshot() throws(BridgeError) -> TransactionSnapshot {
        let text = try session.rows("SELECT pg_current_snapshot()", during: "waiting for open transactions").first?[0]
        guard let text, let snapshot = TransactionSnapshot(text) else {
            throw BridgeError(.serverRefused, "the server did not describe its snapshot")
        }
        return snapshot
    }

    private func look() throws(BridgeError) -> Look {
        var look = Look()
        for row in try session.rows(Self.query, during: "looking at open transactions") {
            guard let process = row[1] else { continue }
            let isElsewhere = row[3] == "t"
            guard row[0] == "session" else {
                if let number = row[2].flatMap({ UInt32($0) }) { look.prepared[number] = isElsewhere }
                continue
            }
            let state = Process(
                started: row[4], state: row[5], queryStart: row[6], stateChange: row[7],
                couldCommitPrepared: row[8] == "t")
            if let number = row[2].flatMap({ UInt32($0) }) { look.holders[number] = (process, isElsewhere, state) }
            if row[9] == "t" { look.busy[process] = state }
        }
        return look
    }

    /// Each statement of ours is a transaction of its own, for which the server reads its processes' states anew.
    private static let query = """
        SELECT 'session', a.pid::text, a.backend_xid,
          a.datid IS NOT NULL AND a.datid <> 0 AND a.datid <> d.oid, a.backend_start, a.state, a.query_start, a.state_change,
          a.state IS NULL OR a.state = 'disabled' OR a.backend_type NOT IN ('client backend', 'walsender') OR a.query ~* 'prepared' OR a.query = '<insufficient privilege>'
            OR octet_length(a.query) >= pg_size_bytes(current_setting('track_activity_query_size')) - 8,
          a.pid <> pg_backend_pid() AND a.datid = d.oid AND a.backend_type NOT IN ('autovacuum worker', 'parallel worker')
            AND (a.state IS NULL OR a.state NOT LIKE 'idle%' OR a.backend_type NOT IN ('client backend', 'walsender'))
        FROM pg_stat_activity a, (SELECT oid FROM pg_database WHERE datname = current_database()) AS d
        UNION ALL
        SELECT 'prepared', p.gid, p.transaction, p.database <> current_database(), NULL, NULL, NULL, NULL, NULL, NULL
        FROM pg_prepared_xacts p
        """

    private func blocked(_ open: Set<UInt64>, _ look: Look, _ what: String? = nil) -> BridgeError {
        let names = open.sorted().prefix(20).map { transaction -> String in
            let number = UInt32(truncatingIfNeeded: transaction)
            if let holder = look.holders[number] { return holder.process }
            return look.prepared[number] == nil ? "transaction \(transaction)" : "a prepared transaction"
        }
        let isHidden = open.contains { look.holders[UInt32(truncatingIfNeeded: $0)].map { $0.state.state == nil } ?? false }
        return BridgeError(
            .slotBlocked,
            what ?? (isHidden
                ? "transactions on the source are open, and the role may not see whether they are committing"
                : "transactions on the source are in the middle of a statement, and it cannot be told whether they are committing"),
            context: [.init(.processes, names.joined(separator: ", "))],
            hint: isHidden && what == nil
                ? "GRANT pg_read_all_stats TO \(Rights.role(session))"
                : "wait until their statements have ended, or end those sessions; then run it again")
    }
}

import BridgeCore

/// Takes locks that hold off writers, for so short a time that no statement of the application waits long behind an attempt
/// that fails.
struct FenceLocks {
    enum Mode: String {
        /// Holds off writers.
        case shareRowExclusive = "SHARE ROW EXCLUSIVE"
        /// Holds off everybody.
        case accessExclusive = "ACCESS EXCLUSIVE"
    }

    let connection: PostgresConnection
    var mode = Mode.shareRowExclusive

    /// For all tables together: a writer waits behind the lock that is waited for as well as behind those that are held.
    private static let tryTime = 400
    private static let firstPause = Duration.milliseconds(40)
    private static let longestPause = Duration.seconds(1)
    /// The server ends an autovacuum that stands in somebody's way after `deadlock_timeout`, a second unless set otherwise.
    private static let vacuumPatience = Duration.seconds(3)

    /// Runs `body` in a transaction that holds the lock on the tables and everything below them. No other
    /// transaction that wrote to one of them is open then, and none writes until this one has ended.
    ///
    /// The locks are asked for in the order of the OIDs. A try that fails releases everything; the next comes after a
    /// pause that grows and has jitter, in which waiting writers get through.
    /// - Parameters:
    ///   - read: gives the tables as the catalog has them; called again under the locks until nothing is new.
    ///   - deadline: no further try begins behind it; one is made in any case.
    func hold<Result>(
        _ read: () throws(BridgeError) -> FenceCatalog, until deadline: ContinuousClock.Instant,
        _ body: (FenceCatalog) throws(BridgeError) -> Result
    ) throws(BridgeError) -> Result {
        var pause = Self.firstPause
        var holders = "unknown"
        while true {
            var began = ""
            var relations: [FenceCatalog.Relation] = []
            do throws(BridgeError) {
                return try connection.inTransaction { () throws(BridgeError) in
                    began = try connection.rows("SELECT clock_timestamp()").first?[0] ?? ""
                    let catalog = try lock(read, &relations)
                    return try body(catalog)
                }
            } catch where Self.isBlocked(error) && !connection.isBroken {
                let found = try self.holders(of: relations, since: began)
                if !found.names.isEmpty { holders = found.names.joined(separator: ", ") }
                // Vacuums are quicker told to go than waited for.
                if let vacuumed = found.vacuumed, .now < deadline {
                    try waitForVacuum(vacuumed, until: deadline)
                } else {
                    let jittered = pause * Double.random(in: 0.5...1.5)
                    guard .now + jittered < deadline else { throw busy(relations, holders) }
                    try connection.pause(jittered)
                    pause = min(pause * 2, Self.longestPause)
                }
            }
        }
    }

    /// Whether a statement gave up waiting for a lock.
    static func isBlocked(_ error: BridgeError) -> Bool {
        error.code == .serverBusy && ["55P03", "57014", "40P01"].contains(error.sqlState)
    }

    private func lock(
        _ read: () throws(BridgeError) -> FenceCatalog, _ relations: inout [FenceCatalog.Relation]
    ) throws(BridgeError) -> FenceCatalog {
        let action = "stopping writers"
        try connection.execute("SET LOCAL jit = off; SET LOCAL lock_timeout = \(Self.tryTime)")
        var catalog = try read()
        var locked: Set<UInt32> = []
        while true {
            let wanted = catalog.relations.filter { !locked.contains($0.oid) && !$0.isForeign }
            relations = catalog.relations
            if wanted.isEmpty { return catalog }
            // lock_timeout counts for each table anew.
            let names = wanted.map { "ONLY \($0.quoted)" }.joined(separator: ", ")
            try connection.execute("SET LOCAL statement_timeout = \(Self.tryTime)")
            try connection.execute("LOCK TABLE \(names) IN \(mode.rawValue) MODE", during: action)
            try connection.execute("SET LOCAL statement_timeout = 0")
            locked.formUnion(wanted.map(\.oid))
            // A partition can have come before its parent was locked; none can afterwards.
            catalog = try read()
        }
    }

    // MARK: Who is in the way

    private struct Holders {
        var names: [String] = []
        /// A table on which a lock stands that holds off ours and no writer's, such as a VACUUM's.
        var vacuumed: FenceCatalog.Relation?
    }

    /// Those that hold, or wait for, a lock on one of the tables that holds off ours, and began before the try did: the
    /// others came after it had ended.
    private func holders(of relations: [FenceCatalog.Relation], since began: String) throws(BridgeError) -> Holders {
        let rows = try connection.rows(
            """
            SELECT DISTINCT coalesce(l.pid::text, 'the prepared transaction ' || quote_literal(x.gid)), l.relation,
              l.mode = 'ShareUpdateExclusiveLock' AND l.granted
            FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
            LEFT JOIN pg_locks n ON l.pid IS NULL AND n.pid IS NULL AND n.locktype = 'transactionid' AND n.virtualtransaction = l.virtualtransaction
            LEFT JOIN pg_prepared_xacts x ON x.transaction = n.transactionid
            WHERE l.locktype = 'relation' AND l.relation = ANY ($1::oid[]) AND l.pid IS DISTINCT FROM pg_backend_pid()
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND ($3::boolean OR l.mode NOT IN ('AccessShareLock', 'RowShareLock'))
              AND coalesce(a.xact_start, x.prepared, '-infinity') <= $2::timestamptz
            ORDER BY 1
            """, [ArrayLiteral.make(relations.map(\.oid)), began, mode == .accessExclusive ? "t" : "f"], during: "looking for who holds the tables")
        var found = Holders()
        for row in rows {
            if let name = row[0], !found.names.contains(name) { found.names.append(name) }
            if row[2] == "t", found.vacuumed == nil { found.vacuumed = relations.first { "\($0.oid)" == row[1] } }
        }
        return found
    }

    /// Waits for a lock that no writer waits behind, which makes the server end an autovacuum in its way. Holds nothing
    /// else meanwhile, and releases it at once.
    private func waitForVacuum(_ relation: FenceCatalog.Relation, until deadline: ContinuousClock.Instant) throws(BridgeError) {
        let time = max(.milliseconds(1), min(Self.vacuumPatience, ContinuousClock.now.duration(to: deadline)))
        do throws(BridgeError) {
            try connection.inTransaction { () throws(BridgeError) in
                try connection.execute("SET LOCAL lock_timeout = \(time.wholeMilliseconds)")
                try connection.execute(
                    "LOCK TABLE ONLY \(relation.quoted) IN SHARE UPDATE EXCLUSIVE MODE", during: "waiting for a vacuum to end")
            }
        } catch where Self.isBlocked(error) {}
    }

    /// Whether all tries have failed.
    static func isBusy(_ error: BridgeError) -> Bool { error.code == .serverBusy && error.sqlState == nil }

    private func busy(_ relations: [FenceCatalog.Relation], _ holders: String) -> BridgeError {
        BridgeError(
            .serverBusy, "the tables could not be locked: other transactions hold them",
            context: [.init(.processes, holders)],
            hint: "wait for these transactions, or end them: SELECT pg_terminate_backend(PROCESS), or COMMIT PREPARED or ROLLBACK PREPARED")
    }
}

extension Duration {
    var wholeMilliseconds: Int64 { wholeMicroseconds / 1_000 }

    /// At most 290,000 years.
    var wholeMicroseconds: Int64 {
        let (seconds, attoseconds) = components
        let limit = Int64.max / 1_000_000 - 1
        return max(-limit, min(limit, seconds)) * 1_000_000 + attoseconds / 1_000_000_000_000
    }
}

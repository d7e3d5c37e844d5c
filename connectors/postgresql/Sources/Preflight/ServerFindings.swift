import BridgeCore

/// What preflight says of a server and of the session's role on it, in whichever part it has.
struct ServerFindings {
    enum Part: String { case source, target }

    let session: PostgresConnection
    let part: Part
    /// In place of the server's own.
    var version: Int?

    /// Sessions that a run, a check and a switch have open at a time, with some to spare.
    private static let sessionsNeeded = 12
    /// The oldest minor version of each major whose decoding neither loses changes beside DDL nor uses memory without
    /// bound for it (releases of May and August 2025).
    private static let soundMinors = [14: 19, 15: 14, 16: 10, 17: 6]
    private static let megabyte: Int64 = 1 << 20

    func findings() throws(BridgeError) -> [Finding] {
        var findings = try settingFindings()
        findings += try roomFindings()
        findings += try collationFindings()
        return findings
    }

    private func warn(_ what: String, _ why: String, _ mend: String...) -> Finding {
        Finding(.warning, .serverSettings, what: what, why: why, mend: mend)
    }

    // MARK: Settings

    private func settingFindings() throws(BridgeError) -> [Finding] {
        var findings: [Finding] = []
        let version = version ?? session.serverVersion
        let (major, minor) = (version / 10_000, version % 10_000)
        if let sound = Self.soundMinors[major], minor < sound {
            findings.append(
                warn(
                    "the \(part.rawValue)'s server is PostgreSQL \(major).\(minor), older than \(major).\(sound)",
                    "its logical decoding can lose changes that are made beside DDL", "upgrade the server to \(major).\(sound) or later"))
        }
        guard part == .source else { return findings }
        let row = try session.rows(
            """
            SELECT (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'),
              (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
              (SELECT setting::bigint FROM pg_settings WHERE name = 'logical_decoding_work_mem'),
              pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()
            """, during: "looking at the server's settings"
        ).first ?? []
        guard row.count == 4 else { return findings }
        func number(_ index: Int) -> Int64 { row[index].flatMap { Int64($0) } ?? -1 }
        let reload = "SELECT pg_reload_conf()"
        if (1..<5_000).contains(number(0)) {
            findings.append(
                warn(
                    "wal_sender_timeout is \(number(0)) ms", "a short delay of the network or of this machine ends the change stream",
                    "ALTER SYSTEM SET wal_sender_timeout = '60s'", reload))
        }
        // In MB.
        if (0..<1_024).contains(number(1)) {
            findings.append(
                warn(
                    "max_slot_wal_keep_size is \(number(1)) MB",
                    "a capture that is away for as long as the server takes to write that much cannot go on, and the migration begins again",
                    "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'", reload))
        }
        // In kB.
        if (0..<4_096).contains(number(2)) {
            findings.append(
                warn(
                    "logical_decoding_work_mem is \(number(2)) kB", "all but small transactions are decoded by way of the server's disk",
                    "ALTER SYSTEM SET logical_decoding_work_mem = '64MB'", reload))
        }
        if row[3] == "SQL_ASCII" {
            findings.append(
                warn(
                    "the source database's encoding is SQL_ASCII", "it holds whatever bytes it was given, and text that is not UTF-8 stops the link",
                    "move the rows to a database with ENCODING 'UTF8', or correct texts that are not UTF-8"))
        }
        return findings
    }

    // MARK: Room

    /// Connections, and how long the role may make them.
    private func roomFindings() throws(BridgeError) -> [Finding] {
        let row = try session.rows(
            """
            SELECT quote_ident(r.rolname), r.rolconnlimit, d.datconnlimit, quote_ident(d.datname),
              current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                - coalesce(current_setting('reserved_connections', true)::int, 0)
                - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
              r.rolsuper, r.rolvaliduntil::date, r.rolvaliduntil < now() + interval '30 days', current_setting('max_connections')::int
            FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()
            """, during: "looking at the server's connections"
        ).first ?? []
        guard row.count == 9, let role = row[0], let database = row[3] else { return [] }
        var findings: [Finding] = []
        func number(_ index: Int) -> Int { row[index].flatMap { Int($0) } ?? -1 }
        let why = "capture, copy, check and switch have up to \(Self.sessionsNeeded) sessions open at a time"
        if (0..<Self.sessionsNeeded).contains(number(1)) {
            findings.append(
                warn("the role \(role) may have \(number(1)) connections only", why, "ALTER ROLE \(role) CONNECTION LIMIT -1"))
        }
        if (0..<Self.sessionsNeeded).contains(number(2)), row[5] != "t" {
            findings.append(
                warn(
                    "the database \(database) takes \(number(2)) connections only", why,
                    "ALTER DATABASE \(database) CONNECTION LIMIT -1"))
        }
        if number(4) < Self.sessionsNeeded {
            findings.append(
                warn(
                    "the \(part.rawValue)'s server has \(max(0, number(4))) free connections", why,
                    "ALTER SYSTEM SET max_connections = \(number(8) + Self.sessionsNeeded)", "restart the server"))
        }
        if row[7] == "t", let day = row[6] {
            findings.append(
                warn(
                    "the password of the role \(role) ends on \(day)", "no session can be made with it from then on",
                    "ALTER ROLE \(role) VALID UNTIL 'infinity'"))
        }
        return findings
    }

    // MARK: Collations

    /// Whether the database's collation is the one that its indexes were made with.
    private func collationFindings() throws(BridgeError) -> [Finding] {
        guard session.serverVersion >= 150_000 else { return [] }
        let row = try session.rows(
            """
            SELECT quote_ident(datname), datcollversion, pg_database_collation_actual_version(oid)
            FROM pg_database WHERE datname = current_database()
            """, during: "looking at the database's collation"
        ).first ?? []
        guard row.count == 3, let database = row[0], let made = row[1], let now = row[2], made != now else { return [] }
        return [
            warn(
                "the \(part.rawValue) database was made with version \(made) of its collation, and the server's system has \(now)",
                "indexes on text may be in another order than the server takes them to be: rows are then not found, and keys can be double",
                "REINDEX DATABASE \(database)", "ALTER DATABASE \(database) REFRESH COLLATION VERSION")
        ]
    }
}

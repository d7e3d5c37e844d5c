import BridgeCore

/// Reads all that the link's capture rests on, as text: two equal ones mean that changes were captured in the same way in
/// between. Server, slot and publication are common to all tables; what the publication says of a table, and the table
/// itself, is the table's own part.
///
/// It has versions beside definitions: the numbers of the transactions that wrote the catalog's rows (`xmin`) of the
/// publication, the tables and partitions, their columns and the types that these use. So a change that was taken back
/// shows, as does what changes every row and never shows in the log: a rewriting ALTER TABLE (a new file), a label of an
/// enum that is named anew, a partition that was attached with its rows.
///
/// ANALYZE, VACUUM and autovacuum write the catalog's rows in place, freezing leaves `xmin`, and reads, writes and new
/// indexes do not touch them: none of these changes it. What does, though it is harmless: VACUUM FULL, CLUSTER, TRUNCATE
/// and a new access method (a new file, like that of a rewrite; TRUNCATE is in the journal, but leaves a table like one
/// that was UNLOGGED for a while), GRANT, a first trigger, settings of a table or column, REINDEX CONCURRENTLY of an index
/// that is the replica identity, labels added to an enum, defaults of a domain, and a dump that is restored.
struct FingerprintReader {
    let session: PostgresConnection
    let link: LinkDescription

    func read() throws(BridgeError) -> CaptureFingerprint {
        try session.inTransaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { () throws(BridgeError) in
            let names = try CaptureNames(link)
            let slot = try server() + slot(names)
            let (publication, tables) = try publication(names)
            return CaptureFingerprint(
                common: (slot + publication).joined(separator: "\n"), tables: tables.map { $0.joined(separator: "\n") })
        }
    }

    private func server() throws(BridgeError) -> [String] {
        let row = try session.rows(
            """
            SELECT (SELECT system_identifier FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint()),
              (SELECT oid FROM pg_database WHERE datname = current_database())
            """, during: "reading the server's identity"
        ).first
        return ["server \(Self.line(row ?? []))"]
    }

    private func slot(_ names: CaptureNames) throws(BridgeError) -> [String] {
        let context = [ErrorContext(.slot, names.slot)]
        let rows = try session.rows(
            """
            SELECT slot_name, plugin, slot_type, datoid, database, temporary, two_phase, wal_status = 'lost' OR restart_lsn IS NULL
            FROM pg_replication_slots WHERE slot_name = $1
            """, [names.slot], during: "reading the replication slots")
        guard let row = rows.first else {
            throw BridgeError(.slotMissing, "the replication slot is gone", context: context)
        }
        guard row.last == "f" else {
            throw BridgeError(
                .slotLost, "the server has removed WAL that the replication slot still needed", context: context)
        }
        return ["slot \(Self.line(row.dropLast()))"]
    }

    /// What is said of the publication, and of each table.
    private func publication(_ names: CaptureNames) throws(BridgeError) -> ([String], [[String]]) {
        let tables = try Publication.tables(of: link, session)
        let publication = Publication(name: names.publication, session: session)
        guard let state = try publication.read() else {
            throw BridgeError(
                .captureBroken, "the publication is gone", context: [.init(.detail, "publication \(names.publication)")])
        }
        let verification = CaptureVerification(
            session: session, names: names, origin: CaptureOrigin(identity: [:], position: .zero))
        try verification.checkCoverage(state, tables)
        let head = try session.rows(
            """
            SELECT oid, pubname, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, xmin
            FROM pg_publication WHERE pubname = $1
            """, [names.publication], during: "reading the publication")
        var lines = head.map { "publication \(Self.line($0))" }
        if session.serverVersion >= 150_000 {
            let schemas = try session.rows(
                "SELECT pnnspid, xmin FROM pg_publication_namespace WHERE pnpubid = $1::oid ORDER BY 1", [state.oid],
                during: "reading the publication")
            lines += schemas.map { "schema \(Self.line($0))" }
        }
        return (lines, try tables.map { (table) throws(BridgeError) in try describe(table, publication: state.oid) })
    }

    private func describe(_ table: CapturedTable, publication: String) throws(BridgeError) -> [String] {
        let action = "reading the publication"
        let oid = "\(table.oid)"
        let fences = try FenceVersions(session)
        let details = session.serverVersion >= 150_000
            ? "r.prattrs::text, pg_get_expr(r.prqual, r.prrelid)" : "NULL, NULL"
        let head = try session.rows(
            """
            SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, r.oid, r.xmin, \(details),
              (SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = c.oid
                AND (c.relreplident = 'i' AND i.indisreplident OR c.relreplident <> 'i' AND i.indisprimary) LIMIT 1)
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_publication_rel r ON r.prrelid = c.oid AND r.prpubid = $2::oid
            WHERE c.oid = $1::oid
            """, [oid, publication], during: action)
        let columns = try session.rows(
            """
            SELECT a.attnum, a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod), a.attcollation, a.attgenerated
            FROM pg_attribute a WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
            """, [oid], during: action)
        let types = try session.rows(TypesInUse.versions("$1::oid"), [oid], during: action)
        return head.map { "table \(Self.line($0)) identity \(Self.line(table.schema.identity))" }
            + columns.map { "column \(Self.line($0))" } + (try versions(oid, fences)) + types.map { "used \(Self.line($0))" }
    }

    /// The table and all its partitions as they are stored, and who wrote their catalog rows.
    private func versions(_ oid: String, _ fences: FenceVersions) throws(BridgeError) -> [String] {
        try session.rows(
            """
            SELECT c.oid, c.xmin, c.relfilenode, c.relpersistence, c.relreplident,
              (SELECT string_agg(a.attnum || ' ' || a.xmin, ' ' ORDER BY a.attnum) FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum > 0),
              (SELECT string_agg(h.inhparent || ' ' || h.xmin, ' ' ORDER BY h.inhparent) FROM pg_inherits h WHERE h.inhrelid = c.oid),
              (SELECT string_agg(i.indexrelid || ' ' || i.xmin, ' ' ORDER BY i.indexrelid) FROM pg_index i
               WHERE i.indrelid = c.oid AND i.indisreplident)
            FROM pg_class c WHERE c.oid = $1::oid OR c.oid IN (SELECT relid FROM pg_partition_tree($1::oid)) ORDER BY c.oid
            """, [oid], during: "reading the versions of a table"
        ).map { row in
            var row = row
            if row.count > 1 { row[1] = fences.original(of: row[1], relation: row[0]) }
            return "version \(Self.line(row))"
        }
    }

    /// Facts that stay apart whatever stands in them.
    private static func line(_ facts: some Sequence<String?>) -> String {
        facts.map { $0.map { "\($0.utf8.count):\($0)" } ?? "-" }.joined(separator: " ")
    }
}

extension PostgresComparison: ComparisonSource {
    func settledPosition(patience: Duration, afterWriters: Bool) async throws(BridgeError) -> Position {
        let connection = try connected()
        return try await cancellable { () throws(BridgeError) in
            let settled = SettledPosition(session: connection, patience: patience)
            if afterWriters { try settled.waitForWriters() }
            return try settled.find()
        }
    }

    /// The same place in the log that ``PostgresSource/currentPosition(_:)`` gives.
    func currentPosition() async throws(BridgeError) -> Position { try LogMark.write(try connected()) }

    func waitForWriters(patience: Duration) async throws(BridgeError) {
        let connection = try connected()
        try await cancellable { () throws(BridgeError) in
            let tables = try Publication.tables(of: link, connection).map {
                ($0.isPartitioned ? "" : "ONLY ") + $0.schema.name.quoted
            }
            guard !tables.isEmpty else { return }
            let parts = patience.components
            let milliseconds = max(1, min(parts.seconds * 1_000 + parts.attoseconds / 1_000_000_000_000_000, 86_400_000))
            try connection.inTransaction { () throws(BridgeError) in
                // One limit for the statement as a whole: lock_timeout counts for each table anew.
                try connection.execute("SET LOCAL statement_timeout = \(milliseconds)")
                try connection.execute(
                    "LOCK TABLE \(tables.joined(separator: ", ")) IN SHARE MODE", during: "waiting for writers to end")
            }
        }
    }

    func captureFingerprint() async throws(BridgeError) -> CaptureFingerprint {
        let connection = try connected()
        return try await cancellable { () throws(BridgeError) in
            try FingerprintReader(session: connection, link: link).read()
        }
    }
}

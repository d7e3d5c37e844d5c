import BridgeCore

/// Looks for everything that would make capture or copy impossible. Changes nothing.
struct SourcePreflight {
    let session: PostgresConnection
    let link: LinkDescription
    let names: CaptureNames

    init(session: PostgresConnection, link: LinkDescription) throws(BridgeError) {
        self.session = session
        self.link = link
        names = try CaptureNames(link)
    }

    func findings() throws(BridgeError) -> [Finding] {
        var findings = try serverFindings()
        findings += try ServerFindings(session: session, part: .source).findings()
        findings += try roleFindings()
        let oids = try PostgresCatalog(session).resolve(link.mappings.map(\.source))
        for (mapping, oid) in zip(link.mappings, oids) {
            guard let oid else {
                findings.append(try SourceTableFindings.stranger(mapping.source, session))
                continue
            }
            findings += try tableFindings(oid, mapping)
        }
        return findings
    }

    // MARK: The server

    private func serverFindings() throws(BridgeError) -> [Finding] {
        let row = try session.rows(
            """
            SELECT pg_is_in_recovery(), current_setting('wal_level'),
                   current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
                   current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication),
                   (SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1),
                   (SELECT string_agg(pid::text, ', ' ORDER BY xact_start) FROM pg_stat_activity
                    WHERE xact_start < clock_timestamp() - interval '1 minute' AND backend_xid IS NOT NULL),
                   (SELECT string_agg(gid, ', ' ORDER BY prepared) FROM pg_prepared_xacts WHERE database = current_database())
            """, [names.slot], during: "looking at the server's settings").first
        guard let row else { return [] }
        var findings: [Finding] = []
        if row[0] == "t" {
            findings.append(
                Finding(
                    .blocking, .serverSettings, what: "the source is a standby",
                    why: "it takes neither publications nor markers", mend: ["point 'source' at the primary server"]))
        }
        if row[1] != "logical" {
            findings.append(
                Finding(
                    .blocking, .serverSettings, what: "wal_level is \(row[1] ?? "unknown")",
                    why: "changes can only be read from a log that is written for it",
                    mend: ["ALTER SYSTEM SET wal_level = 'logical'", "restart the server"]))
        }
        let hasSlot = row[4] != "0"
        if let free = row[2].flatMap({ Int($0) }), free < (hasSlot ? 0 : 1) {
            findings.append(
                Finding(
                    .blocking, .serverSettings, what: "all replication slots are in use",
                    why: "capture needs one, and a copy that starts again needs another for a moment",
                    mend: ["ALTER SYSTEM SET max_replication_slots = \(-free + 12)", "restart the server"]))
        }
        // One connection for the stream, one for the snapshot.
        if let free = row[3].flatMap({ Int($0) }), free < 2, !hasSlot || free < 1 {
            findings.append(
                Finding(
                    .blocking, .serverSettings, what: "too few WAL senders are free: \(max(0, free))",
                    why: "capture needs one, and a copy another",
                    mend: ["ALTER SYSTEM SET max_wal_senders = \(12 - free)", "restart the server"]))
        }
        if let processes = row[5] {
            findings.append(
                Finding(
                    .warning, .slotBlocked, what: "transactions are open for more than a minute, in the processes \(processes)",
                    why: "the making of a replication slot waits for them",
                    mend: processes.split(separator: ",").map { "SELECT pg_terminate_backend(\($0.drop { $0 == " " }))" }))
        }
        if let prepared = row[6] {
            findings.append(
                Finding(
                    .warning, .slotBlocked, what: "transactions are prepared and not yet decided: \(prepared)",
                    why: "the making of a replication slot waits for them, and their locks and changes stay undecided in a switch",
                    mend: ["COMMIT PREPARED '…' or ROLLBACK PREPARED '…' each"]))
        }
        return findings
    }

    // MARK: The role

    private func roleFindings() throws(BridgeError) -> [Finding] {
        let row = try session.rows(
            """
            SELECT current_user, r.rolsuper OR r.rolreplication OR EXISTS (SELECT FROM pg_roles m
                       WHERE m.rolname = 'rds_replication' AND pg_has_role(r.oid, m.oid, 'MEMBER')),
                   current_database(), has_database_privilege(current_database(), 'CREATE'),
                   pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
            FROM pg_roles r WHERE r.rolname = current_user
            """, during: "looking at the role's rights").first
        guard let row, let role = row[0], let database = row[2] else { return [] }
        var findings: [Finding] = []
        if row[1] != "t" {
            findings.append(
                Finding(
                    .blocking, .rightsMissing, what: "the role \(role) may not replicate",
                    why: "capture reads the change stream over a replication connection",
                    mend: ["ALTER ROLE \(quoteIdentifier(role)) REPLICATION"]))
        }
        if row[3] != "t", try Publication(name: names.publication, session: session).read() == nil {
            findings.append(
                Finding(
                    .blocking, .rightsMissing, what: "the role \(role) may not create publications in \(database)",
                    why: "capture needs a publication of the migration's tables",
                    mend: ["GRANT CREATE ON DATABASE \(quoteIdentifier(database)) TO \(quoteIdentifier(role))"]))
        }
        if row[4] != "t" {
            findings.append(
                Finding(
                    .warning, .rightsMissing, what: "the role \(role) may not see what other roles' sessions do",
                    why: "bridge check and the cutover wait for others' transactions, and cannot tell which are at work",
                    mend: ["GRANT pg_read_all_stats TO \(quoteIdentifier(role))"]))
        }
        return findings
    }

    // MARK: Tables

    private func tableFindings(_ oid: UInt32, _ mapping: TableMapping) throws(BridgeError) -> [Finding] {
        guard let schema = try PostgresCatalog(session).describe([oid]).first else { return [] }
        let name = schema.name
        var findings = try rightsFindings(oid, name)
        if schema.options.contains("UNLOGGED") {
            findings.append(
                Finding(
                    .blocking, .sourceUnsupported, what: "the table \(name) is unlogged",
                    why: "its changes are not in the log", mend: ["ALTER TABLE \(name.quoted) SET LOGGED"], table: name))
        }
        if schema.identity.isEmpty {
            let mend = "ALTER TABLE \(name.quoted) \(Self.identityMend(schema))"
            findings.append(
                Finding(
                    .blocking, .tableWithoutKey,
                    what: schema.primaryKey.isEmpty
                        ? "the table \(name) has no primary key" : "the key of table \(name) does not serve as replica identity",
                    why: "updates and deletes could not name their row, and the source would refuse them",
                    mend: [mend], table: name))
        }
        findings += try SourceTableFindings(session: session, link: link).findings(oid, schema)
        findings += try mappingFindings(oid, schema, mapping)
        return findings
    }

    /// What gives a table a replica identity that has none.
    private static func identityMend(_ schema: TableSchema) -> String {
        guard schema.primaryKey.isEmpty else {
            return schema.options.contains("REPLICA IDENTITY NOTHING") ? "REPLICA IDENTITY DEFAULT" : "REPLICA IDENTITY FULL"
        }
        let serving = schema.indexes.first { index in
            index.isUnique && index.predicate == nil
                && index.parts.allSatisfy { part in
                    part.column.flatMap { schema.column(named: $0) }?.isNotNull ?? false
                }
        }
        return serving.map { "REPLICA IDENTITY USING INDEX \(quoteIdentifier($0.name))" } ?? "ADD PRIMARY KEY (…)"
    }

    /// What the owner may do, its member may too; so a right is asked for by itself only where that one gives none.
    private func rightsFindings(_ oid: UInt32, _ name: TableName) throws(BridgeError) -> [Finding] {
        let row = try session.rows(
            """
            SELECT current_user, pg_has_role(c.relowner, 'USAGE'),
                   has_schema_privilege(c.relnamespace, 'USAGE') OR NOT o.rolsuper AND has_schema_privilege(c.relowner, c.relnamespace, 'USAGE'),
                   has_table_privilege(c.oid, 'SELECT') OR has_table_privilege(c.relowner, c.oid, 'SELECT'), row_security_active(c.oid)
            FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner WHERE c.oid = $1::oid
            """, [String(oid)], during: "looking at the role's rights").first
        guard let row, let role = row[0].map(quoteIdentifier) else { return [] }
        var findings: [Finding] = []
        func missing(_ what: String, _ why: String, _ mend: [String]) {
            findings.append(Finding(.blocking, .rightsMissing, what: what, why: why, mend: mend, table: name))
        }
        if row[2] != "t" {
            missing(
                "the role may not use the schema of \(name)", "the table cannot be read",
                ["GRANT USAGE ON SCHEMA \(quoteIdentifier(name.schema ?? "public")) TO \(role)"])
        }
        if row[3] != "t" {
            missing("the role may not read the table \(name)", "it cannot be copied", ["GRANT SELECT ON \(name.quoted) TO \(role)"])
        }
        if row[1] != "t" {
            missing(
                "the role does not own the table \(name)", "only its owner may add a table to a publication",
                try Ownership.statements(oid, name, session))
        }
        if row[4] == "t" {
            missing(
                "row-level security hides rows of the table \(name) from the role", "the copy would have holes",
                ["ALTER ROLE \(role) BYPASSRLS"])
        }
        return findings
    }

    /// The part of the table that the configuration asks for.
    private func mappingFindings(
        _ oid: UInt32, _ schema: TableSchema, _ mapping: TableMapping
    ) throws(BridgeError) -> [Finding] {
        let name = schema.name
        var findings: [Finding] = []
        func wrong(_ code: ErrorCode, _ what: String, _ why: String, _ mend: String) {
            findings.append(Finding(.blocking, code, what: what, why: why, mend: [mend], table: name))
        }
        guard mapping.columns != nil || mapping.rowFilter != nil else { return [] }
        guard session.serverVersion >= 150_000 else {
            wrong(
                .sourceUnsupported, "the server cannot send a part of the table \(name)",
                "column lists and row filters exist from PostgreSQL 15 on", "remove 'columns:' and 'where:', or upgrade the server")
            return findings
        }
        if let columns = mapping.columns {
            for column in columns where schema.column(named: column) == nil {
                wrong(
                    .configurationInvalid, "the table \(name) has no column \(column)", "the column list names it",
                    "correct 'columns:' in bridge.yaml")
            }
            for column in schema.identity where !columns.contains(column) {
                wrong(
                    .configurationInvalid, "the column list of \(name) leaves out the key's column \(column)",
                    "changes could not name their row, and the source would refuse them", "add it to 'columns:' in bridge.yaml")
            }
        }
        if let filter = mapping.rowFilter {
            do throws(BridgeError) {
                _ = try session.query("EXPLAIN SELECT FROM ONLY \(name.quoted) WHERE (\(filter))")
            } catch {
                if session.isBroken { throw error }
                wrong(
                    .configurationInvalid, "the row filter of \(name) cannot be used: \(error.message)",
                    "the server must be able to decide which rows travel", "correct 'where:' in bridge.yaml")
                return findings
            }
            let trial = Publication(name: "bridge_trial_\(UInt32.random(in: 0 ... .max))", session: session)
            let table = CapturedTable(oid: oid, mapping: mapping, schema: schema, isPartitioned: false)
            if let obstacle = try trial.filterObstacle(table) {
                wrong(
                    .configurationInvalid, obstacle.message,
                    "rows would come and go without a change that is captured", obstacle.hint)
            }
        }
        return findings
    }
}

import BridgeCore

/// Looks at the target for everything that would stop a link, before anything is made. Reads only.
struct TargetPreflight {
    let link: LinkDescription
    let sources: [TableSchema]
    let connection: PostgresConnection

    func findings() throws(BridgeError) -> [Finding] {
        var findings = try sessionFindings()
        findings += try ServerFindings(session: connection, part: .target).findings()
        findings += try recordFindings()
        let state: LinkState?
        do throws(BridgeError) {
            state = try LinkRecords.read(link, connection)
        } catch {
            guard error.code == .configurationInvalid || error.code == .checkpointForeign else { throw error }
            findings.append(
                Finding(
                    .blocking, error.code, what: error.message,
                    why: "a link carries the tables that it began with; changes of others are not in its journal",
                    mend: [error.hint]))
            return findings
        }
        findings += try duplicateTargets()
        for mapping in link.mappings {
            let source = sources.first { $0.name == mapping.source }
            // What an unfinished load left is removed by the next.
            let isLoaded = [.loading, .done].contains(state?.tables[mapping.source]?.state)
            findings += try tableFindings(mapping, source, isLoaded: isLoaded)
        }
        return findings
    }

    // MARK: The session

    private func sessionFindings() throws(BridgeError) -> [Finding] {
        var findings: [Finding] = []
        let row = try connection.rows(
            """
            SELECT current_setting('is_superuser') = 'on',
                   has_database_privilege(current_database(), 'TEMPORARY'),
                   pg_is_in_recovery(),
                   current_setting('max_replication_slots')::int,
                   (SELECT count(*) FROM pg_database WHERE datname = current_database() AND pg_encoding_to_char(encoding) <> 'UTF8'),
                   current_database(),
                   \(try replicaRoleCondition()),
                   \(originCondition())
            """, during: "looking at the target"
        ).first ?? []
        func isTrue(_ index: Int) -> Bool { index < row.count && row[index] == "t" }
        let role = Rights.role(connection)
        if isTrue(2) {
            findings.append(
                Finding(
                    .blocking, .serverSettings, what: "the target is a standby, which takes no writes",
                    why: "the link writes to the target", mend: ["point 'target' at the primary server"]))
        }
        if !isTrue(1), let database = row.count > 5 ? row[5] : nil {
            findings.append(
                Finding(
                    .blocking, .rightsMissing, what: "the role may not create temporary tables",
                    why: "changes are staged in temporary tables", mend: ["GRANT TEMPORARY ON DATABASE \(quoteIdentifier(database)) TO \(role)"]))
        }
        if !isTrue(6) {
            findings.append(
                Finding(
                    .blocking, .rightsMissing, what: "the role may not switch a session to the replica role",
                    why: "the target's triggers and foreign keys must stay quiet for what the source has decided already",
                    mend: Rights.replicaRole(connection)))
        }
        if !isTrue(7) {
            findings.append(
                Finding(
                    .blocking, .rightsMissing, what: "the role may not use replication origins",
                    why: "they mark what bridge writes, so that it never comes back as a change of the target",
                    mend: Rights.origins(connection)))
        }
        if row.count > 3, row[3] == "0" {
            findings.append(
                Finding(
                    .blocking, .serverSettings, what: "max_replication_slots is 0 on the target",
                    why: "replication origins take their room from it",
                    mend: ["ALTER SYSTEM SET max_replication_slots = 10", "restart the target server"]))
        }
        if row.count > 4, row[4] != "0" {
            findings.append(
                Finding(
                    .warning, .serverSettings, what: "the target database's encoding is not UTF8",
                    why: "characters that it lacks stop the link when they arrive",
                    mend: ["create the target database with ENCODING 'UTF8' TEMPLATE template0"]))
        }
        return findings
    }

    private func replicaRoleCondition() throws(BridgeError) -> String {
        connection.serverVersion >= 150_000
            ? "has_parameter_privilege('session_replication_role', 'SET')" : "current_setting('is_superuser') = 'on'"
    }

    private func originCondition() -> String {
        Rights.originFunctions.map { "has_function_privilege('pg_catalog.\($0)', 'EXECUTE')" }.joined(separator: " AND ")
            + " AND has_table_privilege('pg_catalog.pg_replication_origin', 'SELECT')"
    }

    // MARK: The records

    private func recordFindings() throws(BridgeError) -> [Finding] {
        let row = try connection.rows(
            """
            SELECT to_regnamespace('_bridge') IS NOT NULL,
                   coalesce(has_schema_privilege(to_regnamespace('_bridge'), 'USAGE'), false),
                   coalesce(has_schema_privilege(to_regnamespace('_bridge'), 'CREATE'), false),
                   has_database_privilege(current_database(), 'CREATE'), current_database(),
                   to_regclass('_bridge.link') IS NOT NULL
            """, during: "looking at the target"
        ).first ?? []
        guard row.count == 6 else { return [] }
        let role = Rights.role(connection)
        let why = "the link's position and state are kept in the target's schema _bridge, beside the data"
        if row[0] != "t" {
            guard row[3] != "t" else { return [] }
            return [
                Finding(
                    .blocking, .rightsMissing, what: "the role may not create the schema _bridge", why: why,
                    mend: ["GRANT CREATE ON DATABASE \(quoteIdentifier(row[4] ?? "")) TO \(role)"])
            ]
        }
        if row[1] != "t" || (row[5] != "t" && row[2] != "t") {
            return [
                Finding(
                    .blocking, .rightsMissing, what: "the role may not use the schema _bridge", why: why,
                    mend: ["GRANT USAGE, CREATE ON SCHEMA _bridge TO \(role)"])
            ]
        }
        guard row[5] == "t" else { return [] }
        let rights = try connection.rows(
            """
            SELECT bool_and(has_table_privilege('_bridge.' || t, 'SELECT') AND has_table_privilege('_bridge.' || t, 'INSERT')
              AND has_table_privilege('_bridge.' || t, 'UPDATE') AND has_table_privilege('_bridge.' || t, 'DELETE'))
            FROM unnest($1::text[]) t WHERE to_regclass('_bridge.' || t) IS NOT NULL
            """, [ArrayLiteral.make(LinkRecords.tables)], during: "looking at the target"
        ).first?.first
        guard rights != "t" else { return [] }
        return [
            Finding(
                .blocking, .rightsMissing, what: "the role may not write the tables of the schema _bridge", why: why,
                mend: ["GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA _bridge TO \(role)"])
        ]
    }

    // MARK: Tables

    private func duplicateTargets() throws(BridgeError) -> [Finding] {
        var seen: Set<TableName> = []
        return link.mappings.filter { !seen.insert($0.target).inserted }.map {
            Finding(
                .blocking, .configurationInvalid, what: "two tables of the migration go to \($0.target)",
                why: "the rows of one would be taken for those of the other", mend: ["give each table a target of its own"],
                table: $0.target)
        }
    }

    private func tableFindings(
        _ mapping: TableMapping, _ source: TableSchema?, isLoaded: Bool
    ) throws(BridgeError) -> [Finding] {
        guard let table = try TargetTable.read(mapping.target, connection) else {
            return [
                Finding(
                    .blocking, .targetTableMissing, what: "the target table \(mapping.target) does not exist",
                    why: "rows need a place to go", mend: [missingTableMend(mapping)], table: mapping.target)
            ] + (try TargetTableFindings(connection: connection, link: link).missing(mapping.target, source))
        }
        var findings: [Finding] = []
        if let source { findings += shapeFindings(mapping, source, table) }
        let rights = try rightsFindings(table)
        findings += rights
        if rights.isEmpty, !isLoaded, link.needsCopy {
            let hasRows = try !connection.rows("SELECT 1 FROM \(table.name.quoted) LIMIT 1", during: "looking at the target").isEmpty
            if hasRows {
                findings.append(
                    Finding(
                        .blocking, .targetTableNotEmpty, what: "the target table \(table.name) holds rows that bridge did not load",
                        why: "rows that the copy brings would stand beside them, or clash with them",
                        mend: ["TRUNCATE \(table.name.quoted)"], table: table.name))
            }
        }
        findings += filterFindings(mapping, table)
        findings += try TargetTableFindings(connection: connection, link: link).findings(table, source, lacksRights: !rights.isEmpty)
        return findings + (try surroundings(table))
    }

    /// On the way back the table was there when the migration began, and was renamed or dropped since.
    private func missingTableMend(_ mapping: TableMapping) -> String {
        let schema = mapping.target.schema.map { "\(quoteIdentifier($0))." } ?? ""
        return link.needsCopy
            ? "bridge schema apply" : "ALTER TABLE \(schema)… RENAME TO \(quoteIdentifier(mapping.target.name)), if it was renamed"
    }

    /// Rows beside the link's that a row of the link can meet.
    private func filterFindings(_ mapping: TableMapping, _ table: TargetTable) -> [Finding] {
        guard let filter = mapping.targetFilter else { return [] }
        return [
            Finding(
                .warning, .conflict, what: "the table \(table.name) holds rows that 'where' leaves out: all but \(filter)",
                why: "a key that is given out on both sides stops the link at a conflict",
                mend: ["let both sides give out different keys: sequences with INCREMENT BY 2 that begin one apart, or UUIDs"],
                table: table.name)
        ]
    }

    private func shapeFindings(_ mapping: TableMapping, _ source: TableSchema, _ table: TargetTable) -> [Finding] {
        var findings: [Finding] = []
        func mismatch(_ what: String, _ why: String, _ mend: String) {
            findings.append(Finding(.blocking, .targetTableMismatch, what: what, why: why, mend: [mend], table: table.name))
        }
        let travelling = source.columns.filter { column in
            column.generation == nil && (mapping.columns.map { $0.contains(column.name) } ?? true)
        }
        for column in travelling {
            let name = quoteIdentifier(column.name)
            guard let target = table.column(named: column.name) else {
                mismatch(
                    "column \(column.name) of \(source.name) is missing in the target table \(table.name)",
                    "its values would have no place",
                    "ALTER TABLE \(table.name.quoted) ADD COLUMN \(name) …, or list the columns that travel under 'columns:'")
                continue
            }
            let described = Relation.Column(
                name: column.name, isKey: false, typeName: column.typeName, type: column.type)
            if let reason = TypeCompatibility.refusal(of: described, form: link.form, into: target) {
                mismatch(
                    "\(table.name), column \(column.name): \(reason)", "a value is never converted on the way",
                    "ALTER TABLE \(table.name.quoted) ALTER COLUMN \(name) TYPE …")
            }
            if target.isGenerated {
                mismatch(
                    "column \(column.name) of \(table.name) is generated, but its values come from the source",
                    "a generated column cannot be written", "ALTER TABLE \(table.name.quoted) ALTER COLUMN \(name) DROP EXPRESSION")
            }
        }
        for target in table.columns
        where target.isNotNull && !target.hasDefault && !target.isGenerated
            && !travelling.contains(where: { $0.name == target.name })
        {
            mismatch(
                "column \(target.name) of \(table.name) is NOT NULL, has no default and gets no value from the source",
                "no row could be inserted",
                "ALTER TABLE \(table.name.quoted) ALTER COLUMN \(quoteIdentifier(target.name)) SET DEFAULT …")
        }
        findings += keyFindings(source, table)
        return findings
    }

    private func keyFindings(_ source: TableSchema, _ table: TargetTable) -> [Finding] {
        guard !source.identity.isEmpty, table.uniqueIndex(on: source.identity) == nil else { return [] }
        let isWholeRow = source.primaryKey.isEmpty && Set(source.identity) == Set(source.columns.map(\.name))
        // Whole rows are looked for where neither side checks the key at once.
        let isDeferred = source.options.contains("REPLICA IDENTITY FULL")
            && table.uniqueIndexes.contains { !$0.isImmediate && Set($0.columns ?? []) == Set(source.identity) }
        if isWholeRow || isDeferred || table.primaryKey?.columns.map({ Set($0).isSubset(of: source.identity) }) == true { return [] }
        let columns = source.identity.map { quoteIdentifier($0) }.joined(separator: ", ")
        return [
            Finding(
                .blocking, .targetTableMismatch,
                what: "the target table \(table.name) has no unique index on \(source.identity.joined(separator: ", ")), the key of \(source.name)",
                why: "updates and deletes find their rows by it",
                mend: ["ALTER TABLE \(table.name.quoted) ADD PRIMARY KEY (\(columns))"], table: table.name)
        ]
    }

    private func rightsFindings(_ table: TargetTable) throws(BridgeError) -> [Finding] {
        let rights = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"]
        let schema = table.name.schema ?? "public"
        let row = try connection.rows(
            """
            SELECT has_schema_privilege($2, 'USAGE'), (SELECT string_agg(r, ', ' ORDER BY i)
              FROM unnest($3::text[]) WITH ORDINALITY AS w(r, i) WHERE NOT has_table_privilege($1::oid, r)),
              has_schema_privilege(relowner, $2, 'USAGE') FROM pg_class WHERE oid = $1::oid
            """, ["\(table.oid)", schema, ArrayLiteral.make(rights)], during: "looking at the target"
        ).first ?? []
        guard row.count == 3 else { return [] }
        // Ownership, which check and cutover take, brings all these rights, and most often the schema's.
        let owner = row[1] == nil ? [] : try Ownership.statements(table.oid, table.name, connection)
        let isMember = owner.contains { $0.hasPrefix("GRANT ") }
        var mend: [String] = []
        if row[0] != "t", !(isMember && row[2] == "t") {
            mend.append("GRANT USAGE ON SCHEMA \(quoteIdentifier(schema)) TO \(Rights.role(connection))")
        }
        mend += owner
        guard !mend.isEmpty else { return [] }
        return [
            Finding(
                .blocking, .rightsMissing, what: "the role lacks rights on the target table \(table.name)",
                why: "the link loads, changes and empties it, and only its owner can watch and fence it", mend: mend, table: table.name)
        ]
    }

    /// Row security, triggers and rules that fire in the replica role, deferrable constraints.
    private func surroundings(_ table: TargetTable) throws(BridgeError) -> [Finding] {
        var findings: [Finding] = []
        let row = try connection.rows(
            """
            SELECT row_security_active($1::oid),
              (SELECT string_agg(quote_ident(tgname), ', ' ORDER BY tgname) FROM pg_trigger
               WHERE tgrelid = $1::oid AND NOT tgisinternal AND tgenabled IN ('A', 'R')
               AND tgfoid NOT IN (SELECT oid FROM pg_proc WHERE pronamespace = to_regnamespace('_bridge'))),
              (SELECT string_agg(quote_ident(conname), ', ' ORDER BY conname) FROM pg_constraint
               WHERE conrelid = $1::oid AND contype IN ('p', 'u', 'x') AND condeferrable),
              (SELECT string_agg(quote_ident(rulename), ', ' ORDER BY rulename) FROM pg_rewrite
               WHERE ev_class = $1::oid AND ev_enabled IN ('A', 'R'))
            """, ["\(table.oid)"], during: "looking at the target"
        ).first ?? []
        guard row.count == 4 else { return [] }
        if row[0] == "t" {
            findings.append(
                Finding(
                    .blocking, .rightsMissing, what: "row security is in force on \(table.name) for the role",
                    why: "it would hide rows from the link or refuse them",
                    mend: ["ALTER ROLE \(Rights.role(connection)) BYPASSRLS"], table: table.name))
        }
        if let triggers = row[1] {
            findings.append(
                Finding(
                    .warning, .targetTableMismatch, what: "triggers of \(table.name) fire in the replica role too: \(triggers)",
                    why: "they act on rows for which the source's triggers have acted already",
                    mend: ["ALTER TABLE \(table.name.quoted) ENABLE TRIGGER … for each, until the migration is completed"],
                    table: table.name))
        }
        if let rules = row[3] {
            findings.append(
                Finding(
                    .warning, .targetTableMismatch, what: "rules of \(table.name) rewrite what the replica role writes too: \(rules)",
                    why: "they alter the link's own statements, and bridge check can prove nothing of what they write",
                    mend: ["ALTER TABLE \(table.name.quoted) ENABLE RULE … for each, until the migration is completed"],
                    table: table.name))
        }
        if let constraints = row[2] {
            findings.append(
                Finding(
                    .warning, .targetTableMismatch,
                    what: "deferrable constraints of \(table.name) are not enforced in the replica role: \(constraints)",
                    why: "bridge looks for clashes before each commit, but misses a row that someone else commits at the same moment",
                    mend: ["make them NOT DEFERRABLE until the migration is completed"], table: table.name))
        }
        return findings
    }
}

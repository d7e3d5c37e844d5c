import BridgeCore

/// What preflight says of a target table beside its shape and the rights that loading it takes.
struct TargetTableFindings {
    let connection: PostgresConnection
    let link: LinkDescription

    // MARK: A table that is not there

    /// What keeps the table from being made: something else of its name, its schema, a right, a type.
    func missing(_ name: TableName, _ source: TableSchema?) throws(BridgeError) -> [Finding] {
        let schema = name.schema ?? connection.defaultSchemas.first ?? "public"
        let row = try connection.rows(
            """
            SELECT (SELECT c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2),
              EXISTS (SELECT FROM pg_namespace WHERE nspname = $1),
              coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1), false),
              coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = $1), false)
            """, [schema, name.name], during: "looking at the target"
        ).first ?? []
        guard row.count == 4 else { return [] }
        var findings: [Finding] = []
        if row[0] != nil {
            findings.append(
                Finding(
                    .blocking, .targetTableMismatch, what: "\(name) is no table on the target, but something else of that name",
                    why: "rows cannot be loaded into it", mend: ["give the table another name under 'to:' in bridge.yaml"], table: name))
        }
        if row[1] == "t", row[2] != "t" || row[3] != "t", row[0] == nil {
            let rights = [row[3] == "t" ? nil : "USAGE", row[2] == "t" ? nil : "CREATE"].compactMap { $0 }.joined(separator: ", ")
            findings.append(
                Finding(
                    .blocking, .rightsMissing, what: "the role may not make tables in the target's schema \(schema)",
                    why: "bridge schema apply makes the target's tables there",
                    mend: ["GRANT \(rights) ON SCHEMA \(quoteIdentifier(schema)) TO \(Rights.role(connection))"], table: name))
        }
        if let source, link.form == .native { findings += try typeFindings(name, source) }
        return findings
    }

    private func typeFindings(_ name: TableName, _ source: TableSchema) throws(BridgeError) -> [Finding] {
        let chosen = link.mappings.first { $0.source == source.name }?.columns
        let types = source.columns.filter { chosen?.contains($0.name) ?? true }.map(\.typeName)
        let rows = try connection.rows(
            """
            SELECT DISTINCT t, (SELECT name FROM pg_available_extensions e WHERE e.name = regexp_replace(t, '^.*\\.|\\(.*|\\[\\]', '', 'g'))
            FROM unnest($1::text[]) AS w(t) WHERE to_regtype(t) IS NULL ORDER BY 1
            """, [ArrayLiteral.make(types)], during: "looking for the target's types")
        return rows.compactMap { row in
            row[0].map { type in
                Finding(
                    .blocking, .typeUnsupported, what: "the target has no type \(type), which \(source.name) uses",
                    why: "the table cannot be made, nor its values held",
                    mend: [row[1].map { "CREATE EXTENSION \(quoteIdentifier($0))" } ?? "create the type \(type) as it is on the source"],
                    table: name)
            }
        }
    }

    // MARK: A table that is there

    /// - Parameter lacksRights: whether the role lacks what loading takes, for which ownership was asked already.
    func findings(_ table: TargetTable, _ source: TableSchema?, lacksRights: Bool) throws(BridgeError) -> [Finding] {
        var findings = lacksRights ? [] : try ownerFindings(table)
        if let source {
            findings += try collationFindings(table, source)
            findings += generatedFindings(table, source)
        }
        return findings
    }

    private func ownerFindings(_ table: TargetTable) throws(BridgeError) -> [Finding] {
        let row = try connection.rows(
            "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = $1::oid", ["\(table.oid)"],
            during: "looking at the target"
        ).first ?? []
        guard row.first != "t" else { return [] }
        return [
            Finding(
                .warning, .rightsMissing, what: "the role does not own the target table \(table.name)",
                why: "bridge check watches it, and the cutover fences it, by triggers that only its owner can make",
                mend: try Ownership.statements(table.oid, table.name, connection), table: table.name)
        ]
    }

    /// Keys that the source tells apart and the target does not.
    private func collationFindings(_ table: TargetTable, _ source: TableSchema) throws(BridgeError) -> [Finding] {
        let rows = try connection.rows(
            """
            SELECT DISTINCT a.attname, quote_ident(n.nspname) || '.' || quote_ident(l.collname)
            FROM pg_index i CROSS JOIN LATERAL generate_series(1, i.indnkeyatts::int) AS k(n)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n - 1]
            JOIN pg_collation l ON l.oid = i.indcollation[k.n - 1] JOIN pg_namespace n ON n.oid = l.collnamespace
            WHERE i.indrelid = $1::oid AND i.indisunique AND NOT l.collisdeterministic ORDER BY 1
            """, ["\(table.oid)"], during: "looking at the target's collations")
        return rows.compactMap { row in
            guard let column = row[0], let collation = row[1], source.column(named: column)?.collation != collation else { return nil }
            return Finding(
                .warning, .targetTableMismatch,
                what: "the unique column \(column) of \(table.name) has the collation \(collation), which is not deterministic, and the source's has not",
                why: "two values that the source tells apart can be one key on the target, which stops the link",
                mend: ["ALTER TABLE \(table.name.quoted) ALTER COLUMN \(quoteIdentifier(column)) TYPE text COLLATE \"default\""],
                table: table.name)
        }
    }

    /// Columns that the source computes do not travel.
    private func generatedFindings(_ table: TargetTable, _ source: TableSchema) -> [Finding] {
        source.columns.compactMap { column in
            guard let generation = column.generation, let target = table.column(named: column.name), !target.isGenerated else { return nil }
            let expression =
                switch generation {
                case .stored(let text), .virtual(let text): text
                }
            let name = quoteIdentifier(column.name)
            return Finding(
                .warning, .targetTableMismatch,
                what: "column \(column.name) is computed on the source, but is an ordinary one in the target table \(table.name)",
                why: "computed values do not travel, so it stays empty",
                mend: [
                    "ALTER TABLE \(table.name.quoted) DROP COLUMN \(name), ADD COLUMN \(name) \(target.typeName) GENERATED ALWAYS AS (\(expression)) STORED"
                ], table: table.name)
        }
    }
}

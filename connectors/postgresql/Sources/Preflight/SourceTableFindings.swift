import BridgeCore

/// What preflight says of a captured table beside rights, key and filter: what of it the log does not tell.
struct SourceTableFindings {
    let session: PostgresConnection
    let link: LinkDescription

    /// A name that is no table: what it is.
    static func stranger(_ name: TableName, _ session: PostgresConnection) throws(BridgeError) -> Finding {
        let kind = try session.rows(
            """
            SELECT c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relname = $1 AND (n.nspname = $2 OR $2::text IS NULL AND n.nspname = ANY ($3::text[])) AND c.relkind IN ('v', 'm', 'f', 'S')
            """, [name.name, name.schema, ArrayLiteral.make(session.defaultSchemas)], during: "looking up tables"
        ).first?.first.flatMap { $0 }
        let what: String? =
            switch kind {
            case "v": "view"
            case "m": "materialized view"
            case "f": "foreign table"
            case "S": "sequence"
            default: nil
            }
        guard let what else {
            return Finding(
                .blocking, .tableMissing, what: "the source has no table \(name)", why: "it cannot be copied",
                mend: ["correct the name under 'services:' in bridge.yaml"], table: name)
        }
        return Finding(
            .blocking, .tableMissing, what: "\(name) is a \(what), not a table", why: "its rows are not in the server's log",
            mend: ["name the tables that hold the rows under 'services:' in bridge.yaml"], table: name)
    }

    func findings(_ oid: UInt32, _ schema: TableSchema) throws(BridgeError) -> [Finding] {
        let row = try session.rows(
            """
            SELECT c.relpersistence, n.nspname ~ '^pg_' OR n.nspname = 'information_schema',
              (SELECT string_agg(format('%I.%I', h.schema, h.name), ', ') FROM (
                 SELECT cn.nspname AS schema, ch.relname AS name FROM pg_inherits i JOIN pg_class ch ON ch.oid = i.inhrelid
                 JOIN pg_namespace cn ON cn.oid = ch.relnamespace
                 WHERE i.inhparent = c.oid AND NOT ch.relispartition AND NOT EXISTS (
                   SELECT FROM unnest($2::text[], $3::text[]) AS w(schema, name) WHERE w.schema = cn.nspname AND w.name = ch.relname)) h),
              (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
               WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND (t.oid = 'oid'::regtype OR t.typname = 'lo')
                 AND ($4::text[] IS NULL OR a.attname = ANY ($4::text[]))),
              (SELECT string_agg(p.relid::regclass::text, ', ') FROM pg_partition_tree(c.oid) p JOIN pg_class l ON l.oid = p.relid
               WHERE l.relkind = 'f' AND c.relkind = 'p'),
              (SELECT string_agg(p.relid::regclass::text, ', ') FROM pg_partition_tree(c.oid) p JOIN pg_class l ON l.oid = p.relid
               WHERE l.relpersistence = 'u' AND l.relkind = 'r' AND c.relkind = 'p')
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1::oid
            """,
            [
                String(oid), ArrayLiteral.make(link.mappings.map { $0.source.schema ?? "public" }),
                ArrayLiteral.make(link.mappings.map(\.source.name)),
                link.mappings.first { $0.source == schema.name }?.columns.map { ArrayLiteral.make($0) },
            ], during: "looking at a table"
        ).first ?? []
        guard row.count == 6 else { return [] }
        let name = schema.name
        var findings: [Finding] = []
        func add(_ severity: Finding.Severity, _ what: String, _ why: String, _ mend: String...) {
            findings.append(Finding(severity, .sourceUnsupported, what: what, why: why, mend: mend, table: name))
        }
        if row[0] == "t" || row[1] == "t" {
            add(
                .blocking, "\(name) is a temporary table or one of the server's own", "its changes are not published",
                "leave it out of 'services:' in bridge.yaml")
        }
        if let children = row[2] {
            add(
                .warning, "tables inherit from \(name) and are not in the migration: \(children)",
                "a SELECT from \(name) shows their rows too, but only its own rows move", "list them under 'services:' in bridge.yaml")
        }
        if let columns = row[3] {
            add(
                .warning, "columns of \(name) may name large objects: \(columns)",
                "the objects themselves are not in the log, and do not move",
                "ALTER TABLE \(name.quoted) ADD COLUMN … bytea, filled by lo_get(…), if they do")
        }
        if let partitions = row[4] {
            add(
                .blocking, "partitions of \(name) are foreign tables: \(partitions)", "changes of their rows are not in this server's log",
                "ALTER TABLE \(name.quoted) DETACH PARTITION … for each")
        }
        if let partitions = row[5] {
            add(
                .blocking, "partitions of \(name) are unlogged: \(partitions)", "changes of their rows are not in the log",
                "ALTER TABLE … SET LOGGED for each")
        }
        return findings
    }
}

import BridgeCore
import Glibc

/// Looks for whatever would make a link into a SQLite file impossible or worse. Changes nothing.
struct TargetPreflight {
    let path: String
    let link: LinkDescription
    let sources: [TableSchema]
    /// nil if there is no file.
    let connection: TargetConnection?

    func findings() throws(BridgeError) -> [Finding] {
        guard let connection else { return link.mappings.map(missingTable) }
        var findings: [Finding] = []
        findings += try database(connection)
        let state = try LinkRecords(connection: connection, link: link).read()
        var seen = Set<String>()
        for (mapping, source) in zip(link.mappings, sources) {
            if !seen.insert(foldCase(mapping.target.name)).inserted {
                findings.append(
                    Finding(
                        .blocking, .configurationInvalid,
                        what: "two source tables go into table \(mapping.target.name)",
                        why: "SQLite has no schemas that would tell them apart",
                        mend: ["give one of them another name with 'to:'"], table: mapping.target))
            }
            findings += try table(mapping, source, state: state, connection)
        }
        return findings
    }

    private func database(_ connection: TargetConnection) throws(BridgeError) -> [Finding] {
        var findings: [Finding] = []
        if let encoding = try connection.database.string("PRAGMA main.encoding"), encoding != "UTF-8" {
            findings.append(
                Finding(
                    .blocking, .serverSettings, what: "the target file stores text as \(encoding)",
                    why: "text that is not valid Unicode would be changed on its way",
                    mend: ["make the target a new file: PRAGMA encoding = 'UTF-8' holds from the first table on"]))
        }
        if try connection.database.string("PRAGMA main.journal_mode") != "wal" {
            findings.append(
                Finding(
                    .warning, .serverSettings,
                    what: "the target file is not in WAL mode" + (link.needsCopy ? "; bridge run switches it over" : ""),
                    why: "in another mode readers and the link wait for each other",
                    mend: ["PRAGMA journal_mode = WAL"]))
        }
        if access(path, W_OK) != 0 || access(SQLiteTarget.folder(of: path), W_OK | X_OK) != 0 {
            findings.append(
                Finding(
                    .blocking, .rightsMissing, what: "this user may not write the target file and its folder",
                    why: "SQLite keeps its log beside the file",
                    mend: ["chmod u+w \(path), and the folder that it is in"]))
        }
        return findings
    }

    private func table(
        _ mapping: TableMapping, _ source: TableSchema, state: LinkState?, _ connection: TargetConnection
    ) throws(BridgeError) -> [Finding] {
        let name = mapping.target.name
        guard !SQLiteCatalog.isInternal(name) else {
            return [
                Finding(
                    .blocking, .targetTableMismatch, what: "the name \(name) is kept for SQLite's or bridge's own tables",
                    why: "the application's rows would be mixed with them", mend: ["choose another name with 'to:'"],
                    table: mapping.target)
            ]
        }
        guard let kind = try SQLiteCatalog.kind(of: name, connection.database) else { return [missingTable(mapping)] }
        guard kind.kind == "table", let target = try connection.target(mapping.target) else {
            return [
                Finding(
                    .blocking, .targetTableMismatch, what: "\(name) is not an ordinary table (\(kind.kind))",
                    why: "rows can be loaded into ordinary tables only", mend: ["choose another name with 'to:'"],
                    table: mapping.target)
            ]
        }
        var findings = collations(target)
        let pairing = ColumnPairing(
            relation(source, mapping: mapping), mapping: mapping, target: target,
            sourceIsStrict: source.options.contains("STRICT"), isWayBack: link.direction == .reverse, missing: .targetTableMismatch)
        findings += pairing.obstacles.map(\.finding)
        let isOurs = [.loading, .done].contains(state?.tables[mapping.source]?.state)
        if !isOurs, link.needsCopy, try connection.database.integer("SELECT 1 FROM \(target.quoted) LIMIT 1") != nil {
            findings.append(
                Finding(
                    .blocking, .targetTableNotEmpty, what: "table \(name) has rows that bridge did not put there",
                    why: "they could not be told from the source's", mend: ["DELETE FROM \(quoteIdentifier(name))"],
                    table: mapping.target))
        }
        if let filter = mapping.targetFilter {
            findings.append(
                Finding(
                    .warning, .conflict, what: "table \(name) holds rows that 'where' leaves out: all but \(filter)",
                    why: "a key that is given out on both sides stops the link at a conflict",
                    mend: ["let both sides give out different keys, such as UUIDs"], table: mapping.target))
        }
        return findings
    }

    private func missingTable(_ mapping: TableMapping) -> Finding {
        Finding(
            .blocking, .targetTableMissing, what: "the target has no table \(mapping.target.name)",
            why: "bridge run makes no tables",
            mend: [
                link.needsCopy
                    ? "bridge schema apply"
                    : "ALTER TABLE … RENAME TO \(quoteIdentifier(mapping.target.name)), if it was renamed"
            ], table: mapping.target)
    }

    /// A collation that the application registers is unknown here, and no statement on its table would compile.
    private func collations(_ target: TargetTable) -> [Finding] {
        let known: Set<String> = ["BINARY", "NOCASE", "RTRIM"]
        let used = target.table.columns.map(\.collation) + target.table.indexes.flatMap { $0.parts.map(\.collation) }
        return Set(used).subtracting(known).sorted().map { collation in
            Finding(
                .blocking, .targetTableMismatch,
                what: "table \(target.name) uses the collation \(collation), which only the application knows",
                why: "no row could be written", mend: ["use BINARY, NOCASE or RTRIM in table \(target.name)"],
                table: TableName(name: target.name))
        }
    }

    /// What the source's stream will say of the table.
    private func relation(_ source: TableSchema, mapping: TableMapping) -> Relation {
        let columns = source.columns.filter { $0.generation == nil }
        let all = Set(columns.map(\.name))
        let identity: Relation.IdentityKind
        if source.identity.isEmpty {
            identity = .nothing
        } else if Set(source.identity) == all, source.identity != source.primaryKey {
            identity = .full
        } else {
            identity = .key
        }
        return Relation(
            id: 0, engine: source.engine, form: link.form, name: source.name, identity: identity,
            columns: columns.map { column in
                Relation.Column(
                    name: column.name, isKey: source.identity.contains(column.name), typeName: column.typeName,
                    type: column.type)
            })
    }
}

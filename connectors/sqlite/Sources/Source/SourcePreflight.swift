import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Looks for whatever would make capture from a database impossible or worse.
struct SourcePreflight {
    let link: LinkDescription
    let path: String

    func findings(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> [Finding] {
        var findings = fileFindings()
        try findings += databaseFindings(database)
        try findings += nameFindings(database)
        for mapping in link.mappings { try findings += tableFindings(mapping, database) }
        return findings
    }

    private func fileFindings() -> [Finding] {
        let folder = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        var findings: [Finding] = []
        for (place, what) in [(path, "the database file"), (folder, "the folder of the database file")]
        where access(place, R_OK | W_OK) != 0 {
            findings.append(
                Finding(
                    .blocking, .rightsMissing, what: "\(what) cannot be written: \(place)",
                    why: "capture makes a log and triggers in the source, and SQLite makes files beside it",
                    mend: ["give this user the right to write \(place)"]))
        }
        return findings
    }

    private func databaseFindings(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> [Finding] {
        // The mode is known for certain once something has been read.
        _ = try database.integer("SELECT count(*) FROM main.sqlite_master")
        let mode = try database.string("PRAGMA main.journal_mode")?.lowercased() ?? ""
        guard mode != "wal" else { return [] }
        return [
            Finding(
                .warning, .serverSettings, what: "the source's journal mode is \(mode), not WAL",
                why: "readers and writers lock each other out: the application waits, or sees SQLITE_BUSY, while bridge reads",
                mend: ["PRAGMA journal_mode=WAL"])
        ]
    }

    /// Objects that bear the link's names and are not the link's own.
    private func nameFindings(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> [Finding] {
        let installer = CaptureInstaller(link)
        let existing = try installer.existing(database)
        guard let object = existing.first else { return [] }
        let isLog = existing.contains { $0.name == installer.names.state && !$0.isTrigger }
        let state = isLog ? try? CaptureState.read(installer.names, database) : nil
        if let state, state.link == link.name { return [] }
        return [
            Finding(
                .blocking, .slotForeign, what: "the source already has something named \(object.name)",
                why: "it would stand in the way of this migration's change log",
                mend: ["choose another migration name, or drop \(object.name) if nothing uses it"])
        ]
    }

    // MARK: Tables

    private func tableFindings(
        _ mapping: TableMapping, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [Finding] {
        let name = mapping.source
        guard name.schema == nil || name.schema == "main",
            let (kind, exact) = try SQLiteCatalog.kind(of: name.name, database), !SQLiteCatalog.isInternal(exact)
        else {
            return [
                Finding(
                    .blocking, .tableMissing, what: "the source has no table \(name)",
                    why: "it is named in the configuration", mend: ["correct the table's name under services"], table: name)
            ]
        }
        guard kind == "table", let table = try SQLiteCatalog.table(exact, database) else {
            return [
                Finding(
                    .blocking, .sourceUnsupported, what: "\(name) is a \(kind == "view" ? "view" : "virtual table")",
                    why: "SQLite runs no triggers for its rows, so changes cannot be captured",
                    mend: ["leave it out of the migration, and make it anew on the target"], table: name)
            ]
        }
        // In a trigger these words stand for the row that is changed, and no quoting tells them from a table.
        guard !SQLiteTable.isReservedInTriggers(exact) else {
            return [
                Finding(
                    .blocking, .sourceUnsupported, what: "\(name) has a name that triggers use for the row that is changed",
                    why: "changes that REPLACE makes to other rows could not be captured",
                    mend: ["ALTER TABLE \(quoteIdentifier(exact)) RENAME TO ..., or leave it out of the migration"],
                    table: name)
            ]
        }
        guard !table.key.isEmpty else {
            return [
                Finding(
                    .blocking, .tableWithoutKey, what: "\(name) has no primary key",
                    why: "a change could not name the row that it changed",
                    mend: ["rebuild the table with a primary key, or leave it out of the migration"], table: name)
            ]
        }
        var findings: [Finding] = []
        if mapping.targetFilter != nil {
            findings.append(
                Finding(
                    .blocking, .configurationInvalid,
                    what: "\(name) holds a part of the other side's table, chosen by 'where', and its log names keys only",
                    why: "a key that both sides gave out would overwrite, or delete, a row that 'where' leaves out",
                    mend: ["migrate the whole table: a new migration without 'where:' for \(name)"], table: name))
        }
        // What would be asked by such a collation cannot be asked at all.
        let collations = collationFindings(table, name)
        guard collations.isEmpty else { return findings + collations }
        try findings += keyFindings(table, name, database)
        try findings += definitionFindings(table, mapping, database)
        return findings
    }

    /// A collation that the application registers is unknown here: rows could not be found by their key.
    private func collationFindings(_ table: SQLiteTable, _ name: TableName) -> [Finding] {
        let known: Set<String> = ["BINARY", "NOCASE", "RTRIM"]
        let unique = table.indexes.filter(\.isUnique).flatMap { $0.parts.map(\.collation) }
        let key = table.key.map { table.columns[$0].collation }
        return Set((unique + key).map { $0.uppercased() }).subtracting(known).sorted().map { collation in
            Finding(
                .blocking, .sourceUnsupported,
                what: "the key or a unique index of \(name) uses the collation \(collation), which only the application knows",
                why: "rows could not be found by it, nor could what REPLACE removes",
                mend: ["use BINARY, NOCASE or RTRIM in \(name), or leave it out of the migration"], table: name)
        }
    }

    private func keyFindings(
        _ table: SQLiteTable, _ name: TableName, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [Finding] {
        guard table.keyMayBeNull else { return [] }
        let tests = table.key.map { "\(quoteIdentifier(table.columns[$0].name)) IS NULL" }.joined(separator: " OR ")
        let from = "FROM main.\(quoteIdentifier(table.name)) WHERE \(tests)"
        guard try database.integer("SELECT 1 \(from) LIMIT 1") != nil else { return [] }
        return [
            Finding(
                .blocking, .sourceUnsupported, what: "\(name) has rows with NULL in the primary key",
                why: "SQLite lets several rows have the same NULL key, so they cannot be told apart",
                mend: ["SELECT * FROM \(name.quoted) WHERE \(tests)", "give these rows a key, or delete them"], table: name)
        ]
    }

    /// What would fail when triggers are made or rows are read.
    private func definitionFindings(
        _ table: SQLiteTable, _ mapping: TableMapping, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [Finding] {
        do throws(BridgeError) {
            _ = try CaptureTriggers(table: table, number: 1, names: CaptureNames(link)).make()
            let columns = try TravelingColumns(table, types: [:], mapping: mapping)
            if let filter = mapping.rowFilter { try RowFilter(table, filter).check(columns.from, database) }
            guard CopiedTable(table, columns, filter: nil).order == nil else { return [] }
            return [
                Finding(
                    .warning, .serverSettings, what: "\(mapping.source) cannot be read in pieces",
                    why: """
                        it is copied in one read transaction: the WAL cannot be checkpointed for as long, and in another \
                        journal mode writers wait for it
                        """,
                    mend: [
                        "rename a column that is called rowid, _rowid_ or oid, or give all columns of the key one direction"
                    ], table: mapping.source)
            ]
        } catch {
            return [
                Finding(
                    .blocking, error.code, what: error.description, why: "changes of the table cannot be captured like this",
                    mend: [error.hint], table: mapping.source)
            ]
        }
    }
}

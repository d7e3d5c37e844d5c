import BridgeCore

/// What a database says of its tables' definitions.
enum SchemaText {
    /// A table with its indexes and triggers, as they were written, but for those of SQLite and of bridge.
    static func definition(of table: String, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> String {
        let rows = try database.prepare(
            """
            SELECT type, name, sql FROM main.sqlite_master
            WHERE tbl_name = ?1 COLLATE NOCASE AND sql IS NOT NULL ORDER BY type, name
            """)
        try rows.bind(1, string: table)
        var lines: [String] = []
        while try rows.step() {
            guard let type = rows.string(0), let name = rows.string(1), let sql = rows.string(2),
                !SQLiteCatalog.isInternal(name)
            else { continue }
            lines.append("\(type) \(quoteIdentifier(name)): \(sql)")
        }
        return lines.joined(separator: "\n")
    }

    /// The definitions of those tables that are there, as hashes.
    static func fingerprints(
        of tables: [TableName], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [TableName: String] {
        var found: [TableName: String] = [:]
        for table in tables {
            let text = try definition(of: table.name, database)
            if !text.isEmpty { found[table] = TextHash(text).digits }
        }
        return found
    }
}

/// Reads what gates must know of a database.
struct CutoverFactReader {
    let fence: SQLiteFence

    /// So many rows that break the foreign keys of one table are counted, and no more.
    static let countedRows = 10_000

    /// What the schema says, in the caller's transaction. SQLite has no prepared transactions, and does not tell how old the
    /// open ones are.
    func facts(_ tables: [TableName], _ database: borrowing SQLiteDatabase) throws(BridgeError) -> CutoverFacts {
        var facts = CutoverFacts()
        facts.unfenceable = try fence.faults(tables, database)
        for table in tables {
            if let reason = try SQLiteFence.reasonAgainst(table, database) { facts.unfenceable[table] = reason }
        }
        return facts
    }

    // MARK: Foreign keys

    /// Tables with a foreign key that is, or leads to, one of these.
    func tablesWithKeys(
        _ tables: [TableName], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [SQLiteTable] {
        let wanted = Set(tables.map { foldCase($0.name) })
        var found: [SQLiteTable] = []
        for name in try SQLiteCatalog.tableNames(database) {
            guard let table = try SQLiteCatalog.table(name, database), !table.foreignKeys.isEmpty else { continue }
            if wanted.contains(foldCase(name)) || table.foreignKeys.contains(where: { wanted.contains(foldCase($0.referencedTable.name)) }) {
                found.append(table)
            }
        }
        return found
    }

    /// Foreign keys that rows break, and how many rows, as far as they are counted. SQLite reads the whole table for it.
    func brokenKeys(
        _ table: SQLiteTable, among tables: [TableName], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [String: Int64] {
        let wanted = Set(tables.map { foldCase($0.name) })
        let counts: [Int: Int64]
        do throws(BridgeError) {
            counts = try countViolations(table, database)
        } catch {
            // A table that is referred to has no unique key of that kind: nothing can be proven of the rows there are.
            guard error.code == .serverRefused else { throw error }
            counts = try countReferring(table, database)
        }
        var broken: [String: Int64] = [:]
        for (place, count) in counts where table.foreignKeys.indices.contains(place) && count > 0 {
            let key = table.foreignKeys[place]
            guard wanted.contains(foldCase(table.name)) || wanted.contains(foldCase(key.referencedTable.name)) else { continue }
            let name = key.name ?? "(\(key.columns.joined(separator: ", "))) to \(key.referencedTable.name)"
            broken["\(table.name) \(name)", default: 0] += count
        }
        return broken
    }

    private func countViolations(
        _ table: SQLiteTable, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [Int: Int64] {
        let check = try database.prepare(
            "SELECT fkid FROM pragma_foreign_key_check(?1, 'main') LIMIT \(Self.countedRows)")
        try check.bind(1, string: table.name)
        var counts: [Int: Int64] = [:]
        // SQLite numbers them from the last one written.
        while try check.step() { counts[table.foreignKeys.count - 1 - Int(check.integer(0)), default: 0] += 1 }
        return counts
    }

    private func countReferring(
        _ table: SQLiteTable, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [Int: Int64] {
        var counts: [Int: Int64] = [:]
        for (place, key) in table.foreignKeys.enumerated() {
            let condition = key.columns.map { "\(quoteIdentifier($0)) IS NOT NULL" }.joined(separator: " AND ")
            counts[place] = try database.integer(
                """
                SELECT count(*) FROM (SELECT 1 FROM main.\(quoteIdentifier(table.name)) WHERE \(condition)
                LIMIT \(Self.countedRows))
                """)
        }
        return counts
    }
}

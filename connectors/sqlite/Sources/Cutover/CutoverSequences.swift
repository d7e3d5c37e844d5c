import BridgeCore

/// What gives out the values of INTEGER PRIMARY KEY columns. All functions work in the caller's transaction.
///
/// With AUTOINCREMENT that is the table's row in `sqlite_sequence`, or the largest key if that is more. Without, it is the
/// largest key there is, plus one: nothing can be set, and nothing needs to be for the rows that are there; but a key
/// above them that was given out and deleted is given out again, as it always was in that database.
struct CutoverSequences {
    /// The name of a sequence that is nothing but the largest key.
    static let plainRowid = "rowid"

    /// A key without AUTOINCREMENT is listed too, under the name `rowid`: another database must go on above it.
    func list(_ tables: [TableName], _ database: borrowing SQLiteDatabase) throws(BridgeError) -> [CutoverSequence] {
        var sequences: [CutoverSequence] = []
        for name in tables {
            guard let table = try SQLiteCatalog.table(name.name, database), let column = Self.column(table) else { continue }
            sequences.append(
                CutoverSequence(
                    table: name, column: column, name: table.isAutoincrement ? "sqlite_sequence" : Self.plainRowid,
                    lastValue: try last(table, column, database), increment: 1, isImplicit: !table.isAutoincrement))
        }
        return sequences
    }

    /// - Returns: what was moved.
    func advance(
        _ targets: [SequenceTarget], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [SequenceTarget] {
        var moved: [SequenceTarget] = []
        for target in targets {
            guard let table = try SQLiteCatalog.table(target.table.name, database) else {
                throw BridgeError(.tableMissing, "there is no such table", context: [.init(.table, target.table.description)])
            }
            guard table.isAutoincrement, let column = Self.column(table), foldCase(column) == foldCase(target.column)
            else { continue }
            let last = try last(table, column, database)
            guard max(last ?? .min, target.value) < .max else { throw Self.exhausted(target) }
            // From 1 on: SQLite counts a missing row as 0.
            guard target.value > max(last ?? 0, 0) else { continue }
            try set(table, target.value, database)
            moved.append(target)
        }
        return moved
    }

    private static func column(_ table: SQLiteTable) -> String? {
        guard table.keyIsRowid, let place = table.key.first else { return nil }
        return table.columns[place].name
    }

    /// The next value is one above it, and above 0; nil if none was given out.
    private func last(
        _ table: SQLiteTable, _ column: String, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> Int64? {
        let largest = try database.integer(
            "SELECT max(\(quoteIdentifier(column))) FROM main.\(quoteIdentifier(table.name))")
        guard table.isAutoincrement else { return largest }
        let row = try database.prepare("SELECT seq FROM main.sqlite_sequence WHERE name = ?1 ORDER BY rowid LIMIT 1")
        try row.bind(1, string: table.name)
        guard try row.step(), row.storageClass(0) != .null else { return largest }
        return max(largest ?? .min, row.integer(0))
    }

    private func set(_ table: SQLiteTable, _ value: Int64, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        let update = try database.prepare("UPDATE main.sqlite_sequence SET seq = ?2 WHERE name = ?1")
        try update.bind(1, string: table.name)
        try update.bind(2, integer: value)
        try update.run()
        guard database.changes() == 0 else { return }
        let insert = try database.prepare("INSERT INTO main.sqlite_sequence(name, seq) VALUES(?1, ?2)")
        try insert.bind(1, string: table.name)
        try insert.bind(2, integer: value)
        try insert.run()
    }

    private static func exhausted(_ target: SequenceTarget) -> BridgeError {
        BridgeError(
            .sequenceExhausted, "the key's values are used up: SQLite has none above this",
            context: [.init(.table, target.table.description), .init(.column, target.column)],
            hint: "remove the row with the largest key, or leave the table out of the migration")
    }
}

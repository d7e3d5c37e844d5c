import BridgeCore

/// About how many rows a table has, at a cost that does not grow with it: SQLite keeps no count, and `count(*)` reads the
/// whole table or an index of it.
struct RowEstimate {
    /// Tables with so many rows at most are counted.
    static let counted = 2_000
    /// Where along the rowids the rows are looked at, and how many of them each time.
    private static let places = 32
    private static let window = 64

    private let table: SQLiteTable
    private let from: String

    init(_ table: SQLiteTable) {
        self.table = table
        from = "FROM main.\(quoteIdentifier(table.name))"
    }

    /// - Returns: nil if there is nothing to tell it by: neither ANALYZE was run, nor have the rows numbers.
    func read(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> Int64? {
        let few = try database.integer("SELECT count(*) FROM (SELECT 1 \(from) LIMIT \(Self.counted + 1))") ?? 0
        if few <= Self.counted { return few }
        if let analysed = try analysed(database) { return analysed }
        guard let rowid = TargetTable(table).rowidName else { return nil }
        return try sampled(database, rowid)
    }

    /// What ANALYZE wrote down.
    private func analysed(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> Int64? {
        guard try CaptureState.exists("sqlite_stat1", database) else { return nil }
        let partial = Set(table.indexes.filter { $0.predicate != nil }.map { foldCase($0.name) })
        let rows = try database.prepare("SELECT idx, stat FROM main.sqlite_stat1 WHERE tbl = ?1 COLLATE NOCASE")
        try rows.bind(1, string: table.name)
        var most: Int64?
        while try rows.step() {
            // A partial index counts its own rows.
            if let index = rows.string(0), partial.contains(foldCase(index)) { continue }
            guard let number = rows.string(1)?.split(separator: " ").first.flatMap({ Int64($0) }), number >= 0 else { continue }
            most = max(most ?? 0, number)
        }
        return most
    }

    /// Cuts the rowids into equal parts and takes each to be filled as it is at its beginning.
    private func sampled(_ database: borrowing SQLiteDatabase, _ rowid: String) throws(BridgeError) -> Int64? {
        // One query for both would read all rows.
        guard let least = try database.integer("SELECT min(\(rowid)) \(from)"),
            let greatest = try database.integer("SELECT max(\(rowid)) \(from)")
        else { return 0 }
        let span = UInt64(bitPattern: greatest &- least)
        let part = span / UInt64(Self.places) + 1
        let rows = try database.prepare(
            "SELECT \(rowid) \(from) WHERE \(rowid) BETWEEN ?1 AND ?2 ORDER BY \(rowid) LIMIT \(Self.window)")
        var total = 0.0
        var start: UInt64 = 0
        while start <= span {
            let last = min(span, start + (part - 1))
            try rows.bind(1, integer: least &+ Int64(bitPattern: start))
            try rows.bind(2, integer: least &+ Int64(bitPattern: last))
            var seen = 0
            var reached = start
            while try rows.step() {
                seen += 1
                reached = UInt64(bitPattern: rows.integer(0) &- least)
            }
            rows.reset()
            total += Double(seen)
            if seen == Self.window { total += Double(seen) / Double(reached - start + 1) * Double(last - reached) }
            guard last < span else { break }
            start = last + 1
        }
        return Int64(exactly: total.rounded())
    }
}

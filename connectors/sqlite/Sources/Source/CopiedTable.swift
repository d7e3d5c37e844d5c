import BridgeCore

/// The statements by which a table is read for the copy: in what order, from where on, and without which rows.
///
/// A rowid table is read along its rowid, which is the order of its pages; a table WITHOUT ROWID along its key, which is
/// the same there. Where neither can be had (three columns that bear the rowid's three names, or a key of mixed directions
/// in a table WITHOUT ROWID, which no row comparison follows) the table has no order and is read at a stretch.
struct CopiedTable {
    /// What the table is read along.
    enum Order {
        /// The table's own key, or the rowid that it is.
        case key
        /// A rowid that is not the key, which a VACUUM may give out anew.
        case hiddenRowid
    }

    let table: SQLiteTable
    let traveling: TravelingColumns
    /// nil if the table cannot be read in pieces.
    let order: Order?

    private let filter: String?
    /// What the order goes by, with the collations that its index has.
    private let path: [String]
    /// The same as stored, to go on from.
    private let place: [String]

    init(_ table: SQLiteTable, _ traveling: TravelingColumns, filter: String?) {
        self.table = table
        self.traveling = traveling
        // The plus keeps a filter on the key's columns out of the choice of the path: with one SQLite would sort, for each
        // chunk, all that is left of the table.
        self.filter = filter.map { table.isWithoutRowid ? "+(\($0))" : "(\($0))" }
        let alias = quoteIdentifier(table.name)
        let key = table.key.map { "\(alias).\(quoteIdentifier(table.columns[$0].name))" }
        if table.keyIsRowid {
            order = .key
            path = key
            place = key
        } else if table.isWithoutRowid {
            let directions = Set(table.primaryKeyIndex?.parts.prefix(table.key.count).map(\.isDescending) ?? [])
            order = directions.count <= 1 ? .key : nil
            path = table.key.indices.map { table.collatedKeyColumn($0) }
            place = key
        } else {
            let names = Set(table.columns.map { foldCase($0.name) })
            let rowid = ["rowid", "_rowid_", "oid"].first { !names.contains($0) }
            order = rowid == nil ? nil : .hiddenRowid
            path = rowid.map { ["\(alias).\($0)"] } ?? []
            place = path
        }
    }

    /// How many values stand behind the travelling columns: the row's place, to go on from.
    var placeCount: Int { place.count }

    /// - Parameters:
    ///   - continuing: behind the place that is bound to the first parameters.
    ///   - unchanged: without the rows whose keys are in ``ChangedKeys``.
    func select(continuing: Bool, unchanged: Bool) -> String {
        var conditions: [String] = []
        if continuing {
            let parameters = path.indices.map { "?\($0 + 1)" }.joined(separator: ", ")
            conditions.append(
                path.count == 1 ? "\(path[0]) > \(parameters)" : "(\(path.joined(separator: ", "))) > (\(parameters))")
        }
        if unchanged { conditions.append("NOT EXISTS (\(ChangedKeys.lookup(table)))") }
        // A key that holds NULL is in no log by its name: nothing would take the row away again.
        if table.keyMayBeNull, order != nil { conditions += table.key.indices.map { "\(table.collatedKeyColumn($0)) IS NOT NULL" } }
        if let filter { conditions.append(filter) }
        // No other index: each chunk would sort all that is left of the table.
        let hint = order == nil ? "" : " NOT INDEXED"
        return "SELECT \((([traveling.list] + place)).joined(separator: ", ")) \(traveling.from)\(hint)"
            + (conditions.isEmpty ? "" : " WHERE \(conditions.joined(separator: " AND "))")
            + (path.isEmpty ? "" : " ORDER BY \(path.joined(separator: ", "))")
    }

    /// Asks for the key of the row at a rowid, as stored.
    var keyAtRowid: String {
        let alias = quoteIdentifier(table.name)
        let key = table.key.map { "\(alias).\(quoteIdentifier(table.columns[$0].name))" }.joined(separator: ", ")
        return "SELECT \(key) \(traveling.from) WHERE \(path.first ?? "rowid") = ?1"
    }
}

/// The keys of one table that the log named since a copy's snapshot, in a temporary table of the copy's connection, since
/// there may be more of them than memory should hold.
///
/// Its columns have the affinities and collations of the key's own, so that a logged key finds the row that capture will
/// find by it, letter case and kind of number aside.
final class ChangedKeys {
    private static let name = "temp._bridge_changed"

    private let connection: SQLiteConnection
    private let number: Int64
    private let newRows: SQLiteStatement
    private let insert: SQLiteStatement
    private let keyCount: Int
    /// The newest row of the log that was looked at.
    private(set) var seen: Int64
    private var mark: Int64
    private(set) var isEmpty = true

    /// Outside of a transaction.
    /// - Parameter seen: the log's newest row in the copy's snapshot.
    init(
        _ table: SQLiteTable, number: Int64, names: CaptureNames, seen: DeliveryProof, _ connection: SQLiteConnection
    ) throws(BridgeError) {
        self.connection = connection
        self.number = number
        self.seen = seen.sequence
        mark = seen.mark
        keyCount = table.key.count
        let columns = table.key.indices.map { index in
            let collation = Self.collation(of: table.key[index], table)
            return "k\(index) \(table.columns[table.key[index]].affinity.declaration) COLLATE \(quoteIdentifier(collation))"
        }
        let keys = table.key.indices.map { "k\($0)" }.joined(separator: ", ")
        try connection.writingTemporarily { () throws(BridgeError) in
            try connection.database.execute(
                "CREATE TABLE \(Self.name)(\(columns.joined(separator: ", ")), PRIMARY KEY(\(keys))) WITHOUT ROWID")
        }
        // The row that was seen last comes first: where it is missing, rows behind it may be as well.
        newRows = try connection.database.prepare(
            "SELECT seq, tbl, mark, \(keys) FROM main.\(quoteIdentifier(names.log)) WHERE seq >= ?1 ORDER BY seq")
        // A key that holds NULL names no row that could be copied.
        insert = try connection.database.prepare(
            """
            INSERT OR IGNORE INTO \(Self.name) VALUES(\(table.key.indices.map { "?\($0 + 1)" }.joined(separator: ", ")))
            """)
    }

    /// A row of these keys, for a row of the table.
    static func lookup(_ table: SQLiteTable) -> String {
        let same = table.key.indices.map { index in
            let column = "\(quoteIdentifier(table.name)).\(quoteIdentifier(table.columns[table.key[index]].name))"
            // The left side's collation counts.
            return "_bridge_changed.k\(index) = \(column)"
        }
        return "SELECT 1 FROM \(name) AS _bridge_changed WHERE \(same.joined(separator: " AND "))"
    }

    private static func collation(of place: Int, _ table: SQLiteTable) -> String {
        table.primaryKeyIndex?.parts.first { $0.column == place }?.collation ?? table.columns[place].collation
    }

    /// Takes in what the log has in the snapshot of the transaction under way.
    /// - Returns: false if the time did not suffice.
    func catchUp(until deadline: ContinuousClock.Instant) throws(BridgeError) -> Bool {
        try newRows.bind(1, integer: seen)
        defer { newRows.reset() }
        guard try newRows.step(), newRows.integer(0) == seen, newRows.integer(2) == mark else {
            throw CopyInterruption.error("the change log lost rows while the table was copied")
        }
        guard try newRows.step() else { return true }
        return try connection.writingTemporarily { () throws(BridgeError) in
            var rows = 0
            repeat {
                seen = newRows.integer(0)
                mark = newRows.integer(2)
                if newRows.integer(1) == number {
                    for place in 0..<keyCount { try insert.bind(place + 1, column: place + 3, of: newRows) }
                    try insert.run()
                    isEmpty = false
                }
                rows += 1
                if rows % 1_024 == 0, ContinuousClock.now >= deadline { return false }
            } while try newRows.step()
            return true
        }
    }
}

/// What makes a copy of a table begin again, by being tried again.
enum CopyInterruption {
    static func error(_ what: String) -> BridgeError {
        BridgeError(.serverBusy, what, hint: "the copy of the table begins again by itself")
    }
}

extension SQLiteConnection {
    /// Runs `body` with the right to write, which it uses for temporary tables only.
    func writingTemporarily<Result>(_ body: () throws(BridgeError) -> Result) throws(BridgeError) -> Result {
        try database.execute("PRAGMA query_only = 0")
        do throws(BridgeError) {
            let result = try body()
            try database.execute("PRAGMA query_only = 1")
            return result
        } catch {
            try database.execute("PRAGMA query_only = 1")
            throw error
        }
    }
}

extension Affinity {
    /// A declared type that has this affinity.
    fileprivate var declaration: String {
        switch self {
        case .integer: "INTEGER"
        case .real: "REAL"
        case .text: "TEXT"
        case .numeric: "NUMERIC"
        case .blob: "BLOB"
        }
    }
}

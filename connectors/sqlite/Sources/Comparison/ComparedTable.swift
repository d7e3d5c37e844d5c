import BridgeCore

/// One table as a view asks it: the statements of its layout, compiled when they are first needed. Confined to the view's
/// thread.
final class ComparedTable {
    let name: String
    let columnCount: Int
    /// Where the columns that name a row stand among those compared; all, if the layout has no key.
    let keyPlaces: [Int]
    /// `SELECT … FROM main."t" AS "t"`: the alias is the name by which a row filter may call the table.
    let select: String
    let from: String
    /// ` AND (…)`, or nothing.
    let filter: String
    let table: SQLiteTable
    /// The compared columns' places in the table.
    let places: [Int]
    private let encoding: String
    let connection: SQLiteConnection
    /// Of the columns that name a row, by plan; empty if the layout has no key.
    private let keyTypes: [LogicalType]
    private lazy var finder = KeyFinder(
        self, table: table, places: keyPlaces.map { places[$0] }, types: keyTypes, connection)

    /// - Throws: `schemaChanged` if table or columns are no more what they were when the layout was made.
    init(_ request: ComparisonRequest, _ connection: SQLiteConnection) throws(BridgeError) {
        let layout = request.layout
        self.connection = connection
        name = layout.table.name
        guard let table = try SQLiteCatalog.table(layout.table.name, connection.database) else {
            throw Self.changed(layout.table.name, "the table is not there any more")
        }
        self.table = table
        let target = TargetTable(table)
        var places: [Int] = []
        for column in layout.columns {
            guard let place = target.column(named: column.name) else {
                throw Self.changed(layout.table.name, "a column is not there any more").adding(.column, column.name)
            }
            places.append(place)
        }
        self.places = places
        let keys = layout.columns.indices.filter { layout.columns[$0].isKey }
        keyPlaces = keys.isEmpty ? Array(layout.columns.indices) : keys
        keyTypes = keys.map { layout.columns[$0].type }
        columnCount = places.count
        encoding = try connection.database.string("PRAGMA main.encoding") ?? ""
        let alias = quoteIdentifier(table.name)
        from = "FROM main.\(alias) AS \(alias)"
        select = "SELECT \(places.map { "\(alias).\(quoteIdentifier(table.columns[$0].name))" }.joined(separator: ", ")) \(from)"
        filter = request.rowFilter.map { " AND (\($0))" } ?? ""
    }

    private static func changed(_ table: String, _ what: String) -> BridgeError {
        BridgeError(.schemaChanged, what, context: [.init(.table, table)])
    }

    // MARK: Rows

    /// A statement over the request's rows, bound and ready.
    func rows(_ request: ComparisonRequest) throws(BridgeError) -> SQLiteStatement {
        guard request.from != nil || request.to != nil else {
            return try connection.database.prepare(select + (filter.isEmpty ? "" : " WHERE 1\(filter)"))
        }
        let (order, column, mayBeNull) = try ranging(request)
        var sql = select + " WHERE "
        switch (request.from, request.to) {
        case (.some, .some): sql += "\(column) >= ?1 AND \(column) < ?2\(filter)"
        case (.some, nil): sql += "\(column) >= ?1\(filter)"
        default:
            sql += "\(column) < ?2\(filter)"
            // NULL stands below every bound, and is compared with none.
            if mayBeNull { sql += " UNION ALL \(select) WHERE \(column) IS NULL\(filter)" }
        }
        let statement = try connection.database.prepare(sql)
        try bind(request.from, at: 1, order, to: statement)
        try bind(request.to, at: 2, order, to: statement)
        return statement
    }

    /// Appends the current row of a statement that begins with the compared columns.
    @inline(__always)
    func append(_ row: SQLiteStatement, to buffer: RecordBuffer) throws(BridgeError) {
        let start = buffer.count
        buffer.append(bigEndian: UInt32(0))
        buffer.beginRowImage(columns: columnCount)
        for place in 0..<columnCount { try row.appendCell(place, to: buffer) }
        guard let size = UInt32(exactly: buffer.count - start - 4) else {
            throw BridgeError(.valueDoesNotFit, "a row is larger than 4 GB", context: [.init(.table, name)])
        }
        buffer.patch(bigEndian: size, at: start)
    }

    /// - Returns: how many rows there are; nil, and nothing in the buffer, if they take more than `limit` bytes.
    func find(_ keys: [KeyImage], into buffer: RecordBuffer, limit: Int = .max) throws(BridgeError) -> Int? {
        let start = buffer.count
        let rows = try finder.find(keys, into: buffer, limit: limit == .max ? .max : start + limit)
        if rows == nil { buffer.truncate(to: start) }
        return rows
    }

    /// The condition by which rows are looked up; nil if a walk through the table is what finds them.
    var lookupCondition: String? { finder.condition }

    // MARK: Ranges

    /// The order of the request's ranges, the column for SQL, and whether it can hold NULL.
    private func ranging(
        _ request: ComparisonRequest
    ) throws(BridgeError) -> (order: SharedKeyOrder, column: String, mayBeNull: Bool) {
        guard let stated = request.layout.keyOrder, let first = request.layout.columns.firstIndex(where: \.isKey) else {
            throw BridgeError(
                .internalFault, "a range was asked of a table that has no order", context: [.init(.table, name)])
        }
        let place = places[first]
        guard let order = SharedKeyOrder(table, column: place, encoding: encoding), order.rawValue == stated else {
            throw Self.changed(name, "the key is ordered otherwise than it was")
        }
        let isKey = table.key.contains(place) && (table.keyIsRowid || table.isWithoutRowid)
        return (
            order, "\(quoteIdentifier(table.name)).\(quoteIdentifier(table.columns[place].name))",
            !isKey && !table.columns[place].isNotNull
        )
    }

    private func bind(
        _ bound: KeyImage?, at index: Int, _ order: SharedKeyOrder, to statement: SQLiteStatement
    ) throws(BridgeError) {
        guard let bound else { return }
        try bound.withImage { image throws(BridgeError) in
            var cells = image.cells
            guard image.columnCount == 1, let cell = try cells.next(), order.accepts(cell.tag) else {
                throw BridgeError(.internalFault, "a bound is not of the key's order", context: [.init(.table, name)])
            }
            try statement.bind(index, cell: cell)
        }
    }

    /// The bound behind about `rows` rows; see ``ComparisonView/boundary(_:rows:)``. The row filter is not asked: ranges
    /// then hold fewer rows, and the walk stays on the index.
    func boundary(_ request: ComparisonRequest, rows: Int) throws(BridgeError) -> KeyImage? {
        let (order, column, _) = try ranging(request)
        let lower = request.from == nil ? "" : " WHERE \(column) >= ?1"
        let walk = try connection.database.prepare(
            "SELECT \(column) \(from)\(lower) ORDER BY \(column) LIMIT 1 OFFSET \(max(1, rows))")
        try bind(request.from, at: 1, order, to: walk)
        guard try walk.step(), let bound = try bound(walk, order, column) else { return nil }
        // One value of a composite key's first column may have more rows than that. The range must still hold some.
        let below = try connection.database.prepare(
            "SELECT 1 \(from) WHERE \(column) < ?2\(request.from == nil ? "" : " AND \(column) >= ?1") LIMIT 1")
        try bind(request.from, at: 1, order, to: below)
        try bind(bound, at: 2, order, to: below)
        if try below.step() { return bound }
        let above = try connection.database.prepare("SELECT \(column) \(from) WHERE \(column) > ?1 ORDER BY \(column) LIMIT 1")
        try bind(bound, at: 1, order, to: above)
        return try above.step() ? try self.bound(above, order, column) : nil
    }

    /// The bound at a row's value; where that is of another class, the next that will do. Nil if only values that no bound
    /// can stand at follow: they are all in the last range.
    private func bound(
        _ row: SQLiteStatement, _ order: SharedKeyOrder, _ column: String
    ) throws(BridgeError) -> KeyImage? {
        let found = row.storageClass(0)
        if found == order.storageClass { return try image(row) }
        if order == .integer, found == .real { return Self.integer(atOrAbove: row.real(0)) }
        guard Self.rank(found) < Self.rank(order.storageClass) else { return nil }
        let first = try connection.database.prepare("SELECT \(column) \(from) WHERE \(column) >= ?1 ORDER BY \(column) LIMIT 1")
        try bind(order.least, at: 1, order, to: first)
        guard try first.step() else { return nil }
        if first.storageClass(0) == order.storageClass { return try image(first) }
        return order == .integer && first.storageClass(0) == .real ? Self.integer(atOrAbove: first.real(0)) : nil
    }

    private func image(_ row: SQLiteStatement) throws(BridgeError) -> KeyImage {
        try KeyImage(columns: 1) { cells throws(BridgeError) in try row.appendCell(0, to: cells) }
    }

    private static func integer(atOrAbove real: Double) -> KeyImage? {
        guard let integer = Int64(exactly: real.rounded(.up)) else {
            return real < 0 ? SharedKeyOrder.integer.least : nil
        }
        return KeyImage(columns: 1) { $0.appendCell(integer: integer) }
    }

    /// SQLite's order of the classes.
    private static func rank(_ storageClass: StorageClass) -> Int {
        switch storageClass {
        case .null: 0
        case .integer, .real: 1
        case .text: 2
        case .blob: 3
        }
    }
}

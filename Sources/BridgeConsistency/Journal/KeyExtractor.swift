import BridgeCore

/// Takes the keys out of journaled changes, for the tables that are compared. A value type without I/O.
///
/// A change touches the key that its row had and the key that it has. Where a change does not tell (an unchanged value
/// that the source did not send), the whole table counts as touched: more to look at, never less.
struct KeyExtractor {
    enum Touched: Equatable {
        case keys([KeyImage])
        case wholeTable
    }

    private struct Known {
        let table: Int
        let relation: Relation
        /// Where the key's columns stand in a row image; nil if the relation lacks one of them.
        let places: [Int]?
    }

    private let tables: [TableName: (index: Int, key: [String])]
    private var known: [UInt32: Known] = [:]

    /// - Parameters:
    ///   - layouts: the source's layouts, in the order in which tables are numbered.
    ///   - names: in the same order, what the migration calls the tables. A journal may go on calling one so that has
    ///     another name by now.
    init(_ layouts: [ComparisonLayout], names: [TableName] = []) {
        var tables: [TableName: (index: Int, key: [String])] = [:]
        for (index, layout) in layouts.enumerated() {
            let marked = layout.columns.filter(\.isKey)
            tables[layout.table] = (index, (marked.isEmpty ? layout.columns : marked).map(\.name))
        }
        // Last, since two tables may have exchanged their names.
        for (layout, name) in zip(layouts, names).map({ (tables[$0.table], $1) }) { tables[name] = layout }
        self.tables = tables
    }

    /// Takes in a relation.
    /// - Returns: the table's number if the relation differs from the one known before under this number or name: its
    ///   definition was changed, so that every row may have been.
    mutating func take(_ relation: Relation) -> Int? {
        guard let table = tables[relation.name] else {
            known[relation.id] = nil
            return nil
        }
        let before = known.values.first { $0.table == table.index }
        let places = table.key.map { name in relation.columns.firstIndex { $0.name == name } }
        let complete = places.compactMap { $0 }
        if let before, before.relation.id != relation.id { known[before.relation.id] = nil }
        known[relation.id] = Known(
            table: table.index, relation: relation, places: complete.count == places.count ? complete : nil)
        guard let before else { return nil }
        return before.relation == relation ? nil : table.index
    }

    /// The table that a relation number stands for; nil if it is not compared.
    func table(_ relation: UInt32) -> Int? { known[relation]?.table }

    /// What a row change touches; nil for a table that is not compared.
    func touched(by change: RowChange) throws(BridgeError) -> (table: Int, what: Touched)? {
        guard let known = known[change.relation] else { return nil }
        guard let places = known.places else { return (known.table, .wholeTable) }
        var keys: [KeyImage] = []
        var old: [Cell]?
        if let image = change.old {
            let cells = try Self.cells(image)
            old = cells
            guard let key = Self.key(cells, places, filling: nil) else { return (known.table, .wholeTable) }
            keys.append(key)
        }
        if let image = change.new {
            guard let key = Self.key(try Self.cells(image), places, filling: old) else {
                return (known.table, .wholeTable)
            }
            if key != keys.first { keys.append(key) }
        }
        return (known.table, keys.isEmpty ? .wholeTable : .keys(keys))
    }

    /// The key of a whole row as a view gives it.
    /// - Parameter places: the key's columns; none for all columns.
    static func key(of image: RowImage, places: [Int]) throws(BridgeError) -> KeyImage {
        guard !places.isEmpty else { return KeyImage(Array(image.bytes)) }
        guard let key = key(try cells(image), places, filling: nil) else { throw BridgeError.malformedRecord(at: 0) }
        return key
    }

    private static func cells(_ image: RowImage) throws(BridgeError) -> [Cell] {
        var cells: [Cell] = []
        cells.reserveCapacity(image.columnCount)
        var cursor = image.cells
        while let cell = try cursor.next() { cells.append(cell) }
        return cells
    }

    /// The key's cells as an image of their own; nil if one of them is not told.
    private static func key(_ cells: [Cell], _ places: [Int], filling old: [Cell]?) -> KeyImage? {
        var bytes: [UInt8] = []
        withUnsafeBytes(of: UInt16(truncatingIfNeeded: places.count).bigEndian) { bytes.append(contentsOf: $0) }
        for place in places {
            guard place < cells.count else { return nil }
            var cell = cells[place]
            if cell.tag == .unchanged, let old, place < old.count { cell = old[place] }
            guard cell.tag != .unchanged, cell.tag != .absent else { return nil }
            bytes.append(cell.tag.rawValue)
            guard cell.tag.hasBytes else { continue }
            withUnsafeBytes(of: UInt32(truncatingIfNeeded: cell.bytes.count).bigEndian) { bytes.append(contentsOf: $0) }
            bytes.append(contentsOf: cell.bytes)
        }
        return KeyImage(bytes)
    }
}

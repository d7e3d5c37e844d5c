import BridgeCore

/// Finds the rows of one table that have certain keys, byte for byte: 1 is not 1.0 and not '1', and under NOCASE 'a' is
/// not 'A'. SQLite's own comparison, which may use an index, finds the rows that could be meant; the cells decide.
///
/// In a UTF-16 database a key with text that is no valid UTF-16 is not found: it was read as other text than it is.
///
/// Without an index over the key, above all for tables whose rows are named by all their columns, one walk through the
/// table looks for all keys of a call.
final class KeyFinder {
    private unowned let compared: ComparedTable
    private let connection: SQLiteConnection
    private let keyPlaces: [Int]
    /// The condition that names a row by parameters; nil without an index that would serve it.
    let condition: String?
    private var lookup: SQLiteStatement?
    private let scratch = RecordBuffer(capacity: 256)

    /// - Parameter places: the key's columns in the table.
    init(_ compared: ComparedTable, table: SQLiteTable, places: [Int], _ connection: SQLiteConnection) {
        self.compared = compared
        self.connection = connection
        keyPlaces = compared.keyPlaces
        condition = Self.condition(table, places)
    }

    private static func condition(_ table: SQLiteTable, _ places: [Int]) -> String? {
        let alias = quoteIdentifier(table.name)
        func column(_ place: Int) -> String { "\(alias).\(quoteIdentifier(table.columns[place].name))" }
        if table.keyIsRowid, table.key == places { return places.map { "\(column($0)) IS ?1" }.joined() }
        let whole = table.indexes.first { index in
            index.predicate == nil && index.parts.allSatisfy { $0.column.map(places.contains) ?? false }
                && Set(index.parts.compactMap(\.column)) == Set(places)
        }
        let partial = table.indexes.first { index in
            index.predicate == nil && (index.parts.first?.column).map(places.contains) ?? false
        }
        guard let index = whole ?? partial else { return nil }
        return places.enumerated().map { number, place in
            // The index serves comparisons under its own collation. Any collation finds the very same bytes.
            let collation = index.parts.first { $0.column == place }?.collation ?? table.columns[place].collation
            let suffix = collation == table.columns[place].collation ? "" : " COLLATE \(quoteIdentifier(collation))"
            // IS, since a key's column may be NULL. It uses an index as = does.
            return "\(column(place))\(suffix) IS ?\(number + 1)"
        }.joined(separator: " AND ")
    }

    /// Appends the rows with these keys; returns how many, or nil once the buffer has more than `limit` bytes.
    func find(_ keys: [KeyImage], into buffer: RecordBuffer, limit: Int) throws(BridgeError) -> Int? {
        guard !keys.isEmpty else { return 0 }
        guard let condition else { return try scan(keys, into: buffer, limit: limit) }
        let statement: SQLiteStatement
        if let lookup {
            statement = lookup
        } else {
            statement = try connection.database.prepare("\(compared.select) WHERE \(condition)\(compared.filter)")
            lookup = statement
        }
        // Keys are bound in place.
        defer { statement.clearBindings() }
        var rows = 0
        for key in keys {
            rows += try key.withImage { image throws(BridgeError) in try find(image, statement, into: buffer) }
            if buffer.count > limit { return nil }
        }
        return rows
    }

    private func find(
        _ image: RowImage, _ statement: SQLiteStatement, into buffer: RecordBuffer
    ) throws(BridgeError) -> Int {
        try check(image)
        var cells = image.cells
        var index = 1
        while let cell = try cells.next() {
            // SQLite stores no NaN, and would take it for NULL here.
            if let real = cell.real, real.isNaN { return 0 }
            try statement.bind(index, cell: cell, copying: false)
            index += 1
        }
        defer { statement.reset() }
        var rows = 0
        while try statement.step() {
            guard try hasKey(statement, image) else { continue }
            try compared.append(statement, to: buffer)
            rows += 1
        }
        return rows
    }

    private func check(_ image: RowImage) throws(BridgeError) {
        guard image.columnCount == keyPlaces.count else {
            throw BridgeError(
                .recordMalformed, "a key has another number of columns than its table's",
                context: [.init(.table, compared.name)])
        }
    }

    private func hasKey(_ row: SQLiteStatement, _ image: RowImage) throws(BridgeError) -> Bool {
        var cells = image.cells
        for place in keyPlaces {
            guard let cell = try cells.next(), isSame(row, place, cell) else { return false }
        }
        return true
    }

    private func isSame(_ row: SQLiteStatement, _ place: Int, _ cell: Cell) -> Bool {
        switch (cell.tag, row.storageClass(place)) {
        case (.null, .null): true
        case (.integer, .integer): cell.integer == row.integer(place)
        case (.real, .real): cell.real?.bitPattern == row.real(place).bitPattern
        case (.string, .text), (.text, .text), (.blob, .blob): ImageBytes(row.bytes(place)) == cell.bytes
        default: false
        }
    }

    // MARK: Without an index

    private func scan(_ keys: [KeyImage], into buffer: RecordBuffer, limit: Int) throws(BridgeError) -> Int? {
        var wanted: [Int: [[UInt8]]] = [:]
        for key in keys {
            try key.withImage { image throws(BridgeError) in
                try check(image)
                scratch.removeAll()
                var cells = image.cells
                while let cell = try cells.next() {
                    let tag = cell.tag == .text ? CellTag.string : cell.tag
                    if tag.hasBytes { scratch.appendCell(tag, cell.bytes) } else { scratch.appendCell(tag) }
                }
            }
            let bytes = Array(scratch.bytes)
            if wanted[hash(scratch.bytes), default: []].contains(bytes) { continue }
            wanted[hash(scratch.bytes), default: []].append(bytes)
        }
        let all = try connection.database.prepare(compared.select + (compared.filter.isEmpty ? "" : " WHERE 1\(compared.filter)"))
        var rows = 0
        while try all.step() {
            scratch.removeAll()
            for place in keyPlaces { try all.appendCell(place, to: scratch) }
            guard let candidates = wanted[hash(scratch.bytes)], candidates.contains(where: { $0.elementsEqual(scratch.bytes) })
            else { continue }
            try compared.append(all, to: buffer)
            if buffer.count > limit { return nil }
            rows += 1
        }
        return rows
    }

    /// Seeded for each process: keys come from outside.
    private func hash(_ bytes: UnsafeRawBufferPointer) -> Int {
        var hasher = Hasher()
        hasher.combine(bytes: bytes)
        return hasher.finalize()
    }
}

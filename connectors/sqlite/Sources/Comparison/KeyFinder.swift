import BridgeCore

/// Finds the rows of one table that have certain keys: those that are the same bytes, and where there is none, those that
/// have the key's value in the class in which the column holds it (see ``KeyColumn``). Under NOCASE 'a' is not 'A'. SQLite's
/// own comparison, which may use an index, finds the rows that could be meant; the cells decide. Rows without a key are the
/// same bytes or others.
///
/// In a UTF-16 database a key with text that is no valid UTF-16 is not found: it was read as other text than it is.
///
/// Without an index over the key, above all for tables whose rows are named by all their columns, one walk through the
/// table looks for all keys of a call.
final class KeyFinder {
    private unowned let compared: ComparedTable
    private let connection: SQLiteConnection
    private let keyPlaces: [Int]
    /// How each of the key's columns holds other databases' values; empty for a table without a key.
    private let columns: [KeyColumn]
    /// The condition that names a row by parameters; nil without an index that would serve it.
    let condition: String?
    private var lookup: SQLiteStatement?
    private let scratch = RecordBuffer(capacity: 256)

    /// - Parameters:
    ///   - places: the key's columns in the table.
    ///   - types: their types by plan; empty if there is no key.
    init(
        _ compared: ComparedTable, table: SQLiteTable, places: [Int], types: [LogicalType], _ connection: SQLiteConnection
    ) {
        self.compared = compared
        self.connection = connection
        keyPlaces = compared.keyPlaces
        let target = TargetTable(table)
        columns = zip(places, types).map { KeyColumn(table.columns[$0], type: $1, isRowid: target.isRowid($0)) }
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
        var missed: [Int] = []
        for (index, key) in keys.enumerated() {
            let found = try key.withImage { image throws(BridgeError) in
                try find(image, isConverted: false, statement, into: buffer)
            }
            if found == 0, !columns.isEmpty { missed.append(index) }
            rows += found
            if buffer.count > limit { return nil }
        }
        guard !missed.isEmpty else { return rows }
        guard let more = try findConverted(keys, missed, statement, into: buffer, limit: limit) else { return nil }
        return rows + more
    }

    /// Looks keys up in the column's own classes. Of two keys that then are one row's, and of a key that was found as it is,
    /// the row comes once. Nil once the buffer has more than `limit` bytes.
    private func findConverted(
        _ keys: [KeyImage], _ missed: [Int], _ statement: SQLiteStatement, into buffer: RecordBuffer, limit: Int
    ) throws(BridgeError) -> Int? {
        let hasClasses = columns.contains(where: \.hasClasses)
        var converted: [KeyImage] = []
        var seen: Set<KeyImage> = []
        for index in missed {
            guard let key = try convert(keys[index]), hasClasses || key != keys[index], seen.insert(key).inserted
            else { continue }
            converted.append(key)
        }
        guard !converted.isEmpty else { return 0 }
        let missed = Set(missed)
        for (index, key) in keys.enumerated() where !missed.contains(index) {
            if let key = try convert(key) { seen.remove(key) }
        }
        var rows = 0
        for key in converted where seen.contains(key) {
            rows += try key.withImage { image throws(BridgeError) in
                try find(image, isConverted: true, statement, into: buffer)
            }
            if buffer.count > limit { return nil }
        }
        return rows
    }

    /// The key as the columns hold it; nil if no row can have it.
    private func convert(_ key: KeyImage) throws(BridgeError) -> KeyImage? {
        try key.withImage { image throws(BridgeError) in
            scratch.removeAll()
            scratch.beginRowImage(columns: columns.count)
            var cells = image.cells
            for column in columns {
                guard let cell = try cells.next(), column.append(cell, to: scratch) else { return nil }
            }
            return KeyImage(Array(scratch.bytes))
        }
    }

    private func find(
        _ image: RowImage, isConverted: Bool, _ statement: SQLiteStatement, into buffer: RecordBuffer
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
            guard try hasKey(statement, image, isConverted: isConverted) else { continue }
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

    private func hasKey(_ row: SQLiteStatement, _ image: RowImage, isConverted: Bool) throws(BridgeError) -> Bool {
        var cells = image.cells
        for (number, place) in keyPlaces.enumerated() {
            guard let cell = try cells.next(),
                isConverted ? columns[number].holds(row, place, cell) : KeyColumn.isSame(row, place, cell)
            else { return false }
        }
        return true
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

import BridgeCore

/// Fetches the rows of one captured table by their logged keys.
final class TableFetch {
    let number: Int64
    let relation: Relation
    /// Whether the relation record has been written since the session began or the table changed.
    var isAnnounced = false

    private let select: SQLiteStatement
    private let nullProbe: SQLiteStatement?
    private let keyPlaces: [Int]
    private let columnCount: Int
    private let keyIsExact: Bool
    private let scratch = RecordBuffer(capacity: 256)
    private let tableName: String

    /// How many columns of a log row hold the key.
    var keyCount: Int { keyPlaces.count }

    enum Outcome {
        /// No row has the key now.
        case absent
        /// A row was written; its key is the logged one byte for byte.
        case present
        /// A row was written whose key equals the logged one by the key's collation or as a number, but is not the same.
        case presentUnderAnotherKey
        /// The logged key holds NULL and no row has it.
        case nothing
    }

    init(
        _ table: SQLiteTable, captured: CapturedTable, mapping: TableMapping, form: ValueForm,
        _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) {
        let columns = try TravelingColumns(table, types: captured.types, mapping: mapping)
        number = captured.number
        tableName = mapping.source.description
        keyPlaces = columns.keyPlaces
        columnCount = columns.places.count
        keyIsExact = table.keyIsRowid
        relation = Relation(
            id: UInt32(truncatingIfNeeded: captured.number), engine: .sqlite, form: form, name: mapping.source,
            identity: .key, columns: columns.columns)
        let matches = table.key.indices.map { "\(table.collatedKeyColumn($0)) = ?\($0 + 1)" }.joined(separator: " AND ")
        let filter = mapping.rowFilter.map { " AND (\($0))" } ?? ""
        select = try database.prepare("SELECT \(columns.list) \(columns.from) WHERE \(matches)\(filter)")
        let alias = quoteIdentifier(table.name)
        nullProbe =
            table.keyMayBeNull
            ? try database.prepare(
                "SELECT 1 \(columns.from) WHERE "
                    + table.key.indices.map { "\(alias).\(quoteIdentifier(table.columns[table.key[$0]].name)) IS ?\($0 + 1)" }
                    .joined(separator: " AND ") + " LIMIT 1") : nil
    }

    /// Looks up the key in the columns from `column` on of a log row, and writes an upsert record if a row is there.
    /// - Parameter key: the same key as a row image.
    /// - Throws: `sourceUnsupported` if a row has NULL in its key: nothing can tell it from others.
    func fetch(
        _ logRow: SQLiteStatement, column: Int, key: UnsafeRawBufferPointer, into buffer: RecordBuffer
    ) throws(BridgeError) -> Outcome {
        var hasNull = false
        for place in keyPlaces.indices {
            if logRow.storageClass(column + place) == .null { hasNull = true }
            try select.bind(place + 1, column: column + place, of: logRow)
        }
        if hasNull { return try probeNull(logRow, column: column) }
        defer { select.reset() }
        guard try select.step() else { return .absent }
        let start = buffer.beginRow(.upsert, relation: relation.id)
        buffer.beginRowImage(columns: columnCount)
        do throws(BridgeError) {
            for place in 0..<columnCount { try select.appendCell(place, to: buffer) }
        } catch { throw naming(error, isKey: false) }
        guard buffer.count - start <= Int(UInt32.max) else {
            throw BridgeError(.valueDoesNotFit, "a row is larger than 4 GB", context: [.init(.table, tableName)])
        }
        buffer.endRecord(start)
        return try hasSameKey(key) ? .present : .presentUnderAnotherKey
    }

    private func hasSameKey(_ key: UnsafeRawBufferPointer) throws(BridgeError) -> Bool {
        if keyIsExact { return true }
        scratch.removeAll()
        scratch.beginRowImage(columns: keyPlaces.count)
        for place in keyPlaces { try select.appendCell(place, to: scratch) }
        return ImageBytes(scratch.bytes) == key
    }

    private func probeNull(_ logRow: SQLiteStatement, column: Int) throws(BridgeError) -> Outcome {
        guard let nullProbe else { return .nothing }
        for place in keyPlaces.indices { try nullProbe.bind(place + 1, column: column + place, of: logRow) }
        defer { nullProbe.reset() }
        guard try nullProbe.step() else { return .nothing }
        throw BridgeError(
            .sourceUnsupported, "a row has NULL in its primary key, so it cannot be told from others",
            context: [.init(.table, tableName)],
            hint: "give the row a key or delete it, then run the command again; declare the key NOT NULL")
    }

    /// An error in reading a value, with the table's name and the column's.
    /// - Parameter isKey: it was read from the log, whose columns have names of their own.
    func naming(_ error: BridgeError, isKey: Bool) -> BridgeError {
        guard isKey else { return error.adding(.table, tableName) }
        let context = error.context.map { item in
            guard item.key == .column, let place = keyPlaces.indices.first(where: { item.value == "k\($0)" }) else {
                return item
            }
            return ErrorContext(.column, relation.columns[keyPlaces[place]].name)
        }
        return BridgeError(
            error.code, error.message, context: context + [.init(.table, tableName)], hint: error.specificHint,
            cause: error.cause)
    }

    /// Writes the remove record of a key.
    func appendRemove(_ key: UnsafeRawBufferPointer, to buffer: RecordBuffer) throws(BridgeError) {
        var reader = ByteReader(key)
        var cells = try RowImage(&reader).cells
        let start = buffer.beginRow(.remove, relation: relation.id)
        buffer.beginRowImage(columns: columnCount)
        // The key's columns stand among the others; few, so searching beats a table.
        var values: [Cell] = []
        values.reserveCapacity(keyPlaces.count)
        while let cell = try cells.next() { values.append(cell) }
        for place in 0..<columnCount {
            if let keyPlace = keyPlaces.firstIndex(of: place), keyPlace < values.count {
                let cell = values[keyPlace]
                if cell.tag.hasBytes { buffer.appendCell(cell.tag, cell.bytes) } else { buffer.appendCell(cell.tag) }
            } else {
                buffer.appendCell(.absent)
            }
        }
        buffer.endRecord(start)
    }
}

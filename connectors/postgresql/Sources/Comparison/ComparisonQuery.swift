import BridgeCore

/// The statements of a view. Each is a SELECT whose rows come by binary COPY.
///
/// The table stands in a query of its own under the alias `s`, and everything refers to `s."column"`: a column that is
/// called like its table, or like the alias, does no harm, and the row filter sees the names that its author saw.
struct ComparisonQuery {
    let table: ComparedTable
    let rowFilter: String?

    private var rows: String {
        let only = (table.isPartitioned ? "" : "ONLY ") + table.name.quoted
        return "(SELECT * FROM \(only)\(rowFilter.map { " WHERE (\($0))" } ?? "")) AS s"
    }

    // MARK: Rows

    private var cells: String { Self.cells(table.columns) }

    private static func cells(_ columns: [ComparedTable.Column]) -> String {
        columns.map { BinaryRows.expression($0.column, of: "s") }.joined(separator: ", ")
    }

    func select(where conditions: [String]) -> String { "SELECT \(cells) FROM \(rows)\(Self.clause(conditions))" }

    func select(keys: KeyList) -> String {
        "SELECT \(cells) FROM \(keys.isByRow ? hashed(rows) : rows) JOIN \(keys.sql) ON \(keys.condition)"
    }

    private static func clause(_ conditions: [String]) -> String {
        conditions.isEmpty ? "" : " WHERE " + conditions.joined(separator: " AND ")
    }

    // MARK: Hashes

    private var rowHash: String {
        RowHash(columns: table.columns).expression { table.columns[$0].reference }
    }

    private func bucket(_ buckets: Int) -> String {
        // Not with the seed of the row's hash, of which it may be the whole.
        let key = "pg_catalog.hash_record_extended(ROW(\(table.identity.map(\.exact).joined(separator: ", "))), 3)"
        return "((\(key) % \(buckets)) + \(buckets)) % \(buckets)"
    }

    /// Bucket, count and sum. The sum is of signed numbers and exact; its text is cut to 128 bits here.
    func digest(buckets: Int, where conditions: [String]) -> String {
        let bucket = buckets > 1 ? bucket(buckets) : "0"
        let grouping = buckets > 1 ? " GROUP BY 1" : ""
        return """
            SELECT \(bucket), pg_catalog.count(*), COALESCE(pg_catalog.sum(\(rowHash)), 0) \
            FROM \(rows)\(Self.clause(conditions))\(grouping)
            """
    }

    private var hashList: String {
        (table.identity.map { BinaryRows.expression($0.column, of: "s") } + [rowHash]).joined(separator: ", ")
    }

    func hashes(buckets: Int, wanted: Set<Int>, where conditions: [String]) -> String {
        var conditions = conditions
        if wanted.count < buckets {
            let list = wanted.sorted().map(String.init).joined(separator: ", ")
            conditions.append("\(bucket(buckets)) IN (\(list.isEmpty ? "NULL" : list))")
        }
        return "SELECT \(hashList) FROM \(rows)\(Self.clause(conditions))"
    }

    func hashes(keys: KeyList) -> String {
        "SELECT \(hashList) FROM \(keys.isByRow ? hashed(rows) : rows) JOIN \(keys.sql) ON \(keys.condition)"
    }

    /// What ``hashes(buckets:wanted:where:)`` gives.
    var hashColumns: [Relation.Column] {
        table.identity.map(\.column) + [Relation.Column(name: "hash", isKey: false, typeName: "bigint", type: .int64)]
    }

    /// The rows with their hash as `"bridge hash"`, for a lookup by the whole row: a hash join needs something to hash.
    private func hashed(_ rows: String) -> String {
        "(SELECT s.*, \(rowHash) AS \(KeyList.hashName) FROM \(rows)) AS s"
    }

    // MARK: Ranges

    /// Bounds on the first key column.
    func bounds(from: String?, to: String?) -> [String] {
        guard let key = table.keys.first else { return [] }
        var conditions: [String] = []
        if let from { conditions.append("\(key.reference) OPERATOR(pg_catalog.>=) \(from)") }
        if let to { conditions.append("\(key.reference) OPERATOR(pg_catalog.<) \(to)") }
        return conditions
    }

    /// The first key column of the row that `offset` rows lie before.
    func key(after offset: Int, where conditions: [String]) -> String {
        guard let key = table.keys.first else { return "" }
        return """
            SELECT \(BinaryRows.expression(key.column, of: "s")) FROM \(rows)\(Self.clause(conditions)) \
            ORDER BY \(key.reference) OFFSET \(offset) LIMIT 1
            """
    }

    /// The first key column's next value above one.
    func key(above value: String, where conditions: [String]) -> String {
        guard let key = table.keys.first else { return "" }
        return self.key(after: 0, where: conditions + ["\(key.reference) OPERATOR(pg_catalog.>) \(value)"])
    }
}

/// A list of keys as a table in SQL.
struct KeyList {
    static let hashName = "\"bridge hash\""

    /// Rows `k` with the columns c0, c1 …, each key once.
    let sql: String
    /// Which rows of `s` are meant.
    let condition: String
    /// Whether the whole row is the key.
    let isByRow: Bool
    let count: Int

    /// - Returns: nil if no key of these can be in the table, because a cell is not a value of its column's type.
    init?(_ keys: some Sequence<KeyImage>, _ table: ComparedTable) throws(BridgeError) {
        let columns = table.identity
        var arrays = columns.map { _ in SQLArray() }
        let value = RecordBuffer(capacity: 256)
        var hasNull = false
        var count = 0
        for key in keys {
            guard try Self.append(key, columns, &arrays, value, &hasNull) else { continue }
            count += 1
        }
        guard count > 0 else { return nil }
        self.count = count
        isByRow = table.keys.isEmpty
        let literals = arrays.map { "\($0.literal)::pg_catalog.text[]" }.joined(separator: ", ")
        let names = columns.indices.map { "c\($0)" }
        let casts = columns.enumerated().map { "(v.c\($0.offset))::\($0.element.castName) AS c\($0.offset)" }
        let cast = "(SELECT \(casts.joined(separator: ", ")) FROM ROWS FROM (unnest(\(literals))) "
            + "AS v(\(names.joined(separator: ", "))))"
        if isByRow {
            // By the exact forms, since `=` may hold for values that are not the same, or be lacking.
            let exact = columns.enumerated().map { $0.element.exact("w.c\($0.offset)") }
            let hash = RowHash(columns: columns).expression { "w.c\($0)" }
            sql = "(SELECT DISTINCT ON (\(exact.joined(separator: ", "))) w.*, \(hash) AS h FROM \(cast) AS w) AS k"
            let same = columns.enumerated().map { "\($0.element.exact) IS NOT DISTINCT FROM \($0.element.exact("k.c\($0.offset)"))" }
            condition = (["s.\(Self.hashName) = k.h"] + same).joined(separator: " AND ")
        } else {
            sql = "(SELECT DISTINCT w.* FROM \(cast) AS w) AS k"
            condition = columns.enumerated().map { index, column in
                let equal = "\(column.reference) OPERATOR(\(column.equality)) k.c\(index)"
                return hasNull && !column.isNotNull ? "(\(equal) OR \(column.reference) IS NULL AND k.c\(index) IS NULL)" : equal
            }.joined(separator: " AND ")
        }
    }

    /// - Returns: whether the key's values are ones of the columns' types.
    private static func append(
        _ key: KeyImage, _ columns: [ComparedTable.Column], _ arrays: inout [SQLArray], _ value: RecordBuffer,
        _ hasNull: inout Bool
    ) throws(BridgeError) -> Bool {
        var failure: BridgeError?
        let lengths = arrays.map(\.length)
        let isThere = key.bytes.withUnsafeBytes { bytes in
            do throws(BridgeError) {
                var reader = ByteReader(bytes)
                var cells = try RowImage(&reader).cells
                guard cells.remaining == columns.count, reader.isAtEnd else {
                    throw BridgeError(.internalFault, "a key has another number of columns than its table's")
                }
                for (index, column) in columns.enumerated() {
                    guard let cell = try cells.next() else { return false }
                    if cell.tag == .null {
                        hasNull = true
                        arrays[index].append(nil)
                        continue
                    }
                    value.removeAll()
                    do throws(CellRefusal) {
                        try CellEncoder.append(cell, as: column.type, style: .parameter, to: value)
                    } catch { return false }
                    arrays[index].append(value.bytes)
                }
                return true
            } catch {
                failure = error
                return false
            }
        }
        if let failure { throw failure }
        // What stands in the arrays of a key that was given up half-way.
        if !isThere { for index in arrays.indices { arrays[index].cut(to: lengths[index]) } }
        return isThere
    }
}

/// An array of texts as an SQL literal, made byte by byte: Swift's characters may hold a quote together with what follows
/// it.
struct SQLArray {
    private var bytes: [UInt8] = []
    var length: Int { bytes.count }

    mutating func cut(to length: Int) { bytes.removeLast(bytes.count - length) }

    mutating func append(_ element: UnsafeRawBufferPointer?) {
        if !bytes.isEmpty { bytes.append(UInt8(ascii: ",")) }
        guard let element else {
            bytes.append(contentsOf: "NULL".utf8)
            return
        }
        bytes.append(UInt8(ascii: "\""))
        for byte in element {
            if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { bytes.append(UInt8(ascii: "\\")) }
            if byte == UInt8(ascii: "'") { bytes.append(byte) }
            bytes.append(byte)
        }
        bytes.append(UInt8(ascii: "\""))
    }

    var literal: String { "'{" + String(decoding: bytes, as: UTF8.self) + "}'" }

    /// One value as a literal.
    static func literal(_ value: UnsafeRawBufferPointer) -> String {
        var bytes: [UInt8] = [UInt8(ascii: "'")]
        for byte in value {
            if byte == UInt8(ascii: "'") { bytes.append(byte) }
            bytes.append(byte)
        }
        bytes.append(UInt8(ascii: "'"))
        return String(decoding: bytes, as: UTF8.self)
    }
}

import BridgeCore

/// An order of a key's first column that other databases share.
///
/// SQLite orders values of all classes: NULL, numbers, text, blobs. A column seldom excludes all classes but one, and it need
/// not: bounds are of the order's own class only, every value stands on one side of such a bound, and values of the order's
/// class stand on the side on which every other database has them. A row that another database has as well holds a value of
/// that class, or is in another SQLite file, where the same order of all classes holds.
///
/// The collation of the column matters to `utf8` only: integers are compared as numbers under any.
enum SharedKeyOrder: String {
    case integer, utf8, bytes

    /// The order of a column; nil where there is none, or no index that ranges could be read along.
    init?(_ table: SQLiteTable, column place: Int, encoding: String) {
        let column = table.columns[place]
        if table.keyIsRowid, table.key == [place] {
            self = .integer
            return
        }
        guard column.kind == .ordinary,
            table.indexes.contains(where: { index in
                guard index.predicate == nil, let first = index.parts.first else { return false }
                return first.column == place && first.collation == column.collation
            })
        else { return nil }
        switch column.affinity {
        // A bound is not converted by the column's affinity: it is what the affinity would make of it.
        case .integer: self = .integer
        // UTF-16 is compared by its own bytes, in which characters beyond the first plane stand before others.
        case .text where column.collation == "BINARY" && encoding == "UTF-8": self = .utf8
        case .blob where column.declaredType.uppercased().contains("BLOB"): self = .bytes
        default: return nil
        }
    }

    /// The class of bounds.
    var storageClass: StorageClass {
        switch self {
        case .integer: .integer
        case .utf8: .text
        case .bytes: .blob
        }
    }

    /// The least value of the class.
    var least: KeyImage {
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        return KeyImage(columns: 1) { cells in
            switch self {
            case .integer: cells.appendCell(integer: .min)
            case .utf8: cells.appendCell(.string, nothing)
            case .bytes: cells.appendCell(.blob, nothing)
            }
        }
    }

    func accepts(_ tag: CellTag) -> Bool {
        switch self {
        case .integer: tag == .integer
        case .utf8: tag == .string || tag == .text
        case .bytes: tag == .blob
        }
    }
}

extension KeyImage {
    /// Makes an image out of the cells that `body` appends.
    init(columns: Int, _ body: (RecordBuffer) throws(BridgeError) -> Void) throws(BridgeError) {
        let buffer = RecordBuffer(capacity: 64)
        buffer.beginRowImage(columns: columns)
        try body(buffer)
        self.init(withExtendedLifetime(buffer) { Array(buffer.bytes) })
    }

    init(columns: Int, _ body: (RecordBuffer) -> Void) {
        let buffer = RecordBuffer(capacity: 64)
        buffer.beginRowImage(columns: columns)
        body(buffer)
        self.init(withExtendedLifetime(buffer) { Array(buffer.bytes) })
    }

    /// Reads the image in place.
    func withImage<Result>(
        _ body: (RowImage) throws(BridgeError) -> Result
    ) throws(BridgeError) -> Result {
        let outcome: Swift.Result<Result, BridgeError> = bytes.withUnsafeBytes { bytes in
            do throws(BridgeError) {
                var reader = ByteReader(bytes)
                return .success(try body(RowImage(&reader)))
            } catch { return .failure(error) }
        }
        return try outcome.get()
    }
}

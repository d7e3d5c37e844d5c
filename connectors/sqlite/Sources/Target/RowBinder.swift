import BridgeCore
import CSQLite

/// Binds the cells of row images to statement parameters in place: SQLite reads the batch's own bytes.
///
/// Bytes are bound without a copy, so a statement that was bound must be stepped before the bytes go away, and bound
/// anew before it is stepped again.
struct RowBinder {
    private let plan: RelationPlan
    private let columns: [RelationPlan.Column]

    init(_ plan: RelationPlan) {
        self.plan = plan
        columns = plan.columns
    }

    /// What a row image that was bound held.
    enum Contents {
        /// Every carried column has a value.
        case whole
        /// Some columns keep their stored value.
        case partly
    }

    /// Binds the new values of all carried columns. Of a `partly` row nothing but the values that are there is bound.
    @inline(__always)
    func bindNew(_ image: RowImage, to statement: SQLiteStatement) throws(BridgeError) -> Contents {
        try check(image)
        let handle = statement.handle
        var cells = image.cells
        var contents = Contents.whole
        for index in columns.indices {
            guard let cell = try cells.next() else { throw BridgeError.malformedRecord(at: 0) }
            let column = columns[index]
            guard column.parameter > 0 else { continue }
            if cell.tag == .unchanged {
                contents = .partly
                continue
            }
            try bind(cell, column, at: column.parameter, handle, index)
        }
        return contents
    }

    /// The carried columns of an update that keep their stored value.
    func unchanged(_ image: RowImage) throws(BridgeError) -> ColumnSet {
        try check(image)
        var set = ColumnSet()
        var cells = image.cells
        for column in columns {
            guard let cell = try cells.next() else { throw BridgeError.malformedRecord(at: 0) }
            if column.parameter > 0, cell.tag == .unchanged { set.insert(column.number) }
        }
        return set
    }

    /// Binds the key's columns as old values, from an old row, a key or a new row whose key did not change.
    @inline(__always)
    func bindKey(_ image: RowImage, to statement: SQLiteStatement) throws(BridgeError) {
        try check(image)
        let handle = statement.handle
        var cells = image.cells
        for index in columns.indices {
            guard let cell = try cells.next() else { throw BridgeError.malformedRecord(at: 0) }
            let column = columns[index]
            guard column.isKey else { continue }
            guard cell.tag != .null else { throw missing(index, "a key column is NULL, which names no row") }
            try bind(cell, column, at: column.oldParameter, handle, index)
        }
    }

    /// Binds all carried columns as old values.
    func bindOldRow(_ image: RowImage, to statement: SQLiteStatement) throws(BridgeError) {
        try check(image)
        var cells = image.cells
        for index in columns.indices {
            guard let cell = try cells.next() else { throw BridgeError.malformedRecord(at: 0) }
            let column = columns[index]
            guard column.parameter > 0 else { continue }
            try bind(cell, column, at: column.oldParameter, statement.handle, index)
        }
    }

    /// Whether two images have the same bytes in every key column.
    func haveSameKey(_ a: RowImage, _ b: RowImage) throws(BridgeError) -> Bool {
        var first = a.cells
        var second = b.cells
        for column in columns {
            guard let one = try first.next(), let other = try second.next() else {
                throw BridgeError.malformedRecord(at: 0)
            }
            guard column.isKey, other.tag != .unchanged else { continue }
            guard one.tag == other.tag, one.bytes.elementsEqual(other.bytes) else { return false }
        }
        return true
    }

    // MARK: Details

    @inline(__always)
    private func check(_ image: RowImage) throws(BridgeError) {
        guard image.columnCount == columns.count else {
            throw BridgeError(
                .recordMalformed, "a row has another number of columns than its relation", context: plan.tableContext)
        }
    }

    @inline(__always)
    private func bind(
        _ cell: Cell, _ column: RelationPlan.Column, at parameter: Int32, _ statement: OpaquePointer, _ index: Int
    ) throws(BridgeError) {
        let result: Int32
        switch cell.tag {
        case .integer:
            guard column.rule.accepted.contains(.integer) else { throw unfit(index, "an integer") }
            guard let value = cell.integer else { throw BridgeError.malformedRecord(at: 0) }
            result = sqlite3_bind_int64(statement, parameter, value)
        case .string:
            guard column.rule.accepted.contains(.string) else { throw unfit(index, "text") }
            if _slowPath(column.rule.text != .asItStands), let done = try bind(number: cell, column, at: parameter, statement, index) {
                result = done
                break
            }
            // A buffer without bytes may have no address, and a null pointer would bind NULL.
            let start = cell.bytes.baseAddress ?? Self.nowhere
            result = sqlite3_bind_text64(
                statement, parameter, start.assumingMemoryBound(to: CChar.self), UInt64(cell.bytes.count), nil,
                UInt8(SQLITE_UTF8))
        case .null:
            guard column.rule.accepted.contains(.null) else { throw unfit(index, "NULL") }
            result = sqlite3_bind_null(statement, parameter)
        case .real:
            guard column.rule.accepted.contains(.real) else { throw unfit(index, "a floating-point number") }
            guard let value = cell.real else { throw BridgeError.malformedRecord(at: 0) }
            // SQLite stores NaN as NULL, and in most columns -0.0 as 0, without a word.
            guard !value.isNaN else { throw unfit(index, "NaN") }
            guard value != 0 || value.sign == .plus || column.rule.keepsNegativeZero else {
                throw unfit(index, "a negative zero")
            }
            result = sqlite3_bind_double(statement, parameter, value)
        case .blob:
            guard column.rule.accepted.contains(.blob) else { throw unfit(index, "a blob") }
            result = sqlite3_bind_blob64(
                statement, parameter, cell.bytes.baseAddress ?? Self.nowhere, UInt64(cell.bytes.count), nil)
        case .unchanged: throw missing(index, "the source did not send a value that is needed")
        case .absent: throw missing(index, "a value that is needed is not part of the change")
        case .text:
            throw BridgeError(
                .internalFault, "a value in another engine's own text reached SQLite", context: context(index))
        }
        guard result == SQLITE_OK else {
            throw BridgeError(
                result == SQLITE_TOOBIG ? .valueDoesNotFit : .internalFault, "a value cannot be bound",
                context: context(index) + [.init(.sqlstate, "SQLITE \(result)")])
        }
    }

    /// Binds the number that a text stands for in a column that holds numbers; nil if it is stored as text.
    private func bind(
        number cell: Cell, _ column: RelationPlan.Column, at parameter: Int32, _ statement: OpaquePointer, _ index: Int
    ) throws(BridgeError) -> Int32? {
        switch column.rule.text {
        case .asItStands: return nil
        case .unlessNumber:
            guard !NumericText.isNumber(cell.bytes) else { throw unfit(index, "text that SQLite would store as a number") }
            return nil
        case .decimal(let rule):
            switch rule.number(cell.bytes) {
            case .integer(let value): return sqlite3_bind_int64(statement, parameter, value)
            case .real(let value): return sqlite3_bind_double(statement, parameter, value)
            case .text: return nil
            case nil: throw unfit(index, "a decimal that no integer and no double stands for")
            }
        }
    }

    /// An address that is not null and that nothing is read from.
    nonisolated(unsafe) private static let nowhere = UnsafeRawPointer(
        UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1))

    private func context(_ index: Int) -> [ErrorContext] {
        plan.tableContext + [.init(.column, plan.relation.columns[index].name)]
    }

    private func unfit(_ index: Int, _ what: String) -> BridgeError {
        BridgeError(
            .valueDoesNotFit, "\(what) came for a column that cannot hold it unchanged", context: context(index))
    }

    private func missing(_ index: Int, _ what: String) -> BridgeError {
        BridgeError(.valueMissing, what, context: context(index))
    }
}

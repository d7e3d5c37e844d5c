package import BridgeCore
import CSQLite

/// The storage class of one value.
package enum StorageClass: Int32, Hashable, Sendable {
    case integer = 1
    case real = 2
    case text = 3
    case blob = 4
    case null = 5
}

/// A compiled statement, confined to the actor or thread that has its database. Parameters count from 1, columns from 0,
/// as in SQLite.
///
/// Bytes that a column method returns are valid until the next step, reset or type conversion of the same column.
package final class SQLiteStatement {
    /// For calls that this class has no method for.
    package let handle: OpaquePointer
    private let path: String
    /// Whether the database keeps text in UTF-16; nil until the first text is read.
    private var isWide: Bool?

    fileprivate init(handle: OpaquePointer, path: String) {
        self.handle = handle
        self.path = path
    }

    package convenience init(_ handle: OpaquePointer, path: String) { self.init(handle: handle, path: path) }

    deinit { sqlite3_finalize(handle) }

    // MARK: Running

    /// Advances to the next row; false behind the last one. The statement resets itself after an error.
    @inline(__always)
    package func step() throws(BridgeError) -> Bool {
        let result = sqlite3_step(handle)
        if result == SQLITE_ROW { return true }
        if result == SQLITE_DONE { return false }
        throw failure(result)
    }

    /// Runs a statement that returns no rows, then resets it.
    @inline(__always)
    package func run() throws(BridgeError) {
        let result = sqlite3_step(handle)
        guard result == SQLITE_DONE || result == SQLITE_ROW else { throw failure(result) }
        sqlite3_reset(handle)
    }

    /// Makes the statement ready to run again. Bound values stay.
    @inline(__always) package func reset() { sqlite3_reset(handle) }

    /// Sets all parameters to NULL, which lets go of bytes bound without a copy.
    @inline(__always) package func clearBindings() { sqlite3_clear_bindings(handle) }

    private func failure(_ result: Int32) -> BridgeError {
        let error = BridgeError.sqlite(result, sqlite3_db_handle(handle), path: path, doing: "a statement failed")
        sqlite3_reset(handle)
        return error
    }

    // MARK: Parameters

    package var parameterCount: Int { Int(sqlite3_bind_parameter_count(handle)) }

    @inline(__always)
    package func bind(_ index: Int, integer: Int64) throws(BridgeError) {
        try checkBinding(sqlite3_bind_int64(handle, Int32(truncatingIfNeeded: index), integer))
    }

    /// Binds a double.
    /// - Throws: `valueDoesNotFit` for NaN, which SQLite would store as NULL without a word.
    @inline(__always)
    package func bind(_ index: Int, real: Double) throws(BridgeError) {
        guard !real.isNaN else {
            throw BridgeError(.valueDoesNotFit, "SQLite cannot store a float that is not a number")
        }
        try checkBinding(sqlite3_bind_double(handle, Int32(truncatingIfNeeded: index), real))
    }

    @inline(__always)
    package func bindNull(_ index: Int) throws(BridgeError) {
        try checkBinding(sqlite3_bind_null(handle, Int32(truncatingIfNeeded: index)))
    }

    /// Binds bytes as text, as they are.
    /// - Parameter copying: false if the caller keeps the bytes alive until they are bound over, cleared, or the
    ///   statement is finalized.
    @inline(__always)
    package func bind(_ index: Int, text: UnsafeRawBufferPointer, copying: Bool = true) throws(BridgeError) {
        // A null pointer would bind NULL, and an empty buffer may have one.
        let start = text.baseAddress.map { $0.assumingMemoryBound(to: CChar.self) } ?? Self.empty
        try checkBinding(
            sqlite3_bind_text64(
                handle, Int32(truncatingIfNeeded: index), start, UInt64(text.count),
                copying ? bridge_sqlite_transient() : nil, UInt8(SQLITE_UTF8)))
    }

    /// Binds bytes as a blob; `copying` as for text.
    @inline(__always)
    package func bind(_ index: Int, blob: UnsafeRawBufferPointer, copying: Bool = true) throws(BridgeError) {
        let start = blob.baseAddress ?? UnsafeRawPointer(Self.empty)
        try checkBinding(
            sqlite3_bind_blob64(
                handle, Int32(truncatingIfNeeded: index), start, UInt64(blob.count),
                copying ? bridge_sqlite_transient() : nil))
    }

    /// Binds a value of another statement's current row as it is, without looking at it.
    @inline(__always)
    package func bind(_ index: Int, column: Int, of other: SQLiteStatement) throws(BridgeError) {
        try checkBinding(
            sqlite3_bind_value(
                handle, Int32(truncatingIfNeeded: index),
                sqlite3_column_value(other.handle, Int32(truncatingIfNeeded: column))))
    }

    /// Binds a name or another string of the tool's own; nil binds NULL.
    package func bind(_ index: Int, string: String?) throws(BridgeError) {
        guard var string else { return try bindNull(index) }
        var outcome: BridgeError?
        string.withUTF8 { bytes in
            do throws(BridgeError) { try bind(index, text: UnsafeRawBufferPointer(bytes)) } catch { outcome = error }
        }
        if let outcome { throw outcome }
    }

    /// Binds a canonical cell with the storage class that it names. A native `text` cell binds as text.
    /// - Throws: `valueDoesNotFit` for NaN; `recordMalformed` for a cell without a value.
    @inline(__always)
    package func bind(_ index: Int, cell: Cell, copying: Bool = true) throws(BridgeError) {
        switch cell.tag {
        case .null: try bindNull(index)
        case .integer:
            guard let value = cell.integer else { throw Self.malformed() }
            try bind(index, integer: value)
        case .real:
            guard let value = cell.real else { throw Self.malformed() }
            try bind(index, real: value)
        case .string, .text: try bind(index, text: cell.bytes, copying: copying)
        case .blob: try bind(index, blob: cell.bytes, copying: copying)
        case .unchanged, .absent: throw Self.malformed()
        }
    }

    // MARK: Columns

    package var columnCount: Int { Int(sqlite3_column_count(handle)) }

    package func columnName(_ index: Int) -> String {
        sqlite3_column_name(handle, Int32(truncatingIfNeeded: index)).map { String(cString: $0) } ?? ""
    }

    @inline(__always)
    package func storageClass(_ column: Int) -> StorageClass {
        StorageClass(rawValue: sqlite3_column_type(handle, Int32(truncatingIfNeeded: column))) ?? .null
    }

    @inline(__always)
    package func integer(_ column: Int) -> Int64 { sqlite3_column_int64(handle, Int32(truncatingIfNeeded: column)) }

    @inline(__always)
    package func real(_ column: Int) -> Double { sqlite3_column_double(handle, Int32(truncatingIfNeeded: column)) }

    /// The bytes of a text column in UTF-8 (whatever the database's encoding is) or of a blob. Meant for those two
    /// classes: another class would be converted.
    @inline(__always)
    package func bytes(_ column: Int) -> UnsafeRawBufferPointer {
        let column = Int32(truncatingIfNeeded: column)
        // Text first: sqlite3_column_bytes counts the bytes of the form that was asked for last.
        let start: UnsafeRawPointer? =
            sqlite3_column_type(handle, column) == SQLITE_TEXT
            ? sqlite3_column_text(handle, column).map { UnsafeRawPointer($0) } : sqlite3_column_blob(handle, column)
        return UnsafeRawBufferPointer(start: start, count: start == nil ? 0 : Int(sqlite3_column_bytes(handle, column)))
    }

    /// A text column as a string, nil for NULL. Not for row data.
    package func string(_ column: Int) -> String? {
        guard let text = sqlite3_column_text(handle, Int32(truncatingIfNeeded: column)) else { return nil }
        let count = Int(sqlite3_column_bytes(handle, Int32(truncatingIfNeeded: column)))
        return String(decoding: UnsafeRawBufferPointer(start: text, count: count), as: UTF8.self)
    }

    /// Appends a column's value as a canonical cell, exactly as it is stored.
    @inline(__always)
    package func appendCell(_ column: Int, to buffer: RecordBuffer) throws(BridgeError) {
        switch storageClass(column) {
        case .integer: buffer.appendCell(integer: integer(column))
        case .real: buffer.appendCell(real: real(column))
        case .null: buffer.appendCell(.null)
        case .text:
            try checkText(column)
            buffer.appendCell(.string, try wholeBytes(column))
        case .blob: buffer.appendCell(.blob, try wholeBytes(column))
        }
    }

    /// Refuses text that UTF-8 has no form for. SQLite would make another text of half a surrogate pair, or lose a byte.
    @inline(__always)
    private func checkText(_ column: Int) throws(BridgeError) {
        if isWide == nil { isWide = readsWideText() }
        if isWide == true { try checkWideText(column) }
    }

    private func readsWideText() -> Bool {
        var question: OpaquePointer?
        defer { sqlite3_finalize(question) }
        guard sqlite3_prepare_v2(sqlite3_db_handle(handle), "PRAGMA encoding", -1, &question, nil) == SQLITE_OK,
            sqlite3_step(question) == SQLITE_ROW, let name = sqlite3_column_text(question, 0)
        else { return false }
        return String(cString: name) != "UTF-8"
    }

    private func checkWideText(_ column: Int) throws(BridgeError) {
        let place = Int32(truncatingIfNeeded: column)
        // Before anything else has turned the value into another form. The count is of bytes.
        let text = sqlite3_column_text16(handle, place)
        let count = Int(sqlite3_column_bytes16(handle, place))
        let units = UnsafeRawBufferPointer(start: text, count: text == nil ? 0 : count)
        var isHalf = count % 2 != 0
        var awaitsLow = false
        for offset in stride(from: 0, to: units.count - 1, by: 2) where !isHalf {
            let unit = units.loadUnaligned(fromByteOffset: offset, as: UInt16.self)
            let isLow = unit & 0xFC00 == 0xDC00
            isHalf = isLow != awaitsLow
            awaitsLow = unit & 0xFC00 == 0xD800
        }
        guard isHalf || awaitsLow else { return }
        throw BridgeError(
            .sourceUnsupported, "a text is not valid UTF-16, so that it has no form that could be kept",
            context: [.init(.column, columnName(column))],
            hint: "mend the value in the source, then run the command again")
    }

    /// The bytes, or an error where SQLite had no memory for them: it would look like an empty value.
    @inline(__always)
    private func wholeBytes(_ column: Int) throws(BridgeError) -> UnsafeRawBufferPointer {
        let bytes = bytes(column)
        if bytes.count == 0, sqlite3_errcode(sqlite3_db_handle(handle)) == SQLITE_NOMEM {
            throw failure(SQLITE_NOMEM)
        }
        return bytes
    }

    // MARK: Details

    nonisolated(unsafe) private static let empty: UnsafePointer<CChar> = {
        let byte = UnsafeMutablePointer<CChar>.allocate(capacity: 1)
        byte.initialize(to: 0)
        return UnsafePointer(byte)
    }()

    @inline(__always)
    private func checkBinding(_ result: Int32) throws(BridgeError) {
        guard result == SQLITE_OK else {
            throw BridgeError.sqlite(result, sqlite3_db_handle(handle), path: path, doing: "a value cannot be bound")
        }
    }

    private static func malformed() -> BridgeError {
        BridgeError(.recordMalformed, "a cell without a value stands where a value is needed")
    }
}

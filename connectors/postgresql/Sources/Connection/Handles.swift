import CLibPQ

/// Owns a libpq connection.
package struct PGConnectionHandle: ~Copyable {
    package let pointer: OpaquePointer

    package init(owning pointer: OpaquePointer) { self.pointer = pointer }

    deinit { PQfinish(pointer) }
}

/// Owns what is needed to cancel a connection's statement. May be used from any thread.
struct PGCancelHandle: ~Copyable, @unchecked Sendable {
    let pointer: OpaquePointer

    init?(_ connection: OpaquePointer) {
        guard let pointer = PQgetCancel(connection) else { return nil }
        self.pointer = pointer
    }

    deinit { PQfreeCancel(pointer) }

    /// Asks the server to stop what the connection is doing. The answer comes as that statement's error.
    func cancel() {
        var message = [CChar](repeating: 0, count: 256)
        _ = PQcancel(pointer, &message, Int32(message.count))
    }
}

/// Owns a statement's result.
package struct PGResult: ~Copyable {
    package let pointer: OpaquePointer

    package init(owning pointer: OpaquePointer) { self.pointer = pointer }

    deinit { PQclear(pointer) }

    package var rowCount: Int { Int(PQntuples(pointer)) }
    package var columnCount: Int { Int(PQnfields(pointer)) }

    /// How many rows the statement changed or copied; 0 for statements that count none.
    package var affectedRows: Int64 { Int64(String(cString: PQcmdTuples(pointer))) ?? 0 }

    package func columnName(_ column: Int) -> String {
        PQfname(pointer, Int32(clamping: column)).map { String(cString: $0) } ?? ""
    }

    /// The OID of a column's type.
    package func columnType(_ column: Int) -> UInt32 { PQftype(pointer, Int32(clamping: column)) }

    /// The value's bytes, in the format that was asked for; nil for NULL and outside the result. Valid as long as the
    /// result.
    package func bytes(_ row: Int, _ column: Int) -> UnsafeRawBufferPointer? {
        guard row >= 0, row < rowCount, column >= 0, column < columnCount,
            PQgetisnull(pointer, Int32(row), Int32(column)) == 0,
            let start = PQgetvalue(pointer, Int32(row), Int32(column))
        else { return nil }
        return UnsafeRawBufferPointer(start: start, count: Int(PQgetlength(pointer, Int32(row), Int32(column))))
    }

    /// The value as text, for names and settings; nil for NULL. Not for row data.
    package func text(_ row: Int, _ column: Int) -> String? {
        bytes(row, column).map { String(decoding: $0, as: UTF8.self) }
    }

    /// The value as a number; nil for NULL and for anything else.
    package func integer(_ row: Int, _ column: Int) -> Int64? { text(row, column).flatMap { Int64($0) } }

    /// All rows as text.
    package func allText() -> [[String?]] {
        let columns = columnCount
        return (0..<rowCount).map { row in (0..<columns).map { text(row, $0) } }
    }

    var status: ExecStatusType { PQresultStatus(pointer) }

    /// A field of an error report.
    func errorField(_ field: ErrorField) -> String? {
        PQresultErrorField(pointer, Int32(field.rawValue)).map { String(cString: $0) }
    }

    /// The fields of the protocol's error report that are used; DETAIL, CONTEXT and QUERY hold row values and are not.
    enum ErrorField: UInt8 {
        case sqlState = 0x43  // C
        case primary = 0x4D  // M
        case schema = 0x73  // s
        case table = 0x74  // t
        case column = 0x63  // c
        case constraint = 0x6E  // n
        case sourceFunction = 0x52  // R
    }
}

/// Owns one message of a COPY stream, and is used again for the next.
package struct PGCopyData: ~Copyable {
    private var start: UnsafeMutablePointer<CChar>?
    private var length = 0

    package init() {}

    deinit { PQfreemem(start) }

    /// Valid until the next message.
    @inline(__always)
    package var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: start, count: length) }

    /// Takes the next message that libpq has received.
    /// - Returns: its length; 0 if none is there yet, -1 at the end of the stream, -2 after an error.
    @inline(__always)
    mutating func receive(from connection: OpaquePointer) -> Int {
        if start != nil {
            PQfreemem(start)
            start = nil
            length = 0
        }
        let result = Int(PQgetCopyData(connection, &start, 1))
        length = max(0, result)
        return result
    }
}

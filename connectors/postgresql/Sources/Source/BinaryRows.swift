import BridgeCore

/// Reads the binary COPY stream (PostgreSQL's manual, COPY, "Binary Format"): a header, tuples, a trailer. The server
/// sends the header together with what follows it, one tuple a message, and the trailer last.
struct BinaryRows: Sendable {
    private let readers: [BinaryValue]
    /// Whether the stream's header has been taken.
    private(set) var hasHeader = false

    init(_ columns: [Relation.Column]) { readers = columns.map { BinaryValue($0.type) } }

    /// How a column is selected so that its binary form is one that ``BinaryValue`` reads.
    /// - Parameter alias: the table's name in the query, for a query of several.
    static func expression(_ column: Relation.Column, of alias: String? = nil) -> String {
        let name = (alias.map { $0 + "." } ?? "") + quoteIdentifier(column.name)
        guard BinaryValue(column.type) == .text || BinaryValue(column.type) == .timestampText else { return name }
        // format('%s') runs the type's output function, which is what the change stream has; a cast to text differs
        // from it for some types, such as inet.
        // IS NOT NULL is false for a composite value with a field that is NULL.
        return "CASE WHEN \(name) IS DISTINCT FROM NULL THEN format('%s', \(name)) END"
    }

    /// Takes one message.
    /// - Parameter asRows: appends a length and a canonical row image; otherwise the bytes as they came.
    /// - Returns: whether it held a row.
    mutating func take(
        _ message: UnsafeRawBufferPointer, asRows: Bool, into buffer: RecordBuffer
    ) throws(BridgeError) -> Bool {
        var reader = MessageReader(message)
        if !hasHeader {
            // Signature, flags, length of the extension.
            _ = try reader.bytes(11)
            _ = try reader.integer(UInt32.self)
            _ = try reader.bytes(Int(try reader.integer(UInt32.self)))
            hasHeader = true
        }
        // The header may come alone.
        let fields = reader.isAtEnd ? -1 : try reader.integer(Int16.self)
        guard asRows else {
            buffer.append(message)
            return fields >= 0
        }
        guard fields >= 0 else { return false }
        guard Int(fields) == readers.count else { throw BridgeError.malformedStream("a copied row has another number of columns") }
        let start = buffer.count
        buffer.append(bigEndian: UInt32(0))
        buffer.beginRowImage(columns: readers.count)
        for value in readers {
            let length = try reader.integer(Int32.self)
            if length < 0 {
                buffer.appendCell(.null)
            } else {
                try value.append(try reader.bytes(Int(length)), to: buffer)
            }
        }
        buffer.patch(bigEndian: UInt32(truncatingIfNeeded: buffer.count - start - 4), at: start)
        return true
    }
}

/// A binary value of COPY as a canonical cell.
enum BinaryValue: Sendable {
    case boolean, integer, real, blob, raw, text, timestampText

    init(_ type: LogicalType) {
        switch type {
        case .boolean: self = .boolean
        case .int16, .int32, .int64: self = .integer
        case .float32, .float64: self = .real
        case .bytes: self = .blob
        // Their binary form is their text, the blanks of character(n) included.
        case .text, .varchar, .character, .json: self = .raw
        case .timestampWithTimeZone: self = .timestampText
        default: self = .text
        }
    }

    @inline(__always)
    func append(_ bytes: UnsafeRawBufferPointer, to buffer: RecordBuffer) throws(BridgeError) {
        switch self {
        case .raw, .text: buffer.appendCell(.string, bytes)
        case .blob: buffer.appendCell(.blob, bytes)
        case .timestampText: try appendCanonicalCell(bytes, .timestampWithTimeZone, to: buffer)
        case .boolean:
            guard bytes.count == 1 else { throw BridgeError.malformedStream("a malformed boolean") }
            buffer.appendCell(integer: bytes[0] == 0 ? 0 : 1)
        case .integer:
            switch bytes.count {
            case 2: buffer.appendCell(integer: Int64(Int16(bigEndian: bytes.loadUnaligned(as: Int16.self))))
            case 4: buffer.appendCell(integer: Int64(Int32(bigEndian: bytes.loadUnaligned(as: Int32.self))))
            case 8: buffer.appendCell(integer: Int64(bigEndian: bytes.loadUnaligned(as: Int64.self)))
            default: throw BridgeError.malformedStream("a malformed integer")
            }
        case .real:
            let value: Double
            switch bytes.count {
            case 4: value = Double(Float(bitPattern: UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))))
            case 8: value = Double(bitPattern: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)))
            default: throw BridgeError.malformedStream("a malformed number")
            }
            buffer.appendCell(real: value.isNaN ? .nan : value)
        }
    }
}

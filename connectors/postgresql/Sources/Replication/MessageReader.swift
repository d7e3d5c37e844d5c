import BridgeCore

/// Reads the fields of a pgoutput message; whatever does not fit is `streamMalformed`.
struct MessageReader {
    private var reader: ByteReader

    @inline(__always)
    init(_ bytes: UnsafeRawBufferPointer) { reader = ByteReader(bytes) }

    @inline(__always) var isAtEnd: Bool { reader.isAtEnd }
    @inline(__always) var offset: Int { reader.offset }

    @inline(__always)
    mutating func byte() throws(BridgeError) -> UInt8 {
        do throws(ByteReader.Truncated) { return try reader.readByte() } catch { throw Self.cutOff(at: error.offset) }
    }

    @inline(__always)
    mutating func integer<Value: FixedWidthInteger>(_ type: Value.Type = Value.self) throws(BridgeError) -> Value {
        do throws(ByteReader.Truncated) { return try reader.readInteger(type) } catch { throw Self.cutOff(at: error.offset) }
    }

    @inline(__always)
    mutating func bytes(_ count: Int) throws(BridgeError) -> UnsafeRawBufferPointer {
        do throws(ByteReader.Truncated) { return try reader.readBytes(count) } catch { throw Self.cutOff(at: error.offset) }
    }

    mutating func skipRest() { reader = ByteReader(reader.bytes, offset: reader.bytes.count) }

    mutating func name() throws(BridgeError) -> String {
        do throws(ByteReader.Truncated) { return try reader.readZeroTerminatedString() } catch { throw Self.cutOff(at: error.offset) }
    }

    /// Takes a whole tuple, checking every tag and length and that it has the relation's number of columns. What it
    /// gives has the layout of a row image: a 16-bit count, then the cells.
    @inline(__always)
    mutating func tuple(columns: Int) throws(BridgeError) -> UnsafeRawBufferPointer {
        let all = reader.bytes
        var offset = reader.offset
        let end = all.count
        guard offset + 2 <= end, Int(UInt16(bigEndian: all.loadUnaligned(fromByteOffset: offset, as: UInt16.self))) == columns
        else { throw BridgeError.malformedStream("a row has another number of columns than its table") }
        offset += 2
        for _ in 0..<columns {
            guard offset < end else { throw Self.cutOff(at: offset) }
            switch all[offset] {
            case CellTag.text.rawValue:
                guard offset + 5 <= end else { throw Self.cutOff(at: offset) }
                let length = Int(UInt32(bigEndian: all.loadUnaligned(fromByteOffset: offset + 1, as: UInt32.self)))
                guard length <= end - offset - 5 else { throw Self.cutOff(at: offset) }
                offset += 5 + length
            case CellTag.null.rawValue, CellTag.unchanged.rawValue: offset += 1
            default: throw BridgeError.malformedStream("an unknown kind of value")
            }
        }
        return try bytes(offset - reader.offset)
    }

    @inline(never)
    private static func cutOff(at offset: Int) -> BridgeError {
        BridgeError.malformedStream("a message ends early at byte \(offset)")
    }
}

/// Builds one line of JSON as UTF-8 bytes.
package struct JSONLine {
    package private(set) var bytes: [UInt8] = []
    package init() {}

    /// Whether the next key or element stands behind another one.
    private var needsComma = false

    private static let digits: [UInt8] = Array("0123456789abcdef".utf8)
    private static let base64: [UInt8] = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    /// The line. Bytes that are no UTF-8 become the replacement character.
    package var text: String { String(decoding: bytes, as: UTF8.self) }

    package mutating func removeAll() {
        bytes.removeAll(keepingCapacity: bytes.capacity <= 1 << 20)
        needsComma = false
    }

    package mutating func beginObject() { begin(UInt8(ascii: "{")) }
    package mutating func endObject() { end(UInt8(ascii: "}")) }
    package mutating func beginArray() { begin(UInt8(ascii: "[")) }
    package mutating func endArray() { end(UInt8(ascii: "]")) }

    package mutating func key(_ name: String) {
        string(name)
        bytes.append(UInt8(ascii: ":"))
        needsComma = false
    }

    package mutating func string(_ text: String) {
        var text = text
        text.withUTF8 { string(UnsafeRawBufferPointer($0)) }
    }

    package mutating func string(_ utf8: UnsafeRawBufferPointer) {
        separate()
        bytes.append(UInt8(ascii: "\""))
        for byte in utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                bytes.append(UInt8(ascii: "\\"))
                bytes.append(byte)
            case 0..<0x20:
                bytes.append(contentsOf: "\\u00".utf8)
                bytes.append(Self.digits[Int(byte >> 4)])
                bytes.append(Self.digits[Int(byte & 15)])
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    /// Bytes as a base64 string.
    package mutating func base64(_ data: UnsafeRawBufferPointer) {
        separate()
        bytes.append(UInt8(ascii: "\""))
        var offset = 0
        while offset < data.count {
            let rest = data.count - offset
            let group =
                UInt32(data[offset]) << 16 | (rest > 1 ? UInt32(data[offset + 1]) << 8 : 0)
                | (rest > 2 ? UInt32(data[offset + 2]) : 0)
            bytes.append(Self.base64[Int(group >> 18 & 63)])
            bytes.append(Self.base64[Int(group >> 12 & 63)])
            bytes.append(rest > 1 ? Self.base64[Int(group >> 6 & 63)] : UInt8(ascii: "="))
            bytes.append(rest > 2 ? Self.base64[Int(group & 63)] : UInt8(ascii: "="))
            offset += 3
        }
        bytes.append(UInt8(ascii: "\""))
    }

    package mutating func integer(_ value: some BinaryInteger) { raw(String(value)) }

    /// A number; JSON has none for what is not finite, so that becomes a string.
    package mutating func real(_ value: Double) {
        if value.isFinite {
            raw("\(value)")
        } else {
            string(value.isNaN ? "NaN" : value < 0 ? "-Infinity" : "Infinity")
        }
    }

    package mutating func boolean(_ value: Bool) { raw(value ? "true" : "false") }
    package mutating func null() { raw("null") }

    private mutating func raw(_ text: String) {
        separate()
        bytes.append(contentsOf: text.utf8)
    }

    private mutating func begin(_ bracket: UInt8) {
        separate()
        bytes.append(bracket)
        needsComma = false
    }

    private mutating func end(_ bracket: UInt8) {
        bytes.append(bracket)
        needsComma = true
    }

    private mutating func separate() {
        if needsComma { bytes.append(UInt8(ascii: ",")) }
        needsComma = true
    }
}

extension JSONLine {
    /// A cell as it stands. What is unchanged or absent is left out; bytes are an object, so that they cannot be taken
    /// for text.
    package mutating func plainCell(_ column: String, _ cell: Cell) {
        switch cell.tag {
        case .unchanged, .absent: return
        case .blob:
            key(column)
            beginObject()
            key("base64")
            base64(cell.bytes)
            endObject()
        default:
            key(column)
            value(cell)
        }
    }

    /// A cell's value; bytes as base64.
    package mutating func value(_ cell: Cell) {
        switch cell.tag {
        case .null, .unchanged, .absent: null()
        case .text, .string: string(cell.bytes)
        case .integer: if let integer = cell.integer { self.integer(integer) } else { null() }
        case .real: if let real = cell.real { self.real(real) } else { null() }
        case .blob: base64(cell.bytes)
        }
    }
}

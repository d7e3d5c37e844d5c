import BridgeCore

/// How a column's values become canonical cells: see ``LogicalType``.
enum CanonicalKind: UInt8, Sendable {
    case boolean, integer, real32, real64, blob, timestampWithTimeZone, string

    init(_ type: LogicalType) {
        switch type {
        case .boolean: self = .boolean
        case .int16, .int32, .int64: self = .integer
        case .float32: self = .real32
        case .float64: self = .real64
        case .bytes: self = .blob
        case .timestampWithTimeZone: self = .timestampWithTimeZone
        default: self = .string
        }
    }
}

/// Appends a value, given as the server's text under the pinned settings, as a canonical cell.
/// - Throws: `streamMalformed` for a text that is not one of the type.
func appendCanonicalCell(
    _ text: UnsafeRawBufferPointer, _ kind: CanonicalKind, to buffer: RecordBuffer
) throws(BridgeError) {
    switch kind {
    case .string: buffer.appendCell(.string, text)
    case .integer:
        guard let value = NumberText.integer(text) else { throw BridgeError.malformedStream("a malformed integer") }
        buffer.appendCell(integer: value)
    case .boolean:
        guard text.count == 1, text[0] == UInt8(ascii: "t") || text[0] == UInt8(ascii: "f") else {
            throw BridgeError.malformedStream("a malformed boolean")
        }
        buffer.appendCell(integer: text[0] == UInt8(ascii: "t") ? 1 : 0)
    case .real32, .real64:
        guard let value = NumberText.real(text, single: kind == .real32) else {
            throw BridgeError.malformedStream("a malformed number")
        }
        buffer.appendCell(real: value)
    case .blob: try appendHexBlob(text, to: buffer)
    case .timestampWithTimeZone: try appendTimestamp(text, to: buffer)
    }
}

private func appendHexBlob(_ text: UnsafeRawBufferPointer, to buffer: RecordBuffer) throws(BridgeError) {
    guard text.count >= 2, text.count % 2 == 0, text[0] == UInt8(ascii: "\\"), text[1] == UInt8(ascii: "x") else {
        throw BridgeError.malformedStream("a malformed bytea")
    }
    let size = (text.count - 2) / 2
    buffer.append(CellTag.blob.rawValue)
    buffer.append(bigEndian: UInt32(truncatingIfNeeded: size))
    try buffer.appendUninitialized(size) { room throws(BridgeError) in
        for index in 0..<size {
            guard let upper = hexValue(text[2 + 2 * index]), let lower = hexValue(text[3 + 2 * index]) else {
                throw BridgeError.malformedStream("a malformed bytea")
            }
            room[index] = upper << 4 | lower
        }
        return size
    }
}

@inline(__always)
private func hexValue(_ character: UInt8) -> UInt8? {
    switch character {
    case 0x30...0x39: character &- 0x30
    case 0x61...0x66: character &- 0x57
    case 0x41...0x46: character &- 0x37
    default: nil
    }
}

/// `2024-05-06 07:08:09.5+00 BC` becomes `2024-05-06 07:08:09.500000Z BC`. The zone is UTC because the session's is.
private func appendTimestamp(_ text: UnsafeRawBufferPointer, to buffer: RecordBuffer) throws(BridgeError) {
    guard let first = text.first else { throw BridgeError.malformedStream("a malformed timestamp") }
    // infinity, -infinity
    if first == UInt8(ascii: "i") || first == UInt8(ascii: "-") {
        buffer.appendCell(.string, text)
        return
    }
    guard let zone = text.lastIndex(of: UInt8(ascii: "+")), zone + 3 <= text.count, text[zone + 1] == UInt8(ascii: "0"),
        text[zone + 2] == UInt8(ascii: "0")
    else { throw BridgeError.malformedStream("a timestamp outside UTC") }
    let point = text[..<zone].lastIndex(of: UInt8(ascii: "."))
    let seconds = UnsafeRawBufferPointer(rebasing: text[..<(point ?? zone)])
    let fraction = point.map { UnsafeRawBufferPointer(rebasing: text[($0 + 1)..<zone]) }
    let suffix = UnsafeRawBufferPointer(rebasing: text[(zone + 3)...])
    let digits = fraction?.count ?? 0
    guard digits <= 6 else { throw BridgeError.malformedStream("a malformed timestamp") }
    buffer.append(CellTag.string.rawValue)
    buffer.append(bigEndian: UInt32(truncatingIfNeeded: seconds.count + 8 + suffix.count))
    buffer.append(seconds)
    buffer.append(UInt8(ascii: "."))
    if let fraction { buffer.append(fraction) }
    for _ in digits..<6 { buffer.append(UInt8(ascii: "0")) }
    buffer.append(UInt8(ascii: "Z"))
    buffer.append(suffix)
}

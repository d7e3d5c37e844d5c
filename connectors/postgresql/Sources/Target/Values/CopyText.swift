import BridgeCore

/// Writing the text format of COPY: columns separated by tabs, rows ended by line breaks, `\N` for NULL.
extension RecordBuffer {
    @inline(__always) func appendCopyNull() {
        reserve(2)
        append(UInt8(ascii: "\\"))
        append(UInt8(ascii: "N"))
    }

    @inline(__always) func appendCopySeparator() { append(UInt8(ascii: "\t")) }
    @inline(__always) func appendCopyRowEnd() { append(UInt8(ascii: "\n")) }

    /// Appends a value with the characters escaped that mean something to COPY.
    @inline(__always)
    func appendCopyEscaped(_ bytes: UnsafeRawBufferPointer) {
        let size = bytes.count
        appendUninitialized(size * 2) { room in
            var written = 0
            for byte in bytes {
                // Everything at or below the line break's range, and the backslash, is rare in data.
                if _fastPath(byte > 0x0D && byte != 0x5C) {
                    room[written] = byte
                    written += 1
                    continue
                }
                let replacement: UInt8
                switch byte {
                case 0x5C: replacement = 0x5C
                case 0x09: replacement = UInt8(ascii: "t")
                case 0x0A: replacement = UInt8(ascii: "n")
                case 0x0D: replacement = UInt8(ascii: "r")
                case 0x08: replacement = UInt8(ascii: "b")
                case 0x0B: replacement = UInt8(ascii: "v")
                case 0x0C: replacement = UInt8(ascii: "f")
                default:
                    room[written] = byte
                    written += 1
                    continue
                }
                room[written] = 0x5C
                room[written + 1] = replacement
                written += 2
            }
            return written
        }
    }

    /// Appends an integer in decimal.
    func appendDecimal(_ value: Int64) {
        appendUninitialized(20) { room in
            var digits: (UInt64, UInt64, UInt64) = (0, 0, 0)
            return withUnsafeMutableBytes(of: &digits) { scratch in
                var magnitude = value.magnitude
                var position = scratch.count
                repeat {
                    position -= 1
                    scratch[position] = UInt8(truncatingIfNeeded: magnitude % 10) &+ 0x30
                    magnitude /= 10
                } while magnitude > 0
                if value < 0 {
                    position -= 1
                    scratch[position] = UInt8(ascii: "-")
                }
                let count = scratch.count - position
                for index in 0..<count { room[index] = scratch[position + index] }
                return count
            }
        }
    }

    /// Appends bytes in bytea's hex form, `\x` first, with the backslash doubled if COPY is to read it.
    func appendHex(_ bytes: UnsafeRawBufferPointer, forCopy: Bool) {
        if forCopy { append(UInt8(ascii: "\\")) }
        append(UInt8(ascii: "\\"))
        append(UInt8(ascii: "x"))
        appendUninitialized(bytes.count * 2) { room in
            var written = 0
            for byte in bytes {
                room[written] = Self.hexDigit(byte >> 4)
                room[written + 1] = Self.hexDigit(byte & 15)
                written += 2
            }
            return written
        }
    }

    @inline(__always)
    private static func hexDigit(_ nibble: UInt8) -> UInt8 { nibble < 10 ? 0x30 + nibble : 0x57 + nibble }
}

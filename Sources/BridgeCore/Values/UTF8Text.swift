/// Text as bytes in UTF-8.
package enum UTF8Text {
    /// The length of the well-formed UTF-8 sequence at `index` (Unicode, table 3-7); nil if there is none.
    @inline(__always)
    package static func sequenceLength(_ text: UnsafeRawBufferPointer, _ index: Int) -> Int? {
        text[index] < 0x80 ? 1 : multibyteLength(text, index)
    }

    private static func multibyteLength(_ text: UnsafeRawBufferPointer, _ index: Int) -> Int? {
        let length: Int
        var second: ClosedRange<UInt8> = 0x80...0xBF
        switch text[index] {
        case 0xC2...0xDF: length = 2
        case 0xE0: (length, second) = (3, 0xA0...0xBF)
        case 0xE1...0xEC, 0xEE...0xEF: length = 3
        case 0xED: (length, second) = (3, 0x80...0x9F)
        case 0xF0: (length, second) = (4, 0x90...0xBF)
        case 0xF1...0xF3: length = 4
        case 0xF4: (length, second) = (4, 0x80...0x8F)
        default: return nil
        }
        guard text.count - index >= length, second.contains(text[index + 1]) else { return nil }
        for offset in 2..<max(2, length) where text[index + offset] & 0xC0 != 0x80 { return nil }
        return length
    }
}

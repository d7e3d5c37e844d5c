/// What another engine would not take as text though SQLite does.
package enum TextFault: Int, Hashable, Sendable, Comparable {
    case none = 0
    case zeroByte = 1
    case invalidUTF8 = 2

    package static func < (one: TextFault, other: TextFault) -> Bool { one.rawValue < other.rawValue }

    /// - Parameter text: in UTF-8, whatever the database's encoding.
    init(_ text: UnsafeRawBufferPointer) {
        var found = TextFault.none
        var index = 0
        while index < text.count {
            if text.count - index >= 8 {
                let word = text.loadUnaligned(fromByteOffset: index, as: UInt64.self)
                let hasZero = (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080 != 0
                if word & 0x8080_8080_8080_8080 == 0, !hasZero {
                    index += 8
                    continue
                }
            }
            if text[index] == 0 { found = .zeroByte }
            guard let length = Self.sequenceLength(text, index) else {
                self = .invalidUTF8
                return
            }
            index += length
        }
        self = found
    }

    /// The length of the well-formed UTF-8 sequence at `index` (Unicode, table 3-7); nil if there is none.
    private static func sequenceLength(_ text: UnsafeRawBufferPointer, _ index: Int) -> Int? {
        let length: Int
        var second: ClosedRange<UInt8> = 0x80...0xBF
        switch text[index] {
        case 0...0x7F: return 1
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
        for place in index + 2..<max(index + 2, index + length) where text[place] & 0xC0 != 0x80 { return nil }
        return length
    }
}

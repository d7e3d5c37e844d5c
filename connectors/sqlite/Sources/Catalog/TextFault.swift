import BridgeCore

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
            guard let length = UTF8Text.sequenceLength(text, index) else {
                self = .invalidUTF8
                return
            }
            index += length
        }
        self = found
    }
}

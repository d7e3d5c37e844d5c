#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Numbers as text.
enum NumberText {
    /// A decimal integer; nil for anything else, and beyond 64 bits.
    static func integer(_ text: UnsafeRawBufferPointer) -> Int64? {
        var index = 0
        let isNegative = text.first == UInt8(ascii: "-")
        if isNegative { index = 1 }
        guard index < text.count else { return nil }
        var value: Int64 = 0
        while index < text.count {
            let digit = text[index] &- UInt8(ascii: "0")
            guard digit <= 9 else { return nil }
            let (scaled, overflow) = value.multipliedReportingOverflow(by: 10)
            // Counted downwards, since the smallest number has no positive counterpart.
            let (sum, carry) = scaled.subtractingReportingOverflow(Int64(digit))
            guard !overflow, !carry else { return nil }
            value = sum
            index += 1
        }
        if isNegative { return value }
        return value == .min ? nil : -value
    }

    /// PostgreSQL's output, and its cast to text.
    static func boolean(_ text: UnsafeRawBufferPointer) -> Int64? {
        if text.elementsEqual("t".utf8) || text.elementsEqual("true".utf8) { return 1 }
        if text.elementsEqual("f".utf8) || text.elementsEqual("false".utf8) { return 0 }
        return nil
    }

    /// A decimal floating point number, `NaN`, `Infinity` or `-Infinity`.
    /// - Parameter single: it is the text of a float4; read as a double first, it could be rounded twice.
    static func real(_ text: UnsafeRawBufferPointer, single: Bool) -> Double? {
        if text.elementsEqual("NaN".utf8) { return .nan }
        if text.elementsEqual("Infinity".utf8) { return .infinity }
        if text.elementsEqual("-Infinity".utf8) { return -.infinity }
        // No blanks, hexadecimal or other words, which strtod would take.
        guard text.count > 0, text.count < 64,
            text.allSatisfy({ $0 &- 0x30 <= 9 || [0x2B, 0x2D, 0x2E, 0x45, 0x65].contains($0) })
        else { return nil }
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { room in
            for index in text.indices { room[index] = CChar(bitPattern: text[index]) }
            room[text.count] = 0
            guard let start = room.baseAddress else { return nil }
            var end: UnsafeMutablePointer<CChar>?
            let value = single ? Double(strtof(start, &end)) : strtod(start, &end)
            return end == start + text.count ? value : nil
        }
    }

    /// A decimal number in place: sign, digits, digits behind the point. No exponent.
    struct Decimal {
        var isNegative: Bool
        /// Without leading zeros; empty for zero.
        var whole: UnsafeRawBufferPointer
        var fraction: UnsafeRawBufferPointer

        var isZero: Bool { whole.isEmpty && fraction.allSatisfy { $0 == UInt8(ascii: "0") } }

        init?(_ text: UnsafeRawBufferPointer, dropsTrailingZeros: Bool) {
            var index = 0
            isNegative = text.first == UInt8(ascii: "-")
            if isNegative || text.first == UInt8(ascii: "+") { index = 1 }
            var start = index
            while index < text.count, text[index] &- UInt8(ascii: "0") <= 9 { index += 1 }
            var digits = index - start
            while start < index, text[start] == UInt8(ascii: "0") { start += 1 }
            whole = UnsafeRawBufferPointer(rebasing: text[start..<index])
            fraction = UnsafeRawBufferPointer(rebasing: text[index..<index])
            if index < text.count, text[index] == UInt8(ascii: ".") {
                start = index + 1
                index = start
                while index < text.count, text[index] &- UInt8(ascii: "0") <= 9 { index += 1 }
                digits += index - start
                var end = index
                if dropsTrailingZeros { while end > start, text[end - 1] == UInt8(ascii: "0") { end -= 1 } }
                fraction = UnsafeRawBufferPointer(rebasing: text[start..<end])
            }
            guard index == text.count, digits > 0 else { return nil }
        }
    }
}

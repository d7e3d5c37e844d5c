#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Numbers as text, in the spellings of ``LogicalType``.
package enum NumberText {
    /// A decimal integer; nil for anything else, and beyond 64 bits.
    package static func integer(_ text: UnsafeRawBufferPointer) -> Int64? {
        guard text.first == UInt8(ascii: "-") else { return integer(text, isNegative: false) }
        return integer(UnsafeRawBufferPointer(rebasing: text.dropFirst()), isNegative: true)
    }

    /// The same of text that is spelled as an engine spells an integer: no zero in front that says nothing, none with a sign.
    package static func plainInteger(_ text: UnsafeRawBufferPointer) -> Int64? {
        let digits = text.first == UInt8(ascii: "-") ? text.dropFirst() : text[...]
        guard digits.first != UInt8(ascii: "0") || text.count == 1 else { return nil }
        return integer(text)
    }

    /// The same of digits without a sign.
    package static func integer(_ text: UnsafeRawBufferPointer, isNegative: Bool) -> Int64? {
        guard !text.isEmpty else { return nil }
        var index = 0
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
    package static func boolean(_ text: UnsafeRawBufferPointer) -> Int64? {
        if text.elementsEqual("t".utf8) || text.elementsEqual("true".utf8) { return 1 }
        if text.elementsEqual("f".utf8) || text.elementsEqual("false".utf8) { return 0 }
        return nil
    }

    /// A decimal floating point number, `NaN`, `Infinity` or `-Infinity`; nil for anything else, blanks included.
    /// - Parameter single: it is the text of a float4, the shortest that reads back as that float4; read as a double
    ///   first, it could be rounded twice.
    package static func real(_ text: UnsafeRawBufferPointer, single: Bool) -> Double? {
        // The longest text of a double has 24 bytes.
        guard let last = text.last, text.count < 64 else { return nil }
        if last &- 0x30 > 9, last != UInt8(ascii: ".") { return notFinite(text) }
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { room in
            for index in text.indices {
                switch text[index] {
                // No blanks, hexadecimal digits or words, which strtod would take.
                case 0x30...0x39, 0x2B, 0x2D, 0x2E, 0x45, 0x65: room[index] = CChar(bitPattern: text[index])
                default: return nil
                }
            }
            room[text.count] = 0
            guard let start = room.baseAddress else { return nil }
            var end: UnsafeMutablePointer<CChar>?
            let value = single ? Double(strtof(start, &end)) : strtod(start, &end)
            return end == start + text.count ? value : nil
        }
    }

    private static func notFinite(_ text: UnsafeRawBufferPointer) -> Double? {
        if text.elementsEqual("NaN".utf8) { return .nan }
        if text.elementsEqual("Infinity".utf8) { return .infinity }
        if text.elementsEqual("-Infinity".utf8) { return -.infinity }
        return nil
    }

    /// The decimal that an applier writes of a double: the shortest digits that read back to it, without an exponent.
    package static func decimal(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Infinity" : "Infinity" }
        let text = value.description
        guard let mark = text.firstIndex(of: "e"), let exponent = Int(text[text.index(after: mark)...]) else { return text }
        let parts = text[..<mark].split(separator: ".", maxSplits: 1)
        let sign = value < 0 ? "-" : ""
        let whole = parts.first.map { $0.drop { $0 == "-" } } ?? ""
        let fraction = parts.count > 1 ? parts[1] : ""
        if exponent < 0 { return "\(sign)0." + String(repeating: "0", count: -exponent - whole.count) + whole + fraction }
        return sign + whole + fraction + String(repeating: "0", count: max(0, exponent - fraction.count))
    }

    /// A decimal number in place: sign, digits, digits behind the point. No exponent.
    package struct Decimal {
        package var isNegative: Bool
        /// Without leading zeros; empty for zero.
        package var whole: UnsafeRawBufferPointer
        package var fraction: UnsafeRawBufferPointer
        /// Whether it is spelled as an engine with decimals spells it: no plus sign, no zero in front that says nothing, digits
        /// on both sides of a point. Any other spelling would come back as this one.
        package var isPlain: Bool

        package var isZero: Bool { whole.isEmpty && fraction.allSatisfy { $0 == UInt8(ascii: "0") } }

        package init?(_ text: UnsafeRawBufferPointer, dropsTrailingZeros: Bool) {
            var index = 0
            isNegative = text.first == UInt8(ascii: "-")
            isPlain = text.first != UInt8(ascii: "+")
            if isNegative || !isPlain { index = 1 }
            var start = index
            while index < text.count, text[index] &- UInt8(ascii: "0") <= 9 { index += 1 }
            var digits = index - start
            if digits == 0 || (digits > 1 && text[start] == UInt8(ascii: "0")) { isPlain = false }
            while start < index, text[start] == UInt8(ascii: "0") { start += 1 }
            whole = UnsafeRawBufferPointer(rebasing: text[start..<index])
            fraction = UnsafeRawBufferPointer(rebasing: text[index..<index])
            if index < text.count, text[index] == UInt8(ascii: ".") {
                start = index + 1
                index = start
                while index < text.count, text[index] &- UInt8(ascii: "0") <= 9 { index += 1 }
                digits += index - start
                if index == start { isPlain = false }
                var end = index
                if dropsTrailingZeros { while end > start, text[end - 1] == UInt8(ascii: "0") { end -= 1 } }
                fraction = UnsafeRawBufferPointer(rebasing: text[start..<end])
            }
            guard index == text.count, digits > 0 else { return nil }
        }

        /// Whether it is the same number, trailing zeros aside if both were read without them.
        package func isEqual(to other: Decimal) -> Bool {
            isNegative == other.isNegative && whole.elementsEqual(other.whole) && fraction.elementsEqual(other.fraction)
        }
    }
}

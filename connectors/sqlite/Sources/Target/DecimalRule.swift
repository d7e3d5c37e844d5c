import BridgeCore

/// What a decimal of another engine becomes in a column whose affinity is a number's.
///
/// Such a column never holds a decimal but an integer or a double, and SQLite makes one of any text that reads as a number,
/// whatever is lost by it. So the number is made here, and only if it reads back as the decimal that it was made of.
struct DecimalRule: Hashable, Sendable {
    /// How many digits the source has behind the point of every value; nil if each value says so itself.
    var scale: Int?
    /// Whether 1.10 may become 1.1. The file that the values came from holds 1.1, so nothing is lost on the way back; on
    /// the way there the zero is a part of the value.
    var ignoresTrailingZeros: Bool
    /// Whether the affinity is REAL: integers are stored as doubles.
    var isReal: Bool

    enum Number: Equatable {
        case integer(Int64)
        case real(Double)
        /// `NaN` and the infinities: words, which SQLite stores as text.
        case text
    }

    /// The number that stands for a decimal; nil if there is none, or if the text is not a decimal.
    func number(_ text: UnsafeRawBufferPointer) -> Number? {
        guard let decimal = NumberText.Decimal(text, dropsTrailingZeros: false) else {
            return Self.isWord(text) ? .text : nil
        }
        // The sign of a zero would be lost.
        if decimal.isZero, decimal.isNegative { return nil }
        var digits = decimal.fraction.count
        while digits > 0, decimal.fraction[digits - 1] == UInt8(ascii: "0") { digits -= 1 }
        guard digits == 0, !isReal, let integer = Self.integer(decimal) else {
            return real(text, decimal, significant: digits)
        }
        return ignoresTrailingZeros || decimal.fraction.count == max(0, scale ?? 0) ? .integer(integer) : nil
    }

    private static func integer(_ decimal: NumberText.Decimal) -> Int64? {
        decimal.whole.isEmpty ? 0 : NumberText.integer(decimal.whole, isNegative: decimal.isNegative)
    }

    /// - Parameter digits: how many digits there are behind the point, trailing zeros aside.
    private func real(_ text: UnsafeRawBufferPointer, _ decimal: NumberText.Decimal, significant digits: Int) -> Number? {
        // A decimal of at most 15 digits is the shortest that reads back to its double, so nothing need be written out.
        if digits > 0, digits <= 15, decimal.whole.count + digits <= 15, let real = Self.short(decimal, digits) {
            let zeros = decimal.fraction.count - digits
            return ignoresTrailingZeros || zeros == max(0, (scale ?? 0) - digits) ? .real(real) : nil
        }
        guard let real = Self.read(text), real.isFinite else { return nil }
        var written = NumberText.decimal(real)
        let isSame = written.withUTF8 { bytes in
            guard let back = NumberText.Decimal(UnsafeRawBufferPointer(bytes), dropsTrailingZeros: false),
                back.isNegative == decimal.isNegative, back.whole.elementsEqual(decimal.whole)
            else { return false }
            // A double that is an integer comes back without a point.
            let one = back.fraction.elementsEqual("0".utf8) ? back.fraction[..<0] : back.fraction[...]
            let other = decimal.fraction[...]
            let common = min(one.count, other.count)
            let rest = one[common...].allSatisfy { $0 == UInt8(ascii: "0") } && other[common...].allSatisfy { $0 == UInt8(ascii: "0") }
            guard rest, one[..<common].elementsEqual(other[..<common]) else { return false }
            return ignoresTrailingZeros || other.count == scale.map { max($0, digits) } ?? one.count
        }
        return isSame ? .real(real) : nil
    }

    private static let powersOfTen: [Double] = (0...15).map { exponent in
        (0..<exponent).reduce(1.0) { power, _ in power * 10 }
    }

    /// A quotient of two numbers that a double holds exactly is rounded once, so it is the double nearest to the decimal.
    private static func short(_ decimal: NumberText.Decimal, _ digits: Int) -> Double? {
        var value: Int64 = 0
        for digit in decimal.whole { value = value * 10 + Int64(digit &- UInt8(ascii: "0")) }
        for digit in decimal.fraction.prefix(digits) { value = value * 10 + Int64(digit &- UInt8(ascii: "0")) }
        return (decimal.isNegative ? -1 : 1) * Double(value) / powersOfTen[digits]
    }

    /// The double nearest to a decimal, which may have some hundred digits: 5e-324 has 324.
    private static func read(_ text: UnsafeRawBufferPointer) -> Double? {
        // The longest decimal that stands for a double; more digits could not read back.
        guard text.count <= 400 else { return nil }
        return Double(String(decoding: text, as: UTF8.self))
    }

    private static func isWord(_ text: UnsafeRawBufferPointer) -> Bool {
        text.elementsEqual("NaN".utf8) || text.elementsEqual("Infinity".utf8) || text.elementsEqual("-Infinity".utf8)
    }
}

/// Text that SQLite makes a number of where the affinity is a number's.
enum NumericText {
    /// Whether the whole text is a number for SQLite: blanks, sign, digits with at most one point, exponent, blanks. What is
    /// too large for a double counts too: it becomes infinity.
    static func isNumber(_ text: UnsafeRawBufferPointer) -> Bool {
        var index = 0
        let count = text.count
        func isDigit() -> Bool { index < count && text[index] &- 0x30 <= 9 }
        func isOne(_ a: UInt8, _ b: UInt8) -> Bool { index < count && (text[index] == a || text[index] == b) }
        func isBlank() -> Bool { index < count && (text[index] == 0x20 || text[index] &- 0x09 <= 4) }
        while isBlank() { index += 1 }
        if isOne(UInt8(ascii: "+"), UInt8(ascii: "-")) { index += 1 }
        let start = index
        while isDigit() { index += 1 }
        var digits = index - start
        if isOne(UInt8(ascii: "."), UInt8(ascii: ".")) {
            index += 1
            let point = index
            while isDigit() { index += 1 }
            digits += index - point
        }
        guard digits > 0 else { return false }
        if isOne(UInt8(ascii: "e"), UInt8(ascii: "E")) {
            index += 1
            if isOne(UInt8(ascii: "+"), UInt8(ascii: "-")) { index += 1 }
            guard isDigit() else { return false }
            while isDigit() { index += 1 }
        }
        while isBlank() { index += 1 }
        return index == count
    }
}

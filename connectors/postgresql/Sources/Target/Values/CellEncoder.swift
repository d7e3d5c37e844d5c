import BridgeCore

/// Why a cell cannot be written to its column. Never holds the value.
enum CellRefusal: Error {
    /// The source did not send the value.
    case missing
    /// The value's class is not the column's: text in an integer column.
    case wrongClass
    case outOfRange
    case wouldBeRounded
    case tooLong
    case invalidUTF8
    case zeroByte
    /// Text that the server would not read as the value it says: `now`, `1/2/2024`.
    case notCanonical
    /// Text that a column of numbers would give back in another spelling: `007`.
    case respelled

    /// One sentence, lower case, about a value that is not shown.
    var message: String {
        switch self {
        case .missing: "a value that is needed was not sent by the source"
        case .wrongClass: "a value's storage class does not fit the target column's type"
        case .outOfRange: "a number is out of the target column's range"
        case .wouldBeRounded: "a number has more digits than the target column keeps"
        case .tooLong: "a text is longer than the target column allows"
        case .invalidUTF8: "a text is not valid UTF-8"
        case .zeroByte: "a text holds a zero byte, which PostgreSQL cannot store"
        case .notCanonical: "a text is not a date or time in the form that is agreed"
        case .respelled: "a text would come back from the target column's type in another spelling"
        }
    }
}

/// How the bytes of a cell are written.
enum CellStyle {
    /// For COPY in text format: escaped.
    case copy
    /// As a text parameter: as it stands, without the zero byte that ends it.
    case parameter
}

/// Writes cells as PostgreSQL reads them.
enum CellEncoder {
    /// Appends a cell's value, which is not NULL.
    @inline(__always)
    static func append(
        _ cell: Cell, as type: TargetType, style: CellStyle, to buffer: RecordBuffer
    ) throws(CellRefusal) {
        if _fastPath(cell.tag == .text) {
            appendText(cell.bytes, style, buffer)
        } else {
            try appendCanonical(cell, as: type, style, buffer)
        }
    }

    @inline(__always)
    private static func appendText(_ bytes: UnsafeRawBufferPointer, _ style: CellStyle, _ buffer: RecordBuffer) {
        switch style {
        case .copy: buffer.appendCopyEscaped(bytes)
        case .parameter: buffer.append(bytes)
        }
    }

    private static func appendCanonical(
        _ cell: Cell, as type: TargetType, _ style: CellStyle, _ buffer: RecordBuffer
    ) throws(CellRefusal) {
        switch cell.tag {
        case .integer:
            guard let value = cell.integer else { throw .wrongClass }
            try append(integer: value, as: type, buffer)
        case .real:
            guard let value = cell.real else { throw .wrongClass }
            try append(real: value, as: type, buffer)
        case .string:
            try check(string: cell.bytes, as: type)
            appendText(cell.bytes, style, buffer)
        case .blob:
            guard type == .bytes else { throw .wrongClass }
            buffer.appendHex(cell.bytes, forCopy: style == .copy)
        case .text, .null, .unchanged, .absent:
            throw .missing
        }
    }

    private static func append(
        integer value: Int64, as type: TargetType, _ buffer: RecordBuffer
    ) throws(CellRefusal) {
        switch type {
        case .boolean:
            guard value == 0 || value == 1 else { throw .outOfRange }
            buffer.append(UInt8(ascii: value == 1 ? "t" : "f"))
            return
        case .integer(let min, let max): guard value >= min && value <= max else { throw .outOfRange }
        case .float64(let takesIntegers):
            guard takesIntegers else { throw .wrongClass }
            // The least of all comes back from a double as a double.
            guard Double(exactly: value) != nil, value != .min else { throw .wouldBeRounded }
        case .float32(let takesIntegers):
            guard takesIntegers else { throw .wrongClass }
            guard value.magnitude <= 1 << 24 else { throw .wouldBeRounded }
        case .numeric(let scale, _):
            // Below zero digits in front of the point are dropped.
            if let scale, scale < 0, !fits(String(value).utf8, scale: scale) { throw .wouldBeRounded }
        default: throw .wrongClass
        }
        buffer.appendDecimal(value)
    }

    private static func append(
        real value: Double, as type: TargetType, _ buffer: RecordBuffer
    ) throws(CellRefusal) {
        switch type {
        case .float64: break
        case .float32: guard value.isNaN || Double(Float(value)) == value else { throw .wouldBeRounded }
        // Infinity as a numeric would be a word for whoever reads it back.
        case .numeric(scale: nil, _): guard value.isFinite else { throw .outOfRange }
        case .numeric(let scale?, _):
            guard value.isFinite else { throw .outOfRange }
            guard fits(NumberText.decimal(value).utf8, scale: scale) else { throw .wouldBeRounded }
        default: throw .wrongClass
        }
        if case .numeric = type { return try append(decimal: value, buffer) }
        if value.isNaN {
            buffer.append(utf8: "NaN")
        } else if value.isInfinite {
            buffer.append(utf8: value < 0 ? "-Infinity" : "Infinity")
        } else {
            // Swift writes the shortest digits that read back to the same double.
            buffer.append(utf8: value.description)
        }
    }

    /// A number without a point in it, if it has none: a decimal keeps the zeros behind it, and a double has no more than the
    /// number.
    private static func append(decimal value: Double, _ buffer: RecordBuffer) throws(CellRefusal) {
        guard value != 0 || value.sign == .plus else { throw .wouldBeRounded }
        let text = value.description
        buffer.append(utf8: text.utf8.suffix(2).elementsEqual(".0".utf8) ? String(text.utf8.dropLast(2)) ?? text : text)
    }

    private static func check(string bytes: UnsafeRawBufferPointer, as type: TargetType) throws(CellRefusal) {
        switch type {
        case .text(let limit):
            let characters = try countCharacters(bytes)
            if let limit, characters > limit { throw .tooLong }
        case .other:
            _ = try countCharacters(bytes)
        case .numeric(let scale, let goesByValue): try check(decimal: bytes, scale: scale, goesByValue: goesByValue)
        case .dateTime(let precision):
            guard startsWithDate(bytes) || isInfinity(bytes) else { throw .notCanonical }
            try checkSecondsFraction(bytes, precision: precision)
        case .date:
            guard startsWithDate(bytes) || isInfinity(bytes) else { throw .notCanonical }
            // A time of day behind the date would be dropped by the server.
            if bytes.contains(UInt8(ascii: ":")) { throw .wouldBeRounded }
        case .timeOfDay(let precision):
            guard bytes.count >= 5, isDigit(bytes[0]), isDigit(bytes[1]), bytes[2] == UInt8(ascii: ":"),
                bytes.allSatisfy({ isDigit($0) || $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: ".") })
            else { throw .notCanonical }
            try checkSecondsFraction(bytes, precision: precision)
        case .boolean, .integer, .float32, .float64, .bytes:
            throw .wrongClass
        }
    }

    // MARK: Text

    /// Counts code points, and refuses what PostgreSQL cannot store as text.
    static func countCharacters(_ bytes: UnsafeRawBufferPointer) throws(CellRefusal) -> Int {
        var index = 0
        var characters = 0
        let count = bytes.count
        while index < count {
            // Eight ASCII characters at a time, none of them zero.
            if count - index >= 8 {
                let word = bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)
                let noneZero = (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080 == 0
                if word & 0x8080_8080_8080_8080 == 0 && noneZero {
                    index += 8
                    characters += 8
                    continue
                }
            }
            let byte = bytes[index]
            if byte == 0 { throw .zeroByte }
            guard let length = UTF8Text.sequenceLength(bytes, index) else { throw .invalidUTF8 }
            index += length
            characters += 1
        }
        return characters
    }

    // MARK: Numbers and times

    @inline(__always)
    private static func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }

    /// Lets through what a column of decimals gives back byte for byte, or with other zeros at its end: the server reads `007` and `+7` too, and keeps 7.
    private static func check(decimal bytes: UnsafeRawBufferPointer, scale: Int?, goesByValue: Bool) throws(CellRefusal) {
        guard let decimal = NumberText.Decimal(bytes, dropsTrailingZeros: false) else {
            if "NaN".utf8.elementsEqual(bytes) { return }
            guard ["Infinity", "-Infinity"].contains(where: { $0.utf8.elementsEqual(bytes) }) else { throw .wrongClass }
            // Only a column without a limit has it.
            guard scale == nil else { throw .outOfRange }
            return
        }
        if let scale, !fits(bytes, scale: scale) { throw .wouldBeRounded }
        guard decimal.isPlain, !(decimal.isNegative && decimal.isZero),
            scale.map({ goesByValue || decimal.fraction.count == max(0, $0) }) ?? true
        else { throw .respelled }
    }

    /// Whether no digit but zero stands beyond `scale` places behind the point, or, below zero, so many in front of it.
    private static func fits(_ text: some BidirectionalCollection<UInt8>, scale: Int) -> Bool {
        let point = text.firstIndex(of: UInt8(ascii: ".")) ?? text.endIndex
        let fraction = text[point...].dropFirst().dropFirst(max(0, scale))
        let whole = text[..<point].suffix(max(0, -scale))
        return fraction.allSatisfy { $0 == UInt8(ascii: "0") } && whole.allSatisfy { [UInt8(ascii: "0"), UInt8(ascii: "-")].contains($0) }
    }

    /// `YYYY-`, with as many digits as the year has but at least four: no other order of the parts begins so.
    private static func startsWithDate(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let dash = bytes.firstIndex(of: UInt8(ascii: "-")), dash >= 4 else { return false }
        return bytes[..<dash].allSatisfy { isDigit($0) }
    }

    private static func isInfinity(_ bytes: UnsafeRawBufferPointer) -> Bool {
        "infinity".utf8.elementsEqual(bytes) || "-infinity".utf8.elementsEqual(bytes)
    }

    private static func checkSecondsFraction(
        _ bytes: UnsafeRawBufferPointer, precision: Int
    ) throws(CellRefusal) {
        guard let point = bytes.firstIndex(of: UInt8(ascii: ".")) else { return }
        var places = 0
        for byte in bytes[(point + 1)...] {
            guard isDigit(byte) else { return }
            places += 1
            if places > precision && byte != UInt8(ascii: "0") { throw .wouldBeRounded }
        }
    }
}

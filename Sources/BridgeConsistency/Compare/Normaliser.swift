package import BridgeCore

/// Writes cells in the form in which they are compared: equal values give equal bytes, different ones different bytes.
package struct Normaliser: Sendable {
    /// Tags of the forms that are not cells as they stand. None is a ``CellTag``.
    private enum Mark {
        static let skipped: UInt8 = 1
        static let uuid: UInt8 = 2
        static let jsonb: UInt8 = 3
        static let moment: UInt8 = 4
        static let json: UInt8 = 5
        static let numeric: UInt8 = 6
    }

    package let policies: EqualityPolicies

    package init(policies: EqualityPolicies = []) { self.policies = policies }

    /// Appends the cell's form.
    @inline(__always)
    package func append(_ cell: Cell, _ form: CellForm, to buffer: RecordBuffer) {
        if case .raw = form { Self.appendRaw(cell, to: buffer) } else { appendFormed(cell, form, to: buffer) }
    }

    @inline(__always)
    private static func appendRaw(_ cell: Cell, to buffer: RecordBuffer) {
        if cell.tag.hasBytes { buffer.appendCell(cell.tag, cell.bytes) } else { buffer.appendCell(cell.tag) }
    }

    private func appendFormed(_ cell: Cell, _ form: CellForm, to buffer: RecordBuffer) {
        if form == .skip { return buffer.append(Mark.skipped) }
        guard cell.tag.hasBytes, append(value: cell, form, to: buffer) else {
            return Self.appendRaw(cell, to: buffer)
        }
    }

    /// Appends nothing and returns false if the cell is not a value of the form.
    private func append(value cell: Cell, _ form: CellForm, to buffer: RecordBuffer) -> Bool {
        let isText = cell.tag == .string || cell.tag == .text
        switch form {
        case .raw, .skip: return false
        case .dynamic: return cell.tag == .real && appendReal(cell, to: buffer)
        case .integerText, .booleanText:
            guard isText,
                let value = form == .booleanText
                    ? NumberText.boolean(cell.bytes) : NumberText.plainInteger(cell.bytes)
            else { return false }
            buffer.appendCell(integer: value)
            return true
        case .real(let single, let readsText): return appendReal(cell, single: single, readsText: readsText, to: buffer)
        case .numeric(let byValue): return appendNumeric(cell, byValue: byValue, to: buffer)
        case .decimal(let byValue, let scale):
            guard cell.tag == .integer || cell.tag == .real else {
                return appendNumeric(cell, byValue: byValue, to: buffer)
            }
            return appendScaled(cell, byValue: byValue, scale: scale, to: buffer)
        case .blobText: return isText && Self.appendHex(cell.bytes, to: buffer)
        case .uuid: return isText && Self.appendUUID(cell.bytes, to: buffer)
        case .json: return isText && policies.contains(.jsonSpacing) && appendJSON(cell.bytes, to: buffer)
        case .jsonb: return isText && Self.appendJSONB(cell.bytes, to: buffer)
        case .timestampWithTimeZone, .timestamp, .date, .time:
            guard isText, let moment = MomentText.read(cell.bytes, form) else { return false }
            buffer.append(Mark.moment)
            buffer.append(bigEndian: moment)
            return true
        case .character: return isText && Self.appendStripped(cell, to: buffer)
        case .paddedText:
            return isText && policies.contains(.characterPadding) && Self.appendStripped(cell, to: buffer)
        }
    }

    private func appendReal(
        _ cell: Cell, single: Bool = false, readsText: Bool = false, to buffer: RecordBuffer
    ) -> Bool {
        let value: Double
        switch cell.tag {
        case .real:
            guard let real = cell.real else { return false }
            value = real
        case .integer:
            guard let integer = cell.integer, let exact = Double(exactly: integer) else { return false }
            value = exact
        case .string, .text:
            guard readsText, let read = NumberText.real(cell.bytes, single: single) else { return false }
            value = read
        default: return false
        }
        buffer.appendCell(real: value == 0 && policies.contains(.negativeZero) ? 0 : value)
        return true
    }

    /// An integer or a double as decimal text, with as many digits behind the point as the other side has.
    private func appendScaled(_ cell: Cell, byValue: Bool, scale: Int?, to buffer: RecordBuffer) -> Bool {
        guard var text = cell.integer.map(String.init) ?? cell.real.map(NumberText.decimal) else { return false }
        if let scale, text.last?.isNumber ?? false {
            let point = text.firstIndex(of: ".")
            var fraction = point.map { text[text.index(after: $0)...] } ?? ""
            while fraction.count > scale, fraction.last == "0" { fraction.removeLast() }
            let digits = fraction + String(repeating: "0", count: max(0, scale - fraction.count))
            text = text[..<(point ?? text.endIndex)] + (digits.isEmpty ? "" : ".\(digits)")
        }
        return text.withUTF8 { bytes in
            let cell = Cell(tag: .string, bytes: UnsafeRawBufferPointer(bytes))
            if !appendNumeric(cell, byValue: byValue, to: buffer) { Self.appendRaw(cell, to: buffer) }
            return true
        }
    }

    private func appendNumeric(_ cell: Cell, byValue: Bool, to buffer: RecordBuffer) -> Bool {
        if let integer = cell.integer {
            buffer.append(Mark.numeric)
            buffer.append(utf8: String(integer))
            buffer.append(0)
            return true
        }
        guard cell.tag == .string || cell.tag == .text,
            let number = NumberText.Decimal(cell.bytes, dropsTrailingZeros: byValue || policies.contains(.numericScale)),
            // No engine with decimals writes 007, so it is somebody's text, which such an engine would change.
            number.isPlain
        else { return false }
        // Zero-terminated in place of a length in front; no digit is a zero byte.
        buffer.append(Mark.numeric)
        let isZero = number.isZero && policies.contains(.negativeZero)
        if number.isNegative && !isZero { buffer.append(UInt8(ascii: "-")) }
        if number.whole.isEmpty { buffer.append(UInt8(ascii: "0")) }
        buffer.append(number.whole)
        if !number.fraction.isEmpty {
            buffer.append(UInt8(ascii: "."))
            buffer.append(number.fraction)
        }
        buffer.append(0)
        return true
    }

    private static func appendStripped(_ cell: Cell, to buffer: RecordBuffer) -> Bool {
        var end = cell.bytes.count
        while end > 0, cell.bytes[end - 1] == UInt8(ascii: " ") { end -= 1 }
        buffer.appendCell(.string, UnsafeRawBufferPointer(rebasing: cell.bytes[..<end]))
        return true
    }

    private static func appendHex(_ text: UnsafeRawBufferPointer, to buffer: RecordBuffer) -> Bool {
        guard text.count >= 2, text.count % 2 == 0, text[0] == UInt8(ascii: "\\"), text[1] == UInt8(ascii: "x"),
            text.dropFirst(2).allSatisfy({ hexValue($0) != nil })
        else { return false }
        buffer.append(CellTag.blob.rawValue)
        buffer.append(bigEndian: UInt32(truncatingIfNeeded: (text.count - 2) / 2))
        for index in stride(from: 2, to: text.count, by: 2) {
            buffer.append((hexValue(text[index]) ?? 0) << 4 | (hexValue(text[index + 1]) ?? 0))
        }
        return true
    }

    /// 32 hexadecimal digits, with hyphens after any four of them, perhaps in braces: what PostgreSQL reads.
    private static func appendUUID(_ text: UnsafeRawBufferPointer, to buffer: RecordBuffer) -> Bool {
        var body = text[...]
        if body.first == UInt8(ascii: "{"), body.last == UInt8(ascii: "}"), body.count >= 2 {
            body = body.dropFirst().dropLast()
        }
        var value: UInt128 = 0
        var digits = 0
        var afterHyphen = true
        for byte in body {
            if byte == UInt8(ascii: "-") {
                guard digits % 4 == 0, !afterHyphen else { return false }
                afterHyphen = true
                continue
            }
            guard let digit = hexValue(byte), digits < 32 else { return false }
            value = value << 4 | UInt128(digit)
            digits += 1
            afterHyphen = false
        }
        guard digits == 32, !afterHyphen else { return false }
        buffer.append(Mark.uuid)
        buffer.append(bigEndian: value)
        return true
    }

    private func appendJSON(_ text: UnsafeRawBufferPointer, to buffer: RecordBuffer) -> Bool {
        guard let compact = JSONForm.compacted(text) else { return false }
        buffer.append(Mark.json)
        Self.appendCounted(compact, to: buffer)
        return true
    }

    private static func appendJSONB(_ text: UnsafeRawBufferPointer, to buffer: RecordBuffer) -> Bool {
        guard let canonical = JSONForm.canonical(text) else { return false }
        buffer.append(Mark.jsonb)
        appendCounted(canonical, to: buffer)
        return true
    }

    private static func appendCounted(_ bytes: [UInt8], to buffer: RecordBuffer) {
        buffer.append(bigEndian: UInt64(bytes.count))
        bytes.withUnsafeBytes { buffer.append($0) }
    }
}

@inline(__always)
func hexValue(_ character: UInt8) -> UInt8? {
    switch character {
    case 0x30...0x39: character &- 0x30
    case 0x61...0x66: character &- 0x57
    case 0x41...0x46: character &- 0x37
    default: nil
    }
}

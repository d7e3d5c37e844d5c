/// JSON texts in the forms in which they are compared.
enum JSONForm {
    private static let deepest = 512
    private static let longestNumber = 200_000

    /// Without blanks between tokens; nil if that could run two tokens into one.
    static func compacted(_ text: UnsafeRawBufferPointer) -> [UInt8]? {
        var result: [UInt8] = []
        result.reserveCapacity(text.count)
        var isInString = false
        var isEscaped = false
        var hadBlank = false
        for byte in text {
            if isInString {
                result.append(byte)
                if isEscaped {
                    isEscaped = false
                } else if byte == UInt8(ascii: "\\") {
                    isEscaped = true
                } else if byte == UInt8(ascii: "\"") {
                    isInString = false
                }
                continue
            }
            if isBlank(byte) {
                hadBlank = true
                continue
            }
            if hadBlank, let last = result.last, !isPunctuation(last), !isPunctuation(byte) { return nil }
            hadBlank = false
            if byte == UInt8(ascii: "\"") { isInString = true }
            result.append(byte)
        }
        return isInString ? nil : result
    }

    /// As jsonb has it: keys in order and each once, the last one given; no blanks; strings without escapes but those
    /// needed; numbers without exponent, their scale kept. Nil for what jsonb does not take.
    static func canonical(_ text: UnsafeRawBufferPointer) -> [UInt8]? {
        var parser = Parser(text: text)
        var result: [UInt8] = []
        guard parser.value(into: &result, depth: 0), parser.isAtEnd else { return nil }
        return result
    }

    private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0A).contains(byte) || byte == 0x0D }

    private static func isPunctuation(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "{"), UInt8(ascii: "}"), UInt8(ascii: "["), UInt8(ascii: "]"), UInt8(ascii: ":"),
            UInt8(ascii: ","):
            true
        default: false
        }
    }

    private struct Parser {
        let text: UnsafeRawBufferPointer
        var index = 0

        var isAtEnd: Bool {
            mutating get {
                skipBlanks()
                return index == text.count
            }
        }

        private mutating func skipBlanks() { while index < text.count, isBlank(text[index]) { index += 1 } }

        private mutating func take(_ byte: UInt8) -> Bool {
            skipBlanks()
            guard index < text.count, text[index] == byte else { return false }
            index += 1
            return true
        }

        private mutating func take(word: StaticString, into out: inout [UInt8]) -> Bool {
            let count = word.utf8CodeUnitCount
            guard text.count - index >= count else { return false }
            for position in 0..<count where text[index + position] != word.utf8Start[position] { return false }
            out.append(contentsOf: text[index..<index + count])
            index += count
            return true
        }

        mutating func value(into out: inout [UInt8], depth: Int) -> Bool {
            skipBlanks()
            guard depth < deepest, index < text.count else { return false }
            switch text[index] {
            case UInt8(ascii: "{"): return object(into: &out, depth: depth + 1)
            case UInt8(ascii: "["): return array(into: &out, depth: depth + 1)
            case UInt8(ascii: "\""):
                guard let content = string() else { return false }
                append(string: content, to: &out)
                return true
            case UInt8(ascii: "t"): return take(word: "true", into: &out)
            case UInt8(ascii: "f"): return take(word: "false", into: &out)
            case UInt8(ascii: "n"): return take(word: "null", into: &out)
            default: return number(into: &out)
            }
        }

        private mutating func array(into out: inout [UInt8], depth: Int) -> Bool {
            index += 1
            out.append(UInt8(ascii: "["))
            if !take(UInt8(ascii: "]")) {
                while true {
                    guard value(into: &out, depth: depth) else { return false }
                    if take(UInt8(ascii: "]")) { break }
                    guard take(UInt8(ascii: ",")) else { return false }
                    out.append(UInt8(ascii: ","))
                }
            }
            out.append(UInt8(ascii: "]"))
            return true
        }

        private mutating func object(into out: inout [UInt8], depth: Int) -> Bool {
            index += 1
            var members: [(key: [UInt8], value: [UInt8])] = []
            if !take(UInt8(ascii: "}")) {
                while true {
                    skipBlanks()
                    guard let key = string(), take(UInt8(ascii: ":")) else { return false }
                    var content: [UInt8] = []
                    guard value(into: &content, depth: depth) else { return false }
                    members.append((key, content))
                    if take(UInt8(ascii: "}")) { break }
                    guard take(UInt8(ascii: ",")) else { return false }
                }
            }
            // Swift's sort is stable, so of equal keys the one given last stands last.
            members.sort {
                $0.key.count != $1.key.count ? $0.key.count < $1.key.count : $0.key.lexicographicallyPrecedes($1.key)
            }
            out.append(UInt8(ascii: "{"))
            var isFirst = true
            for (position, member) in members.enumerated() {
                if position + 1 < members.count, members[position + 1].key == member.key { continue }
                if !isFirst { out.append(UInt8(ascii: ",")) }
                isFirst = false
                append(string: member.key, to: &out)
                out.append(UInt8(ascii: ":"))
                out += member.value
            }
            out.append(UInt8(ascii: "}"))
            return true
        }

        private func append(string: [UInt8], to out: inout [UInt8]) {
            out.append(UInt8(ascii: "\""))
            for byte in string {
                if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { out.append(UInt8(ascii: "\\")) }
                out.append(byte)
            }
            out.append(UInt8(ascii: "\""))
        }

        /// A string's content, its escapes resolved.
        private mutating func string() -> [UInt8]? {
            guard index < text.count, text[index] == UInt8(ascii: "\"") else { return nil }
            index += 1
            var content: [UInt8] = []
            while index < text.count {
                let byte = text[index]
                index += 1
                switch byte {
                case UInt8(ascii: "\""): return content
                case 0..<0x20: return nil
                case UInt8(ascii: "\\"): guard escape(into: &content) else { return nil }
                default: content.append(byte)
                }
            }
            return nil
        }

        private mutating func escape(into content: inout [UInt8]) -> Bool {
            guard index < text.count else { return false }
            let byte = text[index]
            index += 1
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): content.append(byte)
            case UInt8(ascii: "b"): content.append(0x08)
            case UInt8(ascii: "f"): content.append(0x0C)
            case UInt8(ascii: "n"): content.append(0x0A)
            case UInt8(ascii: "r"): content.append(0x0D)
            case UInt8(ascii: "t"): content.append(0x09)
            case UInt8(ascii: "u"):
                guard var code = codeUnit(), code != 0 else { return false }
                if (0xD800..<0xDC00).contains(code) {
                    guard index + 1 < text.count, text[index] == UInt8(ascii: "\\"), text[index + 1] == UInt8(ascii: "u")
                    else { return false }
                    index += 2
                    guard let low = codeUnit(), (0xDC00..<0xE000).contains(low) else { return false }
                    code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
                }
                guard let scalar = Unicode.Scalar(code) else { return false }
                content += Array(String(Character(scalar)).utf8)
            default: return false
            }
            return true
        }

        private mutating func codeUnit() -> UInt32? {
            guard text.count - index >= 4 else { return nil }
            var code: UInt32 = 0
            for _ in 0..<4 {
                guard let digit = hexValue(text[index]) else { return nil }
                code = code << 4 | UInt32(digit)
                index += 1
            }
            return code
        }

        private mutating func digits() -> Range<Int> {
            let start = index
            while index < text.count, text[index] &- 0x30 <= 9 { index += 1 }
            return start..<index
        }

        private mutating func number(into out: inout [UInt8]) -> Bool {
            let isNegative = text[index] == UInt8(ascii: "-")
            if isNegative { index += 1 }
            let whole = digits()
            guard !whole.isEmpty, whole.count == 1 || text[whole.lowerBound] != UInt8(ascii: "0") else { return false }
            var fraction = index..<index
            if index < text.count, text[index] == UInt8(ascii: ".") {
                index += 1
                fraction = digits()
                guard !fraction.isEmpty else { return false }
            }
            var exponent = 0
            if index < text.count, text[index] | 0x20 == UInt8(ascii: "e") {
                index += 1
                let isDown = index < text.count && text[index] == UInt8(ascii: "-")
                if isDown || (index < text.count && text[index] == UInt8(ascii: "+")) { index += 1 }
                let range = digits()
                guard !range.isEmpty, range.count <= 6 else { return false }
                for position in range { exponent = exponent * 10 + Int(text[position] &- 0x30) }
                if isDown { exponent = -exponent }
            }
            guard whole.count + fraction.count + abs(exponent) <= longestNumber else { return false }
            append(Array(text[whole]) + Array(text[fraction]), point: whole.count + exponent, isNegative, to: &out)
            return true
        }

        /// A number by its digits and the place of its point, as numeric prints it. There is no -0 in numeric.
        private func append(_ digits: [UInt8], point: Int, _ isNegative: Bool, to out: inout [UInt8]) {
            let zero = UInt8(ascii: "0")
            if isNegative, digits.contains(where: { $0 != zero }) { out.append(UInt8(ascii: "-")) }
            let whole = point > 0 ? digits.prefix(point) + repeatElement(zero, count: max(0, point - digits.count)) : []
            let stripped = whole.drop { $0 == zero }
            if stripped.isEmpty { out.append(zero) } else { out += stripped }
            let fraction = Array(repeatElement(zero, count: max(0, -point))) + digits.dropFirst(max(0, point))
            guard !fraction.isEmpty else { return }
            out.append(UInt8(ascii: "."))
            out += fraction
        }
    }
}

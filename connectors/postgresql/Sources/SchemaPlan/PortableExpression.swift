import BridgeCore

/// Reads the few SQLite expressions that mean the same in PostgreSQL.
enum PortableExpression {
    /// A default as PostgreSQL writes it; nil if it is not a literal or the present time.
    static func defaultValue(_ expression: String, for type: LogicalType) -> String? {
        var text = trimmed(expression)
        while text.hasPrefix("("), text.hasSuffix(")") { text = trimmed(String(text.dropFirst().dropLast())) }
        switch text.uppercased() {
        case "NULL": return "NULL"
        case "TRUE": return type == .boolean ? "true" : "1"
        case "FALSE": return type == .boolean ? "false" : "0"
        case "CURRENT_TIMESTAMP": return now(type, textForm: "YYYY-MM-DD HH24:MI:SS")
        case "CURRENT_DATE": return now(type, textForm: "YYYY-MM-DD")
        case "CURRENT_TIME": return now(type, textForm: "HH24:MI:SS")
        default: break
        }
        if isNumber(text) {
            switch type {
            case .boolean: return text == "0" ? "false" : text == "1" ? "true" : nil
            case .int16, .int32, .int64, .float32, .float64, .numeric: return text
            case .text, .varchar, .character: return quoteLiteral(text)
            default: return nil
            }
        }
        if isString(text) { return type == .bytes || isNumeric(type) ? nil : text }
        if type == .bytes, text.uppercased().hasPrefix("X'"), isString(String(text.dropFirst())) {
            let digits = text.dropFirst(2).dropLast()
            return digits.allSatisfy(\.isHexDigit) && digits.count.isMultiple(of: 2) ? "'\\x\(digits.lowercased())'" : nil
        }
        return nil
    }

    private static func isNumeric(_ type: LogicalType) -> Bool {
        switch type {
        case .boolean, .int16, .int32, .int64, .float32, .float64, .numeric: true
        default: false
        }
    }

    /// The present moment in UTC, as SQLite would write it into the column.
    private static func now(_ type: LogicalType, textForm: String) -> String? {
        switch type {
        case .timestampWithTimeZone: "CURRENT_TIMESTAMP"
        case .timestamp: "(CURRENT_TIMESTAMP AT TIME ZONE 'UTC')"
        case .date: "((CURRENT_TIMESTAMP AT TIME ZONE 'UTC')::date)"
        case .time: "((CURRENT_TIMESTAMP AT TIME ZONE 'UTC')::time)"
        case .text, .varchar, .character: "to_char(CURRENT_TIMESTAMP AT TIME ZONE 'UTC', '\(textForm)')"
        default: nil
        }
    }

    /// A condition as PostgreSQL writes it; nil unless it is made only of columns, numbers, strings, comparisons and AND, OR, NOT,
    /// IN, IS, NULL, BETWEEN. LIKE, COLLATE, functions and arithmetic are not: they differ between the engines.
    ///
    /// Names are quoted as they are spelled where the table was made: SQLite takes brackets and backquotes too, and any case.
    static func condition(_ expression: String, columns: [String]) -> String? {
        let words: Set<String> = ["AND", "OR", "NOT", "IN", "IS", "NULL", "BETWEEN"]
        guard let tokens = tokens(expression) else { return nil }
        var result: [String] = []
        for token in tokens {
            switch token.first {
            case "'"?: result.append(token)
            case "\""?, "`"?, "["?:
                // SQLite takes a name in double quotes that is no column for a string.
                guard let name = unquoted(token), let column = column(name, columns) else { return nil }
                result.append(column)
            case let first? where first.isLetter || first == "_":
                if words.contains(token.uppercased()) {
                    result.append(token)
                } else if let column = column(token, columns) {
                    result.append(column)
                } else {
                    return nil
                }
            case let first? where first.isNumber || first == "." || first == "-":
                guard isNumber(token) else { return nil }
                result.append(token)
            default:
                guard ["=", "==", "<>", "!=", "<", ">", "<=", ">=", "(", ")", ","].contains(token) else { return nil }
                result.append(token == "==" ? "=" : token)
            }
        }
        return result.joined(separator: " ")
    }

    /// The column of a name in whatever case, quoted.
    private static func column(_ name: String, _ columns: [String]) -> String? {
        columns.first { folded($0) == folded(name) }.map { quoteIdentifier($0) }
    }

    /// SQLite folds the letters of ASCII and no others.
    private static func folded(_ name: String) -> [UInt8] { name.utf8.map { (0x41...0x5A).contains($0) ? $0 + 0x20 : $0 } }

    private static func unquoted(_ token: String) -> String? {
        guard let first = token.first, token.count >= 2 else { return nil }
        let name = String(token.dropFirst().dropLast())
        return first == "[" ? name : name.replacing("\(first)\(first)", with: "\(first)")
    }

    // MARK: Tokens

    private static func tokens(_ text: String) -> [String]? {
        var tokens: [String] = []
        var rest = Substring(text)
        while let first = rest.first {
            if first.isWhitespace {
                rest = rest.dropFirst()
                continue
            }
            let length: Int
            if first == "[" {
                guard let end = rest.firstIndex(of: "]") else { return nil }
                length = rest.distance(from: rest.startIndex, to: end) + 1
            } else if first == "'" || first == "\"" || first == "`" {
                guard let end = quotedLength(rest, first) else { return nil }
                length = end
            } else if first.isLetter || first == "_" {
                length = rest.prefix { $0.isLetter || $0.isNumber || $0 == "_" }.count
            } else if first.isNumber || first == "." {
                length = rest.prefix { $0.isNumber || $0 == "." }.count
            } else if first == "-", signMayFollow(tokens.last) {
                length = 1 + rest.dropFirst().prefix { $0.isNumber || $0 == "." }.count
            } else if ["<>", "!=", "<=", ">=", "=="].contains(where: { rest.hasPrefix($0) }) {
                length = 2
            } else {
                length = 1
            }
            tokens.append(String(rest.prefix(length)))
            rest = rest.dropFirst(length)
        }
        return tokens
    }

    /// Whether a minus behind this token is a number's sign, not a subtraction.
    private static func signMayFollow(_ token: String?) -> Bool {
        guard let token else { return true }
        return ["=", "==", "<>", "!=", "<", ">", "<=", ">=", "(", ",", "AND", "OR", "NOT", "IN", "BETWEEN"].contains(
            token.uppercased())
    }

    private static func quotedLength(_ text: Substring, _ quote: Character) -> Int? {
        var length = 1
        var rest = text.dropFirst()
        while let character = rest.first {
            rest = rest.dropFirst()
            length += 1
            guard character == quote else { continue }
            guard rest.first == quote else { return length }
            rest = rest.dropFirst()
            length += 1
        }
        return nil
    }

    private static func isString(_ text: String) -> Bool {
        text.first == "'" && quotedLength(text[...], "'") == text.count
    }

    private static func isNumber(_ text: String) -> Bool {
        let digits = text.hasPrefix("-") || text.hasPrefix("+") ? text.dropFirst() : text[...]
        return !digits.isEmpty && digits != "." && digits.allSatisfy { $0.isASCII && ($0.isNumber || $0 == ".") }
            && digits.count { $0 == "." } <= 1
    }

    private static func trimmed(_ text: String) -> String {
        var rest = text[...]
        while rest.first?.isWhitespace == true { rest = rest.dropFirst() }
        while rest.last?.isWhitespace == true { rest = rest.dropLast() }
        return String(rest)
    }
}

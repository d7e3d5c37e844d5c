import BridgeCore

/// Carries a PostgreSQL column default over, where SQLite would give a new row the same value.
///
/// The expression is as `pg_get_expr` prints it: `0`, `'-1'::integer`, `'open'::text`, `true`, `now()`,
/// `'{}'::jsonb`, `nextval('t_id_seq'::regclass)`.
enum DefaultTranslation {
    /// The text behind DEFAULT; empty if NULL is the default; nil if it cannot be carried over.
    static func translate(_ expression: String, type: LogicalType) -> String? {
        let text = expression.lowercased()
        if text == "null" || text.hasPrefix("null::") { return "" }
        if text == "now()" || text == "current_timestamp" {
            // The canonical form: UTC, six digits, Z. SQLite's clock has three.
            guard type == .timestampWithTimeZone else { return nil }
            return "(strftime('%Y-%m-%d %H:%M:%f000Z', 'now'))"
        }
        guard let literal = literal(expression) else { return nil }
        return value(literal, type)
    }

    /// The contents of a literal, without quotes and cast.
    private static func literal(_ expression: String) -> String? {
        var text = Substring(expression)
        if text.first == "(", let close = text.lastIndex(of: ")"), !text.contains("'") {
            // (-1)::numeric
            let rest = text[text.index(after: close)...]
            guard rest.isEmpty || rest.hasPrefix("::") else { return nil }
            return number(text[text.index(after: text.startIndex)..<close])
        }
        guard text.first == "'" else {
            if let cast = text.firstRange(of: "::") { text = text[..<cast.lowerBound] }
            return text == "true" || text == "false" ? String(text) : number(text)
        }
        text = text.dropFirst()
        var contents = ""
        while let quote = text.firstIndex(of: "'") {
            contents += text[..<quote]
            text = text[text.index(after: quote)...]
            if text.first == "'" {
                contents += "'"
                text = text.dropFirst()
                continue
            }
            // Only casts may follow; an operator or a further call may not.
            let isCast = text.isEmpty || (text.hasPrefix("::") && !text.contains("'") && !text.contains("||"))
            return isCast ? contents : nil
        }
        return nil
    }

    private static func number(_ text: Substring) -> String? {
        let digits = text.first == "-" ? text.dropFirst() : text
        let parts = digits.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count <= 2, parts.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy { $0 >= 0x30 && $0 <= 0x39 } })
        else { return nil }
        return String(text)
    }

    private static func value(_ literal: String, _ type: LogicalType) -> String? {
        switch type {
        case .boolean:
            return ["true", "t"].contains(literal) ? "1" : ["false", "f"].contains(literal) ? "0" : nil
        case .int16, .int32, .int64: return Int64(literal).map(String.init)
        case .float32, .float64:
            // -0 and what has no decimal form are left out; REAL affinity makes the number a float.
            guard let value = number(Substring(literal)), !value.hasPrefix("-0") else { return nil }
            return value
        case .numeric(_, let scale):
            guard let value = number(Substring(literal)) else { return nil }
            let fraction = value.split(separator: ".").dropFirst().first?.count ?? 0
            guard let scale, scale >= 0 else { return quoteLiteral(value) }
            guard fraction <= scale else { return nil }
            let padding = String(repeating: "0", count: scale - fraction)
            return quoteLiteral(value + (fraction == 0 && scale > 0 ? "." : "") + padding)
        case .text, .varchar, .json, .date, .time, .timestamp, .jsonb: return quoteLiteral(literal)
        case .character(let length):
            let padding = (length ?? 1) - literal.unicodeScalars.count
            return padding >= 0 ? quoteLiteral(literal + String(repeating: " ", count: padding)) : nil
        case .uuid: return quoteLiteral(literal.lowercased())
        case .bytes:
            guard literal.hasPrefix("\\x") else { return nil }
            let digits = literal.dropFirst(2)
            guard digits.utf8.count % 2 == 0, digits.allSatisfy(\.isHexDigit) else { return nil }
            return "X'\(digits)'"
        case .timestampWithTimeZone: return ["infinity", "-infinity"].contains(literal) ? quoteLiteral(literal) : nil
        case .interval, .dynamic: return nil
        // Enumerations and domains print as they are written; arrays, ranges and the rest might not.
        case .other:
            let isWord = literal.first?.isLetter == true && literal.utf8.allSatisfy(isWordByte)
            return isWord || literal == "{}" ? quoteLiteral(literal) : nil
        }
    }

    private static func isWordByte(_ byte: UInt8) -> Bool {
        byte == 0x5F || byte == 0x2D || (byte >= 0x30 && byte <= 0x39) || (byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7A)
    }
}

/// `DEFAULT …` for a default that SQLite's catalog gave. A word and a string in double quotes are literals only outside
/// of parentheses, an expression is one only inside.
func sqliteDefaultClause(_ expression: String) -> String {
    let body = expression.utf8.dropFirst().dropLast()
    let isQuoted = expression.utf8.first == 0x22 && expression.utf8.last == 0x22 && !body.contains(0x22)
    let isWord =
        expression.first.map { $0.isLetter || $0 == "_" } == true
        && expression.allSatisfy { $0.isLetter || $0.isNumber || $0 == "_" }
    return isQuoted || isWord ? "DEFAULT \(expression)" : "DEFAULT (\(expression))"
}

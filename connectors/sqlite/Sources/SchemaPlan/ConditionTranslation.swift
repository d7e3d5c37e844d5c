import BridgeCore

/// Carries a PostgreSQL condition (of a CHECK, or of a partial index) over to SQLite, if both read it the same.
///
/// What is understood: columns, integers, decimals and strings; comparisons of numbers; equality of text and booleans;
/// IS NULL; `= ANY (ARRAY[…])` and `<> ALL (ARRAY[…])`; length(); AND, OR, NOT; casts that change nothing. Everything
/// else depends on a collation, a locale, or a type that SQLite does not have.
struct ConditionTranslation {
    /// The condition in SQLite's words; nil if it cannot be carried over.
    static func translate(_ condition: String, columns: [ColumnSchema]) -> String? {
        guard let tokens = ConditionToken.split(condition) else { return nil }
        var parser = ConditionTranslation(tokens: tokens, columns: columns)
        guard let node = parser.disjunction(), node.kind == .boolean, parser.position == tokens.count else { return nil }
        return node.sql
    }

    private enum Kind { case boolean, integer, real, text, unknown, null }
    private struct Node {
        var sql: String
        var kind: Kind
    }

    private let tokens: [ConditionToken]
    private let columns: [ColumnSchema]
    private var position = 0
    private var depth = 0

    private init(tokens: [ConditionToken], columns: [ColumnSchema]) {
        self.tokens = tokens
        self.columns = columns
    }

    private mutating func take(_ token: ConditionToken) -> Bool {
        guard position < tokens.count, tokens[position] == token else { return false }
        position += 1
        return true
    }

    // MARK: Grammar

    private mutating func disjunction() -> Node? {
        // Deeper nesting than any person writes; the stack is not endless.
        depth += 1
        defer { depth -= 1 }
        guard depth < 100 else { return nil }
        return chain("or") { parser in parser.chain("and") { $0.negation() } }
    }

    private mutating func chain(_ word: String, _ part: (inout Self) -> Node?) -> Node? {
        guard var node = part(&self) else { return nil }
        while take(.word(word)) {
            guard node.kind == .boolean, let next = part(&self), next.kind == .boolean else { return nil }
            node.sql = "(\(node.sql) \(word.uppercased()) \(next.sql))"
        }
        return node
    }

    private mutating func negation() -> Node? {
        var count = 0
        while take(.word("not")) { count += 1 }
        guard var node = comparison() else { return nil }
        guard count > 0 else { return node }
        guard node.kind == .boolean else { return nil }
        for _ in 0..<count { node.sql = "(NOT \(node.sql))" }
        return node
    }

    private mutating func comparison() -> Node? {
        guard let left = operand() else { return nil }
        if take(.word("is")) {
            let isNot = take(.word("not"))
            guard take(.word("null")) else { return nil }
            return Node(sql: "(\(left.sql) IS \(isNot ? "NOT " : "")NULL)", kind: .boolean)
        }
        guard position < tokens.count, case .sign(let sign) = tokens[position],
            ["=", "<>", "<", "<=", ">", ">="].contains(sign)
        else { return left }
        position += 1
        if sign == "=", take(.word("any")) { return membership(left, "IN") }
        if sign == "<>", take(.word("all")) { return membership(left, "NOT IN") }
        guard let right = operand(), Self.canCompare(left.kind, right.kind, sign) else { return nil }
        return Node(sql: "(\(left.sql) \(sign) \(right.sql))", kind: .boolean)
    }

    private mutating func membership(_ left: Node, _ word: String) -> Node? {
        guard take(.sign("(")), let values = array(), take(.sign(")")) else { return nil }
        guard values.allSatisfy({ Self.canCompare(left.kind, $0.kind, "=") }) else { return nil }
        return Node(sql: "(\(left.sql) \(word) (\(values.map(\.sql).joined(separator: ", "))))", kind: .boolean)
    }

    private mutating func array() -> [Node]? {
        if take(.sign("(")) {
            depth += 1
            defer { depth -= 1 }
            guard depth < 100, let values = array(), take(.sign(")")) else { return nil }
            return skipCast() ? values : nil
        }
        guard take(.word("array")), take(.sign("[")) else { return nil }
        var values: [Node] = []
        repeat {
            guard let value = operand() else { return nil }
            values.append(value)
        } while take(.sign(","))
        return take(.sign("]")) && skipCast() ? values : nil
    }

    private mutating func operand() -> Node? {
        guard position < tokens.count else { return nil }
        var node: Node
        switch tokens[position] {
        case .sign("("):
            position += 1
            guard let inner = disjunction(), take(.sign(")")) else { return nil }
            node = inner
        case .number(let text):
            position += 1
            node = Node(sql: text, kind: text.contains(".") ? .real : .integer)
        case .string(let text):
            position += 1
            node = Node(sql: quoteLiteral(text), kind: .text)
        case .word("true"), .word("false"):
            node = Node(sql: tokens[position] == .word("true") ? "1" : "0", kind: .boolean)
            position += 1
        case .word("length"), .word("char_length"):
            position += 1
            guard take(.sign("(")), let inner = disjunction(), inner.kind == .text, take(.sign(")")) else { return nil }
            node = Node(sql: "length(\(inner.sql))", kind: .integer)
        case .word(let name), .name(let name):
            position += 1
            guard let column = columns.first(where: { $0.name == name }) else { return nil }
            node = Node(sql: quoteIdentifier(name), kind: Self.kind(of: column.type))
        case .sign: return nil
        }
        while take(.sign("::")) {
            guard let type = typeName(), let cast = Self.cast(node, to: type) else { return nil }
            node = cast
        }
        return node
    }

    /// A type behind `::`: words, perhaps a length, perhaps brackets.
    private mutating func typeName() -> String? {
        var words: [String] = []
        while position < tokens.count, case .word(let word) = tokens[position],
            !["and", "or", "not", "is", "any", "all"].contains(word)
        {
            words.append(word)
            position += 1
        }
        // A length would cut the value.
        guard !words.isEmpty, !(position < tokens.count && tokens[position] == .sign("(")) else { return nil }
        return words.joined(separator: " ")
    }

    private mutating func skipCast() -> Bool {
        guard take(.sign("::")) else { return true }
        guard let type = typeName(), take(.sign("[")), take(.sign("]")) else { return false }
        return type == "text" || type == "character varying"
    }

    // MARK: Types

    private static func kind(of type: LogicalType) -> Kind {
        switch type {
        case .boolean: .boolean
        case .int16, .int32, .int64: .integer
        case .float32, .float64: .real
        case .text, .varchar: .text
        // Padding, collations of their own, or an order that text does not have.
        default: .unknown
        }
    }

    private static func canCompare(_ a: Kind, _ b: Kind, _ sign: String) -> Bool {
        func isNumber(_ kind: Kind) -> Bool { kind == .integer || kind == .real }
        if isNumber(a), isNumber(b) { return true }
        return a == b && (a == .text || a == .boolean) && (sign == "=" || sign == "<>")
    }

    private static func cast(_ node: Node, to type: String) -> Node? {
        switch (node.kind, type) {
        case (.text, "text"), (.text, "character varying"), (.integer, "integer"), (.integer, "bigint"),
            (.integer, "smallint"), (.real, "double precision"), (.boolean, "boolean"):
            return node
        case (.integer, "double precision"), (.integer, "numeric"), (.real, "numeric"):
            return Node(sql: node.sql, kind: .real)
        case (.text, "integer"), (.text, "bigint"), (.text, "smallint"):
            // '-1'::integer: the literal's digits are the number.
            guard let number = Int64(node.sql.filter { $0 != "'" }), node.sql.hasPrefix("'") else { return nil }
            return Node(sql: String(number), kind: .integer)
        default: return nil
        }
    }
}

/// A word, sign or literal of a condition as PostgreSQL prints it.
enum ConditionToken: Hashable {
    /// Unquoted, in lower case.
    case word(String)
    /// A quoted name.
    case name(String)
    case string(String)
    case number(String)
    case sign(String)

    /// nil for what is not understood.
    static func split(_ text: String) -> [ConditionToken]? {
        var tokens: [ConditionToken] = []
        let bytes = Array(text.utf8)
        var place = 0
        while place < bytes.count {
            let byte = bytes[place]
            switch byte {
            case 0x20, 0x09, 0x0A, 0x0D: place += 1
            case 0x27, 0x22:  // ' and "
                guard let (contents, end) = quoted(bytes, place) else { return nil }
                tokens.append(byte == 0x27 ? .string(contents) : .name(contents))
                place = end
            case 0x30...0x39:
                let end = run(bytes, place) { $0 >= 0x30 && $0 <= 0x39 || $0 == 0x2E }
                tokens.append(.number(String(decoding: bytes[place..<end], as: UTF8.self)))
                place = end
            case 0x41...0x5A, 0x61...0x7A, 0x5F:
                let end = run(bytes, place) { isWord($0) }
                tokens.append(.word(String(decoding: bytes[place..<end], as: UTF8.self).lowercased()))
                place = end
            default:
                guard let sign = sign(bytes, place) else { return nil }
                tokens.append(.sign(sign))
                place += sign.utf8.count
            }
        }
        return tokens
    }

    private static func isWord(_ byte: UInt8) -> Bool {
        (byte >= 0x30 && byte <= 0x39) || (byte >= 0x41 && byte <= 0x5A) || (byte >= 0x61 && byte <= 0x7A)
            || byte == 0x5F || byte == 0x24
    }

    private static func run(_ bytes: [UInt8], _ start: Int, _ belongs: (UInt8) -> Bool) -> Int {
        bytes[start...].firstIndex { !belongs($0) } ?? bytes.count
    }

    private static func quoted(_ bytes: [UInt8], _ start: Int) -> (String, Int)? {
        let mark = bytes[start]
        var contents: [UInt8] = []
        var place = start + 1
        while place < bytes.count {
            if bytes[place] == mark {
                guard place + 1 < bytes.count, bytes[place + 1] == mark else {
                    return (String(decoding: contents, as: UTF8.self), place + 1)
                }
                place += 1
            }
            contents.append(bytes[place])
            place += 1
        }
        return nil
    }

    private static func sign(_ bytes: [UInt8], _ place: Int) -> String? {
        let pair = String(decoding: bytes[place..<min(place + 2, bytes.count)], as: UTF8.self)
        if ["::", "<>", "<=", ">="].contains(pair) {
            // A longer operator, such as <@ or >>=, is not one of these.
            return pair
        }
        let single = String(decoding: bytes[place..<place + 1], as: UTF8.self)
        return ["(", ")", "[", "]", ",", "=", "<", ">"].contains(single) ? single : nil
    }
}

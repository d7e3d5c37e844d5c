/// A word or sign of SQL, as a range of the statement's bytes.
struct SQLToken {
    enum Kind {
        /// A bare word: a keyword or an unquoted identifier.
        case word
        /// An identifier in double quotes, backquotes or brackets.
        case quoted
        /// A literal in single quotes.
        case string
        /// A number, a blob literal or a parameter.
        case literal
        /// Anything else, one byte at a time: all that matters here is parentheses, commas and dots.
        case sign(UInt8)
    }
    let kind: Kind
    let range: Range<Int>
}

/// SQL cut into tokens, by SQLite's rules: enough to find clauses and the text of expressions in the statements that
/// `sqlite_master` keeps, which SQLite itself has accepted. It never fails; whatever is odd becomes a sign.
struct SQLTokens {
    private let source: [UInt8]
    private(set) var tokens: [SQLToken] = []

    init(_ sql: String) {
        source = Array(sql.utf8)
        scan()
    }

    var count: Int { tokens.count }

    /// The source text from the first to the last token of a range, as it was written.
    func text(_ range: Range<Int>) -> String {
        guard range.lowerBound >= 0, range.upperBound <= tokens.count, let first = range.first, let last = range.last
        else { return "" }
        return String(decoding: source[tokens[first].range.lowerBound..<tokens[last].range.upperBound], as: UTF8.self)
    }

    /// Whether a token is this bare keyword; `keyword` in upper case.
    func isKeyword(_ index: Int, _ keyword: String) -> Bool {
        guard tokens.indices.contains(index), case .word = tokens[index].kind else { return false }
        let range = tokens[index].range
        guard range.count == keyword.utf8.count else { return false }
        return zip(source[range], keyword.utf8).allSatisfy { ($0 >= 0x61 && $0 <= 0x7A ? $0 - 32 : $0) == $1 }
    }

    func isSign(_ index: Int, _ sign: Character) -> Bool {
        guard tokens.indices.contains(index), case .sign(let byte) = tokens[index].kind else { return false }
        return byte == sign.asciiValue
    }

    /// The name that a token stands for: quotes taken off, doubled quotes made single.
    func name(_ index: Int) -> String? {
        guard tokens.indices.contains(index) else { return nil }
        let bytes = source[tokens[index].range]
        switch tokens[index].kind {
        case .word: return String(decoding: bytes, as: UTF8.self)
        case .literal, .sign: return nil
        case .quoted, .string:
            guard bytes.count >= 2, let quote = bytes.first else { return nil }
            let inner = bytes.dropFirst().dropLast()
            guard quote != UInt8(ascii: "[") else { return String(decoding: inner, as: UTF8.self) }
            return String(decoding: undouble(inner, quote), as: UTF8.self)
        }
    }

    private func undouble(_ bytes: ArraySlice<UInt8>, _ quote: UInt8) -> [UInt8] {
        var plain: [UInt8] = []
        var previousWasQuote = false
        for byte in bytes {
            if byte == quote, previousWasQuote {
                previousWasQuote = false
                continue
            }
            previousWasQuote = byte == quote
            plain.append(byte)
        }
        return plain
    }

    /// The index behind the parenthesis that closes the one at `index`; the end if none does.
    func endOfGroup(_ index: Int) -> Int {
        var depth = 0
        var position = index
        while position < tokens.count {
            if isSign(position, "(") { depth += 1 }
            if isSign(position, ")") {
                depth -= 1
                if depth == 0 { return position + 1 }
            }
            position += 1
        }
        return position
    }

    /// Cuts a range at its commas outside of parentheses.
    func splitAtCommas(_ range: Range<Int>) -> [Range<Int>] {
        var pieces: [Range<Int>] = []
        var start = range.lowerBound
        var position = range.lowerBound
        while position < range.upperBound {
            if isSign(position, "(") {
                position = min(endOfGroup(position), range.upperBound)
                continue
            }
            if isSign(position, ",") {
                pieces.append(start..<position)
                start = position + 1
            }
            position += 1
        }
        if start < range.upperBound { pieces.append(start..<range.upperBound) }
        return pieces
    }

    private mutating func scan() {
        var position = 0
        while position < source.count {
            let byte = source[position]
            let start = position
            switch byte {
            case 0x20, 0x09, 0x0A, 0x0C, 0x0D:
                position += 1
            case UInt8(ascii: "-") where peek(position + 1) == UInt8(ascii: "-"):
                while position < source.count, source[position] != 0x0A { position += 1 }
            case UInt8(ascii: "/") where peek(position + 1) == UInt8(ascii: "*"):
                position += 2
                while position < source.count,
                    !(source[position] == UInt8(ascii: "*") && peek(position + 1) == UInt8(ascii: "/"))
                { position += 1 }
                position = min(position + 2, source.count)
            case UInt8(ascii: "'"):
                position = endOfQuoted(position, byte)
                tokens.append(SQLToken(kind: .string, range: start..<position))
            case UInt8(ascii: "\""), UInt8(ascii: "`"):
                position = endOfQuoted(position, byte)
                tokens.append(SQLToken(kind: .quoted, range: start..<position))
            case UInt8(ascii: "["):
                while position < source.count, source[position] != UInt8(ascii: "]") { position += 1 }
                position = min(position + 1, source.count)
                tokens.append(SQLToken(kind: .quoted, range: start..<position))
            case UInt8(ascii: "x"), UInt8(ascii: "X"):
                if peek(position + 1) == UInt8(ascii: "'") {
                    position = endOfQuoted(position + 1, UInt8(ascii: "'"))
                    tokens.append(SQLToken(kind: .literal, range: start..<position))
                } else {
                    scanWord(&position)
                }
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                while position < source.count, isWordByte(source[position]) || source[position] == UInt8(ascii: ".") {
                    position += 1
                }
                tokens.append(SQLToken(kind: .literal, range: start..<position))
            default:
                if isWordByte(byte) {
                    scanWord(&position)
                } else {
                    position += 1
                    tokens.append(SQLToken(kind: .sign(byte), range: start..<position))
                }
            }
        }
    }

    private mutating func scanWord(_ position: inout Int) {
        let start = position
        while position < source.count, isWordByte(source[position]) { position += 1 }
        tokens.append(SQLToken(kind: .word, range: start..<position))
    }

    private func peek(_ position: Int) -> UInt8? { position < source.count ? source[position] : nil }

    /// The position behind a quoted run that begins at `position`; a doubled quote does not end it.
    private func endOfQuoted(_ position: Int, _ quote: UInt8) -> Int {
        var position = position + 1
        while position < source.count {
            if source[position] == quote {
                guard peek(position + 1) == quote else { return position + 1 }
                position += 1
            }
            position += 1
        }
        return position
    }

    private func isWordByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "$"), 0x80...0xFF:
            true
        default: false
        }
    }
}

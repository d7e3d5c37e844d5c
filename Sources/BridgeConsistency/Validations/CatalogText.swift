/// What little has to be read of the texts that catalogs give.
enum CatalogText {
    private enum Piece {
        /// A quoted string or name, with its quotes, and a dollar-quoted one is none of a catalog's.
        case quoted(Substring)
        case space
        case character(Character)
    }

    private static func pieces(_ text: String) -> [Piece] {
        var pieces: [Piece] = []
        var rest = text[...]
        while let first = rest.first {
            if first == "'" || first == "\"" {
                // A doubled quote ends one piece and begins the next, which comes to the same.
                let end = rest.dropFirst().firstIndex(of: first).map { rest.index(after: $0) } ?? rest.endIndex
                pieces.append(.quoted(rest[..<end]))
                rest = rest[end...]
            } else {
                if first.isWhitespace {
                    if case .space? = pieces.last {} else { pieces.append(.space) }
                } else {
                    pieces.append(.character(first))
                }
                rest = rest.dropFirst()
            }
        }
        return pieces
    }

    /// Runs of white space outside of quotes as one space, none at the ends.
    static func singleSpaced(_ text: String) -> String {
        var result = ""
        for piece in pieces(text) {
            switch piece {
            case .quoted(let text): result += text
            case .space: if !result.isEmpty { result += " " }
            case .character(let character): result.append(character)
            }
        }
        while result.last == " " { result.removeLast() }
        return result
    }

    /// Leaves out `schema.` wherever it stands outside of string literals at the beginning of a word.
    static func withoutSchema(_ schema: String, _ text: String) -> String {
        var result = ""
        var rest = text[...]
        var isInString = false
        let prefixes = ["\(schema).", "\"\(schema)\"."]
        while let first = rest.first {
            if first == "'" { isInString.toggle() }
            let isStart = result.last.map { !($0.isLetter || $0.isNumber || "_$.\"".contains($0)) } ?? true
            if !isInString, isStart, let prefix = prefixes.first(where: { rest.hasPrefix($0) }) {
                rest = rest.dropFirst(prefix.count)
                continue
            }
            result.append(first)
            rest = rest.dropFirst()
        }
        return result
    }

    /// Names and keywords outside of string literals, names without their quotes.
    static func words(_ text: String) -> [String] {
        var words: [String] = []
        var word = ""
        func end() {
            if !word.isEmpty { words.append(word) }
            word = ""
        }
        for piece in pieces(text) {
            switch piece {
            case .quoted(let text):
                end()
                if text.first == "\"" { words.append(String(text.dropFirst().dropLast())) }
            case .space: end()
            case .character(let character):
                if character.isLetter || character.isNumber || character == "_" || character == "$" {
                    word.append(character)
                } else {
                    end()
                }
            }
        }
        end()
        return words
    }

    /// Without `NOT VALID`, which says nothing about what is asked for.
    static func withoutValidity(_ definition: String) -> String {
        let text = singleSpaced(definition)
        return text.hasSuffix(" NOT VALID") ? String(text.dropLast(" NOT VALID".count)) : text
    }

    static func nullsAreOneValue(_ definition: String?) -> Bool {
        definition.map { singleSpaced($0).contains("NULLS NOT DISTINCT") } ?? false
    }

    /// When a constraint is asked: `DEFERRABLE`, `DEFERRABLE INITIALLY DEFERRED` or nothing.
    static func deferral(_ definition: String) -> String {
        let text = singleSpaced(definition).uppercased()
        if text.contains("INITIALLY DEFERRED") { return "DEFERRABLE INITIALLY DEFERRED" }
        return text.contains("DEFERRABLE") && !text.contains("NOT DEFERRABLE") ? "DEFERRABLE" : ""
    }

    /// Whether a condition is made of numeric columns, numbers, comparisons, AND, OR, NOT and IS NULL alone, which every
    /// engine reads the same.
    static func isPlainCondition(_ condition: String, isNumber: (String) -> Bool) -> Bool {
        for piece in pieces(condition) {
            switch piece {
            case .quoted(let text): if text.first != "\"" { return false }
            case .space: break
            case .character(let character):
                let isWord = character.isLetter || character.isNumber || character == "_"
                if !isWord, !"()<>=.".contains(character) { return false }
            }
        }
        let keywords: Set<String> = ["AND", "OR", "NOT", "IS", "NULL"]
        return words(condition).allSatisfy { word in
            keywords.contains(word.uppercased()) || word.allSatisfy(\.isNumber) || isNumber(word)
        }
    }
}

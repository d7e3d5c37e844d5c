import BridgeCore

/// What a PostgreSQL index definition says beyond parts, uniqueness and predicate: the kind of index, operator classes,
/// columns that are only carried along. Storage parameters are none of it: they change no answer.
struct IndexText: Hashable {
    /// `btree`, `gin`, …
    let method: String
    /// What stands in the parentheses behind it, with collations, operator classes and order.
    let columns: String
    /// `INCLUDE (…)` and `NULLS NOT DISTINCT`.
    let extras: String

    /// Reads `CREATE [UNIQUE] INDEX name ON table USING method (…) …`; nil for anything else.
    init?(_ definition: String) {
        let text = CatalogText.singleSpaced(definition)
        guard text.hasPrefix("CREATE "), let using = Self.find(" USING ", in: text[...]) else { return nil }
        let rest = text[using...].dropFirst(" USING ".count)
        guard let open = rest.firstIndex(of: "("), let close = Self.closing(rest[open...]) else { return nil }
        method = String(rest[..<open]).filter { $0 != " " }
        columns = String(rest[rest.index(after: open)..<close])
        var tail = rest[rest.index(after: close)...]
        for end in [" WHERE ", " WITH ("] {
            if let found = Self.find(end, in: tail) { tail = tail[..<found] }
        }
        extras = String(tail.drop { $0 == " " })
    }

    /// Where a text stands outside of quotes.
    private static func find(_ wanted: String, in text: Substring) -> String.Index? {
        var quote: Character?
        for place in text.indices {
            let character = text[place]
            if let open = quote {
                if character == open { quote = nil }
            } else if character == "'" || character == "\"" {
                quote = character
            } else if text[place...].hasPrefix(wanted) {
                return place
            }
        }
        return nil
    }

    /// The parenthesis that closes the one at the beginning.
    private static func closing(_ text: Substring) -> String.Index? {
        var depth = 0
        var quote: Character?
        for place in text.indices {
            let character = text[place]
            if let open = quote {
                if character == open { quote = nil }
                continue
            }
            switch character {
            case "'", "\"": quote = character
            case "(": depth += 1
            case ")":
                depth -= 1
                if depth == 0 { return place }
            default: break
            }
        }
        return nil
    }
}

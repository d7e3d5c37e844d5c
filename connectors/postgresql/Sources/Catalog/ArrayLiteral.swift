/// PostgreSQL's text form of one-dimensional arrays, for names that travel to and from the catalog.
package enum ArrayLiteral {
    /// `{"a","b",NULL}`.
    package static func make(_ elements: [String?]) -> String {
        let parts = elements.map { element -> String in
            guard let element else { return "NULL" }
            var quoted = "\""
            for character in element {
                if character == "\"" || character == "\\" { quoted.append("\\") }
                quoted.append(character)
            }
            return quoted + "\""
        }
        return "{" + parts.joined(separator: ",") + "}"
    }

    package static func make(_ numbers: [UInt32]) -> String {
        "{" + numbers.map(String.init).joined(separator: ",") + "}"
    }

    /// Reads the elements of an array that holds no NULL; nil gives none.
    package static func elements(_ literal: String?) -> [String] {
        guard let literal, literal.hasPrefix("{") else { return [] }
        var elements: [String] = []
        var current = ""
        var isQuoted = false
        var isEscaped = false
        var isStarted = false
        for character in literal.dropFirst().dropLast() {
            if isEscaped {
                current.append(character)
                isEscaped = false
            } else if character == "\\" {
                isEscaped = true
            } else if character == "\"" {
                isQuoted.toggle()
                isStarted = true
            } else if character == ",", !isQuoted {
                elements.append(current)
                current = ""
                isStarted = false
            } else {
                current.append(character)
                isStarted = true
            }
        }
        if isStarted || !elements.isEmpty { elements.append(current) }
        return elements
    }
}

/// PostgreSQL's text form of one-dimensional arrays, for names that travel to and from the catalog.
package enum ArrayLiteral {
    /// `{"a","b",NULL}`.
    package static func make(_ elements: [String?]) -> String {
        let parts = elements.map { element -> String in
            guard let element else { return "NULL" }
            // By scalars here and below: a quote with a combining mark behind it is a Character of its own.
            var quoted = String.UnicodeScalarView("\"".unicodeScalars)
            for scalar in element.unicodeScalars {
                if scalar == "\"" || scalar == "\\" { quoted.append("\\") }
                quoted.append(scalar)
            }
            quoted.append("\"")
            return String(quoted)
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
        var current = String.UnicodeScalarView()
        var isQuoted = false
        var isEscaped = false
        var isStarted = false
        for character in literal.unicodeScalars.dropFirst().dropLast() {
            if isEscaped {
                current.append(character)
                isEscaped = false
            } else if character == "\\" {
                isEscaped = true
            } else if character == "\"" {
                isQuoted.toggle()
                isStarted = true
            } else if character == ",", !isQuoted {
                elements.append(String(current))
                current = String.UnicodeScalarView()
                isStarted = false
            } else {
                current.append(character)
                isStarted = true
            }
        }
        if isStarted || !elements.isEmpty { elements.append(String(current)) }
        return elements
    }
}

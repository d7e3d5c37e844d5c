import BridgeCore

/// Replaces `${NAME}` by the environment's value; `$${` stands for `${` itself.
struct Substitution: Sendable {
    let environment: [String: String]

    struct MissingVariable: Error {
        let name: String
    }

    /// - Parameter encode: what is done to a value before it is put in place.
    func apply(to text: String, encode: (String) -> String = { $0 }) throws(MissingVariable) -> String {
        guard text.contains("${") else { return text }
        var result = ""
        var rest = text[...]
        while let dollar = rest.firstRange(of: "${") {
            if rest[..<dollar.lowerBound].last == "$" {
                result += rest[..<dollar.lowerBound].dropLast() + "${"
                rest = rest[dollar.upperBound...]
                continue
            }
            result += rest[..<dollar.lowerBound]
            guard let close = rest[dollar.upperBound...].firstIndex(of: "}") else { throw MissingVariable(name: "") }
            let name = String(rest[dollar.upperBound..<close])
            guard let value = environment[name] else { throw MissingVariable(name: name) }
            result += encode(value)
            rest = rest[rest.index(after: close)...]
        }
        return result + rest
    }

    /// The same for an address: inside the user information of a URL a value is percent-encoded, because a password may
    /// hold `@`, `:` or `/`.
    func applyToAddress(_ text: String) throws(MissingVariable) -> String {
        guard let schemeEnd = text.firstRange(of: "://")?.upperBound,
            let at = text[schemeEnd...].prefix(while: { $0 != "/" && $0 != "?" }).lastIndex(of: "@")
        else { return try apply(to: text) }
        return try apply(to: String(text[..<schemeEnd]))
            + apply(to: String(text[schemeEnd..<at]), encode: ConnectionURL.percentEncoded)
            + apply(to: String(text[at...]))
    }
}

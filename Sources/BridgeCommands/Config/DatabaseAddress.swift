package import BridgeCore

/// A database as it is written in `source` and `target`: a URL whose scheme names the engine.
package struct DatabaseAddress: Hashable, Sendable {
    package var engine: EngineName
    /// What the connector is given: a connection URL, or an absolute path. May hold a password.
    package var connection: String
    /// The address for people and for JSON: secrets are replaced by `***`.
    package var masked: String

    package init(engine: EngineName, connection: String, masked: String) {
        self.engine = engine
        self.connection = connection
        self.masked = masked
    }

    /// Reads an address by asking the registered connectors which of them knows its scheme.
    /// - Parameter directory: what a relative path in the address is relative to.
    /// - Throws: `configurationInvalid`, without the address in the message, since it may hold a password.
    package init(
        _ text: String, relativeTo directory: String, registry: ConnectorRegistry = .standard
    ) throws(BridgeError) {
        guard let colon = text.firstIndex(of: ":"), let entry = registry.entry(scheme: String(text[..<colon])) else {
            throw BridgeError(
                .configurationInvalid, "an address must begin with the name of its engine",
                hint: "write one of: " + registry.entries.map(\.example).joined(separator: ", "))
        }
        self = try entry.parseAddress(text, directory)
    }
}

/// What a connection URL (RFC 3986, as libpq reads it) hides from people.
package enum ConnectionURL {
    static let secretParameters: Set<String> = ["password", "sslpassword"]
    static let mask = "***"

    /// The URL with the password of its user information and every secret parameter replaced by `***`.
    package static func masked(_ url: String) -> String { replacingSecrets(in: url) { _ in mask } }

    /// Whether the URL holds a password in clear.
    package static func holdsSecret(_ url: String) -> Bool {
        var found = false
        _ = replacingSecrets(in: url) { secret in
            if !secret.isEmpty { found = true }
            return secret
        }
        return found
    }

    /// Replaces each secret by what `replacement` makes of it.
    package static func replacingSecrets(in url: String, with replacement: (String) -> String) -> String {
        guard let schemeEnd = url.firstRange(of: "://")?.upperBound else { return url }
        let authorityEnd = url[schemeEnd...].firstIndex { $0 == "/" || $0 == "?" || $0 == "#" } ?? url.endIndex
        // A password may wrongly hold an unescaped / or ?, and must not be shown for that.
        let parametersStart = url[schemeEnd...].firstIndex(of: "?") ?? url.endIndex
        let userInfoEnd =
            url[schemeEnd..<authorityEnd].lastIndex(of: "@") ?? url[schemeEnd..<parametersStart].lastIndex(of: "@")
            ?? url[schemeEnd...].lastIndex(of: "@")
        var result = String(url[..<schemeEnd])
        var rest = url[schemeEnd...]
        if let userInfoEnd {
            let userInfo = url[schemeEnd..<userInfoEnd]
            if let colon = userInfo.firstIndex(of: ":") {
                let secret = String(userInfo[userInfo.index(after: colon)...])
                result += userInfo[...colon] + replacement(secret)
            } else {
                result += userInfo
            }
            rest = url[userInfoEnd...]
        }
        guard let question = rest.firstIndex(of: "?") else { return result + rest }
        result += rest[...question]
        let parameters = rest[rest.index(after: question)...].split(separator: "&", omittingEmptySubsequences: false)
        result += parameters.map { parameter -> String in
            guard let equals = parameter.firstIndex(of: "="),
                secretParameters.contains(parameter[..<equals].lowercased())
            else { return String(parameter) }
            return parameter[...equals] + replacement(String(parameter[parameter.index(after: equals)...]))
        }.joined(separator: "&")
        return result
    }

    /// Percent-encodes everything but RFC 3986's unreserved characters, for a part of a URL.
    package static func percentEncoded(_ text: String) -> String {
        let digits = Array("0123456789ABCDEF")
        var result = ""
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                result.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                result += "%\(digits[Int(byte >> 4)])\(digits[Int(byte & 15)])"
            }
        }
        return result
    }
}

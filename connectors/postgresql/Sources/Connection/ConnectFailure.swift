import BridgeCore
import CLibPQ

/// Why a connection could not be made.
struct ConnectFailure {
    let error: BridgeError

    init(_ connection: OpaquePointer, _ string: ConnectionString) {
        let text = String(cString: PQerrorMessage(connection))
        let server = ErrorContext(.server, string.displayName)
        if let (state, message) = Self.sqlState(in: text) {
            let refusal = ServerError(sqlState: state, message: message)
            // A server that shuts down while we log in was never a connection that could be lost.
            let code = refusal.code == .connectionLost ? .serverUnreachable : refusal.code
            let hint: String? = state == "3D000" ? "correct the name of the database in the connection string" : nil
            error = BridgeError(code, message, context: [server, .init(.sqlstate, state)], hint: hint)
            return
        }
        let reason = Self.reason(in: text)
        if PQconnectionNeedsPassword(connection) == 1 {
            error = BridgeError(.authenticationFailed, "the server asks for a password and none is given", context: [server])
        } else if Self.isAboutSecurity(reason) {
            // Trying again cannot help, and going on without the protection asked for is out of the question.
            error = BridgeError(
                .authenticationFailed, reason, context: [server],
                hint: "correct sslmode and the certificates in the connection string")
        } else {
            error = BridgeError(.serverUnreachable, reason, context: [server])
        }
    }

    /// The SQLSTATE and the primary message in a verbose report: `FATAL:  28P01: password authentication failed …`.
    /// The severity before it may be in any language.
    static func sqlState(in text: String) -> (state: String, message: String)? {
        var found: (String, String)?
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: ":", omittingEmptySubsequences: false)
            for index in parts.indices.dropFirst().dropLast() {
                let word = parts[index].drop { $0 == " " }
                guard word.utf8.count == 5, parts[index].hasPrefix("  "),
                    word.utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) })
                else { continue }
                let message = parts[(index + 1)...].joined(separator: ":").drop { $0 == " " }
                // With several hosts the last refusal stands last.
                found = (String(word), String(message))
                break
            }
        }
        return found
    }

    /// libpq's own words, without the part that names the address, which the context has.
    private static func reason(in text: String) -> String {
        let line = text.split(separator: "\n").first.map(String.init) ?? "the server cannot be reached"
        if let range = line.ranges(of: " failed: ").last { return String(line[range.upperBound...]) }
        return line
    }

    /// Whether it is about keys, certificates and protection, not about a network that failed under a handshake.
    static func isAboutSecurity(_ reason: String) -> Bool {
        let network = ["SYSCALL", "closed unexpectedly", "closed the connection", "Connection reset", "EOF", "unexpected eof", "timeout"]
        guard !network.contains(where: { reason.contains($0) }) else { return false }
        return ["SSL", "certificate", "sslmode", "SCRAM", "channel binding", "authentication"].contains { reason.contains($0) }
    }
}

package import BridgeCore

/// Renders an error for people: `error: …`, the facts, the causes, then `try: …`.
package enum ErrorRenderer {
    package static func text(_ error: BridgeError, style: Style) -> String {
        var lines = [style.red("error:") + " " + headline(error)]
        var seen = [error.message]
        for cause in causes(of: error) where !seen.contains(where: { $0.contains(cause.message) }) {
            seen.append(cause.message)
            lines.append("  because \(cause.message)" + cause.facts)
        }
        lines.append(style.cyan("try:") + " " + error.hint)
        return lines.joined(separator: "\n")
    }

    /// The error as a member of a JSON report.
    package static func json(_ error: BridgeError) -> JSONValue {
        [
            "code": .string(error.code.rawValue),
            "message": .string(error.message),
            "context": .object(error.context.map { .init(name: $0.key.rawValue, value: .string($0.value)) }),
            "causes": .array(causes(of: error).map { .string($0.message) }),
            "hint": .string(error.hint),
            "exit_status": .integer(Int64(error.exitStatus.rawValue)),
        ]
    }

    /// Message and facts in one line.
    package static func headline(_ error: BridgeError) -> String { error.message + facts(error.context) }

    private static func facts(_ context: [ErrorContext]) -> String {
        guard !context.isEmpty else { return "" }
        return " (" + context.map { "\($0.key.rawValue): \($0.value)" }.joined(separator: ", ") + ")"
    }

    private static func causes(of error: BridgeError) -> [(message: String, facts: String)] {
        var result: [(message: String, facts: String)] = []
        var next = error.cause
        while let cause = next {
            if let known = cause as? BridgeError {
                result.append((known.message, facts(known.context.filter { !error.context.contains($0) })))
                next = known.cause
            } else {
                result.append(("\(cause)", ""))
                next = nil
            }
        }
        return result
    }
}

/// The one error type of the product: what happened, where, what to do next, and whether trying again can help.
///
/// A message says what is wrong in one sentence and never repeats its cause. Values of rows and passwords never enter
/// a message, a context or a cause; keys do not either, since a key can be a person's e-mail address.
package struct BridgeError: Error, Sendable {
    /// What happened, from a closed list that fixes hint, retry policy and exit status.
    package let code: ErrorCode
    /// One sentence, lower case, without a full stop.
    package let message: String
    /// Where: table, column, position, ordinal, conflict, file, offset, SQLSTATE. In the order given.
    package private(set) var context: [ErrorContext]
    /// A hint that knows more than the code's own.
    package let specificHint: String?
    /// What brought it about.
    package let cause: (any Error)?

    package init(
        _ code: ErrorCode, _ message: String, context: [ErrorContext] = [], hint: String? = nil,
        cause: (any Error)? = nil
    ) {
        self.code = code
        self.message = message
        self.context = context
        self.specificHint = hint
        self.cause = cause
    }

    /// The same error with one more fact about where it happened; a fact that it has already stays as it is.
    package func adding(_ key: ErrorContext.Key, _ value: String) -> BridgeError {
        guard !context.contains(where: { $0.key == key }) else { return self }
        var copy = self
        copy.context.append(ErrorContext(key, value))
        return copy
    }

    /// What the operator can do next.
    package var hint: String { specificHint ?? code.hint }
    package var retry: RetryPolicy { code.retry }
    package var exitStatus: ExitStatus { code.exitStatus }
}

/// One fact about where an error happened.
package struct ErrorContext: Hashable, Sendable {
    package enum Key: String, Sendable {
        case table, column, position, ordinal, conflict, file, offset, sqlstate, server, slot, migration, processes, option, detail
    }
    package let key: Key
    package let value: String

    package init(_ key: Key, _ value: String) {
        self.key = key
        self.value = value
    }
}

extension BridgeError: CustomStringConvertible {
    /// `message (table: public.users, sqlstate: 42P01)`, then the causes.
    package var description: String {
        var text = message
        if !context.isEmpty {
            text += " (" + context.map { "\($0.key.rawValue): \($0.value)" }.joined(separator: ", ") + ")"
        }
        if let cause { text += ": \(cause)" }
        return text
    }
}

/// Whether the same step, taken again, may succeed.
package enum RetryPolicy: Sendable {
    /// The cause may pass by itself: wait with growing, jittered delays and try again.
    case backoff
    /// Trying again cannot help; a person must act.
    case never
}

/// The exit statuses of the command line. `bridge help exit-codes` prints them.
package enum ExitStatus: Int32, CaseIterable, Sendable {
    case done = 0
    case inconsistent = 1
    case inconclusive = 2
    case usage = 64
    case badData = 65
    case unavailable = 69
    case internalFault = 70
    case inputOutput = 74
    case tryAgain = 75
    case rights = 77
    case configuration = 78
    case interrupted = 130

    /// What the status means, for the table that `bridge help exit-codes` prints.
    package var meaning: String {
        switch self {
        case .done: "done, or consistent"
        case .inconsistent: "inconsistent, or a gate is shut"
        case .inconclusive: "inconclusive"
        case .usage: "the command line is wrong"
        case .badData: "the journal is damaged or foreign, or data cannot be carried over"
        case .unavailable: "a server cannot be reached"
        case .internalFault: "a fault of bridge itself"
        case .inputOutput: "a file could not be read or written"
        case .tryAgain: "try again later"
        case .rights: "rights are missing, or authentication failed"
        case .configuration: "the configuration, or a database's settings, must be changed"
        case .interrupted: "interrupted"
        }
    }
}

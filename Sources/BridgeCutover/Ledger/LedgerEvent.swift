import Foundation

/// What an entry of the ledger says. The kind of the entry names the case, its content holds the rest as JSON.
package enum LedgerEvent: Hashable, Sendable {
    /// The intent: nothing has been done yet.
    case begin(Attempt)
    case done(Step, seconds: Double)
    case failed(Step, message: String)
    /// The attempt goes back, and why.
    case abort(String)
    case end(succeeded: Bool)
    /// A gate that was shut and was passed by an operator's word.
    case overridden(gate: String, measured: String, reason: String)
    /// Rows of the target that were rewritten out of the source.
    case repaired(table: String, rows: Int64)
    /// The migration ends: everything that was made for it is removed. Completed, or cancelled.
    case closing(completed: Bool)

    package enum Kind: String, Sendable { case begin, done, failed, abort, end, overridden, repaired, closing }

    package var kind: Kind {
        switch self {
        case .begin: .begin
        case .done: .done
        case .failed: .failed
        case .abort: .abort
        case .end: .end
        case .overridden: .overridden
        case .repaired: .repaired
        case .closing: .closing
        }
    }

    /// All that any kind has; each uses its own.
    private struct Content: Codable {
        var attempt: Attempt?
        var step: Step?
        var seconds: Double?
        var message: String?
        var succeeded: Bool?
        var gate: String?
        var measured: String?
        var reason: String?
        var table: String?
        var rows: Int64?
    }

    /// One line of JSON with sorted keys.
    package var content: String {
        var content = Content()
        switch self {
        case .begin(let attempt): content.attempt = attempt
        case .done(let step, let seconds): (content.step, content.seconds) = (step, seconds)
        case .failed(let step, let message): (content.step, content.message) = (step, message)
        case .abort(let why): content.reason = why
        case .end(let succeeded): content.succeeded = succeeded
        case .overridden(let gate, let measured, let reason):
            (content.gate, content.measured, content.reason) = (gate, measured, reason)
        case .repaired(let table, let rows): (content.table, content.rows) = (table, rows)
        case .closing(let completed): content.succeeded = completed
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // Nothing in it can fail to be encoded: numbers are measured times, and finite.
        return (try? encoder.encode(content)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
    }

    /// Nil for what no version of this program wrote.
    package init?(kind: String, content: String) {
        guard let kind = Kind(rawValue: kind), let content = try? JSONDecoder().decode(Content.self, from: Data(content.utf8))
        else { return nil }
        switch kind {
        case .begin:
            guard let attempt = content.attempt else { return nil }
            self = .begin(attempt)
        case .done:
            guard let step = content.step, let seconds = content.seconds else { return nil }
            self = .done(step, seconds: seconds)
        case .failed:
            guard let step = content.step, let message = content.message else { return nil }
            self = .failed(step, message: message)
        case .abort:
            guard let reason = content.reason else { return nil }
            self = .abort(reason)
        case .end:
            guard let succeeded = content.succeeded else { return nil }
            self = .end(succeeded: succeeded)
        case .overridden:
            guard let gate = content.gate, let measured = content.measured, let reason = content.reason else { return nil }
            self = .overridden(gate: gate, measured: measured, reason: reason)
        case .repaired:
            guard let table = content.table, let rows = content.rows else { return nil }
            self = .repaired(table: table, rows: rows)
        case .closing:
            guard let completed = content.succeeded else { return nil }
            self = .closing(completed: completed)
        }
    }
}

package import BridgeCore

/// What happens in an attempt, as it happens.
package enum CutoverEvent: Sendable {
    case began(Attempt)
    case started(Step)
    case done(Step, Duration)
    case failed(Step, BridgeError)
    /// Something that may pass is in the way: a step that cannot be undone, the ledger or a look at the databases is tried
    /// again, for so long at the most. Said once until there is a step further, or something else in the way.
    case waiting(BridgeError, Duration)
    case abort(String)
    case ended(succeeded: Bool)
}

/// What came of an attempt.
package struct CutoverOutcome: Sendable {
    package var attempt: Attempt
    package var succeeded: Bool
    /// Why it went back.
    package var reason: String?
    /// The first error, if one was the reason.
    package var error: BridgeError?
    /// How long the application could write nowhere; nil if it always could.
    package var pause: Duration?
    /// In the order in which they were done.
    package var steps: [(step: Step, seconds: Double)]
}

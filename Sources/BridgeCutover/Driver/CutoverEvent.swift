package import BridgeCore

/// What happens in an attempt, as it happens.
package enum CutoverEvent: Sendable {
    case began(Attempt)
    case started(Step)
    case done(Step, Duration)
    case failed(Step, BridgeError)
    /// A step that cannot be undone is tried again.
    case retrying(Step, BridgeError)
    case abort(String)
    case ended(succeeded: Bool)
    /// Something that does not stop the attempt, and should be known.
    case warning(String)
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

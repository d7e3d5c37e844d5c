/// A condition did not come true before its deadline.
package struct DeadlinePassed: Error, CustomStringConvertible {
    package let description: String
}

/// Waits until a condition holds, asking again every few milliseconds.
/// - Throws: ``DeadlinePassed`` if it does not come true in time; whatever the condition throws.
package func waitUntil(
    deadline: Duration = .seconds(30), _ what: @autoclosure () -> String = "the condition",
    isolation: isolated (any Actor)? = #isolation, condition: () async throws -> Bool
) async throws {
    let end = ContinuousClock.now + deadline
    while true {
        if try await condition() { return }
        guard ContinuousClock.now < end else {
            throw DeadlinePassed(description: "\(what()) did not come true within \(deadline)")
        }
        try await Task.sleep(for: .milliseconds(5))
    }
}

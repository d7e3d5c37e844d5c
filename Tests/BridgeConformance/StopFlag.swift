import Synchronization

/// A flag that one task raises and another looks at.
package final class StopFlag: Sendable {
    private let state = Mutex(false)
    package init() {}
    package var isSet: Bool { state.withLock { $0 } }
    package func set() { state.withLock { $0 = true } }
}

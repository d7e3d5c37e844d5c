import Synchronization

/// A request to stop in good order, which any thread may make and every loop looks at.
final class StopSignal: Sendable {
    private struct State {
        var isRequested = false
        var nextRegistration = 0
        var callbacks: [Int: @Sendable () -> Void] = [:]
    }
    private let state = Mutex(State())

    var isRequested: Bool { state.withLock { $0.isRequested } }

    /// Asks every loop to stop. Asking again changes nothing.
    func request() {
        let callbacks = state.withLock { state in
            state.isRequested = true
            let callbacks = state.callbacks.values
            state.callbacks = [:]
            return Array(callbacks)
        }
        for callback in callbacks { callback() }
    }

    /// Calls `callback` once when a stop is requested; at once if it was already.
    func onRequest(_ callback: @escaping @Sendable () -> Void) -> Int {
        let registration: Int? = state.withLock { state in
            guard !state.isRequested else { return nil }
            state.nextRegistration += 1
            state.callbacks[state.nextRegistration] = callback
            return state.nextRegistration
        }
        if registration == nil { callback() }
        return registration ?? 0
    }

    func forget(_ registration: Int) { state.withLock { _ = $0.callbacks.removeValue(forKey: registration) } }

    /// Runs `body` as a task that is cancelled when a stop is requested.
    func cancelling<Value: Sendable>(_ body: @escaping @Sendable () async -> Value) async -> Value {
        let task = Task { await body() }
        let registration = onRequest { task.cancel() }
        defer { forget(registration) }
        return await withTaskCancellationHandler { await task.value } onCancel: { task.cancel() }
    }

    /// Sleeps, but not beyond a stop.
    func sleep(_ duration: Duration) async {
        guard !isRequested, !Task.isCancelled else { return }
        await cancelling { try? await Task.sleep(for: duration) }
    }
}

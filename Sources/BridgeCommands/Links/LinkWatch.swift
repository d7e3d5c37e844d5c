import BridgeCore
import Synchronization

/// Looks at what both databases hold of a migration's links, several times a second: two queries by primary key, over a
/// connection to each side that is held open. Connections are its own, so that a database that does not answer holds up
/// nothing else.
final class LinkWatch: Sendable {
    private struct State {
        var isEnding = false
        var hasEnded = true
        /// The look that was asked for last.
        var wanted = 0
        /// The pause between two looks.
        var pause: Task<Void, Never>?
    }

    private let configuration: Configuration
    /// The migration's target, where the way forward has its records, and its source, where the way back has them.
    private let holders: (forward: any TargetConnector, reverse: any TargetConnector)
    private let interval: Duration
    private let state = Mutex(State())

    init(_ configuration: Configuration, _ registry: ConnectorRegistry, interval: Duration) throws(BridgeError) {
        self.configuration = configuration
        self.interval = interval
        holders = (try registry.target(configuration.target), try registry.target(configuration.source))
    }

    /// Looks until ``end()``.
    /// - Parameter see: gets what was seen, and which look had been asked for when this one began.
    func run(_ see: @Sendable (LinkRecords, Int) -> Void) async {
        state.withLock { $0.hasEnded = false }
        while !isEnding {
            let number = state.withLock { $0.wanted }
            let seen = await look()
            if isEnding { break }
            see(seen, number)
            // A side that does not answer is not pressed.
            let pause = seen.forward == .unknown || seen.reverse == .unknown ? max(interval, .seconds(1)) : interval
            await wait(pause, unlessAskedAfter: number)
        }
        await holders.forward.close()
        await holders.reverse.close()
        state.withLock { $0.hasEnded = true }
    }

    /// Waits for so long, or until another look is asked for, or none.
    private func wait(_ time: Duration, unlessAskedAfter number: Int) async {
        let pause = Task { _ = try? await Task.sleep(for: time) }
        let isWaiting = state.withLock { state in
            state.pause = pause
            return !state.isEnding && state.wanted == number
        }
        if !isWaiting { pause.cancel() }
        await withTaskCancellationHandler { await pause.value } onCancel: { pause.cancel() }
    }

    private func look() async -> LinkRecords {
        let forward = configuration.link()
        async let there = Self.sight(of: forward, on: holders.forward)
        async let here = Self.sight(of: forward.opposite, on: holders.reverse)
        return LinkRecords(forward: await there, reverse: await here)
    }

    static func sight(of link: LinkDescription, on holder: any TargetConnector) async -> LinkRecords.Sight {
        do throws(BridgeError) {
            try await holder.connect()
            return try await holder.linkOrigin(link).map { .present($0) } ?? .absent
        } catch { return .unknown }
    }

    /// Asks for a look now.
    /// - Parameter number: what the look is told by; rises.
    func hurry(_ number: Int) {
        state.withLock { state in
            state.wanted = number
            return state.pause
        }?.cancel()
    }

    private var isEnding: Bool { state.withLock { $0.isEnding } }

    /// Ends it; does not wait for a database that does not answer.
    func end(patience: Duration = .seconds(2)) async {
        state.withLock { state in
            state.isEnding = true
            return state.pause
        }?.cancel()
        let deadline = ContinuousClock.now + patience
        while !state.withLock({ $0.hasEnded }), ContinuousClock.now < deadline {
            try? await Task.sleep(for: .milliseconds(5))
        }
    }
}

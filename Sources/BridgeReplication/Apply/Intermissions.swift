package import BridgeCore
import Synchronization

/// Work that is done with the link's applier while it stands between two transactions.
final class Intermissions: Sendable {
    private struct State {
        var waiting: [Turn] = []
        var isOver = false
    }
    private let state = Mutex(State())

    /// A turn is void if the link is over, and ends unused when nobody holds it any more.
    func add(_ turn: Turn) { state.withLock { if !$0.isOver { $0.waiting.append(turn) } } }

    func next() -> Turn? { state.withLock { $0.waiting.isEmpty ? nil : $0.waiting.removeFirst() } }

    /// Nothing comes any more.
    func end() {
        let left = state.withLock { state in
            state.isOver = true
            defer { state.waiting = [] }
            return state.waiting
        }
        withExtendedLifetime(left) {}
    }
}

/// One piece of work that waits for its turn. However it gets lost, whoever waits for it hears of it.
final class Turn: Sendable {
    private let body: @Sendable (any ChangeApplier, Checkpoint) async -> Void
    private let unused: Mutex<(@Sendable () -> Void)?>

    /// - Parameter unused: called if the turn never comes.
    init(
        _ body: @escaping @Sendable (any ChangeApplier, Checkpoint) async -> Void, unused: @escaping @Sendable () -> Void
    ) {
        self.body = body
        self.unused = Mutex(unused)
    }

    func take(_ applier: any ChangeApplier, _ checkpoint: Checkpoint) async {
        unused.withLock { $0 = nil }
        await body(applier, checkpoint)
    }

    deinit { unused.withLock { $0 }?() }
}

extension LinkRunner {
    /// Lets `body` use the link's applier between two transactions: whatever it applies goes the applier's own way, and
    /// the target meanwhile stands still at the checkpoint that it is given. Capture and journal go on.
    /// - Returns: nil if the link ended before its turn came.
    package func betweenTransactions<Result: Sendable>(
        _ body: @escaping @Sendable (any ChangeApplier, Checkpoint) async -> Result
    ) async -> Result? {
        await withCheckedContinuation { continuation in
            intermissions.add(
                Turn { continuation.resume(returning: await body($0, $1)) } unused: {
                    continuation.resume(returning: nil)
                })
        }
    }
}

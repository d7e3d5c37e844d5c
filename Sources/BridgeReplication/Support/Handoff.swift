import Synchronization

/// Hands elements from one task to another, one at a time.
///
/// The sender can ask whether the receiver is waiting, so that it goes on collecting while nobody wants what it has:
/// batches grow exactly when the target is the slower side.
final class Handoff<Element: Sendable>: Sendable {
    private struct State {
        var slot: Element?
        var receiver: CheckedContinuation<Element?, Never>?
        var sender: CheckedContinuation<Bool, Never>?
        var isClosed = false
    }
    private let state = Mutex(State())

    /// Waits until the receiver wants an element; false when closed.
    func waitUntilWanted() async -> Bool {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let answer: Bool? = state.withLock { state in
                    if state.isClosed { return false }
                    if state.receiver != nil { return true }
                    state.sender = continuation
                    return nil
                }
                if let answer { continuation.resume(returning: answer) }
            }
        } onCancel: {
            close()
        }
    }

    /// Whether nothing can be handed over any more.
    var isClosed: Bool { state.withLock { $0.isClosed } }

    /// Whether the receiver is waiting now.
    var isWanted: Bool { state.withLock { $0.receiver != nil } }

    /// Gives an element to the receiver, waiting until it takes it; false when closed, the element is then dropped.
    func send(_ element: Element) async -> Bool {
        guard await waitUntilWanted() else { return false }
        let receiver = state.withLock { state in
            let receiver = state.receiver
            state.receiver = nil
            if receiver == nil { state.slot = element }
            return receiver
        }
        receiver?.resume(returning: element)
        return true
    }

    /// The next element; nil when closed.
    func receive() async -> Element? {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let (answer, sender): (Element??, CheckedContinuation<Bool, Never>?) = state.withLock { state in
                    if let element = state.slot {
                        state.slot = nil
                        return (.some(.some(element)), nil)
                    }
                    if state.isClosed { return (.some(nil), nil) }
                    state.receiver = continuation
                    let sender = state.sender
                    state.sender = nil
                    return (nil, sender)
                }
                sender?.resume(returning: true)
                if let answer { continuation.resume(returning: answer) }
            }
        } onCancel: {
            close()
        }
    }

    /// Ends the exchange; both sides are woken. What was sent before is still received.
    func close() {
        let (receiver, sender) = state.withLock { state in
            state.isClosed = true
            let pair = (state.receiver, state.sender)
            state.receiver = nil
            state.sender = nil
            return pair
        }
        receiver?.resume(returning: nil)
        sender?.resume(returning: false)
    }
}

import BridgeCore
import Logging
import Synchronization

/// Giving a capture up: stop it in good order, write that down, drop it, and end the run even where the target, whose
/// silence may be why it came to this, holds the applier up.
final class SlotSurrender: Sendable {
    private let link: LinkDescription
    private let origin: CaptureOrigin
    private let source: any SourceConnector
    private let stop: StopSignal
    private let logger: Logger
    /// Requested when the capture loop has ended.
    let captureEnded = StopSignal()
    private let isDone = StopSignal()
    /// How long the applier may take to finish its batch.
    private static let patience = Duration.seconds(3)

    init(link: LinkDescription, origin: CaptureOrigin, source: any SourceConnector, stop: StopSignal, logger: Logger) {
        self.link = link
        self.origin = origin
        self.source = source
        self.stop = stop
        self.logger = logger
    }

    /// - Returns: what the run ends with.
    func carryOut(_ limit: SlotLimit, _ reason: BridgeError) async -> BridgeError {
        logger.error("\(reason)")
        stop.request()
        while !captureEnded.isRequested { await captureEnded.sleep(.seconds(60)) }
        defer { isDone.request() }
        do throws(BridgeError) {
            // First the record: a slot that is gone without one would look like somebody else's doing.
            try limit.record(origin, reason)
            try await source.removeCapture(link)
            return reason
        } catch {
            logger.error("the slot could not be dropped, and still holds the source's log: \(error)")
            return BridgeError(
                .slotLimit, "the source keeps more log for the link than it may, and the slot could not be dropped",
                context: [.init(.slot, link.identifier)],
                hint: "run the command again, or drop the slot with: SELECT pg_drop_replication_slot('\(link.identifier)')",
                cause: error)
        }
    }

    /// Runs it to its end; but once the capture was given up for a few seconds more, and then leaves it to itself.
    func outlasting<Value: Sendable>(_ otherwise: Value, _ body: @escaping @Sendable () async -> Value) async -> Value {
        await withCheckedContinuation { continuation in
            let first = FirstAnswer(continuation)
            let registration = isDone.onRequest {
                Task {
                    try? await Task.sleep(for: Self.patience)
                    first.give(otherwise)
                }
            }
            Task {
                first.give(await body())
                self.isDone.forget(registration)
            }
        }
    }
}

/// Resumes a continuation once.
final class FirstAnswer<Value: Sendable>: Sendable {
    private let continuation: Mutex<CheckedContinuation<Value, Never>?>

    init(_ continuation: CheckedContinuation<Value, Never>?) { self.continuation = Mutex(continuation) }

    func give(_ value: Value) { continuation.withLock { $0.take() }?.resume(returning: value) }
}

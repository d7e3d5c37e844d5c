import BridgeCore
import BridgeJournal
import Logging
import Synchronization

/// Moves a source's transactions into the journal, and tells the source what is durable there.
///
/// Two tasks work side by side: one receives and writes, the other syncs and acknowledges. So the source goes on sending
/// while the disk is busy, and one sync serves all that was written during the one before.
struct CaptureLoop: Sendable {
    let link: LinkDescription
    let origin: CaptureOrigin
    let source: any SourceConnector
    let journal: JournalWriter
    let board: ProgressBoard
    let stop: StopSignal
    let logger: Logger
    let patience: Duration?
    /// Removes applied segments at once, whatever their age; called when the journal's budget is used up.
    let makeRoom: @Sendable () async throws(BridgeError) -> Void

    /// Bytes received before they are written.
    private static let readLimit = 1 << 20

    /// Captures until told to stop. Lost connections are made anew.
    func run() async throws(BridgeError) {
        var backoff = Backoff(patience: patience)
        while !stop.isRequested {
            do throws(BridgeError) {
                try await capture(&backoff)
                return
            } catch {
                let delay = try backoff.delay(after: error)
                logger.warning("capture was interrupted and continues in \(delay): \(error)")
                board.update {
                    $0.reconnects += 1
                    $0.trouble = "source: \(error)"
                }
                await stop.sleep(delay)
            }
        }
    }

    private func capture(_ backoff: inout Backoff) async throws(BridgeError) {
        try await voidOpenTransaction()
        let durable = try await journal.sync()
        let session = try await source.openCapture(link, origin: origin, durable: durable.frontier)
        logger.info("capture continues", metadata: ["from": "\(source.describe(durable.frontier))"])
        let syncing = SyncRequests()
        let registration = stop.onRequest { session.interrupt() }
        defer { stop.forget(registration) }
        let failure: BridgeError? = await withTaskGroup(of: BridgeError?.self) { group in
            group.addTask { await self.syncWhileWanted(syncing, session) }
            var received: BridgeError?
            do throws(BridgeError) { try await receive(session, syncing, &backoff) } catch { received = error }
            syncing.close()
            for await outcome in group where outcome != nil { received = received ?? outcome }
            return received
        }
        await session.close()
        if let failure { throw failure }
    }

    /// A transaction that a lost connection cut off is sent again from its beginning.
    private func voidOpenTransaction() async throws(BridgeError) {
        guard journal.written.isInsideTransaction else { return }
        let buffer = RecordBuffer()
        buffer.appendAbandon()
        _ = try await journal.append(buffer)
    }

    private func receive(
        _ session: any CaptureSession, _ syncing: SyncRequests, _ backoff: inout Backoff
    ) async throws(BridgeError) {
        let buffer = RecordBuffer(capacity: Self.readLimit + (64 << 10))
        var lastFrontierWrite = ContinuousClock.now
        while !stop.isRequested {
            buffer.removeAll()
            let read = try await session.read(into: buffer, limit: Self.readLimit, patience: .milliseconds(500))
            if let failure = syncing.failure { throw failure }
            backoff.reset()
            if buffer.isEmpty, !read.isInsideTransaction, read.frontier > journal.written.frontier,
                lastFrontierWrite.duration(to: .now) > .seconds(1)
            {
                // The source may forget what it wrote for others; before it is told so, the journal says why.
                buffer.appendFrontier(read.frontier, time: .now)
                lastFrontierWrite = .now
            }
            if !buffer.isEmpty {
                try Failpoint.captureReceived.hit()
                try await write(buffer, session)
                syncing.request()
            }
            board.captured(read, journal: journal.written)
            board.update { $0.trouble = nil }
        }
    }

    /// Writes to the journal; while its budget is used up, waits and keeps the source's connection alive.
    private func write(_ buffer: RecordBuffer, _ session: any CaptureSession) async throws(BridgeError) {
        var isWaiting = false
        while true {
            do throws(BridgeError) {
                _ = try await journal.write(buffer)
                return
            } catch {
                guard error.code == .journalBudget, !stop.isRequested else { throw error }
                if !isWaiting { logger.warning("the journal's budget is used up; capture waits for the applier") }
                isWaiting = true
                board.update { $0.trouble = "the journal's budget is used up" }
            }
            try await makeRoom()
            _ = try await session.read(into: RecordBuffer(), limit: 0, patience: .milliseconds(200))
        }
    }

    private func syncWhileWanted(_ syncing: SyncRequests, _ session: any CaptureSession) async -> BridgeError? {
        while await syncing.next() {
            do throws(BridgeError) {
                let durable = try await journal.sync()
                try Failpoint.captureAcknowledge.hit()
                session.acknowledge(durable.frontier)
                board.durable(durable, bytes: journal.bytesOnDisk)
            } catch {
                syncing.fail(error)
                session.interrupt()
                return error
            }
        }
        return nil
    }
}

/// Says that something waits to be synced. Requests made while a sync runs are served by one more.
private final class SyncRequests: Sendable {
    private struct State {
        var isWanted = false
        var isClosed = false
        var failure: BridgeError?
        var waiter: CheckedContinuation<Void, Never>?
    }
    private let state = Mutex(State())

    func request() { wake { $0.isWanted = true } }
    func close() { wake { $0.isClosed = true } }
    func fail(_ error: BridgeError) { wake { $0.failure = error } }
    var failure: BridgeError? { state.withLock { $0.failure } }

    /// Waits for a request; false once closed with none left.
    func next() async -> Bool {
        while true {
            let answer: Bool? = state.withLock { state in
                if state.isWanted {
                    state.isWanted = false
                    return true
                }
                return state.isClosed ? false : nil
            }
            if let answer { return answer }
            await withCheckedContinuation { continuation in
                let isReady = state.withLock { state in
                    if state.isWanted || state.isClosed { return true }
                    state.waiter = continuation
                    return false
                }
                if isReady { continuation.resume() }
            }
        }
    }

    private func wake(_ change: (inout State) -> Void) {
        let waiter = state.withLock { state in
            change(&state)
            let waiter = state.waiter
            state.waiter = nil
            return waiter
        }
        waiter?.resume()
    }
}

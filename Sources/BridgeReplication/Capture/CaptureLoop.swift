import BridgeCore
import BridgeJournal
import Logging
import Synchronization

/// Moves a source's transactions into the journal, and tells the source what is durable there.
///
/// Three tasks work side by side: one receives, one compresses and writes, one syncs and acknowledges. So the source goes
/// on sending while the journal is busy, and one sync serves all that was written during the one before.
struct CaptureLoop: Sendable {
    let link: LinkDescription
    let origin: CaptureOrigin
    let source: any SourceConnector
    let journal: JournalWriter
    let workspace: CaptureWorkspace?
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
        try await Retrying(work: "capture", patience: patience, board: board, stop: stop, logger: logger)
            .run { (backoff) async throws(BridgeError) in try await capture(&backoff) }
    }

    private func capture(_ backoff: inout Backoff) async throws(BridgeError) {
        try await voidOpenTransaction()
        let durable = try await journal.sync()
        let session = try await source.openCapture(link, origin: origin, durable: durable.frontier, workspace: workspace)
        board.update { $0.trouble = nil }
        board.isCapturing = true
        defer { board.isCapturing = false }
        logger.info("capture continues", metadata: ["from": "\(source.describe(durable.frontier))"])
        let syncing = SyncRequests()
        let reads = Handoff<Received>()
        let pool = BufferPool(count: 2, capacity: Self.readLimit + (64 << 10))
        let registration = stop.onRequest { session.interrupt() }
        defer { stop.forget(registration) }
        let failure = FirstFailure { reads.close(); session.interrupt() }
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                do throws(BridgeError) { try await self.syncWhileWanted(syncing, session) } catch { failure.record(error) }
            }
            group.addTask {
                do throws(BridgeError) { try await self.writeAll(reads, syncing, pool) } catch {
                    failure.record(error)
                }
                // It may end before the receiver does, and nobody would take what that has in its hand.
                reads.close()
                syncing.close()
            }
            do throws(BridgeError) { try await receive(session, reads, pool, &backoff) } catch { failure.record(error) }
            reads.close()
        }
        await session.close()
        if let error = failure.error { throw error }
    }

    /// What one read brought, on its way to the journal.
    private struct Received: Sendable {
        let buffer: RecordBuffer
        let read: CaptureProgress
    }

    /// A transaction that a lost connection cut off is sent again from its beginning.
    private func voidOpenTransaction() async throws(BridgeError) {
        guard journal.written.isInsideTransaction else { return }
        let buffer = RecordBuffer()
        buffer.appendAbandon()
        _ = try await journal.append(buffer, exceedingBudget: true)
    }

    /// How often an idle link's journal says how far the source is, unless somebody waits for it.
    private static let frontierPause: Duration = .milliseconds(100)

    private func receive(
        _ session: any CaptureSession, _ reads: Handoff<Received>, _ pool: BufferPool, _ backoff: inout Backoff
    ) async throws(BridgeError) {
        var isBehind = false
        var lastFrontier = (position: journal.written.frontier, time: ContinuousClock.now)
        while !stop.isRequested {
            let buffer = pool.take()
            let read = try await session.read(
                into: buffer, limit: Self.readLimit, patience: isBehind ? Self.frontierPause : .milliseconds(500))
            backoff.reset()
            if !read.isInsideTransaction, read.frontier > lastFrontier.position,
                read.isAwaited || (buffer.isEmpty && lastFrontier.time.duration(to: .now) >= Self.frontierPause)
            {
                // The source may forget what it wrote for others; before it is told so, the journal says why.
                buffer.appendFrontier(read.frontier, time: .now)
            }
            if !buffer.isEmpty {
                lastFrontier = (read.frontier, .now)
                try Failpoint.captureReceived.hit()
            }
            isBehind = read.frontier > lastFrontier.position
            guard await reads.send(Received(buffer: buffer, read: read)) else { return }
        }
    }

    private func writeAll(
        _ reads: Handoff<Received>, _ syncing: SyncRequests, _ pool: BufferPool
    ) async throws(BridgeError) {
        while let received = await reads.receive() {
            if !received.buffer.isEmpty {
                guard try await write(received.buffer) else { return }
                syncing.request()
            }
            board.captured(received.read, journal: journal.written)
            pool.put(received.buffer)
        }
    }

    /// Writes to the journal; while its budget is used up, waits for the applier to make room.
    /// - Returns: false if a stop was requested while waiting; nothing was written then, nor may anything be after it.
    private func write(_ buffer: RecordBuffer) async throws(BridgeError) -> Bool {
        var isWaiting = false
        while true {
            do throws(BridgeError) {
                _ = try await journal.write(buffer)
                if isWaiting { board.update { $0.trouble = nil } }
                return true
            } catch {
                guard error.code == .journalBudget else { throw error }
            }
            // All that is left is the transaction at hand, which can go only when its end has come.
            if journal.written.isInsideTransaction, board.hasAppliedAllCommits {
                logger.warning("a transaction is larger than the journal's budget, which is exceeded until it ends")
                _ = try await journal.write(buffer, exceedingBudget: true)
                return true
            }
            guard !stop.isRequested else { return false }
            if !isWaiting { logger.warning("the journal's budget is used up; capture waits for the applier") }
            isWaiting = true
            board.update { $0.trouble = "the journal's budget is used up" }
            try await makeRoom()
            await stop.sleep(.milliseconds(200))
        }
    }

    private func syncWhileWanted(_ syncing: SyncRequests, _ session: any CaptureSession) async throws(BridgeError) {
        while await syncing.next() {
            let durable = try await journal.sync()
            try Failpoint.captureAcknowledge.hit()
            session.acknowledge(durable.frontier)
            board.durable(durable, bytes: journal.bytesOnDisk)
        }
    }
}

/// The first error of several tasks that work together, which ends them all.
private final class FirstFailure: Sendable {
    private let state = Mutex<BridgeError?>(nil)
    private let end: @Sendable () -> Void

    init(end: @escaping @Sendable () -> Void) { self.end = end }

    var error: BridgeError? { state.withLock { $0 } }

    func record(_ error: BridgeError) {
        state.withLock { $0 = $0 ?? error }
        end()
    }
}

/// Says that something waits to be synced. Requests made while a sync runs are served by one more.
private final class SyncRequests: Sendable {
    private struct State {
        var isWanted = false
        var isClosed = false
        var waiter: CheckedContinuation<Void, Never>?
    }
    private let state = Mutex(State())

    func request() { wake { $0.isWanted = true } }
    func close() { wake { $0.isClosed = true } }

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

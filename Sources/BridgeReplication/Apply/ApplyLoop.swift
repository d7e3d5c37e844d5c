import BridgeCore
import BridgeJournal
import Logging

/// Replays the journal into a target.
///
/// One task reads and cuts batches while the other applies; a batch grows as long as the target is busy with the one
/// before, so that a target that falls behind gets fewer and larger transactions.
struct ApplyLoop: Sendable {
    let configuration: LinkConfiguration
    let target: any TargetConnector
    let journal: JournalWriter
    let board: ProgressBoard
    let stop: StopSignal
    let logger: Logger
    let intermissions: Intermissions

    /// What the reading task hands to the applying one.
    private enum Order: Sendable {
        case apply(ChangeBatch)
        case rollback
        case intermission(Turn)
    }

    /// Applies until told to stop. Lost connections are made anew, from the checkpoint that the target then has. A change
    /// that cannot be applied is tried again a few times where that can help, and then ends it, unless it may be left out.
    func run() async throws(BridgeError) {
        var refusals = Refusals()
        while !stop.isRequested {
            do throws(BridgeError) {
                let before = refusals
                return try await Retrying(
                    work: "applying", patience: configuration.patience, board: board, stop: stop, logger: logger
                ).run { (backoff) async throws(BridgeError) in try await apply(before, &backoff) }
            } catch {
                switch refusals.verdict(on: error, policy: configuration.onConflict, applied: board.current.applied) {
                case .tryAgain(let pause):
                    board.update { $0.trouble = "applying: \(error)" }
                    logger.warning("a change could not be applied, and is tried again in \(pause): \(error)")
                    await stop.sleep(pause)
                case .leaveOut(let position):
                    guard try await leaveOut(position, error, &refusals) else { throw await stopping(error) }
                case .stop: throw await stopping(error)
                }
            }
        }
    }

    private func apply(_ refusals: Refusals, _ backoff: inout Backoff) async throws(BridgeError) {
        guard let state = try await target.linkState(configuration.link), let checkpoint = state.checkpoint else {
            throw BridgeError(.internalFault, "the target has no checkpoint although the copy is finished")
        }
        let passedOver = try await decisions(state.origin) + refusals.leftOut
        board.startedApplying(at: checkpoint)
        let frontier = checkpoint.frontier.commit
        let reader = try await journal.makeReader(after: Position(commit: frontier == 0 ? 0 : frontier - 1))
        let failure: BridgeError?
        do throws(BridgeError) {
            let applier = try await target.openApplier(configuration.link, onConflict: configuration.onConflict)
            // What it waited for is there again, though there may be nothing to apply for long.
            if !refusals.isTrying(at: board.current.applied) { board.update { $0.trouble = nil } }
            failure = await exchange(reader, applier, state, checkpoint, passedOver, &backoff)
            await applier.close()
        } catch { failure = error }
        await reader.close()
        if let failure { throw failure }
    }

    /// Runs both tasks until one fails or a stop is requested.
    private func exchange(
        _ reader: JournalReader, _ applier: any ChangeApplier, _ state: LinkState, _ checkpoint: Checkpoint,
        _ passedOver: [PassedChange], _ backoff: inout Backoff
    ) async -> BridgeError? {
        let orders = Handoff<Order>()
        let pool = BufferPool(count: 3, capacity: configuration.batchBytes + (64 << 10))
        let builder = BatchBuilder(
            bound: configuration.batchBytes, applied: checkpoint.frontier,
            copied: state.tables.mapValues(\.position), relations: reader.relations, passedOver: passedOver,
            output: pool.take())
        let registration = stop.onRequest { orders.close() }
        defer { stop.forget(registration) }
        return await withTaskGroup(of: BridgeError?.self) { group in
            group.addTask {
                defer { orders.close() }
                do throws(BridgeError) {
                    try await self.cut(reader, builder, orders, pool)
                    return nil
                } catch { return error }
            }
            var failure: BridgeError?
            do throws(BridgeError) { try await carryOut(orders, applier, checkpoint, pool, &backoff) } catch { failure = error }
            orders.close()
            for await outcome in group { failure = failure ?? outcome }
            return failure
        }
    }

    private func carryOut(
        _ orders: Handoff<Order>, _ applier: any ChangeApplier, _ start: Checkpoint, _ pool: BufferPool,
        _ backoff: inout Backoff
    ) async throws(BridgeError) {
        var checkpoint = start
        var standing = try await configuration.conflicts?.stop()
        while !stop.isRequested, let order = await orders.receive() {
            switch order {
            case .rollback: try await applier.rollback()
            case .apply(let batch):
                do throws(BridgeError) { try await applier.apply(batch) } catch { throw error.passingByItself }
                if let stop = standing, let end = batch.checkpoint, stop.position < end.frontier {
                    try await configuration.conflicts?.clearStop()
                    standing = nil
                }
                checkpoint = batch.checkpoint ?? checkpoint
                board.applied(batch, bytes: batch.records.count)
                board.update { $0.trouble = nil }
                pool.put(batch.records)
            case .intermission(let turn): await turn.take(applier, checkpoint)
            }
            backoff.reset()
        }
    }

    private func cut(
        _ reader: JournalReader, _ start: BatchBuilder, _ orders: Handoff<Order>, _ pool: BufferPool
    ) async throws(BridgeError) {
        var builder = start
        let input = RecordBuffer(capacity: 2 << 20)
        // When the other task fails it closes the exchange; nobody then waits here for a change that may never come.
        while !stop.isRequested, !orders.isClosed {
            if !builder.isOpenOnTarget, let turn = intermissions.next() {
                guard await orders.send(.intermission(turn)) else { return }
            }
            input.removeAll()
            if try await reader.read(into: input, limit: 1 << 20) == 0 {
                guard builder.hasComplete else {
                    _ = await stop.cancelling { await reader.waitForData(patience: .milliseconds(200)) }
                    continue
                }
                // Nothing more at hand. Once the target wants it, what has come meanwhile is read first.
                if !orders.isWanted {
                    guard await orders.waitUntilWanted() else { return }
                    continue
                }
                guard try await handOut(&builder, orders, pool) else { return }
                continue
            }
            var offset = 0
            while offset < input.count {
                let rest = UnsafeRawBufferPointer(rebasing: input.bytes[offset...])
                let (consumed, action) = try builder.consume(rest)
                offset += consumed
                if case .rollback = action, await !orders.send(.rollback) { return }
                while builder.isFull { guard try await handOut(&builder, orders, pool) else { return } }
            }
        }
    }

    /// Hands out the next batch; false when nobody takes it any more.
    private func handOut(
        _ builder: inout BatchBuilder, _ orders: Handoff<Order>, _ pool: BufferPool
    ) async throws(BridgeError) -> Bool {
        guard let batch = builder.takeBatch(replacement: pool.take()) else { return true }
        // A marker may stand alone in a transaction of a source that logs keys; see `holdsStates` for the danger.
        if builder.holdsStates || batch.checkpoint?.marker != nil { _ = try await journal.sync() }
        if batch.checkpoint == nil { try Failpoint.applyPart.hit() }
        return await orders.send(.apply(batch))
    }
}

package import BridgeCore
import BridgeJournal
package import Logging

/// Runs one link: prepares both ends, copies, then keeps the target in sync, until told to stop.
///
/// Whatever moment it is killed at, running it again goes on from what the target's records and the journal say.
package final class LinkRunner: Sendable {
    private let configuration: LinkConfiguration
    private let source: any SourceConnector
    private let target: any TargetConnector
    private let logger: Logger
    private let board = ProgressBoard()
    private let stopSignal = StopSignal()
    let intermissions = Intermissions()

    package init(
        configuration: LinkConfiguration, source: any SourceConnector, target: any TargetConnector, logger: Logger
    ) {
        self.configuration = configuration
        self.source = source
        self.target = target
        self.logger = logger
    }

    private var link: LinkDescription { configuration.link }
    private var preparation: LinkPreparation {
        LinkPreparation(configuration: configuration, source: source, target: target, logger: logger)
    }

    /// Where the link stands now.
    package var progress: LinkProgress { board.current }

    /// Asks the link to finish its batch and stop in good order. From any thread, as often as wished.
    package func stop() {
        board.update { $0.activity = .stopping }
        stopSignal.request()
    }

    /// Runs the link.
    /// - Parameter untilCaughtUp: return once everything that was committed on the source at some moment after the copy
    ///   is on the target.
    /// - Returns: whether it has caught up; false after ``stop()``.
    /// - Throws: what cannot pass by itself. Everything is left so that a later run can go on.
    package func run(untilCaughtUp: Bool) async throws(BridgeError) -> Bool {
        defer {
            board.update { $0.activity = .stopped }
            intermissions.end()
        }
        try await source.connect()
        try await target.connect()
        let origin = try await prepare()
        guard !stopSignal.isRequested else { return false }
        let journal = try await openJournal(origin)
        let outcome = await stream(origin, journal, untilCaughtUp: untilCaughtUp)
        await journal.close()
        do throws(BridgeError) { return try outcome.get() } catch {
            guard error.code == .slotMissing, let limit = configuration.slotLimit else { throw error }
            throw limit.recorded(origin, link) ?? error
        }
    }

    // MARK: - Preparation

    /// Brings both ends to where capture can begin, or finds that they are there already.
    private func prepare() async throws(BridgeError) -> CaptureOrigin {
        let before = try await target.linkState(link)
        if let before {
            board.update { $0.phase = before.phase }
            if let origin = before.origin {
                try preparation.checkBegun(before, origin)
                return origin
            }
        }
        // A copy the other way would put what is older in the place of what the application wrote.
        guard link.needsCopy else {
            throw BridgeError(
                .checkpointForeign, "the way back was not prepared, or its records are gone",
                context: [.init(.migration, link.name)], hint: "bridge cutover status tells where the migration stands")
        }
        guard configuration.mayBegin else {
            throw BridgeError(
                .checkpointForeign, "the target holds no records of this migration", context: [.init(.migration, link.name)],
                hint: "bridge status tells what both databases hold; 'bridge run' begins a migration that was not begun")
        }
        let origin = try await preparation.makeCapture(before)
        // From here on nothing is undone: whether the origin was recorded or not, the next run finds its way.
        try await target.recordOrigin(link, origin)
        board.update { $0.phase = .copying }
        return origin
    }

    private func openJournal(_ origin: CaptureOrigin) async throws(BridgeError) -> JournalWriter {
        let journal = try await preparation.openJournal(origin)
        board.opened(journal: journal.written, bytes: journal.bytesOnDisk)
        return journal
    }

    // MARK: - Streaming

    private enum Outcome: Sendable {
        case finished
        case caughtUp
        case failed(BridgeError)
    }

    /// Captures all along; copies what is left, then applies.
    private func stream(
        _ origin: CaptureOrigin, _ journal: JournalWriter, untilCaughtUp: Bool
    ) async -> Result<Bool, BridgeError> {
        let capture = CaptureLoop(
            link: link, origin: origin, source: source, journal: journal, workspace: configuration.captureWorkspace,
            board: board, stop: stopSignal, logger: logger, patience: configuration.patience,
            makeRoom: { () async throws(BridgeError) in try await self.retire(journal, keeping: .zero) })
        return await withTaskGroup(of: Outcome.self) { group in
            let surrender = SlotSurrender(link: link, origin: origin, source: source, stop: stopSignal, logger: logger)
            group.addTask {
                let outcome = await self.outcome { () async throws(BridgeError) in try await capture.run() }
                surrender.captureEnded.request()
                return outcome
            }
            group.addTask {
                await surrender.outlasting(Outcome.finished) {
                    await self.outcome { () async throws(BridgeError) in try await self.copyAndApply(journal) }
                }
            }
            group.addTask {
                await self.outcome { () async throws(BridgeError) in try await self.retireNowAndThen(journal) }
            }
            if let limit = configuration.slotLimit {
                let watch = SlotWatch(
                    link: link, limit: limit, source: source, board: board, stop: stopSignal, logger: logger)
                group.addTask {
                    await self.outcome { () async throws(BridgeError) in
                        if let reason = await watch.run() { throw await surrender.carryOut(limit, reason) }
                    }
                }
            }
            if untilCaughtUp { group.addTask { await self.waitUntilCaughtUp(journal) } }
            var result: Result<Bool, BridgeError> = .success(false)
            for await outcome in group {
                switch outcome {
                case .finished: break
                case .caughtUp: result = .success(true)
                case .failed(let error): if case .success = result { result = .failure(error) }
                }
                stopSignal.request()
            }
            return result
        }
    }

    private func outcome(_ body: () async throws(BridgeError) -> Void) async -> Outcome {
        do throws(BridgeError) {
            try await body()
            return .finished
        } catch { return .failed(error) }
    }

    private func copyAndApply(_ journal: JournalWriter) async throws(BridgeError) {
        var phase: LinkState.Phase?
        // The target may go away at this very moment, too.
        try await Retrying(
            work: "reading the target's records", patience: configuration.patience, board: board, stop: stopSignal, logger: logger
        ).run { (_) async throws(BridgeError) in
            guard let state = try await target.linkState(link) else {
                throw BridgeError(.internalFault, "the target lost its records of the link")
            }
            phase = state.phase
        }
        guard !stopSignal.isRequested else { return }
        if phase != .syncing {
            try await CopyPhase(
                configuration: configuration, source: source, target: target, board: board, stop: stopSignal,
                logger: logger
            ).run()
        }
        guard !stopSignal.isRequested else { return }
        board.update {
            $0.activity = .streaming
            $0.phase = .syncing
        }
        try await ApplyLoop(
            configuration: configuration, target: target, journal: journal, board: board, stop: stopSignal,
            logger: logger, intermissions: intermissions
        ).run()
    }

    /// Everything committed on the source at one moment after the copy has been applied.
    private func waitUntilCaughtUp(_ journal: JournalWriter) async -> Outcome {
        while !stopSignal.isRequested, board.current.activity != .streaming { await stopSignal.sleep(.milliseconds(50)) }
        var backoff = Backoff(patience: configuration.patience)
        var goal: Position?
        while !stopSignal.isRequested {
            do throws(BridgeError) {
                let wanted: Position
                if let goal { wanted = goal } else { wanted = try await source.currentPosition(link) }
                goal = wanted
                // What a source says counts only once this run's capture has proven that it is the link's source.
                if board.isCapturing, board.current.applied >= wanted { return .caughtUp }
                await stopSignal.sleep(.milliseconds(20))
            } catch {
                do throws(BridgeError) { await stopSignal.sleep(try backoff.delay(after: error)) } catch {
                    return .failed(error)
                }
            }
        }
        return .finished
    }

    // MARK: - Retention

    private func retireNowAndThen(_ journal: JournalWriter) async throws(BridgeError) {
        while !stopSignal.isRequested {
            await stopSignal.sleep(.seconds(10))
            if board.current.activity == .streaming { try await retire(journal, keeping: configuration.journalKeep) }
        }
    }

    /// Removes segments that the target's durable checkpoint has passed.
    private func retire(_ journal: JournalWriter, keeping: Duration) async throws(BridgeError) {
        guard let checkpoint = board.durableCheckpoint else { return }
        let age = keeping.components.seconds * 1_000_000
        let removed = try await journal.removeSegments(
            appliedThrough: checkpoint, olderThan: Timestamp(microseconds: Timestamp.now.microseconds - age))
        for file in removed { logger.debug("journal segment removed", metadata: ["file": "\(file)"]) }
    }
}

package import BridgeCore
import BridgeJournal
package import Logging
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

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
        return try outcome.get()
    }

    // MARK: - Preparation

    /// Brings both ends to where capture can begin, or finds that they are there already.
    private func prepare() async throws(BridgeError) -> CaptureOrigin {
        let before = try await target.linkState(link)
        if let before {
            board.update { $0.phase = before.phase }
            if let origin = before.origin {
                try checkSelection(origin)
                try checkJournal(before)
                return origin
            }
        }
        try await runPreflight()
        if before == nil, directoryHasFiles(configuration.journalDirectory) {
            throw BridgeError(
                .journalForeign, "there is a journal already, but the target knows nothing of this migration",
                context: [.init(.file, configuration.journalDirectory)],
                hint: "use another data_dir, or remove this journal if its migration is over")
        }
        if before == nil, try await source.captureExists(link) {
            throw BridgeError(
                .slotForeign, "the source has a capture of this name already, which the target knows nothing of",
                context: [.init(.migration, link.migration), .init(.slot, link.identifier)])
        }
        _ = try await target.prepareLink(link)
        try Failpoint.linkPrepared.hit()
        // A journal that the intent outlived was made for an origin that no record names.
        if before != nil { try removeFiles(configuration.journalDirectory) }
        var origin: CaptureOrigin
        do throws(BridgeError) {
            origin = try await source.prepareCapture(link, replacingLeftovers: before != nil)
        } catch {
            await undoPreparation(failedWith: error)
            throw error
        }
        try Failpoint.sourcePrepared.hit()
        origin.identity[Self.selectionKey] = selection
        // From here on nothing is undone: whether the origin was recorded or not, the next run finds its way.
        try await target.recordOrigin(link, origin)
        board.update { $0.phase = .copying }
        return origin
    }

    /// Without its journal a link cannot go on: what stood there, captured and not yet applied, is on no other disk.
    private func checkJournal(_ state: LinkState) throws(BridgeError) {
        let hasBegun = state.phase == .syncing || state.tables.values.contains { $0.state == .done }
        guard hasBegun, !directoryHasFiles(configuration.journalDirectory) else { return }
        throw BridgeError(
            .journalMissing, "the target holds this migration's records, but its journal is not there",
            context: [.init(.migration, link.migration), .init(.file, configuration.journalDirectory)])
    }

    // MARK: - What travels

    private static let selectionKey = "selection"

    /// A fingerprint of the tables, columns and filters, by which a later run notices that they were changed.
    private var selection: String {
        let parts = link.mappings.map { mapping in
            [
                mapping.source.description, mapping.target.description,
                mapping.columns?.sorted().joined(separator: "\u{1}") ?? "*", mapping.rowFilter ?? "",
            ].joined(separator: "\u{2}")
        }
        // FNV-1a: nobody gains by forging it.
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in parts.sorted().joined(separator: "\u{3}").utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return String(hash, radix: 16)
    }

    private func checkSelection(_ origin: CaptureOrigin) throws(BridgeError) {
        guard let began = origin.identity[Self.selectionKey], began != selection else { return }
        throw BridgeError(
            .configurationInvalid, "tables, columns or filters are others than those that the migration began with",
            context: [.init(.migration, link.migration)],
            hint: "restore the list of tables in bridge.yaml, or start a new migration under another name")
    }

    private func runPreflight() async throws(BridgeError) {
        var findings = try await source.preflight(link)
        if findings.allSatisfy({ $0.severity != .blocking }) {
            let schemas = try await source.describeTables(link.mappings.map(\.source))
            findings += try await target.preflight(link, sources: schemas)
        }
        for finding in findings where finding.severity == .warning { logger.warning("\(finding.what); \(finding.why)") }
        let blocking = findings.filter { $0.severity == .blocking }
        guard let first = blocking.first else { return }
        guard blocking.count > 1 else { throw first.error }
        throw BridgeError(
            first.code, "\(blocking.count) things stand in the way: " + blocking.map(\.what).joined(separator: "; "),
            hint: "bridge preflight prints each of them with the statement that mends it")
    }

    /// A start that could not make its capture leaves nothing behind. What cannot be removed now, because a database is
    /// away, is removed by the next run: the target still holds the intent.
    private func undoPreparation(failedWith failure: BridgeError) async {
        do throws(BridgeError) {
            if failure.code != .slotForeign { try await source.removeCapture(link) }
            try await target.removeLink(link)
        } catch {
            logger.warning("what the failed start made could not all be removed; the next run does it: \(error)")
        }
    }

    private func openJournal(_ origin: CaptureOrigin) async throws(BridgeError) -> JournalWriter {
        let binding = JournalBinding(
            link: link.name, direction: link.direction, identity: origin.identityText, origin: origin.position)
        var options = JournalOptions()
        options.segmentBytes = configuration.segmentBytes
        options.budgetBytes = configuration.journalBudget
        let journal = try await JournalWriter.open(
            directory: configuration.journalDirectory, binding: binding, options: options)
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
            link: link, origin: origin, source: source, journal: journal, board: board, stop: stopSignal,
            logger: logger, patience: configuration.patience,
            makeRoom: { () async throws(BridgeError) in try await self.retire(journal, keeping: .zero) })
        return await withTaskGroup(of: Outcome.self) { group in
            group.addTask { await self.outcome { () async throws(BridgeError) in try await capture.run() } }
            group.addTask {
                await self.outcome { () async throws(BridgeError) in try await self.copyAndApply(journal) }
            }
            group.addTask {
                await self.outcome { () async throws(BridgeError) in try await self.retireNowAndThen(journal) }
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
        guard let state = try await target.linkState(link) else {
            throw BridgeError(.internalFault, "the target lost its records of the link")
        }
        if state.phase != .syncing {
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

    private func directoryHasFiles(_ path: String) -> Bool { !fileNames(path).isEmpty }

    private func fileNames(_ path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    private func removeFiles(_ path: String) throws(BridgeError) {
        for name in fileNames(path) where unlink("\(path)/\(name)") != 0 {
            throw BridgeError(
                .inputOutput, "a leftover journal file cannot be removed", context: [.init(.file, "\(path)/\(name)")])
        }
    }
}

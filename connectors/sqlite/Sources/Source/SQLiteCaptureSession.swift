package import BridgeCore
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Delivers a link's changes from its log: see ``LogReader`` for how, ``LogKeeper`` for what is written to the source.
package actor SQLiteCaptureSession: CaptureSession {
    /// How long a wait may last before the database itself is asked, in milliseconds: notifications can be missed.
    private static let longestWait: Int64 = 100

    private let executor: ThreadExecutor
    package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let path: String
    private let link: LinkDescription
    private let claim: CaptureOpening.Claim
    private let waking: Waking
    private nonisolated let mailbox: KeeperMailbox
    private nonisolated let wake = WakeFlag()
    private let keeper: Task<Void, Never>
    private var reader: LogReader?
    private var watch: ChangeWatch?
    private var isClosed = false
    /// How often a read began to sleep: a test that wakes one waits for that.
    nonisolated let waits = Atomic<Int>(0)

    /// By which means a waiting read learns of a commit; all of them, but in tests.
    struct Waking: Sendable {
        var notifies = true
        var polls = true
    }

    init(path: String, link: LinkDescription, claim: CaptureOpening.Claim, waking: Waking = Waking()) {
        executor = ThreadExecutor(name: "sqlite-capture")
        self.path = path
        self.link = link
        self.claim = claim
        self.waking = waking
        let mailbox = KeeperMailbox(
            requested: claim.acknowledged, confirmed: claim.acknowledgements, safeLeap: claim.leap ?? 0)
        self.mailbox = mailbox
        let keeper = LogKeeper(
            path: path, link: link, session: claim.session, mailbox: mailbox, acknowledged: claim.acknowledged,
            proofs: claim.proofs)
        self.keeper = Task { await keeper.run() }
    }

    deinit {
        mailbox.state.withLock { $0.isStopping = true }
        mailbox.wake.raise()
    }

    package func read(
        into buffer: RecordBuffer, limit: Int, patience: Duration
    ) async throws(BridgeError) -> CaptureProgress {
        let deadline = ContinuousClock.now + patience
        while true {
            if let failure = mailbox.state.withLock({ $0.failure }) { throw failure }
            var progress = reader?.emptyProgress ?? CaptureProgress(frontier: Position(commit: UInt64(clamping: claim.durable)))
            do throws(BridgeError) {
                let reader = try openReader()
                // Asked before the log, so that what is committed in between is seen as new afterwards.
                _ = try reader.somethingWasCommitted()
                if try reader.read(into: buffer, limit: limit, progress: &progress) { return progress }
                progress = reader.emptyProgress
                if wake.take() || Task.isCancelled { return progress }
                guard try waitForCommit(reader, until: deadline) else { return progress }
            } catch {
                // Another connection has the file for itself for a moment: there is nothing to read yet.
                guard error.code == .serverBusy else { throw error }
                guard ContinuousClock.now < deadline, !Task.isCancelled else { return progress }
                wake.wait(milliseconds: 20)
                if wake.take() { return progress }
            }
        }
    }

    private func openReader() throws(BridgeError) -> LogReader {
        guard !isClosed else { throw BridgeError(.interrupted, "the capture session is closed") }
        if let reader { return reader }
        let reader = try LogReader(
            path: path, link: link, nonce: claim.nonce, session: claim.session, durable: claim.durable,
            mailbox: mailbox, proofs: claim.proofs, mark: claim.mark)
        self.reader = reader
        watch = ChangeWatch(path: path, wake: wake, notifies: waking.notifies)
        return reader
    }

    /// Sleeps until there is a commit to be seen; false if the time passed, or the session was interrupted.
    private func waitForCommit(_ reader: LogReader, until deadline: ContinuousClock.Instant) throws(BridgeError) -> Bool {
        while true {
            let left = deadline - .now
            guard left > .zero, let watch else { return false }
            let milliseconds = left.components.seconds * 1_000 + left.components.attoseconds / 1_000_000_000_000_000
            waits.add(1, ordering: .relaxed)
            let longest = waking.polls ? Self.longestWait : .max
            switch watch.wait(milliseconds: Int32(clamping: min(longest, max(1, milliseconds)))) {
            case .raised:
                _ = wake.take()
                return false
            case .written:
                switch try lookAgain(reader, watch, until: deadline) {
                case .written: return true
                case .raised:
                    _ = wake.take()
                    return false
                case .nothing: break
                }
            case .nothing:
                if waking.polls, try reader.somethingWasCommitted() { return true }
            }
            if mailbox.state.withLock({ $0.failure != nil || $0.safeLeap > reader.seenLeap }) { return true }
        }
    }

    /// Behind a write to the files, waits for what it commits.
    /// - Returns: `written` if there is a commit to be seen, `raised` if the session was interrupted.
    private func lookAgain(
        _ reader: LogReader, _ watch: ChangeWatch, until deadline: ContinuousClock.Instant
    ) throws(BridgeError) -> ChangeWatch.Event {
        var rechecks = Rechecks()
        while true {
            if try reader.somethingWasCommitted() { return .written }
            // An application may go on writing for long.
            guard let pause = rechecks.next(), .now < deadline, mailbox.state.withLock({ $0.failure }) == nil else { return .nothing }
            guard rechecks.heedsWrites else {
                usleep(useconds_t(pause))
                continue
            }
            switch watch.wait(milliseconds: Int32((pause + 999) / 1_000)) {
            case .written: rechecks.noteWrite()
            case .raised: return .raised
            case .nothing: break
            }
        }
    }

    package nonisolated func acknowledge(_ position: Position) {
        guard let sequence = Int64(exactly: position.commit) else { return }
        let isNews = mailbox.state.withLock { state in
            guard sequence > state.requested else { return false }
            state.requested = sequence
            return true
        }
        if isNews { mailbox.wake.raise() }
    }

    package nonisolated func interrupt() { wake.raise() }

    package func close() async {
        isClosed = true
        reader = nil
        watch = nil
        mailbox.state.withLock { $0.isStopping = true }
        mailbox.wake.raise()
        await keeper.value
    }
}

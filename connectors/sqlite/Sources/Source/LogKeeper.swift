import BridgeCore
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// What the capture session and its keeper tell each other.
final class KeeperMailbox: Sendable {
    struct State {
        /// Everything before it is durable elsewhere.
        var requested: Int64
        var isStopping = false
        /// Triggers of the source are to be made again.
        var wantsTriggers = false
        /// Acknowledgements that the source certainly has.
        var confirmed: Int64
        /// The end of the newest leap that would survive a power failure.
        var safeLeap: Int64
        var failure: BridgeError?
    }
    let state: Mutex<State>
    let wake = WakeFlag()

    init(requested: Int64, confirmed: Int64, safeLeap: Int64) {
        state = Mutex(State(requested: requested, confirmed: confirmed, safeLeap: safeLeap))
    }

    func askForTriggers() {
        state.withLock { $0.wantsTriggers = true }
        wake.raise()
    }

    /// Whether there was something to be made; it is no longer.
    func takeTriggers() -> Bool {
        state.withLock { state in
            defer { state.wantsTriggers = false }
            return state.wantsTriggers && !state.isStopping
        }
    }
}

/// Tells the source what has been taken, and prunes its log: the only writer on the source while capture runs.
///
/// Its transactions are small and seldom. An application that does not wait for locks would see `SQLITE_BUSY` where it
/// meets one; and one that has begun to read would get `SQLITE_BUSY_SNAPSHOT` when it goes on to write, however long it is
/// willing to wait. So they wait for a moment in which nobody has written for a while and no other process has a read
/// transaction; under a load that never pauses they are made after a minute, in smaller portions, or when a quarter of a
/// million changes wait to be pruned. The keeper itself never stands in line for a lock.
actor LogKeeper {
    /// Rows pruned in one transaction, and in one that may meet somebody.
    static let pruneRows = 1_000
    static let pruneRowsUnderLoad = 200
    /// Changes acknowledged and not pruned for which a quiet moment is no longer waited for.
    static let largestBacklog: Int64 = 250_000
    /// How often a session that ends tries to write without regard to others, after as many tries with it.
    static let unsparingAttempts = 50
    /// How long a quiet moment is waited for.
    static let longestWait: Duration = .seconds(60)
    /// How long a quiet moment is waited for when triggers are to be made again: what the application does next may depend on it.
    static let longestWaitForTriggers: Duration = .seconds(1)
    /// The least time between two acknowledgements, in milliseconds.
    static let interval: Int32 = 500

    private let executor: ThreadExecutor
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let path: String
    private let names: CaptureNames
    private let installer: CaptureInstaller
    private let session: String
    private let mailbox: KeeperMailbox
    private let proofs: DeliveryProofs?
    private var written: Int64
    /// Whether there may be rows before what was acknowledged that are to be pruned: an earlier session may have left some.
    private var isPruningLeft = true

    init(
        path: String, link: LinkDescription, session: String, mailbox: KeeperMailbox, acknowledged: Int64,
        proofs: DeliveryProofs? = nil
    ) {
        executor = ThreadExecutor(name: "sqlite-keeper")
        self.path = path
        names = CaptureNames(link)
        installer = CaptureInstaller(link)
        self.session = session
        self.mailbox = mailbox
        self.proofs = proofs
        written = acknowledged
    }

    /// Works until the session stops it. Blocks its own thread.
    func run() {
        do throws(BridgeError) {
            let writer = try LogWriter(path: path, names: names, session: session)
            while true {
                mailbox.wake.wait(milliseconds: isPruningLeft ? 1_000 : 60_000)
                _ = mailbox.wake.take()
                proofs?.sync()
                try renewTriggers(writer)
                let isStopping = try work(writer)
                if isStopping { return }
                // The flag stays raised for what comes meanwhile.
                pause()
            }
        } catch {
            mailbox.state.withLock { $0.failure = error }
        }
    }

    /// Keeps acknowledgements apart, but lets the end of the session through.
    private func pause() {
        for _ in 0..<Self.interval / 10 {
            if mailbox.state.withLock({ $0.isStopping }) { return }
            usleep(10_000)
        }
    }

    /// Makes triggers again that the application's changes of the schema left behind.
    private func renewTriggers(_ writer: LogWriter) throws(BridgeError) {
        let deadline = ContinuousClock.now + Self.longestWaitForTriggers
        while mailbox.takeTriggers() {
            waitForQuiet(writer, until: deadline)
            if try writer.renewTriggers(installer, sparing: ContinuousClock.now < deadline) { continue }
            mailbox.askForTriggers()
            usleep(10_000)
        }
    }

    /// One acknowledgement with all the pruning it allows. Returns whether the session is stopping.
    private func work(_ writer: LogWriter) throws(BridgeError) -> Bool {
        let deadline = ContinuousClock.now + Self.longestWait
        guard request.position > written else {
            if isPruningLeft, !request.isStopping { try prune(writer, written, deadline) }
            return request.isStopping
        }
        // An application may hold the lock for long. At the end of a session a second is enough: what is not
        // acknowledged now is so the next time.
        var attemptsAtEnd = 2 * Self.unsparingAttempts
        while true {
            waitForQuiet(writer, until: deadline)
            let position = request.position
            let sparing = mayWait(deadline) && attemptsAtEnd > Self.unsparingAttempts
            if let outcome = try writer.acknowledge(position, portion: portion(deadline), sparing: sparing) {
                written = position
                mailbox.state.withLock { $0.confirmed = outcome.acknowledgements }
                if let leap = outcome.leap, writer.syncLog() { mailbox.state.withLock { $0.safeLeap = leap } }
                isPruningLeft = true
                if outcome.pruned > 0 { try Failpoint.logPruned.hit() }
                try prune(writer, position, deadline)
                return request.isStopping
            }
            if request.isStopping {
                attemptsAtEnd -= 1
                if attemptsAtEnd == 0 { return true }
            }
            usleep(10_000)
        }
    }

    /// Prunes the rest, portion by portion, unless the session ends: the next one has the same to do. What a copy still
    /// needs stays, and is looked after later.
    private func prune(
        _ writer: LogWriter, _ position: Int64, _ deadline: ContinuousClock.Instant
    ) throws(BridgeError) {
        while !request.isStopping {
            guard try writer.hasRowsToPrune(position) else {
                isPruningLeft = try writer.keepsRowsForCopies(position)
                return
            }
            waitForQuiet(writer, until: deadline, afterCommit: true)
            // Longer than the lock was held, so that others get their turn.
            usleep(4_000)
            guard let pruned = try writer.prune(position, portion: portion(deadline), sparing: mayWait(deadline)) else {
                continue
            }
            if pruned > 0 { try Failpoint.logPruned.hit() }
        }
    }

    private var request: (position: Int64, isStopping: Bool) {
        mailbox.state.withLock { ($0.requested, $0.isStopping) }
    }

    /// Whether the log is too large for a quiet moment to be waited for. Between two places there may be a leap, whose length
    /// is by chance longer than the least.
    private var isUrgent: Bool {
        (request.position - written) % CaptureState.leap > Self.largestBacklog + CaptureState.leapVariance
    }

    private func mayWait(_ deadline: ContinuousClock.Instant) -> Bool { ContinuousClock.now < deadline && !isUrgent }

    private func portion(_ deadline: ContinuousClock.Instant) -> Int {
        ContinuousClock.now < deadline || isUrgent ? Self.pruneRows : Self.pruneRowsUnderLoad
    }

    /// Waits until nobody has committed for a tenth of a second and nobody reads, but not beyond the deadline, nor while
    /// the log grows large.
    /// - Parameter afterCommit: the tenth of a second is waited for only if somebody has committed since the last look.
    private func waitForQuiet(
        _ writer: LogWriter, until deadline: ContinuousClock.Instant, afterCommit: Bool = false
    ) {
        var quiet = !writer.sawCommit() && afterCommit ? 10 : 0
        while ContinuousClock.now < deadline, !request.isStopping, !isUrgent {
            if quiet >= 10, !writer.isInUse() { return }
            usleep(10_000)
            quiet = writer.sawCommit() ? 0 : quiet + 1
        }
    }
}

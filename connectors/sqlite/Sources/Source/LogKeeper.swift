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
/// meets one, so they wait for a moment in which nobody writes; under a load that never pauses they are made after a minute,
/// or when a quarter of a million changes wait to be pruned. The keeper itself never stands in line for a lock.
actor LogKeeper {
    /// Rows pruned in one transaction.
    static let pruneRows = 1_000
    /// Changes acknowledged and not pruned for which a quiet moment is no longer waited for.
    static let largestBacklog: Int64 = 250_000
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
    private var written: Int64

    init(path: String, link: LinkDescription, session: String, mailbox: KeeperMailbox, acknowledged: Int64) {
        executor = ThreadExecutor(name: "sqlite-keeper")
        self.path = path
        names = CaptureNames(link)
        installer = CaptureInstaller(link)
        self.session = session
        self.mailbox = mailbox
        written = acknowledged
    }

    /// Works until the session stops it. Blocks its own thread.
    func run() {
        do throws(BridgeError) {
            let writer = try LogWriter(path: path, names: names, session: session)
            while true {
                mailbox.wake.wait(milliseconds: 60_000)
                _ = mailbox.wake.take()
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
            if try writer.renewTriggers(installer) { continue }
            mailbox.askForTriggers()
            usleep(10_000)
        }
    }

    /// One acknowledgement with all the pruning it allows. Returns whether the session is stopping.
    private func work(_ writer: LogWriter) throws(BridgeError) -> Bool {
        let deadline = ContinuousClock.now + Self.longestWait
        guard request.position > written else { return request.isStopping }
        waitForQuiet(writer, until: deadline)
        var position = request.position
        var outcome = try writer.acknowledge(position)
        // An application may hold the lock for long. At the end of a session a second is enough: what is not
        // acknowledged now is so the next time.
        var attemptsAtEnd = 100
        while outcome == nil {
            if request.isStopping {
                attemptsAtEnd -= 1
                if attemptsAtEnd == 0 { return true }
            }
            usleep(10_000)
            position = request.position
            outcome = try writer.acknowledge(position)
        }
        guard let outcome else { return request.isStopping }
        written = position
        mailbox.state.withLock { $0.confirmed = outcome.acknowledgements }
        if let leap = outcome.leap, writer.syncLog() { mailbox.state.withLock { $0.safeLeap = leap } }
        if outcome.pruned > 0 { try Failpoint.logPruned.hit() }
        try prune(writer, position, first: outcome.pruned, deadline)
        return request.isStopping
    }

    /// Prunes the rest, portion by portion, unless the session ends: the next one has the same to do.
    private func prune(
        _ writer: LogWriter, _ position: Int64, first: Int, _ deadline: ContinuousClock.Instant
    ) throws(BridgeError) {
        var pruned = first
        while pruned >= Self.pruneRows, !request.isStopping {
            if writer.sawCommit() { waitForQuiet(writer, until: deadline) }
            // Longer than the lock was held, so that others get their turn.
            usleep(4_000)
            guard let more = try writer.prune(position) else { continue }
            pruned = more
            if more > 0 { try Failpoint.logPruned.hit() }
        }
    }

    private var request: (position: Int64, isStopping: Bool) {
        mailbox.state.withLock { ($0.requested, $0.isStopping) }
    }

    /// Waits until nobody has committed for a tenth of a second, but not beyond the deadline, nor while the log grows large.
    private func waitForQuiet(_ writer: LogWriter, until deadline: ContinuousClock.Instant) {
        var quiet = 0
        _ = writer.sawCommit()
        while quiet < 10, ContinuousClock.now < deadline {
            let (position, isStopping) = request
            if isStopping || (position - written) % CaptureState.leap > Self.largestBacklog { return }
            usleep(10_000)
            quiet = writer.sawCommit() ? 0 : quiet + 1
        }
    }
}

/// The keeper's connection and its statements. Confined to the keeper's thread.
final class LogWriter {
    private let connection: SQLiteConnection
    private let session: String
    private let path: String
    private let isWriteAhead: Bool
    private let readState: SQLiteStatement
    private let writeState: SQLiteStatement
    private let newest: SQLiteStatement
    private let leap: SQLiteStatement
    private let delete: SQLiteStatement
    private let dataVersion: SQLiteStatement
    private var seenDataVersion: Int64 = 0

    init(path: String, names: CaptureNames, session: String) throws(BridgeError) {
        self.session = session
        connection = try SQLiteConnection(path: path, access: .readWrite, busyTimeout: 2_000)
        let database = connection
        self.path = path
        isWriteAhead = try connection.database.string("PRAGMA main.journal_mode")?.lowercased() == "wal"
        // In WAL mode the sync follows the commit, when the lock is free again. The application's commits keep their setting.
        try database.database.execute(
            "PRAGMA synchronous = \(isWriteAhead ? "NORMAL" : "FULL"); PRAGMA wal_autocheckpoint = 0")
        let log = quoteIdentifier(names.log)
        let state = quoteIdentifier(names.state)
        readState = try database.database.prepare(
            """
            SELECT (SELECT value FROM main.\(state) WHERE key = 'session'),
                   (SELECT value FROM main.\(state) WHERE key = 'acknowledgements')
            """)
        writeState = try database.database.prepare("UPDATE main.\(state) SET value = ?2 WHERE key = ?1")
        newest = try database.database.prepare(CaptureState.newestRow(names))
        leap = try database.database.prepare("INSERT INTO main.\(log)(seq, tbl) VALUES(?1, \(CaptureState.markerTable))")
        delete = try database.database.prepare(
            """
            DELETE FROM main.\(log) WHERE seq < min(?1, coalesce(
              (SELECT seq FROM main.\(log) ORDER BY seq LIMIT 1 OFFSET \(LogKeeper.pruneRows)), ?1))
            """)
        dataVersion = try database.database.prepare("PRAGMA data_version")
        connection.database.setBusyTimeout(0)
    }

    /// Whether somebody else committed since the last call.
    func sawCommit() -> Bool {
        let version = currentDataVersion()
        defer { seenDataVersion = version }
        return version != seenDataVersion
    }

    private func currentDataVersion() -> Int64 {
        defer { dataVersion.reset() }
        guard let isRow = try? dataVersion.step(), isRow else { return 0 }
        return dataVersion.integer(0)
    }

    /// Writes down that everything before `position` is taken, leaps, and prunes one portion.
    /// - Returns: nil if another writer has the lock.
    func acknowledge(
        _ position: Int64
    ) throws(BridgeError) -> (acknowledgements: Int64, pruned: Int, leap: Int64?)? {
        try inTransaction { () throws(BridgeError) in
            let count = try countForThisSession() + 1
            try write("acknowledged", position)
            try write("acknowledgements", count)
            let leapt = try leapIfNeeded(newest, leap)
            return (count, try pruneOnce(position), leapt)
        }
    }

    /// Makes sure that what was committed survives a power failure.
    func syncLog() -> Bool {
        guard isWriteAhead else { return true }
        let descriptor = open(path + "-wal", O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { closeFile(descriptor) }
        return fdatasync(descriptor) == 0
    }

    /// Prunes one more portion. Returns how many rows went, nil if another writer has the lock.
    func prune(_ position: Int64) throws(BridgeError) -> Int? {
        try inTransaction { () throws(BridgeError) in
            _ = try countForThisSession()
            return try pruneOnce(position)
        }
    }

    /// Returns whether it is done: another writer may have the lock.
    func renewTriggers(_ installer: CaptureInstaller) throws(BridgeError) -> Bool {
        let done: Bool? = try inTransaction { () throws(BridgeError) in
            _ = try countForThisSession()
            try OwnSchemaChanges.counting(connection.database) { () throws(BridgeError) in
                try installer.renew(connection.database)
            }
            return true
        }
        return done ?? false
    }

    private func inTransaction<Result>(
        _ body: () throws(BridgeError) -> Result
    ) throws(BridgeError) -> Result? {
        do throws(BridgeError) {
            return try connection.database.transaction(.immediate, body)
        } catch {
            if error.code == .serverBusy { return nil }
            throw error
        }
    }

    private func countForThisSession() throws(BridgeError) -> Int64 {
        defer { readState.reset() }
        guard try readState.step(), readState.string(0) == session else {
            throw BridgeError(
                .slotForeign, "another process has begun to read this change log",
                hint: "stop the other process, then run the command again")
        }
        return readState.integer(1)
    }

    private func write(_ key: String, _ value: Int64) throws(BridgeError) {
        try writeState.bind(1, string: key)
        try writeState.bind(2, integer: value)
        try writeState.run()
    }

    /// The row before `position` stays: it is what the next session recognises the log by, and the newest row never goes,
    /// or the sequence would begin again.
    private func pruneOnce(_ position: Int64) throws(BridgeError) -> Int {
        try delete.bind(1, integer: position - 1)
        try delete.run()
        return Int(connection.database.changes())
    }
}

/// Makes the sequence leap, unless its last row is the end of a leap already. See ``CaptureState/leap``. In the caller's
/// transaction.
/// - Returns: where it leapt to.
func leapIfNeeded(_ newest: SQLiteStatement, _ leap: SQLiteStatement) throws(BridgeError) -> Int64? {
    defer { newest.reset() }
    guard try newest.step(), newest.integer(1) == 1 else { return nil }
    // Not the same distance twice, so that two copies of a file do not come to the same place.
    let distance = CaptureState.leap + Int64.random(in: 0..<1 << 20)
    let (next, overflow) = newest.integer(0).addingReportingOverflow(distance)
    // After eight thousand million leaps the log goes on without.
    guard !overflow else { return nil }
    try leap.bind(1, integer: next)
    try leap.run()
    return next
}

private func closeFile(_ descriptor: Int32) { _ = close(descriptor) }

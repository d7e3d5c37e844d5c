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
}

/// Tells the source what has been taken, and prunes its log: the only writer on the source while capture runs.
///
/// Its transactions are small, seldom, and made at a quiet moment if one comes, since an application that does not wait
/// for locks would see `SQLITE_BUSY` where it meets one. It never waits for a lock itself while others do.
actor LogKeeper {
    /// Rows pruned in one transaction.
    static let pruneRows = 1_000
    /// The least time between two acknowledgements, in milliseconds.
    static let interval: Int32 = 500

    private let executor: ThreadExecutor
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let path: String
    private let names: CaptureNames
    private let session: String
    private let mailbox: KeeperMailbox
    private var written: Int64

    init(path: String, names: CaptureNames, session: String, mailbox: KeeperMailbox, acknowledged: Int64) {
        executor = ThreadExecutor(name: "sqlite-keeper")
        self.path = path
        self.names = names
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

    /// One acknowledgement with all the pruning it allows. Returns whether the session is stopping.
    private func work(_ writer: LogWriter) throws(BridgeError) -> Bool {
        var (requested, isStopping) = mailbox.state.withLock { ($0.requested, $0.isStopping) }
        guard requested > written else { return isStopping }
        if !isStopping { writer.waitForQuiet(milliseconds: 100) }
        var attempts = 0
        var outcome = try writer.acknowledge(requested)
        while outcome == nil {
            attempts += 1
            (requested, isStopping) = mailbox.state.withLock { ($0.requested, $0.isStopping) }
            // An application may hold the lock for long. At the end of a session a second is enough: what is not
            // acknowledged now is so the next time.
            if isStopping, attempts > 100 { return true }
            usleep(10_000)
            outcome = try writer.acknowledge(requested)
        }
        guard var result = outcome else { return isStopping }
        written = requested
        mailbox.state.withLock { $0.confirmed = result.acknowledgements }
        if let leap = result.leap, writer.syncLog() { mailbox.state.withLock { $0.safeLeap = leap } }
        if result.pruned > 0 { try Failpoint.logPruned.hit() }
        while result.pruned >= Self.pruneRows {
            // Longer than the lock was held, so that others get their turn.
            usleep(4_000)
            guard let more = try writer.prune(requested) else {
                if mailbox.state.withLock({ $0.isStopping }) { return true }
                continue
            }
            result.pruned = more
            if more > 0 { try Failpoint.logPruned.hit() }
        }
        return mailbox.state.withLock { $0.isStopping }
    }
}

/// The keeper's connection and its statements. Confined to the keeper's thread.
private final class LogWriter {
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
            "SELECT (SELECT value FROM main.\(state) WHERE key = 'session'), (SELECT value FROM main.\(state) WHERE key = 'acknowledgements')")
        writeState = try database.database.prepare("UPDATE main.\(state) SET value = ?2 WHERE key = ?1")
        newest = try database.database.prepare("SELECT seq, tbl FROM main.\(log) ORDER BY seq DESC LIMIT 1")
        leap = try database.database.prepare("INSERT INTO main.\(log)(seq, tbl) VALUES(?1, \(CaptureState.markerTable))")
        delete = try database.database.prepare(
            """
            DELETE FROM main.\(log) WHERE seq < min(?1, coalesce(
              (SELECT seq FROM main.\(log) ORDER BY seq LIMIT 1 OFFSET \(LogKeeper.pruneRows)), ?1))
            """)
        dataVersion = try database.database.prepare("PRAGMA data_version")
        connection.database.setBusyTimeout(0)
    }

    /// Waits for two milliseconds in which nobody commits, but not for longer than asked.
    func waitForQuiet(milliseconds: Int) {
        var version = currentDataVersion()
        for _ in 0..<milliseconds / 2 {
            usleep(2_000)
            let now = currentDataVersion()
            if now == version { return }
            version = now
        }
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
    guard try newest.step(), newest.integer(1) != CaptureState.markerTable else { return nil }
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

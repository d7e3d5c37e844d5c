import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

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
    private let oldest: SQLiteStatement
    private let dataVersion: SQLiteStatement
    private let gate: CaptureGate
    private var seenDataVersion: Int64 = 0

    init(path: String, names: CaptureNames, session: String) throws(BridgeError) {
        self.session = session
        gate = CaptureGate.shared(path: path, names: names)
        connection = try SQLiteConnection(path: path, access: .readWrite, busyTimeout: 2_000)
        self.path = path
        isWriteAhead = try connection.database.string("PRAGMA main.journal_mode")?.lowercased() == "wal"
        // In WAL mode the sync follows the commit, when the lock is free again. The application's commits keep their setting.
        try connection.database.execute(
            "PRAGMA synchronous = \(isWriteAhead ? "NORMAL" : "FULL"); PRAGMA wal_autocheckpoint = 0")
        let log = quoteIdentifier(names.log)
        let state = quoteIdentifier(names.state)
        readState = try connection.database.prepare(
            """
            SELECT (SELECT value FROM main.\(state) WHERE key = 'session'),
                   (SELECT value FROM main.\(state) WHERE key = 'acknowledgements')
            """)
        writeState = try connection.database.prepare("UPDATE main.\(state) SET value = ?2 WHERE key = ?1")
        newest = try connection.database.prepare(CaptureState.newestRow(names))
        leap = try connection.database.prepare("INSERT INTO main.\(log)(seq, tbl) VALUES(?1, \(CaptureState.markerTable))")
        delete = try connection.database.prepare(
            """
            DELETE FROM main.\(log) WHERE seq < min(?1, coalesce(
              (SELECT seq FROM main.\(log) ORDER BY seq LIMIT 1 OFFSET ?2), ?1))
            """)
        oldest = try connection.database.prepare("SELECT min(seq) FROM main.\(log)")
        dataVersion = try connection.database.prepare("PRAGMA data_version")
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

    /// Whether another process reads or writes just now: a commit would spoil its transaction, or meet its lock.
    func isInUse() -> Bool { LockHolders(path: path).isUsedByOthers(isWriteAhead: isWriteAhead) }

    /// Writes down that everything before `position` is taken, leaps, and prunes one portion.
    /// - Parameter sparing: nothing is written if another process is found at work at the last moment.
    /// - Returns: nil if another writer has the lock, or somebody was spared.
    func acknowledge(
        _ position: Int64, portion: Int, sparing: Bool
    ) throws(BridgeError) -> (acknowledgements: Int64, pruned: Int, leap: Int64?)? {
        try inTransaction(sparing) { () throws(BridgeError) in
            let count = try countForThisSession() + 1
            try write("acknowledged", position)
            try write("acknowledgements", count)
            let leapt = try leapIfNeeded(newest, leap)
            return (count, try pruneOnce(position, portion), leapt)
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

    /// Prunes one more portion. Returns how many rows went; nil as in ``acknowledge(_:portion:sparing:)``.
    func prune(_ position: Int64, portion: Int, sparing: Bool) throws(BridgeError) -> Int? {
        try inTransaction(sparing) { () throws(BridgeError) in
            _ = try countForThisSession()
            return try pruneOnce(position, portion)
        }
    }

    /// Whether the log has rows that ``prune(_:portion:sparing:)`` would take.
    func hasRowsToPrune(_ position: Int64) throws(BridgeError) -> Bool { try hasRows(before: end(position)) }

    /// Whether the log has rows that are kept for copies only.
    func keepsRowsForCopies(_ position: Int64) throws(BridgeError) -> Bool { try hasRows(before: position - 1) }

    /// Outside of WAL mode a writer may forbid to look; then there may be some.
    private func hasRows(before end: Int64) throws(BridgeError) -> Bool {
        defer { oldest.reset() }
        do throws(BridgeError) {
            return try oldest.step() && oldest.storageClass(0) == .integer && oldest.integer(0) < end
        } catch {
            guard error.code == .serverBusy else { throw error }
            return true
        }
    }

    /// Makes triggers again that the application's changes of the schema left behind.
    /// - Parameter sparing: as in ``acknowledge(_:portion:sparing:)``.
    /// - Returns: whether it is done: another writer may have the lock.
    func renewTriggers(_ installer: CaptureInstaller, sparing: Bool) throws(BridgeError) -> Bool {
        let done: Bool? = try inTransaction(sparing) { () throws(BridgeError) in
            _ = try countForThisSession()
            try OwnSchemaChanges.counting(connection.database) { () throws(BridgeError) in
                try installer.renew(connection.database)
            }
            return true
        }
        return done ?? false
    }

    private func inTransaction<Result>(
        _ sparing: Bool, _ body: () throws(BridgeError) -> Result
    ) throws(BridgeError) -> Result? {
        do throws(BridgeError) {
            return try connection.database.transaction(.immediate) { () throws(BridgeError) in
                let result = try body()
                // Whoever begins to read from now on does so some microseconds before the commit.
                guard !sparing || !isInUse() else { throw BridgeError(.serverBusy, "another process is at work") }
                return result
            }
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

    /// Where pruning ends. The row before `position` stays: it is what the next session recognises the log by, and the
    /// newest row never goes, or the sequence would begin again. So does what a copy has not seen.
    private func end(_ position: Int64) -> Int64 { min(position - 1, gate.firstRowForCopies ?? .max) }

    private func pruneOnce(_ position: Int64, _ portion: Int) throws(BridgeError) -> Int {
        try delete.bind(1, integer: end(position))
        try delete.bind(2, integer: Int64(portion))
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
    let distance = CaptureState.leap + Int64.random(in: 0..<CaptureState.leapVariance)
    let (next, overflow) = newest.integer(0).addingReportingOverflow(distance)
    // After eight thousand million leaps the log goes on without.
    guard !overflow else { return nil }
    try leap.bind(1, integer: next)
    try leap.run()
    return next
}

private func closeFile(_ descriptor: Int32) { _ = close(descriptor) }

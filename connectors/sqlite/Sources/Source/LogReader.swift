import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Reads a link's log and the rows that it names, one short read transaction at a time, and writes them as records.
///
/// Confined to the capture session's thread.
///
/// ### Why a captured transaction may span reads and is still exact
/// A read stops at its limit of bytes, keys or time. The captured transaction then stays open, and the next read goes on
/// in a newer snapshot. Each key's row is written as it was in the snapshot in which one of its log entries was read. If
/// the row changed between that snapshot and a later one, the change made another log entry behind the first, which is
/// read later in its turn. The transaction closes only in a read that has come to the end of the log as its own snapshot
/// sees it. By then every entry has been read, so for each key the last record says what that last snapshot holds: the
/// union of the records is the difference between two committed states of the source.
///
/// Its begin bears the log's newest change as the first read saw it, its commit that of the last. A table's copy never
/// begins between the two (see ``CaptureGate``), so the begin alone tells whether a copy holds the transaction.
///
/// ### Markers
/// A row of no table with a text in `k0` is a marker, which becomes a message among the records of the transaction that
/// covers its row. That transaction holds what every log row before it says, and closes behind it: a marker that has been
/// applied proves that everything committed before it has been too.
///
/// ### Order within a read
/// Removed keys come before rows. A key that merely changed its letter case, or a unique value that moved from a deleted
/// row to another, then meets nothing in its way at the target.
final class LogReader {
    /// What a snapshot is read for before it is let go of, so that the WAL can be checkpointed.
    static let longestSnapshot: Duration = .milliseconds(500)
    /// Keys remembered in one read; with their bytes the bound of its memory.
    static let keyLimit = 65_536
    static let keyBytesLimit = 8 << 20

    private let connection: SQLiteConnection
    private let path: String
    private let link: LinkDescription
    private let names: CaptureNames
    private let installer: CaptureInstaller
    private let nonce: String
    private let session: String
    private let gate: CaptureGate
    private let mailbox: KeeperMailbox
    private let proofs: DeliveryProofs?

    private let dataVersion: SQLiteStatement
    private let schemaVersion: SQLiteStatement
    private var stateCheck: SQLiteStatement?
    private var newestChange: SQLiteStatement?
    private var logRows: SQLiteStatement?
    private var markOfRow: SQLiteStatement?
    /// By table number; numbers count from 1.
    private var fetches: [TableFetch?] = []
    private var knownSchema: Int64 = -1
    private let openedFile: (device: UInt64, inode: UInt64)

    /// The last log row that was looked at.
    private var scanned: Int64
    /// Its mark; nil as long as none is known.
    private var mark: Int64?
    /// The newest change that a closed transaction covers, or the end of a leap behind it.
    private var delivered: Int64
    /// The end of the newest leap that the keeper had told of at the last read.
    private(set) var seenLeap: Int64 = 0
    private var open: (begin: Int64, changes: UInt64)?
    private var isInGate = false

    /// Tables whose relation stands in the records of the read under way.
    private var announcedNow: [TableFetch] = []
    private var keys = KeySet()
    private let front = RecordBuffer()
    private let removes = RecordBuffer()

    /// - Parameters:
    ///   - durable: the first sequence that is to be delivered.
    ///   - mailbox: what the keeper says of its writes.
    ///   - proofs: where to keep what the log is known by.
    ///   - mark: that of the row before `durable`.
    init(
        path: String, link: LinkDescription, nonce: String, session: String, durable: Int64,
        mailbox: KeeperMailbox, proofs: DeliveryProofs? = nil, mark: Int64? = nil
    ) throws(BridgeError) {
        self.path = path
        self.link = link
        self.nonce = nonce
        self.session = session
        self.mailbox = mailbox
        self.proofs = proofs
        self.mark = mark
        names = CaptureNames(link)
        installer = CaptureInstaller(link)
        gate = CaptureGate.shared(path: path, names: names)
        scanned = durable - 1
        delivered = durable - 1
        // Opened for writing, because a WAL's index may have to be made; nothing is written.
        connection = try SQLiteConnection(path: path, access: .readWrite, busyTimeout: 50)
        try connection.database.execute("PRAGMA query_only = 1")
        dataVersion = try connection.database.prepare("PRAGMA data_version")
        schemaVersion = try connection.database.prepare("PRAGMA main.schema_version")
        openedFile = Self.identify(path) ?? (0, 0)
    }

    deinit { if isInGate { gate.leaveCapture() } }

    /// Everything committed before it has been delivered.
    var frontier: Position { Position(commit: UInt64(delivered) + 1) }

    /// What a read that found nothing says.
    var emptyProgress: CaptureProgress { CaptureProgress(isInsideTransaction: open != nil, frontier: frontier) }

    // MARK: Waiting

    private var seenDataVersion: Int64 = -1

    /// Whether some connection committed since the last call, as far as can be seen now.
    func somethingWasCommitted() throws(BridgeError) -> Bool {
        defer { dataVersion.reset() }
        guard try dataVersion.step() else { return true }
        let version = dataVersion.integer(0)
        defer { seenDataVersion = version }
        return version != seenDataVersion
    }

    /// Device and inode of a path; nil if nothing is there.
    private static func identify(_ path: String) -> (device: UInt64, inode: UInt64)? {
        var facts = stat()
        guard stat(path, &facts) == 0 else { return nil }
        return (UInt64(facts.st_dev), UInt64(facts.st_ino))
    }

    // MARK: One read

    /// Reads what is new in one snapshot.
    /// - Returns: whether records were appended, or the frontier moved.
    func read(into buffer: RecordBuffer, limit: Int, progress: inout CaptureProgress) throws(BridgeError) -> Bool {
        if !isInGate {
            gate.enterCapture()
            isInGate = true
        }
        // An error ends the session, or the read is tried again; either way an open transaction keeps the gate.
        defer {
            if let open {
                gate.stayInCapture(begin: open.begin)
            } else {
                isInGate = false
                gate.leaveCapture()
            }
        }
        let before = delivered
        let state = (scanned, delivered, mark, open)
        let start = buffer.count
        try connection.database.execute("BEGIN DEFERRED")
        do throws(BridgeError) {
            try readSnapshot(into: buffer, limit: limit, progress: &progress)
            if scanned != state.0 { mark = try markOfRow(at: scanned) }
            try prove(from: before)
            logRows?.reset()
            try connection.database.execute("COMMIT")
        } catch {
            logRows?.reset()
            connection.database.rollback()
            buffer.truncate(to: start)
            (scanned, delivered, mark, open) = state
            for fetch in announcedNow { fetch.isAnnounced = false }
            throw error
        }
        progress.frontier = frontier
        progress.isInsideTransaction = open != nil
        return buffer.count > start || delivered > before
    }

    private func markOfRow(at sequence: Int64) throws(BridgeError) -> Int64? {
        guard let markOfRow else { return nil }
        try markOfRow.bind(1, integer: sequence)
        defer { markOfRow.reset() }
        return try markOfRow.step() ? markOfRow.integer(0) : nil
    }

    /// Keeps what the log is known by up to what is delivered now.
    private func prove(from before: Int64) throws(BridgeError) {
        guard delivered > before, let proofs, let mark = try delivered == scanned ? mark : markOfRow(at: delivered) else {
            return
        }
        try proofs.add(
            DeliveryProof(sequence: delivered, mark: mark), acknowledged: mailbox.state.withLock { $0.requested })
    }

    private func readSnapshot(
        into buffer: RecordBuffer, limit: Int, progress: inout CaptureProgress
    ) throws(BridgeError) {
        let (acknowledgements, safeLeap) = mailbox.state.withLock { ($0.confirmed, $0.safeLeap) }
        seenLeap = safeLeap
        try checkSchema()
        try checkSource(acknowledgements)
        guard let newestChange, let logRows else { return }
        defer { newestChange.reset() }
        guard try newestChange.step() else { return }
        let newest = newestChange.integer(0)
        let newestRow = newestChange.integer(1)
        defer {
            // The end of a leap stands for nothing, so it is delivered when all before it is; but what could vanish in a
            // power failure must not become the place that the next session asks for.
            if open == nil, newestRow > newest, newestRow <= safeLeap, scanned >= newest {
                scanned = max(scanned, newestRow)
                delivered = max(delivered, newestRow)
            }
        }
        guard newest > delivered else { return }
        let start = buffer.count
        announcedNow.removeAll(keepingCapacity: true)
        keys.removeAll()
        front.removeAll()
        removes.removeAll()
        let begin = open?.begin ?? newest
        let earlierChanges = open?.changes ?? 0
        try logRows.bind(1, integer: scanned)
        let result = try copyRows(logRows, into: buffer, limit: limit)
        let changes = earlierChanges + result.changes
        if open == nil, changes > 0 || !result.reachedEnd {
            front.appendBegin(
                TransactionStart(transaction: 0, position: Position(commit: UInt64(begin)), commitTime: .now))
        }
        front.append(removes.bytes)
        buffer.insert(front, at: start)
        scanned = result.last
        progress.rows += Int(result.changes)
        if changes > 0 || !result.reachedEnd { progress.firstCommit = Position(commit: UInt64(begin)) }
        guard result.reachedEnd else {
            open = (begin, changes)
            return
        }
        if open != nil || changes > 0 {
            let end = TransactionEnd(
                position: Position(commit: UInt64(newest)), end: UInt64(newest) + 1, commitTime: .now, changes: changes)
            buffer.appendCommit(end)
            progress.lastCommit = end
            progress.transactions += 1
        }
        open = nil
        delivered = newest
    }

    /// Goes through the log from where the last read stopped.
    private func copyRows(
        _ log: SQLiteStatement, into buffer: RecordBuffer, limit: Int
    ) throws(BridgeError) -> (last: Int64, changes: UInt64, reachedEnd: Bool) {
        let start = buffer.count
        let deadline = ContinuousClock.now + Self.longestSnapshot
        var last = scanned
        var changes: UInt64 = 0
        var untilClock = 64
        while try log.step() {
            last = log.integer(0)
            let number = log.integer(1)
            guard number != CaptureState.markerTable else {
                if let marker = log.string(2) {
                    Array(marker.utf8).withUnsafeBytes { buffer.appendMessage(prefix: Marker.prefix, content: $0) }
                    changes += 1
                }
                continue
            }
            guard number > 0, number < Int64(fetches.count), let fetch = fetches[Int(number)] else {
                throw BridgeError(.captureBroken, "the change log names a table that the link does not have")
            }
            let inserted: UnsafeRawBufferPointer?
            do throws(BridgeError) {
                inserted = try keys.insert(table: number, log, column: 2, count: fetch.keyCount)
            } catch { throw fetch.naming(error, isKey: true) }
            guard let key = inserted else { continue }
            if !fetch.isAnnounced {
                front.appendRelation(fetch.relation)
                fetch.isAnnounced = true
                announcedNow.append(fetch)
            }
            switch try fetch.fetch(log, column: 2, key: key, into: buffer) {
            case .present: changes += 1
            case .absent:
                try fetch.appendRemove(key, to: removes)
                changes += 1
            case .presentUnderAnotherKey:
                try fetch.appendRemove(key, to: removes)
                changes += 2
            case .nothing: break
            }
            untilClock -= 1
            if buffer.count - start + removes.count >= limit || keys.count >= Self.keyLimit
                || keys.bytes >= Self.keyBytesLimit
            {
                return (last, changes, false)
            }
            if untilClock == 0 {
                untilClock = 64
                if ContinuousClock.now >= deadline { return (last, changes, false) }
            }
        }
        return (last, changes, true)
    }

    // MARK: Is it still the source that the session began with

    /// S4: compiles everything anew after a schema change, when the triggers have proven whole.
    private func checkSchema() throws(BridgeError) {
        defer { schemaVersion.reset() }
        guard try schemaVersion.step(), schemaVersion.integer(0) != knownSchema else { return }
        let version = schemaVersion.integer(0)
        guard let state = try CaptureState.read(names, connection.database) else {
            throw BridgeError(
                .captureBroken, "the change log was removed from the source", context: [.init(.slot, names.log)])
        }
        guard state.nonce == nonce else { throw replaced("it has another change log than the link began with") }
        let captured = try CapturedTable.read(names, connection.database)
        let standing = try installer.inspect(captured, connection.database)
        let tables = standing.mapValues(\.table)
        var rebuilt = [TableFetch?](repeating: nil, count: Int((captured.map(\.number).max() ?? 0) + 1))
        for entry in captured {
            guard let table = tables[entry.number],
                let mapping = link.mappings.first(where: { $0.source.name == entry.name })
            else {
                throw BridgeError(
                    .captureBroken, "the change log was made for other tables than the configuration names",
                    context: [.init(.table, entry.name)],
                    hint: "restore the list of tables in bridge.yaml, or start a new migration")
            }
            let fetch = try TableFetch(table, captured: entry, mapping: mapping, form: link.form, connection.database)
            // A relation that did not change need not be told again.
            if Int(entry.number) < fetches.count, let old = fetches[Int(entry.number)], old.relation == fetch.relation {
                fetch.isAnnounced = old.isAnnounced
            }
            rebuilt[Int(entry.number)] = fetch
        }
        try prepareLogStatements(keyColumns: tables.values.map(\.key.count).max() ?? 1)
        fetches = rebuilt
        knownSchema = version
        // Nothing is missed meanwhile, so reading goes on; the keeper writes.
        if standing.values.contains(where: { $0.isOutgrown }) { mailbox.askForTriggers() }
    }

    private func prepareLogStatements(keyColumns: Int) throws(BridgeError) {
        let log = quoteIdentifier(names.log)
        let state = quoteIdentifier(names.state)
        let keyList = (0..<keyColumns).map { "k\($0)" }.joined(separator: ", ")
        logRows = try connection.database.prepare(
            "SELECT seq, tbl, \(keyList) FROM main.\(log) WHERE seq > ?1 ORDER BY seq")
        newestChange = try connection.database.prepare(CaptureState.newestChange(names))
        markOfRow = try connection.database.prepare(CaptureState.markOfRow(names))
        stateCheck = try connection.database.prepare(
            """
            SELECT (SELECT value FROM main.\(state) WHERE key = 'nonce'),
                   (SELECT value FROM main.\(state) WHERE key = 'session'),
                   (SELECT value FROM main.\(state) WHERE key = 'acknowledgements'),
                   (SELECT mark FROM main.\(log) WHERE seq = ?1)
            """)
    }

    /// S5: a file that was put in the place of the source, or put back from a backup, is noticed in the same snapshot in
    /// which rows would be read from it.
    private func checkSource(_ knownAcknowledgements: Int64) throws(BridgeError) {
        guard let file = Self.identify(path), file == openedFile else {
            throw replaced("another file was put in its place")
        }
        guard let stateCheck else { return }
        try stateCheck.bind(1, integer: scanned)
        defer { stateCheck.reset() }
        guard try stateCheck.step() else { return }
        guard stateCheck.string(0) == nonce else { throw replaced("it has another change log than the link began with") }
        guard stateCheck.integer(2) >= knownAcknowledgements, isKnown(stateCheck, 3) else { throw rewound() }
        guard stateCheck.string(1) == session else {
            throw BridgeError(
                .slotForeign, "another process has begun to read this change log", context: [.init(.slot, names.log)],
                hint: "stop the other process, then run the command again")
        }
    }

    /// Whether the row that was looked at last is there, and is the same.
    private func isKnown(_ row: SQLiteStatement, _ column: Int) -> Bool {
        guard row.storageClass(column) == .integer else { return false }
        return mark.map { $0 == row.integer(column) } ?? true
    }

    private func replaced(_ how: String) -> BridgeError {
        BridgeError(.sourceReplaced, "the source was replaced: \(how)", context: [.init(.file, path)])
    }

    private func rewound() -> BridgeError {
        CaptureState.rewound(path: path, names: names)
    }
}

extension CaptureState {
    /// The log lacks what was read from it.
    static func rewound(path: String, names: CaptureNames) -> BridgeError {
        BridgeError(
            .sourceReplaced, "the source went back in time: its change log lacks changes that were taken from it already",
            context: [.init(.file, path), .init(.slot, names.log)],
            hint: """
                the file was restored from a backup, or lost commits in a power failure: empty the target tables and \
                begin again under a new migration name
                """)
    }
}

extension RecordBuffer {
    /// Puts another buffer's contents in front of what was written from `offset` on.
    func insert(_ other: RecordBuffer, at offset: Int) {
        guard !other.isEmpty else { return }
        let moved = count - offset
        append(other.bytes)
        guard moved > 0, let base = mutableBytes.baseAddress, let inserted = other.bytes.baseAddress else { return }
        memmove(base + offset + other.count, base + offset, moved)
        memcpy(base + offset, inserted, other.count)
    }
}

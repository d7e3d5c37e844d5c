import BridgeCore

/// Looks now and then, while a capture runs, whether everything that happens to the link's tables still comes through its
/// stream (requirements P5, P10). The stream itself would not tell: a table that is dropped and made anew is another one,
/// which the publication does not have, and a partition comes and goes with its rows.
///
/// It has a session and a thread of its own, so it never holds up the stream. What it cannot read now it reads next time.
actor CoverageWatch {
    /// What the watch reports; all other errors are the look's own.
    private static let findings: Set<ErrorCode> = [.captureBroken, .tableMissing, .changesUnseen]

    private nonisolated let executor = ThreadExecutor(name: "pg-coverage")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private nonisolated let connectionString: ConnectionString
    private nonisolated let link: LinkDescription
    private nonisolated let names: CaptureNames
    private nonisolated let origin: CaptureOrigin
    private nonisolated let tables: [CapturedTable]
    private nonisolated let signals: CaptureSignals
    private nonisolated let interval: Duration
    private nonisolated let memory: CoverageMemory
    private nonisolated let generation: Int
    private var session: PostgresConnection?

    /// - Parameters:
    ///   - tables: the link's tables, which the publication covers.
    ///   - memory: how they were when they were looked at last.
    ///   - generation: what the memory gave this session.
    ///   - signals: where a finding is reported.
    init(
        _ connectionString: ConnectionString, link: LinkDescription, names: CaptureNames, origin: CaptureOrigin,
        tables: [CapturedTable], memory: CoverageMemory, generation: Int, interval: Duration, signals: CaptureSignals
    ) {
        self.connectionString = connectionString
        self.link = link
        self.names = names
        self.origin = origin
        self.tables = tables
        self.memory = memory
        self.generation = generation
        self.signals = signals
        self.interval = interval
    }

    /// Looks again and again until it is cancelled or has found something.
    func run() async {
        while !Task.isCancelled {
            try? await Task.sleep(for: interval)
            guard !Task.isCancelled else { break }
            do throws(BridgeError) { try look() } catch {
                guard Self.findings.contains(error.code) else { continue }
                signals.fail(error)
                break
            }
        }
        session = nil
    }

    private func look() throws(BridgeError) {
        let session = try connected()
        try CaptureVerification(session: session, names: names, origin: origin).checkPublication(tables)
        let now = try CoverageFacts.read(tables, session)
        guard var known = memory.known(origin) else { return }
        if let obstacle = known.facts.obstacle(now) { throw obstacle }
        try settle(&known)
        let base = known.pending ?? known.facts
        var needsStream = false
        // A table that cannot be looked at now keeps nobody from the others.
        var unsettled: BridgeError?
        for rewritten in base.rewritten(now) {
            let found: TableName?
            do throws(BridgeError) { found = try firstWithoutOlderRows(rewritten, since: base) } catch {
                unsettled = error
                continue
            }
            guard let emptied = found else { continue }
            // The server streams a TRUNCATE of the root only, which empties all.
            guard rewritten.isWhole else { throw CoverageFacts.emptied(rewritten.configured, emptied) }
            needsStream = true
        }
        if let unsettled { throw unsettled }
        if known.pending == nil {
            if needsStream { known.pending = now } else { known.facts = now.keepingDroppedColumns(of: known.facts) }
        }
        try settle(&known)
        memory.store(known, origin, generation)
    }

    /// Once the stream has come to where the pending facts were read, it has brought each TRUNCATE that explains them. A
    /// TRUNCATE of the root must not explain what a partition lost after it, so later facts wait for these.
    private func settle(_ known: inout CoverageMemory.Known) throws(BridgeError) {
        guard let pending = known.pending, signals.deliveredPosition >= pending.end else { return }
        for rewritten in known.facts.rewritten(pending) where rewritten.isWhole {
            // By what the facts saw and not by place: a commit is in the log before anybody sees it.
            if let truncation = memory.truncation(of: rewritten.root, origin), !known.facts.sees(truncation) { continue }
            guard let emptied = try firstWithoutOlderRows(rewritten, since: known.facts) else { continue }
            throw CoverageFacts.emptied(rewritten.configured, emptied)
        }
        known.facts = pending.keepingDroppedColumns(of: known.facts)
        known.pending = nil
    }

    private func firstWithoutOlderRows(
        _ rewritten: CoverageFacts.Rewritten, since base: CoverageFacts
    ) throws(BridgeError) -> TableName? {
        for (oid, name) in rewritten.partitions where try !hasOlderRows(oid, name, base.oldestRunning) { return name }
        return nil
    }

    /// Whether a partition holds rows from before the last look: then they were carried over into its new file, as by VACUUM
    /// FULL.
    private func hasOlderRows(_ oid: UInt32, _ name: TableName, _ oldestRunning: String) throws(BridgeError) -> Bool {
        let session = try connected()
        do throws(BridgeError) {
            // Of a file that was rewritten, the rows at its beginning are as good as any.
            let rows = try session.rows(
                """
                SELECT 1 FROM ONLY \(name.quoted) WHERE ctid < '(1000,0)' AND tableoid = $1::oid
                AND age(xmin) > age($2::xid) LIMIT 1
                """, [String(oid), oldestRunning], during: "looking at a partition")
            return !rows.isEmpty
        } catch {
            // What a later look may find otherwise is left to it: a lock that was not to be had, a server that is full. One
            // that needs too long for so few rows would always.
            let mayPass = error.code == .serverBusy || error.code == .diskFull
            if session.isBroken || (mayPass && error.sqlState != "57014") { throw error }
            return false
        }
    }

    private func connected() throws(BridgeError) -> PostgresConnection {
        if let session, !session.isBroken { return session }
        let session = try PostgresConnection(connectionString, applicationName: "bridge capture \(link.name)")
        try session.execute("SET statement_timeout = '10s'; SET lock_timeout = '500ms'")
        self.session = session
        return session
    }
}

import BridgeCore
import CLibPQ

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Reads a slot's changes over a replication connection: a thin shell of I/O round ``StreamIntake``.
///
/// What the server is told (requirement P2): the flush position is what was acknowledged, never more than was delivered,
/// and 0 while nothing is known. A status goes out at least every ``statusInterval``, also while nobody reads, soon after an acknowledgement, and
/// at once when the server asks.
actor PostgresCapture: CaptureSession {
    /// Acknowledgements closer together than this share a status.
    private static let statusSpacing = Duration.milliseconds(10)
    /// How often an idle capture asks the server where it stands.
    private static let questionInterval = Duration.seconds(1)
    /// News that consist of a keepalive only are handed on no more often than this.
    private static let frontierSpacing = Duration.milliseconds(20)
    private static let quickSuccession = Duration.microseconds(200)
    /// Less than what fills the socket's buffer with small messages, so that the server does not wait for us.
    private static let gatheringMicroseconds: UInt32 = 200
    /// A part of a transaction that is read back, and of which perhaps nothing is delivered, before the server is looked to.
    private static let readBackMessages = 100_000
    private static let turnBytes = 4 << 20
    private static let numberRefresh = Duration.seconds(3_600)

    nonisolated let executor = ThreadExecutor(name: "pg-capture")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private nonisolated let signals: CaptureSignals
    private nonisolated let connectionString: ConnectionString
    private nonisolated let link: LinkDescription
    private nonisolated let origin: CaptureOrigin
    private nonisolated let durable: Position
    private nonisolated let options: PostgresSource.Options
    private nonisolated let consent: StreamingConsent
    private nonisolated let memory: CoverageMemory
    private nonisolated let catalog: CaptureCatalog

    private var stream: PostgresConnection?
    private var intake: StreamIntake
    private let isStreaming: Bool
    private var data = PGCopyData()
    private let statusBuffer = RecordBuffer(capacity: 64)
    private var heartbeat: Task<Void, Never>?
    private var keeping: Task<Void, Never>?
    private var watch: Task<Void, Never>?

    /// Everything that commits before it has been delivered.
    private var frontier: UInt64
    private var reportedFrontier: UInt64
    private var lastFrontierReport: ContinuousClock.Instant?
    /// The frontier when a mark was read that somebody waits for. The next one is behind the mark.
    private var frontierAtMark: UInt64?
    /// A third of the time after which the server takes a silent reader for dead, and never long.
    private var statusInterval = Duration.seconds(5)
    private var toldFlushed: UInt64 = 0
    private var quickReads = 0
    /// Whether messages may be at hand that the last look left.
    private var hasMore = false
    private var lastRecords = ContinuousClock.now
    private var lastStatus = ContinuousClock.now
    private var lastQuestion = ContinuousClock.now
    private var lastNumbers = ContinuousClock.now
    /// Since when an answer to a question is awaited. An idle server that nobody reads from owes us nothing.
    private var unansweredSince: ContinuousClock.Instant?
    /// Since when libpq holds a status that the socket would not take.
    private var unsentSince: ContinuousClock.Instant?

    init(
        _ connectionString: ConnectionString, link: LinkDescription, origin: CaptureOrigin, durable: Position,
        options: PostgresSource.Options, workspace: CaptureWorkspace?, consent: StreamingConsent, memory: CoverageMemory
    ) throws(BridgeError) {
        self.connectionString = connectionString
        self.link = link
        self.origin = origin
        self.durable = durable
        self.options = options
        catalog = CaptureCatalog(connectionString, applicationName: "bridge capture \(link.name)")
        self.consent = consent
        self.memory = memory
        signals = try CaptureSignals(durable: durable)
        frontier = durable.commit
        reportedFrontier = durable.commit
        var spill: TransactionSpill?
        if consent.holds, let workspace { spill = try TransactionSpill(workspace) }
        isStreaming = spill != nil
        intake = StreamIntake(link, durable: durable, spill: spill)
    }

    // MARK: Opening

    /// Proves that the source is what it was, and begins the stream.
    func start() throws(BridgeError) {
        let names = try CaptureNames(link)
        let session = try PostgresConnection(connectionString, applicationName: "bridge capture \(link.name)")
        try session.execute("SET lock_timeout = \(max(1, Int(options.lockPatience / .milliseconds(1))))")
        let stream = try PostgresConnection(
            connectionString, purpose: .replication, applicationName: "bridge capture \(link.name)",
            interrupter: signals.interrupter)
        let system = try SystemIdentity(stream)
        let verification = CaptureVerification(session: session, names: names, origin: origin)
        try verification.checkServer(systemIdentifier: system.identifier, timeline: system.timeline)
        try waitForReader(names.slot, session)
        let confirmed = try verification.checkSlot(durable: durable)
        let tables = try verification.publishedTables(of: link)
        try verification.checkNames(tables)
        try verification.checkPublication(tables)
        let generation = memory.begin(origin, try CoverageFacts.read(tables, session))
        let coverage = CoverageWatch(
            connectionString, link: link, names: names, origin: origin, tables: tables, memory: memory,
            generation: generation, interval: options.coverageInterval, signals: signals)
        for table in tables { intake.decoder.name(table.oid, as: table.schema.name) }
        intake.decoder.observe(nextTransaction: try CaptureCatalog.nextTransaction(session))
        let timeout = try session.rows("SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'").first?[0]
        if let milliseconds = timeout.flatMap({ Int($0) }), milliseconds > 0 {
            statusInterval = min(statusInterval, .milliseconds(max(1, milliseconds / 3)))
        }

        // The slot's own position (requirement P4): from a higher one the server would skip changes without a word.
        do throws(BridgeError) {
            try stream.beginCopyBoth(
                """
                START_REPLICATION SLOT \(quoteIdentifier(names.slot)) LOGICAL \(LogSequenceNumber.text(confirmed)) \
                (\(isStreaming ? "proto_version '2', streaming 'on'" : "proto_version '1'"), \
                publication_names \(quoteLiteral(quoteIdentifier(names.publication))), messages 'true')
                """, during: "starting the change stream")
        } catch {
            if error.sqlState == "55006" {
                throw ReplicationSlots.inUse(names.slot, try SlotState.read(names.slot, session)?.activeProcess)
            }
            throw StreamErrors.explained(error)
        }
        self.stream = stream
        try sendStatus(asking: true)
        let keeper = SlotKeeper(connectionString, slot: names.slot, applicationName: "bridge capture \(link.name)")
        keeping = Task { [signals] in await keeper.run(signals) }
        watch = Task { await coverage.run() }
        // Twice in an interval, so that no more than one and a half of it can pass in silence.
        let pulse = statusInterval / 2
        heartbeat = Task { [weak self] in
            while !Task.isCancelled {
                try? await Task.sleep(for: pulse)
                guard let self, !Task.isCancelled else { return }
                await self.beat()
            }
        }
    }

    /// Waits a little for the slot's last reader to go, such as that of a process that was killed.
    private func waitForReader(_ slot: String, _ session: PostgresConnection) throws(BridgeError) {
        let end = ContinuousClock.now + options.readerPatience
        while let process = try SlotState.read(slot, session)?.activeProcess {
            guard ContinuousClock.now < end else { throw ReplicationSlots.inUse(slot, process) }
            try session.pause(.milliseconds(50))
        }
    }

    // MARK: Reading

    func read(into buffer: RecordBuffer, limit: Int, patience: Duration) throws(BridgeError) -> CaptureProgress {
        guard let stream else { throw BridgeError(.connectionLost, "the capture is closed") }
        if let failure = signals.failure { throw told(failure) }
        do throws(BridgeError) {
            if intake.isReadingBack { try Failpoint.captureReadBackPart.hit() }
            return try read(stream, into: buffer, limit: limit, patience: patience)
        } catch {
            // A connection may break in the moment of a finding, and would be made anew.
            if let failure = signals.failure { throw told(failure) }
            let explained = isStreaming ? StreamErrors.refusal(error) ?? StreamErrors.explained(error) : StreamErrors.explained(error)
            consent.withdraw(after: explained)
            throw explained
        }
    }

    private func told(_ failure: BridgeError) -> BridgeError {
        if failure.code == .changesUnseen { memory.forget(origin) }
        return failure
    }

    private func read(
        _ stream: PostgresConnection, into buffer: RecordBuffer, limit: Int, patience: Duration
    ) throws(BridgeError) -> CaptureProgress {
        let start = buffer.count
        let end = start + max(1, limit)
        let deadline = ContinuousClock.now + patience
        var progress = CaptureProgress(firstCommit: intake.decoder.openPosition, frontier: Position(commit: frontier))
        if intake.isBetweenTransactions, lastNumbers.duration(to: .now) > Self.numberRefresh {
            intake.decoder.observe(nextTransaction: try catalog.nextTransaction())
            lastNumbers = .now
        }
        while true {
            try takeMessages(stream, buffer, end, &progress)
            var now = ContinuousClock.now
            if buffer.count > start, gathers(now), buffer.count < end {
                usleep(Self.gatheringMicroseconds)
                try takeMessages(stream, buffer, end, &progress)
                now = .now
                lastRecords = now
            }
            try maintain(stream, now)
            let hasRecords = buffer.count > start
            if hasRecords || isFrontierDue(now) || now >= deadline { break }
            if intake.isReadingBack || hasMore { continue }
            switch stream.wait(unsentSince == nil ? .read : [.read, .write], until: nextWake(before: deadline)) {
            case .ready(let events):
                if events.contains(.read) { try stream.consumeInput() }
            case .interrupted:
                if signals.takeInterrupt() {
                    try maintain(stream, .now)
                    return finish(&progress)
                }
            case .timedOut: break
            }
        }
        return finish(&progress)
    }

    /// Whether to let messages gather before the next look: records have come in quick succession for a while, so this is
    /// a backlog or a flood. The server sends each message by itself, and a reader that wakes for each costs both sides
    /// more than the message. At light load it never applies, so it costs no latency there.
    private func gathers(_ now: ContinuousClock.Instant) -> Bool {
        quickReads = now - lastRecords < Self.quickSuccession ? quickReads + 1 : 0
        lastRecords = now
        return quickReads > 16
    }

    private func finish(_ progress: inout CaptureProgress) -> CaptureProgress {
        progress.isInsideTransaction = intake.decoder.openPosition != nil
        progress.frontier = Position(commit: frontier)
        // The truncations first: whoever sees the position counts on them.
        memory.note(intake.decoder.takeTruncations(), origin)
        signals.deliver(frontier)
        if let frontierAtMark, frontier > frontierAtMark {
            progress.isAwaited = true
            self.frontierAtMark = nil
        }
        if frontier > reportedFrontier {
            reportedFrontier = frontier
            lastFrontierReport = .now
        }
        return progress
    }

    /// Takes every message that is at hand, as long as there is room, and not more than ``turnBytes``: those of running
    /// transactions take no room in the buffer, and whoever waits for this read would wait for the last of them.
    private func takeMessages(
        _ stream: PostgresConnection, _ buffer: RecordBuffer, _ end: Int, _ progress: inout CaptureProgress
    ) throws(BridgeError) {
        var hasLookedAtSocket = false
        var taken = 0
        hasMore = false
        while buffer.count < end {
            guard taken < Self.turnBytes else {
                hasMore = true
                return
            }
            if intake.isReadingBack {
                try readBack(buffer, end, &progress)
                // What is left waits for its turn; the server may have waited for a sign of life.
                if intake.isReadingBack { return }
                continue
            }
            switch try stream.receiveCopy(&data) {
            case .message:
                hasLookedAtSocket = false
                unansweredSince = nil
                taken += data.bytes.count
                try take(data.bytes, stream, buffer, &progress)
            case .pending:
                // The socket is read once more before this counts as nothing.
                if hasLookedAtSocket { return }
                try stream.consumeInput()
                hasLookedAtSocket = true
            case .ended:
                throw BridgeError(.connectionLost, "the server ended the change stream", context: [.init(.server, stream.displayName)])
            }
        }
    }

    @inline(__always)
    private func take(
        _ bytes: UnsafeRawBufferPointer, _ stream: PostgresConnection, _ buffer: RecordBuffer,
        _ progress: inout CaptureProgress
    ) throws(BridgeError) {
        switch try StreamFrame(bytes) {
        case .data(let message):
            let step = try intake.take(message, into: buffer)
            guard case .needsTypes(let references) = step else { return note(step, &progress) }
            for (reference, type) in try catalog.types(references) { intake.decoder.provide(type, for: reference) }
            note(try intake.take(message, into: buffer), &progress)
        case .keepalive(let walEnd, let replyRequested):
            // Inside a transaction the server may speak of a place behind changes that it has not sent yet.
            if intake.isBetweenTransactions { frontier = max(frontier, walEnd) }
            if replyRequested { try sendStatus(asking: false) }
        }
    }

    @inline(__always)
    private func note(_ step: PgOutputDecoder.Step, _ progress: inout CaptureProgress) {
        switch step {
        case .nothing, .needsTypes: break
        case .mark: frontierAtMark = frontier
        case .change:
            progress.rows += 1
            if progress.firstCommit == nil { progress.firstCommit = intake.decoder.openPosition }
        case .committed(let transaction, let hasRecords):
            frontier = max(frontier, transaction.end)
            if hasRecords {
                progress.lastCommit = transaction
                progress.transactions += 1
            }
        }
    }

    /// Delivers a part of a transaction that was streamed while it ran.
    private func readBack(_ buffer: RecordBuffer, _ end: Int, _ progress: inout CaptureProgress) throws(BridgeError) {
        for _ in 0..<Self.readBackMessages {
            guard intake.isReadingBack, buffer.count < end else { return }
            let step = try intake.readBack(into: buffer)
            if case .needsTypes(let references) = step {
                for (reference, type) in try catalog.types(references) { intake.decoder.provide(type, for: reference) }
            }
            note(step, &progress)
        }
    }

    // MARK: Talking to the server

    private func isFrontierDue(_ now: ContinuousClock.Instant) -> Bool {
        guard frontier > reportedFrontier else { return false }
        if let frontierAtMark, frontier > frontierAtMark { return true }
        return lastFrontierReport.map { now - $0 >= Self.frontierSpacing } ?? true
    }

    private func nextWake(before deadline: ContinuousClock.Instant) -> ContinuousClock.Instant {
        var wake = min(deadline, lastStatus + statusInterval, lastQuestion + Self.questionInterval)
        if flushPosition > toldFlushed { wake = min(wake, lastStatus + Self.statusSpacing) }
        if frontier > reportedFrontier, let lastFrontierReport { wake = min(wake, lastFrontierReport + Self.frontierSpacing) }
        return wake
    }

    /// What may be told: what was acknowledged, as far as it was delivered.
    private var flushPosition: UInt64 { min(signals.acknowledgedPosition, frontier) }

    /// Sends a status if one is due.
    private func maintain(_ stream: PostgresConnection, _ now: ContinuousClock.Instant) throws(BridgeError) {
        if let unsentSince {
            if PQflush(stream.raw) == 0 {
                self.unsentSince = nil
            } else if now - unsentSince > .seconds(30) {
                throw BridgeError(
                    .connectionLost, "the server does not take what is sent to it", context: [.init(.server, stream.displayName)])
            }
        }
        if let unansweredSince, now - unansweredSince > stream.silenceLimit {
            // A server that is busy decoding for long may answer late; it says so over another connection.
            try stream.examineSilence(.read, during: "waiting for the change stream")
            self.unansweredSince = nil
        }
        let asks = now - lastQuestion >= Self.questionInterval
        let hasNews = flushPosition > toldFlushed && now - lastStatus >= Self.statusSpacing
        if asks || hasNews || now - lastStatus >= statusInterval { try sendStatus(asking: asks) }
    }

    private func sendStatus(asking: Bool) throws(BridgeError) {
        // One that waits for the socket says nearly the same; more of them would pile up.
        guard let stream, unsentSince == nil else { return }
        let flushed = flushPosition
        StandbyStatus(written: frontier, flushed: flushed, asksForReply: asking).write(into: statusBuffer)
        let bytes = statusBuffer.bytes
        let sent = PQputCopyData(
            stream.raw, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), Int32(bytes.count))
        guard sent >= 0 else { throw stream.connectionError(during: "reporting progress") }
        let flush = PQflush(stream.raw)
        guard flush >= 0 else { throw stream.connectionError(during: "reporting progress") }
        lastStatus = .now
        if flush == 1 || sent == 0 { unsentSince = lastStatus }
        if sent == 1 { toldFlushed = max(toldFlushed, flushed) }
        if asking {
            lastQuestion = lastStatus
            unansweredSince = unansweredSince ?? lastStatus
        }
    }

    /// Keeps the server from taking a capture for dead whose reader is busy elsewhere.
    private func beat() {
        guard let stream, lastStatus.duration(to: .now) >= statusInterval else { return }
        if unsentSince != nil, PQflush(stream.raw) == 0 { unsentSince = nil }
        // If it fails, the next read says so.
        try? sendStatus(asking: false)
    }

    nonisolated func acknowledge(_ position: Position) { signals.acknowledge(position.commit) }

    nonisolated func interrupt() { signals.interrupt() }

    func close() {
        heartbeat?.cancel()
        keeping?.cancel()
        watch?.cancel()
        guard let stream else { return }
        self.stream = nil
        guard !stream.isBroken else { return }
        signals.interrupter.reset()
        let end = ContinuousClock.now + .seconds(2)
        // The stream is ended in good order: a socket closed with data in it would be reset, and the last status lost.
        StandbyStatus(written: frontier, flushed: flushPosition, asksForReply: false).write(into: statusBuffer)
        let bytes = statusBuffer.bytes
        guard PQputCopyData(stream.raw, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), Int32(bytes.count)) == 1,
            PQputCopyEnd(stream.raw, nil) == 1
        else { return }
        try? stream.flush(until: end, ignoringInterrupts: true)
        drain(stream, until: end)
    }

    /// Reads and drops what the server still sends, up to its end of the stream.
    private func drain(_ stream: PostgresConnection, until end: ContinuousClock.Instant) {
        while ContinuousClock.now < end {
            switch data.receive(from: stream.raw) {
            case 0:
                guard case .ready = stream.wait(.read, until: end, ignoringInterrupts: true), PQconsumeInput(stream.raw) == 1
                else { return }
            case 1...: continue
            default: return
            }
        }
    }
}

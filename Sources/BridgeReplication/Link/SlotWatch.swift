package import BridgeCore
import Logging

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// How much log a source may keep for a link, and what is done there.
package struct SlotLimit: Sendable {
    package enum Action: String, CaseIterable, Sendable {
        /// Stop, and remove the capture from the source, which may then forget the log.
        case drop
        /// Go on, and warn.
        case hold
    }

    package var bytes: Int64
    package var action: Action
    /// From one look to the next.
    package var interval: Duration
    /// For how long nothing may get on beyond the limit before it is dropped.
    package var patience: Duration
    /// Asked before anything is dropped: a capture that the way back rests on stays.
    package var mayDrop: @Sendable () -> Bool
    /// Where it is written down that the capture was dropped. Absolute.
    package var recordFile: String

    package init(
        bytes: Int64, action: Action, recordFile: String, interval: Duration = .seconds(10),
        patience: Duration = .seconds(60), mayDrop: @escaping @Sendable () -> Bool = { true }
    ) {
        self.bytes = bytes
        self.action = action
        self.recordFile = recordFile
        self.interval = interval
        self.patience = patience
        self.mayDrop = mayDrop
    }

    /// From this part of the limit on it is warned of.
    package static let warningPart = 0.75

    /// Whether it is to be warned of.
    package static func isNear(_ retained: Int64, _ limit: Int64) -> Bool {
        Double(retained) >= Double(limit) * warningPart
    }
}

/// Decides what follows from each look at what the source keeps. A value without I/O.
package struct SlotCourse: Sendable {
    package enum Verdict: Hashable, Sendable {
        case fine
        case near
        /// Beyond the limit, and to be waited out.
        case beyond
        case drop
    }

    /// What capture has done by the time of a look.
    package struct Intake: Sendable {
        /// Everything before it was received.
        package var captured: Position
        /// How many rows were received, and in how many sessions; each receives again what was not durable.
        package var rows: Int64
        package var sessions: Int

        package init(captured: Position = .zero, rows: Int64 = 0, sessions: Int = 0) {
            self.captured = captured
            self.rows = rows
            self.sessions = sessions
        }
    }

    /// The least that was found since the limit was passed, and when anything got on last.
    private struct Least {
        var retained: Int64
        /// What was left to capture, in bytes of the source's log.
        var backlog: Int64?
        var since: ContinuousClock.Instant
    }

    private let bytes: Int64
    private let action: SlotLimit.Action
    private let patience: Duration
    private var least: Least?
    /// At the last look.
    private var last = Intake()
    /// The rows before the session of the last look, and the most that any session received behind the same place.
    private var rowsBefore: Int64 = 0
    private var mostRows: Int64 = 0

    package init(bytes: Int64, action: SlotLimit.Action, patience: Duration) {
        self.bytes = bytes
        self.action = action
        self.patience = patience
    }

    /// A capture that was away for long finds much, and takes it in: it is given up only when nothing gets on.
    ///
    /// While a large transaction is taken in the source keeps all of it, so what it keeps does not get less although
    /// capture comes nearer to the log's end, or takes the transaction's rows. A capture that only keeps pace gets on no
    /// more: a transaction that somebody left open would otherwise hold the log for ever.
    /// - Parameter mayDrop: whether nothing else forbids it.
    package mutating func look(
        _ retention: SourceRetention, _ intake: Intake = Intake(), at now: ContinuousClock.Instant, mayDrop: Bool
    ) -> Verdict {
        let takesRows = noteRows(intake)
        let retained = retention.bytes
        guard retained >= bytes else {
            least = nil
            return SlotLimit.isNear(retained, bytes) ? .near : .fine
        }
        let backlog = retention.logEnd.map { Int64(clamping: $0.commit) - Int64(clamping: intake.captured.commit) }
        guard var least else {
            self.least = Least(retained: retained, backlog: backlog, since: now)
            return patience == .zero && action == .drop && mayDrop ? .drop : .beyond
        }
        let isNearer = if let backlog, let known = least.backlog { backlog < known } else { false }
        if retained < least.retained || isNearer || takesRows { least.since = now }
        least.retained = min(least.retained, retained)
        least.backlog = [least.backlog, backlog].compactMap { $0 }.min()
        self.least = least
        return action == .drop && mayDrop && least.since.duration(to: now) >= patience ? .drop : .beyond
    }

    /// A look found nothing out. What went on meanwhile is unknown, so the waiting begins anew.
    package mutating func missed() { least = nil }

    /// Whether rows came that no session had received, while no transaction ended: a large one is being taken in.
    private mutating func noteRows(_ intake: Intake) -> Bool {
        defer { last = intake }
        if intake.captured != last.captured {
            (rowsBefore, mostRows) = (intake.rows, 0)
            return false
        }
        if intake.sessions != last.sessions { rowsBefore = last.rows }
        let rows = intake.rows - rowsBefore
        guard rows > mostRows else { return false }
        mostRows = rows
        return true
    }
}

/// Watches what the source keeps for a link while the link runs, whatever its other parts do meanwhile.
struct SlotWatch: Sendable {
    let link: LinkDescription
    let limit: SlotLimit
    let source: any SourceConnector
    let board: ProgressBoard
    let stop: StopSignal
    let logger: Logger

    /// Looks until told to stop.
    /// - Returns: `slotLimit` when the capture is to be dropped; nil when told to stop.
    func run() async -> BridgeError? {
        var course = SlotCourse(bytes: limit.bytes, action: limit.action, patience: limit.patience)
        var last = SlotCourse.Verdict.fine
        while !stop.isRequested {
            let found = await retention()
            // A source that does not answer is capture's to tell of.
            if found == nil { course.missed() }
            if let retention = found, retention.state != "lost" {
                let progress = board.current
                let verdict = course.look(
                    retention,
                    .init(captured: progress.captured, rows: progress.rowsCaptured, sessions: progress.captureSessions),
                    at: .now, mayDrop: limit.mayDrop())
                let words = Self.words(retention.bytes, limit.bytes)
                board.update {
                    $0.retention = retention
                    $0.slotWarning = verdict == .fine ? nil : words
                }
                switch verdict {
                case .fine: if last != .fine { logger.notice("the source keeps less log for the link again") }
                case .near: if last == .fine { logger.warning("\(words); \(Self.advice)") }
                case .beyond: if last != .beyond { logger.error("\(words); \(Self.advice)") }
                case .drop: return SlotLimit.error(link, words)
                }
                last = verdict
            }
            await stop.sleep(limit.interval)
        }
        return nil
    }

    /// What the source says. Nil also once a stop is requested: a source that has fallen silent may answer late, and then
    /// the look ends with its connection.
    private func retention() async -> SourceRetention? {
        await withCheckedContinuation { continuation in
            let first = FirstAnswer<SourceRetention?>(continuation)
            let registration = stop.onRequest { first.give(nil) }
            Task {
                first.give((try? await source.retention(link)).flatMap { $0 })
                stop.forget(registration)
            }
        }
    }

    private static let advice =
        "let the target catch up, end long transactions on the source, or raise replication.slot_retained_limit"

    private static func words(_ retained: Int64, _ limit: Int64) -> String {
        "the source keeps \(retained / 1_000_000) MB of log for the link, of \(limit / 1_000_000) MB that it may"
    }
}

extension SlotLimit {
    static func error(_ link: LinkDescription, _ words: String) -> BridgeError {
        BridgeError(.slotLimit, "the capture was given up to spare the source's disk: \(words)", context: [.init(.slot, link.identifier)])
    }

    // MARK: - The record

    /// Writes down that the capture is about to be dropped, so that what is missing later is not a riddle.
    func record(_ origin: CaptureOrigin, _ error: BridgeError) throws(BridgeError) {
        let text = "\(error.message)\n\(origin.identityText)\n"
        let temporary = recordFile + ".new"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure }
        let bytes = Array(text.utf8)
        let isWritten = write(descriptor, bytes, bytes.count) == bytes.count && fsync(descriptor) == 0
        close(descriptor)
        guard isWritten, rename(temporary, recordFile) == 0 else { throw failure }
    }

    private var failure: BridgeError {
        BridgeError(.inputOutput, "what became of the slot cannot be written down", context: [.init(.file, recordFile)])
    }

    /// What ``record(_:_:)`` wrote of this capture; nil if it was not dropped.
    func recorded(_ origin: CaptureOrigin, _ link: LinkDescription) -> BridgeError? {
        guard let message = Self.recordedMessage(recordFile, of: origin) else { return nil }
        return BridgeError(.slotLimit, message, context: [.init(.slot, link.identifier)])
    }

    /// The message of a record; nil if there is none, or it is of another capture.
    package static func recordedMessage(_ file: String, of origin: CaptureOrigin) -> String? {
        guard let handle = fopen(file, "re") else { return nil }
        defer { fclose(handle) }
        var bytes = [UInt8](repeating: 0, count: 65_536)
        let text = String(decoding: bytes[..<fread(&bytes, 1, bytes.count, handle)], as: UTF8.self)
        guard let end = text.firstIndex(of: "\n"), text[text.index(after: end)...] == origin.identityText + "\n" else { return nil }
        return String(text[..<end])
    }
}

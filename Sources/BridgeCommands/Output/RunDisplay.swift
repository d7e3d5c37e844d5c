import BridgeCore
import Logging
import Synchronization

/// Shows how a run goes: a progress line where stderr is a terminal, else a log line now and then.
final class RunDisplay: Sendable {
    private struct State {
        var lastLogged: [String: ContinuousClock.Instant] = [:]
        var lastActivity: [String: String] = [:]
        /// What each link said last, the way forward first.
        var lines: [String: String] = [:]
    }
    private let state = Mutex(State())
    private let style: Style
    private let logger: Logger
    /// How often a log line is written where there is no terminal.
    private let interval: Duration

    init(style: Style, logger: Logger, interval: Duration = .seconds(10)) {
        self.style = style
        self.logger = logger
        self.interval = interval
    }

    func show(_ report: RunReport) {
        let direction = report.direction
        if Console.shared.isInteractive {
            let lines = state.withLock { state in
                state.lines[direction] = report.state == .running ? Self.labelled(report) : nil
                return state.lines.sorted { $0.key < $1.key }.map(\.value)
            }
            Console.shared.progress(lines.joined(separator: "  |  "))
            return
        }
        let isDue = state.withLock { state in
            let now = ContinuousClock.now
            let isDue =
                state.lastActivity[direction] != report.activity
                || (state.lastLogged[direction].map { now - $0 >= interval } ?? true)
            if isDue {
                state.lastLogged[direction] = now
                state.lastActivity[direction] = report.activity
            }
            return isDue
        }
        if isDue { logger.info("\(Self.labelled(report))") }
    }

    /// The way forward needs no name where it is alone.
    private static func labelled(_ report: RunReport) -> String {
        report.direction == LinkDirection.forward.rawValue ? line(report) : "\(report.direction): \(line(report))"
    }

    func finish() { Console.shared.progress("") }

    /// One line: what is going on, how far, how fast, how long still.
    static func line(_ report: RunReport) -> String {
        if let trouble = report.trouble { return "\(report.activity): \(trouble)" }
        switch report.activity {
        case "copying": return copyLine(report)
        case "streaming":
            var parts = [
                "syncing", "\(Numbers.rate(report.transactionsPerSecond ?? 0)) transactions/s",
                "\(Numbers.rate(report.rowsPerSecond ?? 0)) rows/s",
            ]
            if let lag = report.lagSeconds { parts.append("lag \(Numbers.duration(seconds: lag))") }
            if let bytes = report.journalBytes { parts.append("journal \(Numbers.bytes(bytes))") }
            return parts.joined(separator: "  ")
        default: return report.activity
        }
    }

    private static func copyLine(_ report: RunReport) -> String {
        let done = report.tables.reduce(Int64(0)) { $0 + $1.rowsDone }
        let finished = report.tables.count { $0.state == "done" }
        var parts = ["copying"]
        let estimates = report.tables.compactMap { $0.state == "done" ? $0.rowsDone : $0.rowsEstimated }
        if estimates.count == report.tables.count {
            // An estimate may be below what was found; a bar beyond its end would help nobody.
            let all = max(done, estimates.reduce(0, +))
            let part = all == 0 ? 1 : Double(done) / Double(all)
            parts.append(bar(part) + " \(Int(part * 100))%")
        }
        parts.append("\(Numbers.grouped(done)) rows")
        parts.append("\(finished) of \(report.tables.count) tables")
        parts.append("\(Numbers.rate(report.copyRowsPerSecond ?? 0)) rows/s")
        if let left = report.copyEtaSeconds { parts.append("\(Numbers.duration(seconds: left)) left") }
        return parts.joined(separator: "  ")
    }

    static func bar(_ part: Double, width: Int = 20) -> String {
        let filled = Int((min(max(part, 0), 1) * Double(width)).rounded(.down))
        return "[" + String(repeating: "#", count: filled) + String(repeating: "-", count: width - filled) + "]"
    }
}

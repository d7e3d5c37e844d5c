import BridgeConsistency
import Logging
import Synchronization

/// Shows how far a check is: a progress line where stderr is a terminal, else a log line now and then.
final class CheckDisplay: Sendable {
    private let lastLogged = Mutex<ContinuousClock.Instant?>(nil)
    private let logger: Logger
    private let interval: Duration

    init(logger: Logger, interval: Duration = .seconds(10)) {
        self.logger = logger
        self.interval = interval
    }

    func show(_ progress: CheckReport.Progress) {
        if Console.shared.isInteractive {
            Console.shared.progress(Self.line(progress))
            return
        }
        let isDue = lastLogged.withLock { last in
            let now = ContinuousClock.now
            guard last.map({ now - $0 >= interval }) ?? true else { return false }
            last = now
            return true
        }
        if isDue { logger.info("\(Self.line(progress))") }
    }

    func finish() { Console.shared.progress("") }

    static func line(_ progress: CheckReport.Progress) -> String {
        var parts = ["checking"]
        if let estimate = progress.rowsEstimated {
            // An estimate may be below what was found; a bar beyond its end would help nobody.
            let all = max(progress.rowsDone, estimate)
            let part = all == 0 ? 0 : Double(progress.rowsDone) / Double(all)
            parts.append("\(RunDisplay.bar(part)) \(Int(part * 100))%")
        }
        parts.append("\(Numbers.grouped(progress.rowsDone)) rows")
        if let left = progress.etaSeconds { parts.append("\(Numbers.duration(seconds: left)) left") }
        return parts.joined(separator: "  ")
    }
}

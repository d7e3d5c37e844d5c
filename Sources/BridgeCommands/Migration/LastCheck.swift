import BridgeConsistency
import BridgeCore

/// The newest check of the history, for `status`.
struct LastCheck: Hashable, Sendable {
    var checkId: String
    var verdict: CheckReport.Verdict
    var mode: CheckReport.Mode?
    var background: Bool?
    var completedAt: String?
    /// Whether its file could be read; if not, it may have said anything.
    var isReadable = true

    /// - Returns: nil if there is none.
    static func read(_ directory: DataDirectory, migration: String) async -> LastCheck? {
        let found = try? await BlockingWork().run { () throws(BridgeError) in
            try CheckHistory(directory).newest(of: migration)
        }
        guard let entry = found ?? nil else { return nil }
        guard let report = entry.report else {
            return LastCheck(checkId: entry.checkId, verdict: .error, isReadable: false)
        }
        return LastCheck(
            checkId: entry.checkId, verdict: report.verdict, mode: report.mode, background: report.background,
            completedAt: report.completedAt)
    }

    /// How long ago it was completed.
    func age(at now: Timestamp) -> Double? {
        completedAt.flatMap(RFC3339.seconds).map { max(0, Double(now.microseconds) / 1e6 - $0) }
    }

    func json(at now: Timestamp) -> JSONValue {
        [
            "verdict": .string(verdict.rawValue), "completed_at": JSONValue(completedAt),
            "mode": JSONValue(mode?.rawValue), "background": JSONValue(background), "check_id": .string(checkId),
            "age_seconds": JSONValue(age(at: now)),
        ]
    }

    func line(_ style: Style, at now: Timestamp) -> String {
        guard isReadable else { return style.red("  last check  the report \(checkId) cannot be read") }
        let word =
            switch verdict {
            case .consistent: style.green(verdict.rawValue)
            case .inconclusive: style.yellow(verdict.rawValue)
            case .inconsistent, .error: style.red(verdict.rawValue)
            }
        let age = age(at: now).map { ", \(Numbers.duration(seconds: $0)) ago" } ?? ""
        return "  last check  \(word), \(mode?.rawValue ?? "")\(age)  \(checkId)"
    }
}

import Foundation

/// Times as reports have them.
enum RFC3339 {
    /// Seconds since 1970; nil for what is no such time.
    static func seconds(_ text: String) -> Double? {
        let formatter = ISO8601DateFormatter()
        for options in [ISO8601DateFormatter.Options.withInternetDateTime, [.withInternetDateTime, .withFractionalSeconds]] {
            formatter.formatOptions = options
            if let date = formatter.date(from: text) { return date.timeIntervalSince1970 }
        }
        return nil
    }
}

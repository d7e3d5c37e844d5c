package import BridgeCore
import Foundation

extension CutoverWindow {
    /// How long the window is open yet at a moment; nil outside it. Its times are those of a wall clock in its zone, so
    /// that one over which the clock is put forward is shorter, and one over which it is put back is longer.
    package func remaining(at moment: Timestamp) -> Duration? {
        let now = Date(timeIntervalSince1970: Double(moment.microseconds) / 1e6)
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = timeZone
        // The window of today, or the one of yesterday that goes on beyond midnight.
        for daysAgo in 0...1 {
            guard let day = calendar.date(byAdding: .day, value: -daysAgo, to: now) else { continue }
            let weekday = calendar.component(.weekday, from: day) - 1
            guard weekdays.isEmpty || weekdays.contains(weekday) else { continue }
            let midnight = calendar.startOfDay(for: day)
            guard let start = Self.moment(startMinute, after: midnight, calendar) else { continue }
            let endDay = endMinute > startMinute ? midnight : calendar.date(byAdding: .day, value: 1, to: midnight) ?? midnight
            guard let end = Self.moment(endMinute, after: endDay, calendar), start <= now, now < end else { continue }
            return .milliseconds(Int64(end.timeIntervalSince(now) * 1_000))
        }
        return nil
    }

    private static func moment(_ minute: Int, after midnight: Date, _ calendar: Calendar) -> Date? {
        if minute == 24 * 60 { return calendar.date(byAdding: .day, value: 1, to: midnight) }
        return calendar.date(bySettingHour: minute / 60, minute: minute % 60, second: 0, of: midnight)
    }

    private var timeZone: TimeZone {
        if zone.hasPrefix("+") || zone.hasPrefix("-") {
            let parts = zone.dropFirst().split(separator: ":").compactMap { Int($0) }
            let minutes = (parts.first ?? 0) * 60 + (parts.count > 1 ? parts[1] : 0)
            return TimeZone(secondsFromGMT: (zone.hasPrefix("-") ? -1 : 1) * minutes * 60) ?? .gmt
        }
        return TimeZone(identifier: zone) ?? .gmt
    }
}

import BridgeCore

/// Durations and sizes as people write them: a number and its unit, never a bare number.
package enum Quantity {
    private static let durationUnits: [(name: String, nanoseconds: Double)] = [
        ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9), ("d", 86_400e9),
    ]
    private static let sizeUnits: [(name: String, bytes: Double)] = [
        ("B", 1), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("KiB", 1024), ("MiB", 1_048_576),
        ("GiB", 1_073_741_824), ("TiB", 1_099_511_627_776),
    ]

    package struct Malformed: Error {
        /// What is wrong, to stand behind the key's name: `needs a unit`.
        package let reason: String
        /// How it would be right.
        package let example: String
    }

    /// `500ms`, `2s`, `15m`, `24h`, `7d`; decimals are allowed.
    package static func duration(_ text: String) throws(Malformed) -> Duration {
        let example = "a number with ms, s, m, h or d, such as 2s or 15m"
        let (number, unit) = try split(text, example: example)
        guard let scale = durationUnits.first(where: { $0.name == unit })?.nanoseconds else {
            throw Malformed(reason: "has the unknown unit '\(unit)'", example: example)
        }
        let nanoseconds = number * scale
        guard nanoseconds < 9e18 else { throw Malformed(reason: "is too long", example: example) }
        return .nanoseconds(Int64(nanoseconds.rounded()))
    }

    /// `8MB` (decimal), `512KiB` (binary), `20GB`; decimals are allowed. The unit's case does not matter.
    package static func bytes(_ text: String) throws(Malformed) -> Int64 {
        let example = "a number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 8MB"
        let (number, unit) = try split(text, example: example)
        guard let scale = sizeUnits.first(where: { $0.name.lowercased() == unit.lowercased() })?.bytes else {
            throw Malformed(reason: "has the unknown unit '\(unit)'", example: example)
        }
        let bytes = number * scale
        guard bytes < 9e18 else { throw Malformed(reason: "is too large", example: example) }
        return Int64(bytes.rounded())
    }

    private static func split(_ text: String, example: String) throws(Malformed) -> (Double, String) {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let unit = text[digits.endIndex...].drop { $0 == " " }
        guard let number = Double(digits), number.isFinite else {
            throw Malformed(reason: "is not a number with a unit", example: example)
        }
        guard !unit.isEmpty else { throw Malformed(reason: "needs a unit", example: example) }
        return (number, String(unit))
    }

    /// The shortest exact form: `2s`, `1500ms`, `24h`.
    package static func text(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        guard attoseconds == 0 else {
            return "\(seconds * 1000 + attoseconds / 1_000_000_000_000_000)ms"
        }
        if seconds > 0, seconds % 86_400 == 0, seconds > 86_400 { return "\(seconds / 86_400)d" }
        if seconds > 0, seconds % 3600 == 0 { return "\(seconds / 3600)h" }
        if seconds > 0, seconds % 60 == 0 { return "\(seconds / 60)m" }
        return "\(seconds)s"
    }

    /// The shortest exact form in decimal units, or binary ones where those are exact: `8MB`, `512KiB`.
    package static func text(bytes: Int64) -> String {
        for (name, scale) in [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)]
            as [(String, Int64)]
        where bytes >= scale && bytes % scale == 0 {
            return "\(bytes / scale)\(name)"
        }
        for (name, scale) in [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            as [(String, Int64)]
        where bytes >= scale && bytes % scale == 0 {
            return "\(bytes / scale)\(name)"
        }
        return "\(bytes)B"
    }
}

/// The weekly time in which a switch may happen: `Sunday 02:00-06:00 UTC`.
package struct CutoverWindow: Hashable, Sendable {
    /// 0 is Sunday. Empty means every day.
    package var weekdays: [Int]
    /// Minutes since midnight in the window's zone. An end before the start is on the next day.
    package var startMinute: Int
    package var endMinute: Int
    /// `UTC`, `+02:00`, or a zone of the system's time zone database such as `Europe/Berlin`.
    package var zone: String
    /// As it was written.
    package var text: String

    private static let weekdayNames = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]

    /// Reads `DAY[,DAY…]|daily HH:MM-HH:MM ZONE`.
    package init(_ text: String) throws(Quantity.Malformed) {
        let example = "a day, a time and a zone, such as \"Sunday 02:00-06:00 UTC\""
        func malformed(_ reason: String) -> Quantity.Malformed { .init(reason: reason, example: example) }
        let words = text.split(separator: " ")
        guard words.count == 3 else { throw malformed("is not a day, a time and a zone") }

        var weekdays: [Int] = []
        if words[0].lowercased() != "daily" {
            for name in words[0].split(separator: ",", omittingEmptySubsequences: false) {
                let lowered = name.lowercased()
                guard lowered.count >= 3,
                    let day = Self.weekdayNames.firstIndex(where: { $0 == lowered || $0.prefix(3) == lowered })
                else { throw malformed("has the unknown day '\(name)'") }
                weekdays.append(day)
            }
        }
        let times = words[1].split(separator: "-", omittingEmptySubsequences: false)
        guard times.count == 2, let start = Self.minute(times[0]), let end = Self.minute(times[1]), start != end else {
            throw malformed("has a time that is not HH:MM-HH:MM")
        }
        let zone = String(words[2])
        guard Self.isZone(zone) else { throw malformed("has the unknown zone '\(zone)'") }
        self.weekdays = weekdays
        startMinute = start
        endMinute = end
        self.zone = zone
        self.text = text
    }

    private static func minute(_ text: Substring) -> Int? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ $0.count == 2 && $0.allSatisfy(\.isNumber) }),
            let hour = Int(parts[0]), let minute = Int(parts[1]), minute < 60, hour * 60 + minute <= 24 * 60
        else { return nil }
        return hour * 60 + minute
    }

    private static func isZone(_ zone: String) -> Bool {
        if zone == "UTC" { return true }
        if zone.hasPrefix("+") || zone.hasPrefix("-") { return minute(zone.dropFirst()).map { $0 <= 14 * 60 } ?? false }
        return TimeZoneDatabase.contains(zone)
    }
}

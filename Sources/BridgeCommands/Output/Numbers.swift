/// Numbers for people. Machines get them unrounded from `--json`.
package enum Numbers {
    /// `1,234,567`.
    package static func grouped(_ value: Int64) -> String {
        var digits = Array(String(value.magnitude))
        var position = digits.count - 3
        while position > 0 {
            digits.insert(",", at: position)
            position -= 3
        }
        return (value < 0 ? "-" : "") + String(digits)
    }

    /// `512 B`, `1.5 MB`; decimal units.
    package static func bytes(_ value: Int64) -> String {
        var scaled = Double(value)
        for unit in ["B", "kB", "MB", "GB", "TB"] {
            if scaled.magnitude < 999.5 || unit == "TB" {
                return (unit == "B" ? String(value) : oneDecimal(scaled)) + " " + unit
            }
            scaled /= 1000
        }
        return "\(value) B"
    }

    /// `40 ms`, `1.4 s`, `2 m 05 s`, `3 h 12 m`.
    package static func duration(seconds: Double) -> String {
        guard seconds.isFinite else { return "–" }
        if seconds < 1 { return "\(Int((max(0, seconds) * 1000).rounded())) ms" }
        if seconds < 60 { return oneDecimal(seconds) + " s" }
        let whole = Int64(min(seconds.rounded(), 1e15))
        func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }
        if whole < 3600 { return "\(whole / 60) m \(two(whole % 60)) s" }
        return "\(whole / 3600) h \(two(whole / 60 % 60)) m"
    }

    /// A rate without its unit: `12,345` or `7.5`.
    package static func rate(_ value: Double) -> String {
        guard value.isFinite else { return "–" }
        return value >= 100 ? grouped(Int64(min(value.rounded(), 1e15))) : oneDecimal(value)
    }

    package static func oneDecimal(_ value: Double) -> String {
        let tenths = Int64((value * 10).rounded())
        return "\(tenths < 0 ? "-" : "")\(tenths.magnitude / 10).\(tenths.magnitude % 10)"
    }
}

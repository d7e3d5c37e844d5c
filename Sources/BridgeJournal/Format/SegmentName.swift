/// The names of the files in a journal's directory.
enum JournalFileName {
    static let lock = "lock"
    static let state = "state"
    private static let prefix = "segment-"
    private static let suffix = ".lz4"
    private static let unfinishedSuffix = ".new"

    static func segment(_ number: UInt64) -> String { prefix + padded(number) + suffix }

    /// A segment that is being made.
    static func unfinished(_ number: UInt64) -> String { prefix + padded(number) + unfinishedSuffix }

    static func isUnfinished(_ name: String) -> Bool { name.hasPrefix(prefix) && name.hasSuffix(unfinishedSuffix) }

    /// The number of the segment of that name; nil for any other name.
    static func number(_ name: String) -> UInt64? {
        guard name.hasPrefix(prefix), name.hasSuffix(suffix) else { return nil }
        let digits = name.dropFirst(prefix.count).dropLast(suffix.count)
        guard digits.count >= 12, let number = UInt64(digits), segment(number) == name else { return nil }
        return number
    }

    private static func padded(_ number: UInt64) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, 12 - digits.count)) + digits
    }
}

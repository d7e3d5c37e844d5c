/// Dates and times as text, in PostgreSQL's and ISO 8601's spellings.
enum MomentText {
    /// A number that is the same for the same moment and different for different ones: microseconds since 2000-01-01
    /// 00:00 (UTC, for `timestampWithTimeZone`), since midnight for `time`, days for `date`. Infinity is beyond all.
    static func read(_ text: UnsafeRawBufferPointer, _ form: CellForm) -> Int128? {
        var cursor = Cursor(text: text)
        if form == .time {
            guard let time = cursor.time(allows24: true), cursor.isAtEnd else { return nil }
            return Int128(time)
        }
        if text.elementsEqual("infinity".utf8) { return .max }
        if text.elementsEqual("-infinity".utf8) { return .min }
        guard var date = cursor.date() else { return nil }
        var time: Int64 = 0
        var offset: Int64 = 0
        if form != .date {
            guard cursor.take("T") || cursor.take("t") || cursor.take(" "), let found = cursor.time(allows24: false)
            else { return nil }
            time = found
        }
        if form == .timestampWithTimeZone {
            guard let zone = cursor.zone() else { return nil }
            offset = zone
        }
        if cursor.take(" BC") {
            guard date.year > 0 else { return nil }
            date.year = 1 - date.year
        } else if date.year == 0 {
            return nil
        }
        guard cursor.isAtEnd, let days = date.days else { return nil }
        if form == .date { return Int128(days) }
        return Int128(days) * 86_400_000_000 + Int128(time) - Int128(offset)
    }

    private struct Day {
        var year: Int64
        var month: Int64
        var day: Int64

        /// Since 2000-01-01, by shifting years to begin in March; nil if there is no such day.
        var days: Int64? {
            let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
            let length: Int64 = month == 2 ? (isLeap ? 29 : 28) : [4, 6, 9, 11].contains(month) ? 30 : 31
            guard (1...12).contains(month), (1...length).contains(day) else { return nil }
            let shifted = month <= 2 ? year - 1 : year
            let era = (shifted >= 0 ? shifted : shifted - 399) / 400
            let yearOfEra = shifted - era * 400
            let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
            let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
            return era * 146_097 + dayOfEra - 730_425
        }
    }

    private struct Cursor {
        let text: UnsafeRawBufferPointer
        var index = 0

        var isAtEnd: Bool { index == text.count }

        mutating func take(_ literal: StaticString) -> Bool {
            let count = literal.utf8CodeUnitCount
            guard text.count - index >= count else { return false }
            for position in 0..<count where text[index + position] != literal.utf8Start[position] { return false }
            index += count
            return true
        }

        mutating func number(_ digits: ClosedRange<Int>) -> Int64? {
            let start = index
            var value: Int64 = 0
            while index < text.count, index - start < digits.upperBound, text[index] &- 0x30 <= 9 {
                value = value * 10 + Int64(text[index] &- 0x30)
                index += 1
            }
            return index - start >= digits.lowerBound ? value : nil
        }

        mutating func date() -> Day? {
            guard let year = number(4...7), take("-"), let month = number(2...2), take("-"), let day = number(2...2)
            else { return nil }
            return Day(year: year, month: month, day: day)
        }

        /// Microseconds since midnight.
        mutating func time(allows24: Bool) -> Int64? {
            guard let hour = number(2...2), take(":"), let minute = number(2...2), minute < 60 else { return nil }
            var second: Int64 = 0
            var fraction: Int64 = 0
            if take(":") {
                guard let found = number(2...2), found < 60 else { return nil }
                second = found
                if take(".") {
                    guard let found = microseconds() else { return nil }
                    fraction = found
                }
            }
            let total = ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction
            return hour < 24 || (allows24 && total == 86_400_000_000) ? total : nil
        }

        /// Digits behind the point; beyond the sixth only zeros are a value that PostgreSQL could hold.
        private mutating func microseconds() -> Int64? {
            let start = index
            var value: Int64 = 0
            while index < text.count, text[index] &- 0x30 <= 9 {
                let digit = Int64(text[index] &- 0x30)
                if index - start < 6 { value = value * 10 + digit } else if digit != 0 { return nil }
                index += 1
            }
            guard index > start else { return nil }
            for _ in min(index - start, 6)..<6 { value *= 10 }
            return value
        }

        /// Microseconds east of UTC.
        mutating func zone() -> Int64? {
            if take("Z") || take("z") { return 0 }
            let isWest = take("-")
            guard isWest || take("+"), let hour = number(2...2), hour < 24 else { return nil }
            var total = hour * 3600
            if take(":") || (index < text.count && text[index] &- 0x30 <= 9) {
                guard let minute = number(2...2), minute < 60 else { return nil }
                total += minute * 60
                if take(":") {
                    guard let second = number(2...2), second < 60 else { return nil }
                    total += second
                }
            }
            return (isWest ? -total : total) * 1_000_000
        }
    }
}

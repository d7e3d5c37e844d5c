import BridgeCore

/// PostgreSQL's spelling of a place in its log, `16/B374D848`: the upper and the lower 32 bits in hexadecimal.
enum LogSequenceNumber {
    static func text(_ number: UInt64) -> String {
        let upper = String(UInt32(truncatingIfNeeded: number >> 32), radix: 16, uppercase: true)
        return upper + "/" + String(UInt32(truncatingIfNeeded: number), radix: 16, uppercase: true)
    }

    static func parse(_ text: String?) -> UInt64? {
        guard let parts = text?.split(separator: "/", omittingEmptySubsequences: false), parts.count == 2,
            let upper = UInt32(parts[0], radix: 16), let lower = UInt32(parts[1], radix: 16)
        else { return nil }
        return UInt64(upper) << 32 | UInt64(lower)
    }
}

/// PostgreSQL counts microseconds from 2000-01-01, bridge from 1970-01-01.
enum PostgresEpoch {
    static let offset: Int64 = 946_684_800_000_000

    static func timestamp(_ microseconds: Int64) -> Timestamp { Timestamp(microseconds: microseconds &+ offset) }

    static var now: Int64 { Timestamp.now.microseconds &- offset }
}

/// Widens the 32-bit transaction numbers of the stream to 64 bits.
///
/// The server keeps all numbers that can still be seen within 2³¹ of the newest one (it refuses to go on before that
/// fails), so a number belongs to the epoch in which it lies nearest to a known recent one.
struct TransactionNumbers: Sendable {
    /// A 64-bit number that was current not long ago: the server's next one, or the last one decoded.
    private(set) var reference: UInt64

    init(reference: UInt64) { self.reference = reference }

    /// The server's next number, read again; numbers never go backwards.
    mutating func observe(_ reference: UInt64) { self.reference = max(self.reference, reference) }

    mutating func widen(_ number: UInt32) -> UInt64 {
        // The signed distance, taken round the 32-bit circle, is the shorter way to the number.
        let distance = Int32(truncatingIfNeeded: Int64(number) - Int64(UInt32(truncatingIfNeeded: reference)))
        // Before the first epoch there is nothing: a number that would lie there is in the first one.
        guard distance >= 0 || UInt64(distance.magnitude) <= reference else { return UInt64(number) }
        let wide = reference &+ UInt64(bitPattern: Int64(distance))
        observe(wide)
        return wide
    }
}

/// Where in a streamed transaction's records each of its subtransactions may have to be cut off.
///
/// The stream names the subtransaction of every change, not how they nest. Two facts about the server make up for it:
/// - A session's open subtransactions are one chain, and only the innermost writes. So everything between a
///   subtransaction's first change and its abort is its own or that of subtransactions inside it, which end with it
///   whether they were released before or not. Cutting back to its first change takes away that and nothing else.
/// - A number is given out at the first write, and to the outer ones first. So when a subtransaction writes, all with a
///   higher number that wrote before it began inside it and are over: they are part of it from now on, and only its own
///   end decides about them. They are forgotten here, and it takes over the lowest of their places.
///
/// What is left has rising numbers and places, 12 bytes each, and is found by halving. A transaction that writes in its
/// outermost level now and then forgets all of them each time.
struct SubtransactionStack: Sendable {
    private var numbers: ContiguousArray<UInt32> = []
    /// The highest bit says that a message stands right before the place.
    private var places: ContiguousArray<UInt64> = []
    /// Whose change came last: most changes are of the same one.
    private var latest: UInt32?

    var count: Int { numbers.count }

    /// Notes a change that will stand at `place`.
    /// - Parameters:
    ///   - top: the number of the transaction itself.
    ///   - isBehindMessage: whether what stands right before is a message; see ``abort(_:)``.
    @inline(__always)
    mutating func note(_ number: UInt32, of top: UInt32, at place: UInt64, isBehindMessage: Bool = false) {
        if number != latest { enter(number, top, place | (isBehindMessage ? Self.mark : 0)) }
    }

    private static let mark: UInt64 = 1 << 63

    private mutating func enter(_ number: UInt32, _ top: UInt32, _ place: UInt64) {
        latest = number
        guard number != top else { return cut(to: 0) }
        var start = place
        var left = numbers.count
        while left > 0, Self.follows(numbers[left - 1], number) {
            left -= 1
            start = places[left]
        }
        cut(to: left)
        guard numbers.last != number else { return }
        numbers.append(number)
        places.append(start)
    }

    /// Takes back a subtransaction and all inside it.
    /// - Returns: the place of its first change, and whether a message stands right before it, which then may be its own
    ///   or not; nil if it has no change left.
    mutating func abort(_ number: UInt32) -> (place: UInt64, isBehindMessage: Bool)? {
        latest = nil
        var (low, high) = (0, numbers.count)
        while low < high {
            let middle = (low + high) / 2
            if Self.follows(number, numbers[middle]) { low = middle + 1 } else { high = middle }
        }
        guard low < numbers.count, numbers[low] == number else { return nil }
        let place = places[low]
        cut(to: low)
        return (place & ~Self.mark, place & Self.mark != 0)
    }

    private mutating func cut(to count: Int) {
        guard count < numbers.count else { return }
        numbers.removeLast(numbers.count - count)
        places.removeLast(places.count - count)
    }

    /// Numbers go round a circle of 32 bits; all that live lie within half of it.
    @inline(__always)
    private static func follows(_ one: UInt32, _ other: UInt32) -> Bool { Int32(bitPattern: one &- other) > 0 }
}

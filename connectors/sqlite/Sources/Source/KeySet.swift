import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// The keys met in one read, without objects for each: key images in one buffer, and an open-addressed table of places.
struct KeySet {
    private let arena = RecordBuffer(capacity: 256 << 10)
    private var starts: [Int] = []
    private var hashes: [UInt64] = []
    /// Place in `starts` plus one; 0 is empty. The size is a power of two.
    private var slots = [UInt32](repeating: 0, count: leastSlots)
    private static let leastSlots = 1024
    private let seed = UInt64.random(in: .min ... .max)

    var count: Int { starts.count }
    var bytes: Int { arena.count }

    mutating func removeAll() {
        arena.removeAll(retaining: 4 << 20)
        starts.removeAll(keepingCapacity: true)
        hashes.removeAll(keepingCapacity: true)
        // One large read must not make every small one after it clear a large table.
        slots = [UInt32](repeating: 0, count: Self.leastSlots)
    }

    /// Adds the key of a table: the first columns of a log row from `column` on.
    /// - Returns: the key's row image, valid until the next call; nil if it was there already.
    mutating func insert(
        table: Int64, _ row: SQLiteStatement, column: Int, count: Int
    ) throws(BridgeError) -> UnsafeRawBufferPointer? {
        let start = arena.count
        arena.append(bigEndian: table)
        arena.beginRowImage(columns: count)
        for place in 0..<count { try row.appendCell(column + place, to: arena) }
        let key = UnsafeRawBufferPointer(rebasing: arena.bytes[start...])
        let hash = hash(of: key)
        if (starts.count + 1) * 2 > slots.count { grow() }
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: hash) & mask
        while slots[slot] != 0 {
            let place = Int(slots[slot]) - 1
            if hashes[place] == hash, image(place, end: place + 1 < starts.count ? starts[place + 1] : start) == key {
                arena.truncate(to: start)
                return nil
            }
            slot = (slot + 1) & mask
        }
        starts.append(start)
        hashes.append(hash)
        slots[slot] = UInt32(truncatingIfNeeded: starts.count)
        return UnsafeRawBufferPointer(rebasing: key[8...])
    }

    private func image(_ place: Int, end: Int) -> ImageBytes {
        ImageBytes(UnsafeRawBufferPointer(rebasing: arena.bytes[starts[place]..<end]))
    }

    private mutating func grow() {
        slots = [UInt32](repeating: 0, count: slots.count * 2)
        let mask = slots.count - 1
        for (place, hash) in hashes.enumerated() {
            var slot = Int(truncatingIfNeeded: hash) & mask
            while slots[slot] != 0 { slot = (slot + 1) & mask }
            slots[slot] = UInt32(truncatingIfNeeded: place + 1)
        }
    }

    /// Eight bytes at a time, multiplied and folded; seeded, since keys come from outside.
    private func hash(of bytes: UnsafeRawBufferPointer) -> UInt64 {
        var hash = seed ^ UInt64(truncatingIfNeeded: bytes.count)
        var offset = 0
        while offset < bytes.count {
            var word: UInt64 = 0
            if bytes.count - offset >= 8 {
                word = bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            } else {
                for byte in bytes[offset...] { word = word << 8 | UInt64(byte) }
            }
            let product = (hash ^ word).multipliedFullWidth(by: 0x9E37_79B9_7F4A_7C15)
            hash = product.high ^ product.low
            offset += 8
        }
        return hash ^ hash >> 32
    }
}

/// Bytes that compare by content.
struct ImageBytes {
    let bytes: UnsafeRawBufferPointer
    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    static func == (a: ImageBytes, b: UnsafeRawBufferPointer) -> Bool {
        guard a.bytes.count == b.count else { return false }
        guard let left = a.bytes.baseAddress, let right = b.baseAddress else { return true }
        return memcmp(left, right, b.count) == 0
    }
}

import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Where a row image stands: in the batch's own bytes, or among the images that were put together from several.
struct ImageReference {
    /// Bit 63 says that the offset is one into the merged images.
    private var bits: UInt64

    @inline(__always)
    init(offset: Int, isMerged: Bool) { bits = UInt64(truncatingIfNeeded: offset) | (isMerged ? 1 << 63 : 0) }

    @inline(__always) var isMerged: Bool { bits >> 63 == 1 }
    @inline(__always) var offset: Int { Int(truncatingIfNeeded: bits & ~(1 << 63)) }
}

/// What is known at the end of a batch of one key of one table.
struct RowEffect {
    struct Flags: OptionSet {
        let rawValue: UInt8
        /// A row with this key was on the target before the batch (so says the first change of it).
        static let existed = Flags(rawValue: 1)
        /// That row is to be deleted, whatever comes after.
        static let originalDeleted = Flags(rawValue: 2)
        /// A row with this key is there at the end, and `image` holds it.
        static let isLive = Flags(rawValue: 4)
        /// `image` has cells that the source did not send: they keep what the target has.
        static let hasUnchanged = Flags(rawValue: 8)
        /// The source states only how the key ends (upsert, remove), not what was there.
        static let isStateOnly = Flags(rawValue: 16)
    }

    var hash: UInt64
    var keyOffset: Int
    var keyLength: Int
    var image: ImageReference
    var flags: Flags
    /// Which set of unchanged columns the image has; see ``RelationEffects/groups``.
    var group: UInt16

    /// The row is on the target and stays, with new values.
    @inline(__always) var isUpdate: Bool {
        flags.contains([.existed, .isLive]) && !flags.contains(.originalDeleted)
    }
    /// A row must be removed first.
    @inline(__always) var isDelete: Bool { flags.contains([.existed, .originalDeleted]) }
    /// A row came and went again: there must have been none.
    @inline(__always) var isVoid: Bool { flags.isDisjoint(with: [.existed, .isLive, .isStateOnly]) }
    /// A row must be added, after removals.
    @inline(__always) var isInsert: Bool {
        flags.contains(.isLive) && (!flags.contains(.existed) || flags.contains(.originalDeleted))
    }
}

/// A hash table from raw key bytes to the effect on that key. Keys are copied into one arena; entries stand in the order
/// of their first change, so that what is written to the target has the source's order as far as possible.
///
/// Two keys are the same only if their bytes are. Values that are equal for the server but not byte by byte (1.0 and
/// 1.00) make two entries, which is right: the source names a row by the bytes it last stored.
struct EffectTable: ~Copyable {
    private(set) var entries = ContiguousArray<RowEffect>()
    private(set) var keys = RecordBuffer(capacity: 4 << 10)
    /// Entry number plus one; 0 for an empty slot. The count is a power of two, at most half of it used.
    private var slots = ContiguousArray<UInt32>(repeating: 0, count: 64)

    mutating func removeAll() {
        keys.removeAll(retaining: 4 << 20)
        let used = entries.count
        entries.removeAll(keepingCapacity: used < 1 << 20)
        // Clearing a table grown by one huge batch for each small one behind it would cost more than growing again.
        if slots.count > 64 && used * 16 < slots.count {
            slots = ContiguousArray(repeating: 0, count: max(64, slots.count / 4))
        } else {
            for index in slots.indices { slots[index] = 0 }
        }
    }

    @inline(__always)
    func key(_ index: Int) -> UnsafeRawBufferPointer {
        let entry = entries[index]
        return UnsafeRawBufferPointer(rebasing: keys.bytes[entry.keyOffset..<entry.keyOffset + entry.keyLength])
    }

    /// Finds the key that was appended to the arena at `keyOffset`, or makes an entry for it.
    /// - Returns: the entry's number, and whether it is new. If it is not, the arena is cut back to `keyOffset`.
    mutating func findOrInsert(keyAt keyOffset: Int) -> (index: Int, isNew: Bool) {
        let length = keys.count - keyOffset
        let bytes = UnsafeRawBufferPointer(rebasing: keys.bytes[keyOffset...])
        let hash = Self.hash(bytes)
        var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
        while slots[slot] != 0 {
            let index = Int(slots[slot]) - 1
            let entry = entries[index]
            if entry.hash == hash, entry.keyLength == length,
                Self.areEqual(bytes, keys.bytes, at: entry.keyOffset)
            {
                keys.truncate(to: keyOffset)
                return (index, false)
            }
            slot = (slot + 1) & (slots.count - 1)
        }
        let index = entries.count
        entries.append(
            RowEffect(
                hash: hash, keyOffset: keyOffset, keyLength: length, image: ImageReference(offset: 0, isMerged: false),
                flags: [], group: 0))
        slots[slot] = UInt32(truncatingIfNeeded: index + 1)
        if entries.count * 2 > slots.count { grow() }
        return (index, true)
    }

    /// The entry of the key that was appended to the arena at `keyOffset`, which stays there; nil if it is not known.
    func find(keyAt keyOffset: Int) -> Int? {
        let bytes = UnsafeRawBufferPointer(rebasing: keys.bytes[keyOffset...])
        let hash = Self.hash(bytes)
        var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
        while slots[slot] != 0 {
            let index = Int(slots[slot]) - 1
            let entry = entries[index]
            if entry.hash == hash, entry.keyLength == bytes.count, Self.areEqual(bytes, keys.bytes, at: entry.keyOffset) {
                return index
            }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    @inline(__always)
    mutating func update(_ index: Int, _ change: (inout RowEffect) -> Void) { change(&entries[index]) }

    private mutating func grow() {
        var larger = ContiguousArray<UInt32>(repeating: 0, count: slots.count * 2)
        for (index, entry) in entries.enumerated() {
            var slot = Int(truncatingIfNeeded: entry.hash) & (larger.count - 1)
            while larger[slot] != 0 { slot = (slot + 1) & (larger.count - 1) }
            larger[slot] = UInt32(truncatingIfNeeded: index + 1)
        }
        slots = larger
    }

    @inline(__always)
    private static func areEqual(
        _ a: UnsafeRawBufferPointer, _ arena: UnsafeRawBufferPointer, at offset: Int
    ) -> Bool {
        guard let left = a.baseAddress, let right = arena.baseAddress else { return a.isEmpty }
        return memcmp(left, right + offset, a.count) == 0
    }

    /// Multiply-and-fold over eight bytes at a time. Seeded once a process, so that no stored key can be made to collide
    /// on purpose.
    @inline(__always)
    static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var state = seed ^ UInt64(truncatingIfNeeded: bytes.count)
        var offset = 0
        while bytes.count - offset >= 8 {
            state = fold(state ^ bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
            offset += 8
        }
        var tail: UInt64 = 0
        while offset < bytes.count {
            tail = tail << 8 | UInt64(bytes[offset])
            offset += 1
        }
        return fold(fold(state ^ tail))
    }

    @inline(__always)
    private static func fold(_ value: UInt64) -> UInt64 {
        let product = value.multipliedFullWidth(by: 0x9E37_79B9_7F4A_7C15)
        return product.high ^ product.low &+ 0xD6E8_FEB8_6659_FD93
    }

    private static let seed = UInt64.random(in: .min ... .max)
}

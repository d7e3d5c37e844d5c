import BridgeCore

/// The keys that must be looked at again: touched since the check began and not yet proven equal.
struct DirtySet: Sendable, Equatable {
    /// For each table the keys, and how often each was touched.
    private(set) var keys: [Int: [KeyImage: UInt32]] = [:]
    /// Tables of which every row must be looked at again.
    private(set) var wholeTables: Set<Int> = []
    /// Bytes that the keys take, by table.
    private var sizes: [Int: Int] = [:]
    /// Keys that came or went since the last ``saved()``; none once they are too many.
    private(set) var changed: [Int: Set<KeyImage>] = [:]
    /// Whether more came and went than is remembered: what is on disk must be written anew as a whole.
    private(set) var hasLostChanges = false
    private var changedSize = 0
    /// Bytes of keys in ``changed``. What came and went takes room there too.
    var mostChanged = 32 << 20

    var count: Int { keys.values.reduce(0) { $0 + $1.count } }
    /// Bytes in memory, nearly.
    var footprint: Int { sizes.values.reduce(0, +) }
    /// The table with the most.
    var largest: Int? { sizes.max { ($0.value, $1.key) < ($1.value, $0.key) }?.key }

    /// What a key takes in memory, nearly: itself, its array's head, its places in this set and in that of changes.
    static func footprint(_ key: KeyImage) -> Int { key.bytes.count + 112 }

    func count(of table: Int) -> Int { keys[table]?.count ?? 0 }
    func footprint(of table: Int) -> Int { sizes[table] ?? 0 }

    mutating func touch(_ transaction: TouchedTransaction) {
        wholeTables.formUnion(transaction.wholeTables)
        for (table, touched) in transaction.keys {
            for key in touched { touch(table, key) }
        }
    }

    mutating func touch(_ table: Int, _ key: KeyImage) {
        let times = keys[table, default: [:]][key, default: 0]
        keys[table, default: [:]][key] = times &+ 1
        guard times == 0 else { return }
        sizes[table, default: 0] += Self.footprint(key)
        noteChange(table, key)
    }

    mutating func touchWhole(_ table: Int) { wholeTables.insert(table) }

    /// Proven equal, and nothing under way that could touch it.
    mutating func settle(_ table: Int, _ key: KeyImage) {
        guard keys[table]?.removeValue(forKey: key) != nil else { return }
        sizes[table, default: 0] -= Self.footprint(key)
        noteChange(table, key)
    }

    private mutating func noteChange(_ table: Int, _ key: KeyImage) {
        guard !hasLostChanges, changed[table, default: []].insert(key).inserted else { return }
        changedSize += Self.footprint(key)
        guard changedSize > mostChanged else { return }
        changed = [:]
        hasLostChanges = true
    }

    /// The table was compared whole, from its first row on.
    mutating func settleWhole(_ table: Int) { wholeTables.remove(table) }

    /// Drops keys whose rows will be compared with all others of their chunk.
    mutating func drop(_ table: Int, _ dropped: some Sequence<KeyImage>) {
        for key in dropped { settle(table, key) }
    }

    func contains(_ table: Int, _ key: KeyImage) -> Bool { keys[table]?[key] != nil }

    func keys(of table: Int) -> [KeyImage] { keys[table].map { Array($0.keys) } ?? [] }

    /// All of it is on disk.
    mutating func saved() {
        changed = [:]
        changedSize = 0
        hasLostChanges = false
    }
}

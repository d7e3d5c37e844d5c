import BridgeCore

/// The keys that must be looked at again: touched since the check began and not yet proven equal.
struct DirtySet: Sendable, Equatable {
    /// For each table the keys, and how often each was touched.
    private(set) var keys: [Int: [KeyImage: UInt32]] = [:]
    /// Tables of which every row must be looked at again.
    private(set) var wholeTables: Set<Int> = []

    var count: Int { keys.values.reduce(0) { $0 + $1.count } }

    mutating func touch(_ transaction: TouchedTransaction) {
        wholeTables.formUnion(transaction.wholeTables)
        for (table, touched) in transaction.keys {
            for key in touched { touch(table, key) }
        }
    }

    mutating func touch(_ table: Int, _ key: KeyImage) { keys[table, default: [:]][key, default: 0] &+= 1 }

    mutating func touchWhole(_ table: Int) { wholeTables.insert(table) }

    /// Proven equal, and nothing under way that could touch it.
    mutating func settle(_ table: Int, _ key: KeyImage) { keys[table]?[key] = nil }

    /// The table was compared whole, from its first row on.
    mutating func settleWhole(_ table: Int) { wholeTables.remove(table) }

    func keys(of table: Int) -> [KeyImage] { keys[table].map { Array($0.keys) } ?? [] }
}

import BridgeCore

/// Rows that were found to differ, and rows that somebody else wrote to the target, by their canonical keys. They are
/// looked at again in each round, until they are equal.
struct SuspectSet: Sendable {
    /// More than so many differences of one table are counted and not remembered.
    static let mostOfTable = 10_000

    /// Bytes that may be remembered.
    var limit = Int.max
    /// Nil while the row is not known to differ.
    private(set) var rows: [Int: [KeyImage: CheckReport.Sample?]] = [:]
    private(set) var overflown: Set<Int> = []
    /// Bytes in memory, nearly.
    private(set) var footprint = 0
    /// Keys that came, went or were looked at since the last ``saved()``.
    private(set) var changed: [Int: Set<KeyImage>] = [:]
    /// Tables of which all were forgotten since then, before what is in ``changed``.
    private(set) var cleared: Set<Int> = []

    var count: Int { rows.values.reduce(0) { $0 + $1.count } }

    /// - Returns: false if there is no room for it: its row must then be looked at by other means.
    mutating func suspect(_ table: Int, _ key: KeyImage) -> Bool {
        guard rows[table]?[key] == nil else { return true }
        let size = Self.footprint(key, nil)
        guard footprint + size <= limit else { return false }
        rows[table, default: [:]].updateValue(nil, forKey: key)
        footprint += size
        changed[table, default: []].insert(key)
        return true
    }

    mutating func found(_ table: Int, _ key: KeyImage, _ sample: CheckReport.Sample) {
        let old = rows[table]?[key]
        let growth = Self.footprint(key, sample) - (old.map { Self.footprint(key, $0) } ?? 0)
        // One that is there already stays in any case: it is not forgotten that its row differs.
        guard old != nil || ((rows[table]?.count ?? 0) < Self.mostOfTable && footprint + growth <= limit) else {
            overflown.insert(table)
            return
        }
        rows[table, default: [:]].updateValue(sample, forKey: key)
        footprint += growth
        if old != .some(sample) { changed[table, default: []].insert(key) }
    }

    /// What an earlier check found of a row counts no more: it has to be looked at.
    mutating func doubt(_ table: Int, _ key: KeyImage) {
        guard let old = rows[table]?[key] else { return }
        // Whatever the limit is by now: it takes less than it did, and must not be forgotten.
        rows[table]?.updateValue(nil, forKey: key)
        footprint += Self.footprint(key, nil) - Self.footprint(key, old)
        changed[table, default: []].insert(key)
    }

    mutating func overflow(_ table: Int) { overflown.insert(table) }

    mutating func clear(_ table: Int, _ key: KeyImage) {
        guard let old = rows[table]?.removeValue(forKey: key) else { return }
        footprint -= Self.footprint(key, old)
        changed[table, default: []].insert(key)
    }

    /// The table is compared again from its first row on.
    mutating func clear(_ table: Int) {
        for (key, sample) in rows[table] ?? [:] { footprint -= Self.footprint(key, sample) }
        rows[table] = nil
        overflown.remove(table)
        changed[table] = nil
        cleared.insert(table)
    }

    func keys(of table: Int) -> [KeyImage] { rows[table].map { Array($0.keys) } ?? [] }

    /// The keys of the rows that are known to differ.
    func differing(of table: Int) -> [KeyImage] { (rows[table] ?? [:]).compactMap { $0.value == nil ? nil : $0.key } }

    /// What differs, in the order of the keys' text, each row once however it was found.
    func differences(of table: Int) -> [CheckReport.Sample] {
        (rows[table] ?? [:]).values.compactMap { $0 }.sorted {
            "\($0.key.sorted { $0.key < $1.key })" < "\($1.key.sorted { $0.key < $1.key })"
        }
    }

    var hasDifferences: Bool { !overflown.isEmpty || rows.values.contains { $0.values.contains { $0 != nil } } }

    /// All of it is on disk.
    mutating func saved() {
        changed = [:]
        cleared = []
    }

    /// What a row takes in memory, nearly.
    static func footprint(_ key: KeyImage, _ sample: CheckReport.Sample?) -> Int {
        guard let sample else { return key.bytes.count + 160 }
        var size = key.bytes.count + 700 + sample.columns.reduce(0) { $0 + $1.utf8.count + 16 }
        for values in [sample.key, sample.sourceValues ?? [:], sample.targetValues ?? [:]] {
            for (name, value) in values { size += name.utf8.count + (value?.utf8.count ?? 0) + 64 }
        }
        return size
    }
}

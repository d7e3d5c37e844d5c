import BridgeCore

/// Draws rows at random, each as likely as any other: a rowid between the least and the greatest is drawn and looked for.
/// Where few of them have a row, or rows have no rowid, one walk through the table draws them.
struct RandomRows {
    /// Bytes of keys that are drawn at once.
    private static let drawnBytes = 64 << 20
    /// Rowids that are tried for each row that is wanted, before the table is walked through.
    private static let triesPerRow = 20

    private let compared: ComparedTable
    private var random: Random
    private var keys: [KeyImage] = []
    private var size = 0

    /// splitmix64: the same numbers from the same seed on every machine.
    private struct Random: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
            return mixed ^ (mixed >> 31)
        }
    }

    init(_ compared: ComparedTable, seed: UInt64) {
        self.compared = compared
        random = Random(state: seed)
    }

    /// The key's columns of each row.
    private var select: String {
        let alias = quoteIdentifier(compared.name)
        let columns = compared.keyPlaces.map { "\(alias).\(quoteIdentifier(compared.table.columns[compared.places[$0]].name))" }
        return "SELECT \(columns.joined(separator: ", ")) \(compared.from)"
    }

    /// A name of the rowid that no column hides.
    private var rowid: String? {
        guard !compared.table.isWithoutRowid else { return nil }
        let taken = Set(compared.table.columns.map { $0.name.lowercased() })
        return ["rowid", "_rowid_", "oid"].first { !taken.contains($0) }.map { "\(quoteIdentifier(compared.name)).\($0)" }
    }

    mutating func draw(_ count: Int) throws(BridgeError) -> [KeyImage] {
        if let rowid, try drawByRowid(rowid, count) { return keys }
        keys = []
        size = 0
        try drawByWalk(count)
        return keys
    }

    /// - Returns: false if too few rows were hit.
    private mutating func drawByRowid(_ rowid: String, _ count: Int) throws(BridgeError) -> Bool {
        // One at a time, so that each is read off an end of the tree.
        func end(_ function: String) throws(BridgeError) -> Int64? {
            let statement = try compared.connection.database.prepare("SELECT \(function)(\(rowid)) \(compared.from)")
            guard try statement.step(), statement.storageClass(0) == .integer else { return nil }
            return statement.integer(0)
        }
        guard let first = try end("min"), let last = try end("max") else { return true }
        // The walk is as fast for a small table, and exact.
        guard last.subtractingReportingOverflow(first).overflow || last - first > Int64(clamping: count) * 4 else { return false }
        let probe = try compared.connection.database.prepare("\(select) WHERE \(rowid) = ?1\(compared.filter)")
        var tries = 0
        var seen: Set<Int64> = []
        while keys.count < count, size < Self.drawnBytes {
            tries += 1
            guard tries <= count * Self.triesPerRow else { return false }
            let number = Int64.random(in: first...last, using: &random)
            guard seen.insert(number).inserted else { continue }
            try probe.bind(1, integer: number)
            if try probe.step() { try take(probe) }
            probe.reset()
        }
        return true
    }

    /// Reservoir sampling: after n rows each of them is kept with the same probability.
    private mutating func drawByWalk(_ count: Int) throws(BridgeError) {
        let walk = try compared.connection.database.prepare(select + (compared.filter.isEmpty ? "" : " WHERE 1\(compared.filter)"))
        var rows = 0
        while try walk.step() {
            rows += 1
            if keys.count < count {
                if size < Self.drawnBytes { try take(walk) }
            } else {
                let place = Int.random(in: 0..<rows, using: &random)
                guard place < count else { continue }
                size -= keys[place].bytes.count
                let key = try image(walk)
                size += key.bytes.count
                keys[place] = key
            }
        }
    }

    private mutating func take(_ row: SQLiteStatement) throws(BridgeError) {
        let key = try image(row)
        keys.append(key)
        size += key.bytes.count
    }

    private func image(_ row: SQLiteStatement) throws(BridgeError) -> KeyImage {
        try KeyImage(columns: compared.keyPlaces.count) { cells throws(BridgeError) in
            for place in compared.keyPlaces.indices { try row.appendCell(place, to: cells) }
        }
    }
}

extension ComparedTable {
    func draw(_ count: Int, seed: UInt64) throws(BridgeError) -> [KeyImage] {
        var rows = RandomRows(self, seed: seed)
        return try rows.draw(count)
    }
}

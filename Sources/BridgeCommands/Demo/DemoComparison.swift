import BridgeCore

/// Compares two databases row by row: every table is read whole on both sides, in the order of its key, and every value
/// is compared with its counterpart. Nothing of replication is used for it.
struct DemoComparison: Sendable {
    struct Table: Sendable {
        let name: String
        var sourceRows = 0
        var targetRows = 0
        /// The first place in the order of the key, from 1, at which the two sides do not hold the same row.
        var firstDifference: Int?
        var isEqual: Bool { firstDifference == nil && sourceRows == targetRows }
    }

    var tables: [Table] = []
    var isEqual: Bool { tables.allSatisfy(\.isEqual) }

    /// Blocks until both are read.
    static func run(source: DemoAddress, target: DemoAddress) throws(BridgeError) -> DemoComparison {
        let left = try source.openSession()
        let right = try target.openSession()
        var result = DemoComparison()
        for table in DemoShop.tables {
            result.tables.append(try compare(table, left, right))
        }
        return result
    }

    /// Whether a database has each writer's receipts from 1 to the last that was acknowledged, and no others.
    static func hasAll(_ receipts: [Int: Int], _ address: DemoAddress) throws(BridgeError) -> Bool {
        let session = try address.openSession()
        try session.open("SELECT writer, count(*), min(number), max(number) FROM receipts GROUP BY writer ORDER BY writer")
        var found: [[String]] = []
        while let row = try session.next() { found.append(row.map(Self.text)) }
        return found == receipts.sorted { $0.key < $1.key }.map { ["\($0.key)", "\($0.value)", "1", "\($0.value)"] }
    }

    private static func text(_ value: DemoValue) -> String {
        switch value {
        case .integer(let number): "\(number)"
        case .text(let bytes): String(decoding: bytes, as: UTF8.self)
        default: ""
        }
    }

    private static func compare(
        _ table: DemoShop.Table, _ left: any DemoSession, _ right: any DemoSession
    ) throws(BridgeError) -> Table {
        let query =
            "SELECT \(table.columns.joined(separator: ", ")) FROM \(table.name) ORDER BY \(table.key.joined(separator: ", "))"
        try left.open(query)
        try right.open(query)
        var result = Table(name: table.name)
        while true {
            let (a, b) = (try left.next(), try right.next())
            if a == nil, b == nil { return result }
            if a != nil { result.sourceRows += 1 }
            if b != nil { result.targetRows += 1 }
            if a != b, result.firstDifference == nil {
                result.firstDifference = max(result.sourceRows, result.targetRows)
            }
            guard a != nil, b != nil else {
                // One side has ended; the other is read to its end for the count.
                if a != nil { while try left.next() != nil { result.sourceRows += 1 } }
                if b != nil { while try right.next() != nil { result.targetRows += 1 } }
                return result
            }
        }
    }
}

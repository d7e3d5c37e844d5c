import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// What a link's state table holds, and the places of its log. All functions read in the caller's transaction.
struct CaptureState {
    /// The layout of log, state and triggers that this code writes.
    static let format: Int64 = 2

    /// How the state table is made, behind its name.
    static let columns = "(key TEXT PRIMARY KEY, value) WITHOUT ROWID"

    /// Rows of the log with this table number are no keys: the first row, the ends of the sequence's leaps, and, with a
    /// text in `k0`, markers that travel with the changes.
    static let markerTable: Int64 = 0

    /// Which rows of the log are delivered: the changes and the markers.
    static let isDelivered = "(tbl <> \(markerTable) OR k0 IS NOT NULL)"
    /// The newest row's sequence, and whether it is one that is delivered.
    static func newestRow(_ names: CaptureNames) -> String {
        "SELECT seq, \(isDelivered) FROM main.\(quoteIdentifier(names.log)) ORDER BY seq DESC LIMIT 1"
    }

    /// A column of the log with 48 random bits in each row, by which it is told from another row at the same place.
    static let mark = "mark DEFAULT (random() >> 16)"

    /// Asks for the mark of the row at a place.
    static func markOfRow(_ names: CaptureNames) -> String {
        "SELECT mark FROM main.\(quoteIdentifier(names.log)) WHERE seq = ?1"
    }

    /// The sequence of the row that a new log begins with.
    static let firstSequence: Int64 = 1

    /// How far the sequence leaps, at least, when changes were acknowledged.
    ///
    /// A file restored from a backup goes on from a lower sequence, and would with time pass the place up to which its
    /// changes have been taken, unseen. So the sequence leaps, and the place up to which changes have been taken is, as soon
    /// as the source is idle for a moment, the row that a leap ends in. A file that lacks the leap would need a billion
    /// changes to come there, and so lacks that row: this is noticed. What has been delivered since the last leap is known
    /// by its marks: see ``DeliveryProofs``.
    static let leap: Int64 = 1 << 30
    /// A leap is by chance less than so much longer, so that two copies of a file do not come to the same place.
    static let leapVariance: Int64 = 1 << 20

    var format: Int64
    var link: String
    /// Random, made with the log: says that it is this log and no other.
    var nonce: String
    /// Random, made by each session: says that no other session reads this log.
    var session: String
    /// Everything before it is durable elsewhere.
    var acknowledged: Int64
    /// Counts the acknowledgements; a file that is put back from a backup counts less.
    var acknowledgements: Int64

    static func read(_ names: CaptureNames, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> CaptureState? {
        guard try exists(names.state, database) else { return nil }
        let statement = try database.prepare("SELECT key, value FROM main.\(quoteIdentifier(names.state))")
        var state = CaptureState(format: 0, link: "", nonce: "", session: "", acknowledged: 0, acknowledgements: 0)
        while try statement.step() {
            switch statement.string(0) {
            case "format": state.format = statement.integer(1)
            case "link": state.link = statement.string(1) ?? ""
            case "nonce": state.nonce = statement.string(1) ?? ""
            case "session": state.session = statement.string(1) ?? ""
            case "acknowledged": state.acknowledged = statement.integer(1)
            case "acknowledgements": state.acknowledgements = statement.integer(1)
            default: continue
            }
        }
        return state
    }

    static func exists(_ table: String, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> Bool {
        let statement = try database.prepare("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?1")
        try statement.bind(1, string: table)
        return try statement.step()
    }

    /// Asks for the sequences of the newest change, or marker, and of the newest row. Without either, there is one row: the
    /// first, or the end of the leap before which everything was taken and pruned.
    static func newestChange(_ names: CaptureNames) -> String {
        let log = "main.\(quoteIdentifier(names.log))"
        return """
            SELECT coalesce((SELECT seq FROM \(log) WHERE \(isDelivered) ORDER BY seq DESC LIMIT 1),
                            (SELECT max(seq) FROM \(log))), (SELECT max(seq) FROM \(log))
            """
    }

    /// 128 random bits in hexadecimal.
    static func randomNonce() -> String {
        var generator = SystemRandomNumberGenerator()
        return (0..<2).map { _ in
            let digits = String(generator.next(), radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }

    /// A sequence for people: how often it leapt, and the count since.
    static func describe(_ position: Position) -> String {
        let leaps = position.commit / UInt64(leap)
        return leaps == 0 ? "seq \(position.commit)" : "seq \(leaps).\(position.commit % UInt64(leap))"
    }
}

/// One table of a link, as the state in the source has it.
struct CapturedTable: Sendable {
    var number: Int64
    /// The name in the link's mapping, which the table had when the log was made.
    var name: String
    /// Logical types as planned then, by column name: they do not change with what is written later.
    var types: [String: LogicalType]

    static func read(_ names: CaptureNames, _ database: borrowing SQLiteDatabase) throws(BridgeError)
        -> [CapturedTable]
    {
        let statement = try database.prepare(
            "SELECT number, name, column_name, type FROM main.\(quoteIdentifier(names.tables)) ORDER BY number")
        var tables: [CapturedTable] = []
        while try statement.step() {
            let number = statement.integer(0)
            if tables.last?.number != number {
                tables.append(CapturedTable(number: number, name: statement.string(1) ?? "", types: [:]))
            }
            if let column = statement.string(2), let type = statement.string(3) {
                tables[tables.count - 1].types[column] = LogicalType(name: type)
            }
        }
        return tables
    }
}

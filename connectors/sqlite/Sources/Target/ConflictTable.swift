import BridgeCore

/// Changes that a link did not apply as the source made them, in `_bridge_conflict`: one row each, written in the transaction
/// whose checkpoint goes past the change. The key of the row stands in it, since that is what it is for; it is in no other
/// file than the row itself.
struct ConflictTable {
    let connection: TargetConnection
    let link: LinkDescription

    static let name = "_bridge_conflict"

    /// Positions are unsigned numbers of 64 bits, which SQLite has not: `place` is commit and ordinal with zeros before them,
    /// so that they sort as numbers do.
    static let create = """
        CREATE TABLE IF NOT EXISTS main._bridge_conflict(
            link TEXT NOT NULL, place TEXT NOT NULL, commit_time INTEGER NOT NULL, table_name TEXT NOT NULL,
            change TEXT NOT NULL, reason TEXT NOT NULL, outcome TEXT NOT NULL, key TEXT NOT NULL,
            recorded_at INTEGER NOT NULL, PRIMARY KEY(link, place)) WITHOUT ROWID
        """

    func exists() throws(BridgeError) -> Bool {
        try connection.database.integer(
            "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = '_bridge_conflict'") != nil
    }

    /// In the transaction that goes past the change.
    func insert(_ record: ConflictRecord) throws(BridgeError) {
        let statement = try connection.prepare(
            """
            INSERT INTO main._bridge_conflict(link, place, commit_time, table_name, change, reason, outcome, key, recorded_at)
            VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING
            """)
        try statement.bind(1, string: link.name)
        try statement.bind(2, string: Self.padded(record.position.commit) + "." + Self.padded(record.position.ordinal))
        try statement.bind(3, integer: record.commitTime.microseconds)
        for (index, text) in [record.table, record.change, record.reason, record.outcome.rawValue, record.key].enumerated() {
            try statement.bind(4 + index, string: text)
        }
        try statement.bind(9, integer: Timestamp.now.microseconds)
        try statement.run()
    }

    private static func padded(_ number: UInt64) -> String {
        let digits = String(number)
        return String(repeating: "0", count: 20 - digits.count) + digits
    }

    func read(limit: Int) throws(BridgeError) -> ConflictHistory {
        guard try exists() else { return ConflictHistory() }
        let count = try connection.prepare("SELECT count(*) FROM main._bridge_conflict WHERE link = ?1")
        try count.bind(1, string: link.name)
        var history = ConflictHistory(total: try count.step() ? count.integer(0) : 0)
        let rows = try connection.prepare(
            """
            SELECT place, commit_time, table_name, change, reason, outcome, key, recorded_at
            FROM main._bridge_conflict WHERE link = ?1 ORDER BY place DESC LIMIT ?2
            """)
        try rows.bind(1, string: link.name)
        try rows.bind(2, integer: Int64(limit))
        while try rows.step() {
            let place = (rows.string(0) ?? "").split(separator: ".")
            guard place.count == 2, let commit = UInt64(place[0]), let ordinal = UInt64(place[1]),
                let outcome = rows.string(5).flatMap({ ConflictRecord.Outcome(rawValue: $0) })
            else {
                throw BridgeError(
                    .checkpointForeign, "the target's records of conflicts cannot be read",
                    context: [.init(.migration, link.migration)])
            }
            history.newest.append(
                ConflictRecord(
                    position: Position(commit: commit, ordinal: ordinal), commitTime: Timestamp(microseconds: rows.integer(1)),
                    table: rows.string(2) ?? "", change: rows.string(3) ?? "", reason: rows.string(4) ?? "", outcome: outcome,
                    key: rows.string(6) ?? "{}", recordedAt: Timestamp(microseconds: rows.integer(7))))
        }
        history.newest.reverse()
        return history
    }
}

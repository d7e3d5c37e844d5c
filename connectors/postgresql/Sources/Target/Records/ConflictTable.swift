import BridgeCore

/// Changes that a link did not apply as the source made them, in `_bridge.conflict`: one row each, written in the transaction
/// whose checkpoint goes past the change. The key of the row stands in it, since that is what it is for; it is on no other
/// database than the row itself.
enum ConflictTable {
    static let create = """
        CREATE TABLE IF NOT EXISTS _bridge.conflict (
          link text NOT NULL REFERENCES _bridge.link ON DELETE CASCADE,
          commit_position numeric(20) NOT NULL,
          ordinal numeric(20) NOT NULL,
          commit_time bigint NOT NULL,
          table_name text NOT NULL,
          change text NOT NULL,
          reason text NOT NULL,
          outcome text NOT NULL,
          key text NOT NULL,
          recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
          PRIMARY KEY (link, commit_position, ordinal)
        )
        """

    /// Statements that add records, each of a bounded size. For the transaction that goes past the changes.
    static func insert(_ link: LinkDescription, _ records: [ConflictRecord]) -> [String] {
        stride(from: 0, to: records.count, by: 500).map { start in
            let rows = records[start..<min(start + 500, records.count)].map { record in
                let texts = [record.table, record.change, record.reason, record.outcome.rawValue, record.key]
                let numbers = ["\(record.position.commit)", "\(record.position.ordinal)", "\(record.commitTime.microseconds)"]
                return "(\(([quoteLiteral(link.name)] + numbers + texts.map(literal)).joined(separator: ", ")))"
            }
            return """
                INSERT INTO _bridge.conflict
                  (link, commit_position, ordinal, commit_time, table_name, change, reason, outcome, key)
                VALUES \(rows.joined(separator: ", ")) ON CONFLICT DO NOTHING
                """
        }
    }

    /// A statement's text ends at a zero byte, which text of another engine may hold.
    private static func literal(_ text: String) -> String {
        quoteLiteral(text.replacing("\0", with: "\\u0000"))
    }

    static func read(
        _ link: LinkDescription, limit: Int, _ connection: PostgresConnection
    ) throws(BridgeError) -> ConflictHistory {
        let action = "reading the records of conflicts"
        guard try connection.rows("SELECT to_regclass('_bridge.conflict') IS NOT NULL", during: action).first?.first == "t" else {
            return ConflictHistory()
        }
        let total = try connection.rows(
            "SELECT count(*) FROM _bridge.conflict WHERE link = $1", [link.name], during: action
        ).first?.first.flatMap { $0.flatMap { Int64($0) } } ?? 0
        guard total > 0, limit > 0 else { return ConflictHistory(total: total) }
        let rows = try connection.rows(
            """
            SELECT commit_position, ordinal, commit_time, table_name, change, reason, outcome, key,
              (extract(epoch FROM recorded_at) * 1000000)::bigint
            FROM _bridge.conflict WHERE link = $1 ORDER BY commit_position DESC, ordinal DESC LIMIT $2::bigint
            """, [link.name, "\(limit)"], during: action)
        var history = ConflictHistory(total: total)
        for row in rows.reversed() {
            guard let commit = row[0].flatMap({ UInt64($0) }), let ordinal = row[1].flatMap({ UInt64($0) }),
                let time = row[2].flatMap({ Int64($0) }), let outcome = row[6].flatMap({ ConflictRecord.Outcome(rawValue: $0) })
            else {
                throw BridgeError(
                    .checkpointForeign, "the target's records of conflicts cannot be read",
                    context: [.init(.migration, link.name)])
            }
            history.newest.append(
                ConflictRecord(
                    position: Position(commit: commit, ordinal: ordinal), commitTime: Timestamp(microseconds: time),
                    table: row[3] ?? "", change: row[4] ?? "", reason: row[5] ?? "", outcome: outcome, key: row[7] ?? "{}",
                    recordedAt: row[8].flatMap { Int64($0) }.map { Timestamp(microseconds: $0) }))
        }
        return history
    }
}

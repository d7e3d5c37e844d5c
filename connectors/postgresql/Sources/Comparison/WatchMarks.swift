import BridgeCore

/// What tells one watch over foreign writes from another, and the target from an older state of itself.
///
/// A table beside the record of writes. Its first row, without a name, is made with the watch: it has a random identity,
/// which together with the OID of the record of writes is the watch's, and the largest number that the record ever gave
/// out. So a record that was dropped and made anew, restored from a dump or emptied is told from the one before. The other
/// rows are counters, one for each check that may be gone on with. They are no rows of the link, so nothing records them.
struct WatchMarks {
    let connection: PostgresConnection
    /// The names of the record of writes, and of the table of marks.
    let records: String
    let table: String

    /// - Parameter anew: whether the record of writes was just made; numbers then begin with 1 again.
    func create(anew: Bool) -> String {
        """
        CREATE TABLE IF NOT EXISTS \(table) (name text PRIMARY KEY, counter bigint NOT NULL, identity text);
        \(anew ? "DELETE FROM \(table) WHERE name = '';" : "")
        INSERT INTO \(table) SELECT '', coalesce((SELECT max(number) FROM \(records) WHERE number > 0), 0), gen_random_uuid()
        WHERE NOT EXISTS (SELECT FROM \(table) WHERE name = '')
        """
    }

    /// The largest number that was given to a write; NULL if that is not known any more.
    var largest: String { "(SELECT counter FROM \(table) WHERE name = '')" }

    /// Whether the write with the largest number is still there.
    var holdsAllNumbers: String {
        "coalesce((SELECT max(number) FROM \(records) WHERE number > 0), 0) IS NOT DISTINCT FROM \(largest)"
    }

    /// Keeps a number that was given out; none does nothing.
    func note(_ number: String) -> String {
        "UPDATE \(table) SET counter = n.number FROM (\(number)) AS n(number) WHERE name = '' AND n.number > counter"
    }

    func largestNumber() throws(BridgeError) -> Int64 {
        try connection.rows("SELECT \(largest)", during: "reading the record of foreign writes").first?[0].flatMap { Int64($0) } ?? -1
    }

    private var identity: String { "to_regclass(\(quoteLiteral(records)))::oid || ' ' || (SELECT identity FROM \(table) WHERE name = '')" }

    /// Nil if there is no watch.
    func read(_ check: String) throws(BridgeError) -> WatchMark? {
        try mark(
            connection.rows(
                "SELECT \(identity), coalesce((SELECT counter FROM \(table) WHERE name = $1), 0)", [check],
                during: "reading the mark of a check"))
    }

    /// Flushed before it returns, and with it all that was committed on the target before.
    func raise(_ check: String, inPlaceOf old: String?) throws(BridgeError) -> WatchMark? {
        try mark(
            connection.rows(
                """
                WITH old AS (DELETE FROM \(table) WHERE name = $2 AND name NOT IN ('', $1)), \
                flushed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'local', true) AS setting)
                INSERT INTO \(table) AS m (name, counter) SELECT $1, 1 FROM flushed WHERE setting = 'local' \
                ON CONFLICT (name) DO UPDATE SET counter = m.counter + 1 RETURNING \(identity), counter
                """, [check, old], during: "leaving the mark of a check"))
    }

    private func mark(_ rows: [[String?]]) -> WatchMark? {
        guard let row = rows.first, let identity = row[0], let counter = row[1].flatMap({ Int64($0) }) else { return nil }
        return WatchMark(identity: identity, counter: counter)
    }

    // MARK: What nobody records

    /// Rules that rewrite the applier's statements, and BEFORE triggers that may alter, or leave out, the rows that it
    /// writes: neither makes a statement of a trigger's function that a trigger could record.
    /// - Parameter targets: rows (ordinal, OID) of the link's target tables.
    static func unrecorded(_ targets: String, _ connection: PostgresConnection) throws(BridgeError) -> [String] {
        try connection.rows(
            """
            WITH r AS (
              SELECT DISTINCT v.relid FROM (VALUES \(targets)) AS w(i, oid)
              CROSS JOIN LATERAL (SELECT w.oid UNION SELECT relid::oid FROM pg_partition_tree(w.oid::regclass)) AS v(relid))
            SELECT 'trigger ' || quote_ident(t.tgname) || ' on ' || t.tgrelid::regclass FROM pg_trigger t JOIN r ON r.relid = t.tgrelid
            WHERE NOT t.tgisinternal AND t.tgenabled IN ('A', 'R') AND t.tgtype & 3 = 3
              AND t.tgfoid NOT IN (SELECT oid FROM pg_proc WHERE pronamespace = to_regnamespace('_bridge'))
            UNION ALL
            SELECT 'rule ' || quote_ident(u.rulename) || ' on ' || u.ev_class::regclass FROM pg_rewrite u JOIN r ON r.relid = u.ev_class
            WHERE u.ev_enabled IN ('A', 'R') ORDER BY 1
            """, during: "looking for rules and triggers on the target"
        ).compactMap { $0[0] }
    }
}

extension ForeignWriteWatch {
    private func withMarks<Value>(_ body: (WatchMarks) throws(BridgeError) -> Value?) throws(BridgeError) -> Value {
        let missing = BridgeError(
            .captureBroken, "the target's watch for foreign writes is gone", context: [.init(.migration, link.name)],
            hint: "run a full check again")
        do throws(BridgeError) {
            guard let value = try body(marks) else { throw missing }
            return value
        } catch where error.sqlState == "42P01" { throw missing }
    }

    func mark(of check: String) throws(BridgeError) -> WatchMark {
        var mark = try withMarks { (marks) throws(BridgeError) in try marks.read(check) }
        mark.unrecorded = try WatchMarks.unrecorded(targets, connection)
        return mark
    }

    func raiseMark(of check: String, inPlaceOf old: String?) throws(BridgeError) -> WatchMark {
        try withMarks { (marks) throws(BridgeError) in try marks.raise(check, inPlaceOf: old) }
    }
}

extension PostgresComparison: ComparisonTarget {
    /// A key is recorded by the columns of the layout that was asked for last; call ``layout(of:columns:)`` before. For a
    /// table of which none was asked for it is the target's primary key.
    func watchForeignWrites() async throws(BridgeError) {
        let keys = layoutKeys
        try await watch { (watch) throws(BridgeError) in try watch.install(keys: keys) }
    }

    func foreignWrites(after: Int64, limit: Int) async throws(BridgeError) -> [ForeignWrite] {
        try await watch { (watch) throws(BridgeError) in try watch.read(after: after, limit: limit) }
    }

    func watchMark(of check: String) async throws(BridgeError) -> WatchMark {
        try await watch { (watch) throws(BridgeError) in try watch.mark(of: check) }
    }

    func raiseMark(of check: String, inPlaceOf old: String?) async throws(BridgeError) -> WatchMark {
        try await watch { (watch) throws(BridgeError) in try watch.raiseMark(of: check, inPlaceOf: old) }
    }

    private func watch<Value>(_ body: (ForeignWriteWatch) throws(BridgeError) -> Value) async throws(BridgeError) -> Value {
        let connection = try connected()
        return try await cancellable { () throws(BridgeError) in
            try body(ForeignWriteWatch(connection: connection, link: link))
        }
    }
}

import BridgeCore

/// The sequences that the tables' columns draw from, and moving them on.
///
/// Found are those of identity and serial columns, those that a default names and those that it names by text alone
/// (`nextval('s'::text)`), also in the defaults of partitions. Not found is what a function or a trigger draws from.
struct CutoverSequences {
    let connection: PostgresConnection

    /// A sequence, and a column that draws from it.
    struct Drawn {
        var table: TableName
        var column: String
        var sequence: UInt32
        /// Quoted, for SQL.
        var name: String
        var increment: Int64
        var minimum: Int64
        var maximum: Int64
        var start: Int64
        var cache: Int64
        var isCycling: Bool
        var isOwned: Bool
        var owner: String
        var isReadable: Bool
        /// Whether what is drawn goes into the column as it is, so that the column's values say how far it went.
        var isPlain: Bool
        /// The column's type below domains: `int2`, `int4`, `int8`, `numeric`, or something else.
        var type: String
        /// Quoted, for SQL.
        var tableName: String
        /// Whether an index tells the column's last value at once.
        var isIndexed: Bool

        var isUp: Bool { increment > 0 }
        var columnName: String { "\(tableName).\(quoteIdentifier(column))" }

        /// The largest value, or the least where it counts down, that sequence and column can hold.
        var limit: Int64 {
            switch type {
            case "int2": isUp ? min(maximum, Int64(Int16.max)) : max(minimum, Int64(Int16.min))
            case "int4": isUp ? min(maximum, Int64(Int32.max)) : max(minimum, Int64(Int32.min))
            default: isUp ? maximum : minimum
            }
        }

        /// Whether `a` comes later than `b`.
        func isBeyond(_ a: Int64, _ b: Int64) -> Bool { isUp ? a > b : a < b }
    }

    /// Where a sequence stands.
    private struct State {
        var value: Int64
        var isCalled: Bool

        /// What is given out next; nil if there is nothing left.
        func next(_ drawn: Drawn) -> Int64? {
            guard isCalled else { return value }
            let (next, overflows) = value.addingReportingOverflow(drawn.increment)
            return overflows || next > drawn.maximum || next < drawn.minimum ? nil : next
        }
    }

    // MARK: Reading

    func read(_ tables: [TableName]) throws(BridgeError) -> [CutoverSequence] {
        try connection.inTransaction { () throws(BridgeError) in
            try drawn(tables).map { (drawn) throws(BridgeError) in
                let state = try state(drawn)
                // One that was never used stands at its start; one that was set stands before the value that comes next.
                let isUnused = !state.isCalled && state.value == drawn.start
                let before = state.value.subtractingReportingOverflow(drawn.increment)
                let last = state.isCalled ? state.value : isUnused || before.overflow ? nil : before.partialValue
                return CutoverSequence(
                    table: drawn.table, column: drawn.column, name: drawn.name, lastValue: last, increment: drawn.increment)
            }
        }
    }

    private func state(_ drawn: Drawn) throws(BridgeError) -> State {
        // Asked before, since after a refusal nothing can be asked in the same transaction.
        guard drawn.isReadable else {
            throw BridgeError(
                .rightsMissing, "the role may not read the sequence \(drawn.name)",
                hint: "GRANT SELECT ON SEQUENCE \(drawn.name) TO \(Rights.role(connection))")
        }
        let rows = try connection.rows("SELECT last_value, is_called FROM \(drawn.name)", during: "reading a sequence")
        guard let value = rows.first?[0].flatMap({ Int64($0) }) else {
            throw BridgeError(.serverRefused, "the sequence \(drawn.name) cannot be read")
        }
        return State(value: value, isCalled: rows.first?[1] == "t")
    }

    private func drawn(_ tables: [TableName]) throws(BridgeError) -> [Drawn] {
        let oids = try PostgresCatalog(connection).resolve(tables)
        var names: [String: TableName] = [:]
        for (table, oid) in zip(tables, oids) {
            guard let oid else {
                throw BridgeError(.tableMissing, "there is no such table", context: [.init(.table, table.description)])
            }
            names["\(oid)"] = table
        }
        let rows = try connection.rows(
            Self.query, [ArrayLiteral.make(oids.compactMap { $0 }), ArrayLiteral.make(connection.defaultSchemas)],
            during: "looking for sequences")
        func number(_ text: String?) -> Int64 { text.flatMap { Int64($0) } ?? 0 }
        return rows.compactMap { row in
            guard let table = row[0].flatMap({ names[$0] }), let column = row[1], let sequence = row[2].flatMap({ UInt32($0) }),
                let name = row[3]
            else { return nil }
            return Drawn(
                table: table, column: column, sequence: sequence, name: name, increment: number(row[4]), minimum: number(row[5]),
                maximum: number(row[6]), start: number(row[7]), cache: number(row[8]), isCycling: row[9] == "t",
                isOwned: row[10] == "t", owner: row[11] ?? "", isReadable: row[16] == "t", isPlain: row[12] == "t",
                type: row[13] ?? "", tableName: row[14] ?? "", isIndexed: row[15] == "t")
        }
    }

    private static let query = """
        \(FenceCatalog.tree),
        columns AS (
          SELECT t.root, a.attrelid, a.attnum, a.attname, a.attidentity, a.atttypid, f.oid AS def, pg_get_expr(f.adbin, f.adrelid) AS expr
          FROM tree t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum AND a.attgenerated = ''),
        used AS (
          SELECT c.*, d.objid AS seq FROM columns c JOIN pg_depend d ON d.classid = 'pg_class'::regclass
            AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.attrelid AND d.refobjsubid = c.attnum AND d.deptype IN ('a', 'i')
          UNION SELECT c.*, d.refobjid FROM columns c JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = c.def
            AND d.refclassid = 'pg_class'::regclass
          UNION SELECT c.*, n.found FROM columns c
            CROSS JOIN LATERAL regexp_matches(c.expr, $r$nextval\\(\\('((?:[^']|'')*)'::text\\)::regclass\\)$r$, 'g') AS m(parts)
            CROSS JOIN LATERAL (
              SELECT coalesce(
                (SELECT to_regclass(quote_ident(s) || '.' || replace(m.parts[1], '''''', ''''))::oid
                 FROM unnest($2::text[]) WITH ORDINALITY AS p(s, i)
                 WHERE to_regclass(quote_ident(s) || '.' || replace(m.parts[1], '''''', '''')) IS NOT NULL ORDER BY i LIMIT 1),
                to_regclass(replace(m.parts[1], '''''', ''''))::oid) AS found) AS n),
        types AS (
          WITH RECURSIVE b(oid, base) AS (
            SELECT DISTINCT atttypid, atttypid FROM columns
            UNION SELECT b.oid, t.typbasetype FROM b JOIN pg_type t ON t.oid = b.base WHERE t.typtype = 'd')
          SELECT b.oid, t.typname FROM b JOIN pg_type t ON t.oid = b.base WHERE t.typtype <> 'd')
        SELECT DISTINCT u.root, u.attname, s.seqrelid, quote_ident(n.nspname) || '.' || quote_ident(c.relname), s.seqincrement,
          s.seqmin, s.seqmax, s.seqstart, s.seqcache, s.seqcycle, pg_has_role(c.relowner, 'USAGE'),
          quote_ident(pg_get_userbyid(c.relowner)),
          u.attidentity <> '' OR u.expr IS NULL OR coalesce(u.expr ~ $r$^\\(?nextval\\(\\(?'([^']|'')*'::(text\\)::)?regclass\\)\\)?(::[a-z ]+)?$$r$, false),
          y.typname, quote_ident(rn.nspname) || '.' || quote_ident(r.relname),
          EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
            JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_am m ON m.oid = ic.relam
            WHERE i.indrelid = u.root AND a.attname = u.attname AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'),
          has_sequence_privilege(s.seqrelid, 'SELECT')
        FROM used u JOIN pg_sequence s ON s.seqrelid = u.seq JOIN pg_class c ON c.oid = s.seqrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN types y ON y.oid = u.atttypid
        JOIN pg_class r ON r.oid = u.root JOIN pg_namespace rn ON rn.oid = r.relnamespace
        ORDER BY 1, 2, 3
        """

    // MARK: Moving on

    /// How long a sequence is tried to be locked.
    private static let patience = Duration.seconds(10)

    /// - Parameter scanned: the columns that were read from end to end for their last value, as they have no index. That is
    ///   done once, before the fence: it can take longer than the whole pause, and such a column is not unique by itself.
    func advance(_ targets: [SequenceTarget], scanned: inout Set<String>) throws(BridgeError) -> [SequenceTarget] {
        guard !targets.isEmpty else { return [] }
        let all = try drawn(Set(targets.map(\.table)).sorted())
        var moved: [SequenceTarget] = []
        for target in targets {
            let drawn = all.filter { $0.table == target.table && $0.column == target.column }
            guard !drawn.isEmpty else {
                guard target.isRequired else { continue }
                throw BridgeError(
                    .targetTableMismatch, "the column draws from a sequence on the other side, and from none here",
                    context: [.init(.table, target.table.description), .init(.column, target.column)],
                    hint: "give the column a sequence as its default, or make it an identity column")
            }
            for drawn in drawn {
                do throws(BridgeError) {
                    let looks = drawn.isIndexed || scanned.insert(drawn.columnName).inserted
                    guard let value = try advance(drawn, beyond: target.value, looksAtColumn: looks) else { continue }
                    moved.removeAll { $0.table == target.table && $0.column == target.column }
                    moved.append(SequenceTarget(table: target.table, column: target.column, value: value))
                } catch { throw error.adding(.table, target.table.description).adding(.column, target.column) }
            }
        }
        return moved
    }

    /// - Returns: where it was set; nil if it was ahead.
    private func advance(_ drawn: Drawn, beyond value: Int64, looksAtColumn: Bool) throws(BridgeError) -> Int64? {
        var wanted = value
        // One that begins anew when it has ended says nothing by the column's largest value.
        if looksAtColumn, drawn.isPlain, !drawn.isCycling, let inColumn = try extreme(drawn), drawn.isBeyond(inColumn, wanted) { wanted = inColumn }
        // Values that a session has drawn ahead for itself lie behind what the sequence shows, and must be given up.
        if drawn.cache <= 1, try isAhead(drawn, of: wanted) { return nil }
        guard drawn.isOwned else {
            throw BridgeError(
                .rightsMissing, "the role does not own the sequence \(drawn.name), and only an owner can lock it",
                hint: "GRANT \(drawn.owner) TO \(Rights.role(connection))")
        }
        let deadline = ContinuousClock.now + Self.patience
        var pause = Duration.milliseconds(40)
        while true {
            do throws(BridgeError) {
                return try connection.inTransaction { () throws(BridgeError) in try moveLocked(drawn, beyond: wanted) }
            } catch where FenceLocks.isBlocked(error) && !connection.isBroken {
                let jittered = pause * Double.random(in: 0.5...1.5)
                guard .now + jittered < deadline else {
                    throw BridgeError(
                        .serverBusy, "the sequence \(drawn.name) could not be locked: open transactions have drawn from it",
                        context: error.context, hint: "wait for these transactions, or end them")
                }
                try connection.pause(jittered)
                pause = min(pause * 2, .seconds(1))
            }
        }
    }

    /// setval alone would do for one writer. A second one may have moved the sequence on since it was looked at, and would
    /// see it go back. ALTER SEQUENCE, which leaves everything as it was here, takes a lock that nextval and setval of
    /// others wait for, and gives the sequence a new file, at which sessions drop what they have cached.
    private func moveLocked(_ drawn: Drawn, beyond wanted: Int64) throws(BridgeError) -> Int64? {
        let action = "moving a sequence on"
        try connection.execute("SET LOCAL lock_timeout = 400")
        try connection.execute("ALTER SEQUENCE \(drawn.name) CACHE \(drawn.cache)", during: action)
        if try isAhead(drawn, of: wanted) { return nil }
        try check(drawn, wanted)
        _ = try connection.query("SELECT setval($1::oid::regclass, $2::bigint, true)", ["\(drawn.sequence)", "\(wanted)"], during: action)
        return wanted
    }

    private func isAhead(_ drawn: Drawn, of wanted: Int64) throws(BridgeError) -> Bool {
        let state = try state(drawn)
        // At its end it gives out nothing, or begins anew.
        guard let next = state.next(drawn) else { return !drawn.isBeyond(wanted, state.value) }
        return drawn.isBeyond(next, wanted)
    }

    private func check(_ drawn: Drawn, _ wanted: Int64) throws(BridgeError) {
        let (next, overflows) = wanted.addingReportingOverflow(drawn.increment)
        let last = drawn.isCycling ? wanted : next
        guard !overflows || drawn.isCycling, !drawn.isBeyond(last, drawn.limit), wanted >= drawn.minimum, wanted <= drawn.maximum else {
            throw BridgeError(
                .sequenceExhausted, "the sequence \(drawn.name) cannot go beyond \(wanted): it, or its column, ends at \(drawn.limit)")
        }
    }

    /// The column's largest value, or its least for a sequence that counts down.
    private func extreme(_ drawn: Drawn) throws(BridgeError) -> Int64? {
        guard ["int2", "int4", "int8", "numeric"].contains(drawn.type) else { return nil }
        let column = quoteIdentifier(drawn.column)
        let value = drawn.isUp ? "ceil(max(\(column))::numeric)" : "floor(min(\(column))::numeric)"
        let clamped = drawn.isUp ? "least(v, \(Int64.max))" : "greatest(v, \(Int64.min))"
        let filter = drawn.type == "numeric" ? " WHERE \(column) <> 'NaN'" : ""
        let sql = "SELECT (\(clamped))::bigint FROM (SELECT \(value) AS v FROM \(drawn.tableName)\(filter)) AS w WHERE v IS NOT NULL"
        return try connection.rows(sql, during: "looking for a column's last value")
            .first?[0].flatMap { Int64($0) }
    }
}

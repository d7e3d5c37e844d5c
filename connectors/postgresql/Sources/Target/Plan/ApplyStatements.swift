import BridgeCore

/// The SQL that brings changes into one target table.
///
/// Set-wise statements read a staging table of the session: column `g` holds the group of a row (0 for a key that goes,
/// -1 for one that nothing may have, n + 1 for a row whose set of left-out columns is number n), `c0`, `c1` … the planned columns. What is written to a
/// target column is an expression over them, by default the staged column itself.
struct ApplyStatements {
    let stage: String
    /// The temporary table for rows that are taken out and put back.
    let held: String
    let table: TargetTable
    let columns: [RelationPlan.Column]
    /// For each planned column the expression that makes its value, over the staging table's alias `s`.
    let values: [String]

    init(number: Int, table: TargetTable, columns: [RelationPlan.Column]) {
        stage = "pg_temp.\(quoteIdentifier("bridge_stage_\(number)"))"
        held = "pg_temp.\(quoteIdentifier("bridge_held_\(number)"))"
        self.table = table
        self.columns = columns
        values = columns.indices.map { "s.c\($0)" }
    }

    // MARK: Staging

    /// The staging table has the target's types but none of its constraints, not even a domain's: a key that goes has no
    /// other values.
    var createStage: String {
        let staged = columns.enumerated().map { index, column in
            let name = "t.\(quoteIdentifier(column.name))"
            return "\(column.target.operand(name)) AS c\(index)"
        }
        return "CREATE TEMP TABLE IF NOT EXISTS \(stage) ON COMMIT DELETE ROWS AS "
            + "SELECT \((["0::pg_catalog.int2 AS g"] + staged).joined(separator: ", ")) FROM \(table.name.quoted) AS t WITH NO DATA"
    }

    var copyToStage: String { "COPY \(stage) FROM STDIN" }
    var emptyStage: String { "TRUNCATE \(stage)" }

    /// Straight into the table, where no expression stands between.
    var copyToTable: String { "COPY \(table.name.quoted) (\(columnList)) FROM STDIN" }

    private var columnList: String { columns.map { quoteIdentifier($0.name) }.joined(separator: ", ") }
    private var keys: [(offset: Int, element: RelationPlan.Column)] {
        columns.enumerated().filter { $0.element.isKey }.map { ($0.offset, $0.element) }
    }

    private var stagedKeyMatches: String {
        keys.map { "\($0.element.operand("t")) OPERATOR(\($0.element.equalityOperator)) s.c\($0.offset)" }
            .joined(separator: " AND ")
    }

    /// One group's rows sorted by key: an index that is asked in its own order is read page by page.
    private func inKeyOrder(group: Int) -> String {
        let order = keys.map { "o.c\($0.offset)" }.joined(separator: ", ")
        return "(SELECT * FROM \(stage) AS o WHERE o.g = \(group) ORDER BY \(order))"
    }

    func deleteStaged(group: Int) -> String {
        "DELETE FROM \(table.only) AS t USING \(inKeyOrder(group: group)) AS s WHERE \(stagedKeyMatches)"
    }

    /// The rows that have a group's keys.
    func findStaged(group: Int) -> String {
        "SELECT 1 FROM \(table.only) AS t, \(inKeyOrder(group: group)) AS s WHERE \(stagedKeyMatches)"
    }

    /// Every touched key, whatever is to become of it.
    var deleteAllStaged: String { "DELETE FROM \(table.only) AS t USING \(stage) AS s WHERE \(stagedKeyMatches)" }

    /// Rows whose values are known but for those of `leftOut`, a bit a column of the row image.
    func updateStaged(group: Int, leftOut: [UInt64]) -> String {
        var sets: [String] = []
        var conditions = [stagedKeyMatches]
        for (index, column) in columns.enumerated() where !column.isKey && !leftOut.contains(column: column.imageIndex) {
            let name = quoteIdentifier(column.name)
            if column.target.isAlwaysIdentity {
                // It may not be set, so it must be equal; if it is not, fewer rows are hit than expected, and the exact
                // order replaces the row.
                conditions.append("t.\(name) IS NOT DISTINCT FROM \(values[index])")
            } else {
                sets.append("\(name) = \(values[index])")
            }
        }
        let condition = conditions.joined(separator: " AND ")
        guard !sets.isEmpty else {
            return "SELECT 1 FROM \(table.only) AS t, \(inKeyOrder(group: group)) AS s WHERE \(condition)"
        }
        return "UPDATE \(table.only) AS t SET \(sets.joined(separator: ", ")) FROM \(inKeyOrder(group: group)) AS s "
            + "WHERE \(condition)"
    }

    // MARK: Rows that are taken out and put back

    /// Whole rows of the target.
    var createHeld: String {
        "CREATE TEMP TABLE IF NOT EXISTS \(held) ON COMMIT DELETE ROWS AS SELECT \(list(keptColumns, "t")) FROM \(table.name.quoted) AS t WITH NO DATA"
    }

    var emptyHeld: String { "TRUNCATE \(held)" }

    private var keptColumns: [TargetTable.Column] { table.columns.filter { !$0.isGenerated } }

    private func list(_ columns: [TargetTable.Column], _ alias: String) -> String {
        columns.map { "\(alias).\(quoteIdentifier($0.name))" }.joined(separator: ", ")
    }

    /// Takes out all rows that are to be updated.
    var holdStaged: String {
        """
        WITH d AS (DELETE FROM \(table.only) AS t USING \(stage) AS s WHERE s.g > 0 AND \(stagedKeyMatches) \
        RETURNING \(list(keptColumns, "t"))) INSERT INTO \(held) SELECT * FROM d
        """
    }

    /// Puts one group's rows back with their new values.
    func insertHeld(group: Int, leftOut: [UInt64]) -> String {
        let kept = keptColumns
        let made = kept.map { column -> String in
            if let index = columns.firstIndex(where: { $0.name == column.name }), !leftOut.contains(column: columns[index].imageIndex) {
                return values[index]
            }
            return "t.\(quoteIdentifier(column.name))"
        }
        return """
            INSERT INTO \(table.name.quoted) (\(kept.map { quoteIdentifier($0.name) }.joined(separator: ", "))) \
            OVERRIDING SYSTEM VALUE SELECT \(made.joined(separator: ", ")) \
            FROM \(inKeyOrder(group: group)) AS s, \(held) AS t WHERE \(stagedKeyMatches)
            """
    }

    func insertStaged(group: Int) -> String {
        "INSERT INTO \(table.name.quoted) (\(columnList)) OVERRIDING SYSTEM VALUE "
            + "SELECT \(values.joined(separator: ", ")) FROM \(stage) AS s WHERE s.g = \(group)"
    }

    func upsertStaged(group: Int) -> String { "\(insertStaged(group: group)) \(onConflict)" }

    private var onConflict: String {
        let key = keys.map { quoteIdentifier($0.element.name) }.joined(separator: ", ")
        let sets = columns.filter { !$0.isKey && !$0.target.isAlwaysIdentity }
            .map { "\(quoteIdentifier($0.name)) = EXCLUDED.\(quoteIdentifier($0.name))" }
        return "ON CONFLICT (\(key)) DO " + (sets.isEmpty ? "NOTHING" : "UPDATE SET \(sets.joined(separator: ", "))")
    }

    /// Removes rows that hold a unique value which a staged row is about to take.
    func deleteHolders(of index: TargetTable.UniqueIndex, group: Int) -> String {
        let where_ = index.predicate.map { " WHERE \($0)" } ?? ""
        let parts = index.parts.enumerated().map { "\($0.element) AS u\($0.offset)" }.joined(separator: ", ")
        let keyParts = keys.enumerated().map { place, entry in
            "\(entry.element.target.operand(quoteIdentifier(entry.element.name))) AS k\(place)"
        }.joined(separator: ", ")
        let staged = columns.indices.map { "\(values[$0]) AS \(quoteIdentifier(columns[$0].name))" }
        let same = index.parts.indices.map {
            index.nullsAreDistinct
                ? "o.u\($0) OPERATOR(\(index.operators[$0])) n.u\($0)" : "o.u\($0) IS NOT DISTINCT FROM n.u\($0)"
        }
        let found = keys.enumerated().map { place, entry in
            "\(entry.element.operand("t")) OPERATOR(\(entry.element.equalityOperator)) o.k\(place)"
        }
        return """
            DELETE FROM \(table.only) AS t \
            USING (SELECT \(keyParts), \(parts) FROM \(table.only)\(where_)) AS o, \
            (SELECT \(parts) FROM (SELECT \(staged.joined(separator: ", ")) FROM \(stage) AS s WHERE s.g = \(group)) AS r\(where_)) AS n \
            WHERE \(same.joined(separator: " AND ")) AND \(found.joined(separator: " AND "))
            """
    }

    // MARK: Row by row

    /// A statement for one change, with what its parameters are.
    struct RowStatement {
        enum Parameter {
            /// A planned column of the new row.
            case new(Int)
            /// A planned column of the row that is looked for.
            case old(Int)
        }
        var sql: String
        var parameters: [Parameter]
    }

    /// Fails with "division by zero" unless the statement hits exactly one row: for statements whose counts cannot be
    /// looked at before the transaction is over.
    static func checked(_ sql: String) -> String {
        "WITH u AS (\(sql) RETURNING 1) SELECT 1 / (pg_catalog.count(*) = 1)::pg_catalog.int4 FROM u"
    }

    var insertRow: RowStatement {
        let places = columns.indices.map { "$\($0 + 1)" }.joined(separator: ", ")
        return RowStatement(
            sql: "INSERT INTO \(table.name.quoted) (\(columnList)) OVERRIDING SYSTEM VALUE VALUES (\(places))",
            parameters: columns.indices.map { .new($0) })
    }

    var upsertRow: RowStatement {
        let insert = insertRow
        return RowStatement(sql: "\(insert.sql) \(onConflict)", parameters: insert.parameters)
    }

    /// - Parameters:
    ///   - leftOut: columns that the source did not send.
    ///   - setsKey: whether the key changes too.
    ///   - oldNulls: for a row found by all its columns, which of them are NULL.
    ///   - filter: a condition that the row must fulfil as well.
    func updateRow(
        leftOut: [UInt64], setsKey: Bool, identification: RelationPlan.Identification, oldNulls: [UInt64],
        filter: String? = nil
    ) -> RowStatement {
        let written = columns.indices.filter {
            !leftOut.contains(column: columns[$0].imageIndex) && (setsKey || !columns[$0].isKey)
        }
        var parameters: [RowStatement.Parameter] = []
        func place(_ parameter: RowStatement.Parameter) -> String {
            parameters.append(parameter)
            return "$\(parameters.count)"
        }
        let condition = filter.map { " AND (\($0))" } ?? ""
        let sql: String
        if written.contains(where: { columns[$0].target.isAlwaysIdentity }) {
            // No UPDATE may set such a column, so the row is taken out and put back with it.
            let all = table.columns.filter { !$0.isGenerated }
            let kept = all.map { column -> String in
                guard let index = written.first(where: { columns[$0].name == column.name }) else {
                    return "d.\(quoteIdentifier(column.name))"
                }
                return "\(place(.new(index)))::\(column.castName)"
            }
            let found = match(identification, oldNulls: oldNulls, place) + condition
            sql = """
                WITH d AS (DELETE FROM \(table.only) AS t WHERE \(found) RETURNING *) \
                INSERT INTO \(table.name.quoted) (\(all.map { quoteIdentifier($0.name) }.joined(separator: ", "))) \
                OVERRIDING SYSTEM VALUE SELECT \(kept.joined(separator: ", ")) FROM d
                """
        } else if written.isEmpty {
            // Nothing to write, but the row must be there.
            sql = "SELECT 1 FROM \(table.only) AS t WHERE \(match(identification, oldNulls: oldNulls, place))\(condition)"
        } else {
            let sets = written.map { "\(quoteIdentifier(columns[$0].name)) = \(place(.new($0)))" }.joined(separator: ", ")
            sql = "UPDATE \(table.only) AS t SET \(sets) WHERE \(match(identification, oldNulls: oldNulls, place))\(condition)"
        }
        return RowStatement(sql: sql, parameters: parameters)
    }

    func deleteRow(
        identification: RelationPlan.Identification, oldNulls: [UInt64], filter: String? = nil
    ) -> RowStatement {
        var parameters: [RowStatement.Parameter] = []
        let found = match(identification, oldNulls: oldNulls) { parameter in
            parameters.append(parameter)
            return "$\(parameters.count)"
        }
        return RowStatement(sql: "DELETE FROM \(table.only) AS t WHERE \(found)\(filter.map { " AND (\($0))" } ?? "")", parameters: parameters)
    }

    private func match(
        _ identification: RelationPlan.Identification, oldNulls: [UInt64], _ place: (RowStatement.Parameter) -> String
    ) -> String {
        switch identification {
        case .uniqueKey, .plainKey:
            return keys.map {
                // A parameter beside a composite value would be taken for any record, which has no input.
                "\($0.element.operand("t")) OPERATOR(\($0.element.equalityOperator)) \(place(.old($0.offset)))::\($0.element.target.castName)"
            }.joined(separator: " AND ")
        case .wholeRow, .nothing:
            let conditions = columns.indices.map { index in
                matchWhole(index, isNull: oldNulls.contains(column: columns[index].imageIndex), place)
            }
            let found = conditions.joined(separator: " AND ")
            return table.isPartitioned
                ? "(t.tableoid, t.ctid) IN (SELECT x.tableoid, x.ctid FROM \(table.only) AS x WHERE \(found) LIMIT 1)"
                : "t.ctid = (SELECT x.ctid FROM \(table.only) AS x WHERE \(found) LIMIT 1)"
        }
    }

    /// One column of a row that is looked for by all of them: the same for IS NOT DISTINCT FROM and in its text.
    private func matchWhole(_ index: Int, isNull: Bool, _ place: (RowStatement.Parameter) -> String) -> String {
        let column = columns[index]
        let name = "x.\(quoteIdentifier(column.name))"
        // IS NULL is true for a composite value whose fields are all NULL. Against the bare NULL no `=` is needed.
        if isNull { return "\(name) IS NOT DISTINCT FROM NULL" }
        let parameter = place(.old(index))
        // A column's collation may take texts for the same that differ.
        let sameText =
            "\(name)::pg_catalog.text = \(parameter)::\(column.target.castName)::pg_catalog.text COLLATE pg_catalog.\"C\""
        switch column.target.equality {
        case .exact: return "\(column.operand("x")) = \(parameter)::\(column.target.castName)"
        case .loose: return "\(name) = \(parameter)::\(column.target.castName) AND \(sameText)"
        case .none: return sameText
        }
    }
}

extension [UInt64] {
    /// Whether a set of columns, one bit each, holds a column.
    @inline(__always)
    func contains(column: Int) -> Bool { self[column / 64] >> UInt64(column % 64) & 1 == 1 }

    mutating func insert(column: Int) { self[column / 64] |= 1 << UInt64(column % 64) }
}

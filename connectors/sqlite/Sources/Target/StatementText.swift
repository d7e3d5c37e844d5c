import BridgeCore

/// Writes the statements that apply one relation's changes to one table.
///
/// Parameters have fixed numbers, so that binding does not depend on which columns a statement sets: the new value of
/// carried column `n` (counted from 0) is `?n+1`, the old value is `?count+n+1`. A statement may leave numbers out.
struct StatementText: Sendable {
    struct Column: Sendable {
        let name: String
        /// Part of what names a row in a change.
        let isKey: Bool
        /// Values that are equal for SQLite are the same bytes.
        let equalityIsExact: Bool
        let hasBinaryCollation: Bool

        var quoted: String { quoteIdentifier(name) }
    }

    /// How a statement finds its row.
    enum Match: Hashable, Sendable {
        /// By the key's columns, and only if the stored key is the very same bytes.
        case key
        /// By the key's columns as the table's unique index compares them: what ON CONFLICT(key) would meet.
        case equalKey
        /// By every carried column, NULL being equal to NULL; one row where several are alike.
        case wholeRow
    }

    /// For SQL, quoted.
    let table: String
    /// The carried columns, in the relation's order.
    let columns: [Column]
    /// The name that reaches the rowid; nil for tables without.
    let rowidName: String?
    /// A further column that every statement sets, and the expression for it; both for SQL.
    var extra: (column: String, value: String)?

    private func new(_ number: Int) -> String { "?\(number + 1)" }
    private func old(_ number: Int) -> String { "?\(columns.count + number + 1)" }
    private var keys: [Int] { columns.indices.filter { columns[$0].isKey } }

    func insert() -> String {
        let names = (columns.map(\.quoted) + (extra.map { [$0.column] } ?? [])).joined(separator: ", ")
        let values = (columns.indices.map(new) + (extra.map { [$0.value] } ?? [])).joined(separator: ", ")
        return "INSERT INTO \(table)(\(names)) VALUES(\(values))"
    }

    /// Inserts the row, or makes the row that has its key like it. Columns that only the target has keep their values,
    /// which a REPLACE, or a DELETE and an INSERT, would lose.
    func upsert() -> String {
        let target = keys.map { columns[$0].quoted }.joined(separator: ", ")
        // An equal key that is other bytes (case under NOCASE, 1 and 1.0) becomes the source's.
        let set = columns.filter { !$0.isKey || !$0.equalityIsExact }.map { "\($0.quoted) = excluded.\($0.quoted)" }
        let action = set.isEmpty ? "DO NOTHING" : "DO UPDATE SET \(set.joined(separator: ", "))"
        return "\(insert()) ON CONFLICT(\(target)) \(action)"
    }

    /// Sets the columns of `set`. With none, the row is touched all the same, so that its absence is noticed.
    func update(set: ColumnSet, match: Match) -> String {
        var assignments = columns.indices.filter(set.contains).map { "\(columns[$0].quoted) = \(new($0))" }
        if assignments.isEmpty, let first = columns.first {
            assignments = ["\(first.quoted) = \(first.quoted)"]
        }
        if let extra { assignments.append("\(extra.column) = \(extra.value)") }
        return "UPDATE \(table) SET \(assignments.joined(separator: ", ")) WHERE \(condition(match))"
    }

    func delete(match: Match) -> String { "DELETE FROM \(table) WHERE \(condition(match))" }

    /// - Parameter filter: a condition that the row must fulfil as well.
    func selectOne(match: Match, filter: String? = nil) -> String {
        "SELECT 1 FROM \(table) WHERE \(condition(match))\(filter.map { " AND (\($0))" } ?? "") LIMIT 1"
    }

    /// A condition on the old values.
    func condition(_ match: Match) -> String {
        switch match {
        case .equalKey:
            return keys.map { "\(columns[$0].quoted) = \(old($0))" }.joined(separator: " AND ")
        case .key:
            return keys.map { key in
                let column = columns[key]
                let equal = "\(column.quoted) = \(old(key))"
                guard !column.equalityIsExact else { return equal }
                // The first term can use the index, the others tell the keys apart that it calls equal.
                return "\(equal) AND \(column.quoted) COLLATE BINARY = \(old(key)) "
                    + "AND typeof(\(column.quoted)) = typeof(\(old(key)))"
            }.joined(separator: " AND ")
        case .wholeRow:
            let row = columns.indices.map { number in
                let collation = columns[number].hasBinaryCollation ? "" : " COLLATE BINARY"
                return "\(columns[number].quoted)\(collation) IS \(old(number))"
            }.joined(separator: " AND ")
            guard let rowidName else { return row }
            return "\(rowidName) = (SELECT \(rowidName) FROM \(table) WHERE \(row) LIMIT 1)"
        }
    }
}

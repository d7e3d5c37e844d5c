import BridgeCore

/// A target table, with what is derived once from its schema.
struct TargetTable: Sendable {
    let table: SQLiteTable
    /// A name by which statements reach the rowid; nil for a WITHOUT ROWID table, or where columns took every such name.
    let rowidName: String?

    init(_ table: SQLiteTable) {
        self.table = table
        let taken = Set(table.columns.map { foldCase($0.name) })
        if table.isWithoutRowid {
            rowidName = nil
        } else if table.keyIsRowid, let key = table.key.first {
            rowidName = quoteIdentifier(table.columns[key].name)
        } else {
            rowidName = ["rowid", "_rowid_", "oid"].first { !taken.contains($0) }
        }
    }

    var name: String { table.name }

    /// The table for SQL. Always in `main`: a temporary table of the same name must not stand in for it.
    var quoted: String { "main." + quoteIdentifier(table.name) }

    /// SQLite compares names without regard to the case of ASCII letters.
    func column(named name: String) -> Int? {
        let folded = foldCase(name)
        return table.columns.firstIndex { $0.kind != .hidden && foldCase($0.name) == folded }
    }

    func isRowid(_ column: Int) -> Bool { table.keyIsRowid && table.key.first == column }

    func isGenerated(_ column: Int) -> Bool { table.columns[column].kind != .ordinary }

    func hasBinaryCollation(_ column: Int) -> Bool { table.columns[column].collation == "BINARY" }

    /// Whether two values that SQLite calls equal in this column are the same bytes. They are not under NOCASE or RTRIM,
    /// nor where 1 and 1.0 can both be stored.
    func equalityIsExact(_ column: Int) -> Bool {
        if isRowid(column) { return true }
        guard hasBinaryCollation(column), table.columns[column].affinity != .blob else { return false }
        return table.indexes.allSatisfy { index in
            !index.isUnique || index.parts.allSatisfy { $0.column != column || $0.collation == "BINARY" }
        }
    }

    /// Whether a row must have a value in this column that a statement without the column would not give it.
    func mustBeSupplied(_ column: Int) -> Bool {
        let column = (place: column, facts: table.columns[column])
        guard column.facts.kind == .ordinary, column.facts.defaultExpression == nil, !isRowid(column.place) else {
            return false
        }
        return column.facts.isNotNull || (table.isWithoutRowid && table.key.contains(column.place))
    }

    /// Whether the primary key or a unique index over all rows has exactly these columns, so that they name one row.
    func isUnique(over columns: Set<Int>) -> Bool {
        if !columns.isEmpty, columns == Set(table.key) { return true }
        return table.indexes.contains { index in
            guard index.isUnique, index.predicate == nil else { return false }
            let places = index.parts.compactMap(\.column)
            return places.count == index.parts.count && Set(places) == columns
        }
    }
}

/// Lower case for ASCII letters only, as SQLite folds names.
func foldCase(_ name: String) -> String {
    String(decoding: name.utf8.map { $0 >= 0x41 && $0 <= 0x5A ? $0 + 0x20 : $0 }, as: UTF8.self)
}

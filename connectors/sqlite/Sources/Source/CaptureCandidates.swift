import BridgeCore

extension CaptureTriggers {
    // MARK: Rows that REPLACE would remove

    /// One SELECT for each unique index: the keys of the rows that stand in the new row's way.
    func candidateSelections(isUpdate: Bool) throws(BridgeError) -> [String] {
        var selections: [String] = []
        for index in table.indexes where index.isUnique {
            if index.origin == .primaryKey, keyIsExact { continue }
            selections.append(try selection(through: index, isUpdate: isUpdate))
        }
        if !table.keyIsRowid, let rowid = accessibleRowid {
            let changes = isUpdate ? "NEW.\(rowid) IS NOT OLD.\(rowid) AND " : ""
            selections.append("\(keyFromTable) WHERE \(changes)\(tableName).\(rowid) = NEW.\(rowid)")
        }
        return selections
    }

    private var keyFromTable: String {
        "SELECT \(number), \(key { "\(tableName).\($0)" }) FROM \(tableName)"
    }

    /// The columns of a constraint cannot be dropped. Those of an index made by CREATE INDEX can, once the index is gone, and
    /// the triggers must still be readable then. A name that is not found in a query is looked for in the one around it. So
    /// the row in the way, of which there is at most one, is looked up within a query from a row that has all those columns
    /// too, and stands for NEW besides. As long as the columns are there, nothing is taken from it.
    private func selection(through index: SQLiteTable.Index, isUpdate: Bool) throws(BridgeError) -> String {
        let mayVanish = index.origin == .createIndex
        let prefix = mayVanish ? "" : tableName + "."
        var conditions = isUpdate ? changes(in: index).map { ["(\($0))"] } ?? [] : []
        for part in index.parts { conditions.append(try condition(part, of: index, prefix)) }
        // Whether the new row falls under a partial index is not asked: a row too many does no harm.
        if let predicate = index.predicate { conditions.append("(\(mayVanish ? unqualified(predicate) : predicate))") }
        let condition = conditions.joined(separator: " AND ")
        guard mayVanish else { return "\(keyFromTable) WHERE \(condition)" }
        let stand = columnsUsed(by: index).map { "NULL AS \(name($0))" }.joined(separator: ", ")
        let row = marked("(SELECT \(stand.isEmpty ? "NULL" : stand))")
        let found = identity.columns.map { column in
            let look = "(SELECT \(column) FROM \(tableName) WHERE \(condition))"
            // Around one another: a column that is gone is looked for by its bare name too, and must be found only once.
            return isUpdate ? "(SELECT \(look) FROM \(row) AS new)" : look
        }
        let columns = found.joined(separator: ", ")
        return "\(keyFromTable) WHERE \(identity.value) = (SELECT \(columns) FROM \(row) AS \(isUpdate ? "old" : "new"))"
    }

    /// Whether an update gives the row another place in an index; nil if that is not told by columns alone.
    private func changes(in index: SQLiteTable.Index) -> String? {
        guard index.predicate == nil else { return nil }
        var tests: [String] = []
        for part in index.parts {
            guard let column = part.column, table.columns[column].kind == .ordinary else { return nil }
            tests.append("\(effectiveNew(column)) COLLATE BINARY IS NOT OLD.\(name(column))")
        }
        return tests.joined(separator: " OR ")
    }

    /// What a row is found by again: its rowid, or its key where there is none, or none that can be named.
    private var identity: (columns: [String], value: String) {
        if !table.keyIsRowid, let rowid = accessibleRowid { return ([rowid], "\(tableName).\(rowid)") }
        let values = table.key.indices.map { table.collatedKeyColumn($0) }.joined(separator: ", ")
        return (table.key.map { name($0) }, table.key.count == 1 ? values : "(\(values))")
    }

    /// A condition's text without the table's name before its columns: they may have to be found elsewhere.
    private func unqualified(_ text: String) -> String {
        let words = SQLTokens(text)
        let qualifiers = [foldCase(table.name), "main"]
        var pieces: [String] = []
        var start = 0
        for place in 0..<words.count where words.isSign(place + 1, ".") && words.name(place + 2) != nil {
            guard let name = words.name(place), qualifiers.contains(foldCase(name)) else { continue }
            if start < place { pieces.append(words.text(start..<place)) }
            start = place + 2
        }
        if start < words.count { pieces.append(words.text(start..<words.count)) }
        return pieces.joined(separator: " ")
    }

    private func marked(_ text: String) -> String {
        hasMarks ? "\(Self.mark.begin)\(text)\(Self.mark.end)" : text
    }

    private static let rowidNames = ["rowid", "_rowid_", "oid"]

    /// A name under which the rowid can be reached. Columns may have taken all of them: then nobody can set it.
    private var accessibleRowid: String? {
        guard !table.isWithoutRowid else { return nil }
        return Self.rowidNames.first { name in !table.columns.contains { $0.name.lowercased() == name } }
    }

    /// Whether keys that SQLite calls equal are always the same bytes. Then the row in the way has the new row's own key,
    /// which is logged anyhow. INTEGER affinity is not enough: the smallest integer equals a float.
    private var keyIsExact: Bool {
        guard let index = table.primaryKeyIndex else { return table.keyIsRowid }
        return index.parts.allSatisfy { part in
            guard let column = part.column else { return false }
            return part.collation == "BINARY" && table.columns[column].affinity == .text
        }
    }

    private func condition(
        _ part: SQLiteTable.Index.Part, of index: SQLiteTable.Index, _ prefix: String
    ) throws(BridgeError) -> String {
        let collation = quoteIdentifier(part.collation)
        if let column = part.column, table.columns[column].kind == .ordinary {
            return "\(prefix)\(name(column)) = \(effectiveNew(column)) COLLATE \(collation)"
        }
        if let rowid = rowidName(usedBy: part) {
            throw BridgeError(
                .sourceUnsupported, "a unique index is computed from \(rowid), which is not known before a row is inserted",
                context: [.init(.table, table.name), .init(.detail, index.name)],
                hint: "drop the index \(index.name) for the time of the migration, or leave the table out")
        }
        let used = columnsUsed(by: part)
        if let column = part.column {
            // NEW has nothing of a generated column before an update, unless all that it is computed from is named too.
            let value = marked("(SELECT \(name(column)) FROM \(newRow(used)))")
            return "\(prefix)\(name(column)) = \(value) COLLATE \(collation)"
        }
        let expression = part.expression ?? "NULL"
        let value = marked("(SELECT \(expression) FROM \(newRow(used)))")
        return "(\(expression)) = \(value) COLLATE \(collation)"
    }

    /// The new row as a table, for expressions: the columns that they are computed from. Its first arm, which gives no row,
    /// lends the columns' affinities: an expression may compare a column with a literal.
    private func newRow(_ used: [Int]) -> String {
        let plain = used.filter { table.columns[$0].kind == .ordinary }
        let columns = plain.map { "\(name($0)) AS \(name($0))" }.joined(separator: ", ")
        let values = plain.map { "\(effectiveNew($0)) AS \(name($0))" }.joined(separator: ", ")
        var row = "(SELECT \(columns) FROM \(tableName) WHERE 0 UNION ALL SELECT \(values))"
        if plain.isEmpty { row = "(SELECT NULL)" }
        for column in generatedInOrder where used.contains(column) {
            let expression = table.columns[column].generatedAs ?? "NULL"
            row = "(SELECT *, (\(expression)) AS \(name(column)) FROM \(row))"
        }
        return row
    }

    /// Generated columns, each behind those that it is computed from.
    private var generatedInOrder: [Int] {
        var waiting = table.columns.indices.filter {
            table.columns[$0].kind == .virtualGenerated || table.columns[$0].kind == .storedGenerated
        }
        var ordered: [Int] = []
        while !waiting.isEmpty {
            let ready = waiting.filter { column in
                let used = columnsUsed(by: table.columns[column].generatedAs ?? "")
                return !waiting.contains { $0 != column && used.contains($0) }
            }
            // SQLite refuses circles, so something is always ready.
            guard !ready.isEmpty else { return ordered + waiting }
            ordered += ready
            waiting.removeAll { ready.contains($0) }
        }
        return ordered
    }

    private func columnsUsed(by expression: String) -> Set<Int> {
        let tokens = SQLTokens(expression)
        let words = Set((0..<tokens.count).compactMap { tokens.name($0)?.lowercased() })
        return Set(table.columns.indices.filter { words.contains(table.columns[$0].name.lowercased()) })
    }

    /// A part's own column and all that it is computed from, generated columns' too, in table order.
    private func columnsUsed(by part: SQLiteTable.Index.Part) -> [Int] {
        columnsUsed(from: part.column.map { [$0] } ?? columnsUsed(by: part.expression ?? ""))
    }

    private func columnsUsed(by index: SQLiteTable.Index) -> [Int] {
        var used = columnsUsed(by: index.predicate ?? "")
        for part in index.parts { used.formUnion(columnsUsed(by: part)) }
        return columnsUsed(from: used)
    }

    private func columnsUsed(from start: Set<Int>) -> [Int] {
        var pending = Array(start)
        var seen = start
        while let column = pending.popLast() {
            guard let expression = table.columns[column].generatedAs else { continue }
            for inner in columnsUsed(by: expression) where seen.insert(inner).inserted { pending.append(inner) }
        }
        return seen.sorted()
    }

    /// The rowid's name, if an expression or a generated column is computed from it.
    private func rowidName(usedBy part: SQLiteTable.Index.Part) -> String? {
        guard !table.isWithoutRowid else { return nil }
        var pending = [part.expression ?? part.column.flatMap { table.columns[$0].generatedAs } ?? ""]
        var seen: Set<Int> = []
        while let expression = pending.popLast() {
            for column in columnsUsed(by: expression).subtracting(seen) {
                seen.insert(column)
                if table.keyIsRowid, table.key.contains(column) { return table.columns[column].name }
                if let inner = table.columns[column].generatedAs { pending.append(inner) }
            }
            let tokens = SQLTokens(expression)
            for place in 0..<tokens.count {
                guard let word = tokens.name(place)?.lowercased(), Self.rowidNames.contains(word),
                    !table.columns.contains(where: { $0.name.lowercased() == word })
                else { continue }
                return word
            }
        }
        return nil
    }
}

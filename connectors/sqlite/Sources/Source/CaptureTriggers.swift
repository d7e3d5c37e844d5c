import BridgeCore

/// Writes the triggers that log the keys of one table's changed rows.
///
/// The log takes keys and no values, so a key too many does no harm and a key too few loses a change. Every rule here is
/// one that a differential test against SQLite has shown to be needed:
/// - BEFORE INSERT and BEFORE UPDATE log the rows that REPLACE would remove, because their delete triggers do not fire.
///   They are found through each unique index, with its collation.
/// - So does the rowid, where it is not the key: `UPDATE OR REPLACE t SET rowid = 3` removes the row that had it.
/// - AFTER INSERT logs the new key: an automatic rowid is -1 before.
/// - NOT NULL with a DEFAULT is compared by what REPLACE will put there, which it does after BEFORE triggers ran.
/// - No trigger is `UPDATE OF`: `SET rowid` and generated columns do not fire those.
struct CaptureTriggers {
    enum Event: String, CaseIterable {
        case beforeInsert = "bi"
        case afterInsert = "ai"
        case beforeUpdate = "bu"
        case afterUpdate = "au"
        case beforeDelete = "bd"

        var clause: String {
            switch self {
            case .beforeInsert: "BEFORE INSERT"
            case .afterInsert: "AFTER INSERT"
            case .beforeUpdate: "BEFORE UPDATE"
            case .afterUpdate: "AFTER UPDATE"
            case .beforeDelete: "BEFORE DELETE"
            }
        }
    }

    struct Trigger {
        let name: String
        let event: Event
        let sql: String
    }

    let table: SQLiteTable
    let number: Int64
    let names: CaptureNames

    /// All triggers of the table, in the order in which they are made.
    func make() throws(BridgeError) -> [Trigger] {
        var triggers: [Trigger] = []
        let candidates = try candidateSelections()
        if !candidates.isEmpty {
            triggers.append(trigger(.beforeInsert, candidates.map { "\(insert) \($0);" }))
        }
        triggers.append(trigger(.afterInsert, ["\(insert) VALUES(\(number), \(key { "NEW.\($0)" }));"]))
        var update = ["\(insert) VALUES(\(number), \(newKey));"]
        update.append("\(insert) SELECT \(number), \(key { "OLD.\($0)" }) WHERE \(oldKeyDiffers);")
        update += candidates.map { "\(insert) \($0) AND (\(differsFromOldKey));" }
        triggers.append(trigger(.beforeUpdate, update))
        if keyDefaultMayVary {
            triggers.append(trigger(.afterUpdate, ["\(insert) VALUES(\(number), \(key { "NEW.\($0)" }));"]))
        }
        triggers.append(trigger(.beforeDelete, ["\(insert) VALUES(\(number), \(key { "OLD.\($0)" }));"]))
        return triggers
    }

    private func trigger(_ event: Event, _ statements: [String]) -> Trigger {
        let name = names.trigger(number, event)
        let sql =
            "CREATE TRIGGER \(quoteIdentifier(name)) \(event.clause) ON \(tableName) BEGIN "
            + statements.joined(separator: " ") + " END"
        return Trigger(name: name, event: event, sql: sql)
    }

    // MARK: Keys

    private var tableName: String { quoteIdentifier(table.name) }
    private var insert: String {
        "INSERT INTO \(quoteIdentifier(names.log))(tbl, \(table.key.indices.map { "k\($0)" }.joined(separator: ", ")))"
    }

    private func name(_ column: Int) -> String { quoteIdentifier(table.columns[column].name) }

    private func key(_ value: (String) -> String) -> String {
        table.key.map { value(name($0)) }.joined(separator: ", ")
    }

    /// The key as it will be: with the defaults that REPLACE puts in place of NULL.
    private var newKey: String { table.key.map { effectiveNew($0) }.joined(separator: ", ") }

    private var oldKeyDiffers: String {
        table.key.map { differs("OLD.\(name($0))", effectiveNew($0)) }.joined(separator: " OR ")
    }

    /// Whether a row found is another one than the one being updated, whose key is logged already.
    private var differsFromOldKey: String {
        table.key.map { differs("\(tableName).\(name($0))", "OLD.\(name($0))") }.joined(separator: " OR ")
    }

    /// Whether two values are not the same bytes: 1 and 1.0 are equal to SQLite, and not the same.
    private func differs(_ a: String, _ b: String) -> String {
        "\(a) COLLATE BINARY IS NOT \(b) OR typeof(\(a)) <> typeof(\(b))"
    }

    private func takesDefault(_ column: Int) -> Bool {
        let definition = table.columns[column]
        let isNotNull = definition.isNotNull || (table.isWithoutRowid && table.key.contains(column))
        return isNotNull && definition.defaultExpression != nil && definition.kind == .ordinary
    }

    /// Whether a default in the key can give another value each time, so that what it will be is not known before.
    private var keyDefaultMayVary: Bool {
        table.key.contains { column in
            guard takesDefault(column), let text = table.columns[column].defaultExpression else { return false }
            let tokens = SQLTokens(text)
            return tokens.tokens.contains {
                if case .word = $0.kind { true } else { false }
            }
        }
    }

    private func effectiveNew(_ column: Int) -> String {
        guard takesDefault(column), let text = table.columns[column].defaultExpression else {
            return "NEW.\(name(column))"
        }
        return "coalesce(NEW.\(name(column)), \(convertedDefault(text, table.columns[column].affinity)))"
    }

    private static let defaultKeywords = [
        "NULL", "TRUE", "FALSE", "CURRENT_TIME", "CURRENT_DATE", "CURRENT_TIMESTAMP",
    ]

    /// A default as the column's affinity will store it, where it is a plain number.
    private func convertedDefault(_ text: String, _ affinity: Affinity) -> String {
        let words = SQLTokens(text)
        let tokens = words.tokens
        // A name alone is a string here and nowhere else: DEFAULT "x", DEFAULT x.
        if tokens.count == 1, let name = words.name(0), !Self.defaultKeywords.contains(where: { words.isKeyword(0, $0) }) {
            return quoteLiteral(name)
        }
        let isNumber = tokens.count <= 2 && tokens.contains { if case .literal = $0.kind { true } else { false } }
        switch affinity {
        case .text where isNumber: return "CAST(\(text) AS TEXT)"
        case .real where isNumber: return "CAST(\(text) AS REAL)"
        default: return "(\(text))"
        }
    }

    // MARK: Rows that REPLACE would remove

    /// One SELECT for each unique index: the keys of the rows that stand in the new row's way.
    private func candidateSelections() throws(BridgeError) -> [String] {
        var selections: [String] = []
        for index in table.indexes where index.isUnique {
            if index.origin == .primaryKey, keyIsExact { continue }
            var conditions: [String] = []
            for part in index.parts { conditions.append(try condition(part, of: index)) }
            // Whether the new row falls under a partial index is not asked: a row too many does no harm.
            if let predicate = index.predicate { conditions.append("(\(predicate))") }
            selections.append(selection(conditions.joined(separator: " AND ")))
        }
        if !table.keyIsRowid, let rowid = accessibleRowid {
            selections.append(selection("\(tableName).\(rowid) = NEW.\(rowid)"))
        }
        return selections
    }

    private func selection(_ condition: String) -> String {
        "SELECT \(number), \(key { "\(tableName).\($0)" }) FROM \(tableName) WHERE \(condition)"
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

    private func condition(_ part: SQLiteTable.Index.Part, of index: SQLiteTable.Index) throws(BridgeError) -> String {
        let collation = quoteIdentifier(part.collation)
        if let column = part.column, table.columns[column].kind == .ordinary {
            return "\(tableName).\(name(column)) = \(effectiveNew(column)) COLLATE \(collation)"
        }
        if let rowid = rowidName(usedBy: part) {
            throw BridgeError(
                .sourceUnsupported,
                "a unique index is computed from \(rowid), which is not known before a row is inserted",
                context: [.init(.table, table.name), .init(.detail, index.name)],
                hint: "drop the index \(index.name) for the time of the migration, or leave the table out")
        }
        if let column = part.column {
            guard newRowTakesDefaults else {
                return "\(tableName).\(name(column)) = NEW.\(name(column)) COLLATE \(collation)"
            }
            return "\(tableName).\(name(column)) = (SELECT \(name(column)) FROM \(newRow)) COLLATE \(collation)"
        }
        let expression = part.expression ?? "NULL"
        return "(\(expression)) = (SELECT \(expression) FROM \(newRow)) COLLATE \(collation)"
    }

    private var newRowTakesDefaults: Bool { table.columns.indices.contains { takesDefault($0) } }

    /// The new row as a table of that name, for expressions. Its first arm, which gives no row, lends the columns'
    /// affinities: an expression may compare a column with a literal.
    private var newRow: String {
        let plain = table.insertableColumns
        let columns = plain.map { "\(name($0)) AS \(name($0))" }.joined(separator: ", ")
        let values = plain.map { "\(effectiveNew($0)) AS \(name($0))" }.joined(separator: ", ")
        var row = "(SELECT \(columns) FROM \(tableName) WHERE 0 UNION ALL SELECT \(values)) AS \(tableName)"
        for column in generatedInOrder {
            let expression = table.columns[column].generatedAs ?? "NULL"
            row = "(SELECT *, (\(expression)) AS \(name(column)) FROM \(row)) AS \(tableName)"
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

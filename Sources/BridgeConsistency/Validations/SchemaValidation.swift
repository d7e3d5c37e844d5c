import BridgeCore

/// `schemas`, for one table: the columns that travel, the order of the key, sequences and extensions.
struct SchemaValidation {
    let pair: StructurePair
    let isSyncing: Bool

    func compare(_ findings: inout StructureFindings) {
        compareSelection(&findings)
        for column in pair.columns {
            guard let other = pair.targetColumn(column.name) else {
                let sentence = "\(pair.label): the target has no column \(column.name)"
                if !pair.isSameEngine, column.generation != nil {
                    findings.note(sentence + ", which is computed by the source")
                } else {
                    findings.fail(sentence)
                }
                continue
            }
            compare(column, other, &findings)
        }
        comparePrimaryKey(&findings)
        compareOptions(&findings)
        compareSequences(&findings)
        compareExtensions(&findings)
    }

    private func compareSelection(_ findings: inout StructureFindings) {
        for name in pair.mapping.columns ?? [] where pair.sourceColumn(name) == nil {
            findings.fail("\(pair.label): the source has no column \(name)")
        }
    }

    // MARK: Columns

    private func compare(_ column: ColumnSchema, _ other: ColumnSchema, _ findings: inout StructureFindings) {
        let label = "\(pair.label): column \(column.name)"
        compareType(column, other, label, &findings)
        if pair.isSameEngine {
            if column.isNotNull != other.isNotNull { failNotNull(column, label, &findings) }
            compareTexts(column, other, label, &findings)
            return
        }
        let isKey = [pair.source.schema.primaryKey, pair.target.schema.primaryKey].allSatisfy {
            pair.keys($0).contains(pair.key(column.name))
        }
        guard column.generation == nil, other.generation == nil else {
            if (column.generation == nil) != (other.generation == nil) {
                findings.note("\(label) is computed on one side only")
            }
            return
        }
        // What names a row is never NULL, whether it is written down or not.
        if column.isNotNull != other.isNotNull, !isKey { failNotNull(column, label, &findings) }
        compareDefaultPresence(column, other, label, &findings)
        if pair.collation(nil, column) != pair.collation(nil, other) {
            findings.note("\(label) is compared by collation \(both(column.collation, other.collation))")
        }
    }

    private func failNotNull(_ column: ColumnSchema, _ label: String, _ findings: inout StructureFindings) {
        findings.fail("\(label) is NOT NULL on the \(column.isNotNull ? "source" : "target") only")
    }

    private func compareType(
        _ column: ColumnSchema, _ other: ColumnSchema, _ label: String, _ findings: inout StructureFindings
    ) {
        if !pair.isSameEngine, column.type == .dynamic {
            findings.note("\(label) holds values of more than one type")
            return
        }
        let isEqual: Bool
        if pair.isSameEngine {
            let (a, b) = (pair.text(column.typeName), pair.text(other.typeName))
            isEqual = pair.source.schema.engine == .sqliteEngine ? a.lowercased() == b.lowercased() : a == b
        } else if pair.target.schema.engine == .sqliteEngine {
            let fit = TypeTable.fit(
                declared: other.typeName, isStrict: pair.target.schema.options.contains("STRICT"), column.type)
            if fit == .byValue {
                findings.note("\(label) has type \(both(column.typeName, other.typeName)): a value that it would change stops the link")
            }
            isEqual = fit != .nothing
        } else {
            isEqual = TypeTable.holds(other.type, column.type)
        }
        guard !isEqual else { return }
        findings.fail("\(label) has type \(both(column.typeName, other.typeName))")
    }

    private func both(_ source: String?, _ target: String?) -> String {
        func name(_ text: String?) -> String { text.flatMap { $0.isEmpty ? nil : $0 } ?? "none" }
        return "\(name(source)) on the source and \(name(target)) on the target"
    }

    private func compareTexts(
        _ column: ColumnSchema, _ other: ColumnSchema, _ label: String, _ findings: inout StructureFindings
    ) {
        let defaults = (column.defaultExpression.map(pair.text), other.defaultExpression.map(pair.text))
        // A sequence is named after its table; whether there is one is asked elsewhere.
        let areNumbered = isNumbering(defaults.0) && isNumbering(defaults.1)
        if defaults.0 != defaults.1, !areNumbered, column.generation == nil || other.generation == nil {
            findings.fail("\(label) has default \(both(defaults.0, defaults.1))")
        }
        if generation(column) != generation(other) {
            findings.fail("\(label) is generated differently on the two sides")
        }
        if column.identity != other.identity {
            findings.fail("\(label) is an identity column differently on the two sides")
        }
        if pair.collation(nil, column) != pair.collation(nil, other) {
            findings.fail("\(label) has collation \(both(column.collation, other.collation))")
        }
    }

    private func generation(_ column: ColumnSchema) -> String {
        switch column.generation {
        case .stored(let expression): "stored \(pair.text(expression))"
        case .virtual(let expression): "virtual \(pair.text(expression))"
        case nil: ""
        }
    }

    private func isNumbering(_ expression: String?) -> Bool { expression?.hasPrefix("nextval(") ?? false }

    private func compareDefaultPresence(
        _ column: ColumnSchema, _ other: ColumnSchema, _ label: String, _ findings: inout StructureFindings
    ) {
        func hasDefault(_ column: ColumnSchema) -> Bool {
            guard let text = column.defaultExpression, !isNumbering(text) else { return false }
            return text.lowercased() != "null" && !text.lowercased().hasPrefix("null::")
        }
        switch (hasDefault(column), hasDefault(other)) {
        case (true, false):
            // SQLite numbers an integer that is the whole key by itself.
            let isRow = pair.source.schema.primaryKey == [column.name]
            if TypeTable.isLiteral(column.defaultExpression ?? "", column.type), !isRow {
                findings.fail("\(label) has a default on the source only")
            } else {
                findings.note("\(label) has a default on the source only, which the target may not be able to express")
            }
        case (false, true): findings.fail("\(label) has a default on the target only")
        default: break
        }
    }

    // MARK: The table

    private func comparePrimaryKey(_ findings: inout StructureFindings) {
        let (a, b) = (pair.source.schema.primaryKey, pair.target.schema.primaryKey)
        guard pair.keys(a) != pair.keys(b) else { return }
        guard pair.travels(a) else {
            return findings.note("\(pair.label): not all columns of the primary key travel")
        }
        // Whether there is one is a constraint's business, where constraints were told.
        let isTold = (pair.source.constraints + pair.target.constraints).contains { $0.kind == .primaryKey }
        if a.isEmpty || b.isEmpty, isTold { return }
        func list(_ names: [String]) -> String { names.isEmpty ? "none" : "(\(names.joined(separator: ", ")))" }
        findings.fail("\(pair.label): the primary key is \(list(a)) on the source and \(list(b)) on the target")
    }

    private func compareOptions(_ findings: inout StructureFindings) {
        guard pair.isSameEngine else { return }
        // AUTOINCREMENT is its column's identity.
        let (a, b) = (pair.source.schema.options, pair.target.schema.options)
        for option in Set(a).symmetricDifference(b).sorted() where option != "AUTOINCREMENT" {
            let sentence = "\(pair.label): the table is \(option) on the \(a.contains(option) ? "source" : "target") only"
            // What names a row in the log is a matter of each side's capture, and says nothing of its rows.
            if option.hasPrefix("REPLICA IDENTITY") { findings.note(sentence) } else { findings.fail(sentence) }
        }
    }

    private func compareSequences(_ findings: inout StructureFindings) {
        let numbersItself = !pair.isSameEngine && pair.target.schema.engine == .sqliteEngine
        for sequence in pair.source.sequences where pair.travels([sequence.column]) {
            let label = "\(pair.label): the sequence of column \(sequence.column)"
            guard let other = pair.target.sequences.first(where: { pair.key($0.column) == pair.key(sequence.column) })
            else {
                if numbersItself {
                    findings.note("\(label) has no counterpart: the target numbers rows by itself")
                } else {
                    findings.fail("\(label) has no counterpart on the target")
                }
                continue
            }
            if sequence.increment != other.increment, pair.isSameEngine {
                findings.fail("\(label) counts by \(sequence.increment) on the source and by \(other.increment) on the target")
            }
            guard isBehind(sequence, other) else { continue }
            let sentence = "\(label) is behind the source's on the target"
            if isSyncing { findings.warn(sentence) } else { findings.fail(sentence) }
        }
        for sequence in pair.target.sequences where pair.isSameEngine && pair.targetOnly(sequence) {
            findings.fail("\(pair.label): column \(sequence.column) draws from a sequence on the target only")
        }
    }

    private func isBehind(_ source: TableFacts.Sequence, _ target: TableFacts.Sequence) -> Bool {
        guard let last = source.lastValue else { return false }
        guard let reached = target.lastValue else { return true }
        return source.increment < 0 ? reached > last : reached < last
    }

    private func compareExtensions(_ findings: inout StructureFindings) {
        for (name, version) in pair.source.extensions.sorted(by: { $0.key < $1.key }) {
            let other = pair.target.extensions[name]
            guard other != version else { continue }
            let sentence =
                "\(pair.label): extension \(name) has version \(version) on the source and \(other ?? "none") on the target"
            if pair.isSameEngine { findings.fail(sentence) } else { findings.note(sentence) }
        }
    }
}

extension StructurePair {
    /// Whether the source's column of the same name, which travels, draws from no sequence.
    fileprivate func targetOnly(_ sequence: TableFacts.Sequence) -> Bool {
        columns.contains { key($0.name) == key(sequence.column) }
            && !source.sequences.contains { key($0.column) == key(sequence.column) }
    }
}

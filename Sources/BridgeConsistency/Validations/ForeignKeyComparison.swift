import BridgeCore

/// The foreign keys of one table. What they refer to goes by the migration's names for it.
struct ForeignKeyComparison {
    let pair: StructurePair
    let all: [StructurePair]

    func compare(_ findings: inout StructureFindings) {
        var rest = pair.target.schema.foreignKeys
        for key in pair.source.schema.foreignKeys where pair.travels(key.columns) {
            let label = self.label(key)
            let isEqual = { (other: ForeignKeySchema) in pair.keys(other.columns) == pair.keys(key.columns) }
            // A column may have two keys: the one that is the same in everything goes first.
            let place = rest.firstIndex { isEqual($0) && self.differences(key, $0).isEmpty } ?? rest.firstIndex(where: isEqual)
            guard let place else {
                if isExpected(key) {
                    findings.fail("\(label) has no counterpart on the target")
                } else {
                    findings.note("\(label) has no counterpart: not all of what it refers to is part of the migration")
                }
                continue
            }
            let other = rest.remove(at: place)
            let differences = self.differences(key, other)
            if !differences.isEmpty {
                findings.fail("\(label) differs on the target in \(differences.joined(separator: ", "))")
            }
            compareValidity(key, other, label, &findings)
        }
        for key in rest { findings.fail("\(label(key)) is on the target only and can refuse rows") }
        compareUndescribed(&findings)
    }

    /// Keys that stand among the constraints, but that the description of the table does not have.
    private func compareUndescribed(_ findings: inout StructureFindings) {
        func undescribed(_ facts: TableFacts) -> [TableFacts.Constraint] {
            facts.constraints.filter { constraint in
                constraint.kind == .foreignKey
                    && !facts.schema.foreignKeys.contains { pair.keys($0.columns) == pair.keys(constraint.columns) }
            }
        }
        func text(_ constraint: TableFacts.Constraint) -> String { CatalogText.withoutValidity(constraint.definition) }
        let (sources, targets) = (undescribed(pair.source), undescribed(pair.target))
        for key in sources where pair.travels(key.columns) && !targets.contains(where: { text($0) == text(key) }) {
            findings.fail("\(label(key.name, key.columns)) has no counterpart on the target")
        }
        for key in targets where !sources.contains(where: { text($0) == text(key) }) {
            findings.fail("\(label(key.name, key.columns)) is on the target only and can refuse rows")
        }
    }

    private func label(_ key: ForeignKeySchema) -> String { label(key.name, key.columns) }

    private func label(_ name: String?, _ columns: [String]) -> String {
        "\(pair.label): foreign key \(name ?? "(\(columns.joined(separator: ", ")))")"
    }

    /// The table that a key of the source refers to, if it takes part.
    private func parent(of key: ForeignKeySchema) -> StructurePair? {
        all.first { isSame($0.source.schema.name, key.referencedTable) || isSame($0.mapping.source, key.referencedTable) }
    }

    private func isExpected(_ key: ForeignKeySchema) -> Bool {
        guard let parent = parent(of: key) else { return false }
        return parent.travels(key.referencedColumns.isEmpty ? parent.source.schema.primaryKey : key.referencedColumns)
    }

    /// Names without a schema are the same in whatever schema.
    private func isSame(_ a: TableName, _ b: TableName) -> Bool {
        guard pair.key(a.name) == pair.key(b.name) else { return false }
        guard let x = a.schema, let y = b.schema else { return true }
        return x == y
    }

    private func differences(_ a: ForeignKeySchema, _ b: ForeignKeySchema) -> [String] {
        var words: [String] = []
        if let parent = parent(of: a) {
            let names = [parent.target.schema.name, parent.mapping.target]
            if !names.contains(where: { isSame($0, b.referencedTable) }) { words.append("the table that it refers to") }
            let from = a.referencedColumns.isEmpty ? parent.source.schema.primaryKey : a.referencedColumns
            let to = b.referencedColumns.isEmpty ? parent.target.schema.primaryKey : b.referencedColumns
            if pair.keys(from) != pair.keys(to) { words.append("the columns that it refers to") }
        }
        if a.onDelete.uppercased() != b.onDelete.uppercased() { words.append("ON DELETE") }
        if a.onUpdate.uppercased() != b.onUpdate.uppercased() { words.append("ON UPDATE") }
        if a.isDeferrable != b.isDeferrable || a.isInitiallyDeferred != b.isInitiallyDeferred {
            words.append("when it is asked")
        }
        if pair.isSameEngine, matchesFull(a, pair.source) != matchesFull(b, pair.target) { words.append("MATCH FULL") }
        return words
    }

    private func fact(_ key: ForeignKeySchema, _ facts: TableFacts) -> TableFacts.Constraint? {
        let keys = facts.constraints.filter { $0.kind == .foreignKey }
        return keys.first { $0.name != nil && $0.name == key.name }
            ?? keys.first { pair.keys($0.columns) == pair.keys(key.columns) }
    }

    private func matchesFull(_ key: ForeignKeySchema, _ facts: TableFacts) -> Bool {
        fact(key, facts).map { CatalogText.singleSpaced($0.definition).contains("MATCH FULL") } ?? false
    }

    private func compareValidity(
        _ key: ForeignKeySchema, _ other: ForeignKeySchema, _ label: String, _ findings: inout StructureFindings
    ) {
        let isValidated = fact(key, pair.source)?.isValidated ?? true
        let isTargetValidated = fact(other, pair.target)?.isValidated ?? true
        if isValidated, !isTargetValidated { findings.fail("\(label) is not validated on the target") }
        if !isValidated, isTargetValidated { findings.note("\(label) is validated on the target only") }
    }
}

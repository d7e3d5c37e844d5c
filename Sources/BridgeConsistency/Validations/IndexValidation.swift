import BridgeCore

/// `indexes`, for one table: every index of the source has one on the target that does the same, whatever its name.
struct IndexValidation {
    let pair: StructurePair

    func compare(_ findings: inout StructureFindings) {
        let targets = pair.target.indexes
        for index in pair.source.indexes where isAskedFor(index, &findings) { find(index, targets, &findings) }
        for index in targets where index.schema.isUnique && !pair.target.isOwned(index.schema) {
            // Across engines collations are no part of being equal.
            let isMatched =
                (pair.isSameEngine || !pair.isLax(index.schema))
                && pair.source.indexes.contains { isEqual($0.schema, index.schema) }
            if !isMatched, !pair.isImplied(index.schema) {
                findings.fail(
                    "\(pair.label): the target's unique index \(index.schema.name) can refuse rows that the source takes")
            }
        }
    }

    private func label(_ index: TableFacts.Index) -> String { "\(pair.label): index \(index.schema.name)" }

    private func isAskedFor(_ index: TableFacts.Index, _ findings: inout StructureFindings) -> Bool {
        let schema = index.schema
        guard !pair.source.isOwned(schema), pair.travels(schema.parts.compactMap(\.column)) else { return false }
        let texts = schema.parts.compactMap(\.expression) + [schema.predicate].compactMap { $0 }
        guard !texts.contains(where: pair.mentionsStaying) else { return false }
        guard index.isValid else {
            findings.note("\(label(index)) is not valid on the source, so that none is asked for")
            return false
        }
        return true
    }

    private func find(_ index: TableFacts.Index, _ targets: [TableFacts.Index], _ findings: inout StructureFindings) {
        let equal = targets.filter { isEqual(index.schema, $0.schema) }
        if equal.contains(where: \.isValid) { return }
        if let broken = equal.first {
            return findings.fail("\(label(index)): the target's \(broken.schema.name) is not valid")
        }
        if !pair.isSameEngine, let reason = inexpressible(index.schema) {
            return findings.note("\(label(index)) has no counterpart on the target: \(reason)")
        }
        guard let near = targets.first(where: { parts($0.schema) == parts(index.schema) })
        else { return findings.fail("\(label(index)) has no counterpart on the target") }
        findings.fail("\(label(index)) and the target's \(near.schema.name) differ in \(difference(index.schema, near.schema))")
    }

    private func difference(_ a: IndexSchema, _ b: IndexSchema) -> String {
        if a.isUnique != b.isUnique { return "uniqueness" }
        if !isPredicateEqual(a, b) { return "their condition" }
        return "kind or options"
    }

    private func isEqual(_ a: IndexSchema, _ b: IndexSchema) -> Bool {
        a.isUnique == b.isUnique && parts(a) == parts(b) && isPredicateEqual(a, b)
            && areDetailsEqual(a, b)
    }

    private func parts(_ index: IndexSchema) -> [String] {
        index.parts.map { part in
            var text = part.column.map { "column \(pair.key($0))" } ?? "expression \(pair.text(part.expression ?? ""))"
            if part.isDescending { text += " descending" }
            if pair.isSameEngine { text += " " + pair.collation(part, nil) }
            return text
        }
    }

    private func isPredicateEqual(_ a: IndexSchema, _ b: IndexSchema) -> Bool {
        guard pair.isSameEngine else { return (a.predicate == nil) == (b.predicate == nil) }
        return a.predicate.map(pair.text) == b.predicate.map(pair.text)
    }

    private func areDetailsEqual(_ a: IndexSchema, _ b: IndexSchema) -> Bool {
        guard pair.isSameEngine else { return true }
        if CatalogText.nullsAreOneValue(a.definition) != CatalogText.nullsAreOneValue(b.definition) { return false }
        // The index of a constraint has the constraint's text, which says no more than the parts.
        guard let x = a.definition.map(pair.text).flatMap(IndexText.init),
            let y = b.definition.map(pair.text).flatMap(IndexText.init)
        else { return true }
        return x == y
    }

    /// Why the other engine may not be able to have the index; nil if it can.
    private func inexpressible(_ index: IndexSchema) -> String? {
        if index.parts.contains(where: { $0.column == nil }) { return "it is over an expression of the source's dialect" }
        if let method = index.definition.flatMap(IndexText.init)?.method, method != "btree", method != "hash" {
            return "it is of the kind \(method)"
        }
        let generated = index.parts.contains { $0.column.flatMap(pair.sourceColumn)?.generation != nil }
        if generated { return "it is over a computed column" }
        if let predicate = index.predicate, !pair.isPlain(predicate) { return "its condition is of the source's dialect" }
        return nil
    }
}

extension StructurePair {
    /// Whether every engine reads a condition of the source the same.
    func isPlain(_ condition: String) -> Bool {
        CatalogText.isPlainCondition(condition) { name in
            switch sourceColumn(name)?.type {
            case .int16, .int32, .int64, .float32, .float64: sourceColumn(name)?.generation == nil
            default: false
            }
        }
    }
}

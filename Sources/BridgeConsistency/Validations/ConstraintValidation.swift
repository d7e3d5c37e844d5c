import BridgeCore

/// `constraints`, for one table: each one of the source has one on the target that asks the same, whatever its name, and
/// the target has no other that could refuse a row.
struct ConstraintValidation {
    let pair: StructurePair
    let all: [StructurePair]

    typealias Constraint = TableFacts.Constraint

    func compare(_ findings: inout StructureFindings) {
        comparePrimaryKey(&findings)
        compareUnique(&findings)
        compareChecks(&findings)
        ForeignKeyComparison(pair: pair, all: all).compare(&findings)
        compareExclusions(&findings)
        compareNotNull(&findings)
    }

    /// Those of a kind that are about columns which travel alone.
    private func wanted(_ kind: Constraint.Kind) -> [Constraint] {
        pair.source.constraints.filter { constraint in
            constraint.kind == kind && pair.travels(constraint.columns)
                && !((kind == .check || kind == .exclusion) && pair.mentionsStaying(constraint.definition))
        }
    }

    private func present(_ kind: Constraint.Kind) -> [Constraint] { pair.target.constraints.filter { $0.kind == kind } }

    // MARK: Keys

    private func comparePrimaryKey(_ findings: inout StructureFindings) {
        let (a, b) = (wanted(.primaryKey).first, present(.primaryKey).first)
        let isPartial = pair.source.constraints.contains { $0.kind == .primaryKey } && a == nil
        switch (a, b) {
        case (let a?, let b?):
            // Other columns are other schemas, unless only the constraints know them.
            let isTold = pair.source.schema.primaryKey.isEmpty || pair.target.schema.primaryKey.isEmpty
            if isTold, pair.keys(a.columns) != pair.keys(b.columns) {
                findings.fail("\(pair.label): the primary keys are over other columns")
            }
            compareConduct(a, b, &findings)
        case (.some, nil) where pair.target.schema.primaryKey.isEmpty:
            findings.fail("\(pair.label): the target has no primary key")
        case (nil, .some) where pair.source.schema.primaryKey.isEmpty && !isPartial:
            findings.fail("\(pair.label): the target has a primary key that the source does not have")
        // One engine keeps the key as a constraint, the other as a property of the table: within one engine that is odd.
        case (.some, nil) where pair.isSameEngine: findings.fail("\(pair.label): the target has no primary key")
        case (nil, .some) where pair.isSameEngine && !isPartial:
            findings.fail("\(pair.label): the target has a primary key that the source does not have")
        default: break
        }
    }

    private func compareUnique(_ findings: inout StructureFindings) {
        let targets = present(.unique)
        for constraint in wanted(.unique) {
            let columns = pair.keys(constraint.columns)
            if let other = targets.first(where: { pair.keys($0.columns) == columns }) {
                compareConduct(constraint, other, &findings)
                continue
            }
            let hasIndex = pair.target.indexes.contains { index in
                index.schema.isUnique && index.isValid && index.schema.predicate == nil
                    && pair.keys(index.schema.parts.compactMap(\.column)) == columns
                    && index.schema.parts.count == columns.count
            }
            let isKey = pair.keys(pair.target.schema.primaryKey) == columns
            if !pair.isSameEngine, hasIndex || isKey { continue }
            findings.fail(
                "\(label(constraint)) has no counterpart on the target" + (hasIndex ? ", only a unique index" : ""))
        }
        for constraint in targets {
            let columns = pair.keys(constraint.columns)
            if wanted(.unique).contains(where: { pair.keys($0.columns) == columns }) { continue }
            let index = pair.target.indexes.first { index in
                index.schema.constraintName.map { $0 == constraint.name } ?? false
            }
            let parts = constraint.columns.map { IndexSchema.Part(column: $0) }
            let asIndex =
                index?.schema ?? IndexSchema(name: "", parts: parts, isUnique: true, definition: constraint.definition)
            if !pair.isImplied(asIndex) {
                findings.fail("\(label(constraint)) is on the target only and can refuse rows")
            }
        }
    }

    /// When two constraints are asked, and whether they hold for all rows.
    private func compareConduct(_ a: Constraint, _ b: Constraint, _ findings: inout StructureFindings) {
        if pair.isSameEngine {
            let differ =
                CatalogText.deferral(a.definition) != CatalogText.deferral(b.definition)
                || CatalogText.nullsAreOneValue(a.definition) != CatalogText.nullsAreOneValue(b.definition)
            if differ { findings.fail("\(label(a)) is asked in another way on the target") }
        }
        compareValidity(label(a), a.isValidated, b.isValidated, &findings)
    }

    // MARK: Conditions

    private func compareChecks(_ findings: inout StructureFindings) {
        var rest = present(.check)
        var unmatched: [Constraint] = []
        for constraint in wanted(.check) {
            guard let place = rest.firstIndex(where: { isEqualCheck(constraint, $0) }) else {
                unmatched.append(constraint)
                continue
            }
            compareValidity(label(constraint), constraint.isValidated, rest.remove(at: place).isValidated, &findings)
        }
        for constraint in unmatched {
            if let place = rest.firstIndex(where: { isNear(constraint, $0) }) {
                findings.fail("\(label(constraint)) has another condition on the target")
                rest.remove(at: place)
            } else if !pair.isSameEngine, !pair.isPlain(condition(constraint)) {
                findings.note("\(label(constraint)) has no counterpart: its condition is of the source's dialect")
            } else {
                findings.fail("\(label(constraint)) has no counterpart on the target")
            }
        }
        for constraint in rest { findings.fail("\(label(constraint)) is on the target only and can refuse rows") }
    }

    private func isEqualCheck(_ a: Constraint, _ b: Constraint) -> Bool {
        guard pair.isSameEngine else {
            return isNear(a, b) || (!columns(a).isEmpty && columns(a) == columns(b))
        }
        return text(a) == text(b)
    }

    /// The columns that a condition is about; not every catalog tells.
    private func columns(_ constraint: Constraint) -> Set<String> {
        let words = constraint.columns + CatalogText.words(constraint.definition)
        return Set(words.map(pair.key)).intersection(pair.source.schema.columns.map { pair.key($0.name) })
    }

    private func isNear(_ a: Constraint, _ b: Constraint) -> Bool { a.name != nil && a.name == b.name }

    private func text(_ constraint: Constraint) -> String {
        pair.text(CatalogText.withoutValidity(constraint.definition))
    }

    /// Without the word CHECK.
    private func condition(_ constraint: Constraint) -> String {
        let text = CatalogText.withoutValidity(constraint.definition)
        return text.uppercased().hasPrefix("CHECK") ? String(text.dropFirst("CHECK".count)) : text
    }

    private func compareExclusions(_ findings: inout StructureFindings) {
        var rest = present(.exclusion)
        for constraint in wanted(.exclusion) {
            let text = text(constraint)
            if let place = rest.firstIndex(where: { self.text($0) == text }) {
                rest.remove(at: place)
            } else if pair.isSameEngine {
                findings.fail("\(label(constraint)) has no counterpart on the target")
            } else {
                findings.note("\(label(constraint)) has no counterpart: the target has no such constraints")
            }
        }
        for constraint in rest { findings.fail("\(label(constraint)) is on the target only and can refuse rows") }
    }

    /// Whether a column is NOT NULL is said by `schemas`; here is asked whether it was proven for all rows.
    private func compareNotNull(_ findings: inout StructureFindings) {
        guard pair.isSameEngine else { return }
        func agrees(_ constraint: Constraint) -> Bool {
            constraint.columns.allSatisfy { pair.sourceColumn($0)?.isNotNull == pair.targetColumn($0)?.isNotNull }
        }
        func same(_ a: Constraint, _ b: Constraint) -> Bool { pair.keys(a.columns) == pair.keys(b.columns) }
        let (sources, targets) = (wanted(.notNull), present(.notNull))
        for constraint in sources where agrees(constraint) {
            if let other = targets.first(where: { same(constraint, $0) }) {
                compareValidity(label(constraint), constraint.isValidated, other.isValidated, &findings)
            } else {
                findings.fail("\(label(constraint)) has no counterpart on the target")
            }
        }
        for constraint in targets where agrees(constraint) && pair.travels(constraint.columns) {
            let isKnown = constraint.columns.allSatisfy { pair.sourceColumn($0) != nil }
            if isKnown, !sources.contains(where: { same($0, constraint) }) {
                findings.fail("\(label(constraint)) is on the target only and can refuse rows")
            }
        }
    }

    private func compareValidity(_ label: String, _ a: Bool, _ b: Bool, _ findings: inout StructureFindings) {
        if a, !b { findings.fail("\(label) is not validated on the target") }
        if !a, b { findings.note("\(label) is validated on the target only") }
    }

    private func label(_ constraint: Constraint) -> String {
        let words: [Constraint.Kind: String] = [
            .primaryKey: "primary key", .unique: "unique constraint", .check: "check", .foreignKey: "foreign key",
            .exclusion: "exclusion constraint", .notNull: "not null constraint",
        ]
        let name = constraint.name ?? "(\(constraint.columns.joined(separator: ", ")))"
        return "\(pair.label): \(words[constraint.kind] ?? "constraint") \(name)"
    }
}

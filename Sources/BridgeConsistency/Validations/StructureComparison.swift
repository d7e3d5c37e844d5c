package import BridgeCore

/// The three validations that look at tables rather than at rows: `schemas`, `indexes` and `constraints`.
///
/// Each difference belongs to one of them. What two could claim is divided so: NOT NULL of a column and the order of a
/// primary key's columns are `schemas`, whether there is a primary key is `constraints`; an index that a UNIQUE or
/// EXCLUDE constraint owns is `constraints`, every other one `indexes`.
///
/// Between tables of one engine the texts of the catalog are compared, without the schemas in them. Across engines the
/// structure is: types by the type table, defaults by presence, indexes by columns, order and uniqueness, checks by the
/// columns that they are about. What the other engine may not be able to express is a *note*, which fails nothing:
/// - text and decimals in an SQLite column with a number's affinity, of which the applier stores those that stay what they are,
/// - defaults other than literals, generated columns, collations, extensions, exclusion constraints,
/// - sequences and the values they are at, where the target numbers rows by itself (SQLite),
/// - indexes over expressions, of a kind other than B-tree or hash, and conditions (of partial indexes and of CHECK) made
///   of more than numeric columns, numbers, comparisons, AND, OR, NOT and IS NULL,
/// - foreign keys to tables that are not part of the migration (also within one engine).
///
/// What is about a column that does not travel is not asked for.
package struct StructureComparison: Sendable {
    private let mappings: [TableMapping]
    private let source: [TableFacts?]
    private let target: [TableFacts?]
    /// Whether changes still flow, so that the target's sequences may be behind.
    private let isSyncing: Bool

    /// - Parameters:
    ///   - source: facts in the order of the mappings, nil for a table that is not there.
    ///   - target: the same for the target.
    package init(mappings: [TableMapping], source: [TableFacts?], target: [TableFacts?], isSyncing: Bool = true) {
        self.mappings = mappings
        self.source = source
        self.target = target
        self.isSyncing = isSyncing
    }

    /// `schemas`, `indexes`, `constraints`, in this order.
    package func validations() -> [CheckReport.Validation] { [schemas(), indexes(), constraints()] }

    package func schemas() -> CheckReport.Validation {
        var findings = StructureFindings()
        for (place, mapping) in mappings.enumerated() {
            for (side, facts) in [("source", source), ("target", target)] where fact(facts, place) == nil {
                let name = side == "source" ? mapping.source : mapping.target
                findings.fail("\(name): the \(side) has no such table")
            }
        }
        for pair in pairs { SchemaValidation(pair: pair, isSyncing: isSyncing).compare(&findings) }
        return findings.validation(.schemas)
    }

    package func indexes() -> CheckReport.Validation {
        var findings = StructureFindings()
        noteMissing("indexes", &findings)
        for pair in pairs { IndexValidation(pair: pair).compare(&findings) }
        return findings.validation(.indexes)
    }

    package func constraints() -> CheckReport.Validation {
        var findings = StructureFindings()
        noteMissing("constraints", &findings)
        let pairs = pairs
        for pair in pairs { ConstraintValidation(pair: pair, all: pairs).compare(&findings) }
        return findings.validation(.constraints)
    }

    /// A table that is not there fails `schemas`; the others cannot be told.
    private func noteMissing(_ what: String, _ findings: inout StructureFindings) {
        for (place, mapping) in mappings.enumerated() where fact(source, place) == nil || fact(target, place) == nil {
            findings.undecided("\(mapping.source): its \(what) cannot be compared, because a side does not have the table")
        }
    }

    private func fact(_ facts: [TableFacts?], _ place: Int) -> TableFacts? {
        facts.indices.contains(place) ? facts[place] : nil
    }

    private var pairs: [StructurePair] {
        mappings.enumerated().compactMap { place, mapping in
            guard let source = fact(source, place), let target = fact(target, place) else { return nil }
            return StructurePair(mapping: mapping, source: source, target: target)
        }
    }
}

/// What a validation finds, gravest first.
struct StructureFindings {
    /// More help nobody; the number of the rest does.
    static let limit = 200

    private var failures: [String] = []
    private var doubts: [String] = []
    private var notes: [String] = []

    mutating func fail(_ sentence: String) { failures.append(sentence) }
    mutating func undecided(_ sentence: String) { doubts.append(sentence) }
    mutating func note(_ sentence: String) { notes.append("note: \(sentence)") }
    mutating func warn(_ sentence: String) { notes.insert("warning: \(sentence)", at: 0) }

    func validation(_ name: CheckReport.ValidationName) -> CheckReport.Validation {
        var findings = failures + doubts + notes
        if findings.count > Self.limit {
            let rest = findings.count - Self.limit
            findings = Array(findings.prefix(Self.limit)) + ["and \(rest) more"]
        }
        let status: CheckReport.Validation.Status =
            !failures.isEmpty ? .failed : !doubts.isEmpty ? .inconclusive : .passed
        return CheckReport.Validation(name: name, status: status, findings: findings)
    }
}

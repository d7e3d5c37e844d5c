import BridgeCore

/// How one relation's row images go into one target table: made once, when the relation is first used.
struct RelationPlan: Sendable {
    /// What the hot path needs of one column of the relation.
    struct Column: Sendable {
        /// The parameter of the new value, counted from 1; 0 if the column is not carried.
        let parameter: Int32
        /// The parameter of the old value.
        let oldParameter: Int32
        /// The column's place among the carried ones.
        let number: Int
        let isKey: Bool
        let rule: ColumnRule
    }

    let relation: Relation
    let target: TargetTable
    let columns: [Column]
    let text: StatementText
    /// Which of the target's rows are the link's; nil if all are. See ``TableMapping/targetFilter``.
    let filter: String?
    /// Whether rows are named by all their columns.
    let matchesWholeRow: Bool
    /// Every carried column; and those that an update sets whose key did not change.
    let allColumns: ColumnSet
    let columnsBesideKey: ColumnSet

    /// - Throws: `schemaChanged` for a column that the target lacks, `targetTableMismatch` for one that would change the
    ///   values or for a key that the target does not keep unique.
    init(
        _ relation: Relation, mapping: TableMapping, target: TargetTable, isWayBack: Bool = false
    ) throws(BridgeError) {
        self.relation = relation
        self.target = target
        filter = mapping.targetFilter
        matchesWholeRow = relation.identity == .full
        let pairing = ColumnPairing(relation, mapping: mapping, target: target, isWayBack: isWayBack)
        if let obstacle = pairing.obstacles.first(where: { $0.finding.severity == .blocking }) { throw obstacle.error }

        let carried = pairing.pairs.compactMap { $0 }
        let usesKey = relation.identity == .key
        text = StatementText(
            table: target.quoted,
            columns: carried.map { pair in
                StatementText.Column(
                    name: target.table.columns[pair.target].name, isKey: usesKey && pair.isKey,
                    equalityIsExact: target.equalityIsExact(pair.target),
                    hasBinaryCollation: target.hasBinaryCollation(pair.target))
            },
            rowidName: target.rowidName)
        var number = 0
        columns = pairing.pairs.map { pair in
            guard let pair else {
                return Column(parameter: 0, oldParameter: 0, number: 0, isKey: false, rule: .nothing)
            }
            defer { number += 1 }
            return Column(
                parameter: Int32(number + 1), oldParameter: Int32(carried.count + number + 1), number: number,
                isKey: usesKey && pair.isKey, rule: pair.rule)
        }
        allColumns = ColumnSet(carried.indices)
        columnsBesideKey = ColumnSet(carried.indices.filter { !(usesKey && carried[$0].isKey) })
    }

    /// For errors.
    var tableContext: [ErrorContext] { [.init(.table, target.name)] }
}

extension ColumnRule {
    static let nothing = ColumnRule(accepted: [], keepsNegativeZero: true)

    fileprivate init(accepted: CellClasses, keepsNegativeZero: Bool) {
        self.accepted = accepted
        self.keepsNegativeZero = keepsNegativeZero
    }
}

/// Which source column goes into which target column, and what stands in the way. Preflight reports the findings, the
/// applier and the load stop at the first.
struct ColumnPairing {
    struct Pair: Sendable {
        /// The column's place in the target table.
        let target: Int
        let isKey: Bool
        let rule: ColumnRule
    }

    /// Something that stands in the way, with the column that it is about.
    struct Obstacle: Sendable {
        let finding: Finding
        let column: String?

        init(_ finding: Finding, column: String? = nil) {
            self.finding = finding
            self.column = column
        }

        var error: BridgeError {
            guard let column else { return finding.error }
            return finding.error.adding(.column, column)
        }
    }

    /// For each source column; nil where it is not carried.
    private(set) var pairs: [Pair?] = []
    private(set) var obstacles: [Obstacle] = []
    private let isWayBack: Bool
    private let relationName: TableName

    /// - Parameters:
    ///   - sourceIsStrict: known to preflight only.
    ///   - isWayBack: the target is the file that the source's values once came from.
    ///   - missing: the code for a column that the target lacks: `schemaChanged` in the stream.
    init(
        _ relation: Relation, mapping: TableMapping, target: TargetTable, sourceIsStrict: Bool = false,
        isWayBack: Bool = false, missing: ErrorCode = .schemaChanged
    ) {
        self.isWayBack = isWayBack
        relationName = relation.name
        var fed = Set<Int>()
        for column in relation.columns {
            if let wanted = mapping.columns, !wanted.contains(column.name) {
                pairs.append(nil)
                continue
            }
            guard let place = target.column(named: column.name) else {
                pairs.append(nil)
                obstacles.append(
                    Obstacle(
                        Self.missingColumn(column, target: target, relation: relation, code: missing),
                        column: column.name))
                continue
            }
            // The target computes it from the other columns, as the source did.
            guard !target.isGenerated(place) else {
                pairs.append(nil)
                continue
            }
            guard fed.insert(place).inserted else {
                pairs.append(nil)
                obstacles.append(Obstacle(Self.fedTwice(column, target: target), column: column.name))
                continue
            }
            addPair(column, place: place, relation: relation, target: target, sourceIsStrict: sourceIsStrict)
        }
        checkUnfedColumns(fed, target: target, code: missing)
        checkKey(relation, target: target)
    }

    private mutating func addPair(
        _ column: Relation.Column, place: Int, relation: Relation, target: TargetTable, sourceIsStrict: Bool
    ) {
        let source = SourceColumnType(
            isSQLite: relation.engine == .sqlite && relation.form == .native, isStrict: sourceIsStrict,
            typeName: column.typeName, type: column.type)
        let facts = target.table.columns[place]
        guard
            let rule = ColumnRule(
                source: source, target: facts, isStrict: target.table.isStrict, isRowid: target.isRowid(place),
                isWayBack: isWayBack)
        else {
            pairs.append(nil)
            obstacles.append(
                Obstacle(Self.converted(column, facts, source: source, target: target), column: facts.name))
            return
        }
        let isAlike = sourceIsStrict && foldCase(column.typeName) == foldCase(facts.declaredType)
        if source.isSQLite, rule.accepted != .all, !target.isRowid(place), !isAlike {
            // Not blocking: the values may all be of a class that fits, and each is checked.
            obstacles.append(Obstacle(Self.mayNotFit(column, facts, target: target), column: facts.name))
        }
        if let finding = textFinding(column, facts, rule, source: source, target: target) {
            obstacles.append(Obstacle(finding, column: facts.name))
        }
        pairs.append(Pair(target: place, isKey: column.isKey, rule: rule))
    }

    private mutating func checkUnfedColumns(_ fed: Set<Int>, target: TargetTable, code: ErrorCode) {
        for place in target.table.columns.indices where target.mustBeSupplied(place) && !fed.contains(place) {
            let name = target.table.columns[place].name
            obstacles.append(Obstacle(
                Finding(
                    .blocking, code,
                    what: "target column \(name) of table \(target.name) must have a value and the source has no such column",
                    why: "no row could be inserted",
                    mend: ["give column \(name) a DEFAULT, or drop its NOT NULL"], table: TableName(name: target.name)), column: name))
        }
    }

    private mutating func checkKey(_ relation: Relation, target: TargetTable) {
        switch relation.identity {
        case .nothing: return
        case .full:
            guard target.rowidName == nil, !target.table.isWithoutRowid else { return }
            obstacles.append(Obstacle(
                Finding(
                    .blocking, .targetTableMismatch,
                    what: "the columns of table \(target.name) leave no name for its rowid",
                    why: "one of several equal rows could not be told from the others",
                    mend: ["rename the column rowid, _rowid_ or oid"], table: TableName(name: target.name))))
        case .key:
            let key = Set(pairs.compactMap { $0 }.filter(\.isKey).map(\.target))
            let names = relation.columns.filter(\.isKey).map(\.name)
            guard key.count != names.count || !target.isUnique(over: key) else { return }
            // A key column that is missing was reported as missing.
            guard key.count == names.count else { return }
            let list = names.map(quoteIdentifier).joined(separator: ", ")
            obstacles.append(Obstacle(
                Finding(
                    .blocking, .targetTableMismatch,
                    what: "table \(target.name) has neither a primary key nor a unique index on exactly (\(names.joined(separator: ", ")))",
                    why: "a change names its row by these columns",
                    mend: [
                        "CREATE UNIQUE INDEX \(quoteIdentifier(target.name + "_bridge_key")) ON \(quoteIdentifier(target.name))(\(list))"
                    ], table: TableName(name: target.name))))
        }
    }
}

extension ColumnPairing {
    /// A column of numbers that gets text: which values would stop the link. Nil if none can.
    private func textFinding(
        _ column: Relation.Column, _ facts: SQLiteTable.Column, _ rule: ColumnRule, source: SourceColumnType,
        target: TargetTable
    ) -> Finding? {
        let which: String
        switch (rule.text, source.type) {
        case (.asItStands, _): return nil
        case (.unlessNumber, .timestampWithTimeZone), (.unlessNumber, .timestamp), (.unlessNumber, .date),
            (.unlessNumber, .time), (.unlessNumber, .uuid):
            // Their hyphens and colons are never a number's.
            return nil
        case (.unlessNumber, _): which = "text that reads as a number, such as '007' or '1e3',"
        case (.decimal(let rule), .numeric(let precision, _)):
            // So many digits a double keeps.
            let isExact = rule.ignoresTrailingZeros || rule.scale != nil
            if isExact, let precision, precision <= 15 { return nil }
            which = isExact ? "a number of more than 15 digits" : "a number of more than 15 digits, or with a zero at its end such as 1.10,"
        case (.decimal, _): return nil
        }
        let declared = facts.declaredType
        let mend =
            isWayBack
            ? "keep such values out of column \(column.name) of table \(relationName) until the migration is completed"
            : "declare column \(facts.name) as \(source.suitableDeclaration)"
        return Finding(
            .warning, .targetTableMismatch,
            what: "column \(facts.name) of table \(target.name), declared \(declared), holds numbers: \(which) stops the link",
            why: "SQLite would store another value without a word", mend: [mend], table: TableName(name: target.name))
    }

    private static func missingColumn(
        _ column: Relation.Column, target: TargetTable, relation: Relation, code: ErrorCode
    ) -> Finding {
        let type =
            relation.engine == .sqlite ? column.typeName : targetDeclaration(for: column.type)
        let declaration = type.isEmpty ? quoteIdentifier(column.name) : "\(quoteIdentifier(column.name)) \(type)"
        return Finding(
            .blocking, code, what: "table \(target.name) has no column \(column.name)",
            why: "the source's values would have no place",
            mend: ["ALTER TABLE \(quoteIdentifier(target.name)) ADD COLUMN \(declaration)"],
            table: TableName(name: target.name))
    }

    private static func fedTwice(_ column: Relation.Column, target: TargetTable) -> Finding {
        Finding(
            .blocking, .targetTableMismatch,
            what: "two source columns differ from \(column.name) in letter case only, which SQLite does not tell apart",
            why: "both would be written into one column of table \(target.name)",
            mend: ["leave one of them out with 'columns:'"], table: TableName(name: target.name))
    }

    private static func converted(
        _ column: Relation.Column, _ facts: SQLiteTable.Column, source: SourceColumnType, target: TargetTable
    ) -> Finding {
        let declared = facts.declaredType.isEmpty ? "without a type" : facts.declaredType
        return Finding(
            .blocking, .targetTableMismatch,
            what: "column \(facts.name) of table \(target.name), declared \(declared), would change values of type \(column.typeName)",
            why: "SQLite converts what it stores by the declared type",
            mend: ["declare column \(facts.name) as \(source.suitableDeclaration)"], table: TableName(name: target.name))
    }

    private static func mayNotFit(
        _ column: Relation.Column, _ facts: SQLiteTable.Column, target: TargetTable
    ) -> Finding {
        Finding(
            .warning, .targetTableMismatch,
            what: "column \(facts.name) of table \(target.name) is declared \(facts.declaredType), at the source \(column.typeName.isEmpty ? "without a type" : column.typeName)",
            why: "a value that SQLite would convert stops the link",
            mend: ["declare column \(facts.name) as it is at the source"], table: TableName(name: target.name))
    }
}

import BridgeCore

/// How the rows of one source relation become rows of its target table. Made anew whenever the relation changes.
final class RelationPlan {
    /// A column that is written.
    struct Column {
        /// Its place in the relation's row images.
        var imageIndex: Int
        var name: String
        var target: TargetTable.Column
        var type: TargetType
        var isKey: Bool
        /// For OPERATOR(), in key columns.
        var equalityOperator: String

        /// The column of a table's alias as an operand.
        func operand(_ alias: String) -> String { target.operand("\(alias).\(quoteIdentifier(name))") }
    }

    /// How an update or a delete finds its row.
    enum Identification {
        /// By columns that a unique index of the target holds.
        case uniqueKey
        /// By the relation's key columns, which no unique index of the target holds.
        case plainKey
        /// By all columns; of several same rows one is touched.
        case wholeRow
        /// Not at all.
        case nothing
    }

    let number: Int
    let relation: Relation
    let table: TargetTable
    /// The ``TargetShape`` of the table that the plan was made from.
    let shape: String?
    /// In the order of the relation's row images.
    let columns: [Column]
    /// For each column of a row image its place in `columns`; -1 for those that are not written.
    let columnOfImage: [Int]
    let identification: Identification
    let layout: RelationEffects.Layout
    let statements: ApplyStatements
    /// For a table with deferrable constraints: how what was written to it is found again before the commit.
    let touched: TouchedRows?
    /// Whether the staging table is known to exist in the session.
    var hasStage = false
    /// Whether the staging table holds rows of this transaction.
    var isStageDirty = false
    /// Kept from run to run, so that its storage is made once.
    private var spareEffects: RelationEffects?

    /// Empty effects for the next run.
    func takeEffects() -> RelationEffects {
        let effects = spareEffects ?? RelationEffects(layout: layout)
        spareEffects = effects
        effects.removeAll()
        return effects
    }

    /// - Throws: `schemaChanged` naming table and column when the two shapes do not fit any more.
    init(
        number: Int, relation: Relation, mapping: TableMapping, table: TargetTable, shape: String? = nil,
        isWayBack: Bool = false
    ) throws(BridgeError) {
        self.number = number
        self.relation = relation
        self.table = table
        self.shape = shape
        let (keyNames, identification) = Self.identify(relation, table)
        let index = identification == .uniqueKey ? table.uniqueIndex(on: keyNames) : nil

        var columns: [Column] = []
        var columnOfImage: [Int] = []
        for (position, source) in relation.columns.enumerated() {
            if let chosen = mapping.columns, !chosen.contains(source.name) {
                columnOfImage.append(-1)
                continue
            }
            guard let target = table.column(named: source.name) else {
                throw Self.changed("the target table lacks a column of the source", table, source.name)
            }
            if target.isGenerated {
                columnOfImage.append(-1)
                continue
            }
            if let reason = TypeCompatibility.refusal(of: source, form: relation.form, into: target) {
                throw Self.changed(reason, table, source.name)
            }
            var equality = "pg_catalog.="
            if let index, let part = index.columns?.firstIndex(of: source.name) { equality = index.operators[part] }
            columnOfImage.append(columns.count)
            // Where rows are told apart by it, 7 and 7.00 are two in the source and would be one here.
            let tellsRows = keyNames.contains(source.name) || table.uniqueIndexes.contains { $0.columns?.contains(source.name) ?? true }
            columns.append(
                Column(
                    imageIndex: position, name: source.name, target: target,
                    type: TargetType(
                        typeName: target.baseTypeName, source: relation.form == .canonical ? source : nil,
                        goesByValue: isWayBack && !tellsRows),
                    isKey: keyNames.contains(source.name),
                    equalityOperator: equality))
        }
        for target in table.columns
        where target.isNotNull && !target.hasDefault && !target.isGenerated
            && !columns.contains(where: { $0.name == target.name })
        {
            throw Self.changed("a NOT NULL column of the target has no value from the source", table, target.name)
        }
        guard columns.count(where: { $0.isKey }) == keyNames.count else {
            throw Self.changed("the target does not take a column of the row's key", table, keyNames.joined(separator: ", "))
        }
        self.columns = columns
        self.columnOfImage = columnOfImage
        self.identification = identification
        layout = RelationEffects.Layout(
            columnCount: relation.columns.count,
            keyColumns: identification == .uniqueKey ? columns.filter(\.isKey).map(\.imageIndex) : [],
            targetHasOwnColumns: table.columns.contains { target in
                !target.isGenerated && !columns.contains { $0.name == target.name }
            })
        touched =
            table.deferredConstraints.isEmpty
            ? nil : TouchedRows(number: number, table: table, constraints: table.deferredConstraints, columns: columns)
        statements = ApplyStatements(number: number, table: table, columns: columns)
    }

    private static func identify(_ relation: Relation, _ table: TargetTable) -> ([String], Identification) {
        switch relation.identity {
        case .nothing: return ([], .nothing)
        case .key:
            let names = relation.columns.filter(\.isKey).map(\.name)
            if names.isEmpty { return ([], .nothing) }
            return (names, table.uniqueIndex(on: names) == nil ? .plainKey : .uniqueKey)
        case .full:
            // The whole old row holds the target's primary key too, which finds the row without looking at the rest.
            if let key = table.primaryKey?.columns, Set(key).isSubset(of: relation.columns.map(\.name)) {
                return (key, .uniqueKey)
            }
            return ([], .wholeRow)
        }
    }

    private static func changed(_ message: String, _ table: TargetTable, _ column: String) -> BridgeError {
        BridgeError(.schemaChanged, message, context: [.init(.table, table.name.description), .init(.column, column)])
    }
}

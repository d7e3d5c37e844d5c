import BridgeCore

/// Writes the statements that make the source's tables in a SQLite file, and says what is not carried over.
///
/// Tables of a SQLite source are written again from their parts, in the words of the source. Tables of another engine
/// go by the product's type table; expressions are carried over only where both dialects read them the same.
struct SchemaPlanner {
    let sources: [TableSchema]
    let mappings: [TableMapping]
    /// Names of tables and indexes that are there, with letters folded. SQLite keeps both in one space.
    let existing: Set<String>

    /// - Throws: `configurationInvalid` if two source tables would become one.
    func plan() throws(BridgeError) -> SchemaPlan {
        var plan = SchemaPlan()
        var tableNames = Set<String>()
        for mapping in mappings where !tableNames.insert(foldCase(mapping.target.name)).inserted {
            throw BridgeError(
                .configurationInvalid, "two source tables go into table \(mapping.target.name), and SQLite has no schemas",
                context: [.init(.table, mapping.source.description)], hint: "give one of them another name with 'to:'")
        }
        var takenNames = tableNames
        for (source, mapping) in zip(sources, mappings) {
            let table = PlannedTable(source, mapping: mapping, targets: targetNames)
            let tableExists = existing.contains(foldCase(mapping.target.name))
            plan.statements.append(
                SchemaPlan.Statement(sql: table.creation, makes: "table \(mapping.target.name)", exists: tableExists))
            for index in table.indexes {
                var name = index.name
                if !takenNames.insert(foldCase(name)).inserted {
                    name = "\(mapping.target.name)_\(index.name)"
                    takenNames.insert(foldCase(name))
                    plan.notes.append("index \(index.name) of table \(source.name) is named \(name): index names are shared by all tables")
                }
                plan.statements.append(
                    SchemaPlan.Statement(
                        sql: index.creation(name), makes: "index \(name)", exists: existing.contains(foldCase(name))))
            }
            plan.notes += table.notes
            if mapping.target.schema != nil {
                plan.notes.append("table \(mapping.target) is named \(mapping.target.name): SQLite has no schemas")
            }
        }
        return plan
    }

    /// The target's name of each source table of the plan.
    private var targetNames: [TableName: String] {
        var names: [TableName: String] = [:]
        for (source, mapping) in zip(sources, mappings) {
            names[source.name] = mapping.target.name
            names[mapping.source] = mapping.target.name
        }
        return names
    }
}

/// One table as it is to be made.
struct PlannedTable {
    struct Index {
        let name: String
        let isUnique: Bool
        let table: String
        let parts: String
        let predicate: String?

        func creation(_ name: String) -> String {
            "CREATE \(isUnique ? "UNIQUE " : "")INDEX \(quoteIdentifier(name)) ON \(quoteIdentifier(table))(\(parts))"
                + (predicate.map { " WHERE \($0)" } ?? "")
        }
    }

    private(set) var creation = ""
    private(set) var indexes: [Index] = []
    private(set) var notes: [String] = []

    private let source: TableSchema
    private let mapping: TableMapping
    private let targets: [TableName: String]
    private let isSQLite: Bool
    private let columns: [ColumnSchema]

    init(_ source: TableSchema, mapping: TableMapping, targets: [TableName: String]) {
        self.source = source
        self.mapping = mapping
        self.targets = targets
        isSQLite = source.engine == .sqlite
        let wanted = mapping.columns.map { Set($0) }
        let native = isSQLite
        columns = source.columns.filter { column in
            (wanted?.contains(column.name) ?? true) && (native || column.generation == nil)
        }
        for column in source.columns where !native && column.generation != nil {
            notes.append("column \(column.name) of table \(source.name) is not made: it is computed by an expression of the source's dialect")
        }
        build()
    }

    private mutating func build() {
        var lines: [String] = []
        for column in columns { lines.append(columnLine(column)) }
        if let key = keyLine() { lines.append(key) }
        for index in source.indexes {
            if let line = uniqueLine(index) {
                lines.append(line)
            } else {
                addIndex(index)
            }
        }
        for check in source.checks { if let line = checkLine(check) { lines.append(line) } }
        for key in source.foreignKeys { if let line = foreignKeyLine(key) { lines.append(line) } }
        var options: [String] = []
        if isSQLite { options = source.options.filter { $0 == "STRICT" || $0 == "WITHOUT ROWID" } }
        creation =
            "CREATE TABLE \(quoteIdentifier(mapping.target.name)) (\n    \(lines.joined(separator: ",\n    "))\n)"
            + (options.isEmpty ? "" : " " + options.joined(separator: ", "))
    }

    // MARK: Columns and key

    private var hasWholeKey: Bool { source.primaryKey.allSatisfy { name in columns.contains { $0.name == name } } }

    /// The column that becomes the rowid: an integer that is the whole key.
    private var rowidColumn: String? {
        guard source.primaryKey.count == 1, hasWholeKey, let name = source.primaryKey.first,
            let column = source.column(named: name)
        else { return nil }
        if isSQLite {
            let isRowid = foldCase(column.typeName) == "integer" && !source.options.contains("WITHOUT ROWID")
            return isRowid ? name : nil
        }
        return [.int16, .int32, .int64].contains(column.type) ? name : nil
    }

    private mutating func columnLine(_ column: ColumnSchema) -> String {
        let declared = isSQLite ? column.typeName : targetDeclaration(for: column.type)
        var line = quoteIdentifier(column.name) + (declared.isEmpty ? "" : " " + declared)
        if column.name == rowidColumn {
            line += " PRIMARY KEY"
            if source.options.contains("AUTOINCREMENT") { line += " AUTOINCREMENT" }
            if !isSQLite, column.identity != nil || column.defaultExpression != nil {
                notes.append(
                    "column \(column.name) of table \(source.name) is numbered by SQLite, which may use the highest number again after its row was deleted")
            }
            if !isSQLite { return line }
        }
        let isKey = source.primaryKey.contains(column.name)
        if (column.isNotNull || (isKey && !isSQLite)) && column.name != rowidColumn { line += " NOT NULL" }
        line += defaultClause(column)
        if isSQLite, let collation = column.collation { line += " COLLATE \(quoteIdentifier(collation))" }
        switch column.generation {
        case .stored(let expression): line += " GENERATED ALWAYS AS (\(expression)) STORED"
        case .virtual(let expression): line += " GENERATED ALWAYS AS (\(expression)) VIRTUAL"
        case nil: break
        }
        if !isSQLite { noteType(column) }
        return line
    }

    private mutating func noteType(_ column: ColumnSchema) {
        let inKey = source.primaryKey.contains(column.name)
            || source.indexes.contains { $0.isUnique && $0.parts.contains { $0.column == column.name } }
        if case .numeric = column.type, inKey {
            notes.append(
                "column \(column.name) of table \(source.name) holds decimals as text, so 1.0 and 1.00 are different keys")
        }
        if let collation = column.collation {
            notes.append(
                "column \(column.name) of table \(source.name) is compared byte by byte: SQLite does not have the collation \(collation)")
        }
    }

    private mutating func defaultClause(_ column: ColumnSchema) -> String {
        guard let expression = column.defaultExpression, column.generation == nil else { return "" }
        if isSQLite { return " " + sqliteDefaultClause(expression) }
        if let translated = DefaultTranslation.translate(expression, type: column.type) {
            return translated.isEmpty ? "" : " DEFAULT \(translated)"
        }
        notes.append("the default of column \(column.name) of table \(source.name) is not carried over: \(expression)")
        return ""
    }

    private mutating func keyLine() -> String? {
        guard !source.primaryKey.isEmpty, rowidColumn == nil else { return nil }
        guard hasWholeKey else {
            notes.append("the primary key of table \(source.name) is not made: not all of its columns travel")
            return nil
        }
        let name = isSQLite ? source.primaryKeyName.map { "CONSTRAINT \(quoteIdentifier($0)) " } ?? "" : ""
        return "\(name)PRIMARY KEY (\(source.primaryKey.map(quoteIdentifier).joined(separator: ", ")))"
    }

    // MARK: Indexes

    /// A UNIQUE constraint; nil for what becomes an index of its own.
    private func uniqueLine(_ index: IndexSchema) -> String? {
        guard let constraint = index.constraintName, index.predicate == nil, index.isUnique,
            let parts = plainParts(index)
        else { return nil }
        // An unnamed constraint of a SQLite source has a made-up name, which its definition leaves out.
        let isNamed = !isSQLite || index.definition?.hasPrefix("CONSTRAINT ") ?? true
        return (isNamed ? "CONSTRAINT \(quoteIdentifier(constraint)) " : "") + "UNIQUE (\(parts))"
    }

    private func plainParts(_ index: IndexSchema) -> String? {
        var parts: [String] = []
        for part in index.parts {
            guard let column = part.column, columns.contains(where: { $0.name == column }) else { return nil }
            parts.append(quoteIdentifier(column) + suffix(part))
        }
        return parts.isEmpty ? nil : parts.joined(separator: ", ")
    }

    private func suffix(_ part: IndexSchema.Part) -> String {
        let collation = isSQLite ? part.collation.map { " COLLATE \(quoteIdentifier($0))" } ?? "" : ""
        return collation + (part.isDescending ? " DESC" : "")
    }

    private mutating func addIndex(_ index: IndexSchema) {
        func note(_ why: String) { notes.append("index \(index.name) of table \(source.name) is not made: \(why)") }
        if mentionsMissingColumn(index) { return note("not all of its columns travel") }
        var parts = plainParts(index)
        if parts == nil, isSQLite {
            parts = index.parts.map { part in
                (part.column.map(quoteIdentifier) ?? part.expression ?? "") + suffix(part)
            }.joined(separator: ", ")
        }
        guard let parts else { return note("it is over an expression of the source's dialect") }
        if !isSQLite, let method = Self.method(index.definition), method != "btree", method != "hash" {
            return note("SQLite has no index of the kind \(method)")
        }
        var predicate = index.predicate
        if let condition = index.predicate, !isSQLite {
            predicate = ConditionTranslation.translate(condition, columns: columns)
            guard predicate != nil else { return note("its condition is of the source's dialect: \(condition)") }
        }
        indexes.append(
            Index(
                name: index.name, isUnique: index.isUnique, table: mapping.target.name, parts: parts,
                predicate: predicate))
    }

    private func mentionsMissingColumn(_ index: IndexSchema) -> Bool {
        index.parts.contains { part in part.column.map { name in !columns.contains { $0.name == name } } ?? false }
            || (isSQLite && columns.count < source.columns.count
                && (index.predicate != nil || index.parts.contains { $0.column == nil }))
    }

    /// The access method that a PostgreSQL index definition names.
    private static func method(_ definition: String?) -> String? {
        guard let words = definition?.split(separator: " "), let place = words.firstIndex(of: "USING"),
            place + 1 < words.count
        else { return nil }
        return String(words[place + 1].prefix { $0 != "(" })
    }

    // MARK: Checks and foreign keys

    private mutating func checkLine(_ check: CheckSchema) -> String? {
        let name = check.name.map { "CONSTRAINT \(quoteIdentifier($0)) " } ?? ""
        if isSQLite, columns.count == source.columns.count { return "\(name)CHECK (\(check.expression))" }
        if !isSQLite, let condition = ConditionTranslation.translate(check.expression, columns: columns) {
            return "\(name)CHECK (\(condition))"
        }
        notes.append("the check \(check.name ?? check.expression) of table \(source.name) is not carried over")
        return nil
    }

    private mutating func foreignKeyLine(_ key: ForeignKeySchema) -> String? {
        let what = "the foreign key \(key.name ?? "(\(key.columns.joined(separator: ", ")))") of table \(source.name)"
        guard key.columns.allSatisfy({ name in columns.contains { $0.name == name } }) else {
            notes.append("\(what) is not made: not all of its columns travel")
            return nil
        }
        guard let target = targetTable(key.referencedTable) else {
            notes.append("\(what) is not made: table \(key.referencedTable) is not part of the migration")
            return nil
        }
        func list(_ names: [String]) -> String { names.map(quoteIdentifier).joined(separator: ", ") }
        var line = key.name.map { "CONSTRAINT \(quoteIdentifier($0)) " } ?? ""
        line += "FOREIGN KEY (\(list(key.columns))) REFERENCES \(quoteIdentifier(target))"
        if !key.referencedColumns.isEmpty { line += "(\(list(key.referencedColumns)))" }
        if key.onDelete != "NO ACTION" { line += " ON DELETE \(key.onDelete)" }
        if key.onUpdate != "NO ACTION" { line += " ON UPDATE \(key.onUpdate)" }
        if key.isDeferrable { line += " DEFERRABLE INITIALLY \(key.isInitiallyDeferred ? "DEFERRED" : "IMMEDIATE")" }
        return line
    }

    private func targetTable(_ name: TableName) -> String? {
        if let target = targets[name] { return target }
        guard isSQLite else { return nil }
        return targets.first { foldCase($0.key.name) == foldCase(name.name) }?.value
    }
}

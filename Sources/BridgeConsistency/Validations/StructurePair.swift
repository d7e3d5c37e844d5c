import BridgeCore

/// One table of the migration as both sides have it.
struct StructurePair: Sendable {
    let mapping: TableMapping
    let source: TableFacts
    let target: TableFacts
    let isSameEngine: Bool
    /// The source's columns that travel.
    let columns: [ColumnSchema]
    private let folds: Bool
    private let staying: Set<String>

    init(mapping: TableMapping, source: TableFacts, target: TableFacts) {
        self.mapping = mapping
        self.source = source
        self.target = target
        isSameEngine = source.schema.engine == target.schema.engine
        folds = source.schema.engine == .sqliteEngine || target.schema.engine == .sqliteEngine
        var columns: [ColumnSchema] = []
        var staying: Set<String> = []
        let wanted = mapping.columns.map { [folds] in Set($0.map { folds ? $0.lowercased() : $0 }) }
        for column in source.schema.columns {
            let name = folds ? column.name.lowercased() : column.name
            if wanted?.contains(name) ?? true { columns.append(column) } else { staying.insert(name) }
        }
        self.columns = columns
        self.staying = staying
    }

    /// The table, for sentences.
    var label: String { mapping.source.description }

    /// A name as the two sides compare it.
    func key(_ name: String) -> String { folds ? name.lowercased() : name }
    func keys(_ names: [String]) -> [String] { names.map(key) }

    func targetColumn(_ name: String) -> ColumnSchema? { target.schema.columns.first { key($0.name) == key(name) } }
    func sourceColumn(_ name: String) -> ColumnSchema? { source.schema.columns.first { key($0.name) == key(name) } }

    func travels(_ names: [String]) -> Bool { names.allSatisfy { !staying.contains(key($0)) } }

    /// Whether a text of the catalog has the name of a column that does not travel in it.
    func mentionsStaying(_ text: String) -> Bool {
        guard !staying.isEmpty else { return false }
        return CatalogText.words(text).contains { staying.contains(key($0)) }
    }

    /// A text of a catalog in the form in which equal ones are equal: with single spaces, and without the schemas of the
    /// two tables and the usual ones before types and functions. Which schemas a server writes out depends on the session,
    /// and what goes with a table into another schema is another schema's there.
    func text(_ text: String) -> String {
        var text = CatalogText.singleSpaced(text)
        guard source.schema.engine != .sqliteEngine else { return text }
        let schemas = [source.schema.name.schema, target.schema.name.schema, "public", "pg_catalog"].compactMap { $0 }
        for schema in Set(schemas).sorted() { text = CatalogText.withoutSchema(schema, text) }
        return text
    }

    /// Whether at most the source's own unique keys are what a unique key of the target asks for, so that it refuses no
    /// row that the source takes: one of them is over some of its columns, in a collation that is the same.
    func isImplied(_ index: IndexSchema) -> Bool {
        var parts: [(name: String, collation: String)] = []
        for part in index.parts {
            guard let column = part.column else { return false }
            parts.append((key(column), collation(part, targetColumn(column))))
        }
        if CatalogText.nullsAreOneValue(index.definition) { return false }
        func covers(_ wanted: [(name: String, collation: String)]) -> Bool {
            !wanted.isEmpty
                && wanted.allSatisfy { want in
                    parts.contains { $0.name == want.name && isFine($0.collation, want.collation) }
                }
        }
        let primaryKey = source.schema.primaryKey.map { (name: key($0), collation: collation(nil, sourceColumn($0))) }
        if covers(primaryKey) { return true }
        return source.indexes.contains { candidate in
            guard candidate.schema.isUnique, candidate.isValid, candidate.schema.predicate == nil else { return false }
            var wanted: [(name: String, collation: String)] = []
            for part in candidate.schema.parts {
                guard let column = part.column else { return false }
                wanted.append((key(column), collation(part, sourceColumn(column))))
            }
            return covers(wanted)
        }
    }

    /// Whether the target takes no two values for the same that the source takes for two. SQLite's collations other than
    /// BINARY do; between others and across engines there is no telling, and usually they do not.
    private func isFine(_ target: String, _ source: String) -> Bool {
        if target == source { return true }
        return !isSameEngine && (target.isEmpty || self.target.schema.engine != .sqliteEngine)
    }

    /// Whether an index of the target compares by SQLite's own collations, other than BINARY.
    func isLax(_ index: IndexSchema) -> Bool {
        target.schema.engine == .sqliteEngine
            && index.parts.contains { !collation($0, $0.column.flatMap(targetColumn)).isEmpty }
    }

    /// Empty for the engine's usual one.
    func collation(_ part: IndexSchema.Part?, _ column: ColumnSchema?) -> String {
        let name = part?.collation ?? column?.collation ?? ""
        return name.uppercased() == "BINARY" ? "" : folds ? name.uppercased() : name
    }
}

extension EngineName {
    /// The one engine without fixed types, whose names of columns and collations have no case.
    static let sqliteEngine = EngineName(rawValue: "sqlite")
}

extension TableFacts {
    /// Whether a constraint owns the index, and speaks for it. Some catalogs list the primary key's own, some do not.
    func isOwned(_ index: IndexSchema) -> Bool {
        guard let owner = index.constraintName else { return false }
        if owner == schema.primaryKeyName { return true }
        return constraints.contains { constraint in
            guard [.primaryKey, .unique, .exclusion].contains(constraint.kind) else { return false }
            return constraint.name == owner
                || (constraint.name == nil && constraint.columns == index.parts.compactMap(\.column))
        }
    }
}

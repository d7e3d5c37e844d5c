import BridgeCore

/// Derives target tables from a source's: schemas, sequences, tables with keys and checks, indexes, foreign keys, in that
/// order. What the target has already is marked so, which makes the plan idempotent; what cannot be carried over is noted.
struct SchemaPlanner {
    let connection: PostgresConnection

    func plan(for sources: [TableSchema], mappings: [TableMapping]) throws(BridgeError) -> SchemaPlan {
        var draft = SchemaDraft(catalog: TargetCatalog(connection: connection))
        var pairs: [(TableSchema, TableMapping)] = []
        for mapping in mappings {
            guard let source = sources.first(where: { $0.name == mapping.source }) else { continue }
            pairs.append((source, Self.qualified(mapping, connection)))
        }
        try addSchemas(pairs.map(\.1), to: &draft)
        for (source, mapping) in pairs {
            let planner = TablePlanner(source: source, mapping: mapping)
            try planner.addTable(to: &draft)
        }
        for (source, mapping) in pairs { try TablePlanner(source: source, mapping: mapping).addIndexes(to: &draft) }
        for (source, mapping) in pairs {
            try TablePlanner(source: source, mapping: mapping).addForeignKeys(among: pairs, to: &draft)
        }
        return SchemaPlan(statements: draft.statements, notes: draft.notes)
    }

    /// A target without a schema is made where the role's own search path looks first.
    private static func qualified(_ mapping: TableMapping, _ connection: PostgresConnection) -> TableMapping {
        guard mapping.target.schema == nil else { return mapping }
        var copy = mapping
        copy.target = TableName(schema: connection.defaultSchemas.first ?? "public", name: mapping.target.name)
        return copy
    }

    private func addSchemas(_ mappings: [TableMapping], to draft: inout SchemaDraft) throws(BridgeError) {
        for schema in Set(mappings.compactMap(\.target.schema)).sorted() {
            let exists = try draft.catalog.schemaExists(schema)
            // The schema public is nearly always there; saying so each time would only be noise.
            if exists && schema == "public" { continue }
            draft.add("CREATE SCHEMA \(quoteIdentifier(schema))", makes: "schema \(schema)", exists: exists)
        }
    }
}

/// The plan as it grows.
struct SchemaDraft {
    let catalog: TargetCatalog
    private(set) var statements: [SchemaPlan.Statement] = []
    private(set) var notes: [String] = []

    init(catalog: TargetCatalog) { self.catalog = catalog }

    mutating func add(_ sql: String, makes: String, exists: Bool) {
        statements.append(.init(sql: sql, makes: makes, exists: exists))
    }

    mutating func note(_ text: String) { notes.append(text) }
}

/// Questions to the target's catalog.
struct TargetCatalog {
    let connection: PostgresConnection
    private let action = "looking at the target's schema"

    init(connection: PostgresConnection) { self.connection = connection }

    private func isTrue(_ sql: String, _ parameters: [String?]) throws(BridgeError) -> Bool {
        try connection.rows(sql, parameters, during: action).first?.first == "t"
    }

    func schemaExists(_ name: String) throws(BridgeError) -> Bool {
        try isTrue("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", [name])
    }

    /// Whether anything of that name stands where tables, indexes and sequences share their names.
    func relationExists(_ name: TableName) throws(BridgeError) -> Bool {
        try isTrue(
            """
            SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = $1 AND c.relname = $2)
            """, [name.schema, name.name])
    }

    func typeExists(_ name: String) throws(BridgeError) -> Bool {
        try isTrue("SELECT to_regtype($1) IS NOT NULL", [name])
    }

    func collationExists(_ name: String) throws(BridgeError) -> Bool {
        try isTrue("SELECT to_regcollation($1) IS NOT NULL", [name])
    }

    func constraintExists(_ name: String, on table: TableName) throws(BridgeError) -> Bool {
        try isTrue(
            """
            SELECT EXISTS (SELECT FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
              JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.conname = $3 AND n.nspname = $1 AND c.relname = $2)
            """, [table.schema, table.name, name])
    }

    /// The indexes of a table: name, and definition from USING on.
    func indexes(of table: TableName) throws(BridgeError) -> [(name: String, body: String)] {
        try connection.rows(
            """
            SELECT x.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
            JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relname = $2
            """, [table.schema, table.name], during: action
        ).map { ($0[0] ?? "", IndexDefinition($0[1] ?? "")?.body ?? "") }
    }

    /// Whether an expression means something on the target, over columns of these types. Nothing is executed.
    func understands(_ expression: String, columns: [(name: String, type: String)]) throws(BridgeError) -> Bool {
        let row = columns.map { "NULL::\($0.type) AS \(quoteIdentifier($0.name))" }.joined(separator: ", ")
        let from = columns.isEmpty ? "" : " FROM (SELECT \(row) OFFSET 0) AS r"
        let sql = "EXPLAIN SELECT \(expression)\(from)"
        do throws(BridgeError) {
            // As the only statement of an extended query it cannot smuggle in a second one.
            _ = try connection.query(sql, during: action)
            return true
        } catch {
            if connection.isBroken { throw error }
            return false
        }
    }
}

/// The parts of `CREATE INDEX`, as pg_get_indexdef writes it.
struct IndexDefinition {
    let isUnique: Bool
    /// From `USING` on: method, parts, INCLUDE, WITH, WHERE. Holds no table's name.
    let body: String

    init?(_ text: String) {
        var rest = text[...]
        guard Self.take("CREATE ", &rest) else { return nil }
        isUnique = Self.take("UNIQUE ", &rest)
        guard Self.take("INDEX ", &rest), Self.skipName(&rest), Self.take(" ON ", &rest) else { return nil }
        _ = Self.take("ONLY ", &rest)
        guard Self.skipName(&rest) else { return nil }
        if Self.take(".", &rest) { guard Self.skipName(&rest) else { return nil } }
        guard Self.take(" ", &rest), rest.hasPrefix("USING ") else { return nil }
        body = String(rest)
    }

    private static func take(_ word: String, _ rest: inout Substring) -> Bool {
        guard rest.hasPrefix(word) else { return false }
        rest = rest.dropFirst(word.count)
        return true
    }

    /// Passes over one identifier, quoted or not.
    private static func skipName(_ rest: inout Substring) -> Bool {
        guard rest.first == "\"" else {
            let name = rest.prefix { $0 == "_" || $0 == "$" || $0.isLetter || $0.isNumber }
            rest = rest.dropFirst(name.count)
            return !name.isEmpty
        }
        rest = rest.dropFirst()
        while let quote = rest.firstIndex(of: "\"") {
            rest = rest[rest.index(after: quote)...]
            if rest.first != "\"" { return true }
            rest = rest.dropFirst()
        }
        return false
    }
}

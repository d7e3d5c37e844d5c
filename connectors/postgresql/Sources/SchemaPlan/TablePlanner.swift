import BridgeCore

/// The statements for one table.
struct TablePlanner {
    let source: TableSchema
    let mapping: TableMapping

    private var target: TableName { mapping.target }
    private var isSameEngine: Bool { source.engine == .postgresql }

    private var columns: [ColumnSchema] {
        source.columns.filter { column in mapping.columns.map { $0.contains(column.name) } ?? true }
    }

    private func inTargetSchema(_ name: String) -> TableName { TableName(schema: target.schema, name: name) }
    private func label(_ column: ColumnSchema) -> String { "column \(column.name) of \(source.name)" }

    // MARK: The table

    func addTable(to draft: inout SchemaDraft) throws(BridgeError) {
        let exists = try draft.catalog.relationExists(target)
        var parts: [String] = []
        var typed: [(name: String, type: String)] = []
        var owned: [(column: String, sequence: TableName)] = []
        for column in columns where isSameEngine || column.generation == nil {
            typed.append((column.name, try typeName(column, exists: exists, &draft)))
        }
        for column in columns {
            guard isSameEngine || column.generation == nil else {
                draft.note("\(label(column)) is generated and left out: its expression is SQLite's.")
                continue
            }
            guard let type = typed.first(where: { $0.name == column.name })?.type else { continue }
            parts.append(try definition(column, type, typed, exists: exists, &owned, &draft))
        }
        if !source.primaryKey.isEmpty {
            let key = source.primaryKey.map { quoteIdentifier($0) }.joined(separator: ", ")
            let name = isSameEngine ? source.primaryKeyName.map { "CONSTRAINT \(quoteIdentifier($0)) " } ?? "" : ""
            // The constraint's index takes a name in the schema; one that is taken is left to the server.
            let isTaken = try source.primaryKeyName.map { name throws(BridgeError) in
                try draft.catalog.relationExists(inTargetSchema(name))
            } ?? false
            parts.append("\(isTaken && !exists ? "" : name)PRIMARY KEY (\(key))")
        }
        for check in source.checks { try addCheck(check, typed, exists: exists, to: &parts, &draft) }
        for entry in owned {
            let sequenceExists = try draft.catalog.relationExists(entry.sequence)
            draft.add(
                "CREATE SEQUENCE \(entry.sequence.quoted)", makes: "sequence \(entry.sequence)", exists: sequenceExists || exists)
        }
        draft.add(
            "CREATE TABLE \(target.quoted) (\n  \(parts.joined(separator: ",\n  "))\n)", makes: "table \(target)",
            exists: exists)
        for entry in owned {
            draft.add(
                "ALTER SEQUENCE \(entry.sequence.quoted) OWNED BY \(target.quoted).\(quoteIdentifier(entry.column))",
                makes: "owner of sequence \(entry.sequence)", exists: exists)
        }
        noteCollations(&draft)
    }

    /// The column's type on the target.
    /// - Throws: `typeUnsupported` for an SQLite column whose values follow no type.
    private func typeName(
        _ column: ColumnSchema, exists: Bool, _ draft: inout SchemaDraft
    ) throws(BridgeError) -> String {
        guard isSameEngine else { return try canonicalTypeName(column) }
        if exists { return column.typeName }
        if try draft.catalog.typeExists(column.typeName) { return column.typeName }
        let base = column.type.name
        if base != column.typeName, try draft.catalog.typeExists(base) {
            draft.note("\(label(column)) has the type \(column.typeName), which the target lacks; it becomes \(base).")
            return base
        }
        draft.note(
            "\(label(column)) has the type \(column.typeName), which the target lacks: create it there before applying this plan.")
        return column.typeName
    }

    private func canonicalTypeName(_ column: ColumnSchema) throws(BridgeError) -> String {
        switch column.type {
        case .dynamic:
            throw BridgeError(
                .typeUnsupported, "the values of a column follow no single type that PostgreSQL could hold",
                context: [.init(.table, source.name.description), .init(.column, column.name)])
        // SQLite enforces no length.
        case .varchar, .character: return "text"
        case .other(let name):
            throw BridgeError(
                .typeUnsupported, "PostgreSQL has no counterpart of the type \(name)",
                context: [.init(.table, source.name.description), .init(.column, column.name)])
        default: return column.type.name
        }
    }

    private func definition(
        _ column: ColumnSchema, _ type: String, _ typed: [(name: String, type: String)], exists: Bool,
        _ owned: inout [(column: String, sequence: TableName)], _ draft: inout SchemaDraft
    ) throws(BridgeError) -> String {
        var sql = "\(quoteIdentifier(column.name)) \(type)"
        if isSameEngine, let collation = column.collation {
            if try draft.catalog.collationExists(collation) {
                sql += " COLLATE \(collation)"
            } else {
                draft.note("\(label(column)) has the collation \(collation), which the target lacks; it gets the default.")
            }
        }
        if column.isNotNull || source.primaryKey.contains(column.name) { sql += " NOT NULL" }
        if isSameEngine, case .stored(let expression)? = column.generation {
            if try draft.catalog.understands(expression, columns: typed) {
                sql += " GENERATED ALWAYS AS (\(expression)) STORED"
            } else {
                draft.note("\(label(column)) is generated by an expression that the target does not know; it becomes a plain column without values.")
            }
            return sql
        }
        if let identity = column.identity {
            return sql + " GENERATED \(identity == .always ? "ALWAYS" : "BY DEFAULT") AS IDENTITY"
        }
        if !isSameEngine, isAutoincrement(column) { return sql + " GENERATED BY DEFAULT AS IDENTITY" }
        guard let expression = column.defaultExpression else { return sql }
        if isSameEngine, expression.hasPrefix("nextval(") {
            let sequence = TableName(schema: target.schema, name: sequenceName(column.name))
            owned.append((column.name, sequence))
            return sql + " DEFAULT nextval(\(quoteLiteral(sequence.quoted))::regclass)"
        }
        let value = isSameEngine ? expression : PortableExpression.defaultValue(expression, for: column.type)
        if let value, exists ? true : try draft.catalog.understands(value, columns: []) {
            return sql + " DEFAULT \(value)"
        }
        draft.note("The default of \(label(column)) is not carried over: the target does not know its expression.")
        return sql
    }

    /// AUTOINCREMENT never gives a number twice, and an application that relies on it lets the database number its rows.
    private func isAutoincrement(_ column: ColumnSchema) -> Bool {
        source.primaryKey == [column.name] && source.options.contains("AUTOINCREMENT")
    }

    /// As a serial column's sequence is called, cut to the server's limit for names.
    private func sequenceName(_ column: String) -> String {
        let limit = 63 - "_seq".utf8.count - 1
        var table = target.name
        var field = column
        while table.utf8.count + field.utf8.count > limit {
            if table.utf8.count >= field.utf8.count { table.removeLast() } else { field.removeLast() }
        }
        return "\(table)_\(field)_seq"
    }

    private func addCheck(
        _ check: CheckSchema, _ typed: [(name: String, type: String)], exists: Bool, to parts: inout [String],
        _ draft: inout SchemaDraft
    ) throws(BridgeError) {
        let condition =
            isSameEngine ? check.expression : PortableExpression.condition(check.expression, columns: typed.map(\.name))
        guard let condition, exists ? true : try draft.catalog.understands("(\(condition))::boolean", columns: typed) else {
            draft.note(
                "The check\(check.name.map { " \($0)" } ?? "") of \(source.name) is not carried over: the target does not know its expression.")
            return
        }
        let name = check.name.map { "CONSTRAINT \(quoteIdentifier($0)) " } ?? ""
        parts.append("\(name)CHECK (\(condition))")
    }

    private func noteCollations(_ draft: inout SchemaDraft) {
        guard !isSameEngine else { return }
        for column in columns {
            guard let collation = column.collation, collation.uppercased() != "BINARY" else { continue }
            draft.note("\(label(column)) compares by \(collation) in SQLite and byte by byte or by locale on the target.")
        }
    }

    // MARK: Indexes

    func addIndexes(to draft: inout SchemaDraft) throws(BridgeError) {
        let names = Set(columns.map(\.name))
        let present = try draft.catalog.indexes(of: target)
        for index in source.indexes {
            guard index.parts.allSatisfy({ $0.column.map(names.contains) ?? true }) else {
                draft.note("The index \(index.name) of \(source.name) covers columns that do not travel; it is left out.")
                continue
            }
            if isSameEngine, let definition = index.definition {
                try addOwnIndex(index, definition, present, &draft)
            } else {
                try addForeignIndex(index, present, &draft)
            }
        }
    }

    private func addOwnIndex(
        _ index: IndexSchema, _ definition: String, _ present: [(name: String, body: String)], _ draft: inout SchemaDraft
    ) throws(BridgeError) {
        if let constraint = index.constraintName {
            let exists = try draft.catalog.constraintExists(constraint, on: target)
            let isTaken = exists ? false : try draft.catalog.relationExists(inTargetSchema(constraint))
            let name = isTaken ? "" : " CONSTRAINT \(quoteIdentifier(constraint))"
            draft.add(
                "ALTER TABLE \(target.quoted) ADD\(name) \(definition)", makes: "constraint \(constraint) on \(target)",
                exists: exists)
            return
        }
        guard let parsed = IndexDefinition(definition) else {
            draft.note("The index \(index.name) of \(source.name) is not carried over: its definition cannot be read.")
            return
        }
        let exists = present.contains { $0.body == parsed.body }
        let isTaken = exists ? false : try draft.catalog.relationExists(inTargetSchema(index.name))
        let name = isTaken ? "" : "\(quoteIdentifier(index.name)) "
        draft.add(
            "CREATE \(parsed.isUnique ? "UNIQUE " : "")INDEX \(name)ON \(target.quoted) \(parsed.body)",
            makes: "index \(index.name) on \(target)", exists: exists)
    }

    private func addForeignIndex(
        _ index: IndexSchema, _ present: [(name: String, body: String)], _ draft: inout SchemaDraft
    ) throws(BridgeError) {
        let portable = columns.filter { $0.generation == nil }.map(\.name)
        let predicate = index.predicate.flatMap { PortableExpression.condition($0, columns: portable) }
        guard index.parts.allSatisfy({ $0.column.map(portable.contains) ?? false }), (predicate == nil) == (index.predicate == nil) else {
            draft.note("The index \(index.name) of \(source.name) is not carried over: its expressions are SQLite's.")
            return
        }
        if let predicate {
            var typed: [(name: String, type: String)] = []
            for column in columns where column.generation == nil { typed.append((column.name, try canonicalTypeName(column))) }
            guard try draft.catalog.understands("(\(predicate))::boolean", columns: typed) else {
                draft.note("The index \(index.name) of \(source.name) is not carried over: the target does not know its condition.")
                return
            }
        }
        if index.isUnique, index.parts.contains(where: { $0.collation.map { $0.uppercased() != "BINARY" } ?? false }) {
            draft.note("The index \(index.name) of \(source.name) takes values for the same that are two on the target (its collation).")
        }
        let parts = index.parts.map { "\(quoteIdentifier($0.column ?? ""))\($0.isDescending ? " DESC" : "")" }
        // SQLite calls the indexes of UNIQUE constraints sqlite_autoindex_…
        let base = index.name.hasPrefix("sqlite_autoindex_")
            ? "\(target.name)_\(index.parts.compactMap(\.column).joined(separator: "_"))_key" : index.name
        let name = String(decoding: base.utf8.prefix(63), as: UTF8.self)
        let exists = present.contains { $0.name == name }
        draft.add(
            "CREATE \(index.isUnique ? "UNIQUE " : "")INDEX \(quoteIdentifier(name)) ON \(target.quoted) (\(parts.joined(separator: ", ")))"
                + (predicate.map { " WHERE \($0)" } ?? ""),
            makes: "index \(name) on \(target)", exists: exists)
    }

    // MARK: Foreign keys

    func addForeignKeys(
        among pairs: [(TableSchema, TableMapping)], to draft: inout SchemaDraft
    ) throws(BridgeError) {
        let names = Set(columns.map(\.name))
        for key in source.foreignKeys {
            let label = "The foreign key \(key.name ?? key.columns.joined(separator: ", ")) of \(source.name)"
            guard let (parent, parentMapping) = pairs.first(where: { $0.0.name == key.referencedTable }) else {
                draft.note("\(label) is left out: it refers to \(key.referencedTable), which is not in the migration.")
                continue
            }
            let referenced = key.referencedColumns.isEmpty ? parent.primaryKey : key.referencedColumns
            guard names.isSuperset(of: key.columns), referenced.count == key.columns.count,
                parentMapping.columns.map({ Set($0).isSuperset(of: referenced) }) ?? true
            else {
                draft.note("\(label) is left out: it covers columns that do not travel.")
                continue
            }
            let name = String(
                decoding: (key.name ?? "\(target.name)_\(key.columns.joined(separator: "_"))_fkey").utf8.prefix(63),
                as: UTF8.self)
            var sql = "ALTER TABLE \(target.quoted) ADD CONSTRAINT \(quoteIdentifier(name)) FOREIGN KEY "
            sql += "(\(key.columns.map { quoteIdentifier($0) }.joined(separator: ", "))) REFERENCES \(parentMapping.target.quoted) "
            sql += "(\(referenced.map { quoteIdentifier($0) }.joined(separator: ", ")))"
            if key.onUpdate != "NO ACTION" { sql += " ON UPDATE \(key.onUpdate)" }
            if key.onDelete != "NO ACTION" { sql += " ON DELETE \(key.onDelete)" }
            if key.isDeferrable { sql += key.isInitiallyDeferred ? " DEFERRABLE INITIALLY DEFERRED" : " DEFERRABLE" }
            draft.add(
                sql, makes: "foreign key \(name) on \(target)",
                exists: try draft.catalog.constraintExists(name, on: target))
        }
    }
}

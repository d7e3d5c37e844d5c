import BridgeCore

/// Reads what a database says about a table beyond its rows. In the caller's transaction.
struct FactReader {
    let database: SQLiteConnection

    /// Above so many rows it is not asked whether a foreign key holds in all of them: SQLite reads the whole table for that.
    static let cheapRows = 100_000

    /// - Parameter types: logical types that were planned by the values, by column name.
    func facts(of name: String, types: [String: LogicalType]) throws(BridgeError) -> TableFacts? {
        guard let table = try SQLiteCatalog.table(name, database.database) else { return nil }
        var schema = table.schema()
        for place in schema.columns.indices {
            if let type = types[schema.columns[place].name] { schema.columns[place].type = type }
        }
        return TableFacts(
            schema: schema, indexes: schema.indexes.map { TableFacts.Index(schema: $0) },
            constraints: keys(table) + checks(table) + (try foreignKeys(table)) + notNulls(schema),
            sequences: try sequences(table))
    }

    private func keys(_ table: SQLiteTable) -> [TableFacts.Constraint] {
        var constraints: [TableFacts.Constraint] = []
        if !table.key.isEmpty {
            let columns = table.key.map { table.columns[$0].name }
            constraints.append(
                TableFacts.Constraint(
                    kind: .primaryKey, name: table.primaryKeyName, columns: columns,
                    definition: "PRIMARY KEY (\(list(columns)))"))
        }
        for index in table.indexes where index.origin == .uniqueConstraint {
            let columns = index.parts.compactMap { $0.column.map { table.columns[$0].name } }
            constraints.append(
                TableFacts.Constraint(
                    kind: .unique, name: index.constraintName, columns: columns, definition: "UNIQUE (\(list(columns)))"))
        }
        return constraints
    }

    private func checks(_ table: SQLiteTable) -> [TableFacts.Constraint] {
        table.checks.map { check in
            let tokens = SQLTokens(check.expression)
            let words = Set((0..<tokens.count).compactMap { tokens.name($0).map(foldCase) })
            return TableFacts.Constraint(
                kind: .check, name: check.name,
                columns: table.columns.map(\.name).filter { words.contains(foldCase($0)) },
                definition: "CHECK (\(check.expression))")
        }
    }

    private func foreignKeys(_ table: SQLiteTable) throws(BridgeError) -> [TableFacts.Constraint] {
        guard !table.foreignKeys.isEmpty else { return [] }
        let broken = try brokenForeignKeys(table)
        return table.foreignKeys.enumerated().map { place, key in
            var definition =
                "FOREIGN KEY (\(list(key.columns))) REFERENCES \(quoteIdentifier(key.referencedTable.name))"
                + "(\(list(key.referencedColumns))) ON DELETE \(key.onDelete) ON UPDATE \(key.onUpdate)"
            if key.isDeferrable { definition += " DEFERRABLE" }
            if key.isInitiallyDeferred { definition += " INITIALLY DEFERRED" }
            return TableFacts.Constraint(
                kind: .foreignKey, name: key.name, columns: key.columns, definition: definition,
                isValidated: !broken.contains(place))
        }
    }

    /// Places of the foreign keys that some row does not fulfil, as far as that is cheap to know.
    private func brokenForeignKeys(_ table: SQLiteTable) throws(BridgeError) -> Set<Int> {
        let size = "SELECT 1 FROM main.\(quoteIdentifier(table.name)) LIMIT 1 OFFSET \(Self.cheapRows)"
        guard try database.database.integer(size) == nil else { return [] }
        let check = try database.database.prepare(
            "SELECT DISTINCT fkid FROM pragma_foreign_key_check(?1, 'main')")
        try check.bind(1, string: table.name)
        var broken: Set<Int> = []
        do throws(BridgeError) {
            // SQLite numbers them from the last one written.
            while try check.step() { broken.insert(table.foreignKeys.count - 1 - Int(check.integer(0))) }
        } catch {
            // The other table is not there, or not unique by the columns referred to: nothing was proven of any.
            guard error.code == .serverRefused else { throw error }
            return Set(table.foreignKeys.indices)
        }
        return broken
    }

    private func notNulls(_ schema: TableSchema) -> [TableFacts.Constraint] {
        schema.columns.filter(\.isNotNull).map {
            TableFacts.Constraint(kind: .notNull, name: nil, columns: [$0.name], definition: "NOT NULL")
        }
    }

    private func sequences(_ table: SQLiteTable) throws(BridgeError) -> [TableFacts.Sequence] {
        guard table.isAutoincrement, let key = table.key.first else { return [] }
        let row = try database.database.prepare("SELECT seq FROM main.sqlite_sequence WHERE name = ?1")
        try row.bind(1, string: table.name)
        let last: Int64? = try row.step() && row.storageClass(0) == .integer ? row.integer(0) : nil
        return [TableFacts.Sequence(column: table.columns[key].name, lastValue: last)]
    }

    private func list(_ columns: [String]) -> String { columns.map(quoteIdentifier).joined(separator: ", ") }
}

package import BridgeCore

/// Reads what a database says about its tables. All functions read in the caller's transaction, if there is one.
package enum SQLiteCatalog {
    /// Whether a table belongs to SQLite, to bridge, or is the inside of a virtual table.
    package static func isInternal(_ name: String) -> Bool {
        name.lowercased().hasPrefix("sqlite_") || name.lowercased().hasPrefix("_bridge")
    }

    /// The names of all ordinary tables, without SQLite's, bridge's, virtual tables and their shadow tables.
    package static func tableNames(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> [String] {
        let statement = try database.prepare(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' ORDER BY name")
        var names: [String] = []
        while try statement.step() {
            if let name = statement.string(0), !isInternal(name) { names.append(name) }
        }
        return names
    }

    /// What kind of object a name is: `table`, `view`, `virtual`, `shadow`; nil if there is none. Case is ignored, as
    /// SQLite does; `name` is the name as it was created.
    package static func kind(
        of name: String, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> (kind: String, name: String)? {
        let statement = try database.prepare(
            "SELECT type, name FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE")
        try statement.bind(1, string: name)
        guard try statement.step(), let kind = statement.string(0), let exact = statement.string(1) else { return nil }
        return (kind, exact)
    }

    /// A table by its name, in whatever case; nil if there is no ordinary table of that name.
    package static func table(
        _ wanted: String, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> SQLiteTable? {
        let list = try database.prepare(
            """
            SELECT l.name, l.wr, l.strict, m.sql FROM pragma_table_list l
            JOIN sqlite_master m ON m.type = 'table' AND m.name = l.name
            WHERE l.schema = 'main' AND l.type = 'table' AND l.name = ?1 COLLATE NOCASE
            """)
        try list.bind(1, string: wanted)
        guard try list.step(), let name = list.string(0) else { return nil }
        let sql = list.string(3) ?? ""
        let definition = TableDefinition(sql)
        let isStrict = list.integer(2) != 0
        var table = SQLiteTable(
            name: name, sql: sql, isStrict: isStrict, isWithoutRowid: list.integer(1) != 0,
            isAutoincrement: definition.isAutoincrement, columns: [], key: [], keyIsRowid: false, indexes: [],
            foreignKeys: [], checks: definition.checks.map { CheckSchema(name: $0.name, expression: $0.expression) },
            primaryKeyName: definition.primaryKeyName)
        try readColumns(&table, definition, database)
        try readIndexes(&table, definition, database)
        table.foreignKeys = try foreignKeys(of: table.name, definition, database)
        table.keyIsRowid =
            table.key.count == 1 && !table.isWithoutRowid && table.primaryKeyIndex == nil
            && table.columns[table.key[0]].declaredType.uppercased() == "INTEGER"
        return table
    }

    private static func readColumns(
        _ table: inout SQLiteTable, _ definition: TableDefinition, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) {
        let statement = try database.prepare(
            "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid")
        try statement.bind(1, string: table.name)
        var keyPlaces: [(place: Int64, column: Int)] = []
        while try statement.step() {
            let name = statement.string(0) ?? ""
            let written = definition.columns.first { $0.name.lowercased() == name.lowercased() }
            let keyPlace = statement.integer(4)
            if keyPlace > 0 { keyPlaces.append((keyPlace, table.columns.count)) }
            let kind = SQLiteTable.Column.Kind(rawValue: statement.integer(5)) ?? .hidden
            let declared = statement.string(1) ?? ""
            table.columns.append(
                SQLiteTable.Column(
                    name: name, declaredType: declared,
                    affinity: Affinity(declared: declared, isStrict: table.isStrict),
                    isNotNull: statement.integer(2) != 0, defaultExpression: statement.string(3), kind: kind,
                    generatedAs: written?.generatedAs, collation: written?.collation?.uppercased() ?? "BINARY"))
        }
        table.key = keyPlaces.sorted { $0.place < $1.place }.map(\.column)
    }

    private static func readIndexes(
        _ table: inout SQLiteTable, _ definition: TableDefinition, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) {
        // Newest first in the pragma; constraints' indexes were made in the order written.
        let list = try database.prepare(
            """
            SELECT l.name, l."unique", l.origin, m.sql FROM pragma_index_list(?1) l
            LEFT JOIN sqlite_master m ON m.type = 'index' AND m.name = l.name ORDER BY l.seq DESC
            """)
        try list.bind(1, string: table.name)
        var uniqueNames = definition.uniques.makeIterator()
        let uniqueIndexCount = try database.integer(
            "SELECT count(*) FROM pragma_index_list(\(quoteLiteral(table.name))) WHERE origin = 'u'")
        // A constraint that repeats another has no index of its own; then nothing says which name is whose.
        let namesAreSure = uniqueIndexCount == Int64(definition.uniques.count)
        while try list.step() {
            guard let name = list.string(0), let origin = SQLiteTable.Index.Origin(rawValue: list.string(2) ?? "c")
            else { continue }
            let sql = list.string(3)
            let written = sql.map { IndexDefinition($0) }
            let parts = try indexParts(name, written, database)
            var index = SQLiteTable.Index(
                name: name, origin: origin, isUnique: list.integer(1) != 0, parts: parts,
                predicate: written?.predicate, sql: sql, constraintName: nil)
            if origin == .uniqueConstraint, namesAreSure { index.constraintName = uniqueNames.next()?.name }
            table.indexes.append(index)
        }
    }

    private static func indexParts(
        _ name: String, _ definition: IndexDefinition?, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [SQLiteTable.Index.Part] {
        let statement = try database.prepare(
            "SELECT cid, \"desc\", coll FROM pragma_index_xinfo(?1) WHERE key = 1 ORDER BY seqno")
        try statement.bind(1, string: name)
        var parts: [SQLiteTable.Index.Part] = []
        while try statement.step() {
            let column = statement.integer(0)
            var expression: String?
            if column < 0 {
                guard let definition, parts.count < definition.parts.count else {
                    throw BridgeError(
                        .sourceUnsupported, "an index's expression cannot be read", context: [.init(.detail, name)])
                }
                expression = definition.parts[parts.count]
            }
            parts.append(
                SQLiteTable.Index.Part(
                    column: column < 0 ? nil : Int(column), expression: expression,
                    collation: statement.string(2)?.uppercased() ?? "BINARY", isDescending: statement.integer(1) != 0))
        }
        return parts
    }

    private static func foreignKeys(
        of table: String, _ definition: TableDefinition, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [ForeignKeySchema] {
        let statement = try database.prepare(
            """
            SELECT id, "table", "from", "to", on_update, on_delete FROM pragma_foreign_key_list(?1)
            ORDER BY id DESC, seq
            """)
        try statement.bind(1, string: table)
        var keys: [ForeignKeySchema] = []
        var currentIdentifier: Int64?
        while try statement.step() {
            let identifier = statement.integer(0)
            if identifier != currentIdentifier {
                currentIdentifier = identifier
                let written = definition.foreignKeys.indices.contains(keys.count) ? definition.foreignKeys[keys.count] : nil
                keys.append(
                    ForeignKeySchema(
                        name: written?.name, columns: [],
                        referencedTable: TableName(name: statement.string(1) ?? ""), referencedColumns: [],
                        onDelete: statement.string(5) ?? "NO ACTION", onUpdate: statement.string(4) ?? "NO ACTION",
                        isDeferrable: written?.isDeferrable ?? false,
                        isInitiallyDeferred: written?.isInitiallyDeferred ?? false))
            }
            keys[keys.count - 1].columns.append(statement.string(2) ?? "")
            if let referenced = statement.string(3) { keys[keys.count - 1].referencedColumns.append(referenced) }
        }
        // REFERENCES without columns means the other table's primary key.
        for place in keys.indices where keys[place].referencedColumns.isEmpty {
            let key = try database.prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")
            try key.bind(1, string: keys[place].referencedTable.name)
            while try key.step() { keys[place].referencedColumns.append(key.string(0) ?? "") }
        }
        return keys
    }
}

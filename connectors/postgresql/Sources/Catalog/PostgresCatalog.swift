package import BridgeCore

/// Reads table schemas out of pg_catalog. Works in a session with the pinned search path, where every name in an
/// expression comes qualified.
package struct PostgresCatalog {
    let connection: PostgresConnection

    package init(_ connection: PostgresConnection) { self.connection = connection }

    /// The schema in which a target keeps the records of its links; not part of anybody's data.
    package static let ownSchema = "_bridge"

    // MARK: Finding tables

    /// The OIDs of tables, in the order asked for; nil for names that are no table. A name without a schema is looked
    /// up in the role's own search path: the first relation of that name decides, whatever it is.
    package func resolve(_ names: [TableName]) throws(BridgeError) -> [UInt32?] {
        let rows = try connection.rows(
            """
            SELECT w.i, found.oid
            FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w(schema, name, i)
            CROSS JOIN LATERAL (
                SELECT c.oid, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relname = w.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
                  AND (n.nspname = w.schema OR w.schema IS NULL AND n.nspname = ANY ($3::text[]))
                ORDER BY array_position($3::text[], n.nspname::text) LIMIT 1) AS found
            WHERE found.relkind IN ('r', 'p')
            """,
            [
                ArrayLiteral.make(names.map(\.schema)), ArrayLiteral.make(names.map(\.name)),
                ArrayLiteral.make(connection.defaultSchemas),
            ], during: "looking up tables")
        var found = [UInt32?](repeating: nil, count: names.count)
        for row in rows {
            guard let place = row[0].flatMap({ Int($0) }), found.indices.contains(place - 1) else { continue }
            found[place - 1] = row[1].flatMap { UInt32($0) }
        }
        return found
    }

    /// Every table that the role may read, without the server's own, an extension's, bridge's, and without partitions,
    /// whose rows are those of their root.
    package func listTables() throws(BridgeError) -> [TableSchema] {
        let rows = try connection.rows(
            """
            SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
              AND n.nspname <> ALL ($1::text[]) AND n.nspname !~ '^pg_'
              AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                              AND d.deptype = 'e')
            ORDER BY n.nspname, c.relname
            """, [ArrayLiteral.make(["information_schema", Self.ownSchema])], during: "listing tables")
        return try describe(rows.compactMap { $0[0].flatMap { UInt32($0) } })
    }

    /// The tables asked for, in that order; names that are no table are left out.
    package func describeTables(_ names: [TableName]) throws(BridgeError) -> [TableSchema] {
        try describe(try resolve(names).compactMap { $0 })
    }

    // MARK: Describing

    /// The tables with these OIDs, in that order; OIDs that are gone are left out.
    package func describe(_ tables: [UInt32]) throws(BridgeError) -> [TableSchema] {
        guard !tables.isEmpty else { return [] }
        // One snapshot for all the queries, unless the caller has one.
        if connection.isInTransaction { return try read(tables) }
        return try connection.inTransaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { () throws(BridgeError) in
            try read(tables)
        }
    }

    private func read(_ tables: [UInt32]) throws(BridgeError) -> [TableSchema] {
        let oids = ArrayLiteral.make(tables)
        var found: [UInt32: TableSchema] = [:]
        var identities: [UInt32: Character] = [:]
        for row in try connection.rows(Self.tableQuery, [oids], during: "reading the catalog") {
            guard let oid = row[0].flatMap({ UInt32($0) }), let schema = row[1], let name = row[2] else { continue }
            var options: [String] = []
            if row[4] == "u" { options.append("UNLOGGED") }
            if row[3] == "f" { options.append("REPLICA IDENTITY FULL") }
            if row[3] == "n" { options.append("REPLICA IDENTITY NOTHING") }
            identities[oid] = row[3]?.first
            found[oid] = TableSchema(
                engine: .postgresql, name: TableName(schema: schema, name: name), columns: [],
                estimatedRows: row[5].flatMap { Int64($0) }.flatMap { $0 >= 0 ? $0 : nil }, options: options)
        }
        try addColumns(oids, to: &found)
        try addIndexes(oids, to: &found)
        try addChecks(oids, to: &found)
        try addForeignKeys(oids, to: &found)
        try addIdentities(oids, identities, to: &found)
        return tables.compactMap { found[$0] }
    }

    private func addColumns(_ oids: String, to found: inout [UInt32: TableSchema]) throws(BridgeError) {
        let domains = try PostgresTypes.domains(connection)
        for row in try connection.rows(Self.columnQuery, [oids], during: "reading the catalog") {
            guard let oid = row[0].flatMap({ UInt32($0) }), let name = row[1], let typeName = row[2],
                let typeOid = row[3].flatMap({ UInt32($0) })
            else { continue }
            var column = ColumnSchema(
                name: name, typeName: typeName, type: PostgresTypes.logicalType(typeName, oid: typeOid, domains: domains),
                isNotNull: row[4] == "t")
            switch (row[6], row[5]) {
            case ("s", let expression?): column.generation = .stored(expression)
            case ("v", let expression?): column.generation = .virtual(expression)
            case (_, let expression): column.defaultExpression = expression
            }
            switch row[7] {
            case "a": column.identity = .always
            case "d": column.identity = .byDefault
            default: break
            }
            column.collation = row[8]
            found[oid]?.columns.append(column)
        }
    }

    private func addIndexes(_ oids: String, to found: inout [UInt32: TableSchema]) throws(BridgeError) {
        var indexes: [UInt32: (table: UInt32, index: IndexSchema, isPrimary: Bool)] = [:]
        var order: [UInt32] = []
        for row in try connection.rows(Self.indexQuery, [oids], during: "reading the catalog") {
            guard let oid = row[0].flatMap({ UInt32($0) }), let table = row[1].flatMap({ UInt32($0) }),
                let name = row[2]
            else { continue }
            let part = IndexSchema.Part(
                column: row[8], expression: row[8] == nil ? row[9] : nil, isDescending: row[10] == "t",
                collation: row[11])
            if indexes[oid] == nil {
                order.append(oid)
                let index = IndexSchema(
                    name: name, parts: [], isUnique: row[4] == "t", predicate: row[5], constraintName: row[6],
                    definition: row[7])
                indexes[oid] = (table, index, row[3] == "t")
            }
            indexes[oid]?.index.parts.append(part)
        }
        for (table, index, isPrimary) in order.compactMap({ indexes[$0] }) {
            if isPrimary {
                found[table]?.primaryKey = index.parts.compactMap(\.column)
                found[table]?.primaryKeyName = index.constraintName ?? index.name
            } else {
                found[table]?.indexes.append(index)
            }
        }
    }

    private func addChecks(_ oids: String, to found: inout [UInt32: TableSchema]) throws(BridgeError) {
        for row in try connection.rows(Self.checkQuery, [oids], during: "reading the catalog") {
            guard let oid = row[0].flatMap({ UInt32($0) }), let expression = row[2] else { continue }
            found[oid]?.checks.append(CheckSchema(name: row[1], expression: expression))
        }
    }

    private func addForeignKeys(_ oids: String, to found: inout [UInt32: TableSchema]) throws(BridgeError) {
        for row in try connection.rows(Self.foreignKeyQuery, [oids], during: "reading the catalog") {
            guard let oid = row[0].flatMap({ UInt32($0) }), let schema = row[3], let table = row[4] else { continue }
            found[oid]?.foreignKeys.append(
                ForeignKeySchema(
                    name: row[1], columns: ArrayLiteral.elements(row[2]),
                    referencedTable: TableName(schema: schema, name: table),
                    referencedColumns: ArrayLiteral.elements(row[5]), onDelete: Self.action(row[6]),
                    onUpdate: Self.action(row[7]), isDeferrable: row[8] == "t", isInitiallyDeferred: row[9] == "t"))
        }
    }

    /// What names a row in the stream: see REPLICA IDENTITY in the manual's ALTER TABLE.
    private func addIdentities(
        _ oids: String, _ identities: [UInt32: Character], to found: inout [UInt32: TableSchema]
    ) throws(BridgeError) {
        for (oid, kind) in identities {
            guard let table = found[oid] else { continue }
            switch kind {
            // A full old row holds the key too, and the key finds its row faster.
            case "f": found[oid]?.identity = table.primaryKey.isEmpty ? table.columns.map(\.name) : table.primaryKey
            default: found[oid]?.identity = []
            }
        }
        for row in try connection.rows(Self.identityQuery, [oids], during: "reading the catalog") {
            guard let oid = row[0].flatMap({ UInt32($0) }) else { continue }
            found[oid]?.identity = ArrayLiteral.elements(row[1])
        }
    }

    private static func action(_ code: String?) -> String {
        switch code {
        case "r": "RESTRICT"
        case "c": "CASCADE"
        case "n": "SET NULL"
        case "d": "SET DEFAULT"
        default: "NO ACTION"
        }
    }
}

extension EngineName {
    package static let postgresql = EngineName(rawValue: "postgresql")
}

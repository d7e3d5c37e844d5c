import BridgeCore

@testable import BridgeConsistency

/// Two tables as both sides have them; tests change the one thing that they are about.
struct Structures {
    var mappings: [TableMapping]
    var source: [TableFacts?]
    var target: [TableFacts?]
    var isSyncing = true

    var validations: [CheckReport.Validation] {
        StructureComparison(mappings: mappings, source: source, target: target, isSyncing: isSyncing).validations()
    }
    var failed: [CheckReport.ValidationName] { validations.filter { $0.status == .failed }.map(\.name) }

    mutating func change(_ body: (inout TableFacts) -> Void) {
        guard var facts = target[1] else { return }
        body(&facts)
        target[1] = facts
    }

    mutating func changeSource(_ body: (inout TableFacts) -> Void) {
        guard var facts = source[1] else { return }
        body(&facts)
        source[1] = facts
    }

    /// Between two PostgreSQL servers, into another schema and under another name.
    static var postgres: Structures {
        Structures(
            mappings: [
                TableMapping(source: TableName(schema: "public", name: "users"), target: TableName(schema: "app", name: "people")),
                TableMapping(source: TableName(schema: "public", name: "orders"), target: TableName(schema: "app", name: "orders")),
            ],
            source: [postgresUsers("public", "users"), postgresOrders("public", "users")],
            target: [postgresUsers("app", "people"), postgresOrders("app", "people")])
    }

    /// From PostgreSQL to what bridge makes of it in SQLite.
    static var toSQLite: Structures {
        var all = postgres
        all.mappings = ["users", "orders"].map {
            TableMapping(source: TableName(schema: "public", name: $0), target: TableName(name: $0))
        }
        all.target = [sqliteUsers, sqliteOrders]
        return all
    }

    /// From that SQLite file back.
    static var toPostgres: Structures {
        var all = toSQLite
        (all.source, all.target) = (all.target, all.source)
        all.mappings = all.mappings.map { TableMapping(source: $0.target, target: $0.source) }
        // What SQLite could not say is not there to be asked for.
        all.change { facts in
            facts.indexes.removeAll { ["orders_lower", "orders_tags"].contains($0.schema.name) }
            facts.constraints.removeAll { $0.kind == .exclusion || $0.kind == .check && $0.name == "orders_state" }
            facts.schema.columns[3].defaultExpression = nil
        }
        return all
    }

    private static func column(
        _ name: String, _ type: String, notNull: Bool = true, default expression: String? = nil
    ) -> ColumnSchema {
        ColumnSchema(
            name: name, typeName: type, type: LogicalType(name: type), isNotNull: notNull, defaultExpression: expression)
    }

    private static func postgresUsers(_ schema: String, _ table: String) -> TableFacts {
        TableFacts(
            schema: TableSchema(
                engine: EngineName(rawValue: "postgresql"), name: TableName(schema: schema, name: table),
                columns: [column("id", "bigint")], primaryKey: ["id"]),
            constraints: [.init(kind: .primaryKey, name: "\(table)_pkey", columns: ["id"], definition: "PRIMARY KEY (id)")])
    }

    private static func postgresOrders(_ schema: String, _ users: String) -> TableFacts {
        var sum = column("sum", "integer", notNull: false)
        sum.generation = .stored("(amount * 2)")
        var number = column("number", "bigint")
        number.identity = .byDefault
        var note = column("note", "text", notNull: false, default: "'none'::text")
        note.collation = "pg_catalog.\"C\""
        let columns = [
            number, column("user_id", "bigint"), column("amount", "integer", default: "0"),
            column("state", "\(schema).order_state", default: "'open'::\(schema).order_state"), note, sum,
            column("price", "numeric(10,2)", notNull: false),
        ]
        func index(
            _ name: String, _ parts: [IndexSchema.Part], unique: Bool = false, predicate: String? = nil, using: String = "btree",
            text: String
        ) -> TableFacts.Index {
            TableFacts.Index(
                schema: IndexSchema(
                    name: name, parts: parts, isUnique: unique, predicate: predicate,
                    definition: "CREATE \(unique ? "UNIQUE " : "")INDEX \(name) ON \(schema).orders USING \(using) (\(text))"
                        + (predicate.map { " WHERE (\($0))" } ?? "")))
        }
        let key = ForeignKeySchema(
            name: "orders_user", columns: ["user_id"], referencedTable: TableName(schema: schema, name: users),
            referencedColumns: ["id"], onDelete: "CASCADE")
        return TableFacts(
            schema: TableSchema(
                engine: EngineName(rawValue: "postgresql"), name: TableName(schema: schema, name: "orders"),
                columns: columns, primaryKey: ["number", "user_id"], foreignKeys: [key]),
            indexes: [
                index("orders_amount", [.init(column: "amount", isDescending: true)], text: "amount DESC"),
                index("orders_open", [.init(column: "user_id")], unique: true, predicate: "amount > 0", text: "user_id"),
                index("orders_lower", [.init(column: nil, expression: "lower(note)")], text: "lower(note)"),
                index("orders_tags", [.init(column: "note")], using: "gin", text: "note gin_trgm_ops"),
                .init(
                    schema: IndexSchema(
                        name: "orders_note_key", parts: [.init(column: "note")], isUnique: true,
                        constraintName: "orders_note_key", definition: "UNIQUE (note)")),
                // A catalog may list the primary key's own index, or not.
                .init(
                    schema: IndexSchema(
                        name: "orders_pkey", parts: [.init(column: "number"), .init(column: "user_id")], isUnique: true,
                        constraintName: "orders_pkey", definition: "PRIMARY KEY (number, user_id)")),
            ],
            constraints: [
                .init(kind: .primaryKey, name: "orders_pkey", columns: ["number", "user_id"], definition: "PRIMARY KEY (number, user_id)"),
                .init(kind: .unique, name: "orders_note_key", columns: ["note"], definition: "UNIQUE (note)"),
                .init(kind: .check, name: "orders_amount_check", columns: ["amount"], definition: "CHECK ((amount >= 0))"),
                .init(kind: .check, name: "orders_state", columns: ["state"], definition: "CHECK ((state <> 'lost'::\(schema).order_state))"),
                .init(
                    kind: .foreignKey, name: "orders_user", columns: ["user_id"],
                    definition: "FOREIGN KEY (user_id) REFERENCES \(schema).\(users)(id) ON DELETE CASCADE"),
                .init(kind: .exclusion, name: "orders_no_overlap", columns: ["price"], definition: "EXCLUDE USING gist (price WITH =)"),
                .init(kind: .notNull, name: nil, columns: ["amount"], definition: "NOT NULL amount"),
            ],
            sequences: [.init(column: "number", lastValue: 100)], extensions: ["pg_trgm": "1.6"])
    }

    private static var sqliteUsers: TableFacts {
        TableFacts(
            schema: TableSchema(
                engine: EngineName(rawValue: "sqlite"), name: TableName(name: "users"),
                columns: [ColumnSchema(name: "id", typeName: "INTEGER", type: .int64, isNotNull: true)], primaryKey: ["id"]))
    }

    private static var sqliteOrders: TableFacts {
        func column(_ name: String, _ declared: String, _ type: LogicalType, notNull: Bool, default text: String? = nil) -> ColumnSchema {
            ColumnSchema(name: name, typeName: declared, type: type, isNotNull: notNull, defaultExpression: text)
        }
        let key = ForeignKeySchema(
            name: "orders_user", columns: ["user_id"], referencedTable: TableName(name: "users"), referencedColumns: [],
            onDelete: "CASCADE")
        return TableFacts(
            schema: TableSchema(
                engine: EngineName(rawValue: "sqlite"), name: TableName(name: "orders"),
                columns: [
                    column("number", "INTEGER", .int64, notNull: true), column("user_id", "INTEGER", .int64, notNull: true),
                    column("amount", "INTEGER", .int64, notNull: true, default: "0"),
                    column("state", "TEXT", .text, notNull: true), column("note", "TEXT", .text, notNull: false, default: "'none'"),
                    column("price", "TEXT", .text, notNull: false),
                ], primaryKey: ["number", "user_id"], foreignKeys: [key]),
            indexes: [
                .init(schema: IndexSchema(name: "orders_amount", parts: [.init(column: "amount", isDescending: true)], isUnique: false)),
                .init(
                    schema: IndexSchema(
                        name: "orders_open", parts: [.init(column: "user_id")], isUnique: true, predicate: "(\"amount\" > 0)")),
                .init(
                    schema: IndexSchema(
                        name: "orders_note_key", parts: [.init(column: "note")], isUnique: true,
                        constraintName: "orders_note_key", definition: "UNIQUE (\"note\")")),
            ],
            constraints: [
                .init(kind: .unique, name: "orders_note_key", columns: ["note"], definition: "UNIQUE (\"note\")"),
                .init(kind: .check, name: "orders_amount_check", columns: [], definition: "CHECK ((\"amount\" >= 0))"),
            ])
    }
}

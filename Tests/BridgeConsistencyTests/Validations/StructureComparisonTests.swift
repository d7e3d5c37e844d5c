import BridgeCore
import Testing

@testable import BridgeConsistency

/// One thing that is not the same on the target, and the validation whose business it is.
struct StructureFault: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let name: CheckReport.ValidationName
    let change: @Sendable (inout Structures) -> Void

    init(_ description: String, _ name: CheckReport.ValidationName, _ change: @escaping @Sendable (inout Structures) -> Void) {
        testDescription = description
        self.name = name
        self.change = change
    }

    static func target(
        _ description: String, _ name: CheckReport.ValidationName, _ change: @escaping @Sendable (inout TableFacts) -> Void
    ) -> StructureFault {
        StructureFault(description, name) { $0.change(change) }
    }
}

private let schemaFaults: [StructureFault] = [
    StructureFault("a missing table", .schemas) { $0.target[1] = nil },
    .target("a missing column", .schemas) { $0.schema.columns.remove(at: 6) },
    .target("a wider type", .schemas) { $0.schema.columns[2].typeName = "bigint" },
    .target("another length", .schemas) { $0.schema.columns[6].typeName = "numeric(10,3)" },
    .target("no NOT NULL", .schemas) { $0.schema.columns[3].isNotNull = false },
    .target("a surplus NOT NULL", .schemas) { $0.schema.columns[4].isNotNull = true },
    .target("NOT NULL gone with its constraint", .schemas) {
        $0.schema.columns[2].isNotNull = false
        $0.constraints.removeAll { $0.kind == .notNull }
    },
    .target("another default", .schemas) { $0.schema.columns[2].defaultExpression = "1" },
    .target("no default", .schemas) { $0.schema.columns[2].defaultExpression = nil },
    .target("a default in another case", .schemas) { $0.schema.columns[4].defaultExpression = "'None'::text" },
    .target("a default with another space", .schemas) { $0.schema.columns[4].defaultExpression = "'none '::text" },
    .target("a default of another schema's type", .schemas) {
        $0.schema.columns[3].defaultExpression = "'open'::elsewhere.order_state"
    },
    .target("a plain column for a generated one", .schemas) { $0.schema.columns[5].generation = nil },
    .target("another expression", .schemas) { $0.schema.columns[5].generation = .stored("(amount * 3)") },
    .target("identity in another way", .schemas) { $0.schema.columns[0].identity = .always },
    .target("no identity", .schemas) { $0.schema.columns[0].identity = nil },
    .target("another collation", .schemas) { $0.schema.columns[4].collation = nil },
    .target("the key's columns in another order", .schemas) {
        $0.schema.primaryKey = ["user_id", "number"]
        $0.constraints[0].columns = ["user_id", "number"]
        $0.constraints[0].definition = "PRIMARY KEY (user_id, number)"
    },
    .target("an older extension", .schemas) { $0.extensions["pg_trgm"] = "1.5" },
    .target("a missing extension", .schemas) { $0.extensions = [:] },
    .target("a missing sequence", .schemas) { $0.sequences = [] },
    .target("a surplus sequence", .schemas) { $0.sequences.append(.init(column: "amount", lastValue: 1)) },
    .target("a sequence with another step", .schemas) { $0.sequences[0].increment = 10 },
    StructureFault("a sequence that is behind when nothing flows any more", .schemas) {
        $0.isSyncing = false
        $0.change { $0.sequences[0].lastValue = 99 }
    },
    StructureFault("a sequence never used when nothing flows any more", .schemas) {
        $0.isSyncing = false
        $0.change { $0.sequences[0].lastValue = nil }
    },
]

private let indexFaults: [StructureFault] = [
    .target("a missing index", .indexes) { $0.indexes.remove(at: 0) },
    .target("an invalid index", .indexes) { $0.indexes[0].isValid = false },
    .target("another order", .indexes) { $0.indexes[0].schema.parts[0].isDescending = false },
    .target("another column", .indexes) { $0.indexes[0].schema.parts[0].column = "user_id" },
    .target("a further column", .indexes) { $0.indexes[0].schema.parts.append(.init(column: "user_id")) },
    .target("a collation", .indexes) { $0.indexes[0].schema.parts[0].collation = "\"C\"" },
    .target("not unique", .indexes) { $0.indexes[1].schema.isUnique = false },
    .target("another condition", .indexes) { $0.indexes[1].schema.predicate = "amount > 1" },
    .target("no condition", .indexes) { $0.indexes[1].schema.predicate = nil },
    .target("another expression", .indexes) { $0.indexes[2].schema.parts[0].expression = "upper(note)" },
    .target("another kind", .indexes) {
        $0.indexes[3].schema.definition = "CREATE INDEX orders_tags ON app.orders USING gist (note gin_trgm_ops)"
    },
    .target("another operator class", .indexes) {
        $0.indexes[3].schema.definition = "CREATE INDEX orders_tags ON app.orders USING gin (note)"
    },
    .target("a unique index that the source does not have", .indexes) {
        $0.indexes.append(.init(schema: IndexSchema(name: "x", parts: [.init(column: "amount")], isUnique: true)))
    },
    .target("a unique index where the source has a plain one", .indexes) {
        $0.indexes.append(
            .init(schema: IndexSchema(name: "x", parts: [.init(column: "amount", isDescending: true)], isUnique: true)))
    },
    .target("a unique index that takes NULLs for one value", .indexes) {
        $0.indexes.append(
            .init(
                schema: IndexSchema(
                    name: "x", parts: [.init(column: "note"), .init(column: "price")], isUnique: true,
                    definition: "CREATE UNIQUE INDEX x ON app.orders USING btree (note, price) NULLS NOT DISTINCT")))
    },
]

private let constraintFaults: [StructureFault] = [
    .target("no primary key", .constraints) {
        $0.schema.primaryKey = []
        $0.indexes.removeAll { $0.schema.name == "orders_pkey" }
        $0.constraints.remove(at: 0)
    },
    .target("no unique constraint, nor its index", .constraints) {
        $0.constraints.remove(at: 1)
        $0.indexes.remove(at: 4)
    },
    .target("a unique index for a unique constraint", .constraints) {
        $0.constraints.remove(at: 1)
        $0.indexes[4].schema.constraintName = nil
    },
    .target("a unique constraint asked at the end", .constraints) { $0.constraints[1].definition += " DEFERRABLE INITIALLY DEFERRED" },
    .target("a surplus unique constraint", .constraints) {
        $0.constraints.append(.init(kind: .unique, name: "x", columns: ["amount"], definition: "UNIQUE (amount)"))
        $0.indexes.append(
            .init(schema: IndexSchema(name: "x", parts: [.init(column: "amount")], isUnique: true, constraintName: "x")))
    },
    .target("a missing check", .constraints) { $0.constraints.remove(at: 2) },
    .target("another check", .constraints) { $0.constraints[2].definition = "CHECK ((amount > 0))" },
    .target("a check that was not validated", .constraints) {
        $0.constraints[2].definition += " NOT VALID"
        $0.constraints[2].isValidated = false
    },
    .target("a surplus check", .constraints) {
        $0.constraints.append(.init(kind: .check, name: "x", columns: ["price"], definition: "CHECK ((price > 0))"))
    },
    .target("a missing foreign key", .constraints) {
        $0.schema.foreignKeys = []
        $0.constraints.remove(at: 4)
    },
    .target("a foreign key to another table", .constraints) {
        $0.schema.foreignKeys[0].referencedTable = TableName(schema: "app", name: "users")
    },
    .target("a foreign key to other columns", .constraints) { $0.schema.foreignKeys[0].referencedColumns = ["other"] },
    .target("another ON DELETE", .constraints) { $0.schema.foreignKeys[0].onDelete = "NO ACTION" },
    .target("another ON UPDATE", .constraints) { $0.schema.foreignKeys[0].onUpdate = "CASCADE" },
    .target("a deferrable foreign key", .constraints) { $0.schema.foreignKeys[0].isDeferrable = true },
    .target("MATCH FULL", .constraints) { $0.constraints[4].definition += " MATCH FULL" },
    .target("a foreign key that was not validated", .constraints) { $0.constraints[4].isValidated = false },
    .target("a surplus foreign key", .constraints) {
        $0.schema.foreignKeys.append(
            ForeignKeySchema(
                name: "x", columns: ["amount"], referencedTable: TableName(schema: "app", name: "people"),
                referencedColumns: ["id"]))
    },
    .target("a missing exclusion", .constraints) { $0.constraints.remove(at: 5) },
    .target("another exclusion", .constraints) { $0.constraints[5].definition = "EXCLUDE USING gist (price WITH <>)" },
    .target("NOT NULL that was not validated", .constraints) { $0.constraints[6].isValidated = false },
    .target("a missing NOT NULL constraint", .constraints) { $0.constraints.remove(at: 6) },
]

private let foreignFaults: [StructureFault] = [
    .target("decimals as a blob", .schemas) { $0.schema.columns[5].typeName = "BLOB" },
    .target("integers as text", .schemas) { $0.schema.columns[2].typeName = "TEXT" },
    .target("text as a blob", .schemas) { $0.schema.columns[4].typeName = "BLOB" },
    .target("a missing column", .schemas) { $0.schema.columns.remove(at: 5) },
    .target("no default", .schemas) { $0.schema.columns[2].defaultExpression = nil },
    .target("a surplus default", .schemas) { $0.schema.columns[5].defaultExpression = "'1'" },
    .target("no NOT NULL", .schemas) { $0.schema.columns[3].isNotNull = false },
    .target("the key's columns in another order", .schemas) { $0.schema.primaryKey = ["user_id", "number"] },
    .target("a missing index", .indexes) { $0.indexes.remove(at: 0) },
    .target("a missing partial index", .indexes) { $0.indexes.remove(at: 1) },
    .target("a partial index without its condition", .indexes) { $0.indexes[1].schema.predicate = nil },
    .target("a surplus unique index", .indexes) {
        $0.indexes.append(.init(schema: IndexSchema(name: "x", parts: [.init(column: "amount")], isUnique: true)))
    },
    .target("a unique index in a collation that takes more for the same", .indexes) {
        $0.indexes.append(
            .init(schema: IndexSchema(name: "x", parts: [.init(column: "note", collation: "NOCASE")], isUnique: true)))
    },
    .target("a missing unique constraint", .constraints) {
        $0.indexes.remove(at: 2)
        $0.constraints.remove(at: 0)
    },
    .target("a missing check of numbers", .constraints) { $0.constraints.remove(at: 1) },
    .target("a surplus check", .constraints) {
        $0.constraints.append(.init(kind: .check, name: nil, columns: ["price"], definition: "CHECK (price)"))
    },
    .target("a missing foreign key", .constraints) { $0.schema.foreignKeys = [] },
    .target("another ON DELETE", .constraints) { $0.schema.foreignKeys[0].onDelete = "SET NULL" },
]

@Suite("Structure")
struct StructureComparisonTests {
    @Test("K12 two sides that are the same pass, whatever the tables are called")
    func same() {
        for validation in Structures.postgres.validations {
            #expect(validation.status == .passed)
            #expect(validation.findings.isEmpty, "\(validation.findings)")
        }
    }

    @Test("K12 each difference fails its own validation and no other", arguments: schemaFaults + indexFaults + constraintFaults)
    func fault(_ fault: StructureFault) {
        var all = Structures.postgres
        fault.change(&all)
        #expect(all.failed == [fault.name], "\(all.validations)")
        let findings = all.validations.first { $0.name == fault.name }?.findings ?? []
        #expect(findings.first?.hasPrefix("public.orders: ") == true || findings.first?.hasPrefix("app.orders: ") == true)
    }

    @Test("K12 what the other engine cannot express is a note")
    func foreign() {
        let all = Structures.toSQLite
        #expect(all.failed == [], "\(all.validations)")
        for validation in all.validations {
            #expect(validation.status == .passed)
            #expect(validation.findings.allSatisfy { $0.hasPrefix("note: ") }, "\(validation.findings)")
        }
        let notes = all.validations.flatMap(\.findings).joined(separator: "\n")
        for word in ["state", "note", "sum", "number", "pg_trgm", "orders_lower", "orders_tags", "orders_state", "orders_no_overlap"] {
            #expect(notes.contains(word), "\(word) is not in \(notes)")
        }
    }

    @Test("K12 across engines, too, each difference fails its own validation", arguments: foreignFaults)
    func foreignFault(_ fault: StructureFault) {
        var all = Structures.toSQLite
        fault.change(&all)
        #expect(all.failed == [fault.name], "\(all.validations)")
    }

    @Test("K12 S16 a SQLite column of numbers for text or decimals fails nothing, and is told of: what it would change stops the link")
    func byValue() {
        for (place, declared) in [(5, "NUMERIC"), (4, "DATE"), (4, "INT"), (5, "DECIMAL(10,2)")] {
            var all = Structures.toSQLite
            all.change { $0.schema.columns[place].typeName = declared }
            #expect(all.failed == [], "\(all.validations)")
            let notes = all.validations.flatMap(\.findings).filter { $0.contains("stops the link") }
            #expect(notes.count == 1 && notes.allSatisfy { $0.hasPrefix("note: ") && $0.contains(declared) }, "\(all.validations)")
        }
    }

    @Test("K12 S16 bytes stay bytes whatever a SQLite column is declared as, but for a STRICT table's, which takes its own class alone")
    func bytesAndStrict() {
        func findings(_ type: LogicalType, _ declared: String, isStrict: Bool = false) -> (failed: [CheckReport.ValidationName], notes: [String]) {
            var all = Structures.toSQLite
            all.changeSource { $0.schema.columns[6].typeName = type.name; $0.schema.columns[6].type = type }
            all.change { facts in
                facts.schema.columns[5].typeName = declared
                if isStrict { facts.schema.options.append("STRICT") }
            }
            return (all.failed, all.validations.flatMap(\.findings).filter { $0.contains("column price") })
        }
        for declared in ["BLOB", "TEXT", "INTEGER", "REAL", "DATE", ""] {
            let (failed, notes) = findings(.bytes, declared)
            #expect(failed == [] && notes.isEmpty, "\(declared): \(notes)")
        }
        for (type, declared) in [(LogicalType.bytes, "TEXT"), (.bytes, "INTEGER"), (.text, "INTEGER"), (.numeric(precision: nil, scale: nil), "REAL"), (.float64, "INT")] {
            let (failed, notes) = findings(type, declared, isStrict: true)
            #expect(failed.contains(.schemas) && notes.count == 1, "\(type.name) \(declared): \(notes)")
        }
        for (type, declared) in [(LogicalType.bytes, "BLOB"), (.text, "TEXT"), (.float64, "REAL"), (.int64, "INTEGER"), (.bytes, "ANY")] {
            #expect(findings(type, declared, isStrict: true).notes.isEmpty, "\(type.name) \(declared)")
        }
    }

    @Test("K12 from SQLite to PostgreSQL: names have no case, and a unique index stands for a unique constraint")
    func fromSQLite() {
        var all = Structures.toPostgres
        #expect(all.failed == [], "\(all.validations)")
        all.changeSource { facts in
            for place in facts.schema.columns.indices {
                facts.schema.columns[place].name = facts.schema.columns[place].name.uppercased()
            }
            facts.schema.primaryKey = ["NUMBER", "USER_ID"]
        }
        #expect(all.failed == [], "\(all.validations)")
        all.change { facts in
            facts.constraints.removeAll { $0.kind == .unique }
            facts.indexes[facts.indexes.count - 2].schema.constraintName = nil
        }
        #expect(all.failed == [], "\(all.validations)")
        all.change { $0.indexes.removeAll { $0.schema.name == "orders_note_key" } }
        #expect(all.failed == [.constraints], "\(all.validations)")
    }

    @Test("K12 an integer of SQLite may become a narrower one, but not text, and text not an integer")
    func fromSQLiteTypes() {
        var all = Structures.toPostgres
        all.change { $0.schema.columns[2].type = .int16 }
        #expect(all.failed == [])
        all.change { $0.schema.columns[2].type = .text }
        #expect(all.failed == [.schemas])
        all.change { $0.schema.columns[2].type = .int32; $0.schema.columns[4].type = .int32 }
        #expect(all.failed == [.schemas])
    }

    @Test("K12 what is about a column that does not travel is not asked for")
    func selection() {
        var all = Structures.postgres
        all.mappings[1].columns = ["number", "user_id", "price", "sum"]
        all.change { facts in
            facts.schema.columns.removeAll { ["amount", "state", "note"].contains($0.name) }
            facts.indexes = []
            facts.constraints.removeAll { [.unique, .check, .notNull].contains($0.kind) }
        }
        #expect(all.failed == [], "\(all.validations)")
        all.mappings[1].columns?.append("amount")
        #expect(all.failed == [.schemas, .indexes, .constraints], "\(all.validations)")
        all.mappings[1].columns = ["number", "user_id", "price", "nothing"]
        #expect(all.failed == [.schemas])
    }

    @Test("K12 a sequence that is behind while changes flow is a warning")
    func sequence() {
        var all = Structures.postgres
        all.change { $0.sequences[0].lastValue = 99 }
        #expect(all.failed == [])
        #expect(all.validations[0].findings.first?.hasPrefix("warning: public.orders: the sequence of column number") == true)
        all.change { $0.sequences[0].lastValue = 101 }
        #expect(all.validations[0].findings.isEmpty)
        // One that counts down is behind when it is above.
        all.changeSource { $0.sequences[0] = .init(column: "number", lastValue: -100, increment: -1) }
        all.change { $0.sequences[0] = .init(column: "number", lastValue: -99, increment: -1) }
        #expect(all.validations[0].findings.count == 1)
    }

    @Test("K12 indexes may have other names, storage parameters and room; a key implies what is unique beyond it")
    func harmless() {
        var all = Structures.postgres
        all.change { facts in
            facts.indexes[0].schema.name = "another"
            facts.indexes[0].schema.definition =
                "CREATE INDEX another ON app.orders USING btree (amount DESC) WITH (fillfactor='70')"
            facts.indexes.append(.init(schema: IndexSchema(name: "plain", parts: [.init(column: "price")], isUnique: false)))
            facts.indexes.append(
                .init(schema: IndexSchema(name: "implied", parts: [.init(column: "price"), .init(column: "note")], isUnique: true)))
        }
        #expect(all.failed == [], "\(all.validations)")
        all.change { facts in
            for place in facts.constraints.indices { facts.constraints[place].name = "c\(place)" }
            facts.indexes[4].schema.constraintName = "c1"
            facts.indexes[5].schema.constraintName = "c0"
            facts.schema.foreignKeys[0].name = "c4"
        }
        #expect(all.failed == [], "\(all.validations)")
    }

    @Test("K12 a foreign key to a table outside of the migration is a note, an invalid index of the source is not asked for")
    func outside() {
        var all = Structures.postgres
        all.mappings.remove(at: 0)
        all.source.remove(at: 0)
        all.target.remove(at: 0)
        var facts = all.target[0]
        facts?.schema.foreignKeys = []
        facts?.constraints.removeAll { $0.kind == .foreignKey }
        facts?.indexes.remove(at: 0)
        all.target[0] = facts
        all.source[0]?.indexes[0].isValid = false
        #expect(all.failed == [], "\(all.validations)")
        #expect(all.validations[1].findings.count == 1)
        #expect(all.validations[2].findings.count == 1)
    }

    @Test("K12 a table that is missing leaves indexes and constraints open, and too few facts trap nothing")
    func missing() {
        var all = Structures.postgres
        all.source = [nil]
        all.target = []
        #expect(all.validations.map(\.status) == [.failed, .inconclusive, .inconclusive])
    }

    @Test("K12 a very long list of findings is cut, and says so")
    func many() {
        var all = Structures.postgres
        all.changeSource { facts in
            for number in 0..<300 {
                facts.schema.columns.append(ColumnSchema(name: "c\(number)", typeName: "text", type: .text))
            }
        }
        #expect(all.validations[0].findings.count == StructureFindings.limit + 1)
        #expect(all.validations[0].findings.last == "and 100 more")
    }

    @Test("catalog texts: quotes are left alone, schemas and spaces are not")
    func texts() {
        #expect(CatalogText.singleSpaced("  a  =  'x  y'  ") == "a = 'x  y'")
        #expect(CatalogText.withoutSchema("old", "'old.x'::old.t || sold.x || \"old\".f()") == "'old.x'::t || sold.x || f()")
        #expect(CatalogText.words("a = 'b' AND \"c d\" > e_1") == ["a", "AND", "c d", "e_1"])
        #expect(CatalogText.withoutValidity("CHECK (a) NOT VALID") == "CHECK (a)")
        let index = IndexText("CREATE INDEX \"a USING b\" ON t USING btree (lower(\")\"), b DESC) INCLUDE (c) WITH (x='1') WHERE (d)")
        #expect(index?.method == "btree")
        #expect(index?.columns == "lower(\")\"), b DESC")
        #expect(index?.extras == "INCLUDE (c)")
        #expect(IndexText("UNIQUE (a)") == nil)
        #expect(IndexText("CREATE INDEX i ON t USING btree (a") == nil)
    }
}

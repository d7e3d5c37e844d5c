import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

@Suite("PostgreSQL target: schema plan")
struct SchemaPlanTests {
    private static let source = """
        CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE TABLE parent (id serial PRIMARY KEY, "Na""me" text COLLATE "C" NOT NULL DEFAULT 'x''y', at timestamptz DEFAULT now(),
          twice int GENERATED ALWAYS AS (id * 2) STORED, m mood, p positive, UNIQUE ("Na""me", at), CHECK (id < 1000000),
          CONSTRAINT named CHECK (length("Na""me") > 0));
        CREATE TABLE child (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE,
          other int REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED, j jsonb);
        CREATE INDEX by_lower ON parent USING btree (lower("Na""me") DESC) WHERE id > 3;
        CREATE UNIQUE INDEX "USING tricky ON" ON child (parent, other) INCLUDE (id);
        CREATE INDEX ON child USING gin (j);
        CREATE TABLE outside (id int PRIMARY KEY, c bigint REFERENCES child)
        """

    @Test("P29 a PostgreSQL table is carried over with keys, defaults, checks, indexes and foreign keys; twice is once")
    func sameEngine() async throws {
        let from = try await TargetFixture(Self.source, tables: [])
        let to = try await TargetFixture("CREATE TYPE mood AS ENUM ('sad', 'ok')", tables: [])
        // The type lives in the same schema on both sides; the domain is missing on the target.
        let names = ["parent", "child", "outside"].map(TargetFixture.name)
        let sources = try await from.target.describeTables(names)
        let mappings = [
            TableMapping(source: names[0], target: TableName(schema: "new place", name: "Elders")),
            TableMapping(source: names[1], target: TableName(schema: "new place", name: "child")),
        ]
        let plan = try await to.target.schemaPlan(for: sources, mappings: mappings)
        #expect(plan.statements.allSatisfy { !$0.exists })
        #expect(plan.notes.contains { $0.contains("positive") && $0.contains("integer") }, "\(plan.notes)")
        try await to.target.execute(plan)
        let again = try await to.target.schemaPlan(for: sources, mappings: mappings)
        #expect(again.statements.allSatisfy { $0.exists }, "\(again.statements.filter { !$0.exists })")
        #expect(again.statements.map(\.makes) == plan.statements.map(\.makes))
        try await to.target.execute(again)
        try await to.cluster.psql(
            to.url,
            """
            INSERT INTO "new place"."Elders" (m) VALUES ('ok'); INSERT INTO "new place".child (parent, other) VALUES (1, 1);
            """)
        #expect(try await to.sql("SELECT id, \"Na\"\"me\", twice FROM \"new place\".\"Elders\"") == "1|x'y|2")
        #expect(
            try await to.sql(
                """
                SELECT string_agg(contype::text || ':' || pg_get_constraintdef(oid), E'\\n' ORDER BY conrelid::regclass::text, contype, conname)
                FROM pg_constraint WHERE conrelid <> 0 AND connamespace = '"new place"'::regnamespace
                """)
                == """
                c:CHECK ((length("Na""me") > 0))
                c:CHECK ((id < 1000000))
                p:PRIMARY KEY (id)
                u:UNIQUE ("Na""me", at)
                f:FOREIGN KEY (other) REFERENCES "new place"."Elders"(id) DEFERRABLE INITIALLY DEFERRED
                f:FOREIGN KEY (parent) REFERENCES "new place"."Elders"(id) ON DELETE CASCADE
                p:PRIMARY KEY (id)
                """)
        #expect(
            try await to.sql(
                """
                SELECT string_agg(body, E'\n' ORDER BY body COLLATE "C")
                FROM (SELECT substring(indexdef from ' (USING (?:btree|gin) .*)$') AS body FROM pg_indexes
                  WHERE schemaname = 'new place' AND indexdef NOT LIKE '%pkey%' AND indexdef NOT LIKE '%_key" %') x
                """)
                == """
                USING btree (lower("Na""me") DESC) WHERE (id > 3)
                USING btree (parent, other) INCLUDE (id)
                USING gin (j)
                """)
        await from.target.close()
        await to.target.close()
    }

    @Test("P29 a foreign key out of the migration is noted, a plan that cannot run changes nothing")
    func notes() async throws {
        let from = try await TargetFixture(Self.source, tables: [])
        let to = try await TargetFixture("", tables: [])
        let names = ["outside", "parent"].map(TargetFixture.name)
        let sources = try await from.target.describeTables(names)
        let plan = try await to.target.schemaPlan(for: sources, mappings: names.map { TableMapping(source: $0, target: $0) })
        #expect(plan.notes.contains { $0.contains("public.child") })
        #expect(plan.notes.contains { $0.contains("mood") })
        await #expect(throws: BridgeError.self) { try await to.target.execute(plan) }
        #expect(try await to.sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == "0")
        await from.target.close()
        await to.target.close()
    }

    @Test("S15 SQLite tables become PostgreSQL's by their planned types, with portable defaults, checks and indexes")
    func sqlite() async throws {
        let to = try await TargetFixture("", tables: [])
        func column(_ name: String, _ type: LogicalType, _ value: String? = nil, notNull: Bool = false) -> ColumnSchema {
            ColumnSchema(name: name, typeName: "X", type: type, isNotNull: notNull, defaultExpression: value)
        }
        let engine = EngineName(rawValue: "sqlite")
        let parent = TableSchema(engine: engine, name: TableName(name: "p"), columns: [column("id", .int64)], primaryKey: ["id"])
        let table = TableSchema(
            engine: engine, name: TableName(name: "t"),
            columns: [
                column("id", .int64), column("name", .varchar(5), "'it''s'", notNull: true), column("active", .boolean, "1"),
                column("price", .numeric(precision: nil, scale: nil), "(-1.50)"), column("at", .timestampWithTimeZone, "CURRENT_TIMESTAMP"),
                column("made", .text, "CURRENT_TIMESTAMP"), column("data", .bytes, "x'00FF'"), column("odd", .text, "(random())"),
                column("parent", .int64),
            ], primaryKey: ["id"],
            indexes: [
                IndexSchema(name: "sqlite_autoindex_t_1", parts: [.init(column: "name")], isUnique: true),
                IndexSchema(name: "by_price", parts: [.init(column: "price", isDescending: true)], isUnique: false, predicate: "price > 0 AND name IS NOT NULL"),
                IndexSchema(name: "by_lower", parts: [.init(column: nil, expression: "lower(name)")], isUnique: false),
            ],
            checks: [CheckSchema(name: nil, expression: "price >= -5 OR name IN ('a', 'b')"), CheckSchema(name: "glob", expression: "name GLOB 'a*'")],
            foreignKeys: [ForeignKeySchema(name: nil, columns: ["parent"], referencedTable: TableName(name: "p"), referencedColumns: [], onDelete: "SET NULL")])
        let mappings = ["p", "t"].map { TableMapping(source: TableName(name: $0), target: TargetFixture.name($0)) }
        let plan = try await to.target.schemaPlan(for: [parent, table], mappings: mappings)
        try await to.target.execute(plan)
        #expect(plan.notes.count == 3, "\(plan.notes)")
        #expect(try await to.target.schemaPlan(for: [parent, table], mappings: mappings).statements.allSatisfy { $0.exists })
        try await to.cluster.psql(to.url, "INSERT INTO t (id) VALUES (1)")
        #expect(
            try await to.sql("SELECT name, active, price, at IS NOT NULL, length(made), data, odd FROM t") == "it's|t|-1.50|t|19|\\x00ff|")
        let dynamic = TableSchema(engine: engine, name: TableName(name: "d"), columns: [column("x", .dynamic)])
        let error = await #expect(throws: BridgeError.self) {
            _ = try await to.target.schemaPlan(for: [dynamic], mappings: [TableMapping(source: TableName(name: "d"), target: TargetFixture.name("d"))])
        }
        #expect(error?.code == .typeUnsupported)
        await to.target.close()
    }

    @Test("P29 S15 conditions that write names in brackets, backquotes or another case are carried over")
    func quotedNames() async throws {
        let to = try await TargetFixture("", tables: [])
        let names = ["Quantity", "Unit Price", "a\"b", "]"]
        let table = TableSchema(
            engine: EngineName(rawValue: "sqlite"), name: TableName(name: "t"),
            columns: [ColumnSchema(name: "id", typeName: "INTEGER", type: .int64)]
                + names.map { ColumnSchema(name: $0, typeName: "REAL", type: .float64) },
            primaryKey: ["id"],
            indexes: [
                IndexSchema(name: "partial", parts: [.init(column: "Quantity")], isUnique: false, predicate: "[Unit Price] IS NOT NULL and `quantity` > 1")
            ],
            checks: [
                CheckSchema(name: "one", expression: "[Quantity]>=(0) AND [Quantity]<=(1000)"), CheckSchema(name: "two", expression: "`Unit Price` > 0"),
                CheckSchema(name: "three", expression: "`a\"b` <> 1 AND \"a\"\"b\" != 2"), CheckSchema(name: "four", expression: "QUANTITY == Quantity"),
                CheckSchema(name: "five", expression: "`]` IS NULL OR [unit price] < 5 OR 1 IN (2,\t3)"), CheckSchema(name: "odd", expression: "[Quantity] <> 'a b' OR [nothing] = 1"),
                CheckSchema(name: "text", expression: "\"nothing\" = 'nothing'"), CheckSchema(name: "open", expression: "[Quantity"),
            ])
        let mappings = [TableMapping(source: TableName(name: "t"), target: TargetFixture.name("t"))]
        let plan = try await to.target.schemaPlan(for: [table], mappings: mappings)
        try await to.target.execute(plan)
        #expect(plan.notes.count == 3 && ["odd", "text", "open"].allSatisfy { name in plan.notes.contains { $0.contains(" \(name) ") } }, "\(plan.notes)")
        #expect(
            try await to.sql("SELECT string_agg(conname || ' ' || pg_get_constraintdef(oid), E'\\n' ORDER BY conname) FROM pg_constraint WHERE contype = 'c' AND conrelid = 't'::regclass")
                == """
                five CHECK ((("]" IS NULL) OR ("Unit Price" < (5)::double precision) OR (1 = ANY (ARRAY[2, 3]))))
                four CHECK (("Quantity" = "Quantity"))
                one CHECK ((("Quantity" >= (0)::double precision) AND ("Quantity" <= (1000)::double precision)))
                three CHECK ((("a""b" <> (1)::double precision) AND ("a""b" <> (2)::double precision)))
                two CHECK (("Unit Price" > (0)::double precision))
                """)
        #expect(try await to.sql("SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indpred IS NOT NULL").contains("\"Unit Price\" IS NOT NULL"))
        #expect(try await to.target.schemaPlan(for: [table], mappings: mappings).statements.allSatisfy { $0.exists })
        await to.target.close()
    }
}

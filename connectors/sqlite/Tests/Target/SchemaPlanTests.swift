import BridgeCore
import BridgeTestSupport
import GRDB
import Glibc
import Testing

@testable import BridgeSQLite

@Suite struct SchemaPlanTests {
    private static let postgres = EngineName(rawValue: "postgresql")

    private static func column(
        _ name: String, _ type: String, notNull: Bool = false, default value: String? = nil,
        generation: ColumnSchema.Generation? = nil
    ) -> ColumnSchema {
        ColumnSchema(
            name: name, typeName: type, type: LogicalType(name: type), isNotNull: notNull, defaultExpression: value,
            generation: generation)
    }

    static let users = TableSchema(
        engine: postgres, name: TableName(schema: "public", name: "users"),
        columns: [
            column("id", "bigint", notNull: true, default: "nextval('users_id_seq'::regclass)"),
            column("email", "text", notNull: true), column("state", "character varying(10)", default: "'it''s'::character varying"),
            column("price", "numeric(10,2)", default: "0"), column("active", "boolean", notNull: true, default: "true"),
            column("score", "double precision", default: "1.5"), column("uid", "uuid", default: "gen_random_uuid()"),
            column("data", "jsonb", default: "'{}'::jsonb"), column("raw", "bytea", default: "'\\xdead'::bytea"),
            column("made", "timestamp with time zone", notNull: true, default: "now()"),
            column("born", "date"), column("tags", "text[]", default: "'{}'::text[]"),
            column("n", "integer", default: "'-1'::integer"),
            column("twice", "integer", generation: .stored("n * 2")),
        ],
        primaryKey: ["id"], primaryKeyName: "users_pkey",
        indexes: [
            IndexSchema(
                name: "users_email_key", parts: [.init(column: "email")], isUnique: true,
                constraintName: "users_email_key", definition: "CREATE UNIQUE INDEX users_email_key ON public.users USING btree (email)"),
            IndexSchema(
                name: "users_open", parts: [.init(column: "state"), .init(column: "n", isDescending: true)], isUnique: false,
                predicate: "(active AND ((state)::text = 'open'::text))"),
            IndexSchema(
                name: "users_lower", parts: [.init(column: nil, expression: "lower(email)")], isUnique: false),
            IndexSchema(
                name: "users_data", parts: [.init(column: "data")], isUnique: false,
                definition: "CREATE INDEX users_data ON public.users USING gin (data)"),
        ],
        checks: [
            CheckSchema(name: "n_small", expression: "((n < 100) OR (n IS NULL))"),
            CheckSchema(name: "price_up", expression: "(price >= (0)::numeric)"),
        ])

    static let posts = TableSchema(
        engine: postgres, name: TableName(schema: "public", name: "posts"),
        columns: [column("a", "integer", notNull: true), column("b", "text", notNull: true), column("owner", "bigint")],
        primaryKey: ["a", "b"],
        foreignKeys: [
            ForeignKeySchema(
                name: "posts_owner", columns: ["owner"], referencedTable: users.name, referencedColumns: ["id"],
                onDelete: "CASCADE", isDeferrable: true, isInitiallyDeferred: true),
            ForeignKeySchema(
                name: "posts_else", columns: ["a"], referencedTable: TableName(schema: "x", name: "elsewhere"),
                referencedColumns: ["id"]),
        ])

    static let mappings = [
        TableMapping(source: users.name, target: TableName(name: "accounts")),
        TableMapping(source: posts.name, target: TableName(name: "posts")),
    ]

    @Test("S-types a PostgreSQL table becomes a SQLite table that the link can fill, and the plan is idempotent")
    func postgresTables() async throws {
        let fixture = try TargetFixture()
        let plan = try await fixture.target.schemaPlan(for: [Self.users, Self.posts], mappings: Self.mappings)
        #expect(access(fixture.path, F_OK) != 0, "a plan makes no file")
        try await fixture.target.execute(plan)
        #expect(
            try fixture.rows("SELECT name, type FROM pragma_table_info('accounts')").prefix(9) == [
                "t:id|t:INTEGER", "t:email|t:TEXT", "t:state|t:TEXT", "t:price|t:TEXT", "t:active|t:INTEGER",
                "t:score|t:REAL", "t:uid|t:TEXT", "t:data|t:TEXT", "t:raw|t:BLOB",
            ])
        try fixture.execute("INSERT INTO accounts(email) VALUES('a')")
        #expect(
            try fixture.rows("SELECT id, state, price, active, score, uid, data, raw, tags, n FROM accounts") == [
                "i:1|t:it's|t:0.00|i:1|r:3ff8000000000000|null|t:{}|x:de,ad|t:{}|i:-1"
            ])
        let made = try #require(try fixture.rows("SELECT made FROM accounts").first)
        #expect(made.utf8.count == "t:2026-01-02 03:04:05.678000Z".utf8.count && made.hasSuffix("000Z"))
        #expect(throws: (any Error).self) { try fixture.execute("INSERT INTO accounts(email) VALUES('a')") }
        #expect(throws: (any Error).self) { try fixture.execute("INSERT INTO accounts(email, n) VALUES('b', 100)") }
        #expect(
            try fixture.rows("SELECT sql FROM sqlite_master WHERE name = 'users_open'") == [
                "t:CREATE INDEX \"users_open\" ON \"accounts\"(\"state\", \"n\" DESC) WHERE (\"active\" AND (\"state\" = 'open'))"
            ])
        #expect(
            try fixture.rows("SELECT \"table\", \"from\", \"to\", on_delete FROM pragma_foreign_key_list('posts')") == [
                "t:accounts|t:owner|t:id|t:CASCADE"
            ])
        for word in ["users_lower", "users_data", "price_up", "uid", "twice", "posts_else", "column id"] {
            #expect(plan.notes.contains { $0.contains(word) }, "\(word)")
        }
        let again = try await fixture.target.schemaPlan(for: [Self.users, Self.posts], mappings: Self.mappings)
        #expect(!again.statements.contains { !$0.exists })
        #expect(again.statements.map(\.sql) == plan.statements.map(\.sql))
        try await fixture.target.execute(again)
        try fixture.execute("DELETE FROM accounts")
        let link = LinkDescription(migration: "m", direction: .forward, mappings: Self.mappings, form: .canonical)
        let findings = try await fixture.target.preflight(link, sources: [Self.users, Self.posts])
        #expect(findings.filter { $0.severity == .blocking } == [])
    }

    @Test("the schema of a SQLite source is made again, with all that SQLite knows of it")
    func sqliteTables() async throws {
        let sql = """
            CREATE TABLE parent(id INTEGER PRIMARY KEY AUTOINCREMENT, "odd ""name" TEXT COLLATE NOCASE DEFAULT "word",
                d DATETIME DEFAULT CURRENT_TIMESTAMP, e DEFAULT (1 + 2), u UUID NOT NULL DEFAULT 'x',
                g TEXT GENERATED ALWAYS AS (upper(u)) STORED, v AS (e * 2), CHECK (e > 0), UNIQUE (u, d));
            CREATE TABLE child(a, b TEXT, p INT CONSTRAINT fk REFERENCES parent ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
                PRIMARY KEY(b, a)) WITHOUT ROWID;
            CREATE TABLE exact(k TEXT PRIMARY KEY, x ANY) STRICT;
            CREATE UNIQUE INDEX part ON parent(e DESC, lower(u)) WHERE d IS NOT NULL;
            CREATE INDEX plain ON child(p)
            """
        let source = try TargetFixture(sql)
        let tables = try await source.target.listTables()
        #expect(tables.count == 3)
        let mappings = tables.map { TableMapping(source: $0.name, target: $0.name) }
        let fixture = try TargetFixture()
        let plan = try await fixture.target.schemaPlan(for: tables, mappings: mappings)
        #expect(plan.notes == [])
        try await fixture.target.execute(plan)
        let made = try await fixture.target.listTables()
        #expect(Self.shape(made) == Self.shape(tables))
        let again = try await fixture.target.schemaPlan(for: tables, mappings: mappings)
        #expect(!again.statements.contains { !$0.exists })
        let link = LinkDescription(migration: "m", direction: .forward, mappings: mappings, form: .native)
        #expect(try await fixture.target.preflight(link, sources: tables) == [])
        for insert in ["INSERT INTO parent DEFAULT VALUES", "INSERT INTO child(a, b, p) VALUES(1, 'b', 7)"] {
            try source.execute(insert)
            try fixture.execute(insert)
        }
        #expect(
            try fixture.rows("SELECT id, \"odd \"\"name\", e, u, g, v FROM parent")
                == source.rows("SELECT id, \"odd \"\"name\", e, u, g, v FROM parent"))
    }

    /// A schema without the texts that are written differently.
    private static func shape(_ tables: [TableSchema]) -> [TableSchema] {
        tables.map { table in
            var table = table
            for place in table.indexes.indices { table.indexes[place].definition = nil }
            return table
        }
    }

    @Test("a plan that fails leaves nothing, not even the file")
    func failingPlan() async throws {
        let fixture = try TargetFixture()
        let plan = SchemaPlan(statements: [
            .init(sql: "CREATE TABLE a(x)", makes: "table a"), .init(sql: "CREATE TABLE broken(", makes: "table broken"),
        ])
        #expect(await failure { try await fixture.target.execute(plan) }?.code == .changeRefused)
        #expect(access(fixture.path, F_OK) != 0)
        try fixture.execute("CREATE TABLE mine(x)")
        #expect(await failure { try await fixture.target.execute(plan) } != nil)
        #expect(try fixture.rows("SELECT name FROM sqlite_master") == ["t:mine"])
    }

    @Test("tables of two schemas that would become one are refused, indexes of one name are told apart")
    func nameClashes() async throws {
        let fixture = try TargetFixture()
        var other = Self.users
        other.name = TableName(schema: "b", name: "users")
        let clash = [Self.users, other].map { TableMapping(source: $0.name, target: TableName(name: "users")) }
        #expect(
            await failure { _ = try await fixture.target.schemaPlan(for: [Self.users, other], mappings: clash) }?.code
                == .configurationInvalid)
        let apart = [
            TableMapping(source: Self.users.name, target: TableName(name: "u1")),
            TableMapping(source: other.name, target: TableName(name: "u2")),
        ]
        let plan = try await fixture.target.schemaPlan(for: [Self.users, other], mappings: apart)
        try await fixture.target.execute(plan)
        #expect(
            try fixture.rows("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1") == [
                "t:u2_users_open", "t:users_open",
            ])
    }

    @Test(
        "conditions are carried over only where both dialects read them the same",
        arguments: [
            ("(deleted_at IS NULL)", nil), ("(id IS NOT NULL)", "(\"id\" IS NOT NULL)"),
            ("((n >= 1) AND (n <= 5))", "((\"n\" >= 1) AND (\"n\" <= 5))"),
            ("(NOT active)", "(NOT \"active\")"), ("(active = true)", "(\"active\" = 1)"),
            ("((state)::text = ANY ((ARRAY['a'::character varying, 'b''c'::character varying])::text[]))",
                "(\"state\" IN ('a', 'b''c'))"),
            ("(n <> ALL (ARRAY[1, 2]))", "(\"n\" NOT IN (1, 2))"),
            ("(length((state)::text) > 3)", "(length(\"state\") > 3)"), ("(n > '-5'::integer)", "(\"n\" > -5)"),
            ("(score > (0)::double precision)", "(\"score\" > 0)"), ("(email > 'a'::text)", nil),
            ("(email ~~ 'a%'::text)", nil), ("(price > (0)::numeric)", nil), ("(lower(email) = email)", nil),
            ("(n > 1", nil), ("(n > 1))", nil), ("n", nil), ("", nil), ("(made > now())", nil), ("'", nil),
            (String(repeating: "(", count: 5_000), nil),
        ] as [(String, String?)])
    func conditions(text: String, expected: String?) {
        #expect(ConditionTranslation.translate(text, columns: Self.users.columns) == expected)
    }

    @Test(
        "defaults are carried over only where a new row would get the same value",
        arguments: [
            ("0", "integer", "0"), ("(-1)", "bigint", "-1"), ("'7'::bigint", "bigint", "7"), ("1.5", "integer", nil),
            ("false", "boolean", "0"), ("'x'::text", "text", "'x'"), ("'a'::text || 'b'::text", "text", nil),
            ("upper('x'::text)", "text", nil), ("NULL::text", "text", ""), ("1.5", "numeric(10,3)", "'1.500'"),
            ("'-2.25'::numeric", "numeric", "'-2.25'"), ("1.555", "numeric(4,2)", nil), ("'ab'::bpchar", "character(4)", "'ab  '"),
            ("now()", "timestamp without time zone", nil), ("'2020-01-01'::date", "date", "'2020-01-01'"),
            ("'2020-01-01 00:00:00+00'::timestamp with time zone", "timestamp with time zone", nil),
            ("'open'::mood", "mood", "'open'"), ("'0'::money", "money", nil), ("'NaN'::double precision", "double precision", nil),
            ("'-0'::double precision", "double precision", nil), ("'\\xzz'::bytea", "bytea", nil), ("'", "text", nil),
            ("CURRENT_TIMESTAMP", "timestamp with time zone", "(strftime('%Y-%m-%d %H:%M:%f000Z', 'now'))"),
        ] as [(String, String, String?)])
    func defaults(text: String, type: String, expected: String?) {
        #expect(DefaultTranslation.translate(text, type: LogicalType(name: type)) == expected)
    }
}

import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

@Suite struct CatalogTests {
    @Test("a table's schema is read whole")
    func wholeTable() async throws {
        let cluster = try PostgresCluster.shared
        let uri = try await cluster.makeDatabase("catalog")
        try await cluster.psql(
            uri,
            """
            CREATE SCHEMA app; CREATE TYPE app.mood AS ENUM ('sad', 'ok'); CREATE DOMAIN app.positive AS int CHECK (VALUE > 0);
            CREATE TABLE app.parent(a int, b int, PRIMARY KEY (b, a));
            CREATE TABLE app."Odd ""Name"(
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n numeric(10,2) NOT NULL DEFAULT 1.5,
                code varchar(20) COLLATE "C" UNIQUE DEFERRABLE, mood app.mood, count app.positive, gone int,
                at timestamptz(3), doubled numeric GENERATED ALWAYS AS (n * 2) STORED, pa int, pb int, tags text[],
                CHECK (n > 0), CONSTRAINT fk FOREIGN KEY (pb, pa) REFERENCES app.parent(b, a) ON DELETE CASCADE DEFERRABLE);
            ALTER TABLE app."Odd ""Name" DROP COLUMN gone;
            CREATE UNIQUE INDEX odd ON app."Odd ""Name" (lower(code), n DESC) INCLUDE (pa) WHERE n > 3;
            """)
        let tables = try await BlockingWork().run { () throws(BridgeError) in
            let connection = try PostgresConnection(try ConnectionString(uri))
            return try PostgresCatalog(connection).describeTables([
                TableName(schema: "app", name: "missing"), TableName(schema: "app", name: "Odd \"Name"),
                TableName(schema: "app", name: "parent"),
            ])
        }
        #expect(tables.map(\.name.name) == ["Odd \"Name", "parent"])
        let table = try #require(tables.first)
        #expect(
            table.columns.map(\.name) == ["id", "n", "code", "mood", "count", "at", "doubled", "pa", "pb", "tags"])
        #expect(table.primaryKey == ["id"] && table.identity == ["id"])
        #expect(table.column(named: "id")?.identity == .always)
        #expect(table.column(named: "n")?.type == .numeric(precision: 10, scale: 2))
        #expect(table.column(named: "n")?.defaultExpression == "1.5")
        #expect(table.column(named: "n")?.isNotNull == true)
        #expect(table.column(named: "code")?.type == .varchar(20))
        #expect(table.column(named: "code")?.collation == "pg_catalog.\"C\"")
        #expect(table.column(named: "mood")?.type == .other("app.mood"))
        #expect(table.column(named: "count")?.typeName == "app.positive")
        #expect(table.column(named: "count")?.type == .int32)
        #expect(table.column(named: "at")?.type == .timestampWithTimeZone)
        #expect(table.column(named: "doubled")?.generation == .stored("(n * (2)::numeric)"))
        #expect(table.column(named: "tags")?.type == .other("text[]"))
        #expect(table.checks.map(\.expression) == ["n > 0::numeric"])
        let key = try #require(table.foreignKeys.first)
        #expect(key.columns == ["pb", "pa"] && key.referencedColumns == ["b", "a"])
        #expect(key.referencedTable == TableName(schema: "app", name: "parent"))
        #expect(key.onDelete == "CASCADE" && key.isDeferrable && !key.isInitiallyDeferred)
        let unique = try #require(table.indexes.first { $0.name == "odd" })
        #expect(unique.isUnique && unique.predicate == "n > 3::numeric" && unique.parts.count == 2)
        #expect(unique.parts[0].column == nil && unique.parts[0].expression == "lower(code::text)")
        #expect(unique.parts[1].column == "n" && unique.parts[1].isDescending)
        #expect(unique.definition?.contains("INCLUDE (pa)") == true)
        let constraint = try #require(table.indexes.first { $0.constraintName != nil })
        #expect(constraint.definition == "UNIQUE (code) DEFERRABLE")
        #expect(tables.last?.primaryKey == ["b", "a"])
    }

    @Test("identity follows the replica identity, names without schema the role's search path")
    func identities() async throws {
        let cluster = try PostgresCluster.shared
        let uri = try await cluster.makeDatabase("catalog")
        try await cluster.psql(
            uri,
            """
            CREATE SCHEMA other; CREATE TABLE other.t(a int PRIMARY KEY); CREATE TABLE public.t(b int PRIMARY KEY);
            CREATE TABLE u(a int NOT NULL, b int NOT NULL, c int PRIMARY KEY);
            CREATE UNIQUE INDEX ui ON u(b, a); ALTER TABLE u REPLICA IDENTITY USING INDEX ui;
            CREATE TABLE f(a int, b int); ALTER TABLE f REPLICA IDENTITY FULL;
            CREATE TABLE n(a int PRIMARY KEY); ALTER TABLE n REPLICA IDENTITY NOTHING;
            CREATE TABLE d(a int PRIMARY KEY DEFERRABLE);
            CREATE VIEW v AS SELECT 1 AS a;
            CREATE ROLE pathfinder LOGIN; GRANT USAGE ON SCHEMA other TO pathfinder; ALTER ROLE pathfinder SET search_path = nowhere, other, public;
            """)
        let found = try await BlockingWork().run { () throws(BridgeError) in
            let own = try PostgresConnection(try ConnectionString(uri))
            let role = try PostgresConnection(
                try ConnectionString(uri.replacing("postgres@", with: "pathfinder@")))
            let names = ["t", "u", "f", "n", "d", "v"].map { TableName(name: $0) }
            return (try PostgresCatalog(own).describeTables(names), try PostgresCatalog(role).describeTables([names[0]]))
        }
        #expect(found.0.map(\.name.name) == ["t", "u", "f", "n", "d"])
        #expect(found.0.map(\.identity) == [["b"], ["b", "a"], ["a", "b"], [], []])
        #expect(found.1.map(\.name.description) == ["other.t"])
    }

    @Test("arrays of names survive their text form")
    func arrays() {
        for names in [[], [""], ["a"], ["a,b", "c\"d", "e\\f", "{}", "NULL", "ü"], ["", ""]] as [[String]] {
            #expect(ArrayLiteral.elements(ArrayLiteral.make(names.map { Optional($0) })) == names)
        }
    }
}

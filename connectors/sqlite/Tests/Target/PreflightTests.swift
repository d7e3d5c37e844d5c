import BridgeCore
import BridgeSQLite
import BridgeTestSupport
import Glibc
import Testing

@Suite struct PreflightTests {
    static let postgres = EngineName(rawValue: "postgresql")
    static let source = TableSchema(
        engine: postgres, name: TableName(schema: "public", name: "users"),
        columns: [
            ColumnSchema(name: "id", typeName: "bigint", type: .int64, isNotNull: true),
            ColumnSchema(name: "email", typeName: "text", type: .text),
            ColumnSchema(name: "shout", typeName: "text", type: .text, generation: .stored("upper(email)")),
        ], primaryKey: ["id"])
    static let link = LinkDescription(
        migration: "shop", direction: .forward,
        mappings: [TableMapping(source: source.name, target: TableName(name: "users"))], form: .canonical)

    private func findings(_ sql: String) async throws -> [Finding] {
        let fixture = try TargetFixture("PRAGMA user_version = 1; " + sql)
        let files = try contents(fixture)
        let found = try await fixture.target.preflight(Self.link, sources: [Self.source])
        await fixture.target.close()
        #expect(try contents(fixture) == files, "preflight changed the file")
        return found.filter { !($0.severity == .warning && $0.code == .serverSettings) }
    }

    private func contents(_ fixture: TargetFixture) throws -> String {
        try TemporaryDirectory.readFile(fixture.path)
    }

    @Test("a table that fits has no findings")
    func fits() async throws {
        #expect(try await findings("CREATE TABLE Users(ID INTEGER PRIMARY KEY, email VARCHAR(20), x DEFAULT 1)") == [])
        #expect(try await findings("CREATE TABLE users(k INTEGER PRIMARY KEY, id INT NOT NULL UNIQUE, email TEXT)") == [])
    }

    @Test(
        "P10 S2 what makes a run impossible is found before it",
        arguments: [
            ("CREATE TABLE other(id)", ErrorCode.targetTableMissing),
            ("CREATE VIEW users AS SELECT 1 AS id, 2 AS email", .targetTableMismatch),
            ("CREATE VIRTUAL TABLE users USING fts5(id, email)", .targetTableMismatch),
            ("CREATE TABLE users(id INTEGER PRIMARY KEY)", .targetTableMismatch),
            ("CREATE TABLE users(id INTEGER PRIMARY KEY, email INTEGER) STRICT", .targetTableMismatch),
            ("CREATE TABLE users(id INTEGER, email TEXT)", .targetTableMismatch),
            ("CREATE TABLE users(id INTEGER, email TEXT, PRIMARY KEY(id, email))", .targetTableMismatch),
            ("CREATE TABLE users(id INTEGER, email TEXT); CREATE UNIQUE INDEX i ON users(id) WHERE id > 5", .targetTableMismatch),
            ("CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT, must TEXT NOT NULL)", .targetTableMismatch),
            ("CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT); INSERT INTO users VALUES(1, 'a')", .targetTableNotEmpty),
            ("PRAGMA encoding = 'UTF-16'; CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT)", .serverSettings),
        ])
    func obstacles(sql: String, code: ErrorCode) async throws {
        // The encoding can be chosen before the first table only.
        let fixture = try TargetFixture()
        try fixture.execute(sql)
        let found = try await fixture.target.preflight(Self.link, sources: [Self.source])
        let blocking = found.filter { $0.severity == .blocking }
        #expect(blocking.map(\.code) == [code])
        #expect(blocking.allSatisfy { !$0.mend.isEmpty && !$0.why.isEmpty })
    }

    @Test("preflight of a missing file makes none, and names every table")
    func missingFile() async throws {
        let fixture = try TargetFixture()
        try await fixture.target.connect()
        #expect(try await fixture.target.preflight(Self.link, sources: [Self.source]).map(\.code) == [.targetTableMissing])
        #expect(try await fixture.target.linkState(Self.link) == nil)
        #expect(try await fixture.target.listTables() == [])
        try await fixture.target.removeLink(Self.link)
        #expect(access(fixture.path, F_OK) != 0)
        let nowhere = SQLiteTarget(path: fixture.folder.path("no/such/folder.db"))
        #expect(await failure { try await nowhere.connect() }?.code == .serverUnreachable)
    }

    @Test("a file that is no database is refused")
    func notADatabase() async throws {
        let fixture = try TargetFixture()
        try fixture.folder.write("target.db", String(repeating: "not a database ", count: 100))
        #expect(await failure { try await fixture.target.connect() } != nil)
    }
}

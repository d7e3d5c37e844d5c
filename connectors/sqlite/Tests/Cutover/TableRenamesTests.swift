import BridgeCore
import BridgeTestSupport
import GRDB
import Testing

@testable import BridgeSQLite

/// Old tables that get new names when a migration is completed.
@Suite("SQLite cutover: new names of old tables")
struct TableRenamesTests {
    private static let schema = """
        CREATE TABLE T(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT UNIQUE); CREATE TABLE u(a INTEGER PRIMARY KEY); INSERT INTO u VALUES(3);
        CREATE TABLE child(a INTEGER PRIMARY KEY, t INTEGER REFERENCES t(a));
        CREATE INDEX i ON t(b); CREATE VIEW seen AS SELECT t.b FROM t JOIN u ON t.a = u.a;
        CREATE TRIGGER own AFTER INSERT ON u BEGIN INSERT INTO t(a, b) VALUES(NEW.a, 'from u'); END;
        INSERT INTO t VALUES(1, 'x');
        """
    private static let tables = ["T", "u"]
    private static let old = tables.map { OldTable(TableName(name: $0), migration: "shop") }

    private static func fixture(_ more: String = "", isForGood: Bool = true) async throws -> CutoverFixture {
        let fixture = try await CutoverFixture(schema + more)
        try await fixture.session.raise(Fence(tables, lease: isForGood ? nil : .seconds(3_600)), patience: .seconds(10))
        return fixture
    }

    @Test("C23 old tables get their new names with all that refers to them, the fence holds on, and is found to be removed")
    func renamed() async throws {
        let fixture = try await Self.fixture()
        let before = try fixture.schema()
        try await fixture.session.rename(Self.old, isTrial: true)
        #expect(try fixture.schema() == before)
        try await fixture.session.rename(Self.old, isTrial: false)
        func tables() throws -> [String?] {
            try fixture.database.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%_before_shop' ORDER BY 1").map { $0[0] }
        }
        #expect(try tables() == ["T_before_shop", "u_before_shop"])
        #expect(try fixture.database.rows("SELECT 1 FROM sqlite_master WHERE type <> 'trigger' AND name IN ('T', 'u')").isEmpty)
        for statement in ["INSERT INTO T_before_shop VALUES(2, 'y')", "DELETE FROM u_before_shop", "UPDATE T_before_shop SET b = 'z'"] {
            #expect(try refusal(fixture.database.application, statement)?.message?.hasPrefix("bridge fence") == true, "\(statement)")
        }
        // Again, with a table of others under a name that is free, before and after the fence is gone.
        try fixture.database.run("CREATE TABLE t(other TEXT)")
        try await fixture.session.rename(Self.old, isTrial: false)
        try await fixture.session.removeAll()
        try await fixture.session.rename(Self.old, isTrial: false)
        let left = try fixture.schema().filter { $0.contains("_bridge") }
        #expect(left.isEmpty, "\(left)")
        try fixture.database.run("PRAGMA foreign_keys = ON; INSERT INTO u_before_shop VALUES(5); INSERT INTO t VALUES('other')")
        #expect(try fixture.database.rows("SELECT b FROM T_before_shop ORDER BY a").map { $0["b"] as String? } == ["x", "from u"])
        #expect(try fixture.database.rows("SELECT b FROM seen").map { $0["b"] as String? } == ["from u"])
        #expect(try refusal(fixture.database.application, "INSERT INTO child VALUES(1, 9)") != nil)
        try fixture.database.run("INSERT INTO child VALUES(1, 5); INSERT INTO T_before_shop(b) VALUES('next')")
        #expect(try fixture.database.rows("SELECT a FROM T_before_shop WHERE b = 'next'").map { $0["a"] as Int64? } == [6])
        #expect(try fixture.database.rows("PRAGMA integrity_check").map { $0[0] as String? } == ["ok"])
        await fixture.close()
    }

    @Test("C23 a new name that anything has is refused, and no table is renamed", arguments: [
        "CREATE TABLE U_BEFORE_shop(a);", "CREATE VIEW u_before_shop AS SELECT 1;", "CREATE INDEX u_before_shop ON child(t);",
    ])
    func taken(_ statement: String) async throws {
        let fixture = try await Self.fixture(statement)
        let before = try fixture.schema()
        for isTrial in [true, false] {
            let error = await failure { try await fixture.session.rename(Self.old, isTrial: isTrial) }
            #expect(error?.code == .configurationInvalid && error?.message.contains("u_before_shop") == true, "\(String(describing: error))")
            #expect(error?.hint.contains("old_tables") == true)
        }
        #expect(try fixture.schema() == before)
        await fixture.close()
    }

    @Test("C23 a view or a trigger that a rename would find broken makes it refuse, and nothing is changed", arguments: [
        "CREATE VIEW broken AS SELECT absent FROM gone;", "CREATE VIEW broken AS SELECT t.absent FROM t;",
        "CREATE TRIGGER broken AFTER DELETE ON child BEGIN INSERT INTO gone VALUES(1); END;",
    ])
    func broken(_ statement: String) async throws {
        let fixture = try await Self.fixture(statement)
        let before = try fixture.schema()
        for isTrial in [true, false] {
            let error = await failure { try await fixture.session.rename(Self.old, isTrial: isTrial) }
            #expect(error?.code == .configurationInvalid, "\(String(describing: error))")
            #expect(error?.context.contains { $0.key == .detail && $0.value.contains("broken") } == true, "\(String(describing: error))")
        }
        #expect(try fixture.schema() == before)
        try fixture.database.run(statement.contains("VIEW") ? "DROP VIEW broken" : "DROP TRIGGER broken")
        try await fixture.session.rename(Self.old, isTrial: false)
        await fixture.close()
    }

    @Test("C23 a table without the fence that is for good is not renamed", arguments: ["leased", "dropped and made again", "another's"])
    func unfenced(_ what: String) async throws {
        let fixture = try await Self.fixture(isForGood: what != "leased")
        if what == "dropped and made again" { try fixture.database.run("DROP TABLE t; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)") }
        let session = what == "another's" ? try await fixture.another(migration: "stranger") : fixture.session
        let before = try fixture.schema()
        for isTrial in [true, false] {
            let error = await failure { try await session.rename(Self.old, isTrial: isTrial) }
            #expect(error?.code == .configurationInvalid && error?.message.contains("not fenced") == true, "\(String(describing: error))")
        }
        #expect(try fixture.schema() == before)
        if what == "another's" { await session.close() }
        await fixture.close()
    }
}

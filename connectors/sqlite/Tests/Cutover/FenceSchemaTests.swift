import BridgeCore
import BridgeTestSupport
import GRDB
import Testing

@testable import BridgeSQLite

/// What no trigger sees: changes of the schema.
@Suite("SQLite fence: changes of the schema")
struct FenceSchemaTests {
    static let schema = """
        CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT); CREATE TABLE u(a INTEGER PRIMARY KEY); CREATE INDEX i ON t(b);
        CREATE TRIGGER own AFTER INSERT ON t WHEN NEW.a < 0 BEGIN DELETE FROM u; END;
        INSERT INTO t VALUES(1, 'x');
        """

    /// A rebuild that saves the triggers' text, and makes them again as they were.
    static func rebuild(_ database: TestDatabase, changing: String) throws {
        let triggers = try database.rows("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 't' ORDER BY rowid")
            .compactMap { $0["sql"] as String? }
        try database.run(
            "BEGIN; CREATE TABLE new(a INTEGER PRIMARY KEY, b TEXT); INSERT INTO new SELECT a, \(changing) FROM t; DROP TABLE t; "
                + "ALTER TABLE new RENAME TO t; CREATE INDEX i ON t(b);")
        for trigger in triggers { try database.run(trigger) }
        try database.run("COMMIT")
    }

    static let changes: [(String, String)] = [
        ("DROP TABLE t", "t: the table was dropped or renamed"),
        ("ALTER TABLE t RENAME TO t2", "t: the table was dropped or renamed"),
        ("ALTER TABLE t ADD COLUMN c", "t: the table, or an index or a trigger on it, was altered"),
        ("ALTER TABLE t RENAME COLUMN b TO c", "t: the table, or an index or a trigger on it, was altered"),
        ("DROP INDEX i; ALTER TABLE t DROP COLUMN b", "t: the table, or an index or a trigger on it, was altered"),
        ("CREATE UNIQUE INDEX j ON t(b)", "t: the table, or an index or a trigger on it, was altered"),
        ("DROP TRIGGER own", "t: the table, or an index or a trigger on it, was altered"),
        ("DROP TRIGGER \"_bridge_fence-shop:t:update\"", "t: a trigger of the fence is gone"),
        ("DROP TRIGGER \"_bridge_fence-shop:u:order\"", "u: a trigger of the fence is gone"),
        ("DROP TABLE t; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)", "t: a trigger of the fence is gone"),
        ("rebuild", "t: the table, or an index"),
        ("rebuild as it was", "t: the triggers of the fence were dropped and made again"),
        ("DELETE FROM _bridge_fence WHERE tbl = 't'", "u is fenced, t is not"),
    ]

    @Test("C4 S14 DDL on a fenced table is found, whether the fence is leased or permanent", arguments: changes.indices, [false, true])
    func changesOfTables(change: Int, permanent: Bool) async throws {
        let fixture = try await CutoverFixture(Self.schema)
        let (sql, expected) = Self.changes[change]
        try await fixture.session.raise(Fence(["t", "u"], lease: permanent ? nil : .seconds(3_600)), patience: .seconds(10))
        #expect(try await fixture.session.facts(of: names(["t", "u"])).unfenceable.isEmpty)
        switch sql {
        case "rebuild":
            try Self.rebuild(fixture.database, changing: "b || 'changed'")
            try fixture.database.run("ALTER TABLE t ADD COLUMN c")
            #expect(try await fixture.session.fence(on: names(["t", "u"])).word.hasPrefix("mixed: t: "))
            await fixture.close()
            return
        case "rebuild as it was": try Self.rebuild(fixture.database, changing: "b || 'changed'")
        default: try fixture.database.run(sql)
        }
        #expect(try await fixture.session.fence(on: names(["t", "u"])).word.hasPrefix("mixed: " + expected))
        if !expected.hasSuffix("is not") {
            #expect(try await fixture.session.facts(of: names(["t", "u"])).unfenceable.count == 1)
        }
        if !permanent {
            let error = await failure {
                try await fixture.session.makePermanent(attempt: "first", tables: names(["t", "u"]), margin: .zero)
            }
            #expect(error?.code == .fenceExpired)
            #expect(error?.value(.detail)?.hasPrefix(expected) == true)
        }
        // By its attempt only as long as there is a way back; then it can be removed all the same, and what was made goes.
        try await fixture.session.removeFence(attempt: "first", tables: names(["t", "u"]))
        #expect(try await (fixture.session.fence(on: names(["t", "u"])) == .none) == !permanent)
        try await fixture.session.removeFence(attempt: nil, tables: names(["t", "u"]))
        #expect(try await fixture.session.fence(on: names(["t", "u"])) == .none)
        #expect(try fixture.database.integer("SELECT count(*) FROM sqlite_master WHERE name LIKE '%bridge_fence-%'") == 0)
        await fixture.close()
    }

    @Test("S14 any DDL during the pause shows in the schema cookie; where the fence is permanent it does not matter")
    func otherChanges() async throws {
        for sql in ["CREATE TABLE other(a)", "VACUUM", "ANALYZE", "CREATE VIEW v AS SELECT 1"] {
            let fixture = try await CutoverFixture(Self.schema)
            try await fixture.session.raise(Fence(["t", "u"]), patience: .seconds(10))
            try fixture.database.run(sql)
            #expect(
                try await fixture.session.fence(on: names(["t", "u"])).word
                    == "mixed: the database's schema was changed while the fence stood", "\(sql)")
            // Not renewed, but raised anew.
            let error = await failure { try await fixture.session.raise(Fence(["t", "u"]), patience: .seconds(10)) }
            #expect(error?.code == .fenceExpired)
            try await fixture.session.removeFence(attempt: "first", tables: names(["t", "u"]))
            try await fixture.session.raise(Fence(["t", "u"], lease: nil), patience: .seconds(10))
            #expect(try await fixture.session.fence(on: names(["t", "u"])) == .permanent(attempt: "first"), "\(sql)")
            try fixture.database.run(sql == "VACUUM" || sql == "ANALYZE" ? sql : "CREATE TABLE another(a)")
            #expect(try await fixture.session.fence(on: names(["t", "u"])) == .permanent(attempt: "first"), "\(sql)")
            #expect(try attempt(fixture.database.application, "INSERT INTO t VALUES(9, 'q')") != nil)
            await fixture.close()
        }
    }

    @Test("S14 what bridge itself makes while a fence stands is no change of the schema")
    func ownChanges() async throws {
        let fixture = try await CutoverFixture(Self.schema)
        let other = try await fixture.another(migration: "other")
        try await fixture.session.raise(Fence(["t"]), patience: .seconds(10))
        try await other.raise(Fence(["u"]), patience: .seconds(10))
        try await fixture.session.takeLease(owner: "me", lasting: .seconds(60))
        try await other.removeAll()
        #expect(try await fixture.session.fence(on: names(["t"])).word == "leased first")
        // So are the records of a link that ends here, and a capture.
        let target = SQLiteTarget(path: fixture.database.path)
        _ = try await target.prepareLink(LinkDescription(migration: "back", direction: .reverse, mappings: [], form: .native))
        #expect(try await fixture.session.fence(on: names(["t"])).word == "leased first")
        let another = SQLiteSource(path: fixture.database.path)
        let link = LinkDescription(migration: "another", direction: .forward, mappings: forwardLink(["u"]).mappings, form: .native)
        _ = try await another.prepareCapture(link, replacingLeftovers: false)
        try await another.removeCapture(link)
        #expect(try await fixture.session.fence(on: names(["t"])).word == "leased first")
        await another.close()
        await target.close()
        // Capture for the way back is made on a database that is closed for good.
        try await fixture.session.makePermanent(attempt: "first", tables: names(["t"]), margin: .zero)
        let source = SQLiteSource(path: fixture.database.path)
        _ = try await source.prepareCapture(forwardLink(["t", "u"]), replacingLeftovers: false)
        #expect(try await fixture.session.fence(on: names(["t"])) == .permanent(attempt: "first"))
        #expect(try attempt(fixture.database.application, "INSERT INTO t VALUES(9, 'q')")?.message?.hasPrefix("bridge fence: ") == true)
        #expect(try fixture.database.integer("SELECT count(*) FROM _bridge_test_log") == 1)
        await source.close()
        await fixture.close()
    }
}

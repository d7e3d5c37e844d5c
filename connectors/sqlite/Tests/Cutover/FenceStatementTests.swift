import BridgeCore
import BridgeTestSupport
import GRDB
import Testing

@testable import BridgeSQLite

/// Every kind of statement against a fence, through connections that know nothing of bridge.
@Suite("SQLite fence: statements")
struct FenceStatementTests {
    static let schema = """
        CREATE TABLE plain(a INTEGER PRIMARY KEY, b TEXT UNIQUE, c INT);
        CREATE TABLE counted(a INTEGER PRIMARY KEY AUTOINCREMENT, b);
        CREATE TABLE keyed(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
        CREATE TABLE exact(a INTEGER PRIMARY KEY, b TEXT) STRICT;
        CREATE TABLE made(a INTEGER PRIMARY KEY, b INT, c INT AS (b * 2) STORED, d AS (b + 1) UNIQUE);
        CREATE TABLE "odd ""name'"(a INTEGER PRIMARY KEY, "NEW" TEXT);
        CREATE TABLE parent(a INTEGER PRIMARY KEY);
        CREATE TABLE child(a INTEGER PRIMARY KEY, p INT REFERENCES parent(a) ON DELETE CASCADE ON UPDATE CASCADE);
        CREATE TABLE owner(a INTEGER PRIMARY KEY, n INT UNIQUE);
        CREATE TABLE owned(a INTEGER PRIMARY KEY, o INT DEFAULT 5 REFERENCES owner(n) ON DELETE SET NULL ON UPDATE SET DEFAULT);
        CREATE TABLE free(a INTEGER PRIMARY KEY, b);
        CREATE TRIGGER spill AFTER INSERT ON free BEGIN INSERT OR IGNORE INTO plain(b) VALUES('f' || NEW.a); END;
        CREATE TRIGGER drain BEFORE DELETE ON free BEGIN DELETE FROM plain WHERE a = OLD.a; END;
        CREATE VIEW pane AS SELECT a, b FROM plain;
        CREATE TRIGGER through INSTEAD OF UPDATE ON pane BEGIN UPDATE plain SET b = NEW.b WHERE a = OLD.a; END;
        CREATE TRIGGER inward INSTEAD OF INSERT ON pane BEGIN INSERT INTO plain(a, b) VALUES(NEW.a, NEW.b); END;
        CREATE TRIGGER outward INSTEAD OF DELETE ON pane BEGIN DELETE FROM plain WHERE a = OLD.a; END;
        INSERT INTO plain VALUES(1, 'x', 1), (2, 'y', 2); INSERT INTO counted VALUES(1, 'x');
        INSERT INTO keyed VALUES('k', 1); INSERT INTO exact VALUES(1, 'x'); INSERT INTO made(a, b) VALUES(1, 1);
        INSERT INTO "odd ""name'" VALUES(1, 'x');
        INSERT INTO parent VALUES(1); INSERT INTO child VALUES(1, 1);
        INSERT INTO owner VALUES(1, 1), (2, 5); INSERT INTO owned VALUES(1, 1);
        INSERT INTO free(a) SELECT 1 WHERE 0;
        """

    static let fenced = ["plain", "counted", "keyed", "exact", "made", "odd \"name'", "child", "owned"]

    /// Each of them changes a fenced table where there is no fence.
    static let statements = [
        "INSERT INTO plain VALUES(3, 'z', 3)",
        "INSERT INTO plain(b) VALUES('z')",
        "INSERT INTO plain DEFAULT VALUES",
        "INSERT OR IGNORE INTO plain VALUES(3, 'z', 3)",
        "INSERT OR FAIL INTO plain VALUES(3, 'z', 3)",
        "INSERT OR ROLLBACK INTO plain VALUES(3, 'z', 3)",
        "INSERT OR REPLACE INTO plain VALUES(3, 'x', 3)",
        "REPLACE INTO plain VALUES(1, 'y', 3)",
        "INSERT INTO plain VALUES(1, 'z', 3) ON CONFLICT(a) DO UPDATE SET c = 9",
        "INSERT INTO plain VALUES(3, 'x', 3) ON CONFLICT(b) DO UPDATE SET c = 9 WHERE plain.c = 1",
        "INSERT INTO plain VALUES(3, 'q', 3) ON CONFLICT DO NOTHING",
        "INSERT INTO plain SELECT a + 10, b || 'q', c FROM plain",
        "INSERT INTO plain VALUES(3, 'z', 3) RETURNING a",
        "WITH s(n) AS (VALUES(7)) INSERT INTO plain SELECT n, 'w', n FROM s",
        "UPDATE plain SET c = c + 1",
        "UPDATE plain SET a = a + 10",
        "UPDATE plain SET rowid = 40 WHERE a = 1",
        "UPDATE OR IGNORE plain SET b = 'z' WHERE a = 1",
        "UPDATE OR REPLACE plain SET b = 'y' WHERE a = 1",
        "UPDATE OR REPLACE plain SET a = 2 WHERE a = 1",
        "UPDATE plain SET c = counted.a FROM counted WHERE counted.a = plain.a",
        "DELETE FROM plain",
        "DELETE FROM plain WHERE a = 1",
        "DELETE FROM plain WHERE a = 1 RETURNING a",
        "INSERT INTO counted(b) VALUES('z')", "REPLACE INTO counted VALUES(1, 'q')", "DELETE FROM counted",
        "INSERT INTO keyed VALUES('l', 1)", "REPLACE INTO keyed VALUES('k', 2)", "UPDATE keyed SET v = 5", "DELETE FROM keyed",
        "INSERT OR IGNORE INTO exact VALUES(2, 'y')", "UPDATE exact SET b = 'y'", "DELETE FROM exact",
        "INSERT INTO made(a, b) VALUES(2, 2)", "UPDATE made SET b = 4", "REPLACE INTO made(a, b) VALUES(9, 1)", "DELETE FROM made",
        "INSERT INTO \"odd \"\"name'\" VALUES(2, 'y')", "UPDATE \"odd \"\"name'\" SET \"NEW\" = 'q'",
        "DELETE FROM \"odd \"\"name'\"",
        // Foreign keys' actions on a fenced table, begun at one that is not.
        "DELETE FROM parent", "UPDATE parent SET a = 2 WHERE a = 1", "REPLACE INTO parent VALUES(1)", "DELETE FROM owner WHERE a = 1",
        "UPDATE owner SET n = 9 WHERE a = 1", "DROP TABLE parent",
        // Triggers of the application that lead to a fenced table.
        "INSERT INTO free(a) VALUES(9)", "INSERT OR IGNORE INTO free(a) VALUES(9)",
        "UPDATE pane SET b = 'z' WHERE a = 1", "INSERT INTO pane VALUES(9, 'z')", "DELETE FROM pane WHERE a = 1",
    ]

    @Test(
        "C4 S14 every statement that writes a fenced table is refused, through connections from before and after, and another process",
        arguments: ["WAL", "DELETE", "TRUNCATE"], [false, true])
    func everyStatement(journalMode: String, recursive: Bool) async throws {
        let fixture = try await CutoverFixture(Self.schema, journalMode: journalMode)
        let path = fixture.database.path
        let pragmas = "PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = \(recursive ? "ON" : "OFF");"
        let before = try TestDatabase.open(path, setUp: pragmas)
        for sql in Self.statements {
            let error = try refusal(before, sql)
            #expect(error == nil, "without a fence: \(sql)")
        }
        let picture = try Self.fenced.map { try fixture.database.rows("SELECT * FROM \(quoteIdentifier($0))") }
        try await fixture.session.raise(Fence(Self.fenced), patience: .seconds(10))
        #expect(try await fixture.session.fence(on: names(Self.fenced)).word == "leased first")
        // A schema that distrusts its own triggers takes no functions but harmless ones.
        let after = try TestDatabase.open(path, setUp: pragmas + "PRAGMA trusted_schema = OFF;")
        for (connection, which) in [(before, "before"), (after, "after")] {
            for sql in Self.statements {
                let error = try refusal(connection, sql)
                #expect(error?.extendedResultCode == .SQLITE_CONSTRAINT_TRIGGER, "\(which): \(sql): \(String(describing: error))")
                #expect(error?.message?.hasPrefix("bridge fence: ") == true, "\(which): \(sql)")
            }
            try connection.close()
        }
        for sql in Self.statements {
            let child = try ChildProcess(["sqlite3", "-bail", "-cmd", ".timeout 10000", path], input: pragmas + sql + ";")
            let outcome = await child.wait()
            #expect(outcome.status != 0 && outcome.errors.contains("bridge fence: "), "\(sql): \(outcome.errors)")
        }
        #expect(try Self.fenced.map { try fixture.database.rows("SELECT * FROM \(quoteIdentifier($0))") } == picture)
        // What is not fenced goes on.
        #expect(try attempt(fixture.database.application, "INSERT INTO parent VALUES(7); UPDATE parent SET a = 8 WHERE a = 7") == nil)
        try await fixture.session.removeFence(attempt: "first", tables: names(Self.fenced))
        let later = try TestDatabase.open(path, setUp: pragmas)
        for sql in Self.statements {
            let error = try refusal(later, sql)
            #expect(error == nil, "unfenced: \(sql)")
        }
        try later.close()
        await fixture.close()
    }

    @Test("C5 the message names migration, service and routing epoch, and bears a code of its own")
    func message() async throws {
        let fixture = try await CutoverFixture("CREATE TABLE t(a INTEGER PRIMARY KEY)", migration: "shop-users")
        let fence = Fence(attempt: "x", tables: [TableName(name: "t"): "it's odd"], epoch: 41, lease: nil)
        try await fixture.session.raise(fence, patience: .seconds(10))
        let error = try #require(try attempt(fixture.database.application, "INSERT INTO t VALUES(1)"))
        #expect(error.extendedResultCode == .SQLITE_CONSTRAINT_TRIGGER)
        let message = try #require(error.message)
        #expect(message.hasPrefix("bridge fence: "))
        for word in ["migration shop-users", "service it's odd", "epoch 41"] { #expect(message.contains(word), "\(message)") }
        await fixture.close()
    }

    @Test("C4 writes through an attached database, and statements compiled before the fence, are refused")
    func attachedAndCached() async throws {
        let fixture = try await CutoverFixture("CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 1)")
        let other = try TestDatabase("CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE _bridge_fence(tbl)")
        try other.run("ATTACH \(quoteLiteral(fixture.database.path)) AS x")
        #expect(try attempt(other.application, "UPDATE x.t SET b = 2") == nil)
        let update = "UPDATE t SET b = b + 1"
        #expect(try attemptCached(fixture.database.application, update) == nil)
        try await fixture.session.raise(Fence(["t"]), patience: .seconds(10))
        #expect(try attempt(other.application, "UPDATE x.t SET b = 2")?.message?.hasPrefix("bridge fence: ") == true)
        #expect(try attempt(other.application, "UPDATE main.t SET b = 2") == nil)
        // A temporary table of the fence's name is not what the fence asks.
        try other.run("CREATE TEMP TABLE _bridge_fence(tbl, passed, expires)")
        #expect(try attempt(other.application, "INSERT INTO x.t VALUES(5, 5)") != nil)
        #expect(try attemptCached(fixture.database.application, update) != nil)
        await fixture.close()
    }

    @Test(
        "C4 triggers of the application that skip rows, older or newer than the fence, let nothing through",
        arguments: [false, true], ["main", "temp"])
    func skippingTriggers(newer: Bool, schema: String) async throws {
        let fixture = try await CutoverFixture(
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a INTEGER PRIMARY KEY); INSERT INTO t VALUES(1, 1)")
        let application = fixture.database.application
        let temporary = schema == "temp" ? "TEMP" : ""
        let make = { @Sendable () throws in
            for event in ["INSERT", "UPDATE", "DELETE"] {
                // One row is skipped, another leads to a write of the same table and of another.
                try fixture.database.run(
                    """
                    CREATE \(temporary) TRIGGER s\(event) BEFORE \(event) ON main.t BEGIN
                      SELECT RAISE(IGNORE) WHERE \(event == "DELETE" ? "OLD" : "NEW").a = 1;
                      INSERT OR IGNORE INTO u VALUES(1); INSERT OR IGNORE INTO t VALUES(100, 100);
                    END
                    """)
            }
        }
        if !newer { try make() }
        try await fixture.session.raise(Fence(["t", "u"]), patience: .seconds(10))
        if newer { try make() }
        for sql in [
            "INSERT OR REPLACE INTO t VALUES(1, 2)", "INSERT INTO t VALUES(2, 2)", "UPDATE t SET b = 3", "DELETE FROM t",
            "INSERT OR IGNORE INTO t VALUES(2, 2), (1, 9)", "UPDATE t SET a = 2",
        ] {
            _ = try attempt(application, sql)
            #expect(try fixture.database.rows("SELECT * FROM t").map(\.description) == ["[a:1 b:1]"], "\(sql)")
            #expect(try fixture.database.integer("SELECT count(*) FROM u") == 0, "\(sql)")
        }
        await fixture.close()
    }

    @Test("C4 S11 appliers write through a fence, also those that were at work before it")
    func appliers() async throws {
        let relation = ApplyTests.users
        let fixture = try TargetFixture(ApplyTests.usersTable)
        let link = fixture.link([relation])
        let applier = try await fixture.applier([relation])
        try await applier.apply(BatchWriter([relation]).transaction(10) { $0.insert(7, [1, "a", "x"]) }.batch())
        let session = try await fixture.target.openCutover(migration: "shop")
        try await session.raise(Fence(["users"], lease: nil), patience: .seconds(10))
        #expect(throws: DatabaseError.self) { try fixture.execute("UPDATE users SET bio = 'q'") }
        try await applier.apply(BatchWriter([relation]).transaction(20) { writer in
            writer.insert(7, [2, "b", "y"])
            writer.update(7, to: [1, "a2", "x2"])
        }.batch())
        await applier.close()
        let second = try await fixture.target.openApplier(link)
        try await second.apply(BatchWriter([relation]).transaction(30) { $0.delete(7, key: [2, .absent, .absent]) }.batch())
        await second.close()
        #expect(try fixture.rows("SELECT id, email, bio FROM users") == ["i:1|t:a2|t:x2"])
        #expect(try await session.fence(on: names(["users"])) == .permanent(attempt: "first"))
        await session.close()
    }
}

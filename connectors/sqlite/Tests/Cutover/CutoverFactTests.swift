import BridgeCore
import BridgeTestSupport
import GRDB
import Testing

@testable import BridgeSQLite

@Suite("SQLite cutover: sequences and facts")
struct CutoverFactTests {
    static let schema = """
        CREATE TABLE used(id INTEGER PRIMARY KEY AUTOINCREMENT, b);
        CREATE TABLE fresh(Id INTEGER PRIMARY KEY AUTOINCREMENT, b);
        CREATE TABLE plain(id INTEGER PRIMARY KEY, b);
        CREATE TABLE keyed(k TEXT PRIMARY KEY) WITHOUT ROWID;
        CREATE TABLE lost(id INTEGER PRIMARY KEY AUTOINCREMENT);
        INSERT INTO used(b) VALUES(1), (2), (3); DELETE FROM used WHERE id = 3;
        INSERT INTO plain VALUES(40, 1);
        INSERT INTO lost VALUES(9); DELETE FROM sqlite_sequence WHERE name = 'lost';
        CREATE TABLE behind(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO behind VALUES(20);
        UPDATE sqlite_sequence SET seq = 2 WHERE name = 'behind';
        """

    static func target(_ table: String, _ value: Int64, _ column: String = "id") -> SequenceTarget {
        SequenceTarget(table: TableName(name: table), column: column, value: value)
    }

    @Test("C17 P34 counters are listed with what they gave out, and keys without one with the largest")
    func list() async throws {
        let fixture = try await CutoverFixture(Self.schema)
        let listed = try await fixture.session.sequences(of: names(["used", "fresh", "plain", "keyed", "lost", "behind", "missing"]))
        #expect(listed.map { "\($0.table) \($0.column) \($0.name) \($0.lastValue.map(String.init) ?? "-") \($0.increment)" } == [
            "used id sqlite_sequence 3 1", "fresh Id sqlite_sequence - 1", "plain id rowid 40 1", "lost id sqlite_sequence 9 1",
            "behind id sqlite_sequence 20 1",
        ])
        #expect(listed.filter(\.isImplicit).map(\.table.name) == ["plain"])
        await fixture.close()
    }

    @Test("C17 P34 the next value is above the one asked for; a counter never goes back, and an empty table's is made")
    func advance() async throws {
        let fixture = try await CutoverFixture(Self.schema)
        let targets = [
            Self.target("used", 100), Self.target("fresh", 7, "ID"), Self.target("plain", 100), Self.target("keyed", 5, "k"),
            Self.target("lost", 8), Self.target("behind", 19),
        ]
        #expect(try await fixture.session.advance(targets).map { "\($0.table) \($0.value)" } == ["used 100", "fresh 7"])
        #expect(try await fixture.session.advance(targets).isEmpty)
        #expect(try await fixture.session.advance([Self.target("used", 50), Self.target("fresh", -3)]).isEmpty)
        for (table, next) in [("used", 101), ("fresh", 8), ("plain", 41), ("lost", 10), ("behind", 21)] as [(String, Int64)] {
            #expect(try fixture.database.integer("INSERT INTO \(table) DEFAULT VALUES RETURNING rowid") == next)
        }
        #expect(try fixture.database.integer("SELECT count(*) FROM sqlite_sequence") == 4)
        // Behind a fence, too: only the tables are fenced, and for others.
        try await fixture.session.raise(Fence(["used"], lease: nil), patience: .seconds(10))
        #expect(try await fixture.session.advance([Self.target("used", 500)]).count == 1)
        await fixture.close()
    }

    @Test("C17 a counter at the end of its 64 bits is named, and then none is moved")
    func exhausted() async throws {
        let fixture = try await CutoverFixture(Self.schema)
        for value in [Int64.max] {
            let error = await failure { try await fixture.session.advance([Self.target("used", 100), Self.target("fresh", value)]) }
            #expect(error?.code == .sequenceExhausted && error?.value(.table) == "fresh")
        }
        #expect(try fixture.database.integer("SELECT seq FROM sqlite_sequence WHERE name = 'used'") == 3)
        #expect(try await fixture.session.advance([Self.target("used", .max - 1)]).count == 1)
        #expect(try fixture.database.integer("INSERT INTO used DEFAULT VALUES RETURNING id") == .max)
        let error = await failure { try await fixture.session.advance([Self.target("used", 1)]) }
        #expect(error?.code == .sequenceExhausted)
        let missing = await failure { try await fixture.session.advance([Self.target("nothing", 1)]) }
        #expect(missing?.code == .tableMissing)
        await fixture.close()
    }

    @Test("C10 foreign keys that rows break are counted, those of tables, to them, and where the other table is gone")
    func foreignKeys() async throws {
        let fixture = try await CutoverFixture(
            """
            CREATE TABLE p(a INTEGER PRIMARY KEY, b TEXT);
            CREATE TABLE c(x INT, y INT REFERENCES p(a), z INT, CONSTRAINT named FOREIGN KEY(z) REFERENCES p(a));
            CREATE TABLE outside(y INT REFERENCES p(a), q INT REFERENCES elsewhere(a));
            CREATE TABLE elsewhere(a INTEGER PRIMARY KEY);
            CREATE TABLE unproven(b TEXT REFERENCES p(b));
            CREATE TABLE apart(q INT REFERENCES elsewhere(a));
            INSERT INTO p VALUES(1, 'x'); INSERT INTO c VALUES(1, 1, 1), (2, 2, NULL), (3, 3, 1), (4, NULL, 9);
            INSERT INTO outside VALUES(5, 5); INSERT INTO apart VALUES(5);
            """)
        let tables = names(["p", "c"])
        #expect(try await fixture.session.facts(of: tables).brokenForeignKeys == ["c (y) to p": 2, "c named": 1, "outside (y) to p": 1])
        try fixture.database.run("DELETE FROM outside; DELETE FROM c; INSERT INTO unproven VALUES('x'), (NULL)")
        #expect(try await fixture.session.facts(of: tables).brokenForeignKeys == ["unproven (b) to p": 1])
        try fixture.database.run("DELETE FROM unproven")
        #expect(try await fixture.session.facts(of: tables).brokenForeignKeys.isEmpty)
        try fixture.database.run("INSERT INTO c VALUES(1, 1, NULL); DROP TABLE p")
        #expect(try await fixture.session.facts(of: tables).brokenForeignKeys == ["c (y) to p": 1])
        // Bounded.
        try fixture.database.run("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) INSERT INTO c(y) SELECT i FROM n")
        #expect(try await fixture.session.facts(of: tables).brokenForeignKeys == ["c (y) to p": 10_000])
        await fixture.close()
    }

    @Test("C10 a table's fingerprint changes with it, its indexes and triggers, not with what bridge makes, nor with another table")
    func fingerprint() async throws {
        let fixture = try await CutoverFixture(FenceSchemaTests.schema)
        let tables = names(["t", "u"])
        func read(_ tables: [TableName]) async throws -> [TableName: String] { try await fixture.session.schemaFingerprints(of: tables) }
        let facts = try await fixture.session.facts(of: tables)
        #expect(facts.preparedTransactions.isEmpty && facts.oldestTransactionAge == nil && facts.unfenceable.isEmpty)
        let first = try await read(tables)
        #expect(first.count == 2 && first.values.allSatisfy { $0.utf8.count == 32 })
        #expect(first[tables[0]] != first[tables[1]])
        let source = SQLiteSource(path: fixture.database.path)
        _ = try await source.prepareCapture(forwardLink(["t", "u"]), replacingLeftovers: false)
        try await fixture.session.raise(Fence(["t", "u"]), patience: .seconds(10))
        try fixture.database.run("CREATE TABLE other(a)")
        #expect(try await read(tables.reversed()) == first)
        #expect(try await read([tables[0]]) == [tables[0]: first[tables[0]]])
        var seen = [first[tables[0]]]
        for sql in ["ALTER TABLE t ADD COLUMN c CHECK (c > 0)", "CREATE INDEX j ON t(c)", "DROP TRIGGER own", "DROP INDEX i"] {
            try fixture.database.run(sql)
            let now = try await read(tables)
            #expect(!seen.contains(now[tables[0]]), "\(sql)")
            #expect(now[tables[1]] == first[tables[1]], "\(sql)")
            seen.append(now[tables[0]])
        }
        try fixture.database.run("DROP TABLE u")
        #expect(try await read(tables) == [tables[0]: seen.last ?? ""])
        await source.close()
        await fixture.close()
    }
}

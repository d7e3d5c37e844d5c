import BridgeCore
import BridgePostgreSQL
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Logging
import Testing

/// A link out of a PostgreSQL database that is run until it has caught up, again and again.
struct LinkCourse {
    enum Target: String, CaseIterable, Sendable, CustomTestStringConvertible {
        case postgresql, sqlite
        var testDescription: String { rawValue }
    }

    let cluster: PostgresCluster
    let url: String
    let kind: Target
    private let postgres: String?
    private let file: SQLiteFile?
    private let folder: TemporaryDirectory
    private let link: LinkDescription

    /// - Parameter tables: SQL that makes them on the source, and on the target unless `targetTables` does.
    init(
        _ kind: Target, _ tables: String, targetTables: String? = nil, mappings: [TableMapping]
    ) async throws {
        cluster = try PostgresCluster.shared
        self.kind = kind
        url = try await cluster.makeDatabase("course")
        postgres = kind == .postgresql ? try await cluster.makeDatabase("course") : nil
        file = kind == .sqlite ? try SQLiteFile() : nil
        folder = try TemporaryDirectory(prefix: "course")
        var mappings = mappings
        if kind == .sqlite {
            for index in mappings.indices { mappings[index].target = TableName(name: mappings[index].target.name) }
        }
        link = LinkDescription(
            migration: "course-\(UInt32.random(in: 0 ... .max))", direction: .forward, mappings: mappings,
            form: kind == .postgresql ? .native : .canonical)
        try await source(tables)
        try await target(targetTables ?? tables)
    }

    init(_ kind: Target, _ tables: String, _ names: String..., targetTables: String? = nil) async throws {
        try await self.init(
            kind, tables, targetTables: targetTables,
            mappings: names.map { TableMapping(source: TableName(schema: "public", name: $0), target: TableName(schema: "public", name: $0)) })
    }

    @discardableResult
    func source(_ sql: String) async throws -> String { try await cluster.psql(url, sql) }

    @discardableResult
    func target(_ sql: String) async throws -> String {
        if let postgres { return try await cluster.psql(postgres, sql) }
        let text = try await ChildProcess.run(["sqlite3", "-batch", "-bail", String((file?.url ?? "").dropFirst(7))], input: sql + ";\n")
        return text.hasSuffix("\n") ? String(text.dropLast()) : text
    }

    /// Copies if need be, and applies all that is committed now.
    /// - Returns: what it stopped at.
    func run() async throws -> BridgeError? {
        let source = try PostgresSource(connectionString: url)
        let target: any TargetConnector = if let postgres { PostgresTarget(connectionString: postgres) } else { try #require(try file?.makeTarget()) }
        let runner = LinkRunner(
            configuration: LinkConfiguration(link: link, journalDirectory: folder.path("journal")), source: source, target: target,
            logger: Logger(label: "course") { _ in SwiftLogNoOpLogHandler() })
        var failure: BridgeError?
        do { _ = try await runner.run(untilCaughtUp: true) } catch { failure = error }
        await source.close()
        await target.close()
        return failure
    }

    func catchesUp(_ location: SourceLocation = #_sourceLocation) async throws {
        let error = try await run()
        #expect(error == nil, "\(String(describing: error))", sourceLocation: location)
    }

    /// Runs into an error that names table and column.
    func stops(at table: String, _ column: String, _ code: ErrorCode = .schemaChanged, _ location: SourceLocation = #_sourceLocation) async throws {
        for _ in 0..<2 {
            let error = try #require(try await run(), "it went on", sourceLocation: location)
            #expect(error.code == code, "\(error)", sourceLocation: location)
            let named = error.context.filter { $0.key == .table || $0.key == .column }.map(\.value)
            #expect(named.contains { $0 == table || $0.hasSuffix(".\(table)") } && named.contains(column), "\(error)", sourceLocation: location)
        }
    }

    /// The same query gives the same on both sides.
    func isEqual(_ query: String, targetQuery: String? = nil, _ location: SourceLocation = #_sourceLocation) async throws {
        let (expected, found) = (try await source(query), try await target(targetQuery ?? query))
        #expect(expected == found, sourceLocation: location)
        #expect(!expected.isEmpty, sourceLocation: location)
    }
}

@Suite("Tables that change while a link runs", .serialized)
struct SchemaChangeTests {
    private static let plain = "CREATE TABLE t(id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')"
    private static let empty = "CREATE TABLE t(id integer PRIMARY KEY, v text)"

    @Test("P9 P10 a column is added between and inside of transactions: older and newer rows keep theirs", arguments: LinkCourse.Target.allCases)
    func added(_ target: LinkCourse.Target) async throws {
        let course = try await LinkCourse(target, Self.plain, "t", targetTables: Self.empty)
        try await course.catchesUp()
        try await course.source(
            """
            INSERT INTO t VALUES (3, 'c'); UPDATE t SET v = 'B' WHERE id = 2;
            BEGIN; INSERT INTO t VALUES (4, 'd'); ALTER TABLE t ADD COLUMN w integer DEFAULT 7; INSERT INTO t VALUES (5, 'e', 50);
            UPDATE t SET v = 'A' WHERE id = 1; DELETE FROM t WHERE id = 3; COMMIT;
            INSERT INTO t VALUES (6, 'f')
            """)
        try await course.stops(at: "t", "w")
        // All that came before is there.
        #expect(try await course.target("SELECT * FROM t ORDER BY id") == "1|a\n2|B\n3|c")
        try await course.target("ALTER TABLE t ADD COLUMN w integer DEFAULT 7")
        try await course.catchesUp()
        try await course.isEqual("SELECT id, v, w FROM t ORDER BY id")
    }

    @Test("P10 a dropped column that the target must have is named, and a rename is, between rows of both shapes", arguments: LinkCourse.Target.allCases)
    func droppedAndRenamed(_ target: LinkCourse.Target) async throws {
        let tables = "CREATE TABLE t(id integer PRIMARY KEY, v text NOT NULL, w integer)"
        let course = try await LinkCourse(target, tables, "t")
        try await course.catchesUp()
        try await course.source("INSERT INTO t VALUES (1, 'a', 10); ALTER TABLE t DROP COLUMN v; INSERT INTO t VALUES (2, 20)")
        try await course.stops(at: "t", "v")
        try await course.target("ALTER TABLE t DROP COLUMN v")
        try await course.catchesUp()
        try await course.isEqual("SELECT id, w FROM t ORDER BY id")
        try await course.source("UPDATE t SET w = 11 WHERE id = 1; ALTER TABLE t RENAME COLUMN w TO x; UPDATE t SET x = 21 WHERE id = 2; INSERT INTO t VALUES (3, 30)")
        try await course.stops(at: "t", "x")
        try await course.target("ALTER TABLE t RENAME COLUMN w TO x")
        try await course.catchesUp()
        try await course.isEqual("SELECT id, x FROM t ORDER BY id")
    }

    @Test("P9 P10 two columns swap their names in the midst of a transaction: each value goes by the name of its time", arguments: LinkCourse.Target.allCases)
    func swapped(_ target: LinkCourse.Target) async throws {
        let course = try await LinkCourse(target, "CREATE TABLE t(id integer PRIMARY KEY, a text, b text)", "t")
        try await course.catchesUp()
        let swap = "ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b;"
        try await course.source("BEGIN; INSERT INTO t VALUES (1, 'a1', 'b1'); \(swap) INSERT INTO t(id, a, b) VALUES (2, 'a2', 'b2'); COMMIT; UPDATE t SET a = a || '!'")
        try await course.catchesUp()
        // The target's columns were not swapped: the first row was whole in the update that came after.
        #expect(try await course.target("SELECT id, a, b FROM t ORDER BY id") == "1|b1!|a1\n2|a2!|b2")
        try await course.isEqual("SELECT id, a, b FROM t ORDER BY id")
    }

    @Test("P10 a type that the target does not hold is named; a wider one that it holds already goes on", arguments: LinkCourse.Target.allCases)
    func retyped(_ target: LinkCourse.Target) async throws {
        let course = try await LinkCourse(
            target, "CREATE TABLE t(id integer PRIMARY KEY, n integer, v varchar(3), d integer)", "t",
            targetTables: "CREATE TABLE t(id integer PRIMARY KEY, n bigint, v varchar(3), d integer)")
        try await course.catchesUp()
        // The target was widened before; for the text it is afterwards. SQLite's types have no width.
        try await course.source("INSERT INTO t VALUES (1, 1, 'abc', 1); ALTER TABLE t ALTER n TYPE bigint; INSERT INTO t VALUES (2, 5000000000, 'abc', 2)")
        try await course.catchesUp()
        try await course.source("ALTER TABLE t ALTER v TYPE varchar(9); INSERT INTO t VALUES (3, 3, 'abcdefghi', 3)")
        if target == .postgresql {
            try await course.stops(at: "t", "v")
            try await course.target("ALTER TABLE t ALTER v TYPE varchar(9)")
        }
        try await course.catchesUp()
        try await course.isEqual("SELECT id, n, v, d FROM t ORDER BY id")
        // Another column under the old name. SQLite's takes text value by value, and would make a number of this one.
        try await course.source("ALTER TABLE t DROP COLUMN d; ALTER TABLE t ADD COLUMN d text; INSERT INTO t VALUES (4, 4, 'x', '04')")
        let code: ErrorCode = target == .postgresql ? .schemaChanged : .valueDoesNotFit
        try await course.stops(at: "t", "d", code)
        try await course.target("ALTER TABLE t DROP COLUMN d")
        try await course.target("ALTER TABLE t ADD COLUMN d text")
        try await course.catchesUp()
        try await course.isEqual("SELECT id, n, v, d FROM t ORDER BY id")
    }

    @Test("P10 P13 the replica identity changes to full and back, and the key to another column, in mid-stream")
    func identity() async throws {
        let course = try await LinkCourse(.postgresql, "CREATE TABLE t(id integer PRIMARY KEY, k integer NOT NULL UNIQUE, v text)", "t")
        try await course.catchesUp()
        try await course.source(
            """
            INSERT INTO t SELECT n, n + 100, 'x' FROM generate_series(1, 5) n; ALTER TABLE t REPLICA IDENTITY FULL;
            UPDATE t SET v = 'full' WHERE id = 1; UPDATE t SET id = 20 WHERE id = 2; ALTER TABLE t REPLICA IDENTITY DEFAULT;
            UPDATE t SET v = 'default' WHERE id = 3; ALTER TABLE t REPLICA IDENTITY NOTHING; INSERT INTO t VALUES (6, 106, 'new');
            ALTER TABLE t REPLICA IDENTITY USING INDEX t_k_key; UPDATE t SET v = 'index' WHERE id = 4; DELETE FROM t WHERE id = 5;
            """)
        try await course.catchesUp()
        try await course.isEqual("SELECT id, k, v FROM t ORDER BY id")
        try await course.source(
            "ALTER TABLE t REPLICA IDENTITY DEFAULT; ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t VALUES (7, 107, 'keyless')")
        // Without an identity the source itself refuses what could not be told.
        await #expect(throws: (any Error).self) { try await course.source("UPDATE t SET v = 'lost'") }
        try await course.source("ALTER TABLE t ADD PRIMARY KEY (k); UPDATE t SET id = 70, v = 'other key' WHERE k = 107; DELETE FROM t WHERE k = 106")
        try await course.catchesUp()
        try await course.isEqual("SELECT id, k, v FROM t ORDER BY id")
    }

    @Test("P23 P10 a column that is added beside a column list does not travel, and one of the list that is dropped is refused by the source")
    func columnList() async throws {
        let name = TableName(schema: "public", name: "t")
        let course = try await LinkCourse(
            .postgresql, "CREATE TABLE t(id integer PRIMARY KEY, v text, w text)",
            mappings: [TableMapping(source: name, target: name, columns: ["id", "v"])])
        try await course.catchesUp()
        try await course.source("INSERT INTO t VALUES (1, 'a', 'hidden'); ALTER TABLE t ADD COLUMN x integer; INSERT INTO t VALUES (2, 'b', 'hidden', 3)")
        try await course.catchesUp()
        #expect(try await course.target("SELECT * FROM t ORDER BY id") == "1|a|\n2|b|")
        await #expect(throws: (any Error).self) { try await course.source("ALTER TABLE t DROP COLUMN v") }
    }
}

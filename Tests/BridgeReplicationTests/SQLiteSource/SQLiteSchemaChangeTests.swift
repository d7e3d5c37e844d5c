import BridgeCore
import BridgeReplication
import BridgeTestSupport
import Testing

@Suite("Tables of an SQLite source that change while a link runs", .serialized)
struct SQLiteSchemaChangeTests {
    private static let plain = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE)"
    private static let rows = "; INSERT INTO t VALUES (1, 'a'), (2, 'b')"

    private static func course(_ target: SQLiteCourse.Target) async throws -> SQLiteCourse {
        let course = try await SQLiteCourse(target, plain, names: ["t"], targetTables: target == .postgresql ? plain.replacing("INTEGER", with: "bigint") : nil)
        try await course.source(rows)
        return course
    }

    @Test("S4 P10 a column is added while changes wait in the log: the link stops by name, and goes on without a loss", arguments: SQLiteCourse.Target.allCases)
    func addedWithChangesPending(_ target: SQLiteCourse.Target) async throws {
        let course = try await Self.course(target)
        try await course.catchesUp()
        try await course.source(
            """
            INSERT INTO t VALUES (3, 'c'); UPDATE t SET v = 'B' WHERE id = 2; DELETE FROM t WHERE id = 1;
            BEGIN; INSERT INTO t VALUES (4, 'd'); ALTER TABLE t ADD COLUMN w INTEGER DEFAULT 7; INSERT INTO t VALUES (5, 'e', 50);
            REPLACE INTO t VALUES (6, 'c', NULL); COMMIT; INSERT INTO t(id, v) VALUES (7, 'g')
            """)
        try await course.stops(at: "t", "w")
        try await course.source("UPDATE t SET w = 8 WHERE id = 7; ALTER TABLE t ADD COLUMN x TEXT NOT NULL DEFAULT 'x'; DELETE FROM t WHERE id = 4")
        try await course.target("ALTER TABLE t ADD COLUMN w INTEGER DEFAULT 7")
        try await course.stops(at: "t", "x")
        try await course.target("ALTER TABLE t ADD COLUMN x TEXT NOT NULL DEFAULT 'x'")
        try await course.catchesUp()
        try await course.isEqual("SELECT id, v, w, x FROM t ORDER BY id")
        #expect(try await course.source("SELECT count(*) FROM t") == "4")
    }

    @Test("S4 P10 a column is added inside of a captured transaction that is read piece by piece", arguments: SQLiteCourse.Target.allCases)
    func addedInsideCapturedTransaction(_ target: SQLiteCourse.Target) async throws {
        let course = try await Self.course(target)
        let running = try course.start()
        try await running.wait("it streams") { running.runner.progress.activity == .streaming && running.runner.progress.isCapturing }
        // Some ten megabytes: as many reads.
        try await course.source(
            "WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) INSERT INTO t SELECT i, i || printf('%.300c', 'x') FROM n")
        try await running.wait("its beginning is captured") { running.runner.progress.rowsCaptured > 0 }
        try await course.source(
            "ALTER TABLE t ADD COLUMN w INTEGER DEFAULT 7; UPDATE t SET w = id WHERE id % 100 = 0; INSERT INTO t VALUES (0, 'last', 1)")
        try await waitUntil(deadline: .seconds(60), "the link stops at the column") { running.runner.progress.activity == .stopped }
        let error = try #require(await running.task.value)
        SQLiteCourse.expect(error, .schemaChanged, names: ["t", "w"])
        try await course.target("ALTER TABLE t ADD COLUMN w INTEGER DEFAULT 7")
        try await course.catchesUp()
        try await course.isEqual("SELECT count(*), sum(id), sum(w), sum(length(v)), min(w) FROM t")
        try await course.isEqual("SELECT id, w FROM t WHERE id % 5000 < 2 ORDER BY id")
    }

    @Test("S4 P10 a dropped column that the target must have is named, and a renamed one is, the key's too", arguments: SQLiteCourse.Target.allCases)
    func droppedAndRenamed(_ target: SQLiteCourse.Target) async throws {
        let text = target == .postgresql ? "bigint" : "INTEGER"
        let course = try await SQLiteCourse(
            target, "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT NOT NULL, w INTEGER UNIQUE)", names: ["t"],
            targetTables: "CREATE TABLE t(id \(text) PRIMARY KEY, v TEXT NOT NULL, w \(text) UNIQUE)")
        try await course.catchesUp()
        try await course.source("INSERT INTO t VALUES (1, 'a', 10); ALTER TABLE t DROP COLUMN v; INSERT INTO t VALUES (2, 20)")
        try await course.stops(at: "t", "v")
        try await course.target("ALTER TABLE t DROP COLUMN v")
        try await course.catchesUp()
        try await course.isEqual("SELECT id, w FROM t ORDER BY id")
        try await course.source(
            "UPDATE t SET w = 11 WHERE id = 1; ALTER TABLE t RENAME COLUMN w TO x; UPDATE t SET x = 21 WHERE id = 2; INSERT OR REPLACE INTO t VALUES (3, 11)")
        try await course.stops(at: "t", "x")
        try await course.target("ALTER TABLE t RENAME COLUMN w TO x")
        try await course.catchesUp()
        try await course.isEqual("SELECT id, x FROM t ORDER BY id")
        try await course.source("DELETE FROM t WHERE id = 2; ALTER TABLE t RENAME COLUMN id TO number; INSERT INTO t VALUES (4, 40); UPDATE t SET number = 5 WHERE number = 3")
        try await course.stops(at: "t", "number")
        try await course.target("ALTER TABLE t RENAME COLUMN id TO number")
        try await course.catchesUp()
        try await course.isEqual("SELECT number, x FROM t ORDER BY number")
    }

    @Test("S4 a table that is renamed goes on under the name that the link has for it", arguments: SQLiteCourse.Target.allCases)
    func renamedTable(_ target: SQLiteCourse.Target) async throws {
        let course = try await Self.course(target)
        try await course.catchesUp()
        try await course.source("UPDATE t SET v = 'A' WHERE id = 1; ALTER TABLE t RENAME TO u; INSERT OR REPLACE INTO u VALUES (3, 'b')")
        try await course.catchesUp()
        #expect(try await course.target("SELECT id, v FROM t ORDER BY id") == "1|A\n3|b")
    }

    // MARK: Rebuilt tables

    private static let rebuilt = """
        CREATE TABLE new_t(id INTEGER PRIMARY KEY, v TEXT UNIQUE, w INT); INSERT INTO new_t SELECT id, upper(v), 1 FROM t; DROP TABLE t;
        ALTER TABLE new_t RENAME TO t
        """

    @Test("S4 a table that is rebuilt by SQLite's twelve steps, without our triggers, stops a running link by its name", arguments: SQLiteCourse.Target.allCases)
    func rebuiltWithoutTriggers(_ target: SQLiteCourse.Target) async throws {
        let course = try await Self.course(target)
        let running = try course.start()
        try await running.wait("it streams") { running.runner.progress.activity == .streaming && running.runner.progress.isCapturing }
        try await course.source("INSERT INTO t VALUES (3, 'c'); PRAGMA foreign_keys = OFF; BEGIN; \(Self.rebuilt); COMMIT; INSERT INTO t VALUES (4, 'd', 1)")
        try await waitUntil(deadline: .seconds(60), "the link stops") { running.runner.progress.activity == .stopped }
        SQLiteCourse.expect(try #require(await running.task.value), .captureBroken, names: ["t"])
        SQLiteCourse.expect(try #require(try await course.run(), "it went on"), .captureBroken, names: ["t"])
    }

    @Test(
        "S4 a table that is rebuilt by a tool that puts all triggers back is followed, or stops the link by its name; never silence",
        arguments: SQLiteCourse.Target.allCases)
    func rebuiltWithTriggers(_ target: SQLiteCourse.Target) async throws {
        let course = try await SQLiteCourse(
            target, Self.plain, names: ["t"], targetTables: target == .postgresql ? Self.plain.replacing("INTEGER", with: "bigint") : nil)
        try await course.source(Self.rows)
        let running = try course.start()
        try await running.wait("it streams") { running.runner.progress.activity == .streaming && running.runner.progress.isCapturing }
        let triggers = try await course.source("SELECT sql || ';' FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 't' ORDER BY rowid")
        try await course.source(
            """
            BEGIN; CREATE TABLE new_t(id INTEGER PRIMARY KEY, v TEXT UNIQUE); INSERT INTO new_t SELECT id, upper(v) FROM t; DROP TABLE t;
            ALTER TABLE new_t RENAME TO t; \(triggers) COMMIT; INSERT INTO t VALUES (4, 'd')
            """)
        try await waitUntil(deadline: .seconds(60), "the link stops, or has what came later") {
            if running.runner.progress.activity == .stopped { return true }
            return try await course.target("SELECT count(*) FROM t WHERE id = 4") == "1"
        }
        let failure = await running.stop()
        if let failure {
            SQLiteCourse.expect(failure, .captureBroken, names: ["t"])
        } else {
            try await course.catchesUp()
            let (expected, found) = (try await course.source("SELECT id, v FROM t ORDER BY id"), try await course.target("SELECT id, v FROM t ORDER BY id"))
            withKnownIssue("capture does not ask for the order of its triggers; a check does") { #expect(expected == found) }
        }
    }
}

import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Synchronization
import Testing

@testable import BridgeSQLite

@Suite("SQLite capture, case by case")
struct CaptureCaseTests {
    @Test("S1 a unique swap, a key swap, a key that changes case and one that changes from 1 to 1.0")
    func swaps() async throws {
        let harness = try await CaptureHarness(
            "CREATE TABLE t(a COLLATE NOCASE PRIMARY KEY NOT NULL, b UNIQUE); INSERT INTO t VALUES('x', 1), ('y', 2), (1, 3)",
            tables: ["t"])
        try harness.database.run("UPDATE t SET a = a || ''")
        try harness.database.run(
            """
            BEGIN; UPDATE t SET b = 9 WHERE a = 'x'; UPDATE t SET b = 1 WHERE a = 'y'; UPDATE t SET b = 2 WHERE b = 9; COMMIT;
            BEGIN; UPDATE t SET a = 'z' WHERE a = 'x'; UPDATE t SET a = 'x' WHERE a = 'y'; UPDATE t SET a = 'y' WHERE a = 'z'; COMMIT;
            UPDATE t SET a = 'X' WHERE a = 'x';
            """)
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        try harness.database.run("UPDATE t SET a = 1.0 WHERE b = 3; UPDATE t SET a = 'Y' WHERE a = 'y'")
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        await harness.close()
    }

    @Test(
        "S1 a row that REPLACE removes is found through a generated column whose base the update does not name",
        arguments: ["VIRTUAL", "STORED"], ["UNIQUE INDEX i ON t(g, c)", "UNIQUE INDEX i ON t(c, g) WHERE c > 0"])
    func generated(_ kind: String, _ index: String) async throws {
        let harness = try await CaptureHarness(
            "CREATE TABLE t(a TEXT PRIMARY KEY NOT NULL, b TEXT, c INT, g TEXT AS (upper(b)) \(kind)); CREATE \(index)", tables: ["t"])
        try harness.database.run("INSERT INTO t(a, b, c) VALUES('x', 'k', 1), ('y', 'K', 2), ('z', 'k', 3)")
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        try harness.database.run("UPDATE OR REPLACE t SET c = 2 WHERE a = 'x'")
        #expect(try harness.database.integer("SELECT count(*) FROM t") == 2)
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        await harness.close()
    }

    @Test("S15 values arrive as they are stored: edges of numbers, NUL, invalid UTF-8, long decimals")
    func values() async throws {
        let harness = try await CaptureHarness("CREATE TABLE t(a INTEGER PRIMARY KEY, v, n NUMERIC)", tables: ["t"])
        try harness.database.run(
            """
            INSERT INTO t(a, v) VALUES(1, -0.0), (2, 9e999), (3, -9e999), (4, 5e-324), (5, 9007199254740993),
              (6, -9223372036854775808), (7, 9e999 - 9e999), (8, ''), (9, x''), (10, 'é€😀'), (11, '1.10');
            INSERT INTO t(a, v) VALUES(12, CAST(x'61006200' AS TEXT)), (13, CAST(x'FFFE80' AS TEXT)), (14, x'00FF');
            INSERT INTO t(a, n) VALUES(15, '123456789012345678901234567890'), (16, '1.10'), (17, 'x');
            """)
        try await harness.drain()
        let rows = try #require(harness.mirror.table(named: "t")?.rows)
        #expect(rows.count == 17)
        // The text of each cell as SQLite's own hex() gives it, which GRDB reads without decoding the value.
        let expected = try harness.database.rows(
            "SELECT a, typeof(v) AS type, hex(CAST(v AS BLOB)) AS bytes FROM t WHERE typeof(v) IN ('text', 'blob')")
        #expect(expected.count == 7)
        for row in expected {
            let key: Int64 = row["a"]
            let image = try #require(rows.first { $0.key.last == UInt8(key) && $0.key.count == 13 }?.value)
            let cell = Array(image.dropFirst(13))
            #expect(cell[0] == (row["type"] == "text" ? 0x73 : 0x78))
            let length = cell[1...4].reduce(0) { $0 << 8 | Int($1) }
            let hex = cell[5..<5 + length].map { String($0 >> 4, radix: 16, uppercase: true) + String($0 & 15, radix: 16, uppercase: true) }.joined()
            #expect(hex == row["bytes"])
        }
        // Numbers are compared by their bits.
        let real = try harness.database.images("t", ["a", "v", "n"])
        let valid = Set(rows.values.filter { $0[12] != 13 && $0[12] != 12 })
        #expect(valid.isSubset(of: real))
        await harness.close()
    }

    @Test("S2 a key that becomes NULL stops capture with an error, and capture goes on when it is mended")
    func nullKey() async throws {
        let harness = try await CaptureHarness(
            "CREATE TABLE t(a TEXT PRIMARY KEY, b); INSERT INTO t VALUES('x', 1)", tables: ["t"])
        try harness.database.run("UPDATE t SET b = 2; UPDATE t SET a = NULL")
        #expect(await errorCode { try await harness.read() } == .sourceUnsupported)
        try harness.database.run("UPDATE t SET a = 'y'")
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        await harness.close()
    }

    @Test("writes through an attached database, and by another process, are captured")
    func otherWriters() async throws {
        let harness = try await CaptureHarness("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)", tables: ["t"])
        let other = try TestDatabase("CREATE TABLE t(a, b)")
        try other.run(
            "ATTACH '\(harness.database.path)' AS app; INSERT INTO app.t VALUES(1, 1); INSERT OR REPLACE INTO app.t VALUES(2, 1); DETACH app")
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        try harness.database.shell("INSERT INTO t VALUES(3, 3); REPLACE INTO t VALUES(4, 3); DELETE FROM t WHERE a = 2;")
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        #expect(harness.mirror.table(named: "t")?.rows.count == 1)
        await harness.close()
    }

    @Test("a UTF-16 database gives its text in UTF-8", arguments: ["UTF-16le", "UTF-16be"])
    func utf16(_ encoding: String) async throws {
        let harness = try await CaptureHarness(
            "CREATE TABLE t(a TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, b TEXT UNIQUE)", tables: ["t"], encoding: encoding)
        try harness.database.run(
            "INSERT INTO t VALUES('ä', '😀'), ('k', 'ß'), ('gone', 'q'); UPDATE t SET a = 'K' WHERE a = 'k'; REPLACE INTO t VALUES('new', 'q')")
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        #expect(harness.mirror.table(named: "t")?.rows.count == 3)
        await harness.close()
    }

    @Test("a row of 100 MB passes, whatever the limit")
    func largeRow() async throws {
        let harness = try await CaptureHarness("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", tables: ["t"])
        try harness.database.run("INSERT INTO t VALUES(1, zeroblob(100000000)), (2, 'small')")
        harness.limit = 1_000
        harness.buffer.removeAll()
        var total = 0
        var isInside = true
        while isInside {
            harness.buffer.removeAll()
            let progress = try await harness.session.read(into: harness.buffer, limit: 1_000, patience: .seconds(5))
            total += harness.buffer.count
            isInside = progress.isInsideTransaction
        }
        #expect(total > 100_000_000)
        await harness.close()
    }

    @Test("a transaction of 200,000 rows comes in bounded reads, and later commits within it end it exactly")
    func hugeTransaction() async throws {
        let harness = try await CaptureHarness("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c)", tables: ["t"])
        try harness.database.run(
            """
            BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
            INSERT INTO t SELECT i, -i, 'row ' || i FROM n; COMMIT;
            """)
        harness.limit = 256 << 10
        var progress = try await harness.read()
        #expect(progress.isInsideTransaction)
        var insideReads = 0
        while progress.isInsideTransaction {
            insideReads += 1
            // Rows that were read already change, and rows that were not.
            if insideReads % 5 == 0 {
                try harness.database.run(
                    "UPDATE t SET c = 'again' WHERE a IN (1, 100000, 199999); DELETE FROM t WHERE a = \(insideReads); REPLACE INTO t VALUES(\(insideReads + 1), -150000 - \(insideReads), 'r')")
            }
            progress = try await harness.read()
        }
        #expect(insideReads > 20)
        #expect(harness.largestRead < 300 << 10)
        #expect(try harness.compare(["t": ["a", "b", "c"]]) == nil)
        #expect(harness.mirror.transactions == 1)
        await harness.close()
    }

    @Test("a mapping's columns and condition are kept to; a row that leaves the condition is removed")
    func filter() async throws {
        var link = forwardLink(["t"])
        link.mappings[0].columns = ["a", "c"]
        link.mappings[0].rowFilter = "t.b = 7"
        let harness = try await CaptureHarness(
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c)", tables: ["t"], link: link)
        try harness.database.run("INSERT INTO t VALUES(1, 7, 'in'), (2, 8, 'out'), (3, 7, 'leaves'); UPDATE t SET b = 8 WHERE a = 3; UPDATE t SET b = 7 WHERE a = 2")
        try await harness.drain()
        let table = try #require(harness.mirror.table(named: "t"))
        #expect(table.columns == ["a", "c"])
        #expect(table.rows.count == 2)
        try harness.database.run("UPDATE t SET b = NULL")
        try await harness.drain()
        #expect(harness.mirror.table(named: "t")?.rows.isEmpty == true)
        await harness.close()
    }

    @Test("S9 changes(), last_insert_rowid() and RETURNING are what they are without triggers")
    func untouched() async throws {
        let statements = """
            CREATE TABLE r(x); INSERT INTO t VALUES(41, 1, 'q'); INSERT INTO r SELECT last_insert_rowid() || ',' || changes();
            INSERT INTO t(b) VALUES(2), (3); INSERT INTO r SELECT last_insert_rowid() || ',' || changes();
            REPLACE INTO t VALUES(50, 2, 'z'); INSERT INTO r SELECT last_insert_rowid() || ',' || changes();
            UPDATE t SET c = 'u'; INSERT INTO r SELECT changes(); DELETE FROM t; INSERT INTO r SELECT changes();
            """
        let schema = "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c)"
        let plain = try TestDatabase(schema)
        let harness = try await CaptureHarness(schema, tables: ["t"])
        var answers: [[String]] = []
        for database in [plain, harness.database] {
            try database.run(statements)
            let returned = try database.rows("INSERT INTO t(b, c) VALUES(1, 'a'), (2, 'b') RETURNING a, b, c")
            answers.append(try (database.rows("SELECT x FROM r") + returned).map(\.description))
        }
        #expect(answers[0] == answers[1])
        #expect(answers[0].count == 7)
        await harness.close()
    }

    @Test("S9 removing capture leaves the schema as it was, and is no error twice")
    func removal() async throws {
        let harness = try await CaptureHarness("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)", tables: ["t"])
        let reverse = LinkDescription(migration: "test", direction: .reverse, mappings: harness.link.mappings, form: .native)
        _ = try await harness.source.prepareCapture(reverse, replacingLeftovers: false)
        await harness.session.close()
        try await harness.source.removeCapture(harness.link)
        try await harness.source.removeCapture(harness.link)
        #expect(try harness.database.integer("SELECT count(*) FROM sqlite_master WHERE name LIKE '%bridge_test_reverse%' AND type <> 'index'") == 8)
        try await harness.source.removeCapture(reverse)
        #expect(try harness.database.integer("SELECT count(*) FROM sqlite_master") == 2)
        await harness.source.close()
    }

    @Test("forward and reverse links of one file have logs of their own")
    func twoLinks() async throws {
        let harness = try await CaptureHarness("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)", tables: ["t"])
        let reverse = LinkDescription(migration: "test", direction: .reverse, mappings: harness.link.mappings, form: .native)
        let origin = try await harness.source.prepareCapture(reverse, replacingLeftovers: false)
        let session = try await harness.source.openCapture(reverse, origin: origin, durable: origin.position)
        try harness.database.run("INSERT INTO t VALUES(1, 1); REPLACE INTO t VALUES(2, 1)")
        let buffer = RecordBuffer()
        var mirror = Mirror()
        _ = try await session.read(into: buffer, limit: 1 << 20, patience: .seconds(5))
        try mirror.apply(buffer.bytes)
        #expect(mirror.table(named: "t")?.rows.count == 1)
        _ = try await harness.source.health(harness.link, applied: .zero)
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        await session.close()
        await harness.close()
    }

    @Test("S10 copy and log tail fit together while another process writes, whatever the reads' size", arguments: [200, 1 << 20])
    func copyBesideWriter(_ limit: Int) async throws {
        let harness = try await CaptureHarness(
            """
            CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO t SELECT i, -i, 'r' FROM n;
            """, tables: ["t"])
        harness.limit = limit
        var random = SeededGenerator(seed: UInt64(limit))
        let statements = (0..<1_500).map { _ -> String in
            let key = random.below(4_000)
            return switch random.below(4) {
            case 0: "REPLACE INTO t VALUES(\(key), \(-random.below(4_000)), 'new');"
            case 1: "UPDATE OR REPLACE t SET a = \(random.below(4_000)) WHERE a = \(key);"
            case 2: "DELETE FROM t WHERE a = \(key);"
            default: "BEGIN; UPDATE t SET c = c || 'x' WHERE a BETWEEN \(key) AND \(key + 30); INSERT OR IGNORE INTO t VALUES(\(key), \(key), 0); COMMIT;"
            }
        }.joined(separator: "\n")
        let database = harness.database
        let running = Countdown(2)
        let writer = Task.detached {
            defer { running.decrement() }
            return try database.shell(statements)
        }
        // Capture runs before, during and after the copy; the copy's rows stand for everything before its position.
        var batches: [(UInt64, RecordBuffer)] = []
        var opened: UInt64 = 0
        func read() async throws -> CaptureProgress {
            let buffer = RecordBuffer()
            let progress = try await harness.session.read(into: buffer, limit: limit, patience: .milliseconds(5))
            opened = progress.firstCommit?.commit ?? opened
            batches.append((opened, buffer))
            return progress
        }
        for _ in 0..<20 { _ = try await read() }
        let snapshot = try await harness.source.openSnapshot(harness.link)
        let reading = Task { [source = harness.source, link = harness.link] in
            defer { running.decrement() }
            let schema = try #require(try await source.describeTables([TableName(name: "t")]).first)
            let reader = try await snapshot.openTable(schema, mapping: link.mappings[0], format: .rows)
            let rows = RecordBuffer()
            while try await reader.read(into: rows, limit: 10_000) > 0 {}
            await reader.close()
            return (reader.position, reader.columns, rows)
        }
        var isDone = false
        while !isDone {
            let hasFinished = running.isZero
            let goal = try await harness.source.currentPosition(harness.link)
            let progress = try await read()
            isDone = hasFinished && progress.frontier >= goal && !progress.isInsideTransaction
        }
        let (position, columns, rows) = try await reading.value
        _ = try await writer.value
        var mirror = Mirror()
        // Relations may stand in records that are left out below.
        var relation = Relation(
            id: 1, engine: .sqlite, form: .native, name: TableName(name: "t"), identity: .key, columns: columns)
        relation.identity = .key
        let announcement = RecordBuffer()
        announcement.appendRelation(relation)
        try mirror.apply(announcement.bytes)
        try mirror.load(id: 1, name: "t", columns: columns.map(\.name), keyFlags: columns.map(\.isKey), rows.bytes)
        for (commit, records) in batches where commit >= position.commit { try mirror.apply(records.bytes) }
        let real = try database.images("t", ["a", "b", "c"])
        #expect(Set(mirror.table(named: "t")?.rows.values.map { $0 } ?? []) == real)
        await harness.close()
    }

    @Test("rollback-journal mode: capture and copy work beside a writer", arguments: ["DELETE", "TRUNCATE", "PERSIST"])
    func rollbackJournal(_ mode: String) async throws {
        let harness = try await CaptureHarness(
            """
            CREATE TABLE t(a TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, b);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO t SELECT 'k' || i, i FROM n;
            """, tables: ["t"], journalMode: mode)
        let snapshot = try await harness.source.openSnapshot(harness.link)
        var step = 0
        let position = try await harness.load("t", from: harness.openTable("t", of: snapshot)) {
            step += 1
            try harness.database.run("UPDATE t SET b = -1 WHERE b = \(step); DELETE FROM t WHERE b = \(2_000 - step); INSERT INTO t VALUES('new\(step)', 0); UPDATE t SET a = upper(a) WHERE b = \(1_000 + step)")
        }
        #expect(step > 5)
        #expect(position < (try await harness.source.currentPosition(harness.link)))
        #expect(try await harness.difference(["t": ["a", "b"]]) == nil)
        await harness.close()
    }
}

/// How many of some tasks still run.
private final class Countdown: Sendable {
    private let count: Mutex<Int>
    init(_ count: Int) { self.count = Mutex(count) }
    func decrement() { count.withLock { $0 -= 1 } }
    var isZero: Bool { count.withLock { $0 == 0 } }
}

import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// Tables that a copy reads along different paths.
enum CopyShape: String, CaseIterable, Sendable {
    case rowidKey, secondUnique, textKey, noCase, withoutRowid, withoutRowidLast, composite

    var definition: String {
        switch self {
        case .rowidKey: "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c)"
        case .secondUnique: "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c)"
        case .textKey: "CREATE TABLE t(a TEXT NOT NULL PRIMARY KEY, b UNIQUE, c)"
        case .noCase: "CREATE TABLE t(a TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, b, c)"
        case .withoutRowid: "CREATE TABLE t(a TEXT PRIMARY KEY, b UNIQUE, c) WITHOUT ROWID"
        case .withoutRowidLast: "CREATE TABLE t(a, b, c, PRIMARY KEY(c, b)) WITHOUT ROWID"
        case .composite: "CREATE TABLE t(a NOT NULL, b NOT NULL, c, PRIMARY KEY(b, a), UNIQUE(b))"
        }
    }

    var hasRowid: Bool { ![.withoutRowid, .withoutRowidLast].contains(self) }
    var hasHiddenRowid: Bool { [.textKey, .noCase, .composite].contains(self) }

    func key(_ number: Int) -> String {
        switch self {
        case .textKey, .noCase, .withoutRowid: "'k\(number)'"
        case .rowidKey, .secondUnique, .withoutRowidLast, .composite: "\(number)"
        }
    }

    /// The table with 1,200 rows, some of them gone again.
    var schema: String {
        let key = key(0).hasPrefix("'") ? "'k' || i" : "i"
        return """
            \(definition);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) INSERT INTO t SELECT \(key), -i, 'r' FROM n;
            DELETE FROM t WHERE -b % 7 = 0;
            """
    }
}

@Suite("SQLite copy: chunks of one committed state")
struct CopyChunkTests {
    @Test(
        "S3 S10 the application's WAL can be checkpointed in mid-copy, whatever the table's key and indexes",
        arguments: CopyShape.allCases)
    func checkpoint(_ shape: CopyShape) async throws {
        let harness = try await CaptureHarness(shape.schema, tables: ["t"])
        let snapshot = try await harness.source.openSnapshot(harness.link)
        let application = try TestDatabase.open(harness.database.path, setUp: "PRAGMA busy_timeout=0;")
        var steps = 0
        var stuck = 0
        _ = try await harness.load("t", from: harness.openTable("t", of: snapshot)) {
            steps += 1
            try harness.database.run("INSERT INTO t VALUES(\(shape.key(5_000 + steps)), \(5_000 + steps), 'new')")
            // Capture's keeper may look at the file for a moment, but not for all of these.
            let passed = try (0..<200).contains { _ in
                usleep(1_000)
                return try application.writeWithoutTransaction {
                    try Int.fetchOne($0, sql: "PRAGMA wal_checkpoint(TRUNCATE)")
                } == 0
            }
            if !passed { stuck += 1 }
        }
        #expect(steps > 5)
        #expect(stuck == 0)
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        try application.close()
        await harness.close()
    }

    @Test(
        "S8 S10 in mid-copy a writer that does not wait for locks is let through in a rollback-journal mode",
        arguments: CopyShape.allCases)
    func impatientWriter(_ shape: CopyShape) async throws {
        let harness = try await CaptureHarness(shape.schema, tables: ["t"], journalMode: "DELETE")
        let snapshot = try await harness.source.openSnapshot(harness.link)
        let application = try TestDatabase.open(harness.database.path, setUp: "PRAGMA busy_timeout=0;")
        var steps = 0
        var refused = 0
        _ = try await harness.load("t", from: harness.openTable("t", of: snapshot)) {
            steps += 1
            let passed = (0..<200).contains { _ in
                usleep(1_000)
                return (try? application.writeWithoutTransaction {
                    try $0.execute(sql: "REPLACE INTO t VALUES(\(shape.key(steps)), \(5_000 + steps), 'new')")
                }) != nil
            }
            if !passed { refused += 1 }
        }
        #expect(steps > 5)
        #expect(refused == 0)
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        try application.close()
        await harness.close()
    }

    @Test(
        "S10 a copy's rows are of one committed state, and with the log's tail they make the table, whatever is written meanwhile",
        arguments: CopyShape.allCases, ["WAL", "DELETE"])
    func oneState(_ shape: CopyShape, _ mode: String) async throws {
        let seed = UInt64.random(in: 0..<1 << 32)
        var random = SeededGenerator(seed: seed)
        let harness = try await CaptureHarness(shape.schema, tables: ["t"], journalMode: mode)
        let snapshot = try await harness.source.openSnapshot(harness.link)
        var reader = try await harness.openTable("t", of: snapshot)
        var state = try harness.database.images("t", ["a", "b", "c"])
        var mayLosePlace = shape.hasHiddenRowid
        func key(_ random: inout SeededGenerator) -> String {
            let text = shape.key(1 + Int(random.below(1_300)))
            // The same key in another case, where that is the same.
            return shape == .noCase && random.below(2) == 0 ? text.uppercased() : text
        }
        var copied = 0
        let chunk = RecordBuffer()
        var statements: [String] = []
        while true {
            chunk.removeAll()
            let rows: Int
            do {
                rows = try await reader.read(into: chunk, limit: 4_000)
            } catch {
                guard error.code == .serverBusy, mayLosePlace else { throw error }
                // The row that was read last changed, and the schema as well: the copy begins again, as a link would do it.
                mayLosePlace = false
                await reader.close()
                reader = try await harness.openTable("t", of: snapshot)
                state = try harness.database.images("t", ["a", "b", "c"])
                harness.forget("t")
                copied = 0
                continue
            }
            if rows == 0 { break }
            copied += rows
            try harness.mirrorLoad("t", reader.columns, chunk)
            for _ in 0..<random.below(8) {
                let value = -Int(random.below(1_300))
                let statement: String
                switch random.below(shape.hasRowid ? 8 : 7) {
                case 0: statement = "REPLACE INTO t VALUES(\(key(&random)), \(value), 'replaced')"
                case 1: statement = "UPDATE OR REPLACE t SET a = \(key(&random)) WHERE a = \(key(&random))"
                case 2: statement = "UPDATE OR REPLACE t SET b = \(value) WHERE a = \(key(&random))"
                case 3: statement = "DELETE FROM t WHERE b BETWEEN \(value) AND \(value + 20)"
                case 4: statement = "UPDATE t SET c = c || 'x' WHERE b BETWEEN \(value) AND \(value + 40)"
                case 5: statement = "INSERT OR IGNORE INTO t VALUES(\(key(&random)), \(value), 'inserted')"
                case 6: statement = "SAVEPOINT s; DELETE FROM t WHERE b BETWEEN \(value) AND 0; ROLLBACK TO s; RELEASE s"
                default: statement = "UPDATE OR REPLACE t SET rowid = \(1 + random.below(9_000)) WHERE a = \(key(&random))"
                }
                statements.append(statement)
                try harness.database.run(statement)
            }
            let mayChangeSchema = mayLosePlace || !shape.hasHiddenRowid
            if mayChangeSchema, random.below(12) == 0 { try harness.database.run("VACUUM") }
            if mayChangeSchema, random.below(12) == 0 { try harness.database.run("CREATE TABLE other\(statements.count)_\(copied)(x)") }
        }
        await reader.close()
        let loaded = Array((harness.mirror.table(named: "t")?.rows ?? [:]).values)
        let comment = Comment(rawValue: "seed \(seed): \(statements.joined(separator: ";\n"))")
        #expect(loaded.count == copied, comment)
        #expect(Set(loaded).isSubset(of: state), comment)
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil, comment)
        await harness.close()
    }

    @Test("S6 S10 the log keeps what a copy has not seen, though it is acknowledged, and loses it when the copy has ended")
    func keepsLog() async throws {
        let harness = try await CaptureHarness(CopyShape.textKey.schema, tables: ["t"])
        let log = CaptureNames(harness.link).log
        let snapshot = try await harness.source.openSnapshot(harness.link)
        let reader = try await harness.openTable("t", of: snapshot)
        let state = try harness.database.images("t", ["a", "b", "c"])
        var steps = 0
        _ = try await harness.load("t", from: reader) {
            steps += 1
            guard steps == 3 else { return }
            try harness.database.run("UPDATE t SET c = 'changed', b = b - 10000 WHERE a LIKE 'k1%'")
        }
        // Read to its end, the copy needs nothing any more.
        try await harness.drain()
        harness.session.acknowledge(harness.durable)
        try await eventually("the log is pruned") { try harness.database.integer("SELECT count(*) FROM \(log)") <= 2 }

        let second = try await harness.openTable("t", of: snapshot)
        let chunk = RecordBuffer()
        _ = try await second.read(into: chunk, limit: 1_000)
        try harness.database.run("UPDATE t SET c = 'again'; DELETE FROM t WHERE a LIKE 'k2%'")
        let rows = try harness.database.integer("SELECT count(*) FROM \(log)")
        try await harness.drain()
        harness.session.acknowledge(harness.durable)
        let durable = harness.durable
        try await eventually("acknowledged") {
            try await harness.source.health(harness.link, applied: .zero).acknowledged == durable
        }
        #expect(try harness.database.integer("SELECT count(*) FROM \(log)") >= rows)
        var copied = 0
        chunk.removeAll()
        while true {
            let rows = try await second.read(into: chunk, limit: 1_000)
            if rows == 0 { break }
            copied += rows
        }
        // All the others had changed.
        #expect(copied == 0)
        #expect(state.count > 1_000)
        await second.close()
        try await eventually("the log is pruned") { try harness.database.integer("SELECT count(*) FROM \(log)") <= 2 }
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        await harness.close()
    }

    @Test("S4 S10 where the schema changed and the place in a table without an own rowid is lost, the copy is to begin again")
    func placeLost() async throws {
        let harness = try await CaptureHarness(CopyShape.textKey.schema, tables: ["t"])
        let snapshot = try await harness.source.openSnapshot(harness.link)
        let reader = try await harness.openTable("t", of: snapshot)
        let chunk = RecordBuffer()
        let rows = try await reader.read(into: chunk, limit: 2_000)
        let last = try harness.database.integer("SELECT max(rowid) FROM (SELECT rowid FROM t ORDER BY rowid LIMIT \(rows))")
        try harness.database.run("DELETE FROM t WHERE rowid = \(last); VACUUM")
        #expect(await errorCode { _ = try await reader.read(into: chunk, limit: 2_000) } == .serverBusy)
        // It says so again: a read that found nothing would be the table's end.
        #expect(await errorCode { _ = try await reader.read(into: chunk, limit: 2_000) } == .serverBusy)
        await reader.close()
        _ = try await harness.load("t", from: harness.openTable("t", of: snapshot))
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        await harness.close()
    }

    @Test("S4 S10 a table that is renamed in mid-copy is copied on; one whose columns change is to be copied again")
    func renamed() async throws {
        let harness = try await CaptureHarness(CopyShape.rowidKey.schema, tables: ["t"])
        let snapshot = try await harness.source.openSnapshot(harness.link)
        var steps = 0
        _ = try await harness.load("t", from: harness.openTable("t", of: snapshot)) {
            steps += 1
            if steps == 2 { try harness.database.run("ALTER TABLE t RENAME TO moved; UPDATE moved SET c = 'n' WHERE a < 100") }
            if steps == 4 { try harness.database.run("ALTER TABLE moved RENAME TO t") }
        }
        #expect(steps > 5)
        #expect(try await harness.difference(["t": ["a", "b", "c"]]) == nil)
        let reader = try await harness.openTable("t", of: snapshot)
        let chunk = RecordBuffer()
        _ = try await reader.read(into: chunk, limit: 2_000)
        try harness.database.run("ALTER TABLE t RENAME COLUMN c TO d")
        #expect(await errorCode { _ = try await reader.read(into: chunk, limit: 2_000) } == .serverBusy)
        await reader.close()
        await harness.close()
    }

    @Test("S10 tables that no order leads through are copied at a stretch, and preflight says so")
    func noOrder() async throws {
        let harness = try await CaptureHarness(
            """
            CREATE TABLE t(rowid TEXT PRIMARY KEY NOT NULL, _rowid_, oid);
            CREATE TABLE u(a, b, PRIMARY KEY(a, b DESC)) WITHOUT ROWID;
            CREATE TABLE v(rowid TEXT PRIMARY KEY NOT NULL, oid);
            CREATE TABLE w(a, b, PRIMARY KEY(a DESC, b DESC)) WITHOUT ROWID;
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, i, i FROM n;
            INSERT INTO u SELECT _rowid_, oid FROM t; INSERT INTO v SELECT _rowid_, oid FROM t; INSERT INTO w SELECT * FROM u;
            """, tables: ["t", "u", "v", "w"])
        let findings = try await harness.source.preflight(harness.link)
        #expect(findings.map { "\($0.table?.name ?? "-") \($0.severity.rawValue)" } == ["t warning", "u warning"])
        let snapshot = try await harness.source.openSnapshot(harness.link)
        for table in ["t", "u", "v", "w"] {
            _ = try await harness.load(table, from: harness.openTable(table, of: snapshot)) {
                try harness.database.run("UPDATE t SET oid = oid + 1 WHERE _rowid_ = 400; UPDATE u SET b = b + 1000 WHERE a = 300")
            }
        }
        let columns = ["t": ["rowid", "_rowid_", "oid"], "u": ["a", "b"], "v": ["rowid", "oid"], "w": ["a", "b"]]
        #expect(try await harness.difference(columns) == nil)
        await harness.close()
    }

    @Test("S3 S10 a chunk neither sorts nor reads twice what is left of a table, whatever indexes it has", arguments: CopyShape.allCases)
    func alongTheTable(_ shape: CopyShape) throws {
        let database = try SQLiteDatabase(path: ":memory:", access: .create, busyTimeout: 0)
        try database.execute(shape.schema + "CREATE INDEX i ON t(c, b); CREATE INDEX j ON t(a, c); ANALYZE;")
        let table = try #require(try SQLiteCatalog.table("t", database))
        let mapping = TableMapping(source: TableName(name: "t"), target: TableName(name: "t"))
        let copied = CopiedTable(table, try TravelingColumns(table, types: [:], mapping: mapping), filter: "t.c = 'r'")
        #expect(copied.order != nil)
        for continuing in [false, true] {
            let plan = try database.prepare("EXPLAIN QUERY PLAN " + copied.select(continuing: continuing, unchanged: false))
            var steps: [String] = []
            while try plan.step() { steps.append(plan.string(3) ?? "") }
            #expect(steps.count == 1, "\(steps)")
            #expect(steps.first?.hasPrefix(continuing ? "SEARCH t USING" : "SCAN t") == true, "\(steps)")
            #expect(steps.first?.contains("INDEX i") == false && steps.first?.contains("INDEX j") == false, "\(steps)")
        }
    }
}

import BridgeConformance
import BridgeCore
import BridgePostgreSQL
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Logging
import Testing

/// How updates and deletes of a real PostgreSQL source find their rows, through the whole link, into both engines.
@Suite("Identities", .serialized)
struct IdentityTests {
    /// A link out of a PostgreSQL database.
    private struct Pipeline {
        let source: PostgreSQLDatabase
        let target: any ConformanceDatabase
        let link: LinkDescription
        let folder: TemporaryDirectory

        /// - Parameter definitions: SQL for the source, and for the target.
        init(_ engine: any ConformanceEngine, _ tables: [String], _ definitions: (source: String, target: String)) async throws {
            let cluster = try PostgresCluster.shared
            source = PostgreSQLDatabase(cluster: cluster, url: try await cluster.makeDatabase("identity"))
            let target = try await engine.makeDatabase()
            self.target = target
            folder = try TemporaryDirectory(prefix: "identity")
            link = LinkDescription(
                migration: "identity-\(UInt32.random(in: 0...UInt32.max))", direction: .forward,
                mappings: tables.map { TableMapping(source: TableName(schema: "public", name: $0), target: target.tableName($0)) },
                form: target is PostgreSQLDatabase ? .native : .canonical)
            try await source.execute(definitions.source)
            try await target.execute(definitions.target + ";")
        }

        func run() async throws {
            let runner = try LinkRunner(
                configuration: LinkConfiguration(link: link, journalDirectory: folder.path("journal"), patience: .seconds(30)),
                source: source.makeSource(), target: target.makeTarget(),
                logger: Logger(label: "identity") { _ in SwiftLogNoOpLogHandler() })
            #expect(try await runner.run(untilCaughtUp: true))
        }

        /// Rows of a query that both engines understand, sorted.
        func targetRows(_ sql: String) async throws -> [String] {
            let text: String
            if let target = target as? PostgreSQLDatabase {
                text = try await target.cluster.psql(target.url, sql)
            } else {
                let path = String(target.url.dropFirst("sqlite:".count))
                text = try await ChildProcess.run(["sqlite3", "-batch", "-list", path], input: "\(sql);\n")
            }
            return text.split(separator: "\n").map(String.init).sorted()
        }

        func sourceRows(_ sql: String) async throws -> [String] {
            try await source.cluster.psql(source.url, sql).split(separator: "\n").map(String.init).sorted()
        }
    }

    /// Text that is stored out of line, and that tells where it came from.
    private static func big(_ number: Int) -> String {
        "(SELECT string_agg(md5((n * \(number))::text), '') FROM generate_series(1, 300) AS n)"
    }

    private static let toastTables = ["plain", "whole", "keyed", "indexed"]
    private static let toastChecks = [
        "SELECT id, small, length(big), substr(big, 1, 20), length(other), substr(other, 1, 20) FROM plain",
        "SELECT id, small, length(big), substr(big, 1, 20) FROM whole",
        "SELECT length(k), substr(k, 1, 20), small, length(big), substr(big, 1, 20) FROM keyed",
        "SELECT id, code, small, length(big), substr(big, 1, 20) FROM indexed",
    ]

    @Test("P12 unchanged TOAST values survive, with key changes, identity FULL and a key stored out of line", arguments: engines)
    func toast(_ engine: any ConformanceEngine) async throws {
        let isPostgres = engine is PostgreSQLEngine
        // A key of 2,400 characters that the table stores out of line fits into its index.
        let source = """
            CREATE TABLE plain (id int PRIMARY KEY, small text, big text, other text);
            CREATE TABLE whole (id int PRIMARY KEY, small text, big text); ALTER TABLE whole REPLICA IDENTITY FULL;
            CREATE TABLE keyed (k text PRIMARY KEY, small text, big text);
            CREATE TABLE indexed (id int, code int NOT NULL UNIQUE, small text, big text); ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code_key;
            ALTER TABLE plain ALTER big SET STORAGE EXTERNAL; ALTER TABLE whole ALTER big SET STORAGE EXTERNAL;
            ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL; ALTER TABLE keyed ALTER k SET STORAGE EXTERNAL; ALTER TABLE indexed ALTER big SET STORAGE EXTERNAL;
            """
        let integer = isPostgres ? "int" : "INTEGER"
        let target = """
            CREATE TABLE plain (id \(integer) PRIMARY KEY, small text, big text, other text);
            CREATE TABLE whole (id \(integer) PRIMARY KEY, small text, big text);
            CREATE TABLE keyed (k text NOT NULL PRIMARY KEY, small text, big text);
            CREATE TABLE indexed (id \(integer), code \(integer) NOT NULL PRIMARY KEY, small text, big text)
            """
        let pipeline = try await Pipeline(engine, Self.toastTables, (source, target))
        let rows = """
            INSERT INTO plain SELECT n, 'a', \(Self.big(3)) || n, \(Self.big(5)) || n FROM generate_series(1, 90) AS n;
            INSERT INTO whole SELECT n, 'a', \(Self.big(7)) || n FROM generate_series(1, 90) AS n;
            INSERT INTO keyed SELECT substr(\(Self.big(11)), 1, 2400) || n, 'a', \(Self.big(13)) || n FROM generate_series(1, 90) AS n;
            INSERT INTO indexed SELECT n, n, 'a', \(Self.big(17)) || n FROM generate_series(1, 90) AS n;
            """
        try await pipeline.source.execute(rows)
        #expect(
            try await pipeline.sourceRows("SELECT bool_and(pg_relation_size(reltoastrelid) > 0) FROM pg_class WHERE relname IN ('plain', 'whole', 'keyed', 'indexed')")
                == ["t"])
        try await pipeline.run()
        // A few rows, which go over one by one; then all, which are staged; each with what was left out before and after.
        for (bound, step) in [("<= 5", 1_000), ("> 5", 10_000)] {
            let key = "substring(substr(k, 2401) FROM '^[0-9]+')::int"
            try await pipeline.source.execute(
                """
                BEGIN;
                UPDATE plain SET small = 'b' WHERE id \(bound); UPDATE plain SET id = id + \(step) WHERE id \(bound) AND id % 2 = 0 AND id < 100;
                UPDATE plain SET small = 'c' WHERE id > 5 AND id % 3 = 0; UPDATE plain SET id = id + 5, other = small WHERE id % 7 = 1 AND id > 500;
                UPDATE whole SET small = 'b' WHERE id \(bound); UPDATE whole SET id = id + \(step) WHERE id \(bound) AND id % 2 = 0 AND id < 100;
                UPDATE keyed SET small = 'b' WHERE \(key) \(bound); UPDATE keyed SET k = k || 'x' WHERE \(key) \(bound) AND \(key) % 2 = 0;
                UPDATE indexed SET small = 'b' WHERE id \(bound); UPDATE indexed SET code = code + \(step) WHERE id \(bound) AND id % 2 = 0;
                DELETE FROM plain WHERE id = 3; DELETE FROM whole WHERE id = 3; DELETE FROM keyed WHERE \(key) = 3; DELETE FROM indexed WHERE id = 3;
                COMMIT;
                """)
            try await pipeline.run()
            for check in Self.toastChecks {
                #expect(try await pipeline.sourceRows(check) == pipeline.targetRows(check), "\(bound): \(check)")
            }
        }
    }

    @Test("P13 each replica identity, NULL in the row, exact duplicates, json and point", arguments: engines)
    func identities(_ engine: any ConformanceEngine) async throws {
        let isPostgres = engine is PostgreSQLEngine
        let columns = "a int, b text, j json, p point, n numeric"
        let tables = ["byfull", "byindex", "bykey"]
        let source = """
            CREATE TABLE byfull (\(columns)); ALTER TABLE byfull REPLICA IDENTITY FULL;
            CREATE TABLE byindex (\(columns), x int NOT NULL, y text NOT NULL); CREATE UNIQUE INDEX i ON byindex (y, x);
            ALTER TABLE byindex REPLICA IDENTITY USING INDEX i;
            CREATE TABLE bykey (\(columns), x int, y text, PRIMARY KEY (x, y));
            """
        let types = isPostgres ? columns : "a INTEGER, b TEXT, j TEXT, p TEXT, n TEXT"
        let x = isPostgres ? "x int" : "x INTEGER"
        let target = """
            CREATE TABLE byfull (\(types)); CREATE TABLE byindex (\(types), \(x), y text NOT NULL, PRIMARY KEY (y, x));
            CREATE TABLE bykey (\(types), \(x), y text, PRIMARY KEY (x, y))
            """
        let pipeline = try await Pipeline(engine, tables, (source, target))
        let rows = [
            "NULL, NULL, NULL, NULL, NULL", "1, 'x', '{\"a\": 1}', '(1,2)', 1.0", "1, 'x', '{\"a\":1}', '(1,2)', 1.0",
            "1, 'x', '{\"a\": 1}', '(1,2)', 1.00", "1, NULL, '{\"a\": 1}', NULL, 'NaN'", "2, '', 'null', '(NaN,-0)', -0.0",
        ]
        func inserts(_ first: Int) -> String {
            rows.enumerated().map { number, row in
                """
                INSERT INTO byfull VALUES (\(row)), (\(row)), (\(row));
                INSERT INTO byindex VALUES (\(row), \(first + number), 'y'), (\(row), \(first + number), 'z');
                INSERT INTO bykey VALUES (\(row), \(first + number), ''), (\(row), \(first + number), 'z');
                """
            }.joined(separator: "\n")
        }
        func check() async throws {
            for table in tables {
                let sql = "SELECT a, b, j, p, n\(table == "byfull" ? "" : ", x, y") FROM \(table)"
                #expect(try await pipeline.sourceRows(sql) == pipeline.targetRows(sql), "\(table)")
            }
        }
        try await pipeline.source.execute(inserts(0))
        try await pipeline.run()
        for first in [10, 20] {
            // One of three same rows changes, one goes; the third is left as it was.
            let one = "ctid IN (SELECT min(ctid) FROM byfull GROUP BY a, b, j::text, p::text, n::text)"
            try await pipeline.source.execute(
                """
                BEGIN; \(inserts(first))
                UPDATE byfull SET b = 'changed' || \(first), j = j WHERE \(one);
                DELETE FROM byfull WHERE \(one) AND b IS DISTINCT FROM 'changed\(first)';
                UPDATE byfull SET n = NULL WHERE a IS NULL AND b IS NULL;
                UPDATE byindex SET b = NULL WHERE x % 2 = 0; UPDATE byindex SET x = x + 100 WHERE y = 'z' AND x < 100; DELETE FROM byindex WHERE x = \(first);
                UPDATE bykey SET j = '[ ]' WHERE x % 2 = 0; UPDATE bykey SET y = y || 'k' WHERE x % 3 = 0; DELETE FROM bykey WHERE x = \(first);
                COMMIT;
                """)
            try await pipeline.run()
            try await check()
        }
    }

    @Test("P13 identity NOTHING is refused by preflight, by name, and the application's updates go on", arguments: engines)
    func nothing(_ engine: any ConformanceEngine) async throws {
        let pipeline = try await Pipeline(
            engine, ["t"],
            (
                "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY NOTHING; INSERT INTO t VALUES (1, 'a')",
                "CREATE TABLE t (id \(engine is PostgreSQLEngine ? "int" : "INTEGER") PRIMARY KEY, v text)"
            ))
        let source = try pipeline.source.makeSource()
        try await source.connect()
        let findings = try await source.preflight(pipeline.link).filter { $0.severity == .blocking }
        #expect(findings.map(\.table) == [TableName(schema: "public", name: "t")], "\(findings.map(\.what))")
        #expect(findings.first?.mend.isEmpty == false)
        await source.close()
        let error = await #expect(throws: BridgeError.self) { try await pipeline.run() }
        #expect(error?.context.first { $0.key == .table }?.value == "public.t")
        // The application is not harmed by what was tried.
        try await pipeline.source.execute("UPDATE t SET v = 'b'; DELETE FROM t")
    }

    @Test("P28 GENERATED ALWAYS: values, key changes and columns stored out of line stay, generated columns are the target's")
    func generated() async throws {
        let table = """
            CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, big text, twice int GENERATED ALWAYS AS (id * 2) STORED);
            CREATE TABLE o (k text PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY UNIQUE, big text, shown text GENERATED ALWAYS AS (upper(k)) STORED);
            ALTER TABLE t ALTER big SET STORAGE EXTERNAL; ALTER TABLE o ALTER big SET STORAGE EXTERNAL;
            """
        // The target works out another thing.
        let target = table.replacing("id * 2", with: "id * 3").replacing("upper(k)", with: "lower(k)")
        let pipeline = try await Pipeline(PostgreSQLEngine(), ["t", "o"], (table, target))
        func inserts(_ from: Int, _ to: Int) -> String {
            """
            INSERT INTO t (v, big) SELECT 'v' || n, \(Self.big(3)) || n FROM generate_series(\(from), \(to)) AS n;
            INSERT INTO t (id, v, big) OVERRIDING SYSTEM VALUE VALUES (\(to + 50_000), 'own', 'b');
            INSERT INTO o (k, big) SELECT 'K' || n, \(Self.big(5)) || n FROM generate_series(\(from), \(to)) AS n;
            """
        }
        try await pipeline.source.execute(inserts(1, 10))
        try await pipeline.run()
        // Few rows and many; DEFAULT is the one new value that an UPDATE may give.
        for (from, to) in [(11, 14), (21, 120)] {
            try await pipeline.source.execute(
                """
                BEGIN; \(inserts(from, to)) COMMIT;
                BEGIN;
                UPDATE t SET v = v || '!' WHERE v LIKE 'v%'; UPDATE t SET id = DEFAULT WHERE v LIKE '%5!'; UPDATE t SET id = DEFAULT, v = 'both' WHERE v LIKE '%7!';
                UPDATE o SET n = DEFAULT WHERE k LIKE '%5'; UPDATE o SET k = k || 'x' WHERE k LIKE '%7'; UPDATE o SET n = DEFAULT, k = k || 'y' WHERE k LIKE '%8';
                UPDATE o SET big = 'short' WHERE k LIKE '%9'; DELETE FROM t WHERE v LIKE '%3!'; DELETE FROM o WHERE k LIKE '%3';
                COMMIT;
                """)
            try await pipeline.run()
            for sql in ["SELECT id, v, md5(big) FROM t", "SELECT k, n, md5(big) FROM o"] {
                #expect(try await pipeline.sourceRows(sql) == pipeline.targetRows(sql), "\(from): \(sql)")
            }
            #expect(try await pipeline.targetRows("SELECT bool_and(twice = id * 3) FROM t") == ["t"])
            #expect(try await pipeline.targetRows("SELECT bool_and(shown = lower(k)) FROM o") == ["t"])
        }
    }
}

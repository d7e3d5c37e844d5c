import BridgeConformance
import BridgeCore
import BridgePostgreSQL
import BridgeReplication
import BridgeSQLite
import BridgeTestEngines
import BridgeTestSupport
import Logging
import Testing

/// Every type with its nasty values, through copy and stream, under settings that would change them on the way.
@Suite("Types", .serialized)
struct TypeTests {
    /// What an operator's role may be set to; the link's sessions must not care.
    private static let hostile = [
        "extra_float_digits = -15", "DateStyle = 'German, DMY'", "IntervalStyle = 'sql_standard'", "TimeZone = 'Asia/Tokyo'",
        "bytea_output = 'escape'", "search_path = 'nowhere'", "client_encoding = 'LATIN1'", "xmloption = 'document'",
        "standard_conforming_strings = 'off'", "array_nulls = 'off'", "transform_null_equals = 'on'", "quote_all_identifiers = 'on'",
        "statement_timeout = '1ms'", "default_transaction_read_only = 'on'", "default_transaction_isolation = 'serializable'",
        "row_security = 'on'", "xmlbinary = 'hex'", "enable_indexscan = 'off'",
    ]

    /// A database whose owner's settings are hostile.
    private struct Place {
        let database: PostgreSQLDatabase
        let url: String

        init(_ name: String, _ setup: String) async throws {
            let cluster = try PostgresCluster.shared
            let plain = try await cluster.makeDatabase(name)
            database = PostgreSQLDatabase(cluster: cluster, url: plain)
            try await cluster.psql(plain, setup)
            let number = plain.split(separator: "?")[0].split(separator: "/").last ?? ""
            let role = "hostile_\(number)"
            try await cluster.psql(
                plain,
                "CREATE ROLE \(role) LOGIN SUPERUSER;"
                    + TypeTests.hostile.map { "ALTER ROLE \(role) IN DATABASE \(number) SET \($0);" }.joined())
            url = plain.replacing("postgres@", with: "\(role)@")
        }

        func dump(_ tables: TypeTables) async throws -> String {
            let settings = "SET extra_float_digits = 3; SET search_path = public, \"Other types\"; SET TimeZone = 'UTC';"
            return try await database.cluster.psql(database.url, "\(settings)\n\(tables.dump)")
        }

        func run(_ statements: [String], together: Bool) async throws {
            let sql = statements.joined(separator: ";\n")
            try await database.execute("SET search_path = public, \"Other types\"; \(together ? "BEGIN; \(sql); COMMIT" : sql)")
        }
    }

    private static func runner(
        _ link: LinkDescription, _ folder: TemporaryDirectory, _ source: any SourceConnector, _ target: any TargetConnector
    ) -> LinkRunner {
        LinkRunner(
            configuration: LinkConfiguration(
                link: link, journalDirectory: folder.path("journal-\(link.migration)"), patience: .seconds(30)),
            source: source, target: target, logger: Logger(label: "types") { _ in SwiftLogNoOpLogHandler() })
    }

    private static func link(_ tables: TypeTables, _ form: ValueForm, source: String?, target: String?) -> LinkDescription {
        LinkDescription(
            migration: "types-\(UInt32.random(in: 0...UInt32.max))", direction: .forward,
            mappings: tables.names.map {
                TableMapping(source: TableName(schema: source, name: $0), target: TableName(schema: target, name: $0))
            }, form: form)
    }

    private func expectEqual(_ source: String, _ target: String, _ comment: Comment) {
        guard source != target else { return }
        let (expected, found) = (source.split(separator: "\n"), target.split(separator: "\n"))
        var table: Substring = ""
        var told = 0
        for index in 0..<max(expected.count, found.count) {
            let (one, other) = (index < expected.count ? expected[index] : "-", index < found.count ? found[index] : "-")
            if one.hasPrefix("table ") { table = one }
            guard one != other, told < 6 else { continue }
            told += 1
            let cells = zip(one.split(separator: "\t", omittingEmptySubsequences: false), other.split(separator: "\t", omittingEmptySubsequences: false))
                .enumerated().filter { $0.element.0 != $0.element.1 }
                .map { "\($0.offset): \($0.element.0.prefix(60)) | \($0.element.1.prefix(60))" }
            Issue.record("\(comment): \(table): \(cells.isEmpty ? "\(one.prefix(200)) | \(other.prefix(200))" : cells.joined(separator: "; "))")
        }
    }

    @Test("P14 P15 every type arrives byte-identical at PostgreSQL, as column, array and key, through copy and stream")
    func postgres() async throws {
        let tables = TypeTables(forSQLite: false)
        let source = try await Place("types_source", tables.definitions(isTarget: false))
        let target = try await Place("types_target", tables.definitions(isTarget: true))
        let folder = try TemporaryDirectory(prefix: "types")
        let link = Self.link(tables, .native, source: "public", target: "public")
        func runner() throws -> LinkRunner {
            try Self.runner(link, folder, PostgresSource(connectionString: source.url), PostgresTarget(connectionString: target.url))
        }
        try await source.run(tables.inserts(from: 1_000), together: true)
        #expect(try await runner().run(untilCaughtUp: true))
        expectEqual(try await source.dump(tables), try await target.dump(tables), "after the copy")

        // One transaction: staged, and in source order where rows have no key.
        try await source.run(tables.changes(from: 1_000) + tables.inserts(from: 2_000) + tables.changes(from: 2_000), together: true)
        #expect(try await runner().run(untilCaughtUp: true))
        expectEqual(try await source.dump(tables), try await target.dump(tables), "after one transaction")

        // Many small ones, as they come.
        let live = try runner()
        let running = Task { try await live.run(untilCaughtUp: false) }
        try await waitUntil { live.progress.activity == .streaming || live.progress.activity == .stopped }
        try await source.run(tables.inserts(from: 3_000) + tables.changes(from: 3_000), together: false)
        live.stop()
        _ = try await running.value
        #expect(try await runner().run(untilCaughtUp: true))
        expectEqual(try await source.dump(tables), try await target.dump(tables), "after small transactions")
    }

    @Test("P15 S15 every type comes back from SQLite as it was")
    func throughSQLite() async throws {
        let tables = TypeTables(forSQLite: true)
        let source = try await Place("types_source", tables.definitions(isTarget: false))
        let back = try await Place("types_back", tables.definitions(isTarget: true))
        let file = try SQLiteFile()
        let folder = try TemporaryDirectory(prefix: "types")
        let there = Self.link(tables, .canonical, source: "public", target: nil)
        let home = Self.link(tables, .canonical, source: nil, target: "public")
        let from = try PostgresSource(connectionString: source.url)
        try await from.connect()
        let described = try await from.describeTables(there.mappings.map(\.source))
        let to = try file.makeTarget()
        try await to.connect()
        try await to.execute(to.schemaPlan(for: described, mappings: there.mappings))
        let findings = try await to.preflight(there, sources: described).filter { $0.severity == .blocking }
        #expect(findings.isEmpty, "\(findings.map(\.what))")
        await from.close()
        await to.close()

        try await source.run(tables.inserts(from: 1_000), together: true)
        func forth() throws -> LinkRunner { try Self.runner(there, folder, PostgresSource(connectionString: source.url), file.makeTarget()) }
        func forthAndBack() throws -> LinkRunner { try Self.runner(home, folder, file.makeSource(), PostgresTarget(connectionString: back.url)) }
        #expect(try await forth().run(untilCaughtUp: true))
        try await source.run(tables.changes(from: 1_000) + tables.inserts(from: 2_000), together: true)
        #expect(try await forth().run(untilCaughtUp: true))
        #expect(try await forthAndBack().run(untilCaughtUp: true))
        expectEqual(try await source.dump(tables), try await back.dump(tables), "after copy and stream to SQLite, and a copy back")

        // What the file's own application does; the same is done at the source, which no link looks at any more.
        var changes: [String] = []
        for name in ["plain", "arrays"] {
            changes += ["UPDATE \(name) SET id = id + 5000 WHERE id % 2 = 0", "DELETE FROM \(name) WHERE id % 3 = 0"]
        }
        changes += tables.keys.map { "UPDATE key_\($0.number) SET n = n + 100 WHERE n % 2 = 0" }
        try await source.run(changes, together: true)
        try await file.execute("BEGIN; \(changes.joined(separator: "; ")); COMMIT;")
        #expect(try await forthAndBack().run(untilCaughtUp: true))
        expectEqual(try await source.dump(tables), try await back.dump(tables), "after the stream back")

        // Keys that are two in the file and one for the target.
        let keys = tables.sameKeys
        try await source.run(keys, together: true)
        try await file.execute("BEGIN; \(keys.joined(separator: "; ")); COMMIT;")
        #expect(try await forthAndBack().run(untilCaughtUp: true))
        expectEqual(try await source.dump(tables), try await back.dump(tables), "after changes of keys to equal ones")
    }

    @Test("P10 P15 a value added to an enum in mid-stream: applied, or the link stops by table and goes on when the target has it")
    func addedEnumValue() async throws {
        let setup = """
            CREATE SCHEMA o; CREATE TYPE o.mood AS ENUM ('sad', 'ok'); CREATE DOMAIN moods AS o.mood[];
            CREATE TABLE t (id int PRIMARY KEY, m o.mood, a o.mood[], d moods); CREATE TABLE k (m o.mood PRIMARY KEY, n int)
            """
        let source = try await Place("types_source", setup + "; INSERT INTO t VALUES (1, 'ok', '{sad}', NULL)")
        let target = try await Place("types_target", setup)
        let folder = try TemporaryDirectory(prefix: "types")
        let link = LinkDescription(
            migration: "types-\(UInt32.random(in: 0...UInt32.max))", direction: .forward,
            mappings: ["t", "k"].map { TableMapping(source: TableName(schema: "public", name: $0), target: TableName(schema: "public", name: $0)) },
            form: .native)
        func run() async throws {
            #expect(
                try await Self.runner(link, folder, PostgresSource(connectionString: source.url), PostgresTarget(connectionString: target.url))
                    .run(untilCaughtUp: true))
        }
        func rows(_ place: Place) async throws -> String {
            try await place.database.cluster.psql(place.database.url, "SELECT * FROM t ORDER BY id; SELECT * FROM k ORDER BY n")
        }
        try await run()
        for (number, isFirst) in [(1, true), (2, false)] {
            let add = "ALTER TYPE o.mood ADD VALUE 'new\(number)' BEFORE 'ok'"
            if isFirst { try await target.database.execute(add) }
            try await source.database.execute(
                """
                \(add); INSERT INTO t VALUES (\(number + 1), 'new\(number)', '{new\(number),NULL}', '{new\(number)}');
                INSERT INTO k VALUES ('new\(number)', \(number)); UPDATE k SET m = 'sad' WHERE m = 'new\(number)'; UPDATE k SET m = 'new\(number)' WHERE m = 'sad';
                """)
            if !isFirst {
                let error = await #expect(throws: BridgeError.self) { try await run() }
                #expect(error?.context.first { $0.key == .table }?.value == "public.t")
                try await target.database.execute(add)
            }
            try await run()
            #expect(try await rows(source) == rows(target))
        }
    }

    @Test("P15 S16 NaN and -0.0, which SQLite cannot hold, stop the link by table and column")
    func notInSQLite() async throws {
        for value in ["'NaN'", "'-0'"] {
            let source = try await Place("types_source", "CREATE TABLE f (id int PRIMARY KEY, good float8, bad float8); INSERT INTO f VALUES (1, 1, \(value))")
            let file = try SQLiteFile()
            try await file.execute("CREATE TABLE f (id INTEGER PRIMARY KEY, good REAL, bad REAL);")
            let link = LinkDescription(
                migration: "types-\(UInt32.random(in: 0...UInt32.max))", direction: .forward,
                mappings: [TableMapping(source: TableName(schema: "public", name: "f"), target: TableName(name: "f"))], form: .canonical)
            let folder = try TemporaryDirectory(prefix: "types")
            let error = await #expect(throws: BridgeError.self) {
                try await Self.runner(link, folder, PostgresSource(connectionString: source.url), file.makeTarget()).run(untilCaughtUp: true)
            }
            #expect(error?.code == .valueDoesNotFit)
            #expect(error?.context.first { $0.key == .column }?.value == "bad")
        }
    }
}

import BridgeCore
import BridgePostgreSQL
import BridgeReplication
import BridgeSQLite
import BridgeTestEngines
import BridgeTestSupport
import GRDB
import Logging
import Testing

/// An application's own file goes to PostgreSQL and comes back, whatever it declared and whatever it stored.
@Suite("There and back", .serialized)
struct ThereAndBackTests {
    /// The application's file, PostgreSQL, and the links between them.
    private struct World {
        let file: SQLiteFile
        let server: PostgreSQLDatabase
        let folder: TemporaryDirectory
        var link: LinkDescription

        init(_ tables: [String]) async throws {
            let cluster = try PostgresCluster.shared
            file = try SQLiteFile()
            folder = try TemporaryDirectory(prefix: "there")
            server = PostgreSQLDatabase(cluster: cluster, url: try await cluster.makeDatabase("there"))
            link = LinkDescription(
                migration: "there-\(UInt32.random(in: 0...UInt32.max))", direction: .forward,
                mappings: tables.map { TableMapping(source: TableName(name: $0), target: TableName(schema: "public", name: $0)) },
                form: .canonical)
        }

        func runner(_ link: LinkDescription, _ source: any SourceConnector, _ target: any TargetConnector) -> LinkRunner {
            LinkRunner(configuration: configuration(link), source: source, target: target, logger: Self.silent)
        }

        private func configuration(_ link: LinkDescription) -> LinkConfiguration {
            LinkConfiguration(link: link, journalDirectory: folder.path("journal-\(link.identifier)"), patience: .seconds(30))
        }

        private static var silent: Logger { Logger(label: "there") { _ in SwiftLogNoOpLogHandler() } }

        /// What stands in the way of going there.
        func findings() async throws -> [Finding] {
            let source = try file.makeSource()
            try await source.connect()
            let findings = try await source.preflight(link)
            await source.close()
            return findings
        }

        /// As `bridge schema apply` does it.
        func applySchema() async throws {
            let source = try file.makeSource()
            try await source.connect()
            let described = try await source.planTables(link.mappings.map(\.source))
            await source.close()
            let target = try server.makeTarget()
            try await target.connect()
            try await target.execute(target.schemaPlan(for: described, mappings: link.mappings))
            let findings = try await target.preflight(link, sources: described).filter { $0.severity == .blocking }
            #expect(findings.isEmpty, "\(findings.map(\.what))")
            await target.close()
        }

        func there() async throws { #expect(try await runner(link, file.makeSource(), server.makeTarget()).run(untilCaughtUp: true)) }

        func prepareBack() async throws {
            let (from, to) = (try server.makeSource(), try file.makeTarget())
            let preparation = ReversePreparation(configuration: configuration(link.reversed), source: from, target: to, logger: Self.silent)
            let findings = try await preparation.findings().filter { $0.severity == .blocking }
            #expect(findings.isEmpty, "\(findings.map(\.what))")
            try await preparation.prepare()
            await from.close()
            await to.close()
        }

        func back() async throws { #expect(try await runner(link.reversed, server.makeSource(), file.makeTarget()).run(untilCaughtUp: true)) }

        /// Into a new file whose tables are declared as the application's are.
        func copied(to other: SQLiteFile) async throws {
            var home = link
            home.migration += "-home"
            home.mappings = link.mappings.map { TableMapping(source: $0.target, target: TableName(name: $0.source.name)) }
            #expect(try await runner(home, server.makeSource(), other.makeTarget()).run(untilCaughtUp: true))
        }
    }

    /// A row's cells by storage class and bytes, through a reader that shares no code with the connector.
    private func cells(_ file: SQLiteFile, _ table: String, _ id: Int, _ columns: [String]) throws -> [String] {
        let queue = try DatabaseQueue(path: String(file.url.dropFirst("sqlite:".count)))
        return try queue.read { database in
            let parts = columns.map { "typeof(\($0)), \($0), hex(\($0))" }
            var result: [String] = []
            // SQLite has at most 2,000 columns.
            for start in stride(from: 0, to: parts.count, by: 500) {
                let list = parts[start..<min(start + 500, parts.count)].joined(separator: ", ")
                guard let row = try Row.fetchOne(database, sql: "SELECT \(list) FROM \(table) WHERE id = \(id)") else { return [] }
                for place in stride(from: 0, to: row.count, by: 3) {
                    let kind: String = row[place]
                    // The bits of a double, since its text may be another's.
                    let bits = kind == "real" ? String((row[place + 1] as Double).bitPattern, radix: 16) : ""
                    result.append("\(kind) \(bits.isEmpty ? row[place + 2] as String : bits)")
                }
            }
            return result
        }
    }

    @Test("S15 S16 every class under every declaration is refused by name, or comes back as it was, by copy and by stream")
    func everything() async throws {
        let tables = DeclaredTypes.tables
        var world = try await World(tables.map(\.name))
        let made = tables.map { $0.definition($0.columns) + $0.insert(1) }.joined(separator: "\n")
        try await world.file.execute("BEGIN; \(made) COMMIT;")

        // What cannot go there is named, and nothing else is.
        let named = Set(try await world.findings().filter { $0.severity == .blocking }.map(\.what))
        let faulty = Set(
            tables.flatMap { table in
                table.columns.filter(\.value.isFaulty).map { column in
                    let what = column.value.sql.contains("610062") ? "a zero byte" : "bytes that are not UTF-8"
                    return "text in column \(column.name) of table \(table.name) holds \(what)"
                }
            })
        #expect(named == faulty, "\(named.symmetricDifference(faulty).sorted().prefix(5))")

        let kept = tables.map { table in
            table.columns.filter { !$0.value.isFaulty && !($0.value.isInfinite && $0.isDecimal) }
        }
        for (number, columns) in kept.enumerated() { world.link.mappings[number].columns = ["id"] + columns.map(\.name) }
        try await world.applySchema()
        try await world.there()
        try await world.file.execute("BEGIN; " + tables.map { $0.insert(2) }.joined(separator: "\n") + " COMMIT;")
        try await world.there()

        // A new file, by copy; then what PostgreSQL's application makes of the rows, by stream.
        let fresh = try SQLiteFile()
        try await fresh.execute(zip(tables, kept).map { $0.definition($1) }.joined(separator: "\n"))
        try await world.copied(to: fresh)
        try await world.prepareBack()
        let sql = zip(tables, kept).flatMap { table, columns in
            let list = columns.map(\.name).joined(separator: ", ")
            return [(1, 3), (2, 4)].map { from, to in
                "INSERT INTO \(table.name)(id, \(list)) SELECT \(to), \(list) FROM \(table.name) WHERE id = \(from)"
            }
        }
        try await world.server.execute("BEGIN; \(sql.joined(separator: "; ")); COMMIT")
        try await world.copied(to: fresh)
        try await world.back()

        for (table, columns) in zip(tables, kept) {
            let wanted = try cells(world.file, table.name, 1, columns.map(\.name))
            #expect(wanted.count == columns.count)
            for (file, id, way) in [
                (fresh, 1, "copied"), (fresh, 2, "streamed, then copied"), (fresh, 3, "copied, then streamed"), (fresh, 4, "streamed both ways"),
                (world.file, 3, "copied, then streamed home"), (world.file, 4, "streamed both ways, home"),
            ] {
                let found = try cells(file, table.name, id, columns.map(\.name))
                guard found != wanted else { continue }
                let different = zip(columns, zip(wanted, found)).filter { $1.0 != $1.1 }.map { column, cells in
                    "\(column.value.sql) in \(column.declared): \(cells.0.prefix(60)) became \(cells.1.prefix(60))"
                }
                Issue.record("\(table.name), \(way): \(different.isEmpty ? "no such row" : different.prefix(4).joined(separator: "; "))")
            }
        }
    }

    @Test("S16 what comes back only as another value stops the way there by name", arguments: [
        ("DECIMAL(10,2)", "1.5", "9e999"), ("MONEY", "1.5", "'a'"), ("DATE", "'2024-01-02'", "20240102"), ("BOOLEAN", "1", "2"),
        ("INT", "1", "1.5"), ("TEXT", "'a'", "CAST(x'610062' AS TEXT)"), ("UUID", "'a'", "x'00'"),
        ("STRING", "'a'", "7"), ("TEXT", "'a'", "CAST(x'eda080' AS TEXT)"), ("", "1.5", "5"), ("INTEGER", "1.5", "9007199254740993"),
    ])
    func stopsThere(declared: String, first: String, later: String) async throws {
        let world = try await World(["t"])
        try await world.file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v \(declared)); INSERT INTO t VALUES (1, \(first));")
        try await world.applySchema()
        try await world.there()
        try await world.file.execute("INSERT INTO t VALUES (2, \(later));")
        let error = await #expect(throws: BridgeError.self) { try await world.there() }
        #expect(error?.code == .valueDoesNotFit)
        #expect(error?.context.first { $0.key == .column }?.value == "v")
        #expect(error?.context.first { $0.key == .table }?.value == "public.t")
        #expect(try await world.server.cluster.psql(world.server.url, "SELECT count(*) FROM t") == "1")
    }

    @Test("S16 text that a column of numbers made by hand would spell otherwise stops the way there, in copy and stream", arguments: [
        ("numeric", "'7'", "'007'"), ("numeric(10,2)", "'1.10'", "'1.1'"),
    ])
    func respelled(type: String, first: String, later: String) async throws {
        for isCopied in [true, false] {
            let world = try await World(["t"])
            try await world.server.execute("CREATE TABLE t (id bigint PRIMARY KEY, v \(type))")
            try await world.file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, \(first));")
            if !isCopied { try await world.there() }
            try await world.file.execute("INSERT INTO t VALUES (2, \(later));")
            let error = await #expect(throws: BridgeError.self) { try await world.there() }
            #expect(error?.code == .valueDoesNotFit)
            #expect(error?.context.first { $0.key == .column }?.value == "v")
            #expect(error?.context.first { $0.key == .table }?.value == "public.t")
            #expect(try await world.server.cluster.psql(world.server.url, "SELECT count(*) FROM t") == (isCopied ? "0" : "1"))
        }
    }

    @Test("S15 integers and reals beside each other come home in their classes, whatever number the column is declared as")
    func mixedNumbers() async throws {
        let world = try await World(["t"])
        try await world.file.execute(
            """
            CREATE TABLE t (id INTEGER PRIMARY KEY, i INT, b BIGINT, m MONEY, r REAL);
            INSERT INTO t VALUES (1, 5, 1.5, 5, 5), (2, 1.5, -4611686018427387904, 1.5, 1.5), (3, 1e19, 0, 9e999, 0);
            """)
        try await world.applySchema()
        try await world.there()
        try await world.file.execute("INSERT INTO t VALUES (4, 4503599627370496, 0.1, 0, 4503599627370496);")
        try await world.there()
        let columns = ["i", "b", "m", "r"]
        var wanted: [[String]] = []
        for id in 1...4 { wanted.append(try cells(world.file, "t", id, columns)) }
        try await world.prepareBack()
        try await world.server.execute("INSERT INTO t SELECT id + 10, i, b, m, r FROM t")
        try await world.back()
        for id in 1...4 { #expect(try cells(world.file, "t", id + 10, columns) == wanted[id - 1]) }
    }

    @Test("S16 what the application's file would change stops the way back by table and column, and the file stays as it was", arguments: [
        ("DATE", "'2024-01-02'", "'007'"), ("STRING", "'a'", "' 1e5'"),
        ("DECIMAL(10,2)", "1.5", "0.1000000000000000055511151231257827"), ("MONEY", "1.5", "'NaN'"), ("MONEY", "1.5", "'-0'"),
    ])
    func stopsBack(declared: String, first: String, later: String) async throws {
        let world = try await World(["t"])
        try await world.file.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v \(declared)); INSERT INTO t VALUES (1, \(first));")
        try await world.applySchema()
        try await world.there()
        try await world.prepareBack()
        try await world.server.execute("INSERT INTO t VALUES (2, \(later))")
        let error = await #expect(throws: BridgeError.self) { try await world.back() }
        #expect(error?.code == .valueDoesNotFit)
        #expect(error?.context.first { $0.key == .column }?.value == "v")
        #expect(error?.context.first { $0.key == .table }?.value == "t")
        #expect(try cells(world.file, "t", 2, ["v"]).isEmpty)
        // What the sentence says can be done about it, is done.
        try await world.server.execute("DELETE FROM t WHERE id = 2")
    }

    @Test("S15 decimals as PostgreSQL's application writes them come home as the numbers that the file has of them, keys too")
    func decimals() async throws {
        let world = try await World(["t", "k"])
        try await world.file.execute(
            """
            CREATE TABLE t (id INTEGER PRIMARY KEY, price DECIMAL(10,2), day DATE, flag BOOLEAN, ratio MONEY);
            CREATE TABLE k (price DECIMAL(10,2), day DATE, v TEXT, PRIMARY KEY (price, day));
            INSERT INTO t VALUES (1, 19.9, '2024-01-02', 1, 1.5), (2, 5, '2024-01-03', 0, 2);
            INSERT INTO k VALUES (1.5, '2024-01-02', 'a'), (2, '2024-01-03', 'b'), (3, '2024-01-04', 'c');
            """)
        try await world.applySchema()
        try await world.there()
        try await world.prepareBack()
        try await world.server.execute(
            """
            INSERT INTO t VALUES (3, 19.90, 'no day', true, 4), (4, 5.00, '', false, 0.25);
            UPDATE t SET price = 0.10 WHERE id = 2; UPDATE k SET v = 'A' WHERE price = 1.50; UPDATE k SET price = 2.50 WHERE v = 'b';
            DELETE FROM k WHERE price = 3.00;
            """)
        try await world.back()
        let real = { (value: Double) in "real \(String(value.bitPattern, radix: 16))" }
        #expect(try cells(world.file, "t", 3, ["price", "flag", "ratio"]) == [real(19.9), "integer 31", "integer 34"])
        #expect(try cells(world.file, "t", 4, ["price", "flag", "ratio"]) == ["integer 35", "integer 30", real(0.25)])
        #expect(try cells(world.file, "t", 2, ["price", "ratio"]) == [real(0.1), "integer 32"])
        let queue = try DatabaseQueue(path: String(world.file.url.dropFirst("sqlite:".count)))
        #expect(
            try await queue.read { try String.fetchAll($0, sql: "SELECT price || ' ' || typeof(price) || ' ' || day || ' ' || v FROM k ORDER BY v") } == [
                "1.5 real 2024-01-02 A", "2.5 real 2024-01-03 b",
            ])
    }
}

package import BridgeConformance
package import BridgeCore
import BridgePostgreSQL
import BridgeSQLite
package import BridgeTestSupport
import GRDB

/// Every engine that there is a connector for. A new one is added here and gets the whole suite.
package let engines: [any ConformanceEngine] = [PostgreSQLEngine(), SQLiteEngine()]

/// Two engines, the source's first.
package struct Pair: Sendable, CustomStringConvertible {
    package let source: any ConformanceEngine
    package let target: any ConformanceEngine
    package var description: String { "\(source) to \(target)" }

    package init(source: any ConformanceEngine, target: any ConformanceEngine) {
        self.source = source
        self.target = target
    }

    package static let all: [Pair] = engines.flatMap { source in engines.map { Pair(source: source, target: $0) } }
}

package struct PostgreSQLEngine: ConformanceEngine {
    package init() {}
    package var description: String { "PostgreSQL" }

    package func makeDatabase() async throws -> any ConformanceDatabase {
        let cluster = try PostgresCluster.shared
        return PostgreSQLDatabase(cluster: cluster, url: try await cluster.makeDatabase("conformance"))
    }
}

/// A database in the shared cluster, spoken to through psql.
package struct PostgreSQLDatabase: ConformanceDatabase {
    package let cluster: PostgresCluster
    package let url: String

    package init(cluster: PostgresCluster, url: String) {
        self.cluster = cluster
        self.url = url
    }

    package func makeSource() throws -> any SourceConnector { try PostgresSource(connectionString: url) }
    package func makeTarget() throws -> any TargetConnector { PostgresTarget(connectionString: url) }
    package func tableName(_ name: String) -> TableName { TableName(schema: "public", name: name) }

    package func create(_ table: ConformanceTable) async throws {
        try await execute(
            table.definition { kind in
                switch kind {
                case .integer: "bigint"
                case .text: "text"
                case .bytes: "bytea"
                case .real: "double precision"
                }
            })
    }

    package func execute(_ sql: String) async throws { try await cluster.psql(url, sql) }

    package func rows(_ table: ConformanceTable) async throws -> [String] {
        let cells = table.columns.map { column in
            let name = quoteIdentifier(column.name)
            let text =
                switch column.kind {
                case .integer: "'i:' || \(name)"
                case .text: "'t:' || replace(replace(\(name), E'\\\\', E'\\\\\\\\'), E'\\n', E'\\\\n')"
                case .bytes: "'x:' || encode(\(name), 'hex')"
                case .real: "'r:' || encode(float8send(\(name)), 'hex')"
                }
            return "coalesce(\(text), 'null')"
        }
        let sql = "SELECT \(cells.joined(separator: " || E'\\t' || ")) FROM \(quoteIdentifier(table.name))"
        return try await cluster.psql(url, sql).split(separator: "\n").map(String.init).sorted()
    }

    package func traces() async throws -> [String] {
        try await cluster.psql(
            url,
            """
            SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE '%bridge%'
            UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
            UNION ALL SELECT 'publication ' || pubname FROM pg_publication
            """
        ).split(separator: "\n").map(String.init)
    }
}

extension PostgreSQLDatabase {
    package func writeMarker(_ marker: String, _ link: LinkDescription) async throws {
        try await execute("SELECT pg_logical_emit_message(true, 'bridge.marker', \(quoteLiteral(marker)))")
    }

    package func discard() async throws {
        try await cluster.psql(
            url, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
        try await cluster.psql(
            cluster.uri("postgres"),
            """
            DROP DATABASE \(quoteIdentifier(name)) WITH (FORCE);
            SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin o
              LEFT JOIN pg_replication_origin_status s ON s.local_id = o.roident
              WHERE roname LIKE 'bridge\\_crash\\_%';
            """)
    }

    private var name: String { String(url.split(separator: "?")[0].split(separator: "/").last ?? "") }
}

package struct SQLiteEngine: ConformanceEngine {
    package init() {}
    package var description: String { "SQLite" }

    package func makeDatabase() async throws -> any ConformanceDatabase { try SQLiteFile() }
}

/// A database file, written with the sqlite3 program and read with GRDB.
package final class SQLiteFile: ConformanceDatabase {
    private let folder: TemporaryDirectory
    private var path: String { folder.path("database.db") }
    package var url: String { "sqlite:\(path)" }

    package init() throws {
        folder = try TemporaryDirectory(prefix: "sqlite")
        try ChildProcess.runBlocking(["sqlite3", "-batch", path, "PRAGMA journal_mode = WAL"])
    }

    package func makeSource() throws -> any SourceConnector { SQLiteSource(path: path) }
    package func makeTarget() throws -> any TargetConnector { SQLiteTarget(path: path) }
    package func tableName(_ name: String) -> TableName { TableName(name: name) }

    package func create(_ table: ConformanceTable) async throws {
        try await execute(
            table.definition { kind in
                switch kind {
                case .integer: "INTEGER"
                case .text: "TEXT"
                case .bytes: "BLOB"
                case .real: "REAL"
                }
            } + ";")
    }

    package func execute(_ sql: String) async throws {
        try await ChildProcess.run(["sqlite3", "-batch", "-bail", path], input: ".timeout 30000\n\(sql)\n")
    }

    package func rows(_ table: ConformanceTable) async throws -> [String] {
        var configuration = Configuration()
        configuration.busyMode = .timeout(30)
        let queue = try DatabaseQueue(path: path, configuration: configuration)
        let columns = table.columns.map { quoteIdentifier($0.name) }.joined(separator: ", ")
        let rows = try await queue.read { database in
            try Row.fetchAll(database, sql: "SELECT \(columns) FROM \(quoteIdentifier(table.name))").map { row in
                row.databaseValues.map(Self.canonical).joined(separator: "\t")
            }
        }
        return rows.sorted()
    }

    private static func canonical(_ value: DatabaseValue) -> String {
        switch value.storage {
        case .null: "null"
        case .int64(let integer): "i:\(integer)"
        case .double(let real): "r:" + hexadecimal(bytes: withUnsafeBytes(of: real.bitPattern.bigEndian) { Array($0) })
        case .string(let text):
            "t:" + text.map { $0 == "\\" ? "\\\\" : $0 == "\n" ? "\\n" : String($0) }.joined()
        case .blob(let data): "x:" + hexadecimal(bytes: Array(data))
        }
    }

    private static func hexadecimal(bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    package func writeMarker(_ marker: String, _ link: LinkDescription) async throws {
        try await execute("INSERT INTO _\(link.identifier)_log(tbl, k0) VALUES(0, \(quoteLiteral(marker)));")
    }

    /// The folder goes with its owner.
    package func discard() async throws {}

    package func traces() async throws -> [String] {
        let queue = try DatabaseQueue(path: path)
        return try await queue.read { database in
            try String.fetchAll(database, sql: "SELECT type || ' ' || name FROM sqlite_master WHERE name LIKE '%bridge%'")
        }
    }
}

import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// Random histories of an application on a watched target: whatever row differs between two committed states has its key
/// among the foreign writes recorded between them. Seeds are chosen as for the fuzz of capture.
@Suite("K16 fuzz of foreign writes")
struct ForeignWriteFuzzTests {
    /// The schemas of capture's fuzz, and some without a primary key, which only targets may have.
    static let schemas: [FuzzSchema] =
        // A watch does not outlive its tables' alteration, and does not make its triggers again in front of newer ones.
        CaptureFuzzTests.schemas.filter { !$0.isAltered && !$0.isRenewed } + [
            FuzzSchema(
                name: "no primary key, two unique indexes",
                sql: "CREATE TABLE t(a INT NOT NULL DEFAULT 1 UNIQUE, b TEXT COLLATE NOCASE, c, UNIQUE(b))",
                tables: [
                    .init(
                        name: "t", columns: [("a", ["1", "2", "3", "NULL"]), ("b", ["'a'", "'A'", "'b'", "NULL"]), ("c", ["1", "NULL"])],
                        conflictTargets: ["(a)", "(b)", ""])
                ]),
            FuzzSchema(
                name: "no key at all", sql: "CREATE TABLE t(a, b REAL, c TEXT NOT NULL DEFAULT 'x')",
                tables: [
                    .init(
                        name: "t", columns: [("a", ["1", "1.0", "'1'", "x'31'", "-0.0", "NULL"]), ("b", ["1", "1e300", "NULL"]), ("c", ["'a'", "NULL"])],
                        conflictTargets: [""])
                ]),
        ]

    @Test("K16 no write goes unrecorded", arguments: schemas)
    func recorded(_ schema: FuzzSchema) throws {
        var checks = 0
        let wanted = CaptureFuzzTests.seeds
        let seeds = wanted.lowerBound...max(wanted.lowerBound, wanted.upperBound / 5)
        for seed in wanted.count == 1 ? wanted : seeds {
            let database = try TestDatabase(schema.sql)
            let connection = try SQLiteConnection(path: database.path, access: .readWrite, busyTimeout: 5_000)
            let watch = ForeignWriteWatch(forwardLink(schema.tables.map(\.name)))
            try watch.install(connection.database)
            try database.run(schema.later)
            let keys = try schema.tables.map { try Self.identity($0, database) }
            let identities = Dictionary(uniqueKeysWithValues: zip(schema.tables.map { $0.name.lowercased() }, keys))
            var history = FuzzHistory(schema: schema, seed: seed)
            var states = schema.tables.map { _ in [[UInt8]: [[UInt8]: Int]]() }
            var seen: Int64 = 0
            try database.application.writeWithoutTransaction { application in
                _ = try history.attempt("PRAGMA recursive_triggers=\(history.random.chance(30) ? "ON" : "OFF")", application)
                _ = try history.attempt("PRAGMA foreign_keys=\(history.random.chance(70) ? "ON" : "OFF")", application)
                for _ in 0..<60 {
                    if let trouble = try history.attempt(history.statement(application), application) { Issue.record("seed \(seed): \(trouble)") }
                    guard !application.isInsideTransaction, history.random.chance(30) else { continue }
                    let writes = try watch.read(connection.database, after: seen, limit: 1_000_000, identities: identities)
                    seen = writes.last?.number ?? seen
                    for (place, table) in schema.tables.enumerated() {
                        let recorded = Set(writes.filter { $0.table.name == table.name }.compactMap { $0.key.map { Array($0.bytes.dropFirst(2)) } })
                        let state = try Self.state(application, table, key: keys[place])
                        let changed = Set(state.keys).union(states[place].keys).filter { state[$0] != states[place][$0] }
                        states[place] = state
                        checks += changed.count
                        #expect(
                            changed.allSatisfy(recorded.contains),
                            "seed \(seed), table \(table.name):\n\(history.executed.suffix(12).joined(separator: ";\n"))")
                    }
                }
                if application.isInsideTransaction { try application.execute(sql: "ROLLBACK") }
            }
        }
        #expect(checks > Int(seeds.count))
    }

    /// The columns that name a row, by the database's own word; all that are compared, without any.
    private static func identity(_ table: FuzzSchema.Table, _ database: TestDatabase) throws -> [String] {
        let keys = try database.rows("SELECT name FROM pragma_table_info('\(table.name.replacingOccurrences(of: "'", with: "''"))') WHERE pk > 0 ORDER BY cid")
        if !keys.isEmpty { return keys.map { $0["name"] as String } }
        return table.conflictTargets.contains("(a)") ? ["a"] : table.compared
    }

    /// Rows by key, with how often each is there.
    private static func state(
        _ database: Database, _ table: FuzzSchema.Table, key: [String]
    ) throws -> [[UInt8]: [[UInt8]: Int]] {
        func quote(_ name: String) -> String { "\"" + name.replacingOccurrences(of: "\"", with: "\"\"") + "\"" }
        func cell(_ value: DatabaseValue) -> [UInt8] {
            func number(_ bits: UInt64, _ size: Int) -> [UInt8] {
                (0..<size).reversed().map { UInt8(truncatingIfNeeded: bits >> (8 * UInt64($0))) }
            }
            switch value.storage {
            case .null: return [0x6E]
            case .int64(let integer): return [0x69] + number(8, 4) + number(UInt64(bitPattern: integer), 8)
            case .double(let real): return [0x72] + number(8, 4) + number(real.bitPattern, 8)
            case .string(let text): return [0x73] + number(UInt64(text.utf8.count), 4) + Array(text.utf8)
            case .blob(let data): return [0x78] + number(UInt64(data.count), 4) + Array(data)
            }
        }
        var rows: [[UInt8]: [[UInt8]: Int]] = [:]
        let list = (key + table.compared).map(quote).joined(separator: ", ")
        for row in try Row.fetchAll(database, sql: "SELECT \(list) FROM \(quote(table.name))") {
            let values = Array(row.databaseValues)
            rows[values.prefix(key.count).flatMap(cell), default: [:]][values.dropFirst(key.count).flatMap(cell), default: 0] += 1
        }
        return rows
    }
}

import BridgeTestSupport
import BridgeCore
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// S1. Random histories, captured in random pieces into records, replayed into dictionaries, and compared with the tables.
///
/// `BRIDGE_FUZZ_SEEDS` sets how many seeds a schema is run with, `BRIDGE_FUZZ_SEED` one, or a range like
/// `401-428`: histories of a block of fifty run one after the other in one database. `BRIDGE_FUZZ_SCHEMA` is
/// part of the name of those schemas that are run.
@Suite("S1 differential fuzz of capture")
struct CaptureFuzzTests {
    static let seeds: ClosedRange<UInt64> = {
        let environment = ProcessInfo.processInfo.environment
        let range = environment["BRIDGE_FUZZ_SEED"]?.split(separator: "-").compactMap { UInt64($0) } ?? []
        if let first = range.first, let last = range.last, first <= last { return first...last }
        return 1...max(1, environment["BRIDGE_FUZZ_SEEDS"].flatMap { UInt64($0) } ?? 150)
    }()

    static let schemas: [FuzzSchema] = {
        let wanted = ProcessInfo.processInfo.environment["BRIDGE_FUZZ_SCHEMA"] ?? ""
        return (FuzzSchema.all + FuzzSchema.altered).filter { wanted.isEmpty || $0.name.contains(wanted) }
    }()

    @Test("S1 random histories arrive without divergence", arguments: schemas)
    func divergences(_ schema: FuzzSchema) throws {
        var found: [String] = []
        var statements = 0
        var transactions = 0
        for block in stride(from: Self.seeds.lowerBound, through: Self.seeds.upperBound, by: 50) {
            let database = try TestDatabase(schema.sql)
            let capture = try DirectCapture(database, forwardLink(schema.tables.map(\.name)))
            try database.run(schema.later)
            if schema.isRenewed { try capture.renew(database) }
            let observer = try TestDatabase.open(database.path)
            var mirror = Mirror()
            for seed in block...min(block + 49, Self.seeds.upperBound) {
                var history = FuzzHistory(schema: schema, seed: seed)
                if let divergence = try history.run(database, capture, observer, &mirror) {
                    found.append("seed \(seed): \(divergence)\n" + history.executed.joined(separator: ";\n"))
                    break
                }
                statements += history.executed.count
            }
            transactions += mirror.transactions
            try observer.close()
            guard found.isEmpty else { break }
        }
        #expect(found.isEmpty, "\(found.first ?? "")")
        #expect(statements > 20 * Int(Self.seeds.count))
        #expect(transactions > Int(Self.seeds.count))
    }
}

/// One random history.
struct FuzzHistory {
    let schema: FuzzSchema
    let seed: UInt64
    var random: SeededGenerator
    var executed: [String] = []

    init(schema: FuzzSchema, seed: UInt64) {
        self.schema = schema
        self.seed = seed
        random = SeededGenerator(seed: seed)
    }

    /// - Returns: the first divergence, in words.
    mutating func run(
        _ database: TestDatabase, _ capture: DirectCapture, _ observer: DatabaseQueue, _ mirror: inout Mirror
    ) throws -> String? {
        try database.application.writeWithoutTransaction { application in
            for table in schema.tables { _ = try attempt("DELETE FROM \(quote(table.name))", application) }
            _ = try attempt("PRAGMA recursive_triggers=\(random.chance(30) ? "ON" : "OFF")", application)
            _ = try attempt("PRAGMA foreign_keys=\(random.chance(70) ? "ON" : "OFF")", application)
            for _ in 0..<random.below(30) + 30 {
                if let trouble = try attempt(statement(application), application) { return trouble }
                if random.chance(12), let trouble = try capturePiece(capture, observer, &mirror) { return trouble }
                if random.chance(1), !application.isInsideTransaction { try application.execute(sql: "VACUUM") }
            }
            if application.isInsideTransaction { _ = try attempt(random.chance(80) ? "COMMIT" : "ROLLBACK", application) }
            if application.isInsideTransaction { try application.execute(sql: "ROLLBACK") }
            while true {
                let (isDrained, trouble) = try readOnce(capture, observer, &mirror)
                if let trouble { return trouble }
                if isDrained { break }
            }
            return try compare(observer, mirror)
        }
    }

    /// Runs a statement; constraints may stop it, nothing else may.
    mutating func attempt(_ sql: String, _ database: Database) throws -> String? {
        executed.append(sql)
        do {
            try database.execute(sql: sql)
        } catch let error as DatabaseError {
            switch error.resultCode {
            case .SQLITE_CONSTRAINT, .SQLITE_MISMATCH: break
            case .SQLITE_ERROR
                where error.message?.contains("ON CONFLICT clause does not match") == true
                    || error.message?.contains("too many levels of trigger recursion") == true
                    || error.message?.contains("no such savepoint") == true:
                break
            default: return "\(error.resultCode): \(error.message ?? "") in \(sql)"
            }
        }
        return nil
    }

    private mutating func capturePiece(
        _ capture: DirectCapture, _ observer: DatabaseQueue, _ mirror: inout Mirror
    ) throws -> String? {
        let (isDrained, trouble) = try readOnce(capture, observer, &mirror)
        if let trouble { return trouble }
        return isDrained && random.chance(50) ? try compare(observer, mirror) : nil
    }

    /// One read with a random limit. Drained means that the mirror stands at a committed state, the present one.
    private mutating func readOnce(
        _ capture: DirectCapture, _ observer: DatabaseQueue, _ mirror: inout Mirror
    ) throws -> (Bool, String?) {
        let buffer = RecordBuffer()
        var progress = CaptureProgress(frontier: .zero)
        _ = try capture.reader.read(into: buffer, limit: random.chance(50) ? random.below(300) + 1 : 1 << 20, progress: &progress)
        do { try mirror.apply(buffer.bytes) } catch { return (true, "\(error)") }
        return (!progress.isInsideTransaction, nil)
    }

    private func compare(_ observer: DatabaseQueue, _ mirror: Mirror) throws -> String? {
        try observer.read { database in
            for table in schema.tables {
                if let words = try difference(mirror, database, table.name, columns: table.compared) { return words }
            }
            return nil
        }
    }

    // MARK: Statements

    private func quote(_ name: String) -> String { "\"" + name.replacingOccurrences(of: "\"", with: "\"\"") + "\"" }

    mutating func statement(_ database: Database) -> String {
        let table = random.pick(schema.tables)
        switch random.below(100) {
        case 0..<8:
            return database.isInsideTransaction ? random.pick(["COMMIT", "COMMIT", "ROLLBACK"]) : "BEGIN"
        case 8..<14:
            guard database.isInsideTransaction else { return "SAVEPOINT s" }
            return random.pick(["SAVEPOINT s", "ROLLBACK TO s", "RELEASE s"])
        case 14..<55: return insert(table)
        case 55..<82: return update(table)
        case 82..<95: return delete(table)
        default:
            return schema.extra.isEmpty ? insert(table) : random.pick(schema.extra)
        }
    }

    private mutating func conflictClause() -> String {
        random.pick(["", "OR REPLACE", "OR REPLACE", "OR REPLACE", "OR IGNORE", "OR FAIL", "OR ABORT", "OR ROLLBACK"])
    }

    private mutating func insert(_ table: FuzzSchema.Table) -> String {
        var columns = table.columns.filter { _ in random.chance(85) }
        if columns.isEmpty { columns = table.columns }
        if table.hasRowid, random.chance(8) { columns.append((name: "_rowid_", values: ["1", "2", "3", "4", "NULL"])) }
        let names = columns.map { quote($0.name) }.joined(separator: ", ")
        let source: String
        if random.chance(12) {
            source = "SELECT \(columns.map { random.chance(60) ? quote($0.name) : random.pick($0.values) }.joined(separator: ", ")) FROM \(quote(table.name)) WHERE \(condition(table)) LIMIT 3"
        } else {
            let rows = (0..<(random.chance(30) ? random.below(4) + 1 : 1)).map { _ in
                "(" + columns.map { random.pick($0.values) }.joined(separator: ", ") + ")"
            }
            source = "VALUES \(rows.joined(separator: ", "))"
        }
        if !table.conflictTargets.isEmpty, random.chance(20) {
            let target = random.pick(table.conflictTargets)
            let action = target.isEmpty || random.chance(25) ? "NOTHING" : "UPDATE SET \(assignments(table, isUpsert: true))"
            let verb = random.chance(20) ? "INSERT OR REPLACE" : "INSERT"
            // SQLite reads ON after a SELECT as part of a join unless there is a WHERE.
            return "\(verb) INTO \(quote(table.name))(\(names)) \(source.hasPrefix("SELECT") ? source.replacingOccurrences(of: " LIMIT 3", with: "") : source) ON CONFLICT\(target) DO \(action)"
        }
        return "INSERT \(conflictClause()) INTO \(quote(table.name))(\(names)) \(source)"
    }

    private mutating func assignments(_ table: FuzzSchema.Table, isUpsert: Bool = false) -> String {
        var chosen = table.columns.filter { _ in random.chance(35) }
        if chosen.isEmpty { chosen = [random.pick(table.columns)] }
        return chosen.map { column in
            let other = random.pick(table.columns).name
            let value =
                switch random.below(10) {
                case 0: quote(other)
                case 1: "\(quote(column.name)) + 1"
                case 2: "upper(\(quote(column.name)))"
                case 3 where isUpsert: "excluded.\(quote(other))"
                default: random.pick(column.values)
                }
            return "\(quote(column.name)) = \(value)"
        }.joined(separator: ", ")
    }

    private mutating func update(_ table: FuzzSchema.Table) -> String {
        let name = quote(table.name)
        if table.hasRowid, random.chance(6) {
            return "UPDATE \(conflictClause()) \(name) SET rowid = \(random.below(6)) WHERE \(condition(table))"
        }
        return "UPDATE \(conflictClause()) \(name) SET \(assignments(table)) WHERE \(condition(table))"
    }

    private mutating func delete(_ table: FuzzSchema.Table) -> String {
        random.chance(8) ? "DELETE FROM \(quote(table.name))" : "DELETE FROM \(quote(table.name)) WHERE \(condition(table))"
    }

    private mutating func condition(_ table: FuzzSchema.Table) -> String {
        let column = random.pick(table.columns)
        switch random.below(6) {
        case 0: return "1"
        case 1: return "\(quote(column.name)) IS NULL"
        case 2: return "\(quote(column.name)) > \(random.pick(column.values))"
        default: return "\(quote(column.name)) = \(random.pick(column.values))"
        }
    }
}

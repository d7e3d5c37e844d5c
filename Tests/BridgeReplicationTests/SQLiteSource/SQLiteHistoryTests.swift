import BridgeConformance
import BridgeCore
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Foundation
import GRDB
import Testing

/// The histories of capture's fuzz through a whole link, which is ended and begun again at random; after each history the
/// target must hold what the source holds, as GRDB and psql read them.
///
/// `BRIDGE_HISTORY_SEEDS` sets how many seeds a schema is run with, `BRIDGE_HISTORY_SEED` one, or a range like `401-428`;
/// `BRIDGE_HISTORY_SCHEMA` is part of the name of those schemas that are run. The histories of one run follow each other
/// in one database, so a seed that fails is had again with those before it.
@Suite("Histories of an SQLite source", .serialized)
struct SQLiteHistoryTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let schema: FuzzSchema
        let target: SQLiteCourse.Target
        var testDescription: String { "\(schema) to \(target)" }
    }

    static let seeds: ClosedRange<UInt64> = {
        let environment = ProcessInfo.processInfo.environment
        let range = environment["BRIDGE_HISTORY_SEED"]?.split(separator: "-").compactMap { UInt64($0) } ?? []
        if let first = range.first, let last = range.last, first <= last { return first...last }
        return 1...max(1, environment["BRIDGE_HISTORY_SEEDS"].flatMap { UInt64($0) } ?? 2)
    }()

    static let cases: [Case] = {
        let wanted = ProcessInfo.processInfo.environment["BRIDGE_HISTORY_SCHEMA"] ?? ""
        let schemas = FuzzSchema.all.filter { !$0.isAltered && (wanted.isEmpty || $0.name.contains(wanted)) }
        return schemas.map { Case(schema: $0, target: .sqlite) }
            + schemas.filter { $0.postgres != nil }.map { Case(schema: $0, target: .postgresql) }
    }()

    @Test("S1 S11 S12 S16 random histories leave the same on the target, whenever the link is ended and begun again", arguments: cases)
    func histories(_ test: Case) async throws {
        let start = ContinuousClock.now
        let place = try await HistoryPlace(test)
        var seed = Self.seeds.lowerBound
        do {
            while seed <= Self.seeds.upperBound {
                try await place.run(seed: seed)
                seed += 1
            }
        } catch {
            Issue.record("\(test.testDescription), BRIDGE_HISTORY_SEED=\(Self.seeds.lowerBound)-\(seed): \(error)\n\(place.writer.executed.suffix(100).joined(separator: ";\n"))")
        }
        try await place.end()
        if Self.seeds.count > 100 { print("\(test.testDescription): \(seed - Self.seeds.lowerBound) histories in \(start.duration(to: .now))") }
    }
}

/// The application: one connection, on which statements are run a few at a time. Used by one task at a time.
private final class HistoryWriter: @unchecked Sendable {
    private let queue: DatabaseQueue
    private let schema: FuzzSchema
    private var statements: FuzzStatements
    private(set) var executed: [String] = []

    init(_ schema: FuzzSchema, path: String) throws {
        self.schema = schema
        statements = FuzzStatements(schema: schema, seed: 0)
        var configuration = Configuration()
        configuration.allowsUnsafeTransactions = true
        configuration.foreignKeysEnabled = false
        configuration.busyMode = .timeout(30)
        queue = try DatabaseQueue(path: path, configuration: configuration)
        // Thousands of commits are the disk's business only.
        try queue.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous = OFF") }
    }

    func begin(seed: UInt64) throws {
        statements = FuzzStatements(schema: schema, seed: seed)
        executed.append("-- seed \(seed)")
        try queue.writeWithoutTransaction { database in
            try attempt("PRAGMA recursive_triggers = \(statements.random.chance(30) ? "ON" : "OFF")", database)
            try attempt("PRAGMA foreign_keys = \(statements.random.chance(70) ? "ON" : "OFF")", database)
            if statements.random.chance(30) {
                for table in schema.tables { try attempt("DELETE FROM \(quoteIdentifier(table.name))", database) }
            }
        }
    }

    func execute(_ sql: String) throws { try queue.writeWithoutTransaction { try $0.execute(sql: sql) } }

    /// - Returns: whether a transaction is open.
    func run(_ count: Int) throws -> Bool {
        try queue.writeWithoutTransaction { database in
            for _ in 0..<count { try attempt(statements.next(isInsideTransaction: database.isInsideTransaction), database) }
            return database.isInsideTransaction
        }
    }

    func finish() throws {
        try queue.writeWithoutTransaction { database in
            if database.isInsideTransaction { try attempt(statements.random.chance(80) ? "COMMIT" : "ROLLBACK", database) }
            if database.isInsideTransaction { try database.execute(sql: "ROLLBACK") }
        }
    }

    func chance(_ percent: Int) -> Bool { statements.random.chance(percent) }
    func below(_ bound: Int) -> Int { statements.random.below(bound) }
    func pick<Element>(_ elements: [Element]) -> Element { statements.random.pick(elements) }

    private func attempt(_ sql: String, _ database: Database) throws {
        executed.append(sql)
        do { try database.execute(sql: sql) } catch let error as DatabaseError {
            let code = error.resultCode
            let isConstraint = code == .SQLITE_CONSTRAINT || code == .SQLITE_MISMATCH
            guard FuzzStatements.mayFail(sql, isConstraint: isConstraint, isPlainError: code == .SQLITE_ERROR, message: error.message ?? "")
            else { throw error }
        }
    }

    /// The tables as the engines' own tools know them.
    func tables() throws -> [ConformanceTable] {
        try queue.writeWithoutTransaction { database in
            try schema.tables.map { table in
                let columns = try Row.fetchAll(
                    database, sql: "SELECT name, type FROM pragma_table_info(?)", arguments: [table.name]
                ).map { row -> (String, ConformanceTable.Kind) in
                    let type: String = row["type"]
                    return (row["name"], type.hasPrefix("INT") ? .integer : type == "REAL" ? .real : type == "BLOB" ? .bytes : .text)
                }
                return ConformanceTable(table.name, columns, key: [])
            }
        }
    }
}

/// One link that goes through many histories.
private final class HistoryPlace: @unchecked Sendable {
    struct Difference: Error, CustomStringConvertible { let description: String }

    let course: SQLiteCourse
    let writer: HistoryWriter
    private let tables: [ConformanceTable]
    private var running: SQLiteCourse.Running?

    init(_ test: SQLiteHistoryTests.Case) async throws {
        let schema = test.schema
        let marker = "; CREATE TABLE marker(id INTEGER PRIMARY KEY, seed INTEGER)"
        course = try await SQLiteCourse(
            test.target, schema.sql + marker + "; INSERT INTO marker VALUES (1, -1)", names: schema.tables.map(\.name) + ["marker"],
            targetTables: (test.target == .sqlite ? schema.sql + ";" + schema.later : schema.postgres ?? "") + marker)
        writer = try HistoryWriter(schema, path: String(course.sourceFile.url.dropFirst("sqlite:".count)))
        tables = try writer.tables()
        // Some rows are copied.
        try writer.begin(seed: SQLiteHistoryTests.seeds.lowerBound &+ 1 << 40)
        _ = try writer.run(30)
        try writer.finish()
        try await restart()
        if !schema.later.isEmpty { try writer.execute(schema.later) }
    }

    private func restart() async throws {
        try await stop()
        let bytes = writer.pick([300, 2_000, 10_000, 64 << 10, 1 << 20])
        let running = try course.start {
            // Below what an operator may choose, so that transactions are cut.
            $0.batchBytes = bytes
            $0.journalKeep = .zero
        }
        self.running = running
        try await running.wait("it streams") { running.runner.progress.activity == .streaming }
    }

    private func stop() async throws {
        if let failure = await running?.stop() { throw failure }
        running = nil
    }

    func run(seed: UInt64) async throws {
        try writer.begin(seed: seed)
        for _ in 0..<writer.below(4) + 3 {
            let isInside = try writer.run(writer.below(15) + 1)
            // To begin, a link needs the lock that an open transaction may have.
            if !isInside, writer.chance(10) { try await restart() }
            if writer.chance(20) { try await Task.sleep(for: .milliseconds(writer.below(20))) }
        }
        try writer.finish()
        try writer.execute("UPDATE marker SET seed = \(seed)")
        let course = course
        try await running?.wait("the history is applied") { try await course.target("SELECT seed FROM marker") == "\(seed)" }
        try await compare()
    }

    private func compare() async throws {
        for table in tables {
            let (expected, found) = (try await course.sourceFile.rows(table), try await course.targetDatabase.rows(table))
            guard expected != found else { continue }
            throw Difference(
                description: "table \(table.name): \(Set(expected).subtracting(found).sorted()) only on the source, \(Set(found).subtracting(expected).sorted()) only on the target")
        }
    }

    func end() async throws {
        let last = await running?.stop()
        #expect(last == nil, "\(String(describing: last))")
        let (from, to) = (try course.sourceFile.makeSource(), try course.targetDatabase.makeTarget())
        try await from.connect()
        try await to.connect()
        try await from.removeCapture(course.link)
        try await to.removeLink(course.link)
        await from.close()
        await to.close()
        #expect(try await course.sourceFile.traces().isEmpty)
    }
}

import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// Two applications do the same, one of them under capture: neither sees a difference, and when capture is removed the two
/// files hold the same. Seeds are chosen as for the fuzz of capture.
///
/// The other one has triggers that do nothing, since some things change with any trigger: a BLOB for an INT is found before
/// a missing value, an INSERT that a foreign key stops has set `last_insert_rowid()`, and, with recursive triggers, REPLACE
/// over an expression's index may fail in SQLite 3.40.1.
@Suite("S9 capture goes unnoticed")
struct UnnoticedTests {
    /// Without those in which two runs differ by chance.
    static let schemas = CaptureFuzzTests.schemas.filter { !$0.sql.contains("random") }

    static var seeds: ClosedRange<UInt64> {
        let wanted = CaptureFuzzTests.seeds
        return wanted.count == 1 ? wanted : wanted.lowerBound...max(wanted.lowerBound, wanted.lowerBound + UInt64(wanted.count) / 60)
    }

    @Test("S9 changes(), last_insert_rowid(), RETURNING and errors are as without capture, and nothing is left of it", arguments: schemas)
    func unnoticed(_ schema: FuzzSchema) async throws {
        for seed in Self.seeds {
            let plain = try Application(schema, seed: seed)
            let captured = try Application(schema, seed: seed)
            try plain.makeIdleTriggers()
            let link = forwardLink(schema.tables.map(\.name))
            let source = SQLiteSource(path: captured.path)
            let origin = try await source.prepareCapture(link, replacingLeftovers: false)
            let session = try await source.openCapture(link, origin: origin, durable: origin.position)
            for application in [plain, captured] { try application.run(schema.later) }
            var position = origin.position
            for _ in 0..<6 {
                let (expected, found) = (try plain.proceed(10), try captured.proceed(10))
                for (place, pair) in zip(expected, found).enumerated() where pair.0 != pair.1 {
                    let statements = captured.executed.dropLast(found.count - place - 1).suffix(4).joined(separator: ";\n")
                    Issue.record("\(schema), seed \(seed), \(captured.setUp)\n\(statements)\nwith capture:    \(pair.1)\nwithout capture: \(pair.0)\nbefore: \(place > 0 ? found[place - 1] : "")")
                    return
                }
                let buffer = RecordBuffer()
                let progress = try await session.read(into: buffer, limit: 1 << 20, patience: .zero)
                if !progress.isInsideTransaction { position = progress.frontier }
            }
            session.acknowledge(position)
            for application in [plain, captured] { try application.finish() }
            await session.close()
            try await source.removeCapture(link)
            await source.close()
            try plain.dropIdleTriggers()
            let (expected, found) = (try plain.dump(), try captured.dump())
            #expect(expected == found, "seed \(seed)")
            #expect(expected.contains("\n42\n4711\n"))
        }
    }

    @Test("S9 capture that is removed before anything is written leaves the very same file", arguments: schemas.filter { !$0.isAltered })
    func removed(_ schema: FuzzSchema) async throws {
        let application = try Application(schema, seed: 7)
        _ = try application.proceed(40)
        try application.finish()
        let before = try application.dump()
        let link = forwardLink(schema.tables.map(\.name))
        let source = SQLiteSource(path: application.path)
        let origin = try await source.prepareCapture(link, replacingLeftovers: false)
        #expect(try application.dump() != before)
        let session = try await source.openCapture(link, origin: origin, durable: origin.position)
        _ = try await session.read(into: RecordBuffer(), limit: 1 << 20, patience: .zero)
        await session.close()
        try await source.removeCapture(link)
        await source.close()
        let after = try application.dump()
        #expect(after == before)
    }
}

/// An application whose statements are drawn from a seed. Used by one task at a time.
private final class Application: @unchecked Sendable {
    private let folder: String
    let path: String
    let setUp: String
    private let tables: [FuzzSchema.Table]
    private var queue: DatabaseQueue?
    private var statements: FuzzStatements
    private(set) var executed: [String] = []

    init(_ schema: FuzzSchema, seed: UInt64) throws {
        // Memory where there is some: capture syncs what it commits.
        let base = FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
        folder = "\(base)/bridge-unnoticed-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        path = folder + "/app.db"
        tables = schema.tables
        statements = FuzzStatements(schema: schema, seed: seed)
        statements.drawsJoins = false
        setUp = """
            PRAGMA recursive_triggers = \(statements.random.chance(30) ? "ON" : "OFF"); PRAGMA foreign_keys = \(statements.random.chance(70) ? "ON" : "OFF");
            """
        try run("PRAGMA journal_mode = \(statements.random.pick(["WAL", "DELETE"])); PRAGMA user_version = 42; PRAGMA application_id = 4711;")
        try run(schema.sql)
    }

    deinit {
        try? queue?.close()
        try? FileManager.default.removeItem(atPath: folder)
    }

    private func opened() throws -> DatabaseQueue {
        if let queue { return queue }
        let made = try TestDatabase.open(path, setUp: setUp)
        queue = made
        return made
    }

    func run(_ sql: String) throws { try opened().writeWithoutTransaction { try $0.execute(sql: sql) } }

    private static let events = ["BEFORE INSERT", "AFTER INSERT", "BEFORE UPDATE", "BEFORE DELETE"]

    func makeIdleTriggers() throws {
        for (number, table) in tables.enumerated() {
            for (place, event) in Self.events.enumerated() {
                try run("CREATE TRIGGER idle_\(number)_\(place) \(event) ON \(quoteIdentifier(table.name)) BEGIN SELECT 1; END")
            }
        }
    }

    func dropIdleTriggers() throws {
        for number in tables.indices {
            for place in Self.events.indices { try run("DROP TRIGGER idle_\(number)_\(place)") }
        }
    }

    /// Runs some statements, and ends the transaction that they may have left open now and then.
    /// - Returns: what the application sees of each.
    func proceed(_ count: Int) throws -> [String] {
        try opened().writeWithoutTransaction { database in
            var outcomes = try (0..<count).map { _ in try outcome(statements.next(isInsideTransaction: database.isInsideTransaction), database) }
            if database.isInsideTransaction { outcomes.append(try outcome("COMMIT", database)) }
            if database.isInsideTransaction { outcomes.append(try outcome("ROLLBACK", database)) }
            return outcomes
        }
    }

    private func outcome(_ sql: String, _ database: Database) throws -> String {
        executed.append(sql)
        var result = "done"
        do {
            if sql.hasSuffix("RETURNING *") {
                result = try Row.fetchAll(database, sql: sql).map(\.description).joined()
            } else {
                try database.execute(sql: sql)
            }
        } catch let error as DatabaseError {
            result = "\(error.extendedResultCode) \(error.message ?? "")"
        }
        let contents = try tables.map { table in
            let columns = table.compared.map(quoteIdentifier).joined(separator: ", ")
            return try Row.fetchAll(database, sql: "SELECT \(columns) FROM \(quoteIdentifier(table.name))").map(\.description).sorted().joined()
        }
        return "\(result), \(database.changesCount) changes, last row \(database.lastInsertedRowID), \(database.isInsideTransaction), \(contents)"
    }

    func finish() throws {
        try queue?.writeWithoutTransaction { if $0.isInsideTransaction { try $0.execute(sql: "ROLLBACK") } }
    }

    /// The whole file as text, by the stock program, and what stands beside it when nobody has it open.
    func dump() throws -> String {
        try queue?.close()
        queue = nil
        let text = try ChildProcess.runBlocking(
            ["sqlite3", "-batch", path],
            input: """
                .dump
                PRAGMA user_version; PRAGMA application_id; PRAGMA journal_mode; PRAGMA encoding; PRAGMA auto_vacuum; PRAGMA page_size;
                PRAGMA integrity_check;
                SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY rowid;

                """)
        return text + (try FileManager.default.contentsOfDirectory(atPath: folder).sorted().joined(separator: "\n"))
    }
}

import BridgeCore
import BridgeTestSupport
import CSQLite
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// S1. Random histories, captured in random pieces into records, replayed into dictionaries, and compared with the tables.
///
/// `BRIDGE_FUZZ_SEEDS` sets how many seeds a schema is run with, `BRIDGE_FUZZ_SEED` one, or a range like
/// `401-428`: histories of a block of fifty run one after the other in one database. `BRIDGE_FUZZ_SCHEMA` is
/// part of the name of those schemas that are run. The whole contract, in two processes at a time:
///
///     BRIDGE_FUZZ_SEED=1-5000 .build/debug/bridgePackageTests.xctest --testing-library swift-testing --no-parallel --filter CaptureFuzzTests &
///     BRIDGE_FUZZ_SEED=5001-10000 .build/debug/bridgePackageTests.xctest --testing-library swift-testing --no-parallel --filter CaptureFuzzTests
@Suite("S1 differential fuzz of capture")
struct CaptureFuzzTests {
    static let seeds: ClosedRange<UInt64> = {
        let environment = ProcessInfo.processInfo.environment
        let range = environment["BRIDGE_FUZZ_SEED"]?.split(separator: "-").compactMap { UInt64($0) } ?? []
        if let first = range.first, let last = range.last, first <= last { return first...last }
        return 1...max(1, environment["BRIDGE_FUZZ_SEEDS"].flatMap { UInt64($0) } ?? 25)
    }()

    static let schemas: [FuzzSchema] = {
        let wanted = ProcessInfo.processInfo.environment["BRIDGE_FUZZ_SCHEMA"] ?? ""
        return FuzzSchema.all.filter { wanted.isEmpty || $0.name.contains(wanted) }
    }()

    @Test("S1 S4 S6 random histories arrive without divergence", arguments: schemas)
    func divergences(_ schema: FuzzSchema) throws {
        let start = ContinuousClock.now
        var found: String?
        var statements = 0
        var transactions = 0
        for block in stride(from: Self.seeds.lowerBound, through: Self.seeds.upperBound, by: 50) where found == nil {
            let place = try FuzzPlace(schema)
            for seed in block...min(block + 49, Self.seeds.upperBound) where found == nil {
                var history = FuzzHistory(schema: schema, seed: seed, origins: place.mirror.origins)
                do {
                    found = try history.run(place)
                } catch {
                    found = "\(error)"
                }
                found = found.map { "seed \(seed): \($0)\n" + history.executed.joined(separator: ";\n") }
                statements += history.executed.count
            }
            transactions += place.mirror.transactions
            try place.close()
        }
        if Self.seeds.count > 1_000 { print("S1 \(schema): \(Self.seeds.count) seeds in \(start.duration(to: .now))") }
        #expect(found == nil, "\(found ?? "")")
        #expect(statements > 20 * Self.seeds.count)
        #expect(transactions > Self.seeds.count)
    }
}

/// A database with its capture, its observer and its writers, which takes some histories one after the other.
final class FuzzPlace {
    let database: TestDatabase
    let capture: FuzzCapture
    let observer: DatabaseQueue
    /// Another connection to the file, and one to another file that has this one attached.
    let others: [DatabaseQueue]
    var mirror = Mirror()

    init(_ schema: FuzzSchema) throws {
        database = try TestDatabase(schema.sql)
        capture = try FuzzCapture(database, forwardLink(schema.tables.map { $0.name }))
        try database.run(schema.later)
        if schema.isRenewed { try capture.renew() }
        observer = try TestDatabase.open(database.path)
        let attached = try TestDatabase.open(
            database.folder + "/other.db", setUp: "ATTACH '\(database.path)' AS app; PRAGMA app.synchronous=OFF")
        others = [try TestDatabase.open(database.path), attached]
    }

    func close() throws {
        for connection in others + [observer] { try connection.close() }
    }
}

/// One random history.
struct FuzzHistory {
    let schema: FuzzSchema
    let seed: UInt64
    private var statements: FuzzStatements
    var executed: [String] = []
    var random: SeededGenerator {
        get { statements.random }
        set { statements.random = newValue }
    }
    /// Whether the application alters its tables.
    private var isAltering = false

    init(schema: FuzzSchema, seed: UInt64, origins: [String: FuzzStatements.Origin] = [:]) {
        self.schema = schema
        self.seed = seed
        statements = FuzzStatements(schema: schema, seed: seed, origins: origins)
    }

    /// - Returns: the first divergence, in words.
    mutating func run(_ place: FuzzPlace) throws -> String? {
        try place.database.application.writeWithoutTransaction { application in
            isAltering = schema.mayBeAltered && random.chance(20)
            try lookAtSchema(application)
            for table in schema.tables { _ = try attempt("DELETE FROM \(quoteIdentifier(table.name))", application) }
            for pragma in ["recursive_triggers=\(random.chance(30) ? "ON" : "OFF")", "foreign_keys=\(random.chance(70) ? "ON" : "OFF")"] {
                _ = try attempt("PRAGMA " + pragma, application)
                for other in place.others { try other.writeWithoutTransaction { try $0.execute(sql: "PRAGMA " + pragma) } }
            }
            for _ in 0..<random.below(30) + 30 {
                if let trouble = try attempt(statement(application), application) { return trouble }
                if random.chance(12), let trouble = try capturePiece(place) { return trouble }
                if let trouble = try operate(place, application) { return trouble }
            }
            if application.isInsideTransaction { _ = try attempt(random.chance(80) ? "COMMIT" : "ROLLBACK", application) }
            if application.isInsideTransaction { try application.execute(sql: "ROLLBACK") }
            while true {
                let (isDrained, trouble) = try readOnce(place)
                if let trouble { return trouble }
                if isDrained { break }
            }
            return try compare(place)
        }
    }

    /// What happens beside the application's statements.
    private mutating func operate(_ place: FuzzPlace, _ application: Database) throws -> String? {
        if isAltering, random.chance(6) {
            // A name that is no column's any more would be taken for a text.
            try lookAtSchema(application)
            let sql = statements.alteration()
            place.mirror.origins = statements.origins
            return try attempt(sql, application)
        }
        switch random.below(100) {
        // No regard for a transaction that has only read: it is of this process, and could not write any more.
        case 0..<3 where sqlite3_txn_state(application.sqliteConnection, nil) != SQLITE_TXN_READ:
            executed.append("-- acknowledge")
            try place.capture.acknowledge()
        case 3 where !application.isInsideTransaction:
            executed.append("-- a new session")
            place.mirror.endSession()
            try place.capture.reopen()
        case 4 where !application.isInsideTransaction: try application.execute(sql: "VACUUM")
        case 5..<8 where !application.isInsideTransaction:
            try lookAtSchema(application)
            return try random.pick(place.others).writeWithoutTransaction { try transaction($0) }
        default: break
        }
        return nil
    }

    /// A short transaction of another connection.
    private mutating func transaction(_ other: Database) throws -> String? {
        let isLong = random.chance(40)
        executed.append("-- another connection")
        for sql in isLong ? ["BEGIN", statements.change(), statements.change()] : [statements.change()] {
            if let trouble = try attempt(sql, other) { return trouble }
        }
        if other.isInsideTransaction { _ = try attempt(random.chance(80) ? "COMMIT" : "ROLLBACK", other) }
        if other.isInsideTransaction { try other.execute(sql: "ROLLBACK") }
        executed.append("-- the application")
        return nil
    }

    /// Runs a statement; constraints may stop it, nothing else may.
    mutating func attempt(_ sql: String, _ database: Database) throws -> String? {
        executed.append(sql)
        do {
            try database.execute(sql: sql)
        } catch let error as DatabaseError {
            let code = error.resultCode
            guard
                FuzzStatements.mayFail(
                    sql, isConstraint: code == .SQLITE_CONSTRAINT || code == .SQLITE_MISMATCH, isPlainError: code == .SQLITE_ERROR,
                    message: error.message ?? "")
            else { return "\(error.resultCode): \(error.message ?? "") in \(sql)" }
        }
        return nil
    }

    mutating func statement(_ database: Database) throws -> String {
        if isAltering { try lookAtSchema(database) }
        return statements.next(isInsideTransaction: database.isInsideTransaction)
    }

    /// Takes over the columns that the tables have for this connection now. The schema's version would not tell: after a
    /// rollback another change, or triggers that are made again, come to the same number.
    private mutating func lookAtSchema(_ database: Database) throws {
        for table in schema.tables { statements.adopt(try Self.columns(of: table.name, database), of: table.name) }
    }

    private static func columns(of table: String, _ database: Database) throws -> [String] {
        try String.fetchAll(database, sql: "SELECT name FROM pragma_table_info(?)", arguments: [table])
    }

    private mutating func capturePiece(_ place: FuzzPlace) throws -> String? {
        let (isDrained, trouble) = try readOnce(place)
        if let trouble { return trouble }
        return isDrained && random.chance(50) ? try compare(place) : nil
    }

    /// One read with a random limit. Drained means that the mirror stands at a committed state, the present one.
    private mutating func readOnce(_ place: FuzzPlace) throws -> (Bool, String?) {
        let buffer = RecordBuffer()
        let isDrained = try place.capture.read(into: buffer, limit: random.chance(50) ? random.below(300) + 1 : 1 << 20)
        try place.capture.renewIfAsked()
        do { try place.mirror.apply(buffer.bytes) } catch { return (true, "\(error)") }
        return (isDrained, nil)
    }

    private func compare(_ place: FuzzPlace) throws -> String? {
        try place.observer.read { database in
            for table in schema.tables {
                let columns = try Self.columns(of: table.name, database)
                if let words = try difference(place.mirror, database, table.name, columns: columns) { return words }
            }
            return nil
        }
    }
}

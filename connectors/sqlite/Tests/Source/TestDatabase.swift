import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// A database file in a folder of its own, which goes away with it. In memory-backed storage where there is some.
final class TestDatabase: Sendable {
    let folder: String
    let path: String
    /// The application's connection.
    let application: DatabaseQueue

    init(_ sql: String = "", journalMode: String = "WAL", encoding: String = "UTF-8") throws {
        let base = FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
        folder = "\(base)/bridge-sqlite-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        path = folder + "/app.db"
        application = try Self.open(path, setUp: "PRAGMA encoding='\(encoding)'; PRAGMA journal_mode=\(journalMode);")
        try run(sql)
    }

    deinit {
        try? application.close()
        try? FileManager.default.removeItem(atPath: folder)
    }

    static func open(_ path: String, setUp: String = "") throws -> DatabaseQueue {
        var configuration = Configuration()
        configuration.allowsUnsafeTransactions = true
        configuration.foreignKeysEnabled = false
        configuration.busyMode = .timeout(10)
        let queue = try DatabaseQueue(path: path, configuration: configuration)
        try queue.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous=OFF; " + setUp) }
        return queue
    }

    func run(_ sql: String) throws { try application.writeWithoutTransaction { try $0.execute(sql: sql) } }

    func integer(_ sql: String) throws -> Int64 {
        try application.writeWithoutTransaction { try Int64.fetchOne($0, sql: sql) ?? -1 }
    }

    func rows(_ sql: String) throws -> [Row] { try application.writeWithoutTransaction { try Row.fetchAll($0, sql: sql) } }

    /// A table's rows as cells.
    func images(_ table: String, _ columns: [String]) throws -> Set<[UInt8]> {
        try application.writeWithoutTransaction { try realRows($0, table, columns: columns) }
    }

    /// Runs SQL in the stock command line tool: another process.
    @discardableResult
    func shell(_ sql: String) throws -> String {
        try ChildProcess.runBlocking(["sqlite3", "-cmd", ".timeout 10000", path], input: sql)
    }
}

func forwardLink(_ tables: [String], migration: String = "test") -> LinkDescription {
    LinkDescription(
        migration: migration, direction: .forward,
        mappings: tables.map { TableMapping(source: TableName(name: $0), target: TableName(name: $0)) }, form: .native)
}

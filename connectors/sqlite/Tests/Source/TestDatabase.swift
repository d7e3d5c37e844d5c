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

/// Capture with its parts open to the test: the installer and the reader, without session and threads.
final class DirectCapture {
    let link: LinkDescription
    let reader: LogReader

    init(_ database: TestDatabase, _ link: LinkDescription) throws {
        self.link = link
        let connection = try SQLiteConnection(path: database.path, access: .readWrite, busyTimeout: 5_000)
        try connection.database.execute("PRAGMA synchronous=OFF")
        let (nonce, position) = try CaptureInstaller(link).install(connection.database, replacingLeftovers: true)
        let origin = CaptureOrigin(identity: ["epoch": nonce], position: position)
        let claim = try CaptureOpening(link: link, origin: origin, path: database.path)
            .claim(connection.database, durable: position)
        reader = try LogReader(
            path: database.path, link: link, nonce: nonce, session: claim.session, durable: claim.durable,
            mailbox: KeeperMailbox(requested: claim.durable, confirmed: 0, safeLeap: claim.leap ?? 0))
    }

    /// Makes triggers again that the schema's changes left behind, as the keeper does.
    func renew(_ database: TestDatabase) throws {
        let connection = try SQLiteConnection(path: database.path, access: .readWrite, busyTimeout: 5_000)
        try connection.database.transaction(.immediate) { () throws(BridgeError) in
            try OwnSchemaChanges.counting(connection.database) { () throws(BridgeError) in
                try CaptureInstaller(link).renew(connection.database)
            }
        }
    }
}

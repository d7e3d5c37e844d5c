import BridgeCore
import BridgePostgreSQL
import BridgeSQLite

/// One value as its engine gives it.
enum DemoValue: Hashable, Sendable {
    case null
    case integer(Int64)
    /// By its bits, so that no two different numbers are equal.
    case real(UInt64)
    case text([UInt8])
    case blob([UInt8])
}

/// A connection of the demo's own, for its application and for its comparison; nothing of replication is in it. Blocks
/// the calling thread, and belongs to one thread.
protocol DemoSession: AnyObject {
    /// Runs statements that return nothing of interest.
    func execute(_ sql: String) throws(BridgeError)
    /// Begins to read a query's rows.
    func open(_ query: String) throws(BridgeError)
    /// The next row of the opened query; nil behind the last.
    func next() throws(BridgeError) -> [DemoValue]?
}

final class SQLiteDemoSession: DemoSession {
    private let database: SQLiteDatabase
    private var statement: SQLiteStatement?

    init(path: String, create: Bool = false) throws(BridgeError) {
        database = try SQLiteDatabase(path: path, access: create ? .create : .readWrite, busyTimeout: 30_000)
        try database.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")
    }

    func execute(_ sql: String) throws(BridgeError) {
        do throws(BridgeError) {
            try database.execute(sql)
        } catch {
            database.rollback()
            throw error
        }
    }

    func open(_ query: String) throws(BridgeError) { statement = try database.prepare(query) }

    func next() throws(BridgeError) -> [DemoValue]? {
        guard let statement, try statement.step() else {
            statement = nil
            return nil
        }
        var row: [DemoValue] = []
        for column in 0..<statement.columnCount {
            switch statement.storageClass(column) {
            case .null: row.append(.null)
            case .integer: row.append(.integer(statement.integer(column)))
            case .real: row.append(.real(statement.real(column).bitPattern))
            case .text: row.append(.text(Array(statement.bytes(column))))
            case .blob: row.append(.blob(Array(statement.bytes(column))))
            }
        }
        return row
    }
}

final class PostgresDemoSession: DemoSession {
    private let connection: PostgresConnection
    private var chunk: PGResult?
    private var row = 0

    init(url: String) throws(BridgeError) {
        connection = try PostgresConnection(try ConnectionString(url), applicationName: "bridge demo")
        try connection.execute("SET search_path TO public")
    }

    func execute(_ sql: String) throws(BridgeError) {
        do throws(BridgeError) {
            try connection.execute(sql)
        } catch {
            if !connection.isBroken, connection.isInTransaction { try connection.execute("ROLLBACK") }
            throw error
        }
    }

    func open(_ query: String) throws(BridgeError) {
        try connection.execute("BEGIN; DECLARE scan NO SCROLL CURSOR FOR \(query)")
        chunk = nil
        row = 0
    }

    func next() throws(BridgeError) -> [DemoValue]? {
        if row >= (chunk?.rowCount ?? 0) {
            chunk = try connection.simpleQuery("FETCH 2000 FROM scan")
            row = 0
        }
        let values: [DemoValue]? = {
            guard row < (chunk?.rowCount ?? 0) else { return nil }
            return (0..<(chunk?.columnCount ?? 0)).map { column in
                chunk?.bytes(row, column).map { .text(Array($0)) } ?? .null
            }
        }()
        row += 1
        if values == nil {
            chunk = nil
            try connection.execute("COMMIT")
        }
        return values
    }
}

/// Where a demo's database is; enough for another process to open it.
struct DemoAddress: Sendable {
    let engine: EngineName
    /// A path, or a connection URL.
    let place: String

    func openSession() throws(BridgeError) -> any DemoSession {
        if engine == .sqlite { return try SQLiteDemoSession(path: place) }
        return try PostgresDemoSession(url: place)
    }

    /// As it stands in `bridge.yaml`.
    var url: String { engine == .sqlite ? "sqlite:\(place)" : place }
}

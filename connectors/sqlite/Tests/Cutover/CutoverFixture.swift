import BridgeCore
import BridgeTestSupport
import GRDB
import Testing

@testable import BridgeSQLite

/// A database with an application's connection, and a cutover's session on it.
final class CutoverFixture: Sendable {
    let database: TestDatabase
    let session: any CutoverSession
    private let source: SQLiteSource

    init(_ sql: String, journalMode: String = "WAL", migration: String = "shop") async throws {
        database = try TestDatabase(sql, journalMode: journalMode)
        source = SQLiteSource(path: database.path)
        session = try await source.openCutover(migration: migration)
    }

    /// Another session on the same database, such as another process has.
    func another(migration: String = "shop") async throws -> any CutoverSession {
        try await SQLiteSource(path: database.path).openCutover(migration: migration)
    }

    func close() async {
        await session.close()
        await source.close()
    }

    /// The schema without SQLite's own tables.
    func schema() throws -> [String] {
        try database.rows("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name").map(\.description)
    }
}

func names(_ tables: [String]) -> [TableName] { tables.map { TableName(name: $0) } }

extension Fence {
    init(_ tables: [String], attempt: String = "first", lease: Duration? = .seconds(3_600), epoch: Int64 = 7) {
        self.init(
            attempt: attempt, tables: Dictionary(uniqueKeysWithValues: tables.map { (TableName(name: $0), "orders-service") }),
            epoch: epoch, lease: lease)
    }
}

extension FenceState {
    var remaining: Duration? { if case .leased(_, let remaining) = self { remaining } else { nil } }

    /// Without the time that remains.
    var word: String {
        switch self {
        case .none: "none"
        case .leased(let attempt, _): "leased \(attempt)"
        case .expired(let attempt): "expired \(attempt)"
        case .permanent(let attempt): "permanent \(attempt)"
        case .mixed(let what): "mixed: \(what)"
        case .permanentAltered(let what): "mixed: \(what)"
        }
    }
}

/// What a connection gets for a statement, which leaves no trace; nil if it succeeds.
func refusal(_ connection: DatabaseQueue, _ sql: String) throws -> DatabaseError? {
    try connection.writeWithoutTransaction { database in
        try database.execute(sql: "BEGIN")
        defer { try? database.execute(sql: "ROLLBACK") }
        do {
            try database.execute(sql: sql)
            return nil
        } catch let error as DatabaseError { return error }
    }
}

/// What a connection gets for a statement, which stays.
func attempt(_ connection: DatabaseQueue, _ sql: String) throws -> DatabaseError? {
    try connection.writeWithoutTransaction { database in
        do {
            try database.execute(sql: sql)
            return nil
        } catch let error as DatabaseError { return error }
    }
}

/// The same with a statement that the connection compiles once and keeps.
func attemptCached(_ connection: DatabaseQueue, _ sql: String) throws -> DatabaseError? {
    try connection.writeWithoutTransaction { database in
        do {
            try database.cachedStatement(sql: sql).execute()
            return nil
        } catch let error as DatabaseError { return error }
    }
}

package import BridgeCore
import CSQLite

/// The owner of one SQLite connection. It is confined to one actor, or to one thread: SQLite is opened without its own
/// mutexes.
package struct SQLiteDatabase: ~Copyable {
    package enum Access: Sendable {
        case readOnly
        case readWrite
        /// Makes the file if it is not there.
        case create
    }

    /// How a transaction begins.
    package enum TransactionKind: String, Sendable {
        /// Takes no lock before the first statement.
        case deferred = "BEGIN DEFERRED"
        /// Takes the write lock at once.
        case immediate = "BEGIN IMMEDIATE"
    }

    /// For calls that this wrapper has no method for. Owned by the wrapper.
    package let handle: OpaquePointer
    package let path: String

    /// Opens a file.
    ///
    /// A missing file is an error unless `access` is `create`. The connection runs without double-quoted string
    /// literals, so that a misspelt column is an error and not a string.
    /// - Parameters:
    ///   - path: a file's path; a leading `file:` has no meaning here.
    ///   - busyTimeout: milliseconds for which a statement waits for a lock before `serverBusy`.
    /// - Throws: `serverUnreachable`, `rightsMissing`, `sourceUnsupported`, `inputOutput`.
    package init(path: String, access: Access, busyTimeout: Int32) throws(BridgeError) {
        let flags: Int32 =
            switch access {
            case .readOnly: SQLITE_OPEN_READONLY
            case .readWrite: SQLITE_OPEN_READWRITE
            case .create: SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
            }
        var opened: OpaquePointer?
        let result = sqlite3_open_v2(path, &opened, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, nil)
        guard result == SQLITE_OK, let opened else {
            let error = BridgeError.sqlite(result, opened, path: path, doing: "the database cannot be opened")
            sqlite3_close_v2(opened)
            throw error
        }
        handle = opened
        self.path = path
        sqlite3_busy_timeout(opened, busyTimeout)
        _ = bridge_sqlite_allow_quoted_strings(opened, 0)
    }

    // Statements that are still alive keep the connection until they are finalized.
    deinit { sqlite3_close_v2(handle) }

    /// How long a statement waits for a lock, in milliseconds.
    package borrowing func setBusyTimeout(_ milliseconds: Int32) { sqlite3_busy_timeout(handle, milliseconds) }

    /// Switches triggers on or off for this connection only.
    package borrowing func setTriggersEnabled(_ enabled: Bool) throws(BridgeError) {
        try check(bridge_sqlite_enable_triggers(handle, enabled ? 1 : 0), doing: "triggers cannot be switched")
    }

    /// Whether a word in double quotes that is no column is a string, as it is for applications unless they forbid it.
    package borrowing func setQuotedStringsAllowed(_ allowed: Bool) {
        _ = bridge_sqlite_allow_quoted_strings(handle, allowed ? 1 : 0)
    }

    /// Compiles one statement.
    package borrowing func prepare(_ sql: String) throws(BridgeError) -> SQLiteStatement {
        var statement: OpaquePointer?
        try check(
            sqlite3_prepare_v3(handle, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &statement, nil),
            doing: "a statement cannot be compiled")
        guard let statement else { throw BridgeError(.internalFault, "an empty statement was compiled") }
        return SQLiteStatement(statement, path: path)
    }

    /// Runs statements that return nothing of interest.
    package borrowing func execute(_ sql: String) throws(BridgeError) {
        try check(sqlite3_exec(handle, sql, nil, nil, nil), doing: "a statement failed")
    }

    /// The first column of the first row as an integer; nil without a row, or for NULL.
    package borrowing func integer(_ sql: String) throws(BridgeError) -> Int64? {
        let statement = try prepare(sql)
        guard try statement.step(), statement.storageClass(0) != .null else { return nil }
        return statement.integer(0)
    }

    /// The first column of the first row as a string; nil without a row, or for NULL. Not for row data.
    package borrowing func string(_ sql: String) throws(BridgeError) -> String? {
        let statement = try prepare(sql)
        guard try statement.step() else { return nil }
        return statement.string(0)
    }

    /// Runs `body` in a transaction, which is rolled back if it throws.
    package borrowing func transaction<Result: ~Copyable>(
        _ kind: TransactionKind, _ body: () throws(BridgeError) -> Result
    ) throws(BridgeError) -> Result {
        try execute(kind.rawValue)
        do throws(BridgeError) {
            let result = try body()
            try execute("COMMIT")
            return result
        } catch {
            rollback()
            throw error
        }
    }

    /// Ends a transaction without keeping it. Without a transaction it does nothing.
    package borrowing func rollback() {
        if sqlite3_get_autocommit(handle) == 0 { sqlite3_exec(handle, "ROLLBACK", nil, nil, nil) }
    }

    package borrowing func isInTransaction() -> Bool { sqlite3_get_autocommit(handle) == 0 }

    /// Rows changed by the last statement.
    package borrowing func changes() -> Int64 { sqlite3_changes64(handle) }

    /// Turns a result code that is not a success into the error that stands for it.
    package borrowing func check(_ result: Int32, doing what: String) throws(BridgeError) {
        guard result == SQLITE_OK || result == SQLITE_ROW || result == SQLITE_DONE else {
            throw BridgeError.sqlite(result, handle, path: path, doing: what)
        }
    }
}

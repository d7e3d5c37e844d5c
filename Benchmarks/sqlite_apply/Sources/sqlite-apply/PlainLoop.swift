import CSQLite

/// The floor: a prepared statement that is bound and stepped for each row, with the applier's own settings and no sync.
final class PlainLoop {
    private var database: OpaquePointer?

    init(path: String) throws {
        guard sqlite3_open(path, &database) == SQLITE_OK else { throw Failure("cannot open \(path)") }
        try run(
            """
            PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4096;
            PRAGMA temp_store = FILE; PRAGMA foreign_keys = OFF
            """)
    }

    deinit { sqlite3_close(database) }

    func run(_ sql: String) throws {
        guard sqlite3_exec(database, sql, nil, nil, nil) == SQLITE_OK else { throw failure() }
    }

    private func failure() -> Failure { Failure(String(cString: sqlite3_errmsg(database))) }

    func write(_ rows: Rows, statement sql: String, batch: Int) throws {
        var statement: OpaquePointer?
        guard sqlite3_prepare_v3(database, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &statement, nil) == SQLITE_OK else {
            throw failure()
        }
        defer { sqlite3_finalize(statement) }
        try rows.names.withUnsafeBufferPointer { names in
            try rows.keys.withUnsafeBufferPointer { keys in
                try rows.customers.withUnsafeBufferPointer { customers in
                    guard let start = names.baseAddress else { return }
                    var place = 0
                    while place < keys.count {
                        try run("BEGIN IMMEDIATE")
                        for row in place..<min(place + batch, keys.count) {
                            sqlite3_bind_int64(statement, 1, keys[row])
                            sqlite3_bind_int64(statement, 2, customers[row])
                            let name = UnsafeRawPointer(start + row * Rows.nameLength).assumingMemoryBound(to: CChar.self)
                            sqlite3_bind_text(statement, 3, name, Int32(Rows.nameLength), nil)
                            guard sqlite3_step(statement) == SQLITE_DONE else { throw failure() }
                            sqlite3_reset(statement)
                        }
                        try run("COMMIT")
                        place += batch
                    }
                }
            }
        }
    }

    /// A number over all rows, that two equal tables share.
    func digest() throws -> [Int64] {
        var statement: OpaquePointer?
        let sql = "SELECT count(*), sum(id * (customer % 1009)), sum(id * unicode(name) + unicode(substr(name, 9))) FROM rows"
        guard sqlite3_prepare_v2(database, sql, -1, &statement, nil) == SQLITE_OK else { throw failure() }
        defer { sqlite3_finalize(statement) }
        guard sqlite3_step(statement) == SQLITE_ROW else { throw failure() }
        return (0..<3).map { sqlite3_column_int64(statement, $0) }
    }
}

struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

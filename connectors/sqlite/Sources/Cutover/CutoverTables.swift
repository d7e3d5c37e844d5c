import BridgeCore

/// The tables that cutovers keep in a database, shared by all migrations of it, and the clock that they are judged by.
///
/// They are all made at once, with the first record of any kind, so that no later record changes the schema while a fence
/// stands. The words are those that every version of SQLite understands: the application's own reads them with the schema.
enum CutoverTables {
    static let fence = "_bridge_fence"
    static let lease = "_bridge_cutover_lease"
    static let ledger = "_bridge_cutover_ledger"
    static let routing = "_bridge_routing"
    static let all = [fence, lease, ledger, routing]

    /// Milliseconds since 1970-01-01 00:00 UTC. SQLite has `unixepoch('subsec')` from 3.42 on only, and the application may
    /// embed an older one; a Julian day as a double is exact to a twentieth of a millisecond.
    static let clock = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"

    static func now(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> Int64 {
        try database.integer("SELECT \(clock)") ?? 0
    }

    /// Makes what is missing. In the caller's transaction.
    static func prepare(_ database: borrowing SQLiteDatabase) throws(BridgeError) {
        try database.execute(
            """
            CREATE TABLE IF NOT EXISTS main.\(fence)(
                tbl TEXT PRIMARY KEY NOT NULL, migration TEXT NOT NULL, attempt TEXT NOT NULL, service TEXT NOT NULL,
                epoch INTEGER NOT NULL, expires INTEGER, passed INTEGER NOT NULL, schema_version INTEGER NOT NULL,
                definition TEXT NOT NULL) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS main.\(lease)(
                migration TEXT PRIMARY KEY NOT NULL, owner TEXT NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS main.\(ledger)(
                migration TEXT NOT NULL, number INTEGER NOT NULL, written_at INTEGER NOT NULL, attempt TEXT NOT NULL,
                kind TEXT NOT NULL, content TEXT NOT NULL, checksum TEXT NOT NULL,
                PRIMARY KEY(migration, number)) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS main.\(routing)(
                migration TEXT NOT NULL, service TEXT NOT NULL, reads TEXT NOT NULL, writes TEXT NOT NULL,
                epoch INTEGER NOT NULL, published_at INTEGER NOT NULL, PRIMARY KEY(migration, service)) WITHOUT ROWID;
            """)
        // INSERT too: OR REPLACE removes a row without a DELETE.
        for event in ["INSERT", "UPDATE", "DELETE"] {
            try database.execute(
                """
                CREATE TRIGGER IF NOT EXISTS main.\(ledger)_\(event.lowercased()) BEFORE \(event) ON \(ledger)
                BEGIN SELECT RAISE(ABORT, 'bridge: the cutover ledger is written by bridge only, and never changed'); END
                """)
        }
    }

    static func exists(_ table: String, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> Bool {
        try CaptureState.exists(table, database)
    }

    /// Removes one migration's rows, and the tables with the last row of any migration. In the caller's transaction.
    static func remove(_ migration: String, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        var areEmpty = true
        for table in all where try exists(table, database) {
            let delete = try database.prepare("DELETE FROM main.\(table) WHERE migration = ?1")
            try delete.bind(1, string: migration)
            try delete.run()
            if try database.integer("SELECT 1 FROM main.\(table) LIMIT 1") != nil { areEmpty = false }
        }
        guard areEmpty else { return }
        for table in all { try database.execute("DROP TABLE IF EXISTS main.\(table)") }
    }
}

extension Duration {
    /// Whole milliseconds, rounded up; the largest number that there is for what does not fit.
    var millisecondsRoundedUp: Int64 {
        let (seconds, attoseconds) = components
        let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000)
        guard !overflow else { return seconds < 0 ? .min : .max }
        let rest = attoseconds / 1_000_000_000_000_000 + (attoseconds % 1_000_000_000_000_000 > 0 ? 1 : 0)
        let (sum, tooLarge) = whole.addingReportingOverflow(rest)
        return tooLarge ? .max : sum
    }
}

/// A moment so many milliseconds after another, not beyond what an integer holds.
func moment(_ milliseconds: Int64, after start: Int64) -> Int64 {
    let (sum, overflow) = start.addingReportingOverflow(milliseconds)
    return overflow ? (milliseconds < 0 ? .min : .max) : sum
}

import BridgeCore

/// Tells the schema's changes that bridge makes (a fence, the records of a link, a watch) from everybody else's.
///
/// `PRAGMA schema_version` counts all of them. Each capture keeps a count of bridge's own beside its log, raised in the
/// transaction that changes the schema: under the write lock nobody else's change can be among those that it counts, and what
/// is rolled back takes its count with it. The version less the count stands still for as long as only bridge changes the
/// schema. A capture that is made anew begins a count anew, and has another nonce.
enum OwnSchemaChanges {
    private static let key = "own_schema_changes"

    static func version(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> Int64 {
        try database.integer("PRAGMA main.schema_version") ?? 0
    }

    /// The version as it would be had bridge changed nothing since the log was made. Only good to be compared.
    static func versionOfOthers(_ names: CaptureNames, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> Int64 {
        let statement = try database.prepare("SELECT value FROM main.\(quoteIdentifier(names.state)) WHERE key = ?1")
        try statement.bind(1, string: key)
        let own = try statement.step() ? statement.integer(0) : 0
        return try version(database) &- own
    }

    /// Counts what `body` changes of the schema as bridge's own: for every capture out of this database, and for the fences
    /// that stand. In the caller's transaction, which holds the write lock.
    static func counting<Result>(
        _ database: borrowing SQLiteDatabase, _ body: () throws(BridgeError) -> Result
    ) throws(BridgeError) -> Result {
        let before = try version(database)
        let result = try body()
        let after = try version(database)
        guard after != before else { return result }
        try SQLiteFence.adopt(schemaVersion: before, database)
        for state in try stateTables(database) {
            let raise = try database.prepare(
                """
                INSERT OR REPLACE INTO main.\(quoteIdentifier(state)) VALUES(?1,
                  coalesce((SELECT value FROM main.\(quoteIdentifier(state)) WHERE key = ?1), 0) + ?2)
                """)
            try raise.bind(1, string: key)
            try raise.bind(2, integer: after &- before)
            try raise.run()
        }
        return result
    }

    /// Of every link that is captured out of this database.
    private static func stateTables(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> [String] {
        let statement = try database.prepare(
            "SELECT name, sql FROM main.sqlite_master WHERE type = 'table' AND name GLOB '_bridge_*_state'")
        var tables: [String] = []
        while try statement.step() {
            guard let name = statement.string(0), statement.string(1)?.hasSuffix(CaptureState.columns) == true else { continue }
            tables.append(name)
        }
        return tables
    }
}

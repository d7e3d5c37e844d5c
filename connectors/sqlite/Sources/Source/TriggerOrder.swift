import BridgeCore

/// Tells whether triggers were dropped and made again with the same text.
///
/// That is what a table that is rebuilt as SQLite's manual says leaves behind, and what a tool leaves that takes the
/// triggers away while it works: afterwards every text is as it was, and whatever was written meanwhile is in no log.
///
/// Behind all triggers of a link stands one more, the witness, which is made last and never fires. A trigger that is made
/// again comes to stand behind it in `sqlite_master`, which gives each new entry the largest row number. VACUUM numbers
/// the entries anew and keeps the order of the triggers; ANALYZE, indexes, other tables and their triggers leave it as it
/// is, and so do RENAME and ADD COLUMN. So the order tells what `PRAGMA schema_version` cannot: which change of the
/// schema it was. Rebuilding a table drops its triggers, so their order tells of the table too. Not told: a witness that
/// is made again with all the others in their order, and what is done under `PRAGMA writable_schema`.
enum TriggerOrder {
    /// - Parameter table: a table of ours that no row is ever deleted from by the application.
    static func makeWitness(_ names: CaptureNames, on table: String, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        try database.execute(
            """
            DROP TRIGGER IF EXISTS main.\(quoteIdentifier(names.witness));
            CREATE TRIGGER main.\(quoteIdentifier(names.witness)) BEFORE DELETE ON \(quoteIdentifier(table)) WHEN 0 BEGIN SELECT 1; END
            """)
    }

    /// The names of the triggers that were made after the witness; nil if there is no witness.
    static func madeLater(_ names: CaptureNames, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> Set<String>? {
        let statement = try database.prepare(
            """
            SELECT t.name FROM main.sqlite_master w JOIN main.sqlite_master t ON t.type = 'trigger' AND t.rowid >= w.rowid
            WHERE w.type = 'trigger' AND w.name = ?1
            """)
        try statement.bind(1, string: names.witness)
        var later: Set<String> = []
        while try statement.step() { later.insert(statement.string(0) ?? "") }
        return later.remove(names.witness) == nil ? nil : later
    }

    /// A trigger of the application that fires when a row was inserted.
    struct InsertTrigger {
        let name: String
        /// Whether it has a `RAISE(IGNORE)` or `RAISE(FAIL)`, after which the row stays and no other trigger fires.
        let canSkip: Bool
    }

    /// The AFTER INSERT triggers of others that fire before `trigger` of the same table: the newest fires first. Those of the
    /// schema `temp`, which no other connection can see, fire before all.
    static func insertTriggers(
        before trigger: String, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [InsertTrigger] {
        let statement = try database.prepare(
            """
            SELECT t.name, t.sql FROM main.sqlite_master o JOIN main.sqlite_master t
              ON t.type = 'trigger' AND t.tbl_name = o.tbl_name COLLATE NOCASE AND t.rowid > o.rowid
            WHERE o.type = 'trigger' AND o.name = ?1
            """)
        try statement.bind(1, string: trigger)
        var found: [InsertTrigger] = []
        while try statement.step() {
            guard let name = statement.string(0), !SQLiteCatalog.isInternal(name) else { continue }
            let words = SQLTokens(statement.string(1) ?? "")
            let head = (0..<words.count).prefix { !words.isKeyword($0, "ON") }
            guard head.contains(where: { words.isKeyword($0, "AFTER") }), head.contains(where: { words.isKeyword($0, "INSERT") })
            else { continue }
            let canSkip = (0..<words.count).contains {
                words.isKeyword($0, "RAISE") && (words.isKeyword($0 + 2, "IGNORE") || words.isKeyword($0 + 2, "FAIL"))
            }
            found.append(InsertTrigger(name: name, canSkip: canSkip))
        }
        return found
    }
}

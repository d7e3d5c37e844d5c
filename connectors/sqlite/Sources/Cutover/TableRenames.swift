import BridgeCore

/// Gives the tables that the application has left their new names.
///
/// SQLite writes the text of whatever refers to a table anew: triggers, the fence's too, views, and the foreign keys of other
/// tables. It refuses where one of them could not be read, before or after, and then nothing is changed. Indexes keep their
/// names. The fence's triggers go on to look for their row under the old name, so the fence holds on.
struct TableRenames {
    let migration: String

    /// Under the write lock, in the caller's transaction.
    func perform(_ tables: [OldTable], isTrial: Bool, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        guard isTrial else { return try rename(tables, isTrial: false, database) }
        // Only SQLite itself knows what a rename would break.
        try database.execute("SAVEPOINT bridge_trial")
        try rename(tables, isTrial: true, database)
        try database.execute("ROLLBACK TO bridge_trial; RELEASE bridge_trial")
    }

    private func rename(_ tables: [OldTable], isTrial: Bool, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        var pending: [OldTable] = []
        for old in tables where try old.isToBeRenamed(sight(old, database), isTrial: isTrial) { pending.append(old) }
        guard !pending.isEmpty else { return }
        // The old way left views and foreign keys behind.
        try database.execute("PRAGMA legacy_alter_table = OFF")
        for old in pending {
            do throws(BridgeError) {
                try database.execute(
                    "ALTER TABLE main.\(quoteIdentifier(old.table.name)) RENAME TO \(quoteIdentifier(old.newName))")
            } catch where error.code == .serverRefused {
                throw BridgeError(
                    .configurationInvalid, "SQLite refuses to rename an old table, mostly for a view or a trigger that is broken",
                    context: [.init(.table, old.table.description)] + error.context,
                    hint: "mend or drop what is named there; or \(OldTable.leaving)")
            }
        }
    }

    private func sight(_ old: OldTable, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> OldTable.Sight {
        let bearer = try bearer(old, database).map(foldCase)
        return OldTable.Sight(
            isFenced: bearer == foldCase(old.table.name), isRenamed: bearer == foldCase(old.newName),
            isTaken: try isTaken(old.newName, database))
    }

    /// The table on which the fence stands for good that was raised on the table of the old name.
    private func bearer(_ old: OldTable, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> String? {
        guard try CutoverTables.exists(CutoverTables.fence, database) else { return nil }
        let triggers = FenceTriggers(migration: migration, table: old.table.name)
        let row = try database.prepare(
            """
            SELECT m.tbl_name FROM main.sqlite_master m JOIN main.\(CutoverTables.fence) f
              ON f.tbl = ?1 AND f.migration = ?2 AND f.expires IS NULL
            WHERE m.type = 'trigger' AND m.name = ?3
            """)
        for (place, text) in [triggers.key, migration, triggers.name(.insert)].enumerated() {
            try row.bind(place + 1, string: text)
        }
        return try row.step() ? row.string(0) : nil
    }

    /// Tables, views and indexes share their names.
    private func isTaken(_ name: String, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> Bool {
        let row = try database.prepare(
            "SELECT 1 FROM main.sqlite_master WHERE type <> 'trigger' AND name = ?1 COLLATE NOCASE")
        try row.bind(1, string: name)
        return try row.step()
    }
}

import BridgeCore

/// The triggers that refuse the application's writes to one table, and the one behind them that tells of their order.
///
/// BEFORE triggers see every statement that writes rows: OR IGNORE and OR REPLACE do not soften RAISE(ABORT), an upsert
/// fires the INSERT trigger first, rows that a REPLACE removes have an INSERT or UPDATE that removes them, and a table with
/// a DELETE trigger is never truncated. A trigger of the application that comes first and says RAISE(IGNORE) leaves ours
/// out together with the row. What no trigger sees: connections that have switched triggers off, incremental BLOB writes
/// (`sqlite3_blob_write`), and DDL, which ``SQLiteFence`` looks for.
///
/// RAISE takes an expression from SQLite 3.47 on only, so service and epoch are written into the text.
///
/// The first write that goes through after the expiry marks the fence as passed, in its own transaction. So a clock that
/// is set back afterwards cannot make it stand again, and the point of no return cannot be decided over such a write.
struct FenceTriggers {
    enum Event: String, CaseIterable {
        case insert, update, delete
    }

    let migration: String
    /// The table's name in lower case, which is its key among the fences.
    let key: String

    init(migration: String, table: String) {
        self.migration = migration
        key = foldCase(table)
    }

    /// A name that no capture can have: those hold no hyphen, and migrations no colon.
    func name(_ event: Event) -> String { prefix + event.rawValue }
    var witness: String { prefix + "order" }
    private var prefix: String { "_bridge_fence-\(migration):\(key):" }
    var names: [String] { Event.allCases.map { name($0) } + [witness] }

    /// The statements as SQLite keeps them, the witness last.
    func statements(table: String, service: String, epoch: Int64) -> [(name: String, sql: String)] {
        let message = Self.message(migration: migration, service: service, epoch: epoch)
        let row = "tbl = \(quoteLiteral(key))"
        var statements = Event.allCases.map { event in
            (
                name: name(event),
                sql: """
                    CREATE TRIGGER \(quoteIdentifier(name(event))) BEFORE \(event.rawValue.uppercased()) ON \(quoteIdentifier(table)) \
                    WHEN EXISTS (SELECT 1 FROM \(CutoverTables.fence) WHERE \(row) AND passed = 0) BEGIN \
                    SELECT RAISE(ABORT, \(quoteLiteral(message))) FROM \(CutoverTables.fence) \
                    WHERE \(row) AND (expires IS NULL OR expires > \(CutoverTables.clock)); \
                    UPDATE \(CutoverTables.fence) SET passed = 1 WHERE \(row); END
                    """
            )
        }
        // On a table that the application does not drop, where it never fires; see ``TriggerOrder``.
        statements.append(
            (
                name: witness,
                sql: """
                    CREATE TRIGGER \(quoteIdentifier(witness)) BEFORE DELETE ON \(CutoverTables.fence) WHEN 0 BEGIN SELECT 1; END
                    """
            ))
        return statements
    }

    /// What an application gets with SQLITE_CONSTRAINT_TRIGGER; it can tell it by its first words.
    static func message(migration: String, service: String, epoch: Int64) -> String {
        "bridge fence: writes of service \(service) are stopped while migration \(migration) moves it; "
            + "it is found anew under routing epoch \(epoch)"
    }

    func make(table: String, service: String, epoch: Int64, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        try drop(database)
        for statement in statements(table: table, service: service, epoch: epoch) { try database.execute(statement.sql) }
    }

    func drop(_ database: borrowing SQLiteDatabase) throws(BridgeError) {
        for name in names { try database.execute("DROP TRIGGER IF EXISTS main.\(quoteIdentifier(name))") }
    }

    /// What is wrong with the triggers that are there; nil if they are as they were made.
    func fault(
        table: String, service: String, epoch: Int64, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> String? {
        let row = try database.prepare(
            "SELECT rowid, tbl_name, sql FROM main.sqlite_master WHERE type = 'trigger' AND name = ?1")
        var last: Int64 = -1
        for statement in statements(table: table, service: service, epoch: epoch) {
            try row.bind(1, string: statement.name)
            defer { row.reset() }
            guard try row.step() else { return "a trigger of the fence is gone" }
            guard row.string(2) == statement.sql else { return "a trigger of the fence was changed" }
            guard row.integer(0) > last else { return "the triggers of the fence were dropped and made again" }
            last = row.integer(0)
        }
        return nil
    }
}

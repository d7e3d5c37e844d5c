import BridgeCore
import CSQLite

/// A connection that writes for a link: nothing of the application's fires or checks on it.
///
/// It is confined to the actor that made it.
final class TargetConnection {
    let database: SQLiteDatabase

    /// - Parameters:
    ///   - creating: makes the file, in WAL mode, if it is not there.
    ///   - busyTimeout: milliseconds that a statement waits for another writer before `serverBusy`.
    init(path: String, creating: Bool, busyTimeout: Int32) throws(BridgeError) {
        database = try SQLiteDatabase(path: path, access: creating ? .create : .readWrite, busyTimeout: busyTimeout)
        // Nothing loops back into a change log, no fence stops the applier, no application trigger fires twice; and
        // foreign keys were enforced at the source: order inside a batch is not theirs.
        try database.setTriggersEnabled(false)
        try database.execute(
            """
            PRAGMA foreign_keys = OFF;
            PRAGMA cache_size = -16384;
            PRAGMA cache_spill = ON;
            PRAGMA temp_store = FILE;
            PRAGMA wal_autocheckpoint = \(Self.checkpointPages);
            PRAGMA journal_size_limit = \(64 << 20);
            """)
        try syncCommits(true)
    }

    /// The WAL is copied back when it has this many pages. A transaction of a gigabyte still makes a WAL of a gigabyte;
    /// the size limit cuts it when it is next reset.
    private static let checkpointPages = 4096

    /// Whether a commit is on disk when it returns. EXTRA is FULL, and in a rollback-journal mode it also syncs the
    /// folder, without which a power cut could bring the journal, and with it the old state, back.
    func syncCommits(_ isSynced: Bool) throws(BridgeError) {
        try database.execute("PRAGMA synchronous = \(isSynced ? "EXTRA" : "NORMAL")")
    }

    /// Puts the file into WAL mode, so that readers and the link do not wait for each other. Somebody who holds the file
    /// at this moment prevents it; the link then works all the same. On the way back the file is the one that the
    /// application has long had, and keeps the mode that it chose.
    func preferWAL(for link: LinkDescription?) throws(BridgeError) {
        guard link?.direction != .reverse else { return }
        guard try database.string("PRAGMA main.journal_mode") != "wal" else { return }
        do throws(BridgeError) {
            try database.execute("PRAGMA main.journal_mode = WAL")
        } catch {
            guard error.code == .serverBusy else { throw error }
        }
    }

    func prepare(_ sql: String) throws(BridgeError) -> SQLiteStatement { try database.prepare(sql) }

    func target(_ name: TableName) throws(BridgeError) -> TargetTable? {
        try SQLiteCatalog.table(name.name, database).map { TargetTable($0) }
    }

    /// A target table that must be there.
    func requiredTarget(_ name: TableName) throws(BridgeError) -> TargetTable {
        guard let table = try target(name) else {
            throw BridgeError(
                .targetTableMissing, "the target has no table \(name.name)", context: [.init(.table, name.name)])
        }
        return table
    }
}

import BridgeCore

/// Stops the application's writes to tables of an SQLite database: ``FenceTriggers`` on each, and a row in
/// `_bridge_fence` that says whose fence it is, until when, and how the table was defined.
///
/// Triggers and rows are made in one transaction under the write lock. SQLite has one writer, so when that transaction is
/// committed no other that wrote is open; one that began to read before it can no longer write
/// (`SQLITE_BUSY_SNAPSHOT`, or the lock in a rollback-journal mode). All functions work in the caller's transaction.
struct SQLiteFence {
    let migration: String

    /// One table's fence.
    private struct Standing {
        let key: String
        let migration: String
        let attempt: String
        let service: String
        let epoch: Int64
        let expires: Int64?
        let wasPassed: Bool
        let schemaVersion: Int64
        let definition: String
    }

    // MARK: State

    func state(_ tables: [TableName], _ database: borrowing SQLiteDatabase) throws(BridgeError) -> FenceState {
        let keys = Set(tables.map { foldCase($0.name) })
        let standing = try read(database).filter { keys.contains($0.key) }.sorted { $0.key < $1.key }
        guard let first = standing.first else { return .none }
        func mixed(_ why: String) -> FenceState {
            standing.contains { $0.expires == nil && $0.migration == migration } ? .permanentAltered(why) : .mixed(why)
        }
        if let other = standing.first(where: { $0.migration != migration }) {
            return mixed("\(other.key) is fenced by the migration \(other.migration)")
        }
        if let other = standing.first(where: { $0.attempt != first.attempt }) {
            return mixed("\(first.key) is fenced by the attempt \(first.attempt), \(other.key) by \(other.attempt)")
        }
        if let bare = keys.subtracting(standing.map(\.key)).min() {
            return mixed("\(first.key) is fenced, \(bare) is not")
        }
        let now = try CutoverTables.now(database)
        // The application wrote, or may have written, whatever the other tables' rows say.
        if standing.contains(where: { $0.wasPassed || $0.expires.map { $0 <= now } == true }) {
            return .expired(attempt: first.attempt)
        }
        let deadlines = standing.compactMap(\.expires)
        guard deadlines.isEmpty || deadlines.count == standing.count else {
            return mixed("the fence is permanent on some tables and not on others")
        }
        for fence in standing {
            if let fault = try fault(of: fence, database) { return mixed("\(fence.key): \(fault)") }
        }
        guard let deadline = deadlines.min() else { return .permanent(attempt: first.attempt) }
        // Of a schema that was changed and looks as before, nothing says what happened in between.
        let schemaVersion = try OwnSchemaChanges.version(database)
        guard standing.allSatisfy({ $0.schemaVersion == schemaVersion }) else {
            return .mixed("the database's schema was changed while the fence stood")
        }
        return .leased(attempt: first.attempt, remaining: .milliseconds(deadline - now))
    }

    /// Tables of this migration that are not as they were when their fence was raised; a fence that has expired says nothing.
    func faults(
        _ tables: [TableName], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [TableName: String] {
        var faults: [TableName: String] = [:]
        let standing = try read(database)
        let now = try CutoverTables.now(database)
        for table in tables {
            guard let fence = standing.first(where: { $0.key == foldCase(table.name) && $0.migration == migration }),
                !fence.wasPassed, fence.expires.map({ $0 > now }) ?? true
            else { continue }
            faults[table] = try fault(of: fence, database)
        }
        return faults
    }

    private func fault(of fence: Standing, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> String? {
        guard let (kind, name) = try SQLiteCatalog.kind(of: fence.key, database), kind == "table" else {
            return "the table was dropped or renamed"
        }
        let triggers = FenceTriggers(migration: fence.migration, table: fence.key)
        let fault = try triggers.fault(table: name, service: fence.service, epoch: fence.epoch, database)
        if let fault { return fault }
        guard try SchemaText.definition(of: name, database) == fence.definition else {
            return "the table, or an index or a trigger on it, was altered since the fence was raised"
        }
        return nil
    }

    private func read(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> [Standing] {
        guard try CutoverTables.exists(CutoverTables.fence, database) else { return [] }
        let rows = try database.prepare(
            """
            SELECT tbl, migration, attempt, service, epoch, expires, passed, schema_version, definition
            FROM main.\(CutoverTables.fence)
            """)
        var standing: [Standing] = []
        while try rows.step() {
            standing.append(
                Standing(
                    key: rows.string(0) ?? "", migration: rows.string(1) ?? "", attempt: rows.string(2) ?? "",
                    service: rows.string(3) ?? "", epoch: rows.integer(4),
                    expires: rows.storageClass(5) == .null ? nil : rows.integer(5), wasPassed: rows.integer(6) != 0,
                    schemaVersion: rows.integer(7), definition: rows.string(8) ?? ""))
        }
        return standing
    }

    // MARK: Raising

    /// Under the write lock.
    /// - Throws: `fenceExpired` if the attempt's own fence does not stand any more as it was made. To renew it would forgive
    ///   what was written, or done to the schema, behind the drain and the check.
    func raise(_ fence: Fence, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        try CutoverTables.prepare(database)
        let newest = try CutoverRecords(migration: migration).routes(database).map(\.epoch).max() ?? .min
        guard newest < fence.epoch else {
            throw BridgeError(
                .leaseLost, "the attempt is over: a newer one has published its routes", context: [.init(.migration, migration)],
                hint: "bridge cutover status tells where each service is")
        }
        let standing = try read(database)
        try requireIntact(fence, standing, database)
        var raised: [(table: String, service: String, isPermanent: Bool)] = []
        for (table, service) in fence.tables.sorted(by: { $0.key < $1.key }) {
            let name = try fenceable(table, database)
            let own = standing.first { $0.key == foldCase(name) }
            let triggers = FenceTriggers(migration: migration, table: name)
            if try triggers.fault(table: name, service: service, epoch: fence.epoch, database) != nil {
                try triggers.make(table: name, service: service, epoch: fence.epoch, database)
            }
            // What has no expiry never gets one again: past the point of no return there is no way back.
            raised.append((name, service, own.map { $0.expires == nil } ?? false))
        }
        let row = try database.prepare(
            """
            INSERT OR REPLACE INTO main.\(CutoverTables.fence)
              (tbl, migration, attempt, service, epoch, expires, passed, schema_version, definition)
            VALUES(?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8)
            """)
        let schemaVersion = try OwnSchemaChanges.version(database)
        // Read last: the lease counts from when the fence stands.
        let deadline = fence.lease.map(\.millisecondsRoundedUp)
        let now = try CutoverTables.now(database)
        for (table, service, isPermanent) in raised {
            try row.bind(1, string: foldCase(table))
            for (place, text) in [migration, fence.attempt, service].enumerated() { try row.bind(place + 2, string: text) }
            try row.bind(5, integer: fence.epoch)
            if let deadline, !isPermanent {
                try row.bind(6, integer: moment(deadline, after: now))
            } else {
                try row.bindNull(6)
            }
            try row.bind(7, integer: schemaVersion)
            try row.bind(8, string: try SchemaText.definition(of: table, database))
            try row.run()
        }
    }

    /// What stands on the tables already must be the attempt's own, and whole.
    private func requireIntact(
        _ fence: Fence, _ standing: [Standing], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) {
        var renewed: [TableName] = []
        for table in fence.tables.keys.sorted() {
            guard let own = standing.first(where: { $0.key == foldCase(table.name) }) else { continue }
            // To close for good what is closed for good, as a whole again, takes nothing from anybody.
            if own.migration == migration, own.expires == nil, fence.lease == nil { continue }
            if own.migration != migration || own.attempt != fence.attempt { throw foreign(table, own) }
            renewed.append(table)
        }
        let seen = try state(renewed, database)
        switch seen {
        case .none, .leased, .permanent: return
        case .expired, .mixed, .permanentAltered: throw expired("the fence does not stand any more as it was raised", seen)
        }
    }

    private func expired(_ what: String, _ state: FenceState) -> BridgeError {
        BridgeError(
            .fenceExpired, what, context: [.init(.migration, migration), .init(.detail, Self.describe(state))])
    }

    /// The table's name as it was created.
    private func fenceable(_ table: TableName, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> String {
        if let reason = try Self.reasonAgainst(table, database) {
            throw BridgeError(
                .sourceUnsupported, "the table cannot be fenced: \(reason)", context: [.init(.table, table.description)],
                hint: "leave the table out of the migration, or correct its name under services")
        }
        return try SQLiteCatalog.kind(of: table.name, database)?.name ?? table.name
    }

    /// Why no trigger can stop writes to it; nil if one can.
    static func reasonAgainst(_ table: TableName, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> String? {
        if let schema = table.schema, foldCase(schema) != "main" { return "it is not in the database's main schema" }
        if SQLiteCatalog.isInternal(table.name) { return "it belongs to SQLite or to bridge" }
        switch try SQLiteCatalog.kind(of: table.name, database)?.kind {
        case "table": return nil
        case "view": return "it is a view; the tables beneath it can be fenced"
        case "virtual": return "it is a virtual table, which has no triggers"
        case "shadow": return "it is the inside of a virtual table"
        default: return "there is no such table"
        }
    }

    private func foreign(_ table: TableName, _ other: Standing) -> BridgeError {
        BridgeError(
            .fenceForeign, "another attempt has fenced the table",
            context: [
                .init(.table, table.description), .init(.migration, other.migration), .init(.detail, "attempt \(other.attempt)"),
            ])
    }

    // MARK: Point of no return and removal

    /// Under the write lock: whoever writes next sees it.
    func makePermanent(
        attempt: String, tables: [TableName], margin: Duration, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) {
        let seen = try state(tables, database)
        switch seen {
        case .permanent(attempt): return
        case .leased(attempt, let remaining) where remaining >= margin: break
        default:
            throw expired("the fence does not stand, or not for long enough, to be made permanent", seen)
        }
        let update = try database.prepare("UPDATE main.\(CutoverTables.fence) SET expires = NULL WHERE tbl = ?1")
        for table in tables {
            try update.bind(1, string: foldCase(table.name))
            try update.run()
        }
    }

    private static func describe(_ state: FenceState) -> String {
        switch state {
        case .none: "there is no fence"
        case .leased(let attempt, let remaining): "attempt \(attempt), \(remaining.millisecondsRoundedUp) ms remain"
        case .expired(let attempt): "attempt \(attempt), expired"
        case .permanent(let attempt): "attempt \(attempt), permanent"
        case .mixed(let what), .permanentAltered(let what): what
        }
    }

    /// Whether ``remove(attempt:tables:_:)`` has anything to do.
    func isThere(_ tables: [TableName], _ database: borrowing SQLiteDatabase) throws(BridgeError) -> Bool {
        let keys = tables.map { foldCase($0.name) }
        if try read(database).contains(where: { keys.contains($0.key) && $0.migration == migration }) { return true }
        let names = Set(tables.flatMap { FenceTriggers(migration: migration, table: $0.name).names })
        return try !triggerNames(database).isDisjoint(with: names)
    }

    /// Removes rows and triggers, also triggers that have lost their row.
    /// - Parameter attempt: nil for any of this migration.
    func remove(
        attempt: String?, through epoch: Int64?, tables: [TableName], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) {
        let standing = try read(database)
        let now = try CutoverTables.now(database)
        for table in tables {
            let triggers = FenceTriggers(migration: migration, table: table.name)
            let own = standing.first { $0.key == triggers.key && $0.migration == migration }
            // What has passed the point of no return meanwhile, by another process's hand, is not gone back from. What has
            // expired stops nobody, and would stand in the way of the next attempt.
            if let own, let attempt {
                let hasExpired = own.wasPassed || own.expires.map { $0 <= now } ?? false
                guard own.expires != nil, own.attempt == attempt || hasExpired else { continue }
            }
            if let own, attempt == nil, let epoch, own.epoch > epoch { continue }
            try triggers.drop(database)
            guard own != nil else { continue }
            let delete = try database.prepare("DELETE FROM main.\(CutoverTables.fence) WHERE tbl = ?1")
            try delete.bind(1, string: triggers.key)
            try delete.run()
        }
    }

    /// Removes every trigger of the migration's fences, whatever became of the tables. The rows go with the migration's.
    func removeAllTriggers(_ database: borrowing SQLiteDatabase) throws(BridgeError) {
        for name in try triggerNames(database) where name.hasPrefix("_bridge_fence-\(migration):") {
            try database.execute("DROP TRIGGER main.\(quoteIdentifier(name))")
        }
    }

    private func triggerNames(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> Set<String> {
        let rows = try database.prepare("SELECT name FROM main.sqlite_master WHERE type = 'trigger'")
        var names: Set<String> = []
        while try rows.step() { names.insert(rows.string(0) ?? "") }
        return names
    }

    // MARK: Schema's version

    /// Carries fences over a change of the schema that bridge itself made under the write lock.
    static func adopt(schemaVersion old: Int64, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        let new = try OwnSchemaChanges.version(database)
        guard new != old, try CutoverTables.exists(CutoverTables.fence, database) else { return }
        try database.execute(
            "UPDATE main.\(CutoverTables.fence) SET schema_version = \(new) WHERE schema_version = \(old)")
    }
}

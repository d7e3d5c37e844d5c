import BridgeCore

/// Records the keys of rows that anyone but an applier of bridge writes to a link's target tables.
///
/// It is a change log of its own, made by the rules of capture (``CaptureTriggers``), so rows that a REPLACE removes are in
/// it as well. An applier's connection runs with triggers off. What is made bears a name that holds a hyphen, which no
/// capture's can, so a reverse link's capture of the same tables and the watch do not meet.
///
/// The log begins with a row that stands for no write and holds the watch's random identity. Beside it stands a table with
/// the text of each watched table, as it was when the watch was made, and the marks of checks. ``TriggerOrder`` tells
/// whether a trigger was dropped and made again, as when a table is rebuilt.
///
/// If parts of the watch went missing and it is made whole again, each
/// table that had gone unwatched gets an entry that stands for any write to it.
struct ForeignWriteWatch {
    let link: LinkDescription
    let names: CaptureNames

    init(_ link: LinkDescription) {
        self.link = link
        names = CaptureNames(foreignWritesOf: link)
    }

    /// What must be on a table, and what is.
    private struct Watched {
        let mapping: TableMapping
        /// The target's table; its key is what is logged.
        let table: SQLiteTable
        /// nil if no trigger is on it.
        let number: Int64?
        let isWhole: Bool
    }

    // MARK: Making

    func install(_ database: borrowing SQLiteDatabase) throws(BridgeError) {
        // Most often there is nothing to do, and then no writer is kept waiting.
        if try isWhole(database) { return }
        try database.transaction(.immediate) { () throws(BridgeError) in
            guard try !isWhole(database) else { return }
            try OwnSchemaChanges.counting(database) { () throws(BridgeError) in try make(database) }
        }
    }

    private func make(_ database: borrowing SQLiteDatabase) throws(BridgeError) {
        let objects = try existing(database)
        let watched = try inspect(objects, database)
        let hadLog = try first(database) != nil
        try makeLog(database, keyColumns: watched.map(\.table.key.count).max() ?? 1)
        try database.execute(
            "CREATE TABLE IF NOT EXISTS main.\(quoteIdentifier(names.state))(name TEXT PRIMARY KEY, value) WITHOUT ROWID")
        var last = objects.compactMap { names.parseTrigger($0.name)?.number }.max() ?? 0
        last = max(last, try database.integer("SELECT max(abs(tbl)) FROM main.\(quoteIdentifier(names.log))") ?? 0)
        for entry in watched where !entry.isWhole || !hadLog {
            if entry.number == nil { last += 1 }
            let number = entry.number ?? last
            for object in objects where object.isTrigger && foldCase(object.table) == foldCase(entry.table.name) {
                try database.execute("DROP TRIGGER main.\(quoteIdentifier(object.name))")
            }
            try makeTriggers(entry.table, number, database)
            try makeKnown(entry.table, database)
            guard !objects.isEmpty else { continue }
            try database.execute("INSERT INTO main.\(quoteIdentifier(names.log))(tbl) VALUES(\(-number))")
        }
        try TriggerOrder.makeWitness(names, on: names.state, database)
    }

    private func makeKnown(_ table: SQLiteTable, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        let insert = try database.prepare("INSERT OR REPLACE INTO main.\(quoteIdentifier(names.state)) VALUES(?1, ?2)")
        try insert.bind(1, string: Self.knownName(table))
        try insert.bind(2, string: table.sql)
        try insert.run()
    }

    private static func knownName(_ table: SQLiteTable) -> String { "table " + foldCase(table.name) }

    private func isWhole(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> Bool {
        guard try first(database) != nil, try CaptureState.exists(names.state, database) else { return false }
        return try inspect(existing(database), database).allSatisfy(\.isWhole)
    }

    private func makeLog(_ database: borrowing SQLiteDatabase, keyColumns: Int) throws(BridgeError) {
        let log = "main.\(quoteIdentifier(names.log))"
        // As in capture's log: no constraint, no affinity.
        try database.execute("CREATE TABLE IF NOT EXISTS \(log)(seq INTEGER PRIMARY KEY, tbl, k0)")
        for column in try logColumns(database)..<max(1, keyColumns) {
            try database.execute("ALTER TABLE \(log) ADD COLUMN k\(column)")
        }
        guard try first(database) == nil else { return }
        // A log that is made again begins behind whatever its predecessor counted.
        try database.execute(
            """
            DELETE FROM \(log); INSERT INTO \(log)(seq, tbl, k0)
            VALUES(\(max(1, Timestamp.now.microseconds)), 0, \(quoteLiteral(CaptureState.randomNonce())))
            """)
    }

    private func logColumns(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> Int {
        let columns = try database.integer("SELECT count(*) FROM pragma_table_info(\(quoteLiteral(names.log)))") ?? 2
        return max(1, Int(clamping: columns) - 2)
    }

    private func makeTriggers(
        _ table: SQLiteTable, _ number: Int64, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) {
        let installer = CaptureInstaller(link)
        let compiledBefore = installer.compileWrites(table, database) == nil
        for trigger in try CaptureTriggers(table: table, number: number, names: names).make() {
            try database.execute(trigger.sql)
        }
        if compiledBefore, let error = installer.compileWrites(table, database) {
            throw BridgeError(
                .sourceUnsupported, "the table's writes would fail with the triggers on it that watch for foreign writes",
                context: [.init(.table, table.name)], cause: error)
        }
    }

    /// Drops triggers and log. What is not there is no error. In the caller's transaction.
    func remove(_ database: borrowing SQLiteDatabase) throws(BridgeError) {
        let objects = try existing(database)
        for object in objects where object.isTrigger {
            try database.execute("DROP TRIGGER main.\(quoteIdentifier(object.name))")
        }
        for object in objects where !object.isTrigger {
            try database.execute("DROP TABLE main.\(quoteIdentifier(object.name))")
        }
    }

    // MARK: What is there

    private func existing(
        _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [CaptureInstaller.ExistingObject] {
        let statement = try database.prepare(
            "SELECT type, name, tbl_name, sql FROM main.sqlite_master WHERE type IN ('table', 'trigger')")
        var objects: [CaptureInstaller.ExistingObject] = []
        while try statement.step() {
            let isTrigger = statement.string(0) == "trigger"
            guard let name = statement.string(1),
                isTrigger ? names.parseTrigger(name) != nil : [names.log, names.state].contains(name)
            else { continue }
            objects.append(
                .init(isTrigger: isTrigger, name: name, table: statement.string(2) ?? "", sql: statement.string(3) ?? ""))
        }
        return objects
    }

    /// The row that the log begins with, its number and the watch's identity; nil if there is no log, or it does not begin
    /// with that row.
    private func first(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> (number: Int64, identity: String)? {
        guard try CaptureState.exists(names.log, database) else { return nil }
        let first = try database.prepare("SELECT seq, tbl, k0 FROM main.\(quoteIdentifier(names.log)) ORDER BY seq LIMIT 1")
        guard try first.step(), first.storageClass(1) == .integer, first.integer(1) == 0, let identity = first.string(2)
        else { return nil }
        return (first.integer(0), identity)
    }

    /// The texts of the tables as they are known, by the name under which they are kept.
    private func known(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> [String: String] {
        guard try CaptureState.exists(names.state, database) else { return [:] }
        let rows = try database.prepare("SELECT name, value FROM main.\(quoteIdentifier(names.state)) WHERE name LIKE 'table %'")
        var known: [String: String] = [:]
        while try rows.step() { known[rows.string(0) ?? ""] = rows.string(1) ?? "" }
        return known
    }

    /// The link's tables, in the order of its mappings.
    private func inspect(
        _ objects: [CaptureInstaller.ExistingObject], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [Watched] {
        var watched: [Watched] = []
        let known = try known(database)
        let later = try TriggerOrder.madeLater(names, database)
        for mapping in link.mappings {
            guard let table = try SQLiteCatalog.table(mapping.target.name, database) else {
                throw BridgeError(
                    .targetTableMissing, "the target has no table \(mapping.target.name)",
                    context: [.init(.table, mapping.target.name)])
            }
            let logged = Self.logged(table)
            let triggers = objects.filter { $0.isTrigger && foldCase($0.table) == foldCase(table.name) }
            let number = triggers.compactMap { names.parseTrigger($0.name)?.number }.min()
            var isWhole = false
            if let number, let later, known[Self.knownName(table)] == table.sql, later.isDisjoint(with: triggers.map(\.name)) {
                isWhole = try CaptureTriggers(table: logged, number: number, names: names).make().allSatisfy { wanted in
                    triggers.contains { $0.name == wanted.name && CaptureInstaller.sameStatement($0.sql, wanted.sql) }
                }
            }
            watched.append(Watched(mapping: mapping, table: logged, number: number, isWhole: isWhole))
        }
        return watched
    }

    /// The table with the columns to log as its key: the primary key; or else all columns of unique indexes, one of which
    /// the link's key is; or else the whole row.
    private static func logged(_ table: SQLiteTable) -> SQLiteTable {
        guard table.key.isEmpty else { return table }
        var copy = table
        let unique = table.indexes.filter { $0.isUnique && $0.predicate == nil }
        let columns = Set(unique.flatMap { $0.parts.compactMap(\.column) }).filter { table.columns[$0].kind == .ordinary }
        copy.key = columns.isEmpty ? table.insertableColumns : columns.sorted()
        return copy
    }

    // MARK: Reading

    /// - Parameter identities: by the target's name in lower case, the columns that name its rows.
    /// - Throws: `captureBroken` if the watch is not whole, or was made anew since `after`.
    func read(
        _ database: borrowing SQLiteDatabase, after: Int64, limit: Int, identities: [String: [String]]
    ) throws(BridgeError) -> [ForeignWrite] {
        let log = "main.\(quoteIdentifier(names.log))"
        guard let first = try first(database)?.number, let last = try database.integer("SELECT max(seq) FROM \(log)") else {
            throw broken("the log of foreign writes is missing")
        }
        guard after == 0 || (first...last).contains(after) else {
            throw broken("the log of foreign writes is another one than before")
        }
        var tables: [Int64: Decoder] = [:]
        let watched: [Watched]
        do throws(BridgeError) {
            watched = try inspect(existing(database), database)
        } catch {
            throw error.code == .targetTableMissing
                ? BridgeError(.captureBroken, "a watched table is gone", context: error.context) : error
        }
        for entry in watched {
            guard entry.isWhole, let number = entry.number else {
                throw broken("a trigger that watches for foreign writes is missing, changed or made again, or its table was altered")
                    .adding(.table, entry.mapping.target.name)
            }
            tables[number] = Decoder(
                entry.mapping.target, entry.table, identity: identities[foldCase(entry.mapping.target.name)])
        }
        let keys = (0..<(try logColumns(database))).map { "k\($0)" }.joined(separator: ", ")
        let rows = try database.prepare(
            "SELECT seq, tbl, \(keys) FROM \(log) WHERE seq > ?1 AND tbl <> 0 ORDER BY seq LIMIT ?2")
        try rows.bind(1, integer: after)
        try rows.bind(2, integer: Int64(max(0, limit)))
        var writes: [ForeignWrite] = []
        while try rows.step() {
            let number = rows.integer(1)
            // One whose table left the link, or was made anew: then an entry for all of that table follows.
            guard let decoder = tables[abs(number)] else { continue }
            writes.append(
                ForeignWrite(
                    number: rows.integer(0), table: decoder.table,
                    key: number < 0 ? nil : try decoder.key(rows, column: 2)))
        }
        return writes
    }

    /// Turns an entry's columns into the key that names the row in the link.
    private struct Decoder {
        let table: TableName
        /// Where the key's columns stand in an entry; nil if they are not all in it, so that any row may be meant.
        let places: [Int]?

        init(_ name: TableName, _ logged: SQLiteTable, identity: [String]?) {
            table = name
            let names = logged.key.map { foldCase(logged.columns[$0].name) }
            let wanted = identity?.map(foldCase) ?? logged.key.sorted().map { foldCase(logged.columns[$0].name) }
            let found = wanted.compactMap { names.firstIndex(of: $0) }
            places = found.count == wanted.count ? found : nil
        }

        func key(_ row: SQLiteStatement, column: Int) throws(BridgeError) -> KeyImage? {
            guard let places else { return nil }
            return try KeyImage(columns: places.count) { cells throws(BridgeError) in
                for place in places { try row.appendCell(column + place, to: cells) }
            }
        }
    }

    // MARK: Marks

    /// - Throws: `captureBroken` if there is no watch.
    func mark(of check: String, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> WatchMark {
        guard let first = try first(database), try CaptureState.exists(names.state, database) else {
            throw broken("the watch for foreign writes is gone")
        }
        let row = try database.prepare("SELECT value FROM main.\(quoteIdentifier(names.state)) WHERE name = ?1")
        try row.bind(1, string: "check " + check)
        return WatchMark(identity: "\(first.number) \(first.identity)", counter: try row.step() ? row.integer(0) : 0)
    }

    func raiseMark(of check: String, inPlaceOf old: String?, _ database: borrowing SQLiteDatabase) throws(BridgeError) -> WatchMark {
        try database.transaction(.immediate) { () throws(BridgeError) in
            var mark = try mark(of: check, database)
            mark.counter += 1
            let state = "main.\(quoteIdentifier(names.state))"
            let write = try database.prepare("INSERT OR REPLACE INTO \(state) VALUES(?1, ?2)")
            try write.bind(1, string: "check " + check)
            try write.bind(2, integer: mark.counter)
            try write.run()
            if let old, old != check {
                let delete = try database.prepare("DELETE FROM \(state) WHERE name = ?1")
                try delete.bind(1, string: "check " + old)
                try delete.run()
            }
            return mark
        }
    }

    private func broken(_ what: String) -> BridgeError {
        BridgeError(
            .captureBroken, what, context: [.init(.slot, names.log)],
            hint: "writes by others may have gone unseen: run bridge check again, which watches anew and compares everything")
    }
}

extension CaptureNames {
    /// The names of what watches for foreign writes. A link's identifier never holds a hyphen.
    init(foreignWritesOf link: LinkDescription) { prefix = "_\(link.identifier)-foreign" }
}

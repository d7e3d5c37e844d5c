import BridgeCore

/// Makes, verifies and removes what a link's capture needs in a source.
struct CaptureInstaller {
    let link: LinkDescription
    let names: CaptureNames

    init(_ link: LinkDescription) {
        self.link = link
        names = CaptureNames(link)
    }

    /// Makes log, state and triggers in one transaction.
    /// - Returns: the log's nonce and the first position that will be delivered.
    func install(
        _ database: borrowing SQLiteDatabase, replacingLeftovers: Bool
    ) throws(BridgeError) -> (nonce: String, position: Position) {
        // Looking at every value can take long, so it is done before the write lock is held.
        var planned: [TableSchema] = []
        for mapping in link.mappings {
            let table = try requiredTable(mapping.source, database)
            planned.append(table.schema(contents: try table.scanContents(database)))
        }
        return try database.transaction(.immediate) { () throws(BridgeError) in
            try OwnSchemaChanges.counting(database) { () throws(BridgeError) in
                try clearName(database, replacingLeftovers: replacingLeftovers)
                return try make(planned, database)
            }
        }
    }

    private func make(
        _ planned: [TableSchema], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> (nonce: String, position: Position) {
        var tables: [SQLiteTable] = []
        for mapping in link.mappings { tables.append(try requiredTable(mapping.source, database)) }
        try createTables(database, keyColumns: max(1, tables.map(\.key.count).max() ?? 1))
        for (place, table) in tables.enumerated() {
            let number = Int64(place + 1)
            try record(table, number, link.mappings[place].source, planned[place], database)
            let compiledBefore = compileWrites(table, database) == nil
            for trigger in try CaptureTriggers(table: table, number: number, names: names).make() {
                try database.execute(trigger.sql)
            }
            if compiledBefore, let error = compileWrites(table, database) {
                throw BridgeError(
                    .sourceUnsupported, "the table's writes would fail with capture triggers on it",
                    context: [.init(.table, link.mappings[place].source.description)],
                    hint: "drop the index that is named here for the time of the migration, or leave the table out",
                    cause: error)
            }
        }
        try TriggerOrder.makeWitness(names, on: names.state, database)
        let nonce = CaptureState.randomNonce()
        try writeState(nonce, database)
        return (nonce, Position(commit: UInt64(CaptureState.firstSequence) + 1))
    }

    /// Removes triggers, then log and state, in one transaction. What is not there is no error.
    func remove(_ database: borrowing SQLiteDatabase) throws(BridgeError) {
        guard try !existing(database).isEmpty else { return }
        try database.transaction(.immediate) { () throws(BridgeError) in
            if let state = try CaptureState.read(names, database), state.link != link.name { throw foreign(state.link) }
            try OwnSchemaChanges.counting(database) { () throws(BridgeError) in try dropAll(database) }
        }
    }

    // MARK: Making

    private func requiredTable(
        _ name: TableName, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> SQLiteTable {
        guard let table = try SQLiteCatalog.table(name.name, database) else {
            throw BridgeError(.tableMissing, "the source has no such table", context: [.init(.table, name.description)])
        }
        guard !table.key.isEmpty else {
            throw BridgeError(
                .tableWithoutKey, "the table has no primary key", context: [.init(.table, name.description)])
        }
        return table
    }

    private func clearName(_ database: borrowing SQLiteDatabase, replacingLeftovers: Bool) throws(BridgeError) {
        guard try !existing(database).isEmpty else { return }
        let state = try CaptureState.read(names, database)
        if let state, state.link != link.name { throw foreign(state.link) }
        guard replacingLeftovers else { throw foreign(state?.link) }
        try dropAll(database)
    }

    private func foreign(_ other: String?) -> BridgeError {
        BridgeError(
            .slotForeign, "the source already has a change log of this name",
            context: [.init(.slot, names.log)] + (other.map { [.init(.migration, $0)] } ?? []),
            hint: """
                choose another migration name, or drop \(names.log), \(names.state), \(names.tables) and their triggers \
                if nothing uses them
                """)
    }

    private func createTables(_ database: borrowing SQLiteDatabase, keyColumns: Int) throws(BridgeError) {
        let keys = (0..<keyColumns).map { "k\($0)" }.joined(separator: ", ")
        // No constraint but the sequence itself: the application's OR IGNORE and OR REPLACE would override it. A default is
        // none.
        try database.execute(
            """
            CREATE TABLE main.\(quoteIdentifier(names.log))(
              seq INTEGER PRIMARY KEY, tbl, \(keys), \(CaptureState.mark));
            CREATE TABLE main.\(quoteIdentifier(names.state))\(CaptureState.columns);
            CREATE TABLE main.\(quoteIdentifier(names.tables))(
              number INTEGER, place INTEGER, name TEXT, column_name TEXT, type TEXT, PRIMARY KEY(number, place)
            ) WITHOUT ROWID;
            INSERT INTO main.\(quoteIdentifier(names.log))(seq, tbl)
              VALUES(\(CaptureState.firstSequence), \(CaptureState.markerTable));
            """)
    }

    /// Compiles, without running them, the writes that fire a table's triggers: a trigger's body is read no earlier, and
    /// a mistake in it would be found by the application.
    /// - Returns: what went wrong.
    func compileWrites(_ table: SQLiteTable, _ database: borrowing SQLiteDatabase) -> BridgeError? {
        let name = "main.\(quoteIdentifier(table.name))"
        let column = quoteIdentifier(table.columns[table.key[0]].name)
        // As the application's connections will read them: a condition of an index may have a string in double quotes.
        database.setQuotedStringsAllowed(true)
        defer { database.setQuotedStringsAllowed(false) }
        do throws(BridgeError) {
            _ = try database.prepare("INSERT INTO \(name) DEFAULT VALUES")
            _ = try database.prepare("UPDATE \(name) SET \(column) = \(column)")
            _ = try database.prepare("DELETE FROM \(name)")
        } catch { return error }
        return nil
    }

    private func record(
        _ table: SQLiteTable, _ number: Int64, _ name: TableName, _ planned: TableSchema,
        _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) {
        let insert = try database.prepare("INSERT INTO main.\(quoteIdentifier(names.tables)) VALUES(?1, ?2, ?3, ?4, ?5)")
        for (place, column) in planned.columns.enumerated() {
            try insert.bind(1, integer: number)
            try insert.bind(2, integer: Int64(place))
            try insert.bind(3, string: name.name)
            try insert.bind(4, string: column.name)
            try insert.bind(5, string: column.type.name)
            try insert.run()
        }
    }

    private func writeState(_ nonce: String, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        let insert = try database.prepare("INSERT INTO main.\(quoteIdentifier(names.state)) VALUES(?1, ?2)")
        for (key, value) in [("link", link.name), ("nonce", nonce), ("session", "")] {
            try insert.bind(1, string: key)
            try insert.bind(2, string: value)
            try insert.run()
        }
        let numbers = [
            ("format", CaptureState.format), ("acknowledged", CaptureState.firstSequence + 1), ("acknowledgements", 0),
        ]
        for (key, value) in numbers {
            try insert.bind(1, string: key)
            try insert.bind(2, integer: value)
            try insert.run()
        }
    }

    // MARK: What is there

    struct ExistingObject {
        let isTrigger: Bool
        let name: String
        let table: String
        let sql: String
    }

    /// Everything in the source that bears this link's name.
    func existing(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> [ExistingObject] {
        let statement = try database.prepare(
            "SELECT type, name, tbl_name, sql FROM main.sqlite_master WHERE type IN ('table', 'view', 'trigger')")
        var objects: [ExistingObject] = []
        while try statement.step() {
            let isTrigger = statement.string(0) == "trigger"
            guard let name = statement.string(1) else { continue }
            guard isTrigger ? names.parseTrigger(name) != nil : names.all.contains(name) else { continue }
            objects.append(
                ExistingObject(
                    isTrigger: isTrigger, name: name, table: statement.string(2) ?? "", sql: statement.string(3) ?? ""))
        }
        return objects
    }

    private func dropAll(_ database: borrowing SQLiteDatabase) throws(BridgeError) {
        let objects = try existing(database)
        for object in objects where object.isTrigger {
            try database.execute("DROP TRIGGER main.\(quoteIdentifier(object.name))")
        }
        for object in objects where !object.isTrigger {
            try database.execute("DROP TABLE main.\(quoteIdentifier(object.name))")
        }
    }

    /// Whether two statements are the same words. RENAME edits names in place, and keeps spaces or not.
    static func sameStatement(_ a: String, _ b: String) -> Bool {
        let (left, right) = (SQLTokens(a), SQLTokens(b))
        guard left.count == right.count else { return false }
        return (0..<left.count).allSatisfy { sameWord(left, $0, right, $0) }
    }

    static func sameWord(_ left: SQLTokens, _ place: Int, _ right: SQLTokens, _ other: Int) -> Bool {
        switch (left.tokens[place].kind, right.tokens[other].kind) {
        case (.word, .word), (.quoted, .quoted), (.word, .quoted), (.quoted, .word):
            left.name(place)?.lowercased() == right.name(other)?.lowercased()
        default: left.text(place..<place + 1) == right.text(other..<other + 1)
        }
    }
}

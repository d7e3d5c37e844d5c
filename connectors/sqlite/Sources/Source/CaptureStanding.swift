import BridgeCore

/// A captured table, and whether its triggers still are as they would be made today.
struct CaptureStanding {
    let table: SQLiteTable
    /// The triggers log all that they must, but the table was altered, or a newer trigger stands before them: they are to be
    /// made again, before the application alters more or a trigger of its own hides an insert.
    let isOutgrown: Bool
}

extension CaptureInstaller {
    /// Reads the captured tables as they are now, and proves that every trigger of each is there and logs all that it must.
    /// A table may have been renamed: its triggers went with it.
    /// - Throws: `captureBroken` naming the table.
    func verify(
        _ captured: [CapturedTable], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [Int64: SQLiteTable] {
        try inspect(captured, database).mapValues(\.table)
    }

    /// As ``verify(_:_:)``, and tells which tables' triggers are to be made again.
    func inspect(
        _ captured: [CapturedTable], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> [Int64: CaptureStanding] {
        let byNumber = try triggersByNumber(database)
        var standing: [Int64: CaptureStanding] = [:]
        for entry in captured {
            let triggers = byNumber[entry.number] ?? []
            guard let current = triggers.first?.table, let table = try SQLiteCatalog.table(current, database) else {
                throw broken(entry.name, "the table was dropped or rebuilt, and its capture triggers went with it")
            }
            try refuseSuccessor(of: table, entry, database)
            guard !SQLiteTable.isReservedInTriggers(table.name) else {
                throw broken(entry.name, "the table was renamed to \(table.name), which in a trigger is the row itself")
            }
            let isWhole = try areWhole(triggers.filter { $0.table == current }, table, entry)
            let isFirst = try areFirst(table, entry, database)
            standing[entry.number] = CaptureStanding(table: table, isOutgrown: !isWhole || !isFirst)
        }
        return standing
    }

    private func triggersByNumber(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> [Int64: [ExistingObject]] {
        var byNumber: [Int64: [ExistingObject]] = [:]
        for object in try existing(database) where object.isTrigger {
            if let (number, _) = names.parseTrigger(object.name) { byNumber[number, default: []].append(object) }
        }
        return byNumber
    }

    /// Triggers go with a table that is renamed; the fence, and the application, go by the name.
    private func refuseSuccessor(
        of table: SQLiteTable, _ entry: CapturedTable, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) {
        guard foldCase(table.name) != foldCase(entry.name),
            let successor = try SQLiteCatalog.kind(of: entry.name, database), successor.kind != "view"
        else { return }
        throw broken(
            entry.name, "the table was renamed to \(table.name) and another one took its name, which nothing captures")
    }

    /// Whether the triggers are as they would be made today.
    /// - Throws: `captureBroken` if they lack something of that.
    private func areWhole(
        _ triggers: [ExistingObject], _ table: SQLiteTable, _ entry: CapturedTable
    ) throws(BridgeError) -> Bool {
        func make(marks: Bool) throws(BridgeError) -> [CaptureTriggers.Trigger] {
            try CaptureTriggers(table: table, number: entry.number, names: names, hasMarks: marks).make()
        }
        let wanted = try make(marks: false)
        let stands = wanted.allSatisfy { trigger in
            triggers.contains { $0.name == trigger.name && Self.sameStatement($0.sql, trigger.sql) }
        }
        if stands, triggers.count == wanted.count { return true }
        for trigger in try make(marks: true) {
            guard let found = triggers.first(where: { $0.name == trigger.name }) else {
                throw broken(entry.name, "a capture trigger is missing, so changes may have gone unseen")
            }
            guard Self.covers(found.sql, trigger.sql) else {
                throw broken(entry.name, "the table's key or its unique indexes changed, so changes may have gone unseen")
            }
        }
        return false
    }

    /// Whether no trigger of the application can keep from firing what logs the keys of new rows.
    /// - Throws: `captureBroken` if one may have done so already.
    private func areFirst(
        _ table: SQLiteTable, _ entry: CapturedTable, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> Bool {
        let newer = try TriggerOrder.insertTriggers(before: names.trigger(entry.number, .afterInsert), database)
        if table.keyIsRowid, let skipping = newer.first(where: { $0.canSkip }) {
            throw broken(
                entry.name,
                "the trigger \(skipping.name) was made after capture's and skips inserts, so some may have gone unseen")
        }
        return newer.isEmpty
    }

    /// Makes the triggers of those tables again that need it. In the caller's transaction, which holds the write lock.
    /// - Throws: `captureBroken` as ``verify(_:_:)`` does.
    func renew(_ database: borrowing SQLiteDatabase) throws(BridgeError) {
        let standing = try inspect(CapturedTable.read(names, database), database)
        let outgrown = standing.filter { $0.value.isOutgrown }.keys.sorted()
        guard !outgrown.isEmpty else { return }
        // Where somebody else made triggers again the order says so, and goes on saying so.
        let later = try TriggerOrder.madeLater(names, database)
        let remade = Set((later ?? []).compactMap { names.parseTrigger($0)?.number })
        for number in outgrown where !remade.contains(number) { try makeAgain(number, standing, database) }
        if later != nil { try TriggerOrder.makeWitness(names, on: names.state, database) }
        for number in remade.sorted() { try makeAgain(number, standing, database) }
    }

    private func makeAgain(
        _ number: Int64, _ standing: [Int64: CaptureStanding], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) {
        guard let table = standing[number]?.table else { return }
        for trigger in try triggersByNumber(database)[number] ?? [] {
            try database.execute("DROP TRIGGER main.\(quoteIdentifier(trigger.name))")
        }
        let compiledBefore = compileWrites(table, database) == nil
        for trigger in try CaptureTriggers(table: table, number: number, names: names).make() {
            try database.execute(trigger.sql)
        }
        if compiledBefore, let error = compileWrites(table, database) {
            throw BridgeError(
                .sourceUnsupported, "the table's writes would fail with capture triggers made again for what it is now",
                context: [.init(.table, table.name)],
                hint: "drop the index that is named here for the time of the migration", cause: error)
        }
    }

    private func broken(_ table: String, _ what: String) -> BridgeError {
        BridgeError(
            .captureBroken, what, context: [.init(.table, table)],
            hint: "the table must be copied again: empty the target tables and begin again under a new migration name")
    }

    // MARK: Texts

    /// Whether a trigger does everything that another does, whose text has marks. Statements too many log keys too many.
    static func covers(_ stored: String, _ wanted: String) -> Bool {
        let (stored, wanted) = (SQLTokens(stored), SQLTokens(wanted))
        guard let left = statements(of: stored), let right = statements(of: wanted),
            matches(stored, left.head, wanted, right.head)
        else { return false }
        return right.body.allSatisfy { statement in left.body.contains { matches(stored, $0, wanted, statement) } }
    }

    /// A trigger's text up to BEGIN, and the statements behind it.
    private static func statements(of words: SQLTokens) -> (head: Range<Int>, body: [Range<Int>])? {
        guard let begin = (0..<words.count).first(where: { words.isKeyword($0, "BEGIN") }) else { return nil }
        var body: [Range<Int>] = []
        var start = begin + 1
        for place in start..<words.count where words.isSign(place, ";") {
            body.append(start..<place)
            start = place + 1
        }
        return (0..<begin, body)
    }

    /// What is marked is a group in parentheses. It gives names to new values; RENAME leaves them, and rightly, for they only
    /// have to agree among themselves. The text around it tells which columns and which index it belongs to.
    private static func matches(
        _ stored: SQLTokens, _ range: Range<Int>, _ wanted: SQLTokens, _ wantedRange: Range<Int>
    ) -> Bool {
        var place = range.lowerBound
        var other = wantedRange.lowerBound
        while other < wantedRange.upperBound {
            guard place < range.upperBound else { return false }
            if wanted.isSign(other, CaptureTriggers.mark.begin) {
                guard stored.isSign(place, "(") else { return false }
                place = stored.endOfGroup(place)
                other = wanted.endOfGroup(other + 1) + 1
                continue
            }
            guard sameWord(stored, place, wanted, other) else { return false }
            place += 1
            other += 1
        }
        return place == range.upperBound
    }
}

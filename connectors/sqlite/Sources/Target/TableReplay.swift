import BridgeCore
import CSQLite

/// Applies the changes of one relation to its table, in the order in which they come.
///
/// A change can meet a unique index's veto though source and target agree: the source checks a DEFERRABLE constraint
/// only at commit (two rows swap their values), and a source that logs keys delivers final states in the order of keys.
/// Either way the row that holds the value now gets a change of its own later in the same transaction. The new row is
/// then kept aside, in a temporary table without constraints, where later changes find it, and comes back before the
/// transaction ends. A veto then is a true conflict. Unlike REPLACE this loses no row, and no value of a column that
/// only the target has.
final class TableReplay {
    let plan: RelationPlan
    private let connection: TargetConnection
    private let place: () -> UInt64
    private let binder: RowBinder
    private let aside: StatementText
    private let asideTable: AsideTable
    private let insertStatement: SQLiteStatement
    private var statements: [StatementKey: SQLiteStatement] = [:]
    /// The statements of the usual changes, by ``Usual``.
    private var usual: [SQLiteStatement?] = Array(repeating: nil, count: Usual.allCases.count)
    /// Whether rows are kept aside in the open transaction.
    private var hasRowsAside = false

    private enum Usual: Int, CaseIterable {
        case update, updateWithKey, delete, upsert, remove
    }

    private enum StatementKey: Hashable {
        case update(ColumnSet, aside: Bool, StatementText.Match)
        case delete(aside: Bool, StatementText.Match)
        case find(StatementText.Match, isFiltered: Bool)
        case setPlace
        case insertAside
        case moveAside(StatementText.Match)
    }

    /// - Parameter place: the place of the present change in its transaction.
    init(
        _ plan: RelationPlan, connection: TargetConnection, place: @escaping () -> UInt64
    ) throws(BridgeError) {
        self.plan = plan
        self.connection = connection
        self.place = place
        binder = RowBinder(plan)
        asideTable = AsideTable(plan)
        aside = StatementText(
            table: asideTable.quoted, columns: plan.text.columns, rowidName: asideTable.rowidName, extra: asideTable.extra)
        insertStatement = try connection.prepare(plan.text.insert())
    }

    // MARK: Changes of sources that log rows

    @inline(__always)
    func insert(_ row: RowImage) throws(BridgeError) {
        try requireWhole(try binder.bindNew(row, to: insertStatement))
        let result = run(insertStatement)
        guard result != SQLITE_DONE else { return }
        guard Self.isUniqueVeto(result) else { throw failure(result) }
        // A row with this very key is no veto that could pass.
        if hasKey, try exists(key: row) { throw conflict(.insertFoundRow) }
        try insertAside(row)
    }

    func update(_ change: RowChange) throws(BridgeError) {
        guard let row = change.new else { throw BridgeError.malformedRecord(at: 0) }
        let match = try match(change)
        let setsKey = change.old != nil
        var set = setsKey ? plan.allColumns : plan.columnsBesideKey
        var statement = try usualStatement(setsKey ? .updateWithKey : .update) {
            plan.text.update(set: set, match: match)
        }
        if case .partly = try binder.bindNew(row, to: statement) {
            let kept = try binder.unchanged(row)
            set = ColumnSet(plan.text.columns.indices.filter { set.contains($0) && !kept.contains($0) })
            statement = try prepared(.update(set, aside: false, match)) { plan.text.update(set: set, match: match) }
            _ = try binder.bindNew(row, to: statement)
        }
        try bindOld(change, to: statement)
        let result = run(statement)
        if result == SQLITE_DONE {
            switch connection.database.changes() {
            case 1: return
            case 0:
                guard hasRowsAside, try updateAside(change, row, set: set, match: match) == 1 else {
                    throw conflict(.updateFoundNoRow)
                }
            default: throw conflict("an update found more than one row")
            }
            return
        }
        guard Self.isUniqueVeto(result) else { throw failure(result) }
        if hasKey, let old = change.old, try !binder.haveSameKey(old, row), try exists(key: row) {
            throw conflict(.keyTaken)
        }
        guard try moveAside(match, bind: { (statement) throws(BridgeError) in try self.bindOld(change, to: statement) }) == 1
        else { throw conflict("an update found more than one row") }
        guard try updateAside(change, row, set: set, match: match) == 1 else {
            throw conflict("an update found more than one row")
        }
    }

    func delete(_ change: RowChange) throws(BridgeError) {
        let match = try match(change)
        guard change.old != nil else { throw BridgeError.malformedRecord(at: 0) }
        let statement = try usualStatement(.delete) { plan.text.delete(match: match) }
        try bindOld(change, to: statement)
        let result = run(statement)
        guard result == SQLITE_DONE else { throw failure(result) }
        var count = connection.database.changes()
        if count == 0, hasRowsAside {
            let statement = try prepared(.delete(aside: true, match)) { aside.delete(match: match) }
            try bindOld(change, to: statement)
            count = try runCounting(statement)
        }
        guard count == 1 else {
            throw count == 0 ? conflict(.deleteFoundNoRow) : conflict("a delete found more than one row")
        }
    }

    // MARK: Conflicts

    /// Does what a change means although the target's data contradicts it. Nothing of the change has happened.
    /// - Throws: `conflict` itself where the change does not tell the whole row, or a row would have to go that it does not
    ///   name.
    func overwrite(_ change: RowChange, _ kind: ConflictKind, _ conflict: BridgeError) throws(BridgeError) {
        switch kind {
        case .deleteFoundNoRow: return
        case .uniqueValueTaken: throw conflict
        case .insertFoundRow, .updateFoundNoRow, .keyTaken: break
        }
        guard let image = change.new else { throw conflict }
        let buffer = RecordBuffer()
        // A row that only moves keeps what the change does not tell.
        guard let row = try filled(image, change, buffer, isWhole: kind != .keyTaken) else { throw conflict }
        // Rows that are not the link's are nobody's business here, whatever key they have.
        if hasKey, plan.filter != nil, try exists(key: row), try !exists(key: row, isFiltered: true) { throw conflict }
        switch kind {
        case .keyTaken:
            // The change names this row by its new key, and the source had none there.
            let statement = try prepared(.delete(aside: false, .equalKey)) { plan.text.delete(match: .equalKey) }
            try binder.bindKey(row, to: statement)
            _ = try runCounting(statement)
            try update(change)
        default: if hasKey { try upsert(row) } else { try insert(row) }
        }
        withExtendedLifetime(buffer) {}
    }

    /// The new row with what the source left out taken from the old one; nil if a value that must be there is not told there
    /// either.
    private func filled(
        _ image: RowImage, _ change: RowChange, _ buffer: RecordBuffer, isWhole: Bool
    ) throws(BridgeError) -> RowImage? {
        buffer.reserve(image.bytes.count + (change.old?.bytes.count ?? 0))
        buffer.beginRowImage(columns: image.columnCount)
        var cells = image.cells
        var old = change.old?.cells
        var index = 0
        while var cell = try cells.next() {
            let stored = try old?.next()
            let isKey = index < plan.columns.count && plan.columns[index].isKey
            let isCarried = index < plan.columns.count && plan.columns[index].parameter > 0
            index += 1
            if cell.tag == .unchanged, let stored, change.oldKind == .full || isKey { cell = stored }
            if isWhole || isKey, isCarried, cell.tag == .unchanged || cell.tag == .absent { return nil }
            if cell.tag.hasBytes { buffer.appendCell(cell.tag, cell.bytes) } else { buffer.appendCell(cell.tag) }
        }
        var reader = ByteReader(buffer.bytes)
        return try RowImage(&reader)
    }

    // MARK: Changes of sources that log keys

    @inline(__always)
    func upsert(_ row: RowImage) throws(BridgeError) {
        guard hasKey else { throw withoutKey() }
        if hasRowsAside, try upsertAside(row) { return }
        let statement = try usualStatement(.upsert) { plan.text.upsert() }
        try requireWhole(try binder.bindNew(row, to: statement))
        let result = run(statement)
        guard result != SQLITE_DONE else { return }
        guard Self.isUniqueVeto(result) else { throw failure(result) }
        // The rows of one state of the source never stand in each other's way, so what is in the way is older than this
        // state, and its own record comes later in this transaction.
        _ = try moveAside(.equalKey) { (statement) throws(BridgeError) in try self.binder.bindKey(row, to: statement) }
        if try !upsertAside(row) { try insertAside(row) }
    }

    @inline(__always)
    func remove(_ key: RowImage) throws(BridgeError) {
        guard hasKey else { throw withoutKey() }
        let statement = try usualStatement(.remove) { plan.text.delete(match: .key) }
        try binder.bindKey(key, to: statement)
        let result = run(statement)
        guard result == SQLITE_DONE else { throw failure(result) }
        guard hasRowsAside else { return }
        let asideStatement = try prepared(.delete(aside: true, .key)) { aside.delete(match: .key) }
        try binder.bindKey(key, to: asideStatement)
        _ = try runCounting(asideStatement)
    }

    // MARK: All sources

    func truncate() throws(BridgeError) {
        try connection.database.execute("DELETE FROM \(plan.target.quoted)\(plan.filter.map { " WHERE (\($0))" } ?? "")")
        guard hasRowsAside else { return }
        try connection.database.execute("DELETE FROM \(asideTable.quoted)")
        hasRowsAside = false
    }

    /// Brings back the rows that were kept aside: the source's transaction is over.
    /// - Parameter displacing: the transaction is older than the table's copy, whose rows may then be ahead of it. A row
    ///   that is in the way has changed between the two, since in the transaction's own state it was not in the way; so
    ///   a later record brings it again, and it may go until then.
    func settle(displacing: Bool = false) throws(BridgeError) {
        guard hasRowsAside else { return }
        let statement = try connection.prepare(displacing ? asideTable.moveBackDisplacing : asideTable.moveBack)
        let result = run(statement)
        guard result == SQLITE_DONE else { throw try unsettled(result) }
        try connection.database.execute("DELETE FROM \(asideTable.quoted)")
        hasRowsAside = false
    }

    /// Why the rows do not come back, with the change that brought the first of those. Nothing of it stays: the transaction is
    /// rolled back after it.
    private func unsettled(_ result: Int32) throws(BridgeError) -> BridgeError {
        let error = Self.isUniqueVeto(result) ? conflict(.uniqueValueTaken) : failure(result)
        guard let sql = asideTable.places else { return error }
        let places = try connection.prepare(sql)
        let moveBack = try connection.prepare(asideTable.moveOneBack)
        while try places.step() {
            try moveBack.bind(1, integer: places.integer(0))
            if run(moveBack) != SQLITE_DONE { return error.adding(.ordinal, "\(UInt64(bitPattern: places.integer(1)))") }
        }
        return error
    }

    /// The target's transaction was rolled back, and the temporary table with it.
    func forget() { hasRowsAside = false }

    // MARK: Rows kept aside

    private func insertAside(_ row: RowImage) throws(BridgeError) {
        try makeAside()
        let statement = try prepared(.insertAside) { aside.insert() }
        try requireWhole(try binder.bindNew(row, to: statement))
        _ = try runCounting(statement)
    }

    private func updateAside(
        _ change: RowChange, _ row: RowImage, set: ColumnSet, match: StatementText.Match
    ) throws(BridgeError) -> Int64 {
        try notePlace()
        let statement = try prepared(.update(set, aside: true, match)) { aside.update(set: set, match: match) }
        _ = try binder.bindNew(row, to: statement)
        try bindOld(change, to: statement)
        return try runCounting(statement)
    }

    /// Whether the row was kept aside, and now is as given.
    private func upsertAside(_ row: RowImage) throws(BridgeError) -> Bool {
        let all = plan.allColumns
        try notePlace()
        let statement = try prepared(.update(all, aside: true, .equalKey)) { aside.update(set: all, match: .equalKey) }
        try requireWhole(try binder.bindNew(row, to: statement))
        try binder.bindKey(row, to: statement)
        return try runCounting(statement) > 0
    }

    /// Moves the row that `match` finds out of the table; returns how many there were.
    private func moveAside(
        _ match: StatementText.Match, bind: (SQLiteStatement) throws(BridgeError) -> Void
    ) throws(BridgeError) -> Int64 {
        try makeAside()
        let copy = try prepared(.moveAside(match)) { asideTable.copy(where: plan.text.condition(match)) }
        try bind(copy)
        let copied = try runCounting(copy)
        let delete = try prepared(.delete(aside: false, match)) { plan.text.delete(match: match) }
        try bind(delete)
        let deleted = try runCounting(delete)
        guard copied == deleted else {
            throw BridgeError(.internalFault, "a row was not moved as it was copied", context: plan.tableContext)
        }
        return copied
    }

    private func makeAside() throws(BridgeError) {
        if !hasRowsAside {
            try connection.database.execute(asideTable.creation)
            hasRowsAside = true
        }
        try notePlace()
    }

    /// Rows that go aside, or are changed there, are the present change's from now on.
    private func notePlace() throws(BridgeError) {
        let statement = try prepared(.setPlace) { asideTable.setPlace }
        try statement.bind(1, integer: Int64(bitPattern: place()))
        _ = try runCounting(statement)
    }

    // MARK: Details

    private var hasKey: Bool { plan.relation.identity == .key }

    /// Whether the target has a row with the key that stands in this row.
    /// - Parameter isFiltered: whether it must be one of the link's rows.
    private func exists(key row: RowImage, isFiltered: Bool = false) throws(BridgeError) -> Bool {
        let statement = try prepared(.find(.equalKey, isFiltered: isFiltered)) {
            plan.text.selectOne(match: .equalKey, filter: isFiltered ? plan.filter : nil)
        }
        try binder.bindKey(row, to: statement)
        let result = run(statement)
        guard result == SQLITE_ROW || result == SQLITE_DONE else { throw failure(result) }
        return result == SQLITE_ROW
    }

    private func match(_ change: RowChange) throws(BridgeError) -> StatementText.Match {
        switch plan.relation.identity {
        case .key: return .key
        case .full:
            guard change.oldKind == .full else {
                throw BridgeError(
                    .valueMissing, "the source did not send the row that it changed", context: plan.tableContext)
            }
            return .wholeRow
        case .nothing: throw withoutKey()
        }
    }

    @inline(__always)
    private func bindOld(_ change: RowChange, to statement: SQLiteStatement) throws(BridgeError) {
        guard let image = change.old ?? change.new else { throw BridgeError.malformedRecord(at: 0) }
        if plan.matchesWholeRow {
            try binder.bindOldRow(image, to: statement)
        } else {
            try binder.bindKey(image, to: statement)
        }
    }

    @inline(__always)
    private func requireWhole(_ contents: RowBinder.Contents) throws(BridgeError) {
        guard case .whole = contents else {
            throw BridgeError(
                .valueMissing, "a new row lacks a value that the source did not send", context: plan.tableContext)
        }
    }

    @inline(__always)
    private func usualStatement(_ which: Usual, _ sql: () -> String) throws(BridgeError) -> SQLiteStatement {
        if let statement = usual[which.rawValue] { return statement }
        let statement = try connection.prepare(sql())
        usual[which.rawValue] = statement
        return statement
    }

    private func prepared(_ key: StatementKey, _ sql: () -> String) throws(BridgeError) -> SQLiteStatement {
        if let statement = statements[key] { return statement }
        // Every combination of columns that an update leaves out would be a statement of its own.
        if statements.count >= 256 { statements.removeAll() }
        let statement = try connection.prepare(sql())
        statements[key] = statement
        return statement
    }

    /// Steps once and resets; the result code of the step.
    @inline(__always)
    private func run(_ statement: SQLiteStatement) -> Int32 {
        let result = sqlite3_step(statement.handle)
        sqlite3_reset(statement.handle)
        return result
    }

    private func runCounting(_ statement: SQLiteStatement) throws(BridgeError) -> Int64 {
        let result = run(statement)
        guard result == SQLITE_DONE else { throw failure(result) }
        return connection.database.changes()
    }

    private static func isUniqueVeto(_ result: Int32) -> Bool {
        // SQLITE_CONSTRAINT_PRIMARYKEY, _UNIQUE and _ROWID: macros with shifts, which Swift does not import.
        result == SQLITE_CONSTRAINT | (6 << 8) || result == SQLITE_CONSTRAINT | (8 << 8)
            || result == SQLITE_CONSTRAINT | (10 << 8)
    }

    private func conflict(_ kind: ConflictKind) -> BridgeError { BridgeError(kind, table: plan.target.name) }

    private func conflict(_ what: String) -> BridgeError {
        BridgeError(.conflict, what, context: plan.tableContext)
    }

    private func withoutKey() -> BridgeError {
        BridgeError(
            .valueMissing, "a change came for a table whose changes name no row", context: plan.tableContext)
    }

    private func failure(_ result: Int32) -> BridgeError {
        let error = BridgeError.sqlite(
            result, connection.database.handle, path: connection.database.path, doing: "a change cannot be applied")
        // SQLITE_CONSTRAINT_DATATYPE: a STRICT table refuses the value.
        guard result == SQLITE_CONSTRAINT | (12 << 8) else { return error.adding(.table, plan.target.name) }
        return BridgeError(.valueDoesNotFit, error.message, context: error.context).adding(.table, plan.target.name)
    }
}

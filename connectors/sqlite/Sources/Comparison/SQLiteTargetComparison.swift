import BridgeCore

/// A target as the checker reads it.
///
/// A view reads the link's checkpoint and the rows in one read transaction. The applier writes both in one transaction, so
/// the rows hold exactly what stands before the checkpoint's frontier, and what others wrote, which is what a check looks
/// for.
actor SQLiteTargetComparison: ComparisonSession, ComparisonTarget {
    private let executor = ThreadExecutor(name: "sqlite-check")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    nonisolated var source: (any ComparisonSource)? { nil }
    nonisolated var target: (any ComparisonTarget)? { self }

    private let path: String
    private let link: LinkDescription
    private var openConnection: SQLiteConnection?
    /// By the target's name, the columns by which a layout that was asked for names its rows.
    private var identities: [String: [String]] = [:]

    init(path: String, link: LinkDescription) {
        self.path = path
        self.link = link
    }

    func open() throws(BridgeError) {
        let connection = try SQLiteConnection(path: path, access: .readWrite, busyTimeout: 10_000)
        // Opening reads nothing; this does.
        _ = try connection.database.integer("SELECT count(*) FROM main.sqlite_master")
        openConnection = connection
    }

    func close() async { openConnection = nil }

    private func connection() throws(BridgeError) -> SQLiteConnection {
        guard let openConnection else { throw BridgeError.comparisonClosed() }
        return openConnection
    }

    // MARK: Tables and views

    func layout(
        of mapping: TableMapping, columns: [Relation.Column]?
    ) async throws(BridgeError) -> ComparisonLayout {
        guard let columns else { throw BridgeError(.internalFault, "a target's layout needs the source's columns") }
        let connection = try connection()
        let layout = try connection.database.transaction(.deferred) { () throws(BridgeError) in
            guard let table = try SQLiteCatalog.table(mapping.target.name, connection.database) else {
                throw BridgeError(
                    .targetTableMissing, "the target has no table \(mapping.target.name)",
                    context: [.init(.table, mapping.target.name)])
            }
            let target = TargetTable(table)
            var places: [Int] = []
            for column in columns {
                guard let place = target.column(named: column.name) else {
                    throw BridgeError(
                        .targetTableMismatch, "the target table lacks a column that the source has",
                        context: [.init(.table, table.name), .init(.column, column.name)])
                }
                guard !places.contains(place) else {
                    throw BridgeError(
                        .targetTableMismatch,
                        "two source columns differ in letter case only, which SQLite does not tell apart",
                        context: [.init(.table, table.name), .init(.column, column.name)],
                        hint: "leave one of them out with 'columns:'")
                }
                places.append(place)
            }
            let own = zip(columns, places).map { column, place in
                // SQLite folds the case of ASCII letters in names; the source's spelling is as good as its own.
                Relation.Column(
                    name: column.name, isKey: column.isKey,
                    typeName: table.columns[place].declaredType,
                    type: TypePlan.compared(table.columns[place], isRowid: target.isRowid(place), with: column.type))
            }
            var layout = try ComparisonLayout(table: table, columns: own, places: places, connection.database)
            // As the recorded writes of others name it.
            layout.table = mapping.target
            return layout
        }
        let keys = layout.columns.filter(\.isKey)
        identities[foldCase(mapping.target.name)] = (keys.isEmpty ? layout.columns : keys).map(\.name)
        return layout
    }

    func openView(sparing: Bool) async throws(BridgeError) -> any ComparisonView {
        try await SQLiteView.open(path: path) { [link] connection throws(BridgeError) in
            try Self.frontier(link, connection)
        }
    }

    private static func frontier(_ link: LinkDescription, _ connection: SQLiteConnection) throws(BridgeError) -> Position {
        guard try CaptureState.exists(LinkRecords.tables[0], connection.database) else { throw noRecords(link) }
        let row = try connection.database.prepare("SELECT frontier FROM main._bridge_link WHERE name = ?1")
        try row.bind(1, string: link.name)
        guard try row.step() else { throw noRecords(link) }
        guard row.storageClass(0) != .null else {
            throw BridgeError(
                .inconclusive, "the tables are not copied yet, so there is nothing to compare",
                context: [.init(.migration, link.migration)])
        }
        return try LinkRecords.position(row.string(0))
    }

    private static func noRecords(_ link: LinkDescription) -> BridgeError {
        BridgeError(
            .checkpointForeign, "the target has no records of this link", context: [.init(.migration, link.migration)])
    }

    func facts() async throws(BridgeError) -> [TableFacts?] {
        let connection = try connection()
        return try connection.database.transaction(.deferred) { () throws(BridgeError) in
            var facts: [TableFacts?] = []
            for mapping in link.mappings {
                facts.append(try FactReader(database: connection).facts(of: mapping.target.name, types: [:]))
            }
            return facts
        }
    }

    // MARK: Writes of others

    func watchForeignWrites() async throws(BridgeError) {
        try ForeignWriteWatch(link).install(connection().database)
    }

    /// Keys are given by the columns that a layout named which this session was asked for; without one, by the primary key
    /// in the table's order.
    func foreignWrites(after: Int64, limit: Int) async throws(BridgeError) -> [ForeignWrite] {
        let connection = try connection()
        return try connection.database.transaction(.deferred) { () throws(BridgeError) in
            try ForeignWriteWatch(link).read(
                connection.database, after: after, limit: limit, identities: identities)
        }
    }

    func watchMark(of check: String) async throws(BridgeError) -> WatchMark {
        let connection = try connection()
        return try connection.database.transaction(.deferred) { () throws(BridgeError) in
            try ForeignWriteWatch(link).mark(of: check, connection.database)
        }
    }

    func raiseMark(of check: String, inPlaceOf old: String?) async throws(BridgeError) -> WatchMark {
        try ForeignWriteWatch(link).raiseMark(of: check, inPlaceOf: old, connection().database)
    }
}

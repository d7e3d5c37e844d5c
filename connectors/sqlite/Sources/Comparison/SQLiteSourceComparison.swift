import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// A source as the checker reads it.
///
/// ### Why a view's mark is right
/// A view reads the log's newest change N and the rows in one read transaction, and says that it sees what stands before
/// N + 1. SQLite has one writer, and triggers log in the transaction that changes the row: so the rows hold the effect of
/// exactly the log's entries up to N.
///
/// A captured transaction is the reader's, not the application's. It stands in the journal by its *commit*, which is the
/// newest change of its last read, and holds every entry up to there that no earlier one holds. If its commit is N or less,
/// all its entries are in the view. If it is more, some of them may be, which is why its keys are disputed and none of them
/// is compared: so the commit, and never the begin, which may stand before N + 1 when entries behind N are in it, decides.
/// An entry up to N that no captured transaction up to N holds is in one that commits later.
///
/// The newest *change* is meant, as the reader and ``SQLiteSource/currentPosition(_:)`` mean it: the row that a leap ends in
/// stands for nothing, and may not be delivered for a while. If all changes are pruned, it is the newest row itself; that
/// happens only after the journal has gone past it. The newest row is never pruned, so positions never go back.
actor SQLiteSourceComparison: ComparisonSession, ComparisonSource {
    private let executor = ThreadExecutor(name: "sqlite-check")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    nonisolated var source: (any ComparisonSource)? { self }
    nonisolated var target: (any ComparisonTarget)? { nil }

    private let path: String
    private let link: LinkDescription
    private let names: CaptureNames
    private var openConnection: SQLiteConnection?
    private var nonce = ""
    private var file = FileIdentity(device: 0, inode: 0)

    init(path: String, link: LinkDescription) {
        self.path = path
        self.link = link
        names = CaptureNames(link)
    }

    func open() throws(BridgeError) {
        let connection = try SQLiteConnection(path: path, access: .readWrite, busyTimeout: 10_000)
        nonce = try Self.checkLog(names, link, nonce: nil, connection).nonce
        file = FileIdentity(path) ?? file
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
        let connection = try connection()
        return try connection.database.transaction(.deferred) { () throws(BridgeError) in
            let (table, types) = try captured(mapping, connection)
            let traveling = try TravelingColumns(table, types: types, mapping: mapping)
            return try ComparisonLayout(
                table: table, columns: traveling.columns, places: traveling.places, connection.database)
        }
    }

    /// The table that the log was made for, by whatever name it goes now, with the types planned then.
    private func captured(
        _ mapping: TableMapping, _ connection: SQLiteConnection
    ) throws(BridgeError) -> (SQLiteTable, [String: LogicalType]) {
        _ = try Self.checkLog(names, link, nonce: nonce, connection)
        let captured = try CapturedTable.read(names, connection.database)
        let tables = try CaptureInstaller(link).verify(captured, connection.database)
        guard let entry = captured.first(where: { $0.name == mapping.source.name }), let table = tables[entry.number]
        else {
            throw BridgeError(
                .tableMissing, "the change log was not made for this table",
                context: [.init(.table, mapping.source.description)])
        }
        return (table, entry.types)
    }

    func openView(sparing: Bool) async throws(BridgeError) -> any ComparisonView {
        try await SQLiteView.open(path: path) { [names, link, nonce] connection throws(BridgeError) in
            _ = try Self.checkLog(names, link, nonce: nonce, connection)
            return try Self.current(names, connection)
        }
    }

    /// Behind the newest change. In the caller's transaction, if there is one.
    private static func current(_ names: CaptureNames, _ connection: SQLiteConnection) throws(BridgeError) -> Position {
        guard let newest = try connection.database.integer(CaptureState.newestChange(names)) else {
            throw BridgeError(
                .captureBroken, "the change log is empty, which bridge never leaves it",
                context: [.init(.slot, names.log)])
        }
        return Position(commit: UInt64(clamping: newest) + 1)
    }

    /// - Parameter nonce: that of the log with which the session began; nil to take the one that is there.
    private static func checkLog(
        _ names: CaptureNames, _ link: LinkDescription, nonce: String?, _ connection: SQLiteConnection
    ) throws(BridgeError) -> CaptureState {
        for name in names.all where try !CaptureState.exists(name, connection.database) {
            throw BridgeError(
                .captureBroken, "the source has no change log for this link", context: [.init(.slot, name)])
        }
        guard let state = try CaptureState.read(names, connection.database), state.nonce == nonce ?? state.nonce else {
            throw replaced("the source has another change log than the check began with", connection)
        }
        guard state.link == link.name else {
            throw BridgeError(
                .slotForeign, "the change log belongs to another migration",
                context: [.init(.slot, names.log), .init(.migration, state.link)])
        }
        return state
    }

    private static func replaced(_ what: String, _ connection: SQLiteConnection) -> BridgeError {
        BridgeError(.sourceReplaced, what, context: [.init(.file, connection.database.path)])
    }

    func facts() async throws(BridgeError) -> [TableFacts?] {
        let connection = try connection()
        return try connection.database.transaction(.deferred) { () throws(BridgeError) in
            var types: [String: [String: LogicalType]] = [:]
            let captured = try CapturedTable.read(names, connection.database)
            for entry in captured { types[entry.name] = entry.types }
            // By whatever name it goes now, if capture can tell.
            let tables = (try? CaptureInstaller(link).verify(captured, connection.database)) ?? [:]
            var facts: [TableFacts?] = []
            for mapping in link.mappings {
                let name = mapping.source.name
                let current = captured.first { $0.name == name }.flatMap { tables[$0.number]?.name }
                facts.append(
                    try FactReader(database: connection).facts(of: current ?? name, types: types[name] ?? [:]))
            }
            return facts
        }
    }

    // MARK: Positions

    /// One writer commits, and every read transaction begun afterwards sees it: the end of the log is settled at once.
    func settledPosition(patience: Duration, afterWriters: Bool) async throws(BridgeError) -> Position {
        try await currentPosition()
    }

    func currentPosition() async throws(BridgeError) -> Position {
        let connection = try connection()
        return try connection.database.transaction(.deferred) { () throws(BridgeError) in
            _ = try Self.checkLog(names, link, nonce: nonce, connection)
            return try Self.current(names, connection)
        }
    }

    func waitForWriters(patience: Duration) async throws(BridgeError) {
        let connection = try connection()
        defer { connection.database.setBusyTimeout(10_000) }
        let deadline = ContinuousClock.now + patience
        while true {
            let left = deadline - ContinuousClock.now
            let milliseconds = left.components.seconds > 0 ? 250 : left.components.attoseconds / 1_000_000_000_000_000
            connection.database.setBusyTimeout(Int32(clamping: max(0, min(250, milliseconds))))
            do throws(BridgeError) {
                try connection.database.execute("BEGIN IMMEDIATE")
                connection.database.rollback()
                return
            } catch {
                guard error.code == .serverBusy, !Task.isCancelled, ContinuousClock.now < deadline else { throw error }
            }
        }
    }

    // MARK: What capture rests on

    func captureFingerprint() async throws(BridgeError) -> CaptureFingerprint {
        let connection = try connection()
        guard let now = FileIdentity(path), now == file else {
            throw Self.replaced("another file was put in the source's place", connection)
        }
        return try connection.database.transaction(.deferred) { () throws(BridgeError) in
            let state = try Self.checkLog(names, link, nonce: nonce, connection)
            let captured = try CapturedTable.read(names, connection.database)
            let tables = try CaptureInstaller(link).verify(captured, connection.database)
            let objects = try CaptureInstaller(link).existing(connection.database).sorted { $0.name < $1.name }
            func describe(_ number: Int64) -> [String] {
                objects.filter { ($0.isTrigger ? names.parseTrigger($0.name)?.number : nil) ?? 0 == number }
                    .map { "object \($0.name) on \($0.table): \($0.sql)" }
            }
            let common = ["log \(names.log) epoch \(state.nonce) format \(state.format)", "file \(now.device):\(now.inode)"] + describe(0)
            let later = try TriggerOrder.madeLater(names, connection.database)
            let version = try OwnSchemaChanges.versionOfOthers(names, connection.database)
            let parts = link.mappings.map { mapping in
                guard let entry = captured.first(where: { $0.name == mapping.source.name }) else { return "" }
                var lines = Self.describe(entry, tables[entry.number], mapping) + describe(entry.number)
                // Whether it was rebuilt once more, only the schema's version can tell: any change but bridge's may have been that.
                let isMadeLater = later?.contains { names.parseTrigger($0)?.number == entry.number } ?? true
                if isMadeLater { lines.append("triggers made again, schema version \(version)") }
                return lines.joined(separator: "\n")
            }
            return CaptureFingerprint(common: common.joined(separator: "\n"), tables: parts)
        }
    }

    private static func describe(_ entry: CapturedTable, _ table: SQLiteTable?, _ mapping: TableMapping) -> [String] {
        let types = entry.types.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value.name)" }
        var lines = [
            "table \(entry.number) \(entry.name): \(types.joined(separator: ", "))",
            "columns \(mapping.columns?.joined(separator: ", ") ?? "*") where \(mapping.rowFilter ?? "*")",
        ]
        guard let table else { return lines }
        lines.append("as \(table.name): \(table.sql)")
        return lines + table.indexes.compactMap(\.sql)
    }
}

/// Which file a path leads to.
private struct FileIdentity: Hashable {
    let device: UInt64
    let inode: UInt64

    init(device: UInt64, inode: UInt64) {
        self.device = device
        self.inode = inode
    }

    init?(_ path: String) {
        var facts = stat()
        guard stat(path, &facts) == 0 else { return nil }
        self.init(device: UInt64(facts.st_dev), inode: UInt64(facts.st_ino))
    }
}

package import BridgeCore
import CSQLite

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// An SQLite database as the place that changes come from.
///
/// Triggers log the keys of changed rows, and capture reads the rows as they are: see ``CaptureTriggers`` and
/// ``LogReader``.
package actor SQLiteSource: SourceConnector {
    private let executor: ThreadExecutor
    package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    package nonisolated let engine = EngineName.sqlite
    package nonisolated let displayName: String

    /// As given.
    private let givenPath: String
    private var connection: SQLiteConnection?
    /// What the last look at each table's values found, so that one look serves until the file changes.
    private var looks: [String: (state: [Int64], contents: [ColumnContents])] = [:]

    /// - Parameter path: the database file. It is opened by ``connect()``, not here.
    package init(path: String) {
        executor = ThreadExecutor(name: "sqlite-source")
        givenPath = path
        displayName = "sqlite:\(path)"
    }

    // MARK: Connection

    package func connect() async throws(BridgeError) { _ = try open() }

    private func open() throws(BridgeError) -> SQLiteConnection {
        if let connection { return connection }
        guard SQLiteSource.isSupportedLibrary else {
            throw BridgeError(
                .sourceUnsupported, "the SQLite library is older than 3.37", hint: "install a newer libsqlite3")
        }
        let opened = try SQLiteConnection(path: givenPath, access: .readWrite, busyTimeout: 10_000)
        // Opening reads nothing; this does.
        _ = try opened.database.integer("SELECT count(*) FROM main.sqlite_master")
        connection = opened
        return opened
    }

    /// With symbolic links resolved, as SQLite names the files beside it.
    var resolvedPath: String {
        guard let resolved = realpath(givenPath, nil) else { return givenPath }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    package func close() async { connection = nil }

    // MARK: Tables

    package func listTables() async throws(BridgeError) -> [TableSchema] {
        let connection = try open()
        return try describe(SQLiteCatalog.tableNames(connection.database), connection, isPlan: false)
    }

    package func describeTables(_ names: [TableName]) async throws(BridgeError) -> [TableSchema] {
        try describe(Self.own(names), try open(), isPlan: false)
    }

    package func planTables(_ names: [TableName]) async throws(BridgeError) -> [TableSchema] {
        try describe(Self.own(names), try open(), isPlan: true)
    }

    /// Names that an application's tables may have.
    private static func own(_ names: [TableName]) -> [String] {
        names.filter { ($0.schema == nil || $0.schema == "main") && !SQLiteCatalog.isInternal($0.name) }.map(\.name)
    }

    /// - Parameter isPlan: every value is looked at, since only what is stored says what a column holds.
    private func describe(
        _ names: [String], _ connection: SQLiteConnection, isPlan: Bool
    ) throws(BridgeError) -> [TableSchema] {
        var tables: [TableSchema] = []
        for name in names {
            guard let table = try SQLiteCatalog.table(name, connection.database) else { continue }
            let rows = try RowEstimate(table).read(connection.database)
            tables.append(table.schema(contents: isPlan ? try contents(table, connection) : nil, estimatedRows: rows))
        }
        return tables
    }

    private func contents(_ table: SQLiteTable, _ connection: SQLiteConnection) throws(BridgeError) -> [ColumnContents] {
        // The commits of others, the shape of the tables, and what this connection itself has written.
        let state = [
            try connection.database.integer("PRAGMA main.data_version") ?? 0,
            try connection.database.integer("PRAGMA main.schema_version") ?? 0,
            sqlite3_total_changes64(connection.database.handle),
        ]
        if let look = looks[table.name], look.state == state { return look.contents }
        let contents = try table.scanContents(connection.database)
        looks[table.name] = (state, contents)
        return contents
    }

    // MARK: Capture

    package nonisolated func describe(_ position: Position) -> String { CaptureState.describe(position) }

    package nonisolated func copyFormats(_ table: TableSchema) -> [CopyFormat] { [.rows] }

    package func preflight(_ link: LinkDescription) async throws(BridgeError) -> [Finding] {
        let connection = try open()
        let findings = try SourcePreflight(link: link, path: resolvedPath).findings(connection.database)
        guard link.form == .canonical else { return findings }
        var all = findings
        for mapping in link.mappings { try all += textFindings(mapping, connection) }
        return all
    }

    /// Text that a target of another engine has no way to store.
    private func textFindings(
        _ mapping: TableMapping, _ connection: SQLiteConnection
    ) throws(BridgeError) -> [Finding] {
        guard !SQLiteCatalog.isInternal(mapping.source.name),
            let table = try SQLiteCatalog.table(mapping.source.name, connection.database)
        else { return [] }
        return TextFindings(table: table, mapping: mapping).findings(try contents(table, connection))
    }

    package func captureExists(_ link: LinkDescription) async throws(BridgeError) -> Bool {
        let names = CaptureNames(link)
        let connection = try open()
        if try CaptureState.exists(names.log, connection.database) { return true }
        return try CaptureState.exists(names.state, connection.database)
    }

    package func prepareCapture(
        _ link: LinkDescription, replacingLeftovers: Bool
    ) async throws(BridgeError) -> CaptureOrigin {
        let connection = try open()
        let (nonce, position) = try CaptureInstaller(link).install(
            connection.database, replacingLeftovers: replacingLeftovers)
        return CaptureOrigin(
            identity: ["engine": engine.rawValue, "log": CaptureNames(link).log, "epoch": nonce], position: position)
    }

    package func removeCapture(_ link: LinkDescription) async throws(BridgeError) {
        try CaptureInstaller(link).remove(open().database)
    }

    package func openSnapshot(
        _ link: LinkDescription, origin: CaptureOrigin
    ) async throws(BridgeError) -> any SourceSnapshot {
        _ = try open()
        return SQLiteSnapshot(path: resolvedPath, link: link)
    }

    package func openCapture(
        _ link: LinkDescription, origin: CaptureOrigin, durable: Position, workspace: CaptureWorkspace?
    ) async throws(BridgeError) -> any CaptureSession {
        let connection = try open()
        let opening = CaptureOpening(link: link, origin: origin, path: resolvedPath)
        let claim = try opening.claim(connection.database, durable: durable, workspace: workspace)
        return SQLiteCaptureSession(path: resolvedPath, link: link, claim: claim)
    }

    package func currentPosition(_ link: LinkDescription) async throws(BridgeError) -> Position {
        try current(CaptureNames(link), try open())
    }

    private func current(_ names: CaptureNames, _ connection: SQLiteConnection) throws(BridgeError) -> Position {
        guard try CaptureState.exists(names.log, connection.database) else {
            throw BridgeError(
                .captureBroken, "the source has no change log for this link", context: [.init(.slot, names.log)])
        }
        let newest = try connection.database.integer(CaptureState.newestChange(names)) ?? CaptureState.firstSequence
        return Position(commit: UInt64(clamping: newest) + 1)
    }

    package func health(_ link: LinkDescription, applied: Position) async throws(BridgeError) -> SourceHealth {
        let connection = try open()
        let names = CaptureNames(link)
        return try connection.database.transaction(.deferred) { () throws(BridgeError) in
            let current = try current(names, connection)
            let state = try CaptureState.read(names, connection.database)
            let log = "main.\(quoteIdentifier(names.log))"
            let average = try averageEntry(names, connection)
            let kept = try connection.database.integer("SELECT count(*) FROM \(log)") ?? 0
            let pending =
                try connection.database.integer(
                    """
                    SELECT count(*) FROM \(log)
                    WHERE seq >= \(Int64(clamping: applied.commit)) AND \(CaptureState.isDelivered)
                    """) ?? 0
            return SourceHealth(
                current: current, acknowledged: state.map { Position(commit: UInt64(clamping: $0.acknowledged)) },
                retainedBytes: kept * average, lagBytes: pending * average)
        }
    }
    /// Bytes that one entry of the log takes, from its newest thousand.
    private func averageEntry(_ names: CaptureNames, _ connection: SQLiteConnection) throws(BridgeError) -> Int64 {
        let columns = try connection.database.integer(
            "SELECT count(*) FROM pragma_table_info(\(quoteLiteral(names.log)))") ?? 4
        let lengths = (0..<max(1, columns - 3)).map { "coalesce(length(k\($0)), 0)" }.joined(separator: " + ")
        // Sequence, table number, mark and the row's share of its page: some twenty-two bytes.
        return try connection.database.integer(
            """
            SELECT 22 + coalesce(avg(\(lengths)), 0)
            FROM (SELECT * FROM main.\(quoteIdentifier(names.log)) ORDER BY seq DESC LIMIT 1000)
            """) ?? 22
    }
}

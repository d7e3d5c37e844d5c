package import BridgeCore
import Glibc

/// A SQLite file as the place that changes go to.
///
/// Nothing makes the file but ``prepareLink(_:)`` and ``execute(_:)``; until then a missing file is a database without
/// tables.
package actor SQLiteTarget: TargetConnector {
    private let executor = ThreadExecutor(name: "sqlite-target")
    nonisolated package var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    nonisolated package let engine = EngineName.sqlite
    nonisolated package let displayName: String
    /// SQLite has one writer.
    nonisolated package var maximumParallelLoads: Int { 1 }

    let path: String
    private let busyTimeout: Int32
    private var openConnection: TargetConnection?
    private var loaders: [String: SQLiteLoader] = [:]
    private var locks: [String: WeakLock] = [:]

    private struct WeakLock { weak var lock: LinkLock? }

    /// - Parameters:
    ///   - path: the file's path, absolute or relative to the working folder.
    ///   - busyTimeout: milliseconds that a write waits for another writer before `serverBusy`.
    package init(path: String, busyTimeout: Int32 = 10_000) {
        self.path = path
        self.busyTimeout = busyTimeout
        displayName = "sqlite:\(path)"
    }

    // MARK: Connector

    package func connect() async throws(BridgeError) {
        guard try existingConnection() == nil else { return }
        let folder = Self.folder(of: path)
        guard access(folder, W_OK | X_OK) == 0 else {
            let reason = errno
            throw BridgeError(
                reason == ENOENT || reason == ENOTDIR ? .serverUnreachable : .rightsMissing,
                "the target file cannot be made",
                context: [.init(.file, path), .init(.detail, String(cString: strerror(reason)))],
                hint: "make the folder \(folder), or allow this user to write it")
        }
    }

    package func listTables() async throws(BridgeError) -> [TableSchema] {
        guard let connection = try existingConnection() else { return [] }
        var tables: [TableSchema] = []
        for name in try SQLiteCatalog.tableNames(connection.database) {
            if let table = try SQLiteCatalog.table(name, connection.database) { tables.append(table.schema()) }
        }
        return tables
    }

    package func describeTables(_ names: [TableName]) async throws(BridgeError) -> [TableSchema] {
        guard let connection = try existingConnection() else { return [] }
        var tables: [TableSchema] = []
        for name in names {
            if let table = try SQLiteCatalog.table(name.name, connection.database) { tables.append(table.schema()) }
        }
        return tables
    }

    package func close() async {
        openConnection = nil
        loaders.removeAll()
    }

    // MARK: The link's records

    package func preflight(_ link: LinkDescription, sources: [TableSchema]) async throws(BridgeError) -> [Finding] {
        try TargetPreflight(path: path, link: link, sources: sources, connection: try existingConnection()).findings()
    }

    package func linkState(_ link: LinkDescription) async throws(BridgeError) -> LinkState? {
        guard let connection = try existingConnection() else { return nil }
        return try connection.database.transaction(.deferred) { () throws(BridgeError) in
            try LinkRecords(connection: connection, link: link).read()
        }
    }

    package func linkOrigin(_ link: LinkDescription) async throws(BridgeError) -> CaptureOrigin? {
        guard let connection = try existingConnection() else { return nil }
        return try connection.database.transaction(.deferred) { () throws(BridgeError) in
            try LinkRecords(connection: connection, link: link).origin()
        }
    }

    package func prepareLink(_ link: LinkDescription) async throws(BridgeError) -> LinkState {
        let connection = try writableConnection(for: link)
        return try connection.database.transaction(.immediate) { () throws(BridgeError) in
            let records = LinkRecords(connection: connection, link: link)
            try OwnSchemaChanges.counting(connection.database) { () throws(BridgeError) in try records.prepare() }
            guard let state = try records.read() else {
                throw BridgeError(.internalFault, "the link's records vanished while they were made")
            }
            return state
        }
    }

    package func recordOrigin(_ link: LinkDescription, _ origin: CaptureOrigin) async throws(BridgeError) {
        let connection = try writableConnection(for: link)
        try connection.database.transaction(.immediate) { () throws(BridgeError) in
            try LinkRecords(connection: connection, link: link).recordOrigin(origin)
        }
    }

    package func finishCopy(_ link: LinkDescription) async throws(BridgeError) {
        let connection = try writableConnection(for: link)
        try connection.database.transaction(.immediate) { () throws(BridgeError) in
            try LinkRecords(connection: connection, link: link).finishCopy()
        }
    }

    package func adoptLink(_ link: LinkDescription, _ origin: CaptureOrigin) async throws(BridgeError) {
        let connection = try writableConnection(for: link)
        try connection.database.transaction(.immediate) { () throws(BridgeError) in
            try OwnSchemaChanges.counting(connection.database) { () throws(BridgeError) in
                try LinkRecords(connection: connection, link: link).adopt(origin)
            }
        }
    }

    package func removeLink(_ link: LinkDescription) async throws(BridgeError) {
        guard let connection = try existingConnection() else { return }
        try connection.database.transaction(.immediate) { () throws(BridgeError) in
            try OwnSchemaChanges.counting(connection.database) { () throws(BridgeError) in
                try ForeignWriteWatch(link).remove(connection.database)
                try LinkRecords(connection: connection, link: link).remove()
            }
        }
        let deadline = ContinuousClock.now + .seconds(15)
        while true {
            do throws(BridgeError) {
                _ = try lock(link)
                return
            } catch where error.code == .alreadyRunning && ContinuousClock.now < deadline {
                // The thread is this connector's own.
                usleep(20_000)
            }
        }
    }

    // MARK: Loading and applying

    package func chooseCopyFormat(
        _ offered: [CopyFormat], source: TableSchema, mapping: TableMapping
    ) async throws(BridgeError) -> CopyFormat {
        guard offered.contains(.rows) else {
            throw BridgeError(
                .internalFault, "the source offers no form of copy that SQLite can load",
                context: [.init(.table, source.name.description)])
        }
        return .rows
    }

    package func openLoad(
        _ link: LinkDescription, mapping: TableMapping, columns: [Relation.Column], format: CopyFormat
    ) async throws(BridgeError) -> any TableLoad {
        guard format == .rows else {
            throw BridgeError(.internalFault, "SQLite cannot load the form of copy \(format.rawValue)")
        }
        let loader = loaders[link.name] ?? SQLiteLoader(path: path, link: link, busyTimeout: busyTimeout)
        loaders[link.name] = loader
        return SQLiteTableLoad(
            loader: loader, number: try await loader.begin(mapping: mapping, columns: columns, lock: try lock(link)))
    }

    package func conflictHistory(
        _ link: LinkDescription, limit: Int
    ) async throws(BridgeError) -> ConflictHistory {
        guard let connection = try existingConnection() else { return ConflictHistory() }
        return try ConflictTable(connection: connection, link: link).read(limit: limit)
    }

    package func openApplier(
        _ link: LinkDescription, onConflict: ConflictPolicy
    ) async throws(BridgeError) -> any ChangeApplier {
        let applier = SQLiteApplier(path: path, link: link, busyTimeout: busyTimeout, policy: onConflict)
        try await applier.open(try lock(link))
        return applier
    }

    /// The link's lock: this connector's own while anything of it is open.
    private func lock(_ link: LinkDescription) throws(BridgeError) -> LinkLock {
        if let lock = locks[link.name]?.lock { return lock }
        let lock = try LinkLock(databasePath: path, link: link)
        locks[link.name] = WeakLock(lock: lock)
        return lock
    }

    // MARK: Schema

    package func schemaPlan(
        for sources: [TableSchema], mappings: [TableMapping]
    ) async throws(BridgeError) -> SchemaPlan {
        let connection = try existingConnection()
        var existing = Set<String>()
        if let connection {
            let names = try connection.prepare("SELECT name FROM main.sqlite_master WHERE name IS NOT NULL")
            while try names.step() { existing.insert(foldCase(names.string(0) ?? "")) }
        }
        return try SchemaPlanner(sources: sources, mappings: mappings, existing: existing).plan()
    }

    package func execute(_ plan: SchemaPlan) async throws(BridgeError) {
        let isNew = access(path, F_OK) != 0
        let connection = try writableConnection()
        do throws(BridgeError) {
            try connection.database.transaction(.immediate) { () throws(BridgeError) in
                for statement in plan.statements where !statement.exists {
                    do throws(BridgeError) {
                        try connection.database.execute(statement.sql)
                    } catch {
                        throw BridgeError(
                            error.code == .serverRefused ? .changeRefused : error.code,
                            "\(statement.makes) cannot be made", context: error.context)
                    }
                }
            }
        } catch {
            // A file that this call made holds nothing: it goes again.
            if isNew {
                openConnection = nil
                for suffix in ["", "-wal", "-shm"] { unlink(path + suffix) }
            }
            throw error
        }
    }

    // MARK: Connections

    /// The connection to a file that is there; nil if there is none.
    private func existingConnection() throws(BridgeError) -> TargetConnection? {
        if let openConnection { return openConnection }
        guard access(path, F_OK) == 0 else { return nil }
        let connection = try TargetConnection(path: path, creating: false, busyTimeout: busyTimeout)
        openConnection = connection
        return connection
    }

    /// The connection, to a new file if there is none, in WAL mode.
    private func writableConnection(for link: LinkDescription? = nil) throws(BridgeError) -> TargetConnection {
        if let connection = try existingConnection() {
            try connection.preferWAL(for: link)
            return connection
        }
        let connection = try TargetConnection(path: path, creating: true, busyTimeout: busyTimeout)
        try connection.preferWAL(for: link)
        openConnection = connection
        return connection
    }

    static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }
}

import BridgeCore
import CSQLite

/// Loads tables over one connection on a thread of its own. SQLite has one writer, so the tables' loads take turns, a
/// chunk and a commit each.
///
/// A chunk's commit is not synced: until the table is done its rows count for nothing, and the commit that records the
/// table as done syncs the WAL with all that stands before it.
actor SQLiteLoader {
    private let executor = ThreadExecutor(name: "sqlite-load")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let path: String
    private let link: LinkDescription
    private let busyTimeout: Int32
    private var lock: LinkLock?
    private var connection: TargetConnection?
    private var loads: [Int: OpenLoad] = [:]
    private var nextNumber = 0

    private struct OpenLoad {
        let mapping: TableMapping
        let binder: RowBinder
        let statement: SQLiteStatement
        let table: String
        var rows: Int64 = 0
    }

    init(path: String, link: LinkDescription, busyTimeout: Int32) {
        self.path = path
        self.link = link
        self.busyTimeout = busyTimeout
    }

    /// Begins a table's load, after removing what an unfinished one left; returns its number.
    func begin(
        mapping: TableMapping, columns: [Relation.Column], lock: LinkLock
    ) throws(BridgeError) -> Int {
        do throws(BridgeError) {
            return try begin(mapping, columns, try open(lock))
        } catch {
            // A load that did not begin keeps nobody else out.
            release()
            throw error
        }
    }

    private func begin(
        _ mapping: TableMapping, _ columns: [Relation.Column], _ connection: TargetConnection
    ) throws(BridgeError) -> Int {
        let target = try connection.requiredTarget(mapping.target)
        // Rows of the copy name no row, so no key is asked for.
        let engine: EngineName = link.form == .native ? .sqlite : EngineName(rawValue: "")
        let relation = Relation(
            id: 0, engine: engine, form: link.form, name: mapping.source, identity: .nothing, columns: columns)
        let plan = try RelationPlan(relation, mapping: mapping, target: target, isWayBack: link.direction == .reverse)
        let records = LinkRecords(connection: connection, link: link)
        try connection.database.transaction(.immediate) { () throws(BridgeError) in
            try Self.clear(mapping, target: target, records: records, connection: connection)
        }
        nextNumber += 1
        loads[nextNumber] = OpenLoad(
            mapping: mapping, binder: RowBinder(plan), statement: try connection.prepare(plan.text.insert()),
            table: target.name)
        return nextNumber
    }

    /// Makes sure that the table is empty. Rows are only removed where the record says that a load of this link, which
    /// began with an empty table, put them there.
    private static func clear(
        _ mapping: TableMapping, target: TargetTable, records: LinkRecords, connection: TargetConnection
    ) throws(BridgeError) {
        switch try records.tableState(mapping) {
        case .pending:
            guard try connection.database.integer("SELECT 1 FROM \(target.quoted) LIMIT 1") == nil else {
                throw BridgeError(
                    .targetTableNotEmpty, "table \(target.name) has rows that bridge did not put there",
                    context: [.init(.table, target.name)])
            }
        case .loading: try connection.database.execute("DELETE FROM \(target.quoted)")
        case .done, nil:
            throw BridgeError(
                .internalFault, "a table is to be loaded that is loaded, or that the link does not know",
                context: [.init(.table, target.name)])
        }
        try records.setTable(mapping, .loading)
    }

    func write(_ number: Int, _ chunk: RecordBuffer) throws(BridgeError) {
        guard let connection, var load = loads[number] else { throw Self.closed() }
        let records = LinkRecords(connection: connection, link: link)
        do throws(BridgeError) {
            try connection.database.transaction(.immediate) { () throws(BridgeError) in
                load.rows += try withExtendedLifetime(chunk) { (chunk) throws(BridgeError) in
                    try Self.insert(chunk.bytes, load, connection)
                }
                try records.setTable(load.mapping, .loading, rows: load.rows)
                try Failpoint.copyChunk.hit()
            }
        } catch {
            // The chunk is gone; what is there of the table is removed when its load begins anew.
            loads[number] = nil
            throw error
        }
        loads[number] = load
    }

    private static func insert(
        _ bytes: UnsafeRawBufferPointer, _ load: OpenLoad, _ connection: TargetConnection
    ) throws(BridgeError) -> Int64 {
        var reader = ByteReader(bytes)
        let (binder, statement) = (load.binder, load.statement)
        let handle = statement.handle
        var rows: Int64 = 0
        while !reader.isAtEnd {
            let row = try nextRow(&reader)
            guard case .whole = try binder.bindNew(row, to: statement) else {
                throw BridgeError(
                    .valueMissing, "a copied row lacks a value", context: [.init(.table, load.table)])
            }
            let result = sqlite3_step(handle)
            sqlite3_reset(handle)
            guard result == SQLITE_DONE else { throw failure(result, load, connection) }
            rows += 1
        }
        return rows
    }

    /// A 32-bit length, then a row image that fills it.
    @inline(__always)
    private static func nextRow(_ reader: inout ByteReader) throws(BridgeError) -> RowImage {
        let start = reader.offset
        guard reader.remaining >= 4 else { throw BridgeError.malformedRecord(at: start) }
        // Read here and not by the reader's generic function, which is not specialised across modules: this runs per row.
        let length = UInt32(bigEndian: reader.bytes.loadUnaligned(fromByteOffset: start, as: UInt32.self))
        do throws(ByteReader.Truncated) { _ = try reader.readBytes(4) } catch {
            throw BridgeError.malformedRecord(at: start)
        }
        let row = try RowImage(&reader)
        guard row.bytes.count == Int(length) else { throw BridgeError.malformedRecord(at: start) }
        return row
    }

    func finish(_ number: Int, position: Position, rows: Int64) throws(BridgeError) {
        guard let connection, let load = loads[number] else { throw Self.closed() }
        guard load.rows == rows else {
            throw BridgeError(
                .internalFault, "\(rows) rows were read of a table and \(load.rows) were written",
                context: [.init(.table, load.table)])
        }
        let records = LinkRecords(connection: connection, link: link)
        try connection.syncCommits(true)
        defer { try? connection.syncCommits(false) }
        try connection.database.transaction(.immediate) { () throws(BridgeError) in
            try records.setTable(load.mapping, .done, position: position, rows: rows)
            try Failpoint.copyTableBeforeCommit.hit()
        }
        end(number)
        try Failpoint.copyTableAfterCommit.hit()
    }

    func cancel(_ number: Int) { end(number) }

    private func end(_ number: Int) {
        loads[number] = nil
        release()
    }

    /// Closes the connection, and lets go of the lock, with the last load.
    private func release() {
        guard loads.isEmpty else { return }
        connection = nil
        lock = nil
    }

    // MARK: Details

    private func open(_ lock: LinkLock) throws(BridgeError) -> TargetConnection {
        if let connection { return connection }
        let opened = try TargetConnection(path: path, creating: false, busyTimeout: busyTimeout)
        try opened.preferWAL(for: link)
        try opened.syncCommits(false)
        connection = opened
        self.lock = lock
        return opened
    }

    private static func failure(_ result: Int32, _ load: OpenLoad, _ connection: TargetConnection) -> BridgeError {
        BridgeError.sqlite(
            result, connection.database.handle, path: connection.database.path, doing: "a row cannot be loaded"
        ).adding(.table, load.table)
    }

    private static func closed() -> BridgeError {
        BridgeError(.internalFault, "the load of a table is closed")
    }
}

/// One table's load: a number at the loader.
struct SQLiteTableLoad: TableLoad {
    let loader: SQLiteLoader
    let number: Int

    func write(_ chunk: RecordBuffer) async throws(BridgeError) { try await loader.write(number, chunk) }

    func finish(position: Position, rows: Int64) async throws(BridgeError) {
        try await loader.finish(number, position: position, rows: rows)
    }

    func cancel() async { await loader.cancel(number) }
}

import BridgeCore

/// A part of a table, of one attempt at loading it.
struct TablePart: Hashable, Sendable {
    var number: Int
    /// Which attempt: a later one of the table ends all that is left of the earlier.
    var attempt: Int64
}

/// A table that is loaded in parts, each by a ``PostgresTableLoad``.
struct PostgresPartedLoad: PartedLoad {
    let link: LinkDescription
    let mapping: TableMapping
    let string: ConnectionString
    let attempt: Int64
    let parts: Int

    func openPart(
        _ number: Int, columns: [Relation.Column], format: CopyFormat
    ) async throws(BridgeError) -> PartOpening {
        let part = TablePart(number: number, attempt: attempt)
        let load = try PostgresTableLoad(link: link, mapping: mapping, string: string, format: format, part: part)
        do throws(BridgeError) {
            guard let loaded = try await load.open(part, columns) else { return .load(load) }
            return .loaded(loaded)
        } catch {
            await load.cancel()
            throw error
        }
    }

    func finish(position: Position, rows: Int64) async throws(BridgeError) {
        try Failpoint.copyPartsLoaded.hit()
        let session = LoadRecordSession(link: link, mapping: mapping, string: string)
        try await session.finish(attempt: attempt, parts: parts, position: position, rows: rows)
    }
}

/// What comes before and after a table's parts, each in a short session of its own.
actor LoadRecordSession {
    private nonisolated let executor = ThreadExecutor(name: "pg-load")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let link: LinkDescription
    private let mapping: TableMapping
    private let string: ConnectionString

    init(link: LinkDescription, mapping: TableMapping, string: ConnectionString) {
        self.link = link
        self.mapping = mapping
        self.string = string
    }

    /// - Returns: the attempt's number; nil if the table is to be loaded as a whole.
    func begin(droppingIndexes: Bool) throws(BridgeError) -> Int64? {
        do throws(BridgeError) {
            let (connection, table) = try connect()
            try LinkRecords.upgrade(connection)
            let records = LoadRecords(link: link, mapping: mapping, connection: connection)
            guard try records.mayLoadInParts(table) else { return nil }
            let attempt = try connection.inTransaction { () throws(BridgeError) in
                try connection.execute("SET LOCAL synchronous_commit = on")
                let attempt = try records.beginParts(table)
                if droppingIndexes { try IndexRecords.drop(table, link, mapping, connection) }
                try Failpoint.copyPartsBeforeBegin.hit()
                return attempt
            }
            try Failpoint.copyPartsAfterBegin.hit()
            return attempt
        } catch { throw error.adding(.table, mapping.target.description) }
    }

    func finish(attempt: Int64, parts: Int, position: Position, rows: Int64) throws(BridgeError) {
        do throws(BridgeError) {
            let (connection, table) = try connect()
            let records = LoadRecords(link: link, mapping: mapping, connection: connection)
            try connection.inTransaction { () throws(BridgeError) in
                try connection.execute("SET LOCAL synchronous_commit = on")
                try records.finishParts(attempt: attempt, parts: parts, position, rows)
                try Failpoint.copyTableBeforeCommit.hit()
            }
            try Failpoint.copyTableAfterCommit.hit()
            // Without figures the planner would take the new table for a small one; autovacuum comes only later.
            try? connection.execute("ANALYZE \(table.name.quoted)")
        } catch { throw error.adding(.table, mapping.target.description) }
    }

    private func connect() throws(BridgeError) -> (PostgresConnection, TargetTable) {
        let connection = try PostgresConnection(string, applicationName: "bridge copy \(link.name)")
        try ReplicaSession.begin(connection)
        guard let table = try TargetTable.read(mapping.target, connection) else {
            throw BridgeError(.targetTableMissing, "the target table does not exist")
        }
        return (connection, table)
    }
}

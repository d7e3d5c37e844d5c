import BridgeCore

/// The records of a table's load. All inside the caller's transaction.
///
/// The table's row in `_bridge.link_table` is the lock: whoever begins, loads as a whole or finishes a table holds it FOR
/// UPDATE, whoever loads a part FOR SHARE until its commit. So nothing of an earlier attempt is under way when one begins,
/// and what comes of an earlier one later finds another attempt's number there.
struct LoadRecords {
    let link: LinkDescription
    let mapping: TableMapping
    let connection: PostgresConnection

    private static let action = "loading a table"
    private static let ofTable = "link = $1 AND source_name = $2 AND source_schema IS NOT DISTINCT FROM $3"
    private static let ofPart = """
        (link, ordinal) = (SELECT link, ordinal FROM _bridge.link_table WHERE \(ofTable))
        """
    private var key: [String?] { [link.name, mapping.source.name, mapping.source.schema] }
    private var context: [ErrorContext] { [.init(.table, mapping.target.description)] }

    // MARK: The whole table

    /// The table must be one that is still to be loaded, and empty: a load that was cut short has left nothing, or parts
    /// that are removed.
    func claimWhole(_ table: TargetTable) throws(BridgeError) {
        let state = try lock()
        if state == "loading" {
            try clear(table)
            try connection.execute("SET LOCAL lock_timeout = 0")
        } else {
            try requireEmpty(table)
        }
    }

    /// Records the table as done.
    func finishTable(_ position: Position, _ rows: Int64) throws(BridgeError) {
        let changed = try connection.query(
            "UPDATE _bridge.link_table SET state = 'done', position = $4, rows = $5::bigint WHERE \(Self.ofTable)",
            key + [position.storedForm, "\(rows)"], during: "recording a loaded table"
        ).affectedRows
        guard changed == 1 else { throw LinkRecords.missing(link) }
    }

    /// Locks the table's record and gives its state, which is not `done`.
    private func lock() throws(BridgeError) -> String {
        // The lock keeps a second loader of the same link out until this one has ended.
        let row = try connection.rows(
            "SELECT state FROM _bridge.link_table WHERE \(Self.ofTable) FOR UPDATE NOWAIT", key, during: Self.action).first
        guard let state = row?[0] else { throw LinkRecords.missing(link) }
        guard state != "done" else {
            // The last commit of a process that was killed can arrive after its successor has read the records.
            throw BridgeError(
                .serverBusy, "an earlier process has just finished loading the table", context: context)
        }
        return state
    }

    private func requireEmpty(_ table: TargetTable) throws(BridgeError) {
        guard try connection.rows("SELECT 1 FROM \(table.name.quoted) LIMIT 1", during: Self.action).isEmpty else {
            throw notEmpty(table)
        }
    }

    private func notEmpty(_ table: TargetTable) -> BridgeError {
        BridgeError(
            .targetTableNotEmpty, "the target table holds rows that bridge did not load", context: context,
            hint: "empty the target table (TRUNCATE \(table.name.quoted)), or leave it out of the migration")
    }

    // MARK: Parts

    /// Rows of parts that were committed are removed when the load begins anew, so they must be all that the table can
    /// hold: not where another link loads it too, or only some of its rows are the link's. And they must tell who wrote
    /// them, as rows of the heap do.
    func mayLoadInParts(_ table: TargetTable) throws(BridgeError) -> Bool {
        guard mapping.targetFilter == nil else { return false }
        let row = try connection.rows(
            """
            SELECT NOT EXISTS (
                SELECT FROM _bridge.link_table WHERE NOT (\(Self.ofTable)) AND to_regclass(
                  CASE WHEN target_schema IS NULL THEN '' ELSE quote_ident(target_schema) || '.' END || quote_ident(target_name)) = $4::oid)
              AND NOT EXISTS (
                SELECT FROM pg_partition_tree($4::oid) p JOIN pg_class c ON c.oid = p.relid
                WHERE c.relkind <> 'p' AND (c.relkind <> 'r' OR c.relam <> 2))
            """, key + ["\(table.oid)"], during: Self.action)
        return row.first?.first == "t"
    }

    /// Makes the table empty of what an earlier attempt left, and records it as being loaded.
    /// - Returns: the new attempt's number.
    func beginParts(_ table: TargetTable) throws(BridgeError) -> Int64 {
        if try lock() == "loading" { try clear(table) } else { try requireEmpty(table) }
        let row = try connection.rows(
            """
            UPDATE _bridge.link_table SET state = 'loading', attempt = attempt + 1 WHERE \(Self.ofTable) RETURNING attempt
            """, key, during: Self.action).first
        guard let attempt = row?[0].flatMap({ Int64($0) }) else { throw LinkRecords.missing(link) }
        return attempt
    }

    /// Takes a part's place in the records. Two attempts at the same part wait for each other here.
    /// - Returns: what is there if it was committed already.
    func claim(_ part: TablePart) throws(BridgeError) -> LoadedPart? {
        let row = try connection.rows(
            "SELECT state, attempt FROM _bridge.link_table WHERE \(Self.ofTable) FOR SHARE NOWAIT", key, during: Self.action
        ).first
        guard let row else { throw LinkRecords.missing(link) }
        guard row[0] == "loading", row[1] == "\(part.attempt)" else { throw superseded() }
        try connection.execute("SET LOCAL lock_timeout = '5s'")
        let made = try connection.query(
            """
            INSERT INTO _bridge.link_part (link, ordinal, part, attempt)
            SELECT link, ordinal, $4::int, $5::bigint FROM _bridge.link_table WHERE \(Self.ofTable)
            ON CONFLICT (link, ordinal, part) DO NOTHING
            """, key + ["\(part.number)", "\(part.attempt)"], during: Self.action
        ).affectedRows
        try connection.execute("SET LOCAL lock_timeout = 0")
        guard made == 0 else { return nil }
        let found = try connection.rows(
            "SELECT attempt, rows, position FROM _bridge.link_part WHERE \(Self.ofPart) AND part = $4::int",
            key + ["\(part.number)"], during: Self.action
        ).first
        guard let found, found[0] == "\(part.attempt)", let rows = found[1].flatMap({ Int64($0) }),
            let position = found[2].flatMap({ Position(storedForm: $0) })
        else {
            throw BridgeError(.internalFault, "the record of a table's part is of another attempt", context: context)
        }
        return LoadedPart(rows: rows, position: position)
    }

    /// Records a part as done, with the transaction that wrote its rows.
    func finish(_ part: TablePart, _ position: Position, _ rows: Int64) throws(BridgeError) {
        let changed = try connection.query(
            """
            UPDATE _bridge.link_part SET position = $5, rows = $6::bigint, writer = pg_current_xact_id()::xid
            WHERE \(Self.ofPart) AND part = $4::int AND attempt = $7::bigint AND rows IS NULL
            """,
            key + ["\(part.number)", position.storedForm, "\(rows)", "\(part.attempt)"],
            during: "recording a loaded part of a table"
        ).affectedRows
        guard changed == 1 else { throw superseded() }
    }

    /// Records the table as done when each part is there once, all from one position, with the rows that were read.
    func finishParts(attempt: Int64, parts: Int, _ position: Position, _ rows: Int64) throws(BridgeError) {
        let row = try connection.rows(
            "SELECT state, attempt, position, rows FROM _bridge.link_table WHERE \(Self.ofTable) FOR UPDATE NOWAIT", key,
            during: Self.action
        ).first
        guard let row else { throw LinkRecords.missing(link) }
        guard row[1] == "\(attempt)" else { throw superseded() }
        // The commit was made, and its answer lost.
        if row[0] == "done", row[2] == position.storedForm, row[3] == "\(rows)" { return }
        guard row[0] == "loading" else { throw superseded() }
        let sums = try connection.rows(
            """
            SELECT count(*), coalesce(min(part), 0), coalesce(max(part), 0), coalesce(sum(rows), 0),
              count(*) FILTER (WHERE position = $4 AND attempt = $5::bigint AND rows IS NOT NULL AND writer IS NOT NULL)
            FROM _bridge.link_part WHERE \(Self.ofPart)
            """, key + [position.storedForm, "\(attempt)"], during: "recording a loaded table"
        ).first
        guard sums == ["\(parts)", "0", "\(parts - 1)", "\(rows)", "\(parts)"] else {
            throw BridgeError(
                .internalFault, "the parts of a table that the target recorded are not those that were loaded",
                context: context)
        }
        try finishTable(position, rows)
        _ = try connection.query("DELETE FROM _bridge.link_part WHERE \(Self.ofPart)", key, during: Self.action)
    }

    private func superseded() -> BridgeError {
        BridgeError(.alreadyRunning, "another process has begun to load the table anew", context: context)
    }

    // MARK: Leftovers

    /// Removes the rows of an unfinished attempt, and its records. A row that none of its transactions wrote is somebody
    /// else's, and then nothing is touched.
    private func clear(_ table: TargetTable) throws(BridgeError) {
        let tree = "(SELECT relid FROM pg_partition_tree($1::oid) UNION SELECT $1::oid)"
        let isReferenced = try connection.rows(
            """
            SELECT EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid IN \(tree) AND conrelid NOT IN \(tree))
            """, ["\(table.oid)"], during: Self.action).first?.first != "f"
        // TRUNCATE is refused for a table that others refer to, in the replica role too.
        let mode = isReferenced ? "SHARE ROW EXCLUSIVE" : "ACCESS EXCLUSIVE"
        try connection.execute("SET LOCAL lock_timeout = '5s'; LOCK TABLE \(table.only) IN \(mode) MODE", during: Self.action)
        // As a subquery and not as an array, since only that is hashed: there may be hundreds of parts.
        let foreign = try connection.rows(
            """
            SELECT 1 FROM \(table.only) WHERE xmin NOT IN (
              SELECT writer FROM _bridge.link_part WHERE \(Self.ofPart) AND writer IS NOT NULL) LIMIT 1
            """, key, during: "looking at what an unfinished load left")
        guard foreign.isEmpty else { throw notEmpty(table) }
        try connection.execute(
            isReferenced ? "DELETE FROM \(table.only)" : "TRUNCATE \(table.only)", during: "removing what an unfinished load left")
        _ = try connection.query("DELETE FROM _bridge.link_part WHERE \(Self.ofPart)", key, during: Self.action)
    }
}

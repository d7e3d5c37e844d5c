import BridgeCore

/// Records what others than the applier write to the link's target tables.
///
/// AFTER triggers of ordinary enablement, which the applier's and the loader's sessions, being in the replica role, do
/// not fire. Everybody else's do, with one exception that cannot be closed from here: a session that itself may set
/// `session_replication_role = replica` is as silent as the applier, but for TRUNCATE; so are other replication tools'
/// workers. Switching the triggers off and on again between two looks is found, and so is making them anew with the same
/// text, unless a superuser forges the catalog.
///
/// Somebody's trigger that is enabled ALWAYS or REPLICA fires in the applier's session as well. What it writes to the
/// link's tables is recorded by a second set of triggers, which are enabled ALWAYS and have the condition that the session
/// is in the replica role and the statement comes from a trigger's function. The condition is looked at when the write is
/// made, before anything is queued, and once a statement (a row, with partitions); the applier's own statements fail it
/// at its first part. The rows that the second set wants to be shown are kept for the first already. Not recorded is what
/// no trigger function writes by a statement of its own: a BEFORE trigger that alters the applier's row, and a rule that
/// is enabled ALWAYS or REPLICA. Both are looked for by name (``WatchMarks/unrecorded(_:)``).
///
/// What changes rows and fires no trigger at all is told by ``KnownStates``. Which watch it is, and whether the target was
/// put back, is told by ``WatchMarks``.
///
/// The keys go to a table in the schema `_bridge`, by functions that run with their owner's rights under a pinned search
/// path and pinned settings: the application needs no rights there, and its settings do not change the keys' text.
/// Triggers of a plain table fire once a statement. Those of a partitioned table fire for each row, because only such are
/// passed on to the partitions, which can be written directly; TRUNCATE of a partition needs a trigger on it.
///
/// A recorded write has no number until it is first read: numbers are given by one reader at a time to what is committed
/// by then, so a later commit never gets a lower number than one that was seen. How far they went is kept apart from the
/// record: one that was emptied does not begin again with 1.
struct ForeignWriteWatch {
    let connection: PostgresConnection
    let link: LinkDescription

    /// The link's name as the end of names; 56 bytes at most (the migration's are at most 48), which leaves seven.
    private static func suffix(_ link: LinkDescription) -> String { String(link.identifier.dropFirst("bridge_".count)) }
    private static func table(_ link: LinkDescription) -> String { "_bridge.\(quoteIdentifier("writes_" + suffix(link)))" }
    private static func lock(_ link: LinkDescription) -> String {
        "SELECT pg_advisory_xact_lock(hashtextextended(\(quoteLiteral("bridge watch " + link.name)), 0))"
    }
    private var records: String { Self.table(link) }
    private static func states(_ link: LinkDescription) -> String { "_bridge.\(quoteIdentifier("files_" + suffix(link)))" }
    private var states: KnownStates { KnownStates(link: link, table: Self.states(link), targets: targets) }
    private static func marks(_ link: LinkDescription) -> String { "_bridge.\(quoteIdentifier("marks_" + suffix(link)))" }
    var marks: WatchMarks { WatchMarks(connection: connection, records: records, table: Self.marks(link)) }

    /// A table that is watched.
    private struct Watched {
        var ordinal: Int
        var name: TableName
        var isPartitioned: Bool
        /// TRUNCATE reaches these by their own names.
        var partitions: [String]
        var keys: [String]
    }

    /// Numbers of the rows that describe the watch: 0 has the hash of what was made, -1, -2, … the tables' key columns.
    private static let definitionNumber = 0

    // MARK: Installing

    /// - Parameter keys: the key columns of the tables, by the mappings; those that are not there go by the target's
    ///   primary key.
    func install(keys: [TableMapping: [String]]) throws(BridgeError) {
        guard try LinkRecords.exists(connection) else { throw LinkRecords.missing(link) }
        let tables = try watched(keys)
        if try exists(), try isWhole(), try describedKeys() == tables.map(\.keys) { return }
        try connection.inTransaction { () throws(BridgeError) in
            try connection.execute(LinkRecords.schemaLock)
            // The states first: without them the watch is not there, whatever else is.
            let isAnew = try !has(records)
            try connection.execute(states.create, during: "making the record of foreign writes")
            if isAnew {
                try connection.execute(
                    """
                    CREATE TABLE \(records) (number bigint UNIQUE, table_schema text, table_name text, key text[], \
                    written_at timestamptz NOT NULL DEFAULT clock_timestamp())
                    """, during: "making the record of foreign writes")
            }
            try connection.execute(marks.create(anew: isAnew), during: "making the record of foreign writes")
            guard !isAnew else { return }
            // What was written while the watch was not whole is not known: as if every table had been emptied.
            try connection.execute("DELETE FROM \(records) WHERE number <= 0")
            for table in tables {
                _ = try connection.query(
                    "INSERT INTO \(records) (table_schema, table_name) VALUES ($1, $2)", [table.name.schema, table.name.name])
            }
        }
        // A table at a time: the lock holds off the applier, and two could hold off each other.
        for table in tables { try install(table) }
        try connection.inTransaction { () throws(BridgeError) in
            try connection.execute("SET LOCAL jit = off")
            try connection.execute(states.makeKnown, during: "noting the state of the tables")
            for table in tables {
                _ = try connection.query(
                    "INSERT INTO \(records) (number, table_schema, table_name, key) VALUES ($1::bigint, $2, $3, $4::text[])",
                    ["\(-1 - table.ordinal)", table.name.schema, table.name.name, ArrayLiteral.make(table.keys)])
            }
            _ = try connection.query(
                "INSERT INTO \(records) (number, key) SELECT \(Self.definitionNumber), ARRAY[d] FROM (\(definition)) AS w(d)")
            try connection.execute(Self.lock(link))
            try giveNumbers()
        }
    }

    private func watched(_ keys: [TableMapping: [String]]) throws(BridgeError) -> [Watched] {
        var tables: [Watched] = []
        for (ordinal, mapping) in link.mappings.enumerated() {
            let catalog = PostgresCatalog(connection)
            guard let oid = try catalog.resolve([mapping.target]).first.flatMap({ $0 }),
                let schema = try catalog.describe([oid]).first
            else {
                throw BridgeError(
                    .targetTableMissing, "the target table does not exist",
                    context: [.init(.table, mapping.target.description)])
            }
            let tree = try connection.rows(
                """
                SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.oid = $1::oid, c.relkind
                FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.oid = $1::oid OR c.oid IN (SELECT relid FROM pg_partition_tree($1::oid)) ORDER BY 1
                """, ["\(oid)"], during: "reading the catalog")
            var key = keys[mapping] ?? schema.primaryKey
            if key.isEmpty { key = schema.columns.map(\.name) }
            // In the order of the columns, which is the layout's wherever none was asked for.
            if keys[mapping] == nil { key = schema.columns.map(\.name).filter(key.contains) }
            tables.append(
                Watched(
                    ordinal: ordinal, name: schema.name, isPartitioned: tree.contains { $0[1] == "t" && $0[2] == "p" },
                    partitions: tree.filter { $0[1] != "t" }.compactMap { $0[0] }, keys: key))
        }
        return tables
    }

    private func install(_ table: Watched) throws(BridgeError) {
        let action = "watching a table for foreign writes"
        do throws(BridgeError) {
            try connection.inTransaction { () throws(BridgeError) in
                try connection.execute("SET LOCAL lock_timeout = '5s'; \(LinkRecords.schemaLock)")
                let function = functionName(table)
                try connection.execute("DROP FUNCTION IF EXISTS \(function) CASCADE", during: action)
                try connection.execute(functionText(table, function), during: action)
                try connection.execute("REVOKE ALL ON FUNCTION \(function) FROM PUBLIC", during: action)
                // A check of what is captured here is told that these are no changes of the table.
                try FenceVersions.noting(link.migration, table: table.name.quoted, connection) { () throws(BridgeError) in
                    for trigger in triggers(table, function) { try connection.execute(trigger, during: action) }
                }
            }
        } catch { throw error.adding(.table, table.name.description) }
    }

    private func functionName(_ table: Watched) -> String {
        "_bridge.\(quoteIdentifier("w\(table.ordinal)_" + Self.suffix(link)))()"
    }

    private func functionText(_ table: Watched, _ function: String) -> String {
        let schema = table.name.schema.map(quoteLiteral) ?? "NULL"
        let into = "INSERT INTO \(records) (table_schema, table_name, key)"
        let head = "SELECT \(schema), \(quoteLiteral(table.name.name)),"
        let truncated = states.onTruncate(record: "\(into) \(head) NULL")
        func key(_ row: String) -> String {
            let cells = table.keys.map { name in
                let column = "\(row).\(quoteIdentifier(name))"
                return "CASE WHEN \(column) IS DISTINCT FROM NULL THEN format('%s', \(column)) END"
            }
            return "ARRAY[\(cells.joined(separator: ", "))]::text[]"
        }
        let body =
            if table.isPartitioned {
                """
                IF TG_OP = 'TRUNCATE' THEN \(truncated)
                ELSE
                  IF TG_OP <> 'INSERT' THEN \(into) \(head) \(key("OLD")); END IF;
                  IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND \(key("NEW")) IS DISTINCT FROM \(key("OLD")) THEN
                    \(into) \(head) \(key("NEW"));
                  END IF;
                END IF;
                """
            } else {
                """
                IF TG_OP = 'TRUNCATE' THEN \(truncated)
                ELSIF TG_OP = 'INSERT' THEN \(into) \(head) \(key("r")) FROM bridge_new AS r;
                ELSIF TG_OP = 'DELETE' THEN \(into) \(head) \(key("r")) FROM bridge_old AS r;
                ELSE
                  \(into) \(head) w.k FROM (SELECT \(key("r")) FROM bridge_old AS r UNION SELECT \(key("r")) FROM bridge_new AS r) AS w(k);
                END IF;
                """
            }
        let quoted = "\nBEGIN\n\(body)\nRETURN NULL;\nEND\n"
        let settings = SessionSettings.pinned.filter {
            ["DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output", "TimeZone", "lc_monetary"].contains($0.name)
        }.map { " SET \($0.name) = '\($0.value)'" }
        // A value of DateStyle in quotes would be one word; it is a list.
        let list = settings.joined().replacing("'ISO,YMD'", with: "ISO, YMD")
        return """
            CREATE FUNCTION \(function) RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
            SET search_path = pg_catalog, pg_temp\(list) AS \(quoteLiteral(quoted))
            """
    }

    private func triggers(_ table: Watched, _ function: String) -> [String] {
        let call = "EXECUTE FUNCTION \(function)"
        let inReplica = "current_setting('session_replication_role') = 'replica'"
        /// One for everybody's sessions, and one for other triggers' writes in the applier's.
        func pair(_ letter: String, _ event: String, on relation: String, _ rest: String) -> [String] {
            let ordinary = quoteIdentifier("bw\(letter)_\(Self.suffix(link))")
            let always = quoteIdentifier("bx\(letter)_\(Self.suffix(link))")
            // The depth of the statement that fires it. On TRUNCATE the function tells the applier from others.
            let condition = letter == "t" ? inReplica : "pg_trigger_depth() > 0 AND \(inReplica)"
            return [
                "CREATE TRIGGER \(ordinary) AFTER \(event) ON \(relation) \(rest) \(call)",
                "CREATE TRIGGER \(always) AFTER \(event) ON \(relation) \(rest) WHEN (\(condition)) \(call)",
                "ALTER TABLE \(relation) ENABLE ALWAYS TRIGGER \(always)",
            ]
        }
        let name = table.name.quoted
        if table.isPartitioned {
            return pair("r", "INSERT OR UPDATE OR DELETE", on: name, "FOR EACH ROW")
                + ([name] + table.partitions).flatMap { pair("t", "TRUNCATE", on: $0, "FOR EACH STATEMENT") }
        }
        return [
            ("i", "INSERT", "REFERENCING NEW TABLE AS bridge_new "),
            ("u", "UPDATE", "REFERENCING OLD TABLE AS bridge_old NEW TABLE AS bridge_new "),
            ("d", "DELETE", "REFERENCING OLD TABLE AS bridge_old "), ("t", "TRUNCATE", ""),
        ].flatMap { pair($0.0, $0.1, on: name, "\($0.2)FOR EACH STATEMENT") }
    }

    // MARK: Proving

    private func exists() throws(BridgeError) -> Bool {
        let names = [records, states.table, marks.table].map { "to_regclass(\(quoteLiteral($0))) IS NOT NULL" }
        return try connection.rows("SELECT \(names.joined(separator: " AND "))", during: "reading the record of foreign writes")
            .first?[0] == "t"
    }

    private func has(_ table: String) throws(BridgeError) -> Bool {
        try connection.rows("SELECT to_regclass($1) IS NOT NULL", [table], during: "reading the record of foreign writes")
            .first?[0] == "t"
    }

    /// The hash of all functions and triggers of the watch as the catalog has them now. The number of the transaction that
    /// wrote a catalog row is part of it: a trigger that was switched off and on again shows. A partition that came later
    /// has the row triggers, but lacks that for TRUNCATE; what is watched therefore counts too.
    private var definition: String {
        """
        SELECT encode(sha256(convert_to(coalesce(string_agg(line, E'\\n' ORDER BY line), ''), 'UTF8')), 'hex') FROM (
          SELECT p.oid || ' ' || p.xmin || ' ' || p.proowner || ' ' || pg_get_functiondef(p.oid) AS line FROM pg_proc p WHERE \(Self.isOurs(link))
          UNION ALL
          SELECT t.tgrelid || ' ' || t.xmin || ' ' || t.tgenabled::text || ' ' || t.tgisinternal || ' ' || pg_get_triggerdef(t.oid)
          FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE \(Self.isOurs(link))
          UNION ALL
          SELECT 'table ' || w.i || ' ' || v.relid FROM (VALUES \(targets)) AS w(i, oid)
          CROSS JOIN LATERAL (SELECT w.oid UNION SELECT relid::oid FROM pg_partition_tree(w.oid::regclass)) AS v(relid)
        ) AS lines
        """
    }

    /// Rows (ordinal, OID) of the link's target tables.
    var targets: String {
        let schema = connection.defaultSchemas.first ?? "public"
        let list = link.mappings.enumerated().map { ordinal, mapping in
            let name = TableName(schema: mapping.target.schema ?? schema, name: mapping.target.name)
            return "(\(ordinal), to_regclass(\(quoteLiteral(name.quoted)))::oid)"
        }
        return list.isEmpty ? "(0, NULL::oid)" : list.joined(separator: ", ")
    }

    /// The tables as they are recorded, in the order of the mappings.
    private var names: String {
        let schema = connection.defaultSchemas.first ?? "public"
        return link.mappings.enumerated().map { ordinal, mapping in
            "(\(ordinal), \(quoteLiteral(mapping.target.schema ?? schema)), \(quoteLiteral(mapping.target.name)))"
        }.joined(separator: ", ")
    }

    private static func isOurs(_ link: LinkDescription) -> String {
        "p.pronamespace = '_bridge'::regnamespace AND p.proname ~ \(quoteLiteral("^w[0-9]+_" + suffix(link) + "$"))"
    }

    private func isWhole() throws(BridgeError) -> Bool {
        let row = try connection.rows(
            """
            SELECT (SELECT key[1] FROM \(records) WHERE number = \(Self.definitionNumber)) = d AND NOT EXISTS (
              SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE \(Self.isOurs(link)) 
              AND t.tgenabled <> CASE WHEN starts_with(t.tgname::text, 'bx') THEN 'A' ELSE 'O' END)
              AND \(marks.holdsAllNumbers)
            FROM (\(definition)) AS w(d)
            """, during: "checking the watch for foreign writes")
        return row.first?[0] == "t"
    }

    private func describedKeys() throws(BridgeError) -> [[String]] {
        try connection.rows(
            "SELECT key FROM \(records) WHERE number < 0 ORDER BY number DESC", during: "reading the record of foreign writes"
        ).map { ArrayLiteral.elements($0[0]) }
    }

    // MARK: Reading

    func read(after: Int64, limit: Int) throws(BridgeError) -> [ForeignWrite] {
        let action = "reading the record of foreign writes"
        let broken = BridgeError(
            .captureBroken, "the target's triggers that watch for foreign writes are not as they were made",
            context: [.init(.migration, link.name)], hint: "run a full check again")
        return try connection.inTransaction { () throws(BridgeError) in
            guard try exists() else { throw broken }
            try connection.execute(Self.lock(link), during: action)
            if !link.mappings.isEmpty {
                // The catalog's sizes are guessed too high; compiling takes longer than all the rest.
                try connection.execute("SET LOCAL jit = off")
                try connection.execute(states.recordUnknown(into: records, names: names), during: action)
            }
            try giveNumbers()
            // Afterwards, so that what is read now was recorded by triggers that were whole all the time, or shows.
            guard try isWhole() else { throw broken }
            let largest = try marks.largestNumber()
            guard after <= largest else {
                throw BridgeError(
                    .captureBroken, "the target's record of foreign writes never held what was read from it: the target was put back",
                    context: [.init(.migration, link.name)], hint: "run a full check again")
            }
            // Most often there is nothing new, and then nothing of the keys has to be known.
            if after == largest { return [] }
            let types = try keyTypes()
            let cells = (0..<(types.values.map(\.count).max() ?? 0)).map { ", key[\($0 + 1)]" }.joined()
            return try connection.rows(
                """
                SELECT number, table_schema, table_name, array_length(key, 1), (extract(epoch FROM written_at) * 1000000)::bigint\(cells)
                FROM \(records) WHERE number > $1::bigint AND number > 0 ORDER BY number LIMIT $2::bigint
                """, ["\(after)", "\(max(0, limit))"], during: action
            ).map { (row) throws(BridgeError) in try Self.write(row, types) }
        }
    }

    /// Gives numbers to what is committed by now. For one reader at a time.
    private func giveNumbers() throws(BridgeError) {
        try connection.execute(
            """
            WITH given AS (
              UPDATE \(records) AS w SET number = n.number FROM (
                SELECT r.ctid AS place, \(marks.largest) + row_number() OVER (ORDER BY r.written_at)
                FROM \(records) AS r WHERE r.number IS NULL) AS n(place, number)
              WHERE w.ctid = n.place RETURNING w.number)
            \(marks.note("SELECT max(number) FROM given"))
            """, during: "reading the record of foreign writes")
    }

    private static func write(_ row: [String?], _ types: [TableName: [CanonicalKind]]) throws(BridgeError) -> ForeignWrite {
        let table = TableName(schema: row[1], name: row[2] ?? "")
        var key: KeyImage?
        // A key that is not whole stands for the whole table.
        if let kinds = types[table], row[3] == "\(kinds.count)", row.count >= 5 + kinds.count {
            let buffer = RecordBuffer(capacity: 256)
            buffer.beginRowImage(columns: kinds.count)
            for (cell, kind) in zip(row[5...], kinds) {
                guard var text = cell else {
                    buffer.appendCell(.null)
                    continue
                }
                let result = text.withUTF8 { (bytes) -> Result<Void, BridgeError> in
                    do throws(BridgeError) {
                        return .success(try appendCanonicalCell(UnsafeRawBufferPointer(bytes), kind, to: buffer))
                    } catch { return .failure(error) }
                }
                try result.get()
            }
            key = KeyImage(Array(buffer.bytes))
        }
        return ForeignWrite(
            number: row[0].flatMap { Int64($0) } ?? 0, table: table, key: key,
            writtenAt: row[4].flatMap { Int64($0) }.map { Timestamp(microseconds: $0) })
    }

    /// How the watched tables' key cells are read.
    private func keyTypes() throws(BridgeError) -> [TableName: [CanonicalKind]] {
        var types: [TableName: [CanonicalKind]] = [:]
        let rows = try connection.rows(
            "SELECT table_schema, table_name, key FROM \(records) WHERE number < 0", during: "reading the record of foreign writes")
        for row in rows {
            let name = TableName(schema: row[0], name: row[1] ?? "")
            guard let schema = try PostgresCatalog(connection).describeTables([name]).first else { continue }
            types[name] = ArrayLiteral.elements(row[2]).compactMap { schema.column(named: $0).map { CanonicalKind($0.type) } }
        }
        return types
    }

    // MARK: Removing

    /// Removes everything of the link's watch, inside the caller's transaction. Triggers go with their functions.
    static func remove(_ link: LinkDescription, _ connection: PostgresConnection) throws(BridgeError) {
        let action = "removing the watch for foreign writes"
        let functions = try connection.rows(
            "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = '_bridge' "
                + "AND p.proname ~ \(quoteLiteral("^w[0-9]+_" + suffix(link) + "$"))", during: action)
        if !functions.isEmpty { try connection.execute("SET LOCAL lock_timeout = '5s'") }
        for function in functions.compactMap({ $0[0] }) { try connection.execute("DROP FUNCTION \(function) CASCADE", during: action) }
        try connection.execute(
            "SET LOCAL lock_timeout = 0; DROP TABLE IF EXISTS \(table(link)), \(states(link)), \(marks(link))", during: action)
    }
}

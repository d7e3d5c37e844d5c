import BridgeCore

/// How the captured tables stand in the catalog, as far as the stream depends on it without showing it.
struct CoverageFacts: Sendable {
    struct Table: Sendable {
        /// What it is called in the configuration.
        var configured: TableName
        /// What it is called now; nil if it is gone.
        var name: TableName?
        /// Columns' numbers by their names: one that is dropped and added again has another.
        var columns: [String: Int] = [:]
        /// Columns that were dropped since capture began, in the same way.
        var dropped: [String: Int] = [:]
        /// The columns' types by their numbers: where they change, every partition may be written anew.
        var shape: [Int: [String?]] = [:]
        /// Partitions at every level, by OID.
        var partitions: [UInt32: Partition] = [:]
    }

    struct Partition: Sendable {
        var name: TableName
        /// It was there before it became a partition, and so its rows may be older.
        var wasAttached: Bool
        /// The file of one that holds rows itself.
        var file: String?
        /// The file's tablespace: a move makes another file too.
        var tablespace: String?
        /// The transaction that made it a partition.
        var attachment: String?
    }

    /// Partitions of a table that have another file than before.
    struct Rewritten {
        var root: UInt32
        var configured: TableName
        var partitions: [(oid: UInt32, name: TableName)]
        /// All that there were have one, as after a TRUNCATE of the root.
        var isWhole: Bool
    }

    private(set) var tables: [UInt32: Table] = [:]
    /// What the facts show of partitions commits before it.
    private(set) var end: UInt64 = 0
    /// The transactions that the facts show.
    private var snapshot: TransactionSnapshot

    /// Whether they show what a transaction did that has committed by now.
    func sees(_ transaction: UInt64) -> Bool { snapshot.sees(transaction) }

    /// Transactions with a lower number were over when the facts were read.
    var oldestRunning: String { String(UInt32(truncatingIfNeeded: snapshot.minimum)) }

    static func read(_ captured: [CapturedTable], _ session: PostgresConnection) throws(BridgeError) -> CoverageFacts {
        let action = "looking at the captured tables"
        let oids = ArrayLiteral.make(captured.map(\.oid))
        // One statement, and so one picture: a column's type and the files that its change wrote belong together.
        let rows = try session.rows(query, [oids], during: action)
        guard let text = rows.first(where: { $0[0] == "snapshot" })?[5], let snapshot = TransactionSnapshot(text) else {
            throw BridgeError(.serverRefused, "the server did not describe its snapshot")
        }
        var facts = CoverageFacts(snapshot: snapshot)
        for table in captured { facts.tables[table.oid] = Table(configured: table.schema.name) }
        for row in rows {
            guard let root = row[1].flatMap({ UInt32($0) }), let schema = row[3], let relation = row[4] else { continue }
            let name = TableName(schema: schema, name: relation)
            if row[0] == "column" {
                guard let column = row[5], let number = row[6].flatMap({ Int($0) }) else { continue }
                facts.tables[root]?.name = name
                facts.tables[root]?.columns[column] = number
                facts.tables[root]?.shape[number] = [row[7], row[8]]
            } else {
                guard let oid = row[2].flatMap({ UInt32($0) }) else { continue }
                facts.tables[root]?.partitions[oid] = Partition(
                    name: name, wasAttached: row[5] == "true", file: row[6], tablespace: row[7], attachment: row[9])
                // Read while the query runs, and so after what it shows.
                facts.end = max(facts.end, row[8].flatMap { UInt64($0) } ?? .max)
            }
        }
        return facts
    }

    /// The columns of the tables, and their partitions at every level. Without pg_partition_tree(), which would wait for
    /// DDL. The row of a table's system column is written once, with the table.
    private static let query = """
        WITH RECURSIVE tree(root, oid, attached, attachment) AS (
          SELECT c.oid, c.oid, false, NULL FROM pg_class c WHERE c.oid = ANY ($1::oid[]) AND c.relkind = 'p'
          UNION ALL
          SELECT t.root, i.inhrelid, i.xmin <> y.xmin, i.xmin::text
          FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
          JOIN pg_attribute y ON y.attrelid = c.oid AND y.attnum = -1)
        SELECT 'column', c.oid, NULL, n.nspname, c.relname, a.attname::text, a.attnum::text, a.atttypid::text, a.atttypmod::text, NULL
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.oid = ANY ($1::oid[])
        UNION ALL
        SELECT 'partition', t.root, t.oid, n.nspname, c.relname, t.attached::text, nullif(c.relfilenode, 0)::text,
          c.reltablespace::text, (pg_current_wal_insert_lsn() - '0/0')::text, t.attachment
        FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.oid <> t.root
        UNION ALL
        SELECT 'snapshot', NULL, NULL, NULL, NULL, pg_current_snapshot()::text, NULL, NULL, NULL, NULL
        """

    /// What has happened since that the stream does not tell; nil if nothing has.
    func obstacle(_ now: CoverageFacts) -> BridgeError? {
        for (oid, before) in tables {
            guard let after = now.tables[oid] else { continue }
            if let name = after.name, name != before.configured {
                return Self.renamed(before.configured, name, isTaken: now.tables.values.contains { $0.name == before.configured })
            }
            let known = before.columns.merging(before.dropped) { current, _ in current }
            if let column = known.first(where: { name, number in after.columns[name].map { $0 != number } ?? false }) {
                // Names that were swapped or handed on come with the stream; only a new column under an old name does not.
                let isNew = !before.columns.values.contains(after.columns[column.key] ?? 0)
                if isNew { return Self.unseen("a column was made anew on the source, and what it holds in older rows is not in the stream", before.configured, column.key) }
            }
            if let gone = before.partitions.first(where: { after.partitions[$0.key] == nil }) {
                return Self.unseen(
                    "a partition was detached or dropped on the source, and its rows left without a change in the stream",
                    before.configured, nil, gone.value.name)
            }
            if let again = after.partitions.first(where: { oid, new in
                before.partitions[oid].map { $0.attachment != new.attachment } ?? false
            }) {
                return Self.unseen(
                    "a partition was detached and attached again on the source, and what happened to its rows meanwhile is not in the stream",
                    before.configured, nil, again.value.name)
            }
            if let new = after.partitions.first(where: { before.partitions[$0.key] == nil && $0.value.wasAttached }) {
                return Self.unseen(
                    "a table was attached as a partition on the source, and the rows that it brought are not in the stream", before.configured,
                    nil, new.value.name)
            }
        }
        return nil
    }

    /// The partitions that have been written anew since, for whatever reason but a move to another tablespace or a change of
    /// the whole table's columns.
    func rewritten(_ now: CoverageFacts) -> [Rewritten] {
        tables.compactMap { oid, before in
            guard let after = now.tables[oid], after.shape == before.shape else { return nil }
            let leaves = before.partitions.filter { $0.value.file != nil }
            let moved = leaves.filter { oid, partition in
                after.partitions[oid].map { $0.file != partition.file && $0.tablespace == partition.tablespace } ?? false
            }
            guard !moved.isEmpty else { return nil }
            return Rewritten(
                root: oid, configured: before.configured,
                partitions: moved.map { ($0.key, after.partitions[$0.key]?.name ?? $0.value.name) },
                isWhole: moved.count == leaves.count)
        }
    }

    /// The same, with the columns that were there before and are not any more: one may come again under its name.
    func keepingDroppedColumns(of before: CoverageFacts) -> CoverageFacts {
        var facts = self
        for (oid, table) in before.tables {
            guard let after = facts.tables[oid] else { continue }
            let numbers = Set(after.columns.values)
            facts.tables[oid]?.dropped = table.dropped.merging(table.columns.filter { !numbers.contains($0.value) }) { _, new in new }
        }
        return facts
    }

    /// A partition whose rows left without their root's.
    static func emptied(_ configured: TableName, _ partition: TableName) -> BridgeError {
        unseen("a partition was truncated or written anew by itself on the source, which is not in the stream", configured, nil, partition)
    }

    /// A captured table that is no longer called what the configuration calls it.
    /// - Parameter isTaken: another table has its name.
    static func renamed(_ configured: TableName, _ name: TableName, isTaken: Bool = false) -> BridgeError {
        let back =
            name.schema == configured.schema
            ? "RENAME TO \(quoteIdentifier(configured.name))" : "SET SCHEMA \(quoteIdentifier(configured.schema ?? "public"))"
        return BridgeError(
            .tableMissing, "the table was renamed on the source",
            context: [.init(.table, configured.description), .init(.detail, "now \(name)")],
            hint: "\(isTaken ? "rename the table that has that name now, and " : "")ALTER TABLE \(name.quoted) \(back), then run the command again: nothing is lost meanwhile")
    }

    private static func unseen(_ message: String, _ configured: TableName, _ column: String?, _ partition: TableName? = nil) -> BridgeError {
        var context = [ErrorContext(.table, configured.description)]
        if let column { context.append(.init(.column, column)) }
        if let partition { context.append(.init(.detail, "partition \(partition)")) }
        return BridgeError(.changesUnseen, message, context: context)
    }
}

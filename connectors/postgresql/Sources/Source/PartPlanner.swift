import BridgeCore

/// Blocks of a table: a row version that a snapshot sees stands in one block as long as the table is not rewritten.
struct BlockRange: Hashable, Sendable {
    var relation: UInt32
    /// nil for the table's first.
    var first: UInt32?
    /// The block behind the last; nil where the table's end is, however it has grown.
    var end: UInt32?

    /// Conditions that a range scan of TIDs fulfils.
    var conditions: [String] {
        (first.map { ["ctid >= '(\($0),0)'::tid"] } ?? []) + (end.map { ["ctid < '(\($0),0)'::tid"] } ?? [])
    }

    /// `16384:0-128`, either number missing where the range is open.
    var text: String { "\(relation):\(first.map(String.init) ?? "")-\(end.map(String.init) ?? "")" }

    /// The ranges of a part; none for the whole table.
    static func ranges(_ locator: String) throws(BridgeError) -> [BlockRange] {
        var ranges: [BlockRange] = []
        for word in locator.split(separator: ",") {
            let sides = word.split(separator: ":", omittingEmptySubsequences: false)
            let bounds = sides.last?.split(separator: "-", omittingEmptySubsequences: false) ?? []
            guard sides.count == 2, bounds.count == 2, let relation = UInt32(sides[0]),
                let first = bound(bounds[0]), let end = bound(bounds[1])
            else { throw BridgeError(.internalFault, "a part of a table cannot be read") }
            ranges.append(BlockRange(relation: relation, first: first, end: end))
        }
        return ranges
    }

    /// nil for what is no number; nil inside for an open end.
    private static func bound(_ text: Substring) -> UInt32?? {
        if text.isEmpty { return .some(nil) }
        return UInt32(text).map { .some($0) }
    }
}

/// Cuts tables into parts by their blocks, partitions each by themselves.
struct PartPlanner: Sendable {
    /// A part of this size keeps a worker busy for a second or more; so many of them are not worth more sessions.
    static let maximumParts = 1_000
    /// Small partitions that are read by one statement.
    private static let maximumPieces = 100

    var partBytes: Int64

    /// A table with rows of its own: the table itself, or a partition.
    struct Relation: Hashable, Sendable {
        var oid: UInt32
        /// With its TOASTed values.
        var bytes: Int64
        var blocks: UInt32
        /// Whether its rows can be found by block.
        var hasBlocks: Bool
    }

    /// - Parameter relations: those that hold a table's rows, each of which may be read by itself.
    func parts(_ relations: [Relation]) -> [CopyPart] {
        let total = relations.reduce(0) { $0 + $1.bytes }
        let size = max(1, partBytes, total / Int64(Self.maximumParts))
        guard total > size else { return [.whole(bytes: total)] }
        var parts: [CopyPart] = []
        var pieces: [BlockRange] = []
        var bytes: Int64 = 0
        func close() {
            guard !pieces.isEmpty else { return }
            let locator = pieces.map(\.text).joined(separator: ",")
            parts.append(CopyPart(number: parts.count, locator: locator, bytes: bytes))
            (pieces, bytes) = ([], 0)
        }
        for relation in relations {
            let count = relation.hasBlocks ? min((relation.bytes + size - 1) / size, Int64(relation.blocks)) : 1
            guard count > 1 else {
                if bytes + relation.bytes > size || pieces.count >= Self.maximumPieces { close() }
                pieces.append(BlockRange(relation: relation.oid))
                bytes += relation.bytes
                continue
            }
            close()
            for number in 0..<count {
                let first = UInt32(Int64(relation.blocks) * number / count)
                let end = UInt32(Int64(relation.blocks) * (number + 1) / count)
                pieces = [
                    BlockRange(
                        relation: relation.oid, first: number == 0 ? nil : first, end: number == count - 1 ? nil : end)
                ]
                bytes = relation.bytes / count
                close()
            }
        }
        close()
        // A single one that holds all is read in the simplest way.
        return parts.count > 1 ? parts : [.whole(bytes: total)]
    }

    /// Looks the tables up in the snapshot: the partitions are those that it shows. A size is that of now, which is not
    /// less than what the snapshot shows unless the table was cut, and then what is left is what counts.
    func plan(_ tables: [CopiedTable], _ connection: PostgresConnection) throws(BridgeError) -> [[CopyPart]] {
        try connection.execute("SET LOCAL lock_timeout = '5s'")
        let rows = try connection.rows(
            Self.query, [ArrayLiteral.make(tables.map { $0.schema.name.quoted })], during: "looking at the tables' sizes")
        var relations = [[Relation]](repeating: [], count: tables.count)
        var isWhole = [Bool](repeating: false, count: tables.count)
        for row in rows {
            guard row.count == 6, let table = row[0].flatMap({ Int($0) }), relations.indices.contains(table - 1),
                let oid = row[1].flatMap({ UInt32($0) })
            else { continue }
            relations[table - 1].append(
                Relation(
                    oid: oid, bytes: row[2].flatMap { Int64($0) } ?? 0, blocks: row[3].flatMap { UInt32($0) } ?? 0,
                    hasBlocks: row[4] == "t"))
            if row[5] != "t" { isWhole[table - 1] = true }
        }
        var plans: [[CopyPart]] = []
        for (table, found) in relations.enumerated() {
            let total = found.reduce(0) { $0 + $1.bytes }
            plans.append(isWhole[table] || found.isEmpty ? [.whole(bytes: total)] : parts(found))
        }
        return plans
    }

    /// One row for each relation with rows: table, OID, size, blocks, whether it is cut by blocks, whether the role may
    /// read it by itself. ctid can be read by whoever may read the whole table only.
    private static let query = """
        WITH RECURSIVE seen(root, oid, relkind, relam) AS (
          SELECT k.root, c.oid, c.relkind, c.relam
          FROM unnest($1::text[]) WITH ORDINALITY AS k(name, root) JOIN pg_class c ON c.oid = to_regclass(k.name)
          UNION ALL
          SELECT s.root, c.oid, c.relkind, c.relam
          FROM seen s
          JOIN pg_inherits i ON s.relkind = 'p' AND i.inhparent = s.oid AND NOT i.inhdetachpending
          JOIN pg_class c ON c.oid = i.inhrelid)
        SELECT root, oid, coalesce(pg_table_size(oid), 0),
          coalesce(pg_relation_size(oid), 0) / current_setting('block_size')::int8,
          relkind = 'r' AND relam = 2, has_table_privilege(oid, 'SELECT') AND NOT row_security_active(oid)
        FROM seen WHERE relkind <> 'p' ORDER BY root, oid
        """
}

import BridgeCore

extension ComparisonQuery {
    /// Pages of a table, with its partitions; the tree of a table that has none is empty.
    static let pages = """
        SELECT coalesce(sum(pg_catalog.pg_relation_size(relid)), 0)::pg_catalog.int8
            / current_setting('block_size')::pg_catalog.int8
        FROM (SELECT $1::pg_catalog.oid::pg_catalog.regclass UNION
            SELECT relid FROM pg_catalog.pg_partition_tree($1::pg_catalog.oid)) AS t(relid)
        """

    /// The keys of rows drawn at random.
    ///
    /// Rows of one page are neighbours, so many more pages are drawn than are needed, and of the rows in them only a few. A
    /// small table is read whole. No index is needed, and no column but those of the key is read.
    func draw(_ count: Int, seed: UInt64, pages: Int64) -> String {
        let wanted = 4 * Int64(clamping: count)
        let percent = pages <= wanted ? 100 : 100 * Double(wanted) / Double(pages)
        let only = (table.isPartitioned ? "" : "ONLY ") + table.name.quoted
        // REPEATABLE takes a double, hashes a signed number.
        let (sampling, hashing) = (seed >> 12, Int64(bitPattern: seed))
        let rows = """
            (SELECT *, pg_catalog.hashtidextended(ctid, \(hashing)) OPERATOR(pg_catalog.#) \
            pg_catalog.hashoidextended(tableoid, \(hashing)) AS "bridge order" \
            FROM \(only) TABLESAMPLE system (\(percent)) REPEATABLE (\(sampling))\(rowFilter.map { " WHERE (\($0))" } ?? "")) AS s
            """
        let cells = table.identity.map { BinaryRows.expression($0.column, of: "s") }.joined(separator: ", ")
        return "SELECT \(cells) FROM \(rows) ORDER BY s.\"bridge order\" LIMIT \(count)"
    }
}

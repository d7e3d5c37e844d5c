import BridgeCore
import Synchronization

/// What the catalog said of tables in earlier views of a session, so that a view that looks up a few rows need not read all
/// of it again. What a table is read from has a signature, which is asked for in each view's own snapshot; only what bears
/// the same one is taken.
final class KnownTables: Sendable {
    private struct Known {
        var signature: String
        var table: ComparedTable
    }
    private let tables = Mutex<[ComparisonLayout: Known]>([:])

    /// The table of a layout as the connection's snapshot has it; nil if it is not there.
    func table(_ layout: ComparisonLayout, _ connection: PostgresConnection) throws(BridgeError) -> ComparedTable? {
        let signature = try Self.signature(layout.table, connection)
        let known = tables.withLock { $0[layout] }
        if let known, known.signature == signature { return known.table }
        guard let table = try ComparedTable.read(layout.table, connection, choose: { _ in layout.columns }) else { return nil }
        if let signature { tables.withLock { $0[layout] = Known(signature: signature, table: table) } }
        return table
    }

    /// Which versions of catalog rows tell what the table is: the transactions that wrote those of its columns, its indexes and
    /// the types that are in use. Not that of the table's own row, which a fence's first trigger writes anew; what it says of
    /// the table stands here itself. Nil if the snapshot has no such table.
    private static func signature(_ name: TableName, _ connection: PostgresConnection) throws(BridgeError) -> String? {
        try connection.rows(
            """
            SELECT concat_ws('/', c.oid, c.relnamespace, c.relname, c.relkind, c.relispartition,
              (SELECT string_agg(a.attnum || ' ' || a.xmin, ',' ORDER BY a.attnum) FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum > 0),
              'indexes', (SELECT string_agg(i.indexrelid || ' ' || i.xmin, ',' ORDER BY i.indexrelid) FROM pg_index i WHERE i.indrelid = c.oid),
              'types', (\(TypesInUse.with("c.oid")) SELECT string_agg(t.oid || ' ' || t.xmin, ',' ORDER BY t.oid)
               FROM pg_type t WHERE t.oid IN (SELECT oid FROM used) AND t.oid >= 16384))
            FROM pg_class c WHERE c.oid = to_regclass($1)
            """, [name.quoted], during: "reading the catalog"
        ).first?[0]
    }
}

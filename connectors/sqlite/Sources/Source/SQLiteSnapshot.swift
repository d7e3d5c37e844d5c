package import BridgeCore

/// The picture that tables are copied from. Each table's reader has a snapshot and a position of its own, shared with the
/// log's tail.
package struct SQLiteSnapshot: SourceSnapshot {
    let path: String
    let link: LinkDescription

    package func openTable(
        _ table: TableSchema, mapping: TableMapping, part: CopyPart, format: CopyFormat
    ) async throws(BridgeError) -> any CopyReader {
        guard format == .rows else {
            throw BridgeError(.internalFault, "SQLite gives tables as rows only", context: [.init(.option, format.rawValue)])
        }
        return try await SQLiteCopyReader.open(path: path, link: link, mapping: mapping)
    }

    package func close() async {}
}

import BridgeCore

/// Derives target tables from a source's. Placeholder shape for the first build.
struct SchemaPlanner {
    let connection: PostgresConnection
    func plan(for sources: [TableSchema], mappings: [TableMapping]) throws(BridgeError) -> SchemaPlan { SchemaPlan() }
}

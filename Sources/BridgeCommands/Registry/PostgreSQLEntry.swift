import BridgeCore
import BridgePostgreSQL

extension EngineName {
    static let postgresql = EngineName(rawValue: "postgresql")
}

extension ConnectorRegistry.Entry {
    /// `postgresql://user@host:port/database?parameters`, as libpq reads it.
    static let postgresql = ConnectorRegistry.Entry(
        engine: .postgresql, schemes: ["postgresql", "postgres"], example: "postgresql://user@host:5432/database",
        hasSchemas: true,
        parseAddress: { text, _ throws(BridgeError) in
            guard text.contains("://") else {
                throw BridgeError(
                    .configurationInvalid, "a PostgreSQL address needs '//' behind its scheme",
                    hint: "write postgresql://user@host:5432/database")
            }
            return DatabaseAddress(
                engine: .postgresql, connection: text, masked: ConnectionURL.masked(text))
        },
        makeSource: { address throws(BridgeError) in try PostgresSource(connectionString: address.connection) },
        makeTarget: { PostgresTarget(connectionString: $0.connection) })
}

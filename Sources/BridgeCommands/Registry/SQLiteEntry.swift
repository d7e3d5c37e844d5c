import BridgeCore
import BridgeSQLite

extension EngineName {
    static let sqlite = EngineName(rawValue: "sqlite")
}

extension ConnectorRegistry.Entry {
    /// `sqlite:file.db` or `sqlite:/absolute/file.db`.
    static let sqlite = ConnectorRegistry.Entry(
        engine: .sqlite, schemes: ["sqlite"], example: "sqlite:file.db", hasSchemas: false,
        parseAddress: { text, directory throws(BridgeError) in
            let path = String(text.drop { $0 != ":" }.dropFirst())
            guard !path.isEmpty, path != ":memory:", !path.hasSuffix("/"),
                !path.hasPrefix("//") || path.hasPrefix("///")
            else {
                throw BridgeError(
                    .configurationInvalid, "a SQLite address must name a file",
                    hint: "write sqlite:file.db or sqlite:/absolute/file.db")
            }
            let file = absolute(path, in: directory)
            return DatabaseAddress(engine: .sqlite, connection: file, masked: "sqlite:\(file)")
        },
        makeSource: { SQLiteSource(path: $0.connection) },
        makeTarget: { SQLiteTarget(path: $0.connection) })
}

package import BridgeCore

/// An engine as the conformance suite sees it: how to get an empty database, both connectors for it, and tools that are
/// independent of them. A new engine adds one value of a type like this to the tests' list and runs the whole suite,
/// with itself and with every other engine on the other side.
package protocol ConformanceEngine: Sendable, CustomStringConvertible {
    /// Makes an empty database.
    func makeDatabase() async throws -> any ConformanceDatabase
}

/// One database, spoken to with tools that share nothing with the connectors.
package protocol ConformanceDatabase: Sendable {
    /// As in bridge.yaml.
    var url: String { get }
    func makeSource() throws -> any SourceConnector
    func makeTarget() throws -> any TargetConnector
    /// The name under which the connectors know a table that was created without a schema.
    func tableName(_ name: String) -> TableName
    /// Creates the table.
    func create(_ table: ConformanceTable) async throws
    /// Runs statements in the SQL that both engines read, `BEGIN` and `COMMIT` included.
    func execute(_ sql: String) async throws
    /// All rows, each as its cells in canonical text (`i:1`, `t:text`, `x:00ff`, `r:3ff0000000000000`, `null`) joined by
    /// tabs, sorted.
    func rows(_ table: ConformanceTable) async throws -> [String]
    /// What bridge has left in the database: names of its tables, triggers, slots, publications, origins.
    func traces() async throws -> [String]
    /// Writes a marker as an independent tool would, in a transaction of its own, for a link that comes from this database.
    func writeMarker(_ marker: String, _ link: LinkDescription) async throws
    /// Removes the database and what the server keeps for it.
    func discard() async throws
}

/// A table of the suite.
package struct ConformanceTable: Sendable {
    package enum Kind: Sendable { case integer, text, bytes, real }
    package struct Column: Sendable {
        package let name: String
        package let kind: Kind
        package let isRequired: Bool
    }
    package let name: String
    package let columns: [Column]
    package let key: [String]
    package let unique: [[String]]

    package init(_ name: String, _ columns: [(String, Kind)], key: [String], required: [String] = [], unique: [[String]] = []) {
        self.name = name
        self.columns = columns.map { .init(name: $0, kind: $1, isRequired: key.contains($0) || required.contains($0)) }
        self.key = key
        self.unique = unique
    }

    /// The CREATE TABLE with the engine's own type names.
    package func definition(_ typeName: (Kind) -> String) -> String {
        var parts = columns.map {
            "\(quoteIdentifier($0.name)) \(typeName($0.kind))\($0.isRequired ? " NOT NULL" : "")"
        }
        parts.append("PRIMARY KEY (\(key.map(quoteIdentifier).joined(separator: ", ")))")
        for columns in unique { parts.append("UNIQUE (\(columns.map(quoteIdentifier).joined(separator: ", ")))") }
        return "CREATE TABLE \(quoteIdentifier(name)) (\(parts.joined(separator: ", ")))"
    }

    /// One integer key.
    package static let accounts = ConformanceTable(
        "accounts", [("id", .integer), ("email", .text), ("balance", .integer), ("note", .text)], key: ["id"],
        required: ["email"], unique: [["email"]])
    /// A composite key, bytes and floats.
    package static let items = ConformanceTable(
        "items", [("a", .integer), ("b", .text), ("data", .bytes), ("price", .real)], key: ["a", "b"])
    /// A text key, and names that must be quoted.
    package static let odd = ConformanceTable(
        "Order \"x\"", [("select", .text), ("Ünï code", .integer), ("data", .text)], key: ["select"])
    package static let all = [accounts, items, odd]
}

package import BridgeCore

/// Every connector that the product has. A new engine is one more entry here; nothing else in the commands knows engines.
package struct ConnectorRegistry: Sendable {
    /// One engine.
    package struct Entry: Sendable {
        package var engine: EngineName
        /// The schemes by which an address names the engine.
        package var schemes: [String]
        /// An address for messages.
        package var example: String
        /// Whether a table's name may have a schema before it.
        package var hasSchemas: Bool
        /// Reads an address; the second argument is the directory of relative paths.
        package var parseAddress: @Sendable (String, String) throws(BridgeError) -> DatabaseAddress
        package var makeSource: @Sendable (DatabaseAddress) throws(BridgeError) -> any SourceConnector
        package var makeTarget: @Sendable (DatabaseAddress) throws(BridgeError) -> any TargetConnector

        package init(
            engine: EngineName, schemes: [String], example: String, hasSchemas: Bool,
            parseAddress: @escaping @Sendable (String, String) throws(BridgeError) -> DatabaseAddress,
            makeSource: @escaping @Sendable (DatabaseAddress) throws(BridgeError) -> any SourceConnector,
            makeTarget: @escaping @Sendable (DatabaseAddress) throws(BridgeError) -> any TargetConnector
        ) {
            self.engine = engine
            self.schemes = schemes
            self.example = example
            self.hasSchemas = hasSchemas
            self.parseAddress = parseAddress
            self.makeSource = makeSource
            self.makeTarget = makeTarget
        }
    }

    package var entries: [Entry]

    package init(entries: [Entry]) { self.entries = entries }

    package static let standard = ConnectorRegistry(entries: [.postgresql, .sqlite])

    package func entry(scheme: String) -> Entry? { entries.first { $0.schemes.contains(scheme.lowercased()) } }

    package func hasSchemas(_ engine: EngineName) -> Bool { entries.first { $0.engine == engine }?.hasSchemas ?? true }

    package func source(_ address: DatabaseAddress) throws(BridgeError) -> any SourceConnector {
        try entry(of: address).makeSource(address)
    }

    package func target(_ address: DatabaseAddress) throws(BridgeError) -> any TargetConnector {
        try entry(of: address).makeTarget(address)
    }

    private func entry(of address: DatabaseAddress) throws(BridgeError) -> Entry {
        guard let entry = entries.first(where: { $0.engine == address.engine }) else {
            throw BridgeError(.internalFault, "no connector is registered for \(address.engine)")
        }
        return entry
    }
}

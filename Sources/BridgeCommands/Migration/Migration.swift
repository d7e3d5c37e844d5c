import BridgeCore

/// A configured migration with its two connectors.
struct Migration: Sendable {
    let configuration: Configuration
    let source: any SourceConnector
    let target: any TargetConnector

    init(_ configuration: Configuration, registry: ConnectorRegistry) throws(BridgeError) {
        self.configuration = configuration
        source = try registry.source(configuration.source)
        target = try registry.target(configuration.target)
    }

    var directory: DataDirectory { DataDirectory(configuration.dataDirectory) }

    /// The forward link with the tables' full names, and the tables as the source describes them.
    struct Link: Sendable {
        var description: LinkDescription
        var sources: [TableSchema]
    }

    /// Connects both ends and finds the tables.
    func open() async throws(BridgeError) -> Link {
        try await source.connect()
        try await target.connect()
        var link = try await resolveSource()
        try await resolveTarget(&link.description)
        return link
    }

    func close() async {
        await source.close()
        await target.close()
    }

    /// Looks the tables up on the source, which must be connected.
    /// - Throws: `tableMissing`; `configurationInvalid` where two entries turn out to be one table.
    func resolveSource() async throws(BridgeError) -> Link {
        var description = configuration.link()
        let wanted = description.mappings.map(\.source)
        let found = Self.match(wanted, try await source.describeTables(wanted))
        var sources: [TableSchema] = []
        for (index, schema) in found.enumerated() {
            guard let schema else { throw await missing(wanted[index]) }
            guard !sources.contains(where: { $0.name == schema.name }) else {
                throw BridgeError(
                    .configurationInvalid, "two entries under services name one table",
                    context: [.init(.table, schema.name.description)], hint: "remove one of them from bridge.yaml")
            }
            description.mappings[index].source = schema.name
            sources.append(schema)
        }
        return Link(description: description, sources: sources)
    }

    /// Gives the target tables that exist their full names; the others keep the names of the file.
    func resolveTarget(_ link: inout LinkDescription) async throws(BridgeError) {
        let wanted = link.mappings.map(\.target)
        for (index, schema) in Self.match(wanted, try await target.describeTables(wanted)).enumerated() {
            if let schema { link.mappings[index].target = schema.name }
        }
    }

    /// Puts what a connector found, which comes in order but without what is missing, beside what was asked for.
    static func match(_ wanted: [TableName], _ found: [TableSchema]) -> [TableSchema?] {
        var rest = found[...]
        return wanted.map { name in
            guard let next = rest.first else { return nil }
            let isSame =
                next.name.name.lowercased() == name.name.lowercased()
                && (name.schema == nil || name.schema == next.name.schema)
            // An engine that folds names may answer `users` for `Users`, but not where `users` was asked for as well.
            guard isSame, next.name.name == name.name || !wanted.contains(where: { $0.name == next.name.name }) else {
                return nil
            }
            rest.removeFirst()
            return next
        }
    }

    private func missing(_ name: TableName) async -> BridgeError {
        var hint: String?
        if let all = try? await source.listTables() {
            let names = all.map { name.schema == nil ? $0.name.name : $0.name.description }
            hint = nearestName(to: name.description, in: names).map {
                "write '\($0)' under services, or create the table"
            }
        }
        return BridgeError(
            .tableMissing, "a table of the migration is not on the source",
            context: [.init(.table, name.description), .init(.server, source.displayName)], hint: hint)
    }
}

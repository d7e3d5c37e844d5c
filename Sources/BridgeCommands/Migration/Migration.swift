import BridgeCore
import BridgeReplication

/// A configured migration with the two connectors of one of its directions.
struct Migration: Sendable {
    let configuration: Configuration
    let registry: ConnectorRegistry
    let direction: LinkDescription.Direction
    /// Where the changes of this direction come from: on the way back, the migration's target.
    let source: any SourceConnector
    /// Where they go to: on the way back, the migration's source.
    let target: any TargetConnector

    init(
        _ configuration: Configuration, registry: ConnectorRegistry, direction: LinkDescription.Direction = .forward
    ) throws(BridgeError) {
        self.configuration = configuration
        self.registry = registry
        self.direction = direction
        let isForward = direction == .forward
        source = try registry.source(isForward ? configuration.source : configuration.target)
        target = try registry.target(isForward ? configuration.target : configuration.source)
    }

    /// The other direction, with connectors of its own.
    func reversed() throws(BridgeError) -> Migration {
        try Migration(configuration, registry: registry, direction: direction == .forward ? .reverse : .forward)
    }

    var directory: DataDirectory { DataDirectory(configuration.dataDirectory) }

    /// How the direction's link is run: by `LinkRunner`, or, before that, by `ReversePreparation`.
    /// - Parameters:
    ///   - mayBegin: whether a link that is not there is begun.
    ///   - mayDropSlot: whether the capture may be given up at the slot's limit; never that of the way back, nor, while
    ///     there is one, that of the way forward, by which a rollback is taken back.
    func linkConfiguration(
        _ link: Link, mayBegin: Bool = true, mayDropSlot: @escaping @Sendable () -> Bool = { false }
    ) -> LinkConfiguration {
        let replication = configuration.replication
        let limit = SlotLimit(
            bytes: replication.slotRetainedLimit, action: direction == .forward ? replication.atSlotLimit : .hold,
            recordFile: directory.slotFile(direction), mayDrop: mayDropSlot)
        return LinkConfiguration(
            link: link.description, journalDirectory: directory.journalDirectory(direction),
            captureDirectory: directory.captureDirectory(direction), batchBytes: replication.batchBytes,
            copyJobs: replication.copyJobs, copyPartBytes: replication.copyPartBytes,
            dropsIndexesForCopy: replication.copyIndexes == .after, journalBudget: replication.journalBudget,
            journalKeep: replication.journalKeep, mayBegin: mayBegin, slotLimit: limit,
            onConflict: replication.onConflict, conflicts: ConflictFiles(directory: directory.conflictDirectory(direction)))
    }

    /// The direction's link with the tables' full names, and the tables as its source describes them.
    struct Link: Sendable {
        var description: LinkDescription
        var sources: [TableSchema]
    }

    /// Connects both ends and finds the tables.
    func open() async throws(BridgeError) -> Link {
        try await source.connect()
        try await target.connect()
        guard direction == .forward else { return try await resolveReverse() }
        var link = try await resolveSource()
        try await resolveTarget(&link.description)
        return link
    }

    /// The way forward by the file's names, of tables that the source does not have under these any more. Both ends are
    /// connected.
    func openByNames() async throws(BridgeError) -> Link {
        var description = configuration.link()
        try await resolveTarget(&description)
        return Link(description: description, sources: [])
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

    /// The way back, from the same names. Its source is the migration's target.
    private func resolveReverse() async throws(BridgeError) -> Link {
        var forward = configuration.link()
        var tables: (sources: [TableSchema], targets: [TableSchema]) = ([], [])
        let sources = forward.mappings.map(\.source), targets = forward.mappings.map(\.target)
        for (index, found) in Self.match(sources, try await target.describeTables(sources)).enumerated() {
            guard let found else { throw Self.missing(sources[index], on: target) }
            forward.mappings[index].source = found.name
            tables.sources.append(found)
        }
        for (index, found) in Self.match(targets, try await source.describeTables(targets)).enumerated() {
            guard let found else { throw Self.missing(targets[index], on: source) }
            forward.mappings[index].target = found.name
            tables.targets.append(found)
        }
        return Link(
            description: forward.reversed(sources: tables.sources, targets: tables.targets), sources: tables.targets)
    }

    private static func missing(_ name: TableName, on database: any Connector) -> BridgeError {
        BridgeError(
            .tableMissing, "a table of the migration is not there",
            context: [.init(.table, name.description), .init(.server, database.displayName)])
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

import BridgeCore
import BridgeCutover

/// Where the application writes to each table now, as the cutover's ledger tells it.
struct WritingSides: Hashable, Sendable {
    private enum Part: Hashable, Sendable {
        case all
        case these([TableName])
    }
    /// The source tables of each link that the application writes to; none of a direction that is not in it.
    private var parts: [LinkDirection: Part]

    /// All on one side.
    init(_ side: Side) { parts = [side == .source ? .forward : .reverse: .all] }

    init(phases: [String: ServicePhase], services: [CutoverService]) {
        func written(_ side: Side) -> [CutoverService] { services.filter { (phases[$0.name] ?? .syncing).writes == side } }
        let (here, there) = (written(.source), written(.target))
        self.init(there.isEmpty ? .source : .target)
        guard !here.isEmpty, !there.isEmpty else { return }
        parts = [.forward: .these(here.flatMap(\.tables).map(\.source)), .reverse: .these(there.flatMap(\.tables).map(\.target))]
    }

    /// The directions that lead away from where something is written.
    var directions: [LinkDirection] { [.forward, .reverse].filter { parts[$0] != nil } }

    /// Nil for all of the link.
    func tables(_ direction: LinkDirection) -> [TableName]? {
        switch parts[direction] {
        case .all: nil
        case .these(let names): names
        case nil: []
        }
    }

    /// Reads it from the target.
    /// - Returns: nil while an attempt is under way: what is written where may change at any moment then.
    static func read(
        _ configuration: Configuration, _ registry: ConnectorRegistry
    ) async throws(BridgeError) -> WritingSides? {
        let migration = try Migration(configuration, registry: registry)
        let result: Result<WritingSides?, BridgeError>
        do throws(BridgeError) { result = .success(try await read(migration, try await migration.open().description)) } catch { result = .failure(error) }
        await migration.close()
        return try result.get()
    }

    /// The same over connections that are open.
    static func read(_ migration: Migration, _ link: LinkDescription) async throws(BridgeError) -> WritingSides? {
        let session = try await migration.target.openCutover(migration: migration.configuration.migration)
        let entries: Result<[LedgerEntry], BridgeError>
        do throws(BridgeError) { entries = .success(try await session.ledger()) } catch { entries = .failure(error) }
        await session.close()
        let ledger = try Ledger(try entries.get())
        guard ledger.attempt == nil, ledger.isClosing == nil else { return nil }
        return WritingSides(phases: ledger.phases, services: migration.configuration.cutoverServices(link))
    }
}

extension Configuration {
    /// The services with the tables' full names, which stand in the order of the configuration.
    func cutoverServices(_ link: LinkDescription) -> [CutoverService] {
        var rest = link.mappings[...]
        return services.map { service in
            let tables = Array(rest.prefix(service.tables.count))
            rest = rest.dropFirst(service.tables.count)
            return CutoverService(name: service.name, tables: tables)
        }
    }
}

import BridgeCore
import Logging

/// What the tables were defined as when a check began. A side that would not tell is empty, and the check goes on: gates
/// that would rest on it stay shut.
struct CheckedSchemas: Codable, Sendable {
    /// By the table's name.
    private var source: [String: String] = [:]
    private var target: [String: String] = [:]

    init() {}

    func source(_ mapping: TableMapping) -> String? { source[mapping.source.description] }
    func target(_ mapping: TableMapping) -> String? { target[mapping.target.description] }

    static func read(
        _ link: LinkDescription, _ options: CheckOptions, source: any SourceConnector, target: any TargetConnector,
        logger: Logger
    ) async -> CheckedSchemas {
        let mappings = link.mappings.filter { options.tables?.contains($0.source) ?? true }
        async let there = read(mappings.map(\.target), link, target, logger)
        let here = await read(mappings.map(\.source), link, source, logger)
        var schemas = CheckedSchemas()
        (schemas.source, schemas.target) = (here, await there)
        return schemas
    }

    private static func read(
        _ tables: [TableName], _ link: LinkDescription, _ side: any Connector, _ logger: Logger
    ) async -> [String: String] {
        do throws(BridgeError) {
            let session = try await side.openCutover(migration: link.migration)
            let found: Result<[TableName: String], BridgeError>
            do throws(BridgeError) { found = .success(try await session.schemaFingerprints(of: tables)) } catch { found = .failure(error) }
            await session.close()
            return Dictionary(uniqueKeysWithValues: try found.get().map { ($0.key.description, $0.value) })
        } catch {
            logger.warning("what the tables are defined as cannot be read, so no gate can rest on this check: \(error.message)")
            return [:]
        }
    }
}

extension CheckSession {
    func note(_ schemas: CheckedSchemas) { self.schemas = schemas }
}

import BridgeCore
import BridgeCutover
import Logging

/// Where a migration's cutover is, and the gates of what comes next, for whoever only looks.
struct CutoverOutlook: Sendable {
    var standing: Standing
    /// Of the next verb: `switch-reads`, `switch-writes`, `complete`.
    var gates: [Gate]

    /// - Parameter back: the migration's other direction. The connectors of both are closed at the end.
    static func read(_ migration: Migration, back: Migration) async throws(BridgeError) -> CutoverOutlook {
        let stage = try await CutoverStage.open(migration, back: back)
        let result: Result<CutoverOutlook, BridgeError>
        do throws(BridgeError) { result = .success(try await read(stage)) } catch { result = .failure(error) }
        await stage.close()
        return try result.get()
    }

    private static func read(_ stage: CutoverStage) async throws(BridgeError) -> CutoverOutlook {
        let standing = try await Standing.read(stage.setup)
        // It is about to change, and nothing is to be in its way.
        guard standing.attempt == nil, standing.ledger.isClosing == nil else { return CutoverOutlook(standing: standing, gates: []) }
        let phase = standing.phases.values.min() ?? .syncing
        // Services that are ahead of the others have nothing to wait for.
        let services = stage.setup.services.map(\.name).filter { standing.phases[$0] ?? .syncing == phase }
        let gates =
            switch phase {
            case .syncing: await stage.look(.inPassing, .switchReads, services, standing.ledger)
            case .readsSwitched: await stage.look(.inPassing, .switchWrites, services, standing.ledger)
            case .writesSwitched: stage.completionGates(await stage.look(.inPassing, .writesBack, services, standing.ledger), standing.ledger)
            }
        return CutoverOutlook(standing: standing, gates: gates)
    }
}

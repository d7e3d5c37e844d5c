import BridgeCore
import BridgeCutover
import Foundation

/// A migration of which nothing is left but the ledger's archive: it was completed or cancelled, and not begun again.
struct EndedMigration: Sendable {
    var wasCompleted: Bool
    var endedAt: String

    private var ending: CutoverReport.Ending { wasCompleted ? .completed : .cancelled }
    var phase: String { ending.rawValue }

    /// - Returns: nil for one that is under way, was never begun, or of which a database does not tell.
    static func find(_ configuration: Configuration, _ registry: ConnectorRegistry) async throws(BridgeError) -> EndedMigration? {
        guard let ended = read(configuration) else { return nil }
        let link = configuration.link()
        for (place, link) in [(configuration.target, link), (configuration.source, link.opposite)] {
            let holder = try registry.target(place)
            let sight = await LinkWatch.sight(of: link, on: holder)
            await holder.close()
            guard case .absent = sight else { return nil }
        }
        // The ledger goes last; as long as it is there, the databases are not clean.
        let holder = try registry.target(configuration.target)
        let result: Result<Bool, BridgeError>
        do throws(BridgeError) { result = .success(try await hasLedger(holder, configuration.migration)) } catch { result = .failure(error) }
        await holder.close()
        return try result.get() ? nil : ended
    }

    private static func hasLedger(_ holder: any TargetConnector, _ migration: String) async throws(BridgeError) -> Bool {
        try await holder.connect()
        let session = try await holder.openCutover(migration: migration)
        let result: Result<Bool, BridgeError>
        do throws(BridgeError) { result = .success(!(try await session.ledger()).isEmpty) } catch { result = .failure(error) }
        await session.close()
        return try result.get()
    }

    private struct Archive: Decodable {
        var migration: String
        var completed: Bool
        var ended_at: String
    }

    private static func read(_ configuration: Configuration) -> EndedMigration? {
        guard let text = FileManager.default.contents(atPath: CutoverStage.archivePath(configuration)),
            let archive = try? JSONDecoder().decode(Archive.self, from: text), archive.migration == configuration.migration
        else { return nil }
        return EndedMigration(wasCompleted: archive.completed, endedAt: archive.ended_at)
    }

    /// Why it is not run again.
    func refusal(_ configuration: Configuration) -> BridgeError {
        BridgeError(
            .configurationInvalid, "the migration was \(phase) at \(endedAt)",
            context: [.init(.migration, configuration.migration)],
            hint: "nothing is left to run; to begin it anew, move \(CutoverStage.archivePath(configuration)) away first")
    }

    /// Removes what the process that ended the migration may have left, and tells how it ended.
    func finish(
        _ verb: CutoverVerb, _ configuration: Configuration, isDryRun: Bool
    ) async throws(BridgeError) -> CutoverReport {
        var report = report(verb.rawValue, configuration)
        guard verb == .resume || verb == (wasCompleted ? .complete : .cancel) else {
            report.succeeded = false
            report.exitStatus = .configuration
            return report
        }
        if !isDryRun { try await DataDirectory(configuration.dataDirectory).removeLinks(patience: configuration.cutover.timeout) }
        return report
    }

    func report(_ verb: String, _ configuration: Configuration) -> CutoverReport {
        var report = CutoverReport(verb: verb, migration: configuration.migration)
        report.ending = ending
        report.deadLetterFiles = DataDirectory(configuration.dataDirectory).deadLetterFiles
        report.reason = "nothing to do: the migration was \(phase) at \(endedAt)"
        return report
    }
}

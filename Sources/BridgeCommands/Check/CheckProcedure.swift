import BridgeConsistency
import BridgeCore
import Logging

/// A check from the configured migration to the report in the history.
struct CheckProcedure: Sendable {
    struct Outcome: Sendable {
        var report: CheckReport
        /// What the process is to end with after the report was printed.
        var error: BridgeError?
    }

    let migration: Migration
    var factory: ConsistencyCheckFactory = CheckSession.standardFactory
    let logger: Logger

    /// - Parameter attach: gets what stops the check in good order, as soon as there is something to stop.
    /// - Throws: what made a check impossible before it began.
    func run(
        _ request: CheckSession.Request, attach: (@escaping @Sendable () -> Void) -> Void = { _ in }
    ) async throws(BridgeError) -> Outcome {
        let started = Timestamp.now
        let session: CheckSession
        do throws(BridgeError) {
            session = try await CheckSession.prepare(migration, request, factory: factory, logger: logger)
        } catch {
            await migration.close()
            throw error
        }
        attach { session.stop() }
        logger.info(
            session.runsLink
                ? "checking; the target is kept in sync meanwhile" : "checking beside the process that runs the migration")
        let display = CheckDisplay(logger: logger)
        var outcome: Outcome
        do throws(BridgeError) {
            outcome = Outcome(report: try await session.run { display.show($0) })
        } catch { outcome = failed(error, request, started) }
        display.finish()
        // Rows that were repaired without the ledger's knowledge are no quiet success.
        do throws(BridgeError) { try await session.endRepair(outcome.report) } catch { outcome.error = outcome.error ?? error }
        await migration.close()
        await record(&outcome)
        return outcome
    }

    private func failed(_ error: BridgeError, _ request: CheckSession.Request, _ started: Timestamp) -> Outcome {
        let configuration = migration.configuration
        let report = CheckReport.failed(
            error, checkId: CheckIdentifier.make(at: started), migration: configuration.migration, mode: request.mode,
            startedAt: started.rfc3339, source: configuration.source.masked, target: configuration.target.masked)
        return Outcome(report: report, error: error)
    }

    /// Adds the report to the history. A check that was stopped, or that another one kept from beginning, said nothing
    /// about the two sides; it is not kept.
    private func record(_ outcome: inout Outcome) async {
        guard outcome.error?.code != .interrupted, outcome.error?.code != .alreadyRunning else { return }
        let history = CheckHistory(migration.directory)
        let report = outcome.report
        do throws(BridgeError) {
            try await BlockingWork().run { () throws(BridgeError) in try history.add(report) }
        } catch {
            // A verdict that is not on record opens no gate, so it must not look as if it did.
            if outcome.error == nil { outcome.error = error }
        }
    }
}

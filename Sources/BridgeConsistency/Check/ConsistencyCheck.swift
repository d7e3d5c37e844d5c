package import BridgeCore
package import Logging

/// One check of a link, from its beginning to its report.
package protocol ConsistencyCheck: Sendable {
    /// Compares both sides. Called once.
    /// - Returns: the report, whatever its verdict.
    /// - Throws: what stopped it; `interrupted` after ``stop()``. A later check goes on from what this one left.
    func run() async throws(BridgeError) -> CheckReport

    /// Asks the check to stop in good order. From any thread, as often as wished, also before ``run()``.
    func stop()

    /// How far it is. From any thread.
    var progress: CheckReport.Progress { get }
}

/// Makes the check of a link whose two ends are connected; the last argument is nil where another process applies.
package typealias ConsistencyCheckFactory =
    @Sendable (
        _ link: LinkDescription, _ options: CheckOptions, _ source: any SourceConnector, _ target: any TargetConnector,
        _ logger: Logger, _ access: ApplierAccess?
    ) throws(BridgeError) -> any ConsistencyCheck

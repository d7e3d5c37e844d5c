import BridgeCore
import Logging

extension CheckSession {
    /// Connects both sides and makes a session on them, which holds them until it is closed.
    /// - Parameter tellsSchemas: whether the report is to tell what the tables are defined as. That is read beside the rest,
    ///   and before any view is opened: what is altered from then on is not what was checked.
    static func open(
        link: LinkDescription, options: CheckOptions, source: any SourceConnector, target: any TargetConnector,
        board: CheckBoard, access: ApplierAccess?, tellsSchemas: Bool, logger: Logger
    ) async throws(BridgeError) -> CheckSession {
        try await source.connect()
        try await target.connect()
        guard let state = try await target.linkState(link), state.phase == .syncing, let origin = state.origin else {
            throw BridgeError(
                .serverBusy, "the target does not hold a whole copy yet", context: [.init(.migration, link.migration)],
                hint: "let bridge run finish the copy, then check")
        }
        async let schemas =
            tellsSchemas
            ? CheckedSchemas.read(link, options, source: source, target: target, logger: logger) : CheckedSchemas()
        let (sourceSide, targetSide) = try await openSides(link, source, target)
        do throws(BridgeError) {
            let session = try await CheckSession(
                link: link, options: options, source: source, target: target, sourceSide: sourceSide,
                targetSide: targetSide, origin: origin, board: board, access: access, logger: logger)
            await session.note(schemas)
            return session
        } catch {
            await sourceSide.close()
            await targetSide.close()
            throw error
        }
    }

    private static func openSides(
        _ link: LinkDescription, _ source: any SourceConnector, _ target: any TargetConnector
    ) async throws(BridgeError) -> (any ComparisonSession, any ComparisonSession) {
        async let opening = opened { () async throws(BridgeError) in try await source.openComparison(link, role: .source) }
        let target = await opened { () async throws(BridgeError) in try await target.openComparison(link, role: .target) }
        let source = await opening
        do throws(BridgeError) { return (try source.get(), try target.get()) } catch {
            if case .success(let side) = source { await side.close() }
            if case .success(let side) = target { await side.close() }
            throw error
        }
    }

    private static func opened(
        _ open: @Sendable () async throws(BridgeError) -> any ComparisonSession
    ) async -> Result<any ComparisonSession, BridgeError> {
        do throws(BridgeError) { return .success(try await open()) } catch { return .failure(error) }
    }
}

package import BridgeCore

extension SQLiteSource {
    package func openComparison(
        _ link: LinkDescription, role: ComparisonRole
    ) async throws(BridgeError) -> any ComparisonSession {
        try await openSQLiteComparison(path: resolvedPath, link: link, role: role)
    }
}

extension SQLiteTarget {
    package func openComparison(
        _ link: LinkDescription, role: ComparisonRole
    ) async throws(BridgeError) -> any ComparisonSession {
        try await openSQLiteComparison(path: path, link: link, role: role)
    }
}

private func openSQLiteComparison(
    path: String, link: LinkDescription, role: ComparisonRole
) async throws(BridgeError) -> any ComparisonSession {
    switch role {
    case .source:
        let session = SQLiteSourceComparison(path: path, link: link)
        try await session.open()
        return session
    case .target:
        let session = SQLiteTargetComparison(path: path, link: link)
        try await session.open()
        return session
    }
}

extension BridgeError {
    /// A call that the checker may not make of a session or view that was closed.
    static func comparisonClosed() -> BridgeError { BridgeError(.internalFault, "the comparison is closed") }
}

package import BridgeCore

extension SQLiteSource {
    package func openComparison(
        _ link: LinkDescription, role: ComparisonRole
    ) async throws(BridgeError) -> any ComparisonSession {
        throw BridgeError(.internalFault, "the checker is not there yet")
    }
}

extension SQLiteTarget {
    package func openComparison(
        _ link: LinkDescription, role: ComparisonRole
    ) async throws(BridgeError) -> any ComparisonSession {
        throw BridgeError(.internalFault, "the checker is not there yet")
    }
}

package import BridgeCore

extension PostgresSource {
    package func openComparison(
        _ link: LinkDescription, role: ComparisonRole
    ) async throws(BridgeError) -> any ComparisonSession {
        throw BridgeError(.internalFault, "the checker is not there yet")
    }
}

extension PostgresTarget {
    package func openComparison(
        _ link: LinkDescription, role: ComparisonRole
    ) async throws(BridgeError) -> any ComparisonSession {
        throw BridgeError(.internalFault, "the checker is not there yet")
    }
}

import BridgeConsistency
import BridgeCore
import BridgeCutover

/// The consistency check as a cutover uses it.
struct PreparedCheck: FencedCheck {
    private let check: FenceCheck

    init(_ check: FenceCheck) { self.check = check }

    func prepare() async throws(BridgeError) { try Self.demand(try await check.prepare()) }
    func refresh() async throws(BridgeError) { try Self.demand(try await check.refresh()) }
    func finish(within limit: Duration) async throws(BridgeError) { try Self.demand(try await check.finish(within: limit)) }
    func close() async { await check.close() }

    /// Nothing less than a proof is enough.
    private static func demand(_ report: CheckReport) throws(BridgeError) {
        guard report.verdict != .consistent || !report.gate.isOpen else { return }
        let table = report.tables.first { $0.status != .consistent }
        let obligation = report.soundness.first { !$0.holds }
        let isDifferent = report.verdict == .inconsistent
        var message = isDifferent ? "source and target differ" : "source and target could not be proven to be the same"
        if let why = table?.reason ?? obligation?.detail ?? report.gate.reasons.first { message += ": \(why)" }
        throw BridgeError(
            isDifferent ? .inconsistent : .inconclusive, message,
            context: table.map { [ErrorContext(.table, $0.source)] } ?? [],
            hint: "bridge check tells what differs, or what stands in the way")
    }
}

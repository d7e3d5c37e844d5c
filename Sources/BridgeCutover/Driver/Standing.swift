package import BridgeCore

/// Where a migration's services are: what the ledger tells beside what the databases show.
package struct Standing: Sendable {
    package var ledger: Ledger
    /// Of each service.
    package var phases: [String: ServicePhase]
    package var attempt: Attempt? { ledger.attempt }
    /// Of each service's tables on each side; nil where a database did not answer.
    package var fences: [String: [Side: FenceState]]
    package var routes: [Side: [Route]]
    /// Where the databases show what the ledger does not tell.
    package var drift: [String]

    package init(
        phases: [String: ServicePhase], ledger: Ledger = Ledger(), fences: [String: [Side: FenceState]] = [:],
        routes: [Side: [Route]] = [:], drift: [String] = []
    ) {
        self.phases = phases
        self.ledger = ledger
        self.fences = fences
        self.routes = routes
        self.drift = drift
    }

    /// - Throws: `ledgerDiverged`, or what the target says; a source that is away is drift.
    package static func read(_ setup: CutoverSetup) async throws(BridgeError) -> Standing {
        let ledger = try Ledger(try await setup.records.ledger())
        var standing = Standing(phases: [:], ledger: ledger)
        for service in setup.services {
            standing.phases[service.name] = ledger.phases[service.name] ?? .syncing
            for side in Side.allCases {
                let tables = setup.tables(of: [service.name], on: side).keys.sorted()
                do throws(BridgeError) {
                    standing.fences[service.name, default: [:]][side] = try await setup.session(side).fence(on: tables)
                } catch where side == .source {
                    // Old tables may have other names by now.
                    guard ledger.isClosing == nil else { continue }
                    standing.drift.append("the source does not answer: \(error.message)")
                }
            }
        }
        for side in Side.allCases {
            do throws(BridgeError) { standing.routes[side] = try await setup.session(side).routes() } catch where side == .source {}
        }
        // What is being taken down is not as it was, and will not be again.
        if standing.attempt == nil, ledger.isClosing == nil { standing.compare() }
        return standing
    }

    /// While no attempt is under way, fences and routes are as the phases say.
    private mutating func compare() {
        for (service, phase) in phases.sorted(by: { $0.key < $1.key }) {
            let fences = fences[service] ?? [:]
            if let left = fences[phase.writes] {
                switch left {
                case .none, .expired: break
                default: drift.append("\(service): writes to the \(phase.writes.rawValue) are stopped, where the application writes")
                }
            }
            if phase != .syncing, let other = fences[phase.writes == .source ? .target : .source] {
                if case .permanent = other {} else {
                    drift.append("\(service): writes to the \(phase.writes.other.rawValue) are not stopped, though the application has left")
                }
            }
            for side in Side.allCases {
                let route = routes[side]?.first { $0.service == service }
                if let route, route.reads != phase.reads.rawValue || route.writes != phase.writes.rawValue {
                    drift.append("\(service): the route on the \(side.rawValue) says reads \(route.reads), writes \(route.writes)")
                }
                if route == nil, phase != .syncing, routes[side] != nil {
                    drift.append("\(service): there is no route on the \(side.rawValue)")
                }
            }
        }
    }
}

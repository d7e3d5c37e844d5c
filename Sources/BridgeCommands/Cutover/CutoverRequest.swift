import BridgeCore
import BridgeCutover

/// What the command line asks a verb for.
struct CutoverRequest: Sendable {
    /// None for all.
    var services: [String] = []
    var timeout: Duration?
    var maxLag: Duration?
    var maxPause: Duration?
    /// Why, by the gate that is to be passed although it is shut.
    var overrides: [Gate.Name: String] = [:]
    var isDryRun = false
}

enum CutoverVerb: String, Sendable, CaseIterable {
    case rehearse
    case switchReads = "switch-reads"
    case switchWrites = "switch-writes"
    case rollback
    case resume
    case complete
    case cancel
}

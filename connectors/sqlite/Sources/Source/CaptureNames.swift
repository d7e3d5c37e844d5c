import BridgeCore

/// The names of everything that a link's capture makes in a source. Each link has its own log, so that a forward and a
/// reverse link, or two migrations out of one file, do not meet.
struct CaptureNames: Hashable, Sendable {
    /// `_bridge_shop_users`
    let prefix: String

    init(_ link: LinkDescription) { prefix = "_" + link.identifier }

    var log: String { prefix + "_log" }
    var state: String { prefix + "_state" }
    var tables: String { prefix + "_tables" }
    var all: [String] { [log, state, tables] }

    func trigger(_ number: Int64, _ event: CaptureTriggers.Event) -> String { "\(prefix)_\(number)_\(event.rawValue)" }

    /// The name of the trigger that is made last; see ``TriggerOrder``.
    var witness: String { trigger(0, .beforeDelete) }

    /// Which table number and event a trigger's name stands for; nil if it is not one of this link's. Exact, since one
    /// migration's name may begin with another's.
    func parseTrigger(_ name: String) -> (number: Int64, event: CaptureTriggers.Event)? {
        guard name.hasPrefix(prefix + "_") else { return nil }
        let parts = name.dropFirst(prefix.count + 1).split(separator: "_", omittingEmptySubsequences: false)
        guard parts.count == 2, let number = Int64(parts[0]), let event = CaptureTriggers.Event(rawValue: String(parts[1]))
        else { return nil }
        return (number, event)
    }
}

/// A named measurement with a limit, asked before a phase changes.
package struct Gate: Hashable, Sendable {
    package enum Name: String, Sendable, CaseIterable {
        /// The services are where the step begins.
        case phase
        /// Something keeps the links at work.
        case heartbeat
        case lag
        /// The last check: consistent, of everything, and not too old.
        case check
        case window
        /// What the check behind the fence is going to take.
        case pause
        /// What the way back needs.
        case reverse
        case preparedTransactions = "prepared_transactions"
        case longTransactions = "long_transactions"
        /// The tables can be fenced.
        case fence
        /// Nobody but bridge wrote to the side that the application goes to.
        case untouched
        case foreignKeys = "foreign_keys"
        /// Response times and load of both sides; nothing measures them yet.
        case performance
        /// How long the application has been on the target.
        case soak
    }

    package var name: Name
    package var measured: String
    package var limit: String
    package var isOpen: Bool
    /// What to do where it is shut.
    package var hint: String?

    package init(_ name: Name, measured: String, limit: String, isOpen: Bool, hint: String? = nil) {
        self.name = name
        self.measured = measured
        self.limit = limit
        self.isOpen = isOpen
        self.hint = hint
    }
}

/// A gate that an operator passes although it is shut.
package struct GateOverride: Hashable, Sendable {
    package var gate: Gate
    package var reason: String

    package init(gate: Gate, reason: String) {
        self.gate = gate
        self.reason = reason
    }
}

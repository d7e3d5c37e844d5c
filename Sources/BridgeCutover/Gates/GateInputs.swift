package import BridgeCore

/// What gates are decided by. What could not be measured is nil, and shuts its gate.
package struct GateInputs: Sendable {
    package struct Check: Hashable, Sendable {
        package var verdict: String
        package var isConsistent: Bool
        /// Whether it was of all tables, by a mode that proves something, and nobody else wrote to the target.
        package var opensGate: Bool
        package var reasons: [String]
        /// Nil for one that was made before writers moved.
        package var age: Duration?
        /// Of the tables that move, on both sides; nil if they were not looked at.
        package var definitions: [Definition]?

        package init(
            verdict: String, isConsistent: Bool, opensGate: Bool, reasons: [String], age: Duration?, definitions: [Definition]? = nil
        ) {
            self.definitions = definitions
            self.verdict = verdict
            self.isConsistent = isConsistent
            self.opensGate = opensGate
            self.reasons = reasons
            self.age = age
        }
    }

    /// What a table was defined as on one side when the check began, and what it is now; nil where that is not known.
    package struct Definition: Hashable, Sendable {
        package var side: Side
        package var table: TableName
        package var checked: String?
        package var present: String?

        package init(_ side: Side, _ table: TableName, checked: String?, present: String?) {
            self.side = side
            self.table = table
            self.checked = checked
            self.present = present
        }
    }

    package struct Window: Hashable, Sendable {
        package var text: String
        /// Nil outside it.
        package var remaining: Duration?

        package init(text: String, remaining: Duration?) {
            self.text = text
            self.remaining = remaining
        }
    }

    package var phases: [String: ServicePhase]
    package var attempt: Attempt?
    /// Whether each link that the goal needs is at work.
    package var isStreaming: Bool?
    /// Of the link that carries what the application writes now.
    package var lag: Duration?
    package var check: Check?
    /// Nil where none is configured.
    package var window: Window?
    /// What the check behind the fence should take.
    package var predictedPause: Duration?
    /// What stands in the way of the reverse link; nil if that was not looked at.
    package var reverseObstacles: [String]?
    /// Of the side that the application leaves, and of the other.
    package var left: CutoverFacts?
    package var entered: CutoverFacts?
    /// Writes of others to the side that the application goes to, as the check found them.
    package var foreignWrites: Int64?

    package init(phases: [String: ServicePhase]) { self.phases = phases }
}

/// Decides gates. Pure.
package struct GateKeeper: Sendable {
    private let limits: CutoverLimits
    private let goal: Attempt.Goal
    private let services: [String]

    package init(limits: CutoverLimits, goal: Attempt.Goal, services: [String]) {
        self.limits = limits
        self.goal = goal
        self.services = services
    }

    /// Every gate of the goal, in the order in which they are printed.
    package func gates(_ inputs: GateInputs) -> [Gate] {
        var gates = [phase(inputs)]
        // Reads that go back to where the writes are need nothing that could be missing.
        guard goal != .readsBack else { return gates }
        gates += [heartbeat(inputs), lag(inputs), check(inputs)]
        if let window = inputs.window, goal != .writesBack { gates.append(self.window(window)) }
        guard goal != .switchReads else { return gates + [performance] }
        gates += [
            pause(inputs), reverse(inputs), prepared(inputs), transactions(inputs), fence(inputs), untouched(inputs),
            foreignKeys(inputs), performance,
        ]
        return gates
    }

    // MARK: Of every goal

    /// Where services must be for the goal.
    package static func begins(_ goal: Attempt.Goal) -> ServicePhase {
        switch goal {
        case .switchReads: .syncing
        case .readsBack, .switchWrites, .rehearse: .readsSwitched
        case .writesBack: .writesSwitched
        }
    }

    private func phase(_ inputs: GateInputs) -> Gate {
        let wanted = Self.begins(goal)
        if let attempt = inputs.attempt {
            return Gate(
                .phase, measured: "an attempt (\(attempt.goal.rawValue)) has not ended", limit: wanted.rawValue, isOpen: false,
                hint: "bridge cutover resume")
        }
        let others = services.filter { inputs.phases[$0, default: .syncing] != wanted }
        let measured = others.isEmpty ? wanted.rawValue : others.map { "\($0): \(inputs.phases[$0, default: .syncing].rawValue)" }.joined(separator: ", ")
        var hint: String?
        if !others.isEmpty, [.switchWrites, .rehearse].contains(goal) { hint = "bridge cutover switch-reads comes first" }
        return Gate(.phase, measured: measured, limit: wanted.rawValue, isOpen: others.isEmpty, hint: hint)
    }

    private func heartbeat(_ inputs: GateInputs) -> Gate {
        let measured = inputs.isStreaming.map { $0 ? "at work" : "not at work" } ?? "unknown"
        return Gate(
            .heartbeat, measured: measured, limit: "at work", isOpen: inputs.isStreaming == true,
            hint: "bridge run keeps the links at work; bridge status shows what is wrong with them")
    }

    private func lag(_ inputs: GateInputs) -> Gate {
        Gate(
            .lag, measured: Self.text(inputs.lag), limit: "at most \(Self.text(limits.maxLag))",
            isOpen: inputs.lag.map { $0 <= limits.maxLag } ?? false, hint: "wait until the target has caught up: bridge status")
    }

    private func check(_ inputs: GateInputs) -> Gate {
        let limit = "consistent, at most \(Self.text(limits.maxCheckAge)) old, of the tables as they are"
        guard let check = inputs.check else {
            return Gate(.check, measured: "none", limit: limit, isOpen: false, hint: "bridge check")
        }
        let isClean = check.isConsistent && check.opensGate && check.age.map { $0 <= limits.maxCheckAge } ?? false
        let age = check.age.map { "\(Self.text($0)) old" } ?? "made before the application moved"
        let changes = changes(since: check)
        let why = check.reasons.isEmpty ? "" : " (\(check.reasons.joined(separator: "; ")))"
        return Gate(
            .check, measured: (["\(check.verdict), \(age)\(why)"] + changes).joined(separator: "; "), limit: limit,
            isOpen: isClean && changes.isEmpty, hint: isClean ? "bridge check" : "bridge check, and what it says")
    }

    /// Where the check says nothing of the tables as they are now. On the way back one is made for the gate itself.
    private func changes(since check: GateInputs.Check) -> [String] {
        guard goal != .writesBack else { return [] }
        guard let definitions = check.definitions else { return ["what the tables are defined as is unknown"] }
        let unknown = definitions.filter { $0.checked == nil || $0.present == nil }
        let altered = definitions.filter { $0.checked != nil && $0.present != nil && $0.checked != $0.present }
        return [("altered since", altered), ("definition unknown", unknown)].filter { !$0.1.isEmpty }.map { word, found in
            let names = found.prefix(Self.namedTables).map { "\($0.table) on the \($0.side.rawValue)" }
            let rest = found.count - names.count
            return "\(word): \(names.joined(separator: ", "))" + (rest > 0 ? " and \(rest) more" : "")
        }
    }

    /// More than so many are counted only.
    private static let namedTables = 10

    private func window(_ window: GateInputs.Window) -> Gate {
        guard let remaining = window.remaining else {
            return Gate(.window, measured: "outside", limit: window.text, isOpen: false, hint: "wait for it, or change cutover.window")
        }
        // One that would outlast it is not begun.
        let needed = goal == .switchReads ? limits.timeout : limits.timeout + limits.maxPause
        return Gate(
            .window, measured: "\(Self.text(remaining)) left", limit: "\(window.text), \(Self.text(needed)) needed",
            isOpen: remaining >= needed, hint: "wait for the next one, or change cutover.window")
    }

    /// Its place is kept; what it measures by comes later.
    private var performance: Gate { Gate(.performance, measured: "not measured", limit: "none", isOpen: true) }

    // MARK: Of goals that move writers

    private func pause(_ inputs: GateInputs) -> Gate {
        Gate(
            .pause, measured: inputs.predictedPause.map { "\(Self.text($0)) for the check behind the fence" } ?? "unknown",
            limit: "at most \(Self.text(limits.maxPause))", isOpen: inputs.predictedPause.map { $0 <= limits.maxPause } ?? false,
            hint: "bridge check --mode full leaves little to check again; or allow more with --max-pause")
    }

    private func reverse(_ inputs: GateInputs) -> Gate {
        let measured = inputs.reverseObstacles.map { $0.isEmpty ? "nothing in the way" : $0.joined(separator: "; ") } ?? "unknown"
        return Gate(
            .reverse, measured: measured, limit: "nothing in the way", isOpen: inputs.reverseObstacles?.isEmpty ?? false,
            hint: "bridge preflight prints what mends it")
    }

    private func prepared(_ inputs: GateInputs) -> Gate {
        let found = inputs.left?.preparedTransactions
        return Gate(
            .preparedTransactions, measured: found.map { $0.isEmpty ? "none" : $0.joined(separator: ", ") } ?? "unknown", limit: "none",
            isOpen: found?.isEmpty ?? false, hint: "COMMIT PREPARED or ROLLBACK PREPARED ends each of them")
    }

    private func transactions(_ inputs: GateInputs) -> Gate {
        let limit = "at most \(Self.text(limits.maxTransactionAge)) old"
        guard let facts = inputs.left else { return Gate(.longTransactions, measured: "unknown", limit: limit, isOpen: false) }
        guard let age = facts.oldestTransactionAge else { return Gate(.longTransactions, measured: "none", limit: limit, isOpen: true) }
        let process = facts.oldestTransactionProcess.map { ", \($0)" } ?? ""
        return Gate(
            .longTransactions, measured: Self.text(age) + process, limit: limit, isOpen: age <= limits.maxTransactionAge,
            hint: "wait for it to end, or end it")
    }

    private func fence(_ inputs: GateInputs) -> Gate {
        guard let left = inputs.left, let entered = inputs.entered else {
            return Gate(.fence, measured: "unknown", limit: "all tables can be fenced", isOpen: false)
        }
        let problems = (left.unfenceable.sorted { $0.key < $1.key } + entered.unfenceable.sorted { $0.key < $1.key }).map {
            "\($0.key): \($0.value)"
        }
        return Gate(
            .fence, measured: problems.isEmpty ? "all tables can be fenced" : problems.joined(separator: "; "),
            limit: "all tables can be fenced", isOpen: problems.isEmpty)
    }

    private func untouched(_ inputs: GateInputs) -> Gate {
        Gate(
            .untouched, measured: inputs.foreignWrites.map { "\($0) writes by others" } ?? "unknown", limit: "0 writes by others",
            isOpen: inputs.foreignWrites == 0, hint: "find out who writes there, then run bridge check --mode full")
    }

    private func foreignKeys(_ inputs: GateInputs) -> Gate {
        let broken = inputs.entered?.brokenForeignKeys
        let measured = broken.map { found in
            found.isEmpty ? "none broken" : found.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value) rows" }.joined(separator: ", ")
        }
        return Gate(
            .foreignKeys, measured: measured ?? "unknown", limit: "none broken", isOpen: broken?.isEmpty ?? false,
            hint: "correct these rows on the side that is written to")
    }

    // MARK: Text

    static func text(_ duration: Duration?) -> String {
        guard let duration else { return "unknown" }
        let milliseconds = duration / .milliseconds(1)
        if milliseconds < 1_000 { return "\(Int(milliseconds.rounded())) ms" }
        let tenths = Int((milliseconds / 100).rounded())
        return tenths % 10 == 0 ? "\(tenths / 10) s" : "\(tenths / 10).\(tenths % 10) s"
    }
}

import BridgeCore
import BridgeCutover

/// What a verb did, for its JSON and for people.
struct CutoverReport: Sendable {
    struct StepLine: Sendable {
        var name: String
        var seconds: Double
    }

    var verb: String
    var migration: String
    /// Of the attempt, if there was one.
    var attempt: String?
    /// Whether what was asked for is so now, whether or not there was anything to do.
    var succeeded = true
    /// Why not; or that nothing was to do.
    var reason: String?
    var gates: [Gate] = []
    var overridden: [Gate.Name] = []
    var steps: [StepLine] = []
    var pause: Duration?
    var standing: Standing?
    enum Ending: String, Sendable { case completed, cancelled }
    /// Set once nothing of the migration is left.
    var ending: Ending?
    /// What is left of an ended migration besides the ledger's archive: the changes that were passed over.
    var deadLetterFiles: [String] = []
    var nextSteps: [String] = []
    var exitStatus: ExitStatus = .done

    /// The least far of all services, which is where the migration as a whole stands.
    static func phase(_ phases: [String: ServicePhase]) -> String {
        switch phases.values.min() {
        case nil, .syncing: "syncing"
        case .readsSwitched: "reads_switched"
        case .writesSwitched: "writes_switched"
        }
    }

    var json: JSONValue {
        [
            "format_version": 1,
            "verb": .string(verb),
            "migration": .string(migration),
            // After a verb the databases may not have answered any more.
            "phase": .string(ending?.rawValue ?? standing.map { Self.phase($0.phases) } ?? "unknown"),
            "services": .object(
                (standing?.phases ?? [:]).sorted { $0.key < $1.key }.map {
                    JSONValue.Member(name: $0.key, value: .string($0.value.rawValue))
                }),
            "attempt": JSONValue(attempt),
            "unfinished_attempt": JSONValue(standing?.attempt?.goal.rawValue),
            "succeeded": .bool(succeeded),
            "reason": JSONValue(reason),
            "gates": .array(gates.map { Self.json($0, overridden) }),
            "steps": .array(steps.map { ["name": .string($0.name), "seconds": .number($0.seconds)] }),
            "pause_ms": JSONValue(pause.map { $0 / .milliseconds(1) }),
            "routing": RoutingFile.json(migration, standing?.routes[.target] ?? []),
            "fences": fences,
            "drift": .array((standing?.drift ?? []).map(JSONValue.string)),
            "dead_letter_files": .array(deadLetterFiles.map(JSONValue.string)),
            "next_steps": .array(nextSteps.map(JSONValue.string)),
        ]
    }

    private var fences: JSONValue {
        .object(
            (standing?.fences ?? [:]).sorted { $0.key < $1.key }.map { service, sides in
                JSONValue.Member(
                    name: service,
                    value: .object(
                        Side.allCases.map {
                            JSONValue.Member(name: $0.rawValue, value: .string(sides[$0].map(Self.text) ?? "unknown"))
                        }))
            })
    }

    static func json(_ gate: Gate, _ overridden: [Gate.Name] = []) -> JSONValue {
        [
            "name": .string(gate.name.rawValue), "measured": .string(gate.measured), "limit": .string(gate.limit),
            "open": .bool(gate.isOpen), "overridden": .bool(overridden.contains(gate.name)), "hint": JSONValue(gate.isOpen ? nil : gate.hint),
        ]
    }

    static func text(_ fence: FenceState) -> String {
        switch fence {
        case .none: "open"
        case .leased: "stopped for a while"
        case .expired: "open (an expired fence is left)"
        case .permanent: "stopped"
        case .mixed(let why): "unclear: \(why)"
        case .permanentAltered(let why): "stopped, but \(why)"
        }
    }
}

/// What is printed while a verb is at work, a line each.
struct CutoverLines: Sendable {
    let style: Style

    func gate(_ gate: Gate, isOverridden: Bool) -> String {
        let verdict = gate.isOpen ? style.green("open") : isOverridden ? style.yellow("overridden") : style.red("shut")
        var line = "gate \(pad(gate.name.rawValue, 22)) \(verdict)  \(Printable.text(gate.measured)) (limit: \(Printable.text(gate.limit)))"
        if !gate.isOpen, !isOverridden, let hint = gate.hint { line += "\n     \(pad("", 22)) try: \(hint)" }
        return line
    }

    func step(_ name: String, _ duration: Duration) -> String {
        "step \(pad(name, 22)) \(style.green("done"))  \(milliseconds(duration))"
    }

    func failed(_ name: String, _ error: BridgeError) -> String {
        "step \(pad(name, 22)) \(style.red("failed"))  \(ErrorRenderer.headline(error))"
    }

    func waiting(_ error: BridgeError, _ limit: Duration) -> String {
        "\(style.yellow("waiting")) for up to \(Quantity.text(limit)): \(ErrorRenderer.headline(error))"
    }

    func milliseconds(_ duration: Duration) -> String {
        let tenths = Int((duration / .milliseconds(1) * 10).rounded())
        return "\(tenths / 10).\(tenths % 10) ms"
    }

    private func pad(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    /// Where everything is, for the end of each verb and for `status`.
    func standing(_ standing: Standing) -> [String] {
        var lines: [String] = []
        for (service, phase) in standing.phases.sorted(by: { $0.key < $1.key }) {
            let fences = standing.fences[service] ?? [:]
            let sides = Side.allCases.map { side in "\(side.rawValue) \(fences[side].map(CutoverReport.text) ?? "unknown")" }
            lines.append(
                "\(pad(service, 20)) \(phase.rawValue): reads \(phase.reads.rawValue), writes \(phase.writes.rawValue); writes to: \(sides.joined(separator: ", "))")
        }
        if let attempt = standing.attempt {
            lines.append(style.yellow("an attempt (\(attempt.goal.rawValue), \(attempt.id)) has not ended"))
        }
        for drift in standing.drift { lines.append(style.red("drift: \(Printable.text(drift))")) }
        return lines
    }
}

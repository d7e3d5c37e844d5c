import BridgeCore
import BridgeReplication

extension MigrationStatus {
    /// The object that `status --json` prints. Fields may be added; none goes.
    var json: JSONValue {
        let running = forward.isRunning ? forward.report : nil
        return [
            "format_version": 1,
            "migration": .string(migration),
            "phase": .string(phase),
            "source": Self.json(source),
            "target": Self.json(target),
            "links": .array(links.map(\.json)),
            "copy": [
                "tables": .array(
                    tables.map { table in
                        [
                            "table": .string(table.name), "state": .string(table.state),
                            "rows_done": .integer(table.rowsDone), "rows_estimated": JSONValue(table.rowsEstimated),
                        ]
                    }),
                "rows_per_second": JSONValue(running?.activity == "copying" ? running?.copyRowsPerSecond : nil),
                "eta_seconds": JSONValue(running?.copyEtaSeconds),
            ],
            "last_check": lastCheck?.json(at: .now) ?? .null,
            "services": .object(
                servicePhases.sorted { $0.key < $1.key }.map {
                    JSONValue.Member(name: $0.key, value: .string($0.value.rawValue))
                }),
            "unfinished_attempt": JSONValue(ledger?.attempt?.goal.rawValue),
            "gates": .array((cutover?.gates ?? []).map { CutoverReport.json($0) }),
            "conflicts": conflicts,
            "drift": .array((cutover?.standing.drift ?? []).map(JSONValue.string)),
            "cutover_error": JSONValue(cutoverError.map(ErrorRenderer.headline)),
            "next_steps": .array(nextSteps.map(JSONValue.string)),
        ]
    }

    private static func json(_ side: Side) -> JSONValue {
        [
            "address": .string(side.address), "reachable": .bool(side.isReachable),
            "error": JSONValue(side.error.map(ErrorRenderer.headline)),
        ]
    }

    /// For people: the two ends, the link, and the copy while it goes on.
    func lines(_ style: Style) -> [String] {
        var lines = ["\(style.bold(migration))  \(phase)"]
        for (name, side) in [("source", source), ("target", target)] {
            lines.append(
                "  \(name)  \(side.address)" + (side.error.map { "  \(style.red(ErrorRenderer.headline($0)))" } ?? ""))
        }
        lines.append("")
        lines += linkTable(style)
        for link in links { lines += link.notes(style) }
        if let lastCheck { lines.append(lastCheck.line(style, at: .now)) }
        lines += cutoverLines(style)
        if forward.state?.phase != .syncing, forward.state?.origin != nil || isRunning { lines += [""] + copyTable(style) }
        if !nextSteps.isEmpty { lines += ["", style.cyan("next:") + " " + nextSteps.joined(separator: "; ")] }
        return lines
    }

    /// Services once one of them has moved; gates that are shut; whatever is not as it should be.
    private func cutoverLines(_ style: Style) -> [String] {
        var lines: [String] = []
        if let cutover {
            let standing = cutover.standing
            let hasMoved = standing.attempt != nil || standing.phases.values.contains { $0 != .syncing }
            if hasMoved { lines += CutoverLines(style: style).standing(standing).map { "  " + $0 } }
            let shut = cutover.gates.filter { !$0.isOpen }.map { "\($0.name.rawValue) (\(Printable.text($0.measured)))" }
            if !shut.isEmpty { lines.append("  gates that are shut: " + shut.joined(separator: ", ")) }
            if !hasMoved { lines += standing.drift.map { style.red("  drift: \(Printable.text($0))") } }
        }
        if let cutoverError { lines.append(style.red("  the cutover cannot be read: \(ErrorRenderer.headline(cutoverError))")) }
        return lines
    }

    private func linkTable(_ style: Style) -> [String] {
        var table = Table([
            ("link", .left), ("state", .left), ("captured", .left), ("journaled", .left), ("applied", .left),
            ("lag", .left), ("rows/s", .right), ("tx/s", .right),
        ])
        for link in links { table.append(link.cells) }
        return table.lines(style: style, indentation: "  ")
    }

    private func copyTable(_ style: Style) -> [String] {
        var table = Table([("table", .left), ("copy", .left), ("rows", .right), ("estimated", .right)])
        for row in tables {
            table.append([
                row.name, row.state, Numbers.grouped(row.rowsDone), row.rowsEstimated.map(Numbers.grouped) ?? "–",
            ])
        }
        return table.lines(style: style, indentation: "  ")
    }
}

extension LinkStatus {
    var json: JSONValue {
        let running = isRunning ? report : nil
        return [
            "direction": .string(link.direction.rawValue),
            "state": .string(linkState),
            "process": JSONValue(isRunning || hasProcess ? report.map { Int64($0.process) } : nil),
            "captured_position": JSONValue(capturedPosition.map(describe)),
            "journaled_position": JSONValue(journaledPosition.map(describe)),
            "applied_position": JSONValue(appliedPosition.map(describe)),
            "source_position": JSONValue(health.map { describe($0.current) }),
            "acknowledged_position": JSONValue(health?.acknowledged.map(describe)),
            "lag_bytes": JSONValue(appliedPosition == nil ? nil : health?.lagBytes),
            "lag_seconds": JSONValue(lagSeconds),
            "rows_per_second": JSONValue(running?.rowsPerSecond),
            "transactions_per_second": JSONValue(running?.transactionsPerSecond),
            "rows_applied": JSONValue(running?.rowsApplied),
            "transactions_applied": JSONValue(running?.transactionsApplied),
            "journal_bytes": JSONValue(journalBytes),
            "slot_retained_bytes": JSONValue(health?.retainedBytes),
            "slot_retained_limit": JSONValue(slotLimit),
            "slot_state": JSONValue(slotDropped == nil ? health?.retention?.state : "dropped"),
            "slot_safe_bytes": JSONValue(health?.retention?.safeBytes),
            "trouble": JSONValue(running?.trouble ?? running?.missed ?? running?.slotWarning),
            "error": JSONValue(runState == .failed ? report?.error : nil),
            "stopped_at": stop.map { ["position": .string($0.position.storedForm), "table": .string($0.table), "reason": .string($0.reason)] } ?? .null,
            "conflicts_recorded": JSONValue(conflicts),
            "retried_at": JSONValue(
                runState == .failed && hasProcess ? report?.retryAt.map { Timestamp(microseconds: $0).rfc3339 } : nil),
        ]
    }

    /// A line of the table of links.
    fileprivate var cells: [String] {
        let running = isRunning ? report : nil
        let lag = [
            (appliedPosition == nil ? nil : health?.lagBytes).map(Numbers.bytes),
            lagSeconds.map { Numbers.duration(seconds: $0) },
        ].compactMap { $0 }
        return [
            link.direction.rawValue, linkState, capturedPosition.map(describe) ?? "–",
            journaledPosition.map(describe) ?? "–", appliedPosition.map(describe) ?? "–",
            lag.isEmpty ? "–" : lag.joined(separator: ", "), running?.rowsPerSecond.map(Numbers.rate) ?? "–",
            running?.transactionsPerSecond.map(Numbers.rate) ?? "–",
        ]
    }

    /// The limit of what the source may keep, and what the server says about it, once either matters.
    private var slotWords: String {
        var words = ""
        if let slotLimit, let retained = health?.retainedBytes, SlotLimit.isNear(retained, slotLimit) {
            words += " of \(Numbers.bytes(slotLimit)) that it may"
        }
        guard let retention = health?.retention, let state = retention.state, state != "reserved" else { return words }
        return words + " (\(state)\(retention.safeBytes.map { ", \(Numbers.bytes($0)) more until the slot is lost" } ?? ""))"
    }

    /// What stands below the table: trouble first.
    fileprivate func notes(_ style: Style) -> [String] {
        let name = link.direction == .forward ? "" : "reverse: "
        var lines: [String] = []
        if let trouble = report?.trouble, isRunning { lines.append(style.yellow("  \(name)waiting: \(trouble)")) }
        if let missed = report?.missed, isRunning || hasProcess {
            lines.append(style.red("  \(name)missed: \(missed); try: \(ErrorCode.changesUnseen.hint)"))
        }
        if let warning = report?.slotWarning, isRunning { lines.append(style.yellow("  \(name)\(warning)")) }
        if let failure { lines.append(style.red("  \(name)\(failure)")) }
        if let slotDropped { lines.append(style.red("  \(name)\(slotDropped)")) }
        if let stop {
            lines.append(
                style.red("  \(name)stands at a change that cannot be applied: \(Printable.text(stop.table)), \(stop.position.storedForm), \(stop.reason)"))
        }
        if let conflicts, conflicts > 0 {
            lines.append(style.yellow("  \(name)\(Numbers.grouped(conflicts)) change\(conflicts == 1 ? "" : "s") not applied as the source made \(conflicts == 1 ? "it" : "them")"))
        }
        if let journalError { lines.append(style.red("  \(name)journal: \(ErrorRenderer.headline(journalError))")) }
        var parts: [String] = []
        if let bytes = journalBytes, let segments = journalSegments {
            parts.append("journal \(Numbers.bytes(bytes)) in \(segments) segment\(segments == 1 ? "" : "s")")
        }
        if let retained = health?.retainedBytes {
            parts.append("the \(link.direction == .forward ? "source" : "target") keeps \(Numbers.bytes(retained)) of log\(slotWords)")
        }
        if !parts.isEmpty { lines.append("  \(name)" + parts.joined(separator: "; ")) }
        return lines
    }
}

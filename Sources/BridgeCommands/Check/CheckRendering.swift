package import BridgeConsistency
import BridgeCore

extension CheckReport {
    /// How many findings of one validation are shown; the rest is in the JSON.
    private static let findingLimit = 10

    /// For people: every table, the validations, what does not hold, the rows that differ, the verdict, what to do next.
    package func lines(_ style: Style) -> [String] {
        var lines = [heading(style), "  source  \(Printable.text(source))", "  target  \(Printable.text(target))"]
        if !policies.isEmpty { lines.append("  let pass  \(policies.map(Printable.text).joined(separator: ", "))") }
        lines += tableLines(style)
        lines += validationLines(style)
        lines += section("does not hold", soundness.filter { !$0.holds }.map { obligation in
            obligation.name + (obligation.detail.map { ": \($0)" } ?? "")
        }, style)
        lines += sampleLines(style)
        lines += section("errors", errors.map { "\($0.message) (\($0.code))" }, style)
        lines += ["", verdictLine(style)]
        if !nextSteps.isEmpty { lines.append(style.cyan("next:") + " " + nextSteps.joined(separator: "; ")) }
        return lines
    }

    private func heading(_ style: Style) -> String {
        var text = "\(style.bold(Printable.text(migration)))  \(mode.rawValue) check \(checkId)"
        if let completedAt, let start = RFC3339.seconds(startedAt), let end = RFC3339.seconds(completedAt) {
            text += "  \(Numbers.duration(seconds: end - start))"
        }
        return text
    }

    private func section(_ title: String, _ entries: [String], _ style: Style) -> [String] {
        entries.isEmpty ? [] : ["", "  " + style.dim(title)] + entries.map { "  " + Printable.text($0) }
    }

    private func tableLines(_ style: Style) -> [String] {
        guard !tables.isEmpty else { return [] }
        var list = BridgeCommands.Table([
            ("table", .left), ("verdict", .left), ("rows", .right), ("matching", .right), ("different", .right),
            ("missing", .right), ("extra", .right), ("pending", .right),
        ])
        var remarks: [String] = []
        for table in tables {
            let name = Printable.text(table.source)
            list.append(
                [name, table.status.rawValue]
                    + [
                        table.rowsCompared, table.matching, table.mismatched, table.sourceOnly, table.targetOnly,
                        table.pending,
                    ].map(Numbers.grouped))
            if let reason = table.reason { remarks.append("  \(name): \(Printable.text(reason))") }
            for (policy, count) in table.equalByPolicy.sorted(by: { $0.key < $1.key }) where count > 0 {
                let rows = Numbers.grouped(count)
                remarks.append("  \(name): \(rows) rows are equal only under the policy \(Printable.text(policy))")
            }
        }
        return [""] + list.lines(style: style, indentation: "  ") + remarks
    }

    private func validationLines(_ style: Style) -> [String] {
        let all = allValidations
        let width = all.map(\.name.rawValue.count).max() ?? 0
        var lines = ["", "  " + style.dim("validations")]
        for validation in all {
            let name = validation.name.rawValue
            lines.append(
                "  \(name)\(String(repeating: " ", count: width - name.count))  "
                    + Self.paint(validation.status.rawValue, validation.status, style))
            for finding in validation.findings.prefix(Self.findingLimit) { lines.append("    " + Printable.text(finding)) }
            let rest = validation.findings.count - Self.findingLimit
            if rest > 0 { lines.append("    and \(rest) more: --json has them all") }
        }
        return lines
    }

    private static func paint(_ text: String, _ status: Validation.Status, _ style: Style) -> String {
        switch status {
        case .passed: style.green(text)
        case .failed: style.red(text)
        case .inconclusive: style.yellow(text)
        case .skipped: style.dim(text)
        }
    }

    // MARK: - Rows

    private func sampleLines(_ style: Style) -> [String] {
        let lines = tables.flatMap { table in
            table.samples.flatMap { Self.lines($0, Printable.text(table.source)) }
        }
        guard !lines.isEmpty else { return [] }
        let isCut = tables.contains(where: \.samplesCut)
        return ["", "  " + style.dim("rows that differ")] + lines
            + (isCut ? ["  more rows differ: --samples N shows more, --differences FILE writes the keys of all"] : [])
    }

    private static func lines(_ sample: Sample, _ table: String) -> [String] {
        let key = sample.key.sorted { $0.key < $1.key }.map { "\(Printable.text($0.key))=\(value($0.value))" }
        var line = "  \(table)  \(sample.kind.rawValue)  \(key.joined(separator: " "))"
        if !sample.columns.isEmpty { line += "  in " + sample.columns.map(Printable.text).joined(separator: ", ") }
        guard sample.sourceValues != nil || sample.targetValues != nil else { return [line] }
        let shown = Set((sample.sourceValues ?? [:]).keys).union((sample.targetValues ?? [:]).keys)
        let columns = sample.columns.isEmpty ? shown.sorted() : sample.columns
        return [line]
            + columns.map { column in
                let sides = [sample.sourceValues, sample.targetValues].map { values in
                    values.map { $0[column].map(value) ?? "–" } ?? "–"
                }
                return "    \(Printable.text(column)): source \(sides[0])  target \(sides[1])"
            }
    }

    private static func value(_ value: String?) -> String { value.map { Printable.text($0) } ?? "NULL" }

    // MARK: - What follows

    private func verdictLine(_ style: Style) -> String {
        let word =
            switch verdict {
            case .consistent: style.green(verdict.rawValue)
            case .inconclusive: style.yellow(verdict.rawValue)
            case .inconsistent, .error: style.red(verdict.rawValue)
            }
        guard !gate.isOpen else { return "\(word)  the gate is open" }
        let reasons = gate.reasons.map(Printable.text).joined(separator: "; ")
        return "\(word)  the gate is shut" + (reasons.isEmpty ? "" : ": \(reasons)")
    }

    var nextSteps: [String] {
        switch verdict {
        case .consistent: return gate.isOpen || mode == .full ? [] : ["bridge check --mode full"]
        case .inconclusive: return ["mend what does not hold, then: bridge check --mode full"]
        case .error: return errors.map(\.hint)
        case .inconsistent:
            var steps: [String] = []
            if tables.contains(where: \.samplesCut) {
                steps.append("bridge check --differences FILE writes the keys of all rows that differ")
            }
            if rowsDifferent > 0 { steps.append("bridge check --repair writes the source's rows to the target") }
            let structure: Set<ValidationName> = [.schemas, .indexes, .constraints]
            if validations.contains(where: { structure.contains($0.name) && $0.status == .failed }) {
                steps.append("bridge schema show prints the expected tables")
            }
            return steps.isEmpty ? ["read the findings above, then: bridge check"] : steps
        }
    }
}

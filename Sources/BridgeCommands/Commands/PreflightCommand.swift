import ArgumentParser
import BridgeCore

struct PreflightCommand: BridgeSubcommand {
    static let configuration = CommandConfiguration(
        commandName: "preflight", abstract: "Find what would make a run impossible, and say what mends it.",
        discussion: """
            Changes nothing. Exits with 0 when nothing stands in the way of 'bridge run', else with the status of the \
            gravest finding: 69 for a database that cannot be reached, 77 for missing rights, 78 for everything that \
            settings or the configuration can mend. What only the way back will need, from switch-writes on, is a warning. \
            The statements that give the roles what they lack stand together at the end.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var json: JSONOption

    func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
        let configuration = try context.configuration()
        let migration = try Migration(configuration, registry: context.registry)
        let report = await PreflightReport.make(migration)
        await migration.close()
        context.report(json: json, report.json, report.lines(context.style))
        return report.exitStatus
    }
}

/// Everything that preflight found.
struct PreflightReport: Sendable {
    enum Side: String, Sendable { case configuration, source, target }
    struct Entry: Sendable {
        let side: Side
        let finding: Finding
    }
    var migration: String
    var entries: [Entry] = []

    var blocking: [Entry] { entries.filter { $0.finding.severity == .blocking } }

    /// The status of the gravest finding: unreachable, then rights, then what comes first.
    var exitStatus: ExitStatus {
        let statuses = blocking.map { $0.finding.code.exitStatus }
        for grave in [ExitStatus.unavailable, .rights, .configuration] where statuses.contains(grave) { return grave }
        return statuses.first ?? .done
    }

    /// Looks at both ends as far as they can be reached, so that one run names everything.
    static func make(_ migration: Migration) async -> PreflightReport {
        var report = PreflightReport(migration: migration.configuration.migration)
        let link = await report.lookAtSource(migration)
        await report.lookAtTarget(migration, link)
        await report.lookAtWayBack(migration)
        for finding in ConfigurationChecks.findings(migration.configuration, sources: link?.sources ?? []) {
            report.entries.append(Entry(side: .configuration, finding: finding))
        }
        return report
    }

    private mutating func lookAtSource(_ migration: Migration) async -> Migration.Link? {
        do throws(BridgeError) {
            try await migration.source.connect()
            var link = try await migration.resolveSource()
            link.sources = try await migration.source.planTables(link.description.mappings.map(\.source))
            entries += try await migration.source.preflight(link.description).map { Entry(side: .source, finding: $0) }
            let limit = migration.configuration.replication.slotRetainedLimit
            entries += try await migration.source.retentionFindings(link.description, limit: limit).map {
                Entry(side: .source, finding: $0)
            }
            return link
        } catch {
            add(error, .source)
            return nil
        }
    }

    private mutating func lookAtTarget(_ migration: Migration, _ link: Migration.Link?) async {
        do throws(BridgeError) {
            try await migration.target.connect()
            guard var link else { return }
            try await migration.resolveTarget(&link.description)
            // What the target holds once the migration has begun is its own doing, not in its way.
            if let state = try await migration.target.linkState(link.description), state.origin != nil { return }
            entries += try await migration.target.preflight(link.description, sources: link.sources).map {
                Entry(side: .target, finding: $0)
            }
        } catch {
            add(error, .target)
        }
    }

    /// What the way back lacks stops nothing before switch-writes, where it is a gate; it is best given before the first run.
    private mutating func lookAtWayBack(_ migration: Migration) async {
        let isAbsent: Set<ErrorCode> = [.tableMissing, .targetTableMissing]
        guard !entries.contains(where: { isAbsent.contains($0.finding.code) || $0.finding.code.exitStatus == .unavailable })
        else { return }
        do throws(BridgeError) {
            let back = try migration.reversed()
            do throws(BridgeError) { try await lookAtWayBack(migration, back) } catch { /* Its gate says so. */ }
            await back.close()
        } catch { return }
    }

    private mutating func lookAtWayBack(_ migration: Migration, _ back: Migration) async throws(BridgeError) {
        let directions = try await CutoverDirections.open(migration, back: back)
        let link = directions.reverse
        guard try await back.target.linkState(link) == nil else { return }
        addWarnings(try await back.source.preflight(link), .target)
        let schemas = try await back.source.planTables(link.mappings.map(\.source))
        addWarnings(try await back.target.preflight(link, sources: schemas), .source)
    }

    /// Without what the way forward lacks on the same side.
    private mutating func addWarnings(_ findings: [Finding], _ side: Side) {
        for finding in findings {
            let known = Set(entries.filter { $0.side == side }.flatMap(\.finding.mend))
            var finding = finding
            finding.mend = finding.mend.filter { !known.contains($0) }
            guard !finding.mend.isEmpty else { continue }
            finding.severity = .warning
            finding.what = "way back: \(finding.what)"
            entries.append(Entry(side: side, finding: finding))
        }
    }

    /// The statements that give the roles the rights they lack, in order, without those that stop or empty anything.
    func statements(_ side: Side) -> [String] {
        var seen: Set<String> = []
        return entries.filter { $0.side == side && $0.finding.code == .rightsMissing }.flatMap(\.finding.mend)
            .filter { $0.hasPrefix("GRANT ") || $0.hasPrefix("ALTER ") }.filter { seen.insert($0).inserted }
    }

    private mutating func add(_ error: BridgeError, _ side: Side) {
        let isReachable = error.exitStatus != .unavailable
        entries.append(
            Entry(
                side: side,
                finding: Finding(
                    .blocking, error.code, what: ErrorRenderer.headline(error),
                    why: isReachable ? "a run would fail with the same error" : "nothing else could be looked at there",
                    mend: [error.hint])))
    }

    var json: JSONValue {
        [
            "format_version": 1, "migration": .string(migration), "ready": .bool(blocking.isEmpty),
            "exit_status": .integer(Int64(exitStatus.rawValue)),
            "findings": .array(
                entries.map { entry in
                    [
                        "side": .string(entry.side.rawValue),
                        "severity": .string(entry.finding.severity.rawValue),
                        "code": .string(entry.finding.code.rawValue),
                        "table": JSONValue(entry.finding.table?.description),
                        "what": .string(entry.finding.what), "why": .string(entry.finding.why),
                        "mend": .array(entry.finding.mend.map(JSONValue.string)),
                    ]
                }),
            "statements": .array(
                [Side.source, .target].flatMap { side in
                    statements(side).map { ["side": .string(side.rawValue), "statement": .string($0)] }
                }),
        ]
    }

    func lines(_ style: Style) -> [String] {
        var lines: [String] = []
        for entry in blocking + entries.filter({ $0.finding.severity == .warning }) {
            let word = entry.finding.severity == .blocking ? style.red("blocking") : style.yellow("warning")
            let table = entry.finding.table.map { " \($0):" } ?? ""
            lines.append("\(word)  \(entry.side.rawValue):\(table) \(entry.finding.what)")
            if !entry.finding.why.isEmpty { lines.append("  why: \(entry.finding.why)") }
            lines += entry.finding.mend.map { "  mend: \($0)" }
        }
        for side in [Side.source, .target] {
            let statements = statements(side)
            guard !statements.isEmpty else { continue }
            lines.append("\(style.yellow("statements"))  to run on the \(side.rawValue), as a superuser:")
            lines += statements.map { "  \($0);" }
        }
        let warnings = entries.count - blocking.count
        lines.append(
            blocking.isEmpty
                ? "\(style.green("ready"))  nothing stands in the way of: bridge run"
                    + (warnings > 0 ? " (\(warnings) warning\(warnings == 1 ? "" : "s"))" : "")
                : "\(blocking.count) finding\(blocking.count == 1 ? "" : "s") must be mended before: bridge run")
        return lines
    }
}

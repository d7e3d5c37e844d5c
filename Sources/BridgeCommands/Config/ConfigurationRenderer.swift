import BridgeConsistency
import BridgeCore

/// Shows a resolved configuration, secrets masked.
package struct ConfigurationRenderer: Sendable {
    package let configuration: Configuration

    package init(configuration: Configuration) { self.configuration = configuration }

    /// One setting of the sections that hold plain values.
    private struct Setting {
        let section: String?
        let name: String
        let value: JSONValue
        var key: String { section.map { "\($0).\(name)" } ?? name }
    }

    private var settings: [Setting] {
        let replication = configuration.replication
        let cutover = configuration.cutover
        return [
            Setting(section: nil, name: "migration", value: .string(configuration.migration)),
            Setting(section: nil, name: "source", value: .string(configuration.source.masked)),
            Setting(section: nil, name: "target", value: .string(configuration.target.masked)),
            Setting(section: nil, name: "data_dir", value: .string(configuration.dataDirectory)),
            Setting(
                section: "replication", name: "batch_bytes",
                value: .string(Quantity.text(bytes: Int64(replication.batchBytes)))),
            Setting(section: "replication", name: "copy_jobs", value: .integer(Int64(replication.copyJobs))),
            Setting(
                section: "replication", name: "copy_part_bytes", value: .string(Quantity.text(bytes: replication.copyPartBytes))),
            Setting(section: "replication", name: "copy_indexes", value: .string(replication.copyIndexes.rawValue)),
            Setting(section: "replication", name: "apply_jobs", value: .integer(Int64(replication.applyJobs))),
            Setting(
                section: "replication", name: "journal_budget",
                value: .string(Quantity.text(bytes: replication.journalBudget))),
            Setting(
                section: "replication", name: "journal_keep", value: .string(Quantity.text(replication.journalKeep))),
            Setting(section: "replication", name: "on_conflict", value: .string(replication.onConflict.rawValue)),
            Setting(
                section: "replication", name: "slot_retained_limit",
                value: .string(Quantity.text(bytes: replication.slotRetainedLimit))),
            Setting(section: "replication", name: "at_slot_limit", value: .string(replication.atSlotLimit.rawValue)),
            Setting(section: "check", name: "max_age", value: .string(Quantity.text(configuration.check.maxAge))),
            Setting(section: "check", name: "throttle", value: .number(configuration.check.throttle)),
            Setting(
                section: "check", name: "equal", value: .array(configuration.check.equal.names.map(JSONValue.string))),
            Setting(
                section: "check", name: "memory", value: .string(Quantity.text(bytes: configuration.check.memory))),
            Setting(section: "cutover", name: "max_lag", value: .string(Quantity.text(cutover.maxLag))),
            Setting(section: "cutover", name: "max_pause", value: .string(Quantity.text(cutover.maxPause))),
            Setting(section: "cutover", name: "window", value: JSONValue(cutover.window?.text)),
            Setting(section: "cutover", name: "timeout", value: .string(Quantity.text(cutover.timeout))),
            Setting(
                section: "cutover", name: "max_transaction_age", value: .string(Quantity.text(cutover.maxTransactionAge))),
            Setting(section: "cutover", name: "soak", value: .string(Quantity.text(cutover.soak))),
            Setting(section: "cutover", name: "old_tables", value: .string(cutover.oldTables.rawValue)),
            Setting(section: "cutover", name: "routing_file", value: .string(configuration.routingFile)),
        ]
    }

    /// YAML that could be read back, but for the masks; settings that the file does not give say where they come from.
    package var yaml: [String] {
        var lines = ["# \(configuration.file)"]
        var section: String?
        for setting in settings {
            if setting.section == nil {
                lines.append(line(setting, indentation: ""))
                continue
            }
            if section == nil { lines += servicesYAML }
            if setting.section != section, let name = setting.section { lines.append("\(name):") }
            section = setting.section
            if setting.value != .null { lines.append(line(setting, indentation: "  ")) }
        }
        return lines
    }

    private func line(_ setting: Setting, indentation: String) -> String {
        let text: String =
            if case .string(let value) = setting.value { YAMLText.scalar(value) } else { setting.value.compact }
        let note: String =
            switch configuration.origin(of: setting.key) {
            case .file: ""
            case .default: "  # default"
            case .environment: "  # from the environment"
            case .flag: "  # from the command line"
            }
        return "\(indentation)\(setting.name): \(text)\(note)"
    }

    private var servicesYAML: [String] {
        var lines = ["services:"]
        for service in configuration.services {
            lines += ["  \(service.name):", "    tables:"]
            for table in service.tables {
                lines.append("      - from: \(YAMLText.scalar(table.source.written))")
                lines.append("        to: \(YAMLText.scalar(table.target.written))")
                if let columns = table.columns {
                    lines.append("        columns: [\(columns.map(YAMLText.scalar).joined(separator: ", "))]")
                }
                if let filter = table.rowFilter { lines.append("        where: \(YAMLText.scalar(filter))") }
            }
        }
        return lines
    }

    package var json: JSONValue {
        var members: [JSONValue.Member] = [
            .init(name: "format_version", value: 1), .init(name: "file", value: .string(configuration.file)),
        ]
        var sections: [(name: String, members: [JSONValue.Member])] = []
        for setting in settings {
            guard let section = setting.section else {
                members.append(.init(name: setting.name, value: setting.value))
                continue
            }
            if sections.last?.name != section { sections.append((section, [])) }
            sections[sections.count - 1].members.append(.init(name: setting.name, value: setting.value))
        }
        members.append(
            .init(
                name: "services",
                value: .object(
                    configuration.services.map { service in
                        .init(name: service.name, value: ["tables": .array(service.tables.map(Self.json))])
                    })))
        members += sections.map { .init(name: $0.name, value: .object($0.members)) }
        members.append(
            .init(
                name: "origins",
                value: .object(
                    settings.map {
                        .init(name: $0.key, value: .string(configuration.origin(of: $0.key).rawValue))
                    })))
        return .object(members)
    }

    private static func json(_ table: TableMapping) -> JSONValue {
        [
            "from": .string(table.source.description), "to": .string(table.target.description),
            "columns": table.columns.map { .array($0.map(JSONValue.string)) } ?? .null,
            "where": JSONValue(table.rowFilter),
        ]
    }
}

/// Writes scalars for YAML.
package enum YAMLText {
    private static let words: Set<String> = ["true", "false", "yes", "no", "on", "off", "null", "~", "y", "n"]

    /// The text as it is where YAML reads it back as the same text; in double quotes otherwise.
    package static func scalar(_ text: String) -> String {
        let isPlain =
            !text.isEmpty && !words.contains(text.lowercased()) && Double(text) == nil
            && text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "_-./:@+*?=&%~$".contains($0)) }
            && (text.first.map { $0.isLetter || $0.isNumber || "/._".contains($0) } ?? false)
            && text.last != ":"
        return isPlain ? text : JSONValue.string(text).compact
    }
}

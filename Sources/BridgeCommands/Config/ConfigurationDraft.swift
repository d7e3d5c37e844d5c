import BridgeCore
import Foundation

/// The `bridge.yaml` that `init` writes.
struct ConfigurationDraft: Sendable {
    let migration: String
    let source: DatabaseAddress
    let target: DatabaseAddress
    /// The folder that the file stands in.
    let directory: String
    let chosen: [TableSchema]
    /// Tables that were found but cannot be moved, or were not asked for.
    let left: [(table: TableSchema, reason: String)]
    let existing: [TableSchema]

    /// - Parameter wanted: names as written on the command line; empty for all.
    /// - Throws: `tableMissing` for a name that is not on the source; `tableWithoutKey` for one that cannot be moved.
    init(
        migration: String?, source: DatabaseAddress, target: DatabaseAddress, directory: String, found: [TableSchema],
        existing: [TableSchema], wanted: [String]
    ) throws(BridgeError) {
        self.migration = migration ?? Self.name(source, target)
        self.source = source
        self.target = target
        self.directory = directory
        self.existing = existing
        var chosen: [TableSchema] = []
        for text in wanted {
            chosen.append(try Self.find(text, in: found))
        }
        var left: [(table: TableSchema, reason: String)] = []
        for table in found where !chosen.contains(where: { $0.name == table.name }) {
            if !wanted.isEmpty {
                left.append((table, "not asked for"))
            } else if table.identity.isEmpty {
                left.append((table, "it has no primary key"))
            } else {
                chosen.append(table)
            }
        }
        self.chosen = chosen
        self.left = left
    }

    private static func find(_ text: String, in found: [TableSchema]) throws(BridgeError) -> TableSchema {
        let name = TableName(written: text)
        let matches = found.filter { $0.name == name || (name?.schema == nil && $0.name.name == name?.name) }
        guard let table = matches.first(where: { $0.name.schema == "public" }) ?? matches.first else {
            let nearest = nearestName(to: text, in: found.map { $0.name.name })
            throw BridgeError(
                .tableMissing, "there is no such table on the source", context: [.init(.table, text)],
                hint: nearest.map { "did you mean \($0)?" } ?? "correct the name behind --tables")
        }
        guard !table.identity.isEmpty else {
            throw BridgeError(
                .tableWithoutKey, "the table has no key by which a change could name its row",
                context: [.init(.table, table.name.description)])
        }
        return table
    }

    /// `shop-to-users` from the databases' names.
    private static func name(_ source: DatabaseAddress, _ target: DatabaseAddress) -> String {
        func base(_ address: DatabaseAddress) -> String {
            let path = address.connection.prefix { $0 != "?" }.split(separator: "/").last.map(String.init) ?? ""
            let name = path.contains("@") || path.contains(":") ? "database" : path
            return MigrationName.sanitized((name as NSString).deletingPathExtension)
        }
        return MigrationName.sanitized("\(base(source).prefix(18))-to-\(base(target).prefix(18))")
    }

    /// The environment variables that the file asks for in place of passwords.
    var placeholders: [String] {
        [("SOURCE", source), ("TARGET", target)].compactMap { name, address in
            ConnectionURL.holdsSecret(address.connection) ? "\(name)_PASSWORD" : nil
        }
    }

    private func written(_ address: DatabaseAddress, _ name: String) -> String {
        guard address.engine == .sqlite else {
            return ConnectionURL.replacingSecrets(in: address.connection) { $0.isEmpty ? "" : "${\(name)_PASSWORD}" }
        }
        let prefix = directory == "/" ? "/" : directory + "/"
        return "sqlite:"
            + (address.connection.hasPrefix(prefix)
                ? String(address.connection.dropFirst(prefix.count)) : address.connection)
    }

    var text: String {
        var lines = [
            "# What bridge moves, from where to where. 'bridge config' prints it as it is understood.",
            "# The next steps: bridge preflight, bridge schema apply, bridge run, bridge status.",
            "",
            "# A name, unique on both databases: lower-case letters, digits and hyphens.",
            "migration: \(migration)",
            "",
        ]
        lines += placeholders.map { "# The password comes from the environment variable \($0)." }
        lines += [
            "source: \(YAMLText.scalar(written(source, "SOURCE")))",
            "target: \(YAMLText.scalar(written(target, "TARGET")))",
            "",
            "# The journal and the state of a run are kept here. The folder holds rows of the tables: keep it private.",
            "data_dir: ./bridge-data",
            "",
            "# A service is a part of the application that owns tables. A table is a name, or a mapping:",
            "#   - from: public.profiles        # on the source",
            "#     to: accounts.user_profiles   # on the target; the same name if left out",
            "#     columns: [id, user_id, bio]  # all if left out; always with the key",
            "#     where: \"tenant_id = 7\"       # only rows that fulfil it; in the source's SQL",
            "services:",
            "  app:",
            chosen.isEmpty ? "    tables: []  # no table was found that can be moved" : "    tables:",
        ]
        lines += chosen.map { table in
            "      - \(YAMLText.scalar(name(table)))" + notes(table)
        }
        for (table, reason) in left { lines.append("      # - \(YAMLText.scalar(name(table)))  # \(reason)") }
        lines += [
            "",
            "# What follows holds the defaults.",
            "replication:",
            "  batch_bytes: 8MB        # upper bound of one batch in memory",
            "  copy_jobs: 2            # tables copied at a time",
            "  journal_budget: 20GB    # disk space for the journal; when it is used up, capture waits",
            "  journal_keep: 24h       # how long an applied segment stays",
        ]
        if source.engine == .postgresql {
            lines += [
                "  slot_retained_limit: 50GB  # log that the source may keep for the migration; well below its free disk",
                "  at_slot_limit: drop     # there: drop the replication slot and stop, or hold it and warn",
            ]
        }
        lines += [
            "",
        ]
        return lines.joined(separator: "\n")
    }

    /// Without the schema where leaving it out finds the same table.
    private func name(_ table: TableSchema) -> String {
        table.name.schema == "public" ? TableName(name: table.name.name).written : table.name.written
    }

    private func notes(_ table: TableSchema) -> String {
        var notes: [String] = []
        if let rows = table.estimatedRows, rows >= 0 { notes.append("about \(Numbers.grouped(rows)) rows") }
        if existing.contains(where: { $0.name.name == table.name.name }) { notes.append("is on the target already") }
        return notes.isEmpty ? "" : "  # " + notes.joined(separator: "; ")
    }

    func json(_ path: String) -> JSONValue {
        [
            "format_version": 1, "file": .string(path), "migration": .string(migration),
            "tables": .array(chosen.map { .string($0.name.description) }),
            "left_out": .array(
                left.map { ["table": .string($0.table.name.description), "reason": .string($0.reason)] }),
            "environment": .array(placeholders.map(JSONValue.string)),
        ]
    }

    func lines(_ path: String, _ style: Style) -> [String] {
        var lines = ["\(style.green("wrote"))  \(path): \(chosen.count) table\(chosen.count == 1 ? "" : "s")"]
        lines += left.filter { $0.reason != "not asked for" }.map {
            "\(style.yellow("left out"))  \($0.table.name): \($0.reason)"
        }
        lines += placeholders.map { "\(style.yellow("set"))  \($0), the password, before the next command" }
        lines.append("\(style.cyan("next:")) bridge preflight")
        return lines
    }
}

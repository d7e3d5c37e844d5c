import BridgeCore

/// Reads `services`: which tables move, and refuses two entries that would write the same place.
struct ServicesParser {
    let substitution: Substitution
    let sourceHasSchemas: Bool
    let targetHasSchemas: Bool

    func parse(_ value: YAMLValue) throws(BridgeError) -> [Configuration.Service] {
        var services: [Configuration.Service] = []
        var sources: [TableName: String] = [:]
        var targets: [TableName: (service: String, mapping: TableMapping)] = [:]
        for (name, service) in try value.entries() {
            guard isServiceName(name.text) else {
                throw name.value.invalid(
                    "has the service name '\(name.text)', which may hold only letters, digits, '-' and '_'")
            }
            let keys = try service.mapping(known: ["tables"])
            guard let list = keys["tables"] else {
                throw service.invalid("has no 'tables'", hint: "list the service's tables: tables: [users]")
            }
            var tables: [TableMapping] = []
            for element in try list.elements() {
                let mapping = try table(element)
                if let other = sources.updateValue(name.text, forKey: mapping.source) {
                    throw element.invalid(
                        "names table \(mapping.source) again, which service \(other) has already",
                        hint: "let each table belong to one service only")
                }
                if let other = targets[mapping.target] {
                    throw overlap(element, mapping, other.mapping)
                }
                targets[mapping.target] = (name.text, mapping)
                tables.append(mapping)
            }
            guard !tables.isEmpty else { throw list.invalid("lists no table") }
            services.append(Configuration.Service(name: name.text, tables: tables))
        }
        guard !services.isEmpty else { throw value.invalid("names no service") }
        return services
    }

    private func overlap(_ element: YAMLValue, _ mapping: TableMapping, _ other: TableMapping) -> BridgeError {
        let shared = mapping.columns.flatMap { columns in
            other.columns.map { others in columns.filter { others.contains($0) } }
        }
        let what =
            switch shared {
            case let columns? where !columns.isEmpty:
                "would write column \(columns[0]) of target table \(mapping.target), which \(other.source) writes already"
            default: "would write target table \(mapping.target), which \(other.source) writes already"
            }
        return element.invalid(what, hint: "give each source table a target table of its own with 'to:'")
    }

    private func table(_ value: YAMLValue) throws(BridgeError) -> TableMapping {
        if value.node.scalar != nil {
            let name = try tableName(value)
            return TableMapping(
                source: try onSource(name, value), target: targetHasSchemas ? name : TableName(name: name.name))
        }
        let keys = try value.mapping(known: ["from", "to", "columns", "where"])
        guard let from = keys["from"] else {
            throw value.invalid("has no 'from'", hint: "name the source table: from: users")
        }
        let name = try tableName(from)
        var mapping = TableMapping(
            source: try onSource(name, from), target: targetHasSchemas ? name : TableName(name: name.name))
        if let to = keys["to"] {
            mapping.target = try tableName(to)
            guard targetHasSchemas || mapping.target.schema == nil else { throw withoutSchemas(to, "target") }
        }
        if let columns = keys["columns"] {
            var names: [String] = []
            for element in try columns.elements() {
                let name = try element.text(substitution)
                guard !names.contains(name) else { throw element.invalid("names column \(name) twice") }
                names.append(name)
            }
            guard !names.isEmpty else {
                throw columns.invalid("lists no column", hint: "leave 'columns' out to move all of them")
            }
            mapping.columns = names
        }
        if let filter = keys["where"] { mapping.rowFilter = try filter.text(substitution) }
        return mapping
    }

    private func onSource(_ name: TableName, _ value: YAMLValue) throws(BridgeError) -> TableName {
        guard sourceHasSchemas || name.schema == nil else { throw withoutSchemas(value, "source") }
        return name
    }

    private func withoutSchemas(_ value: YAMLValue, _ side: String) -> BridgeError {
        value.invalid("names a schema, which the \(side)'s engine does not have", hint: "write the table's name alone")
    }

    private func tableName(_ value: YAMLValue) throws(BridgeError) -> TableName {
        let text = try value.text(substitution)
        guard let name = TableName(written: text) else {
            throw value.invalid(
                "is not a table's name",
                hint: "write name or schema.name; put a part that holds a dot in double quotes: '\"odd.name\"'")
        }
        return name
    }

    private func isServiceName(_ name: String) -> Bool {
        !name.isEmpty && name.utf8.count <= 64
            && name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == "_") }
    }
}

extension TableName {
    /// Reads `name` or `schema.name` as people write it in `bridge.yaml`; either part may stand in double quotes, within
    /// which two double quotes mean one. Nothing is folded to lower case. nil for anything else.
    package init?(written text: String) {
        var parts: [String] = []
        var current = ""
        var isQuoted = false
        var wasQuoted = false
        var rest = text[...]
        while let character = rest.popFirst() {
            switch character {
            case "\"" where isQuoted && rest.first == "\"":
                rest.removeFirst()
                current.append("\"")
            case "\"" where isQuoted:
                isQuoted = false
            case "\"" where current.isEmpty && !wasQuoted:
                isQuoted = true
                wasQuoted = true
            case "." where !isQuoted:
                parts.append(current)
                current = ""
                wasQuoted = false
            default:
                guard isQuoted || !wasQuoted && character != "\"", character != "\0" else { return nil }
                current.append(character)
            }
        }
        parts.append(current)
        guard !isQuoted, parts.count <= 2, parts.allSatisfy({ !$0.isEmpty }) else { return nil }
        self.init(schema: parts.count == 2 ? parts[0] : nil, name: parts[parts.count - 1])
    }

    /// The text that ``init(written:)`` reads back.
    package var written: String {
        func part(_ text: String) -> String {
            text.contains(".") || text.contains("\"") ? quoteIdentifier(text) : text
        }
        return schema.map { "\(part($0)).\(part(name))" } ?? part(name)
    }
}

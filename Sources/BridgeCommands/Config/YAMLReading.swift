import BridgeCore
import Yams

/// One place in the YAML document: the node, its dotted key and its file, so that every error can say where.
struct YAMLValue {
    let node: Node
    /// `services.user_service.tables[1].from`.
    let key: String
    let file: String

    /// The error for a value that cannot stand here. The value itself is left out, since it may be a password.
    func invalid(_ reason: String, hint: String? = nil) -> BridgeError {
        error(.configurationInvalid, key.isEmpty ? reason : "\(key) \(reason)", hint: hint)
    }

    func error(_ code: ErrorCode, _ message: String, hint: String? = nil) -> BridgeError {
        let line = node.mark.map { ":\($0.line)" } ?? ""
        return BridgeError(code, message, context: [.init(.file, file + line)], hint: hint)
    }

    private func child(_ node: Node, _ name: String) -> YAMLValue {
        YAMLValue(node: node, key: key.isEmpty ? name : "\(key).\(name)", file: file)
    }

    /// The mapping's entries in order; every key must be one of `known`.
    func mapping(known: [String]) throws(BridgeError) -> [String: YAMLValue] {
        var result: [String: YAMLValue] = [:]
        for (name, value) in try entries() {
            guard known.contains(name.text) else {
                let nearest = nearestName(to: name.text, in: known)
                throw name.value.error(
                    .configurationUnknownKey,
                    "unknown key '\(name.text)'" + (key.isEmpty ? "" : " in \(key)"),
                    hint: nearest.map { "write '\($0)'; then: bridge config" }
                        ?? "remove it; known here: " + known.joined(separator: ", "))
            }
            result[name.text] = value
        }
        return result
    }

    /// The mapping's entries in order, whatever their keys.
    func entries() throws(BridgeError) -> [(name: (text: String, value: YAMLValue), value: YAMLValue)] {
        guard case .mapping(let mapping) = node else { throw invalid("must hold keys and values") }
        var result: [(name: (text: String, value: YAMLValue), value: YAMLValue)] = []
        for (keyNode, valueNode) in mapping {
            guard let text = keyNode.scalar?.string else { throw invalid("has a key that is not a word") }
            let name = YAMLValue(node: keyNode, key: key, file: file)
            result.append(((text, name), child(valueNode, text)))
        }
        return result
    }

    func elements() throws(BridgeError) -> [YAMLValue] {
        guard case .sequence(let sequence) = node else { throw invalid("must be a list") }
        return sequence.enumerated().map { YAMLValue(node: $1, key: "\(key)[\($0)]", file: file) }
    }

    var isEmptyNode: Bool {
        guard case .scalar(let scalar) = node else { return false }
        return scalar.style == .plain && ["", "~", "null"].contains(scalar.string)
    }

    /// The scalar's text as written, before substitution.
    func rawText() throws(BridgeError) -> String {
        guard case .scalar(let scalar) = node, !isEmptyNode, !scalar.string.isEmpty else {
            throw invalid("must be a text that is not empty")
        }
        return scalar.string
    }

    func text(_ substitution: Substitution) throws(BridgeError) -> String {
        let raw = try rawText()
        return try substituted { () throws(Substitution.MissingVariable) in try substitution.apply(to: raw) }
    }

    func address(_ substitution: Substitution) throws(BridgeError) -> String {
        let raw = try rawText()
        return try substituted { () throws(Substitution.MissingVariable) in try substitution.applyToAddress(raw) }
    }

    private func substituted(
        _ body: () throws(Substitution.MissingVariable) -> String
    ) throws(BridgeError) -> String {
        do throws(Substitution.MissingVariable) {
            return try body()
        } catch {
            guard !error.name.isEmpty else { throw invalid("has a '${' without its '}'") }
            throw invalid(
                "needs the environment variable \(error.name), which is not set",
                hint: "export \(error.name)=…, then run the command again")
        }
    }

    func quantity<Value>(
        _ substitution: Substitution, _ read: (String) throws(Quantity.Malformed) -> Value
    ) throws(BridgeError) -> Value {
        let text = try text(substitution)
        do throws(Quantity.Malformed) {
            return try read(text)
        } catch {
            throw invalid(error.reason, hint: "write \(error.example)")
        }
    }

    func integer(_ substitution: Substitution, in range: ClosedRange<Int>) throws(BridgeError) -> Int {
        guard let value = Int(try text(substitution)), range.contains(value) else {
            throw invalid("must be a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }
}

extension YAMLValue {
    /// Reads a document that holds one mapping.
    static func document(_ text: String, file: String) throws(BridgeError) -> YAMLValue {
        let root: Node?
        do {
            root = try compose(yaml: text)
        } catch {
            throw syntaxError(error, file: file)
        }
        guard let root, root.mapping != nil else {
            throw BridgeError(
                .configurationInvalid, "the file holds no settings", context: [.init(.file, file)],
                hint: "bridge init SOURCE TARGET writes one")
        }
        return YAMLValue(node: root, key: "", file: file)
    }

    /// The parser's complaint without the excerpt of the file that it likes to quote.
    private static func syntaxError(_ error: any Error, file: String) -> BridgeError {
        var place = file
        let reason: String
        switch error as? YamlError {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            place += ":\(mark.line)"
            reason = problem
        case .duplicatedKeysInMapping(let duplicates, let context):
            place += ":\(context.mark.line)"
            reason = "the key '\(duplicates.first ?? "")' stands there twice"
        case .reader(let problem, _, _, _): reason = problem
        default: reason = "it is not YAML"
        }
        return BridgeError(
            .configurationInvalid, "the file cannot be read: \(reason)", context: [.init(.file, place)],
            hint: "correct the line, then run: bridge config")
    }
}

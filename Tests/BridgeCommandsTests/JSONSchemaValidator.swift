import Foundation

/// Holds a JSON document against a JSON Schema (2020-12), as far as the product's schemas use it. A keyword that it does not
/// know is an error, so that nothing in a schema goes unseen.
struct JSONSchemaValidator {
    private let root: [String: Any]

    init(_ schema: String) throws {
        guard let root = try JSONSerialization.jsonObject(with: Data(schema.utf8)) as? [String: Any] else {
            throw CocoaError(.propertyListReadCorrupt)
        }
        self.root = root
    }

    /// What is wrong, one line each with the place; empty if nothing.
    func problems(_ json: String) throws -> [String] {
        problems(try JSONSerialization.jsonObject(with: Data(json.utf8), options: .fragmentsAllowed), root, "$")
    }

    private func problems(_ value: Any, _ schema: [String: Any], _ place: String) -> [String] {
        schema.sorted { $0.key < $1.key }.flatMap { problems(value, keyword: $0.key, $0.value, schema, place) }
    }

    private func problems(
        _ value: Any, keyword: String, _ argument: Any, _ schema: [String: Any], _ place: String
    ) -> [String] {
        func problem(_ text: String) -> [String] { ["\(place): \(text)"] }
        switch keyword {
        case "$schema", "$id", "$defs", "title", "description", "then": return []
        case "$ref":
            let name = (argument as? String)?.replacing("#/$defs/", with: "") ?? ""
            guard let target = (root["$defs"] as? [String: Any])?[name] as? [String: Any] else {
                return problem("there is no definition '\(name)'")
            }
            return problems(value, target, place)
        case "type":
            let allowed = argument as? [String] ?? [argument as? String ?? ""]
            return allowed.contains { isType(value, $0) } ? [] : problem("is not \(allowed.joined(separator: " or "))")
        case "const": return isSame(value, argument) ? [] : problem("is not \(argument)")
        case "enum":
            let allowed = argument as? [Any] ?? []
            return allowed.contains { isSame(value, $0) } ? [] : problem("is none of \(allowed)")
        case "pattern":
            guard let text = value as? String else { return [] }
            let pattern = argument as? String ?? "("
            return text.range(of: pattern, options: .regularExpression) != nil ? [] : problem("does not match \(pattern)")
        case "minLength":
            guard let text = value as? String else { return [] }
            return text.unicodeScalars.count >= argument as? Int ?? .max ? [] : problem("is too short")
        case "minimum":
            guard let number = number(value) else { return [] }
            return number >= self.number(argument) ?? .infinity ? [] : problem("is below \(argument)")
        case "minItems":
            guard let list = value as? [Any] else { return [] }
            return list.count >= argument as? Int ?? .max ? [] : problem("has too few items")
        case "maxItems":
            guard let list = value as? [Any] else { return [] }
            return list.count <= argument as? Int ?? -1 ? [] : problem("has too many items")
        case "items":
            guard let list = value as? [Any], let inner = argument as? [String: Any] else { return [] }
            return list.enumerated().flatMap { problems($1, inner, "\(place)[\($0)]") }
        case "contains":
            guard let list = value as? [Any], let inner = argument as? [String: Any] else { return [] }
            return list.contains { problems($0, inner, place).isEmpty } ? [] : problem("has no item like \(inner)")
        case "required":
            guard let object = value as? [String: Any] else { return [] }
            return (argument as? [String] ?? []).filter { object[$0] == nil }.flatMap { problem("lacks \($0)") }
        case "properties":
            guard let object = value as? [String: Any] else { return [] }
            return (argument as? [String: [String: Any]] ?? [:]).sorted { $0.key < $1.key }.flatMap { name, inner in
                object[name].map { problems($0, inner, "\(place).\(name)") } ?? []
            }
        case "additionalProperties":
            guard let object = value as? [String: Any], let inner = argument as? [String: Any] else { return [] }
            let known = (schema["properties"] as? [String: Any] ?? [:]).keys
            return object.filter { !known.contains($0.key) }.flatMap { problems($1, inner, "\(place).\($0)") }
        case "allOf": return (argument as? [[String: Any]] ?? []).flatMap { problems(value, $0, place) }
        case "anyOf":
            let all = (argument as? [[String: Any]] ?? []).map { problems(value, $0, place) }
            return all.contains { $0.isEmpty } ? [] : all.flatMap { $0 }
        case "if":
            guard let condition = argument as? [String: Any], problems(value, condition, place).isEmpty,
                let then = schema["then"] as? [String: Any]
            else { return [] }
            return problems(value, then, place)
        default: return problem("the schema has the keyword \(keyword), which is not understood")
        }
    }

    private func isBool(_ value: Any) -> Bool { (value as? NSNumber).map { CFGetTypeIDIsBool($0) } ?? false }
    private func CFGetTypeIDIsBool(_ number: NSNumber) -> Bool { String(cString: number.objCType) == "c" || number === (true as NSNumber) || number === (false as NSNumber) }
    private func number(_ value: Any) -> Double? { isBool(value) ? nil : (value as? NSNumber)?.doubleValue }

    private func isType(_ value: Any, _ name: String) -> Bool {
        switch name {
        case "null": value is NSNull
        case "boolean": isBool(value)
        case "integer": number(value).map { $0 == $0.rounded() } ?? false
        case "number": number(value) != nil
        case "string": value is String
        case "array": value is [Any]
        case "object": value is [String: Any]
        default: false
        }
    }

    private func isSame(_ a: Any, _ b: Any) -> Bool {
        if let a = a as? String, let b = b as? String { return a == b }
        if isBool(a), isBool(b) { return (a as? NSNumber)?.boolValue == (b as? NSNumber)?.boolValue }
        return false
    }
}

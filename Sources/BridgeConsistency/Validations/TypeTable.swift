import BridgeCore

/// The type table between engines: which types hold which values as they are.
enum TypeTable {
    private enum Storage { case integer, real, text, bytes, numeric, anything }

    /// SQLite's affinity of a declared type.
    private static func storage(_ declared: String) -> Storage {
        let name = declared.uppercased()
        if name.isEmpty || name == "ANY" { return .anything }
        if name.contains("INT") { return .integer }
        if ["CHAR", "CLOB", "TEXT"].contains(where: name.contains) { return .text }
        if name.contains("BLOB") { return .bytes }
        if ["REAL", "FLOA", "DOUB"].contains(where: name.contains) { return .real }
        return .numeric
    }

    /// How a SQLite column of a declared type takes values of a type.
    enum Fit {
        /// All as they are.
        case whole
        /// As the declaration does not let expect. The applier stores those that stay what they are, and stops at others.
        case byValue
        case nothing
    }

    /// How a SQLite column of the declared type keeps values of a type.
    /// - Parameter isStrict: the table is STRICT, so that a column takes values of its own class and no others.
    static func fit(declared: String, isStrict: Bool, _ type: LogicalType) -> Fit {
        let storage = storage(declared)
        if storage == .anything { return .whole }
        let fit = fit(storage, type)
        guard isStrict else { return fit }
        return fit == .whole && (type != .bytes || storage == .bytes) ? .whole : .nothing
    }

    private static func fit(_ storage: Storage, _ type: LogicalType) -> Fit {
        switch type {
        case .boolean, .int16, .int32, .int64:
            // Numeric affinity, as of BOOLEAN, leaves integers alone.
            return storage == .integer || storage == .numeric ? .whole : .nothing
        case .float32, .float64: return storage == .real ? .whole : isNumber(storage) ? .byValue : .nothing
        // No affinity converts a BLOB.
        case .bytes: return .whole
        case .dynamic: return .nothing
        case .numeric, .text, .varchar, .character, .uuid, .json, .jsonb, .timestampWithTimeZone, .timestamp, .date,
            .time, .interval, .other:
            return storage == .text ? .whole : isNumber(storage) ? .byValue : .nothing
        }
    }

    private static func isNumber(_ storage: Storage) -> Bool { [.integer, .real, .numeric].contains(storage) }

    /// Whether a column with a fixed type takes values of a type of another engine; single values may still not fit.
    static func holds(_ target: LogicalType, _ source: LogicalType) -> Bool {
        switch source {
        case .dynamic: return false
        case .boolean: return target == .boolean || isInteger(target)
        case .int16, .int32, .int64:
            if case .numeric(_, let scale) = target { return scale == nil || scale == 0 }
            return isInteger(target) || target == .boolean || target == .float64
        case .float32, .float64: return target == .float32 || target == .float64 || isDecimal(target)
        case .numeric: return isDecimal(target) || target == .float64
        case .bytes: return target == .bytes
        case .timestampWithTimeZone, .timestamp, .date, .time: return isTime(target) || isText(target)
        case .text, .varchar, .character, .uuid, .json, .jsonb, .interval, .other:
            return isText(target) || isTime(target) || isDecimal(target) || isTextual(target)
        }
    }

    private static func isInteger(_ type: LogicalType) -> Bool { [.int16, .int32, .int64].contains(type) }
    private static func isDecimal(_ type: LogicalType) -> Bool { if case .numeric = type { true } else { false } }
    private static func isTime(_ type: LogicalType) -> Bool {
        [.timestampWithTimeZone, .timestamp, .date, .time].contains(type)
    }
    private static func isText(_ type: LogicalType) -> Bool {
        switch type {
        case .text, .varchar, .character: true
        default: false
        }
    }
    /// Types whose values travel as their text.
    private static func isTextual(_ type: LogicalType) -> Bool {
        switch type {
        case .uuid, .json, .jsonb, .interval, .other: true
        default: false
        }
    }

    /// Whether a default is a literal that every engine can write for the type.
    static func isLiteral(_ expression: String, _ type: LogicalType) -> Bool {
        var text = CatalogText.singleSpaced(expression)
        while text.hasPrefix("("), text.hasSuffix(")") { text = String(text.dropFirst().dropLast()) }
        switch type {
        case .boolean: return ["true", "false"].contains(text.lowercased())
        case .int16, .int32, .int64:
            return !text.isEmpty && text.count < 19 && text.drop { $0 == "-" }.allSatisfy { $0.isASCII && $0.isNumber }
        case .text, .varchar:
            guard text.first == "'", let end = text.dropFirst().firstIndex(of: "'") else { return false }
            let rest = text[text.index(after: end)...]
            return rest.isEmpty || rest == "::text" || rest == "::character varying"
        default: return false
        }
    }
}

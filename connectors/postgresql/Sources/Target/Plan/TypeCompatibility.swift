import BridgeCore

/// Which source types a target column can hold without changing a value.
enum TypeCompatibility {
    /// Why a source column's values cannot go into a target column; nil if they can. One sentence, lower case.
    static func refusal(of source: Relation.Column, form: ValueForm, into target: TargetTable.Column) -> String? {
        let fits =
            switch form {
            case .native: isAssignable(source.typeName, to: target)
            case .canonical:
                isCanonical(source.type, writableTo: target.baseTypeName) && !wouldChangeClass(source, target.baseTypeName)
            }
        return fits ? nil : "a column of type \(source.typeName) cannot be held by the target's type \(target.typeName)"
    }

    /// Same engine: the same type, or one that holds all its values and reads its text.
    private static func isAssignable(_ source: String, to target: TargetTable.Column) -> Bool {
        if source == target.typeName || source == target.baseTypeName { return true }
        let from = LogicalType(name: source)
        let to = LogicalType(name: target.baseTypeName)
        switch (from, to) {
        // A type of an extension or of the user: enums and domains may go by another schema. What does not fit is found
        // value by value.
        case (.other(let from), .other(let to)): return hasSameShape(from, to)
        // A domain of the source, of which only the name is known here.
        case (.other, _): return !isBuiltIn(source)
        case (_, .text): return from != .character(nil) && !isCharacter(from)
        case (.int16, .int32), (.int16, .int64), (.int32, .int64): return true
        case (.int16, .numeric(nil, _)), (.int32, .numeric(nil, _)), (.int64, .numeric(nil, _)): return true
        case (.numeric, .numeric(nil, _)): return true
        case (.numeric(let p?, let s), .numeric(let q?, let t)):
            let (s, t) = (s ?? 0, t ?? 0)
            return t >= s && q - t >= p - s
        case (.varchar(let n), .varchar(let m)): return m == nil || (n ?? .max) <= (m ?? 0)
        case (.character(let n), .character(let m)): return n == m
        case (.json, .jsonb), (.float32, .float64): return true
        case (.timestamp, .timestamp), (.timestampWithTimeZone, .timestampWithTimeZone), (.time, .time),
            (.interval, .interval):
            return precision(target.baseTypeName) >= precision(source)
        default: return false
        }
    }

    private static func isCharacter(_ type: LogicalType) -> Bool {
        if case .character = type { true } else { false }
    }

    /// Digits behind the point of a second, of `timestamp(3) without time zone` and its kin.
    private static func precision(_ name: String) -> Int {
        guard let open = name.firstIndex(of: "("), let close = name[open...].firstIndex(of: ")") else { return 6 }
        return Int(name[name.index(after: open)..<close]) ?? 6
    }

    private static func hasSameShape(_ a: String, _ b: String) -> Bool {
        if isBuiltIn(a) || isBuiltIn(b) {
            // `bit varying(3)` into `bit varying`, arrays with and without modifiers.
            func bare(_ name: String) -> String {
                guard let open = name.firstIndex(of: "("), let close = name[open...].firstIndex(of: ")") else { return name }
                return String(name[..<open] + name[name.index(after: close)...])
            }
            return bare(a) == bare(b)
        }
        return a.hasSuffix("[]") == b.hasSuffix("[]")
    }

    /// Built-in types that ``LogicalType`` does not know by name.
    private static func isBuiltIn(_ name: String) -> Bool {
        let element = name.hasSuffix("[]") ? String(name.dropLast(2)) : name
        if case .other = LogicalType(name: element) {} else { return true }
        let base = element.prefix { $0 != "(" }
        return builtIn.contains(String(base))
    }

    /// Whether a type's binary form means the same in every database: built-in types and arrays of them. The server does
    /// not read the binary form that it writes of an empty tsquery.
    static func hasPortableBinaryForm(_ name: String) -> Bool { isBuiltIn(name) && !name.hasPrefix("tsquery") }

    private static let builtIn: Set<String> = [
        "oid", "name", "\"char\"", "bit", "bit varying", "inet", "cidr", "macaddr", "macaddr8", "money", "point", "line",
        "lseg", "box", "path", "polygon", "circle", "xml", "tsvector", "tsquery", "pg_lsn", "time with time zone",
        "int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange", "int4multirange", "int8multirange",
        "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange", "jsonpath", "txid_snapshot", "pg_snapshot",
    ]

    /// Whether a number would come back to a column that converts nothing as a value of another class: decimals as text, a
    /// double for an integer.
    private static func wouldChangeClass(_ source: Relation.Column, _ name: String) -> Bool {
        guard source.keepsClasses else { return false }
        switch (source.type, TargetType(typeName: name)) {
        case (.int16, .numeric), (.int32, .numeric), (.int64, .numeric), (.float32, .numeric), (.float64, .numeric): return true
        case (.int16, .float32), (.int32, .float32), (.int64, .float32), (.int16, .float64), (.int32, .float64), (.int64, .float64):
            return true
        default: return false
        }
    }

    /// Another engine, by the type table: a class of values is written only to columns that hold it as it is.
    private static func isCanonical(_ source: LogicalType, writableTo name: String) -> Bool {
        let target = TargetType(typeName: name)
        switch source {
        case .dynamic: return false
        case .boolean:
            if case .integer = target { return true }
            return target == .boolean
        case .int16, .int32, .int64:
            switch target {
            // Narrower ones are range-checked value by value, as are 0 and 1.
            case .integer, .boolean, .float64: return true
            case .numeric(let scale, _): return scale == nil || scale == 0
            default: return false
            }
        case .float32, .float64:
            switch target {
            case .float32, .float64, .numeric: return true
            default: return false
            }
        case .numeric:
            if case .numeric = target { return true }
            if case .float64 = target { return true }
            return false
        case .bytes: return target == .bytes
        case .timestampWithTimeZone, .timestamp, .date, .time:
            switch target {
            case .dateTime, .date, .timeOfDay, .text: return true
            default: return false
            }
        case .text, .varchar, .character, .uuid, .json, .jsonb, .interval, .other:
            switch target {
            case .text, .other, .dateTime, .date, .timeOfDay, .numeric: return true
            default: return false
            }
        }
    }
}

import BridgeCore

/// What a target column takes, as far as a canonical value must be checked before it is handed over. The server checks
/// the rest; what it would change silently (rounding, cutting trailing spaces, reading `now` as a time) is found here.
enum TargetType: Hashable, Sendable {
    case boolean
    case integer(min: Int64, max: Int64)
    /// An integer comes back as a double, so it is taken only from a column that makes an integer of that again.
    case float32(takesIntegers: Bool)
    case float64(takesIntegers: Bool)
    /// `goesByValue`: text of the same number with other zeros at its end is taken too.
    case numeric(scale: Int?, goesByValue: Bool)
    /// Characters at most; nil for no limit.
    case text(Int?)
    case bytes
    /// Times of all kinds; digits behind the point of a second.
    case dateTime(precision: Int)
    case timeOfDay(precision: Int)
    case date
    /// json, jsonb, uuid, interval, arrays, enums and all others: text in PostgreSQL's own form.
    case other

    /// - Parameters:
    ///   - typeName: the base type's name as `format_type` gives it, without domain.
    ///   - source: where the values come from, if they come from a column.
    ///   - goesByValue: for a link that leads back to where the values once came from. What an application that goes on
    ///     without scaled decimals writes, 7 for 7.00, must not end the way back.
    init(typeName: String, source: Relation.Column? = nil, goesByValue: Bool = false) {
        let takesIntegers = source.map { !$0.keepsClasses } ?? true
        let limit = Self.arguments(typeName)
        switch LogicalType(name: typeName) {
        case .boolean: self = .boolean
        case .int16: self = .integer(min: Int64(Int16.min), max: Int64(Int16.max))
        case .int32: self = .integer(min: Int64(Int32.min), max: Int64(Int32.max))
        case .int64: self = .integer(min: .min, max: .max)
        case .float32: self = .float32(takesIntegers: takesIntegers)
        case .float64: self = .float64(takesIntegers: takesIntegers)
        case .numeric(nil, _): self = .numeric(scale: nil, goesByValue: false)
        case .numeric(_, let scale): self = .numeric(scale: scale ?? 0, goesByValue: goesByValue)
        case .text: self = .text(nil)
        case .varchar(let length): self = .text(length)
        case .character(let length): self = .text(length)
        case .bytes: self = .bytes
        case .timestampWithTimeZone, .timestamp: self = .dateTime(precision: limit ?? 6)
        case .time: self = .timeOfDay(precision: limit ?? 6)
        case .date: self = .date
        default: self = .other
        }
    }

    private static func arguments(_ name: String) -> Int? {
        guard let open = name.firstIndex(of: "("), let close = name[open...].firstIndex(of: ")") else { return nil }
        return Int(name[name.index(after: open)..<close])
    }
}

extension Relation.Column {
    /// Whether it is a column of SQLite's that converts nothing, by the declared type of a relation in canonical form: 5 and 5.0
    /// are two values in it. A column declared ANY is taken for a STRICT table's.
    var keepsClasses: Bool { Affinity(declared: typeName, isStrict: true) == .blob }
}

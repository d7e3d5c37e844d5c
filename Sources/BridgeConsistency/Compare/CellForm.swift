import BridgeCore

/// How the values of one column are made comparable. The same on both sides: it follows from the two types, and the more
/// strictly typed one decides.
///
/// A value that is not one of the form's stays as it is, with its tag, and so differs from every value that is.
package enum CellForm: Hashable, Sendable {
    /// The cell as it stands: tag, length, bytes.
    case raw
    /// As it stands too; with `negativeZero`, a real -0 counts as 0.
    case dynamic
    /// Integer; a text is read as one.
    case integerText
    /// 0 or 1; a text is read as one.
    case booleanText
    /// Floating point; integer cells where they are exact.
    case real(single: Bool, readsText: Bool)
    /// Decimal text; integer cells as text. `byValue`: both sides declare a scale, so trailing zeros say nothing.
    case numeric(byValue: Bool)
    /// The same where both sides' columns are for decimals: of a cell that holds an integer or a double, which keep no scale,
    /// the decimal counts that an applier writes of it, with the scale that the other side declares. By value too where a
    /// side's column is declared so that it holds numbers only, which have no zeros at their end.
    case decimal(byValue: Bool, scale: Int?)
    /// Blob; a text is read as `\x…`.
    case blobText
    case uuid
    case json
    case jsonb
    case timestampWithTimeZone
    case timestamp
    case date
    case time
    /// Trailing blanks do not count, by declaration.
    case character
    /// Trailing blanks count unless `characterPadding` is on.
    case paddedText
    /// Left out: the two types cannot be compared.
    case skip

    /// The policies that could make two of its values equal.
    var policies: EqualityPolicies {
        switch self {
        case .dynamic, .real: .negativeZero
        case .numeric(let byValue), .decimal(let byValue, _):
            byValue ? .negativeZero : [.negativeZero, .numericScale]
        case .json: .jsonSpacing
        case .paddedText: .characterPadding
        default: []
        }
    }
}

extension CellForm {
    /// What a pair of types gives.
    enum Choice: Hashable {
        case form(CellForm)
        case incomparable(String)
    }

    static func choose(_ source: Relation.Column, _ target: Relation.Column) -> Choice {
        let refusal = Choice.incomparable("\(source.typeName) cannot be compared with \(target.typeName)")
        guard let form = between(source.type, target.type) ?? between(target.type, source.type) else { return refusal }
        // A scaled column has but one spelling of a number, and so says nothing of the other side's. A key is told by its own.
        if form == .numeric(byValue: false), !source.isKey, !target.isKey, isScaled(source.type) || isScaled(target.type) {
            return .form(.numeric(byValue: true))
        }
        return .form(form)
    }

    private static func isScaled(_ type: LogicalType) -> Bool {
        if case .numeric(_, _?) = type { true } else { false }
    }

    /// Whether a type is the decimals', and the other may be a column's that holds numbers, whatever it was planned as.
    static func isDecimal(_ type: LogicalType, besideNumbers other: LogicalType) -> Bool {
        guard case .numeric = type else { return false }
        switch other {
        case .int16, .int32, .int64, .float32, .float64, .numeric, .text, .dynamic: return true
        default: return false
        }
    }

    /// The form of two types, where the first is at least as strict as the second; nil to be asked the other way round,
    /// or if there is none.
    private static func between(_ a: LogicalType, _ b: LogicalType) -> CellForm? {
        switch a {
        case .boolean, .int16, .int32, .int64: return ofInteger(a, b)
        case .float32, .float64:
            switch b {
            case .float32, .float64, .dynamic: return .real(single: false, readsText: false)
            case let other where isText(other): return .real(single: a == .float32, readsText: true)
            default: return nil
            }
        case .numeric(_, let scale):
            if case .numeric(_, let other) = b {
                let byValue = scale != nil && other != nil && scale != other
                return .decimal(byValue: byValue, scale: byValue ? nil : scale ?? other)
            }
            return isLoose(b) ? .numeric(byValue: false) : nil
        case .bytes: return b == .bytes || b == .dynamic ? .raw : isText(b) ? .blobText : nil
        case .jsonb: return b == .jsonb || b == .json || isLoose(b) ? .jsonb : nil
        case .json: return b == .json || isLoose(b) ? .json : nil
        case .uuid: return b == a || isLoose(b) ? .uuid : nil
        case .timestampWithTimeZone: return b == a || isLoose(b) ? .timestampWithTimeZone : nil
        case .timestamp: return b == a || isLoose(b) ? .timestamp : nil
        case .date: return b == a || isLoose(b) ? .date : nil
        case .time: return b == a || isLoose(b) ? .time : nil
        case .interval: return b == a || isLoose(b) ? .raw : nil
        case .character(let length): return ofCharacter(length, b)
        case .dynamic: return b == .dynamic ? .dynamic : nil
        case .text, .varchar, .other: return isLoose(b) ? .raw : nil
        }
    }

    /// Whether values that are equal in this form mostly stand in the same bytes on both sides: the same type, or text
    /// that an applier has written as it came.
    func isUsuallyRaw(_ source: Relation.Column, _ target: Relation.Column) -> Bool {
        let (a, b) = (source.type, target.type)
        switch self {
        case .skip: return false
        case .raw, .dynamic, .paddedText: return true
        case .uuid, .json, .timestamp, .date, .time: return true
        // An engine without fixed types has them in other classes, and other names for them.
        case .decimal: return a == b && source.typeName == target.typeName
        case .jsonb, .numeric: return a == b || Self.isLoose(a) || Self.isLoose(b)
        // As PostgreSQL's own text it has another spelling of UTC, or another length.
        case .timestampWithTimeZone, .character: return a == b || a == .dynamic || b == .dynamic
        case .real(_, let readsText): return !readsText && !Self.isInteger(a) && !Self.isInteger(b)
        case .integerText, .booleanText, .blobText: return false
        }
    }

    private static func isInteger(_ type: LogicalType) -> Bool {
        switch type {
        case .boolean, .int16, .int32, .int64: true
        default: false
        }
    }

    private static func ofInteger(_ a: LogicalType, _ b: LogicalType) -> CellForm? {
        switch b {
        case .boolean, .int16, .int32, .int64, .dynamic: return .raw
        case .float32, .float64: return a == .boolean ? nil : .real(single: false, readsText: false)
        case .numeric(_, let scale): return a == .boolean ? nil : .numeric(byValue: (scale ?? 0) > 0)
        default: return isText(b) ? (a == .boolean ? .booleanText : .integerText) : nil
        }
    }

    private static func ofCharacter(_ length: Int?, _ b: LogicalType) -> CellForm? {
        if case .character(let other) = b { return length == nil && other == nil ? .paddedText : .character }
        guard isLoose(b) else { return nil }
        return length == nil ? .paddedText : .character
    }

    /// Types whose values come as the engine's text.
    private static func isText(_ type: LogicalType) -> Bool {
        switch type {
        case .text, .varchar, .other: true
        default: false
        }
    }

    private static func isLoose(_ type: LogicalType) -> Bool { type == .dynamic || isText(type) }
}

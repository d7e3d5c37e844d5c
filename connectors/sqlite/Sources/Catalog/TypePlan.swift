package import BridgeCore

/// Which storage classes the values of a column have.
package struct ColumnContents: Hashable, Sendable {
    package var hasNull = false
    package var hasInteger = false
    package var hasReal = false
    package var hasText = false
    /// A text that is more than digits, signs, a point and an exponent is there.
    package var hasOtherThanDecimalText = false
    package var hasBlob = false
    /// An integer other than 0 and 1 is there.
    package var hasOtherThanZeroAndOne = false

    package init() {}

    package var isEmpty: Bool { !(hasInteger || hasReal || hasText || hasBlob) }
}

/// Which logical type a column's values travel as.
///
/// The declared name alone decides nothing, because SQLite stores what it is given: a column declared UUID has numeric
/// affinity and may hold integers. What is stored decides, and the declared name chooses among the types that fit it:
///
/// | stored (NULL aside) | declared | logical type |
/// | --- | --- | --- |
/// | integers 0 and 1 only | BOOL, BOOLEAN | boolean |
/// | integers | REAL affinity | float64 |
/// | integers, reals | DECIMAL, NUMERIC | numeric |
/// | integers | anything else | int64 |
/// | reals, perhaps integers where affinity is REAL or NUMERIC | REAL affinity, or no declared number type | float64 |
/// | text that is a number (too long for SQLite to convert), perhaps with integers and reals | DECIMAL, NUMERIC | numeric |
/// | text | anything else | text |
/// | blobs | anything | bytes |
/// | nothing | by affinity: INTEGER int64, REAL float64, TEXT text, BLOB bytes; NUMERIC by its name, text if it is unknown | |
/// | any other mixture | | dynamic |
///
/// `dynamic` carries every value exactly, and only an engine without fixed types takes it.
package enum TypePlan {
    package static func type(of column: SQLiteTable.Column, isRowid: Bool, contents: ColumnContents?) -> LogicalType {
        if isRowid { return .int64 }
        let declared = column.declaredType.uppercased()
        guard let contents, !contents.isEmpty else { return unseen(declared, column.affinity) }
        let isDecimal = isDecimal(declared)
        switch (contents.hasInteger, contents.hasReal, contents.hasText, contents.hasBlob) {
        case (true, false, false, false):
            if isBoolean(declared), !contents.hasOtherThanZeroAndOne { return .boolean }
            if isDecimal { return decimal(declared) }
            return column.affinity == .real ? .float64 : .int64
        case (false, true, false, false):
            return isDecimal ? decimal(declared) : .float64
        case (true, true, false, false):
            if isDecimal { return decimal(declared) }
            return column.affinity == .real || (column.affinity == .numeric && !declared.isEmpty) ? .float64 : .dynamic
        case (false, false, true, false):
            return isDecimal && !contents.hasOtherThanDecimalText ? decimal(declared) : .text
        case (_, _, true, false):
            return isDecimal && !contents.hasOtherThanDecimalText ? decimal(declared) : .dynamic
        case (false, false, false, true):
            return .bytes
        default:
            return .dynamic
        }
    }

    /// The plan for a column without a single value.
    private static func unseen(_ declared: String, _ affinity: Affinity) -> LogicalType {
        if isBoolean(declared) { return .boolean }
        switch affinity {
        case .integer: return .int64
        case .real: return .float64
        case .text: return .text
        case .blob: return declared.isEmpty || declared == "ANY" ? .dynamic : .bytes
        case .numeric: return isDecimal(declared) ? decimal(declared) : .text
        }
    }

    static func isBoolean(_ declared: String) -> Bool { declared.hasPrefix("BOOL") }

    static func isDecimal(_ declared: String) -> Bool { declared.hasPrefix("DEC") || declared.hasPrefix("NUM") }

    /// SQLite does not enforce precision and scale, so they are not carried over: a value may have more digits.
    private static func decimal(_ declared: String) -> LogicalType { .numeric(precision: nil, scale: nil) }
}

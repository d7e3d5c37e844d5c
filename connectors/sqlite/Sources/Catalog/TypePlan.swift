package import BridgeCore

/// Which storage classes the values of a column have.
package struct ColumnContents: Hashable, Sendable {
    package var hasNull = false
    package var hasInteger = false
    package var hasReal = false
    package var hasText = false
    package var hasBlob = false
    /// An integer other than 0 and 1 is there.
    package var hasOtherThanZeroAndOne = false
    /// An integer that no double stands for is there.
    package var hasIntegerBeyondReals = false
    /// What is wrong with a text that an engine with a rule for text would refuse.
    package var textFault = TextFault.none

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
/// | integers, reals | DECIMAL, NUMERIC with the affinity NUMERIC | numeric |
/// | integers | anything else | int64 |
/// | reals, perhaps integers that a double stands for where the affinity is a number's | anything else | float64 |
/// | text | anything: what reads as a number where the affinity is a number's is none any more | text |
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
        // Under another affinity decimals are text, or doubles, and stay what they are.
        let isDecimal = isDecimal(declared) && column.affinity == .numeric
        switch (contents.hasInteger, contents.hasReal, contents.hasText, contents.hasBlob) {
        case (true, false, false, false):
            if isBoolean(declared), !contents.hasOtherThanZeroAndOne { return .boolean }
            if isDecimal { return decimal(declared) }
            return column.affinity == .real ? .float64 : .int64
        case (false, true, false, false):
            return isDecimal ? decimal(declared) : .float64
        case (true, true, false, false):
            if isDecimal { return decimal(declared) }
            // Only where SQLite makes an integer of a double that is one does an integer come back. Without affinity 5.0 would stay,
            // which the target sees to: such a column of doubles takes no integer later on. ANY is without affinity in a STRICT
            // table, and the target cannot tell.
            guard !contents.hasIntegerBeyondReals, declared != "ANY" else { return .dynamic }
            return column.affinity.isNumber ? .float64 : .dynamic
        case (false, false, true, false):
            return .text
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

    /// As which type a column without a look at its values is compared with another engine's.
    ///
    /// It holds what it was given, whatever its declaration would have let expect: a column declared INT may hold nothing but
    /// blobs, and has then a counterpart of that type.
    package static func compared(_ column: SQLiteTable.Column, isRowid: Bool, with other: LogicalType) -> LogicalType {
        let planned = type(of: column, isRowid: isRowid, contents: nil)
        if isRowid { return planned }
        switch (planned, other) {
        case (.bytes, .bytes): return planned
        case (.bytes, _), (.boolean, .bytes), (.boolean, .float32), (.boolean, .float64), (.boolean, .numeric), (.int64, .bytes),
            (.float64, .bytes), (.float64, .boolean), (.float64, .numeric), (.numeric, .bytes), (.numeric, .float32),
            (.numeric, .float64), (.numeric, .boolean):
            return .dynamic
        default: return planned
        }
    }

    static func isBoolean(_ declared: String) -> Bool { declared.hasPrefix("BOOL") }

    static func isDecimal(_ declared: String) -> Bool { declared.hasPrefix("DEC") || declared.hasPrefix("NUM") }

    /// SQLite does not enforce precision and scale, so they are not carried over: a value may have more digits.
    private static func decimal(_ declared: String) -> LogicalType { .numeric(precision: nil, scale: nil) }
}

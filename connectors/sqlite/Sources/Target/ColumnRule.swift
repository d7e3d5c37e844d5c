import BridgeCore

/// The storage classes of the cells that a column takes without changing them.
struct CellClasses: OptionSet, Hashable, Sendable {
    let rawValue: UInt8
    static let null = CellClasses(rawValue: 1)
    static let integer = CellClasses(rawValue: 2)
    static let real = CellClasses(rawValue: 4)
    static let string = CellClasses(rawValue: 8)
    static let blob = CellClasses(rawValue: 16)
    static let all: CellClasses = [.null, .integer, .real, .string, .blob]
}

/// What may be written into one target column so that SQLite stores exactly what it was given.
///
/// SQLite converts silently: text that looks like a number in a column declared UUID, an integer in a column declared
/// TEXT, 1.0 in a column declared NUMERIC. So the rule is made from both sides' types once a relation, and every cell is
/// held against it when it is bound.
struct ColumnRule: Hashable, Sendable {
    /// What becomes of a cell that is text.
    enum Text: Hashable, Sendable {
        /// It is stored as text.
        case asItStands
        /// It is stored as text, and refused if SQLite would store a number instead.
        case unlessNumber
        /// It is a decimal, stored as the number that SQLite would have of it.
        case decimal(DecimalRule)
    }

    var accepted: CellClasses
    /// Where the affinity is REAL, NUMERIC or INTEGER, -0.0 is stored as 0: the sign would be lost without a word.
    var keepsNegativeZero: Bool
    var text = Text.asItStands

    /// Makes the rule for values of a source column in a target column; nil if the target column would convert them all.
    /// - Parameter isWayBack: the target is the file that the source's values once came from.
    init?(
        source: SourceColumnType, target: SQLiteTable.Column, isStrict: Bool, isRowid: Bool, isWayBack: Bool = false
    ) {
        keepsNegativeZero = target.affinity == .blob
        if isRowid {
            // NULL would not be stored but replaced by a number of SQLite's choice.
            guard source.isSQLite || source.cells == .integer else { return nil }
            accepted = .integer
            return
        }
        let unchanged = Self.storedUnchanged(target, isStrict: isStrict)
        if source.isSQLite {
            // What one column stores is a fixed point of its conversion, so a column of the same affinity keeps it.
            // A STRICT column takes one storage class only, whatever the source has.
            let stored = Affinity(declared: source.typeName, isStrict: source.isStrict)
            accepted = !isStrict && stored.stores(likewise: target.affinity) ? .all : unchanged
            return
        }
        accepted = source.cells.union(.null)
        guard !unchanged.contains(source.cells) else { return }
        guard !isStrict, let text = Self.text(source, target.affinity, isWayBack: isWayBack) else { return nil }
        self.text = text
    }

    /// What becomes of text in a column whose affinity is a number's, where it is decided value by value; nil if no value
    /// could stay what it is.
    ///
    /// Doubles are no matter of text, and pass: a column with the affinity NUMERIC or INTEGER stores those that are integers
    /// as integers, and so could never hold another form of them.
    private static func text(_ source: SourceColumnType, _ affinity: Affinity, isWayBack: Bool) -> Text? {
        guard affinity.isNumber else { return nil }
        switch (source.cells, source.type) {
        case (.string, .numeric(_, let scale)):
            return .decimal(DecimalRule(scale: scale, ignoresTrailingZeros: isWayBack, isReal: affinity == .real))
        case (.string, _): return .unlessNumber
        case (.real, _): return affinity == .real ? nil : .asItStands
        default: return nil
        }
    }

    private static func storedUnchanged(_ column: SQLiteTable.Column, isStrict: Bool) -> CellClasses {
        switch (column.affinity, isStrict) {
        case (.integer, true), (.numeric, true): [.integer, .null]
        case (.real, true): [.real, .null]
        case (.text, true): [.string, .null]
        case (.blob, true): foldCase(column.declaredType) == "any" ? .all : [.blob, .null]
        case (.integer, false), (.numeric, false): [.integer, .blob, .null]
        case (.real, false): [.real, .blob, .null]
        case (.text, false): [.string, .blob, .null]
        case (.blob, false): .all
        }
    }
}

extension Affinity {
    /// Whether text that reads as a number is stored as one.
    var isNumber: Bool { self == .integer || self == .real || self == .numeric }

    /// Whether a value that is stored under one affinity is stored unchanged under the other. INTEGER and NUMERIC differ
    /// only in CAST.
    func stores(likewise other: Affinity) -> Bool {
        func isNumber(_ affinity: Affinity) -> Bool { affinity == .integer || affinity == .numeric }
        return self == other || other == .blob || (isNumber(self) && isNumber(other))
    }
}

/// What is known of a source column's values.
struct SourceColumnType: Hashable, Sendable {
    /// Whether values come as SQLite stores them, in any storage class.
    var isSQLite: Bool
    /// Whether the source table is known to be STRICT. A relation does not say; preflight knows.
    var isStrict = false
    /// The source engine's own name of the type.
    var typeName: String
    var type: LogicalType

    /// The storage class of the canonical form; see ``LogicalType``.
    var cells: CellClasses {
        switch type {
        case .boolean, .int16, .int32, .int64: .integer
        case .float32, .float64: .real
        case .bytes: .blob
        case .numeric, .text, .varchar, .character, .uuid, .json, .jsonb, .timestampWithTimeZone, .timestamp, .date,
            .time, .interval, .other:
            .string
        case .dynamic: .all
        }
    }

    /// A declared type that stores the values as they are.
    var suitableDeclaration: String { isSQLite ? typeName : targetDeclaration(for: type) }
}

/// The declared type of a SQLite column for a logical type: the product's type table.
func targetDeclaration(for type: LogicalType) -> String {
    switch type {
    case .boolean, .int16, .int32, .int64: "INTEGER"
    case .float32, .float64: "REAL"
    case .bytes: "BLOB"
    case .dynamic: ""
    case .numeric, .text, .varchar, .character, .uuid, .json, .jsonb, .timestampWithTimeZone, .timestamp, .date, .time,
        .interval, .other:
        "TEXT"
    }
}

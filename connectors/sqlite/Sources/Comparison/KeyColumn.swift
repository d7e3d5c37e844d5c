import BridgeCore

/// How the cells of another database's keys become what one column of a key holds.
///
/// A column with a number's affinity holds numbers in the class that SQLite chooses, and another database has the same
/// number as an integer, as a double, or as decimal text. A column with the affinity TEXT holds an integer as its digits. In
/// a column without affinity a value of another class is another value, unless the plan says that numbers are held.
struct KeyColumn: Sendable {
    private enum Held { case anything, numbers, texts }
    private let held: Held
    /// Whether a number may be held in another class than ``append(_:to:)`` gives it.
    let hasClasses: Bool

    init(_ column: SQLiteTable.Column, type: LogicalType, isRowid: Bool) {
        switch column.affinity {
        case _ where isRowid: held = .numbers
        case .integer, .real, .numeric: held = .numbers
        case .text: held = .texts
        case .blob:
            switch type {
            case .boolean, .int16, .int32, .int64, .float32, .float64, .numeric: held = .numbers
            default: held = .anything
            }
        }
        hasClasses = held == .numbers && !isRowid
    }

    /// Appends the cell as one that the column's values compare with by ``holds(_:_:_:)``: a number as an integer if it is
    /// one, else as a double.
    /// - Returns: false if no value of the column can be meant.
    func append(_ cell: Cell, to buffer: RecordBuffer) -> Bool {
        switch (held, cell.tag) {
        case (.numbers, .real):
            guard let real = cell.real, !real.isNaN else { return false }
            Self.append(real, to: buffer)
        case (.numbers, .string), (.numbers, .text): return Self.append(number: cell, to: buffer)
        case (.texts, .integer):
            guard let integer = cell.integer else { return false }
            var text = String(integer)
            text.withUTF8 { buffer.appendCell(.string, UnsafeRawBufferPointer($0)) }
        default:
            guard cell.tag != .absent, cell.tag != .unchanged else { return false }
            let tag = cell.tag == .text ? CellTag.string : cell.tag
            if tag.hasBytes { buffer.appendCell(tag, cell.bytes) } else { buffer.appendCell(tag) }
        }
        return true
    }

    private static func append(_ real: Double, to buffer: RecordBuffer) {
        // The sign of a zero would be lost.
        if let integer = Int64(exactly: real), integer != 0 || real.sign == .plus {
            buffer.appendCell(integer: integer)
        } else {
            buffer.appendCell(real: real)
        }
    }

    private static func append(number cell: Cell, to buffer: RecordBuffer) -> Bool {
        guard let decimal = NumberText.Decimal(cell.bytes, dropsTrailingZeros: true) else {
            let real = NumberText.real(cell.bytes, single: false)
            if let real, real.isNaN { return false }
            if let real { buffer.appendCell(real: real) } else { buffer.appendCell(.string, cell.bytes) }
            return true
        }
        if decimal.isZero {
            buffer.appendCell(integer: 0)
            return true
        }
        if decimal.fraction.isEmpty, let magnitude = NumberText.integer(decimal.whole, isNegative: decimal.isNegative) {
            buffer.appendCell(integer: magnitude)
            return true
        }
        // A double is another database's decimal only if it is what an applier makes of that double.
        guard let real = NumberText.real(cell.bytes, single: false) else { return false }
        var text = NumberText.decimal(real)
        let isSame = text.withUTF8 { bytes in
            NumberText.Decimal(UnsafeRawBufferPointer(bytes), dropsTrailingZeros: true)?.isEqual(to: decimal) ?? false
        }
        guard isSame else { return false }
        buffer.appendCell(real: real)
        return true
    }

    /// Whether a row's value is the one that ``append(_:to:)`` made a cell of.
    func holds(_ row: SQLiteStatement, _ place: Int, _ cell: Cell) -> Bool {
        if held == .numbers, cell.tag == .integer, row.storageClass(place) == .real {
            let real = row.real(place)
            return Int64(exactly: real) == cell.integer && (real != 0 || real.sign == .plus)
        }
        return Self.isSame(row, place, cell)
    }

    /// Whether a row's value is this very one: 1 is not 1.0 and not '1'.
    static func isSame(_ row: SQLiteStatement, _ place: Int, _ cell: Cell) -> Bool {
        switch (cell.tag, row.storageClass(place)) {
        case (.null, .null): true
        case (.integer, .integer): cell.integer == row.integer(place)
        case (.real, .real): cell.real?.bitPattern == row.real(place).bitPattern
        case (.string, .text), (.text, .text), (.blob, .blob): ImageBytes(row.bytes(place)) == cell.bytes
        default: false
        }
    }
}

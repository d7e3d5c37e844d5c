import BridgeCore

/// Text in the source that an engine with a rule for text would refuse: the link would stop at the row, which may be hours
/// into the copy.
struct TextFindings {
    let table: SQLiteTable
    let mapping: TableMapping

    func findings(_ contents: [ColumnContents]) -> [Finding] {
        var findings: [Finding] = []
        let wanted = mapping.columns.map { Set($0.map(foldCase)) }
        for (column, contents) in zip(table.columns, contents) where wanted?.contains(foldCase(column.name)) ?? true {
            switch contents.textFault {
            case .none: break
            case .zeroByte:
                findings.append(
                    finding(
                        column, "a zero byte", mend: "\(select(column)) WHERE instr(\(quoteIdentifier(column.name)), char(0)) > 0"))
            case .invalidUTF8:
                findings.append(
                    finding(
                        column, "bytes that are not UTF-8",
                        mend: "\(select(column)), and look for text that does not decode: store it as a BLOB, or as valid UTF-8"))
            }
        }
        return findings
    }

    /// With a row filter the row may be none of those that travel.
    private func finding(_ column: SQLiteTable.Column, _ what: String, mend: String) -> Finding {
        Finding(
            mapping.rowFilter == nil ? .blocking : .warning, .valueDoesNotFit,
            what: "text in column \(column.name) of table \(table.name) holds \(what)",
            why: "the target cannot store such text, and the link would stop at its row",
            mend: [mend, "or leave column \(column.name) out with 'columns:'"], table: mapping.source)
    }

    private func select(_ column: SQLiteTable.Column) -> String {
        let names = (table.key.map { table.columns[$0].name } + [column.name]).map(quoteIdentifier).joined(separator: ", ")
        return "SELECT \(names) FROM \(quoteIdentifier(table.name))"
    }
}

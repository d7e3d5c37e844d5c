import BridgeCore

extension ComparisonLayout {
    /// - Parameter places: the columns' places in the table.
    init(
        table: SQLiteTable, columns: [Relation.Column], places: [Int], _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) {
        let encoding = try database.string("PRAGMA main.encoding") ?? ""
        let first = columns.firstIndex(where: \.isKey)
        self.init(
            table: TableName(name: table.name), columns: columns,
            keyOrder: first.flatMap { SharedKeyOrder(table, column: places[$0], encoding: encoding)?.rawValue },
            estimatedRows: try RowEstimate(table).read(database),
            scaleless: Set(zip(columns, places).filter { table.columns[$0.1].affinity.isNumber }.map(\.0.name)))
    }
}

import BridgeCore

/// Which columns of a table travel, and how they are asked for.
struct TravelingColumns {
    /// Places in the table's columns, in table order. Generated columns do not travel: nothing can be written to them.
    let places: [Int]
    let columns: [Relation.Column]
    /// Where the key's columns stand among the travelling ones, in key order.
    let keyPlaces: [Int]
    /// The SELECT list.
    let list: String
    /// `FROM main."t" AS "t"`: the alias is the name by which a row filter may call the table.
    let from: String

    /// - Throws: `configurationInvalid` if the mapping names a column that is not there or leaves out a key's column.
    init(_ table: SQLiteTable, types: [String: LogicalType], mapping: TableMapping) throws(BridgeError) {
        var wanted = table.insertableColumns
        if let named = mapping.columns {
            var chosen: Set<Int> = []
            for name in named {
                guard let place = wanted.first(where: { foldCase(table.columns[$0].name) == foldCase(name) })
                else { throw Self.invalid("the table has no such column to copy", mapping, name) }
                chosen.insert(place)
            }
            for place in table.key where !chosen.contains(place) {
                throw Self.invalid("a column of the key is not among the columns to copy", mapping, table.columns[place].name)
            }
            wanted = wanted.filter { chosen.contains($0) }
        }
        places = wanted
        columns = wanted.map { place in
            let column = table.columns[place]
            let isKey = table.key.contains(place)
            return Relation.Column(
                name: column.name, isKey: isKey, typeName: column.declaredType,
                type: types[column.name]
                    ?? TypePlan.type(of: column, isRowid: table.keyIsRowid && isKey, contents: nil))
        }
        keyPlaces = table.key.compactMap { place in wanted.firstIndex(of: place) }
        guard keyPlaces.count == table.key.count else {
            throw Self.invalid("the key is a generated column", mapping, table.columns[table.key.first ?? 0].name)
        }
        let alias = quoteIdentifier(table.name)
        list = wanted.map { "\(alias).\(quoteIdentifier(table.columns[$0].name))" }.joined(separator: ", ")
        from = "FROM main.\(alias) AS \(alias)"
    }

    private static func invalid(_ what: String, _ mapping: TableMapping, _ column: String) -> BridgeError {
        BridgeError(
            .configurationInvalid, what,
            context: [.init(.table, mapping.source.description), .init(.column, column)])
    }
}

extension SQLiteTable {
    /// A key's column with the collation by which the key is unique, so that its index can serve.
    func collatedKeyColumn(_ place: Int) -> String {
        let column = "\(quoteIdentifier(name)).\(quoteIdentifier(columns[key[place]].name))"
        guard let index = primaryKeyIndex,
            let part = index.parts.first(where: { $0.column == key[place] }),
            part.collation != columns[key[place]].collation
        else { return column }
        return "\(column) COLLATE \(quoteIdentifier(part.collation))"
    }

    /// Whether a row's key can hold NULL, which SQLite allows in keys that are not the rowid for compatibility's sake.
    var keyMayBeNull: Bool { !keyIsRowid && !isWithoutRowid && key.contains { !columns[$0].isNotNull } }
}

package import BridgeCore

extension EngineName {
    package static let sqlite = EngineName(rawValue: "sqlite")
}

extension SQLiteTable {
    /// The table in the words that both engines share.
    /// - Parameter contents: the storage classes found in each column, in column order; nil to plan by declaration only.
    package func schema(contents: [ColumnContents]? = nil, estimatedRows: Int64? = nil) -> TableSchema {
        var options: [String] = []
        if isStrict { options.append("STRICT") }
        if isWithoutRowid { options.append("WITHOUT ROWID") }
        if isAutoincrement { options.append("AUTOINCREMENT") }
        return TableSchema(
            engine: .sqlite, name: TableName(name: name),
            columns: columns.indices.filter { columns[$0].kind != .hidden }.map { place in
                columnSchema(place, contents: contents.flatMap { $0.indices.contains(place) ? $0[place] : nil })
            },
            primaryKey: key.map { columns[$0].name }, primaryKeyName: primaryKeyName,
            indexes: indexes.filter { $0.origin != .primaryKey }.map { indexSchema($0) }, checks: checks,
            foreignKeys: foreignKeys, estimatedRows: estimatedRows, options: options)
    }

    private func columnSchema(_ place: Int, contents: ColumnContents?) -> ColumnSchema {
        let column = columns[place]
        var generation: ColumnSchema.Generation?
        switch column.kind {
        case .storedGenerated: generation = .stored(column.generatedAs ?? "")
        case .virtualGenerated: generation = .virtual(column.generatedAs ?? "")
        case .ordinary, .hidden: break
        }
        // A key WITHOUT ROWID, or in a STRICT table's rowid, never holds NULL though nothing declares it.
        let isKey = key.contains(place)
        return ColumnSchema(
            name: column.name, typeName: column.declaredType,
            type: TypePlan.type(of: column, isRowid: keyIsRowid && isKey, contents: contents),
            isNotNull: column.isNotNull || (isKey && (isWithoutRowid || keyIsRowid)),
            defaultExpression: column.defaultExpression, generation: generation,
            identity: keyIsRowid && isKey && isAutoincrement ? .byDefault : nil,
            collation: column.collation == "BINARY" ? nil : column.collation)
    }

    private func indexSchema(_ index: Index) -> IndexSchema {
        let parts = index.parts.map { part in
            IndexSchema.Part(
                column: part.column.map { columns[$0].name }, expression: part.expression,
                isDescending: part.isDescending,
                collation: part.collation == (part.column.map { columns[$0].collation } ?? "BINARY")
                    ? nil : part.collation)
        }
        guard index.origin == .uniqueConstraint else {
            return IndexSchema(
                name: index.name, parts: parts, isUnique: index.isUnique, predicate: index.predicate,
                definition: index.sql)
        }
        // SQLite's name for it, sqlite_autoindex_…, is reserved everywhere.
        let name =
            index.constraintName ?? ([self.name] + parts.map { $0.column ?? "expr" } + ["key"]).joined(separator: "_")
        let columnList = index.parts.map { part in
            quoteIdentifier(part.column.map { columns[$0].name } ?? "")
                + (part.collation == (part.column.map { columns[$0].collation } ?? "BINARY")
                    ? "" : " COLLATE \(quoteIdentifier(part.collation))")
        }
        let prefix = index.constraintName.map { "CONSTRAINT \(quoteIdentifier($0)) " } ?? ""
        return IndexSchema(
            name: name, parts: parts, isUnique: true, constraintName: name,
            definition: "\(prefix)UNIQUE (\(columnList.joined(separator: ", ")))")
    }
}

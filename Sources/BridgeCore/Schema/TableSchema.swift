/// What a database says about one table. Expressions are in the dialect of the engine that they were read from.
package struct TableSchema: Hashable, Sendable {
    package var engine: EngineName
    package var name: TableName
    package var columns: [ColumnSchema]
    /// Names of the primary key's columns in key order; empty without one.
    package var primaryKey: [String]
    /// The primary key's constraint name where the engine keeps one.
    package var primaryKeyName: String?
    /// The columns by which a change names its row. The primary key, unless the engine was told otherwise.
    package var identity: [String]
    package var indexes: [IndexSchema]
    package var checks: [CheckSchema]
    package var foreignKeys: [ForeignKeySchema]
    /// The engine's estimate of how many rows there are; nil if it has none.
    package var estimatedRows: Int64?
    /// Engine facts that matter to the same engine on the other side: `STRICT`, `WITHOUT ROWID`.
    package var options: [String]

    package init(
        engine: EngineName, name: TableName, columns: [ColumnSchema], primaryKey: [String] = [],
        primaryKeyName: String? = nil, identity: [String]? = nil, indexes: [IndexSchema] = [],
        checks: [CheckSchema] = [], foreignKeys: [ForeignKeySchema] = [], estimatedRows: Int64? = nil,
        options: [String] = []
    ) {
        self.engine = engine
        self.name = name
        self.columns = columns
        self.primaryKey = primaryKey
        self.primaryKeyName = primaryKeyName
        self.identity = identity ?? primaryKey
        self.indexes = indexes
        self.checks = checks
        self.foreignKeys = foreignKeys
        self.estimatedRows = estimatedRows
        self.options = options
    }

    package func column(named name: String) -> ColumnSchema? { columns.first { $0.name == name } }
}

/// One column.
package struct ColumnSchema: Hashable, Sendable {
    package enum Generation: Hashable, Sendable {
        /// Computed from other columns by this expression; never written by an applier.
        case stored(String)
        case virtual(String)
    }
    package enum Identity: Hashable, Sendable { case always, byDefault }

    package var name: String
    /// The engine's own name of the type, modifiers included; for SQLite the declared type as written.
    package var typeName: String
    /// How its values travel between engines.
    package var type: LogicalType
    package var isNotNull: Bool
    /// An expression in the engine's dialect.
    package var defaultExpression: String?
    package var generation: Generation?
    package var identity: Identity?
    /// A collation other than the type's own, by its SQL name.
    package var collation: String?

    package init(
        name: String, typeName: String, type: LogicalType, isNotNull: Bool = false, defaultExpression: String? = nil,
        generation: Generation? = nil, identity: Identity? = nil, collation: String? = nil
    ) {
        self.name = name
        self.typeName = typeName
        self.type = type
        self.isNotNull = isNotNull
        self.defaultExpression = defaultExpression
        self.generation = generation
        self.identity = identity
        self.collation = collation
    }
}

/// An index that is not the primary key's own.
package struct IndexSchema: Hashable, Sendable {
    package struct Part: Hashable, Sendable {
        /// A column's name, or nil for an expression.
        package var column: String?
        /// The expression in the engine's dialect where `column` is nil.
        package var expression: String?
        package var isDescending: Bool
        package var collation: String?

        package init(column: String?, expression: String? = nil, isDescending: Bool = false, collation: String? = nil) {
            self.column = column
            self.expression = expression
            self.isDescending = isDescending
            self.collation = collation
        }
    }
    package var name: String
    package var parts: [Part]
    package var isUnique: Bool
    /// The WHERE of a partial index.
    package var predicate: String?
    /// The name of the UNIQUE constraint that owns it, if one does.
    package var constraintName: String?
    /// The engine's own CREATE INDEX (or constraint) text, used as it is for the same engine.
    package var definition: String?

    package init(
        name: String, parts: [Part], isUnique: Bool, predicate: String? = nil, constraintName: String? = nil,
        definition: String? = nil
    ) {
        self.name = name
        self.parts = parts
        self.isUnique = isUnique
        self.predicate = predicate
        self.constraintName = constraintName
        self.definition = definition
    }
}

/// A CHECK constraint.
package struct CheckSchema: Hashable, Sendable {
    package var name: String?
    /// The condition in the engine's dialect, without CHECK and the outer parentheses.
    package var expression: String

    package init(name: String?, expression: String) {
        self.name = name
        self.expression = expression
    }
}

/// A foreign key.
package struct ForeignKeySchema: Hashable, Sendable {
    package var name: String?
    package var columns: [String]
    package var referencedTable: TableName
    package var referencedColumns: [String]
    /// `NO ACTION`, `RESTRICT`, `CASCADE`, `SET NULL`, `SET DEFAULT`.
    package var onDelete: String
    package var onUpdate: String
    package var isDeferrable: Bool
    package var isInitiallyDeferred: Bool

    package init(
        name: String?, columns: [String], referencedTable: TableName, referencedColumns: [String],
        onDelete: String = "NO ACTION", onUpdate: String = "NO ACTION", isDeferrable: Bool = false,
        isInitiallyDeferred: Bool = false
    ) {
        self.name = name
        self.columns = columns
        self.referencedTable = referencedTable
        self.referencedColumns = referencedColumns
        self.onDelete = onDelete
        self.onUpdate = onUpdate
        self.isDeferrable = isDeferrable
        self.isInitiallyDeferred = isInitiallyDeferred
    }
}

/// One table of a migration: where it comes from, where it goes, and which part of it.
package struct TableMapping: Hashable, Sendable {
    package var source: TableName
    package var target: TableName
    /// The columns that travel; nil for all. Always holds the key's columns when set.
    package var columns: [String]?
    /// A condition in the source's dialect that a row must fulfil to travel.
    package var rowFilter: String?
    /// A condition in the target's dialect that the link's rows fulfil there. Other rows of the target's table are nobody's
    /// business here, and stay when the source's table is emptied. On the way back it is the way forward's row filter.
    package var targetFilter: String?

    package init(
        source: TableName, target: TableName, columns: [String]? = nil, rowFilter: String? = nil, targetFilter: String? = nil
    ) {
        self.source = source
        self.target = target
        self.columns = columns
        self.rowFilter = rowFilter
        self.targetFilter = targetFilter
    }
}

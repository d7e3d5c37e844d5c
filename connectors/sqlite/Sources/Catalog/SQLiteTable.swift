package import BridgeCore

/// A table as SQLite has it: more than a ``TableSchema`` says, for triggers and statements.
package struct SQLiteTable: Sendable {
    /// Whether a name stands for the row that is changed wherever a trigger says it, in quotes too.
    static func isReservedInTriggers(_ name: String) -> Bool { ["old", "new"].contains(foldCase(name)) }

    package struct Column: Sendable {
        package enum Kind: Int64, Sendable {
            case ordinary = 0
            /// Of a virtual table, not shown by `SELECT *`.
            case hidden = 1
            case virtualGenerated = 2
            case storedGenerated = 3
        }
        package var name: String
        /// As written, perhaps empty.
        package var declaredType: String
        package var affinity: Affinity
        package var isNotNull: Bool
        package var defaultExpression: String?
        package var kind: Kind
        package var generatedAs: String?
        /// `BINARY` unless declared otherwise.
        package var collation: String
    }

    package struct Index: Sendable {
        package enum Origin: String, Sendable {
            case createIndex = "c"
            case uniqueConstraint = "u"
            case primaryKey = "pk"
        }
        package struct Part: Sendable {
            /// The column's place in ``SQLiteTable/columns``; nil for an expression.
            package var column: Int?
            package var expression: String?
            package var collation: String
            package var isDescending: Bool
        }
        package var name: String
        package var origin: Origin
        package var isUnique: Bool
        package var parts: [Part]
        package var predicate: String?
        /// The CREATE INDEX statement; nil for the index of a constraint.
        package var sql: String?
        /// The constraint's name, if it has one.
        package var constraintName: String?
    }

    package var name: String
    /// The CREATE TABLE statement as SQLite keeps it.
    package var sql: String
    package var isStrict: Bool
    package var isWithoutRowid: Bool
    package var isAutoincrement: Bool
    /// All columns in table order, generated ones included.
    package var columns: [Column]
    /// The primary key's columns in key order, as places in `columns`.
    package var key: [Int]
    /// Whether the key is the rowid itself (INTEGER PRIMARY KEY).
    package var keyIsRowid: Bool
    /// Every index, the primary key's own included where it has one.
    package var indexes: [Index]
    package var foreignKeys: [ForeignKeySchema]
    package var checks: [CheckSchema]
    package var primaryKeyName: String?

    /// The columns that a row can be inserted with, in table order.
    package var insertableColumns: [Int] { columns.indices.filter { columns[$0].kind == .ordinary } }

    /// The index that enforces the primary key; nil if it is the rowid. A table WITHOUT ROWID is that index itself.
    package var primaryKeyIndex: Index? { indexes.first { $0.origin == .primaryKey } }
}

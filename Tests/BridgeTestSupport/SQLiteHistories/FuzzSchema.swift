/// One schema of the differential fuzz, with what random statements need to know of it.
package struct FuzzSchema: Sendable, CustomStringConvertible {
    package typealias Column = (name: String, values: [String])

    package struct Table: Sendable {
        package var name: String
        /// Columns that can be written, each with the literals that it is written with.
        package var columns: [Column]
        /// What stands behind ON CONFLICT.
        package var conflictTargets: [String]
        package var hasRowid: Bool
        /// Columns to compare; those that travel.
        package var compared: [String] { columns.map(\.name) }

        package init(name: String, columns: [Column], conflictTargets: [String], hasRowid: Bool = true) {
            self.name = name
            self.columns = columns
            self.conflictTargets = conflictTargets
            self.hasRowid = hasRowid
        }
    }
    package var name: String
    package var sql: String
    package var tables: [Table]
    /// Made after our triggers: the application's triggers that are newer.
    package var later: String
    /// Whether capture makes its triggers again after `later`, as a running session does.
    package var isRenewed: Bool
    /// Whether `later` alters tables.
    package var isAltered: Bool
    /// Whether a history may alter the tables. Where a rename would make the rowid reachable, capture stops by name.
    package var mayBeAltered: Bool
    /// Statements of its own, drawn now and then. They name columns as they were in the beginning.
    package var extra: [String]
    /// The same tables for PostgreSQL, for schemas whose values it can hold.
    package var postgres: String?

    package init(
        name: String, sql: String, tables: [Table], later: String = "", isRenewed: Bool = false, isAltered: Bool = false,
        mayBeAltered: Bool = true, extra: [String] = [], postgres: String? = nil
    ) {
        self.name = name
        self.sql = sql
        self.tables = tables
        self.later = later
        self.isRenewed = isRenewed
        self.isAltered = isAltered
        self.mayBeAltered = mayBeAltered && !isAltered
        self.extra = extra
        self.postgres = postgres
    }

    package var description: String { name }

    /// All schemas that must hold.
    package static let all = basic + actions + typed + altered
}

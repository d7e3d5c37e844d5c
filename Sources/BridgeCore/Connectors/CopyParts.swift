/// A piece of a table that is read by itself and loaded in a transaction of its own.
package struct CopyPart: Hashable, Sendable {
    /// Its place among the table's parts, from 0.
    package var number: Int
    /// Which rows are meant, in the words of the snapshot that planned it; empty for the whole table.
    package var locator: String
    /// How much there is to read, roughly.
    package var bytes: Int64

    package init(number: Int, locator: String, bytes: Int64) {
        self.number = number
        self.locator = locator
        self.bytes = bytes
    }

    /// The whole table.
    package static func whole(bytes: Int64) -> CopyPart { CopyPart(number: 0, locator: "", bytes: bytes) }
}

/// A table that is to be cut into parts.
package struct CopiedTable: Hashable, Sendable {
    package var schema: TableSchema
    package var mapping: TableMapping

    package init(schema: TableSchema, mapping: TableMapping) {
        self.schema = schema
        self.mapping = mapping
    }

    /// A guess at the table's size for a source that does not tell it: rows of a hundred bytes.
    package var guessedBytes: Int64 { min(schema.estimatedRows ?? 0, .max / 100) * 100 }
}

extension SourceSnapshot {
    package func planParts(_ tables: [CopiedTable], partBytes: Int64) async throws(BridgeError) -> [[CopyPart]] {
        tables.map { [.whole(bytes: $0.guessedBytes)] }
    }

    package func isUsable() async -> Bool { true }

    /// The whole table.
    package func openTable(
        _ table: TableSchema, mapping: TableMapping, format: CopyFormat
    ) async throws(BridgeError) -> any CopyReader {
        try await openTable(table, mapping: mapping, part: .whole(bytes: 0), format: format)
    }
}

/// A table that is loaded in parts, each in a transaction of its own. The table is recorded as being loaded before the
/// first row comes; each part is recorded with its rows.
///
/// One is begun for one snapshot: a table's parts all show the same position. What belongs to an earlier one is removed
/// when it is begun, and can add nothing afterwards, however late its commits arrive.
package protocol PartedLoad: Sendable {
    /// Begins a part; several may be open at a time. A part that was given up or failed is begun anew with its number.
    func openPart(_ number: Int, columns: [Relation.Column], format: CopyFormat) async throws(BridgeError) -> PartOpening

    /// Records the table as done, in one transaction, when all its parts are there, each once and from one position.
    /// Called again after it has succeeded it changes nothing.
    /// - Parameter rows: how many the parts held together.
    func finish(position: Position, rows: Int64) async throws(BridgeError)
}

/// A part that is on the target.
package struct LoadedPart: Hashable, Sendable {
    package var rows: Int64
    /// The position of the reader that they came from.
    package var position: Position

    package init(rows: Int64, position: Position) {
        self.rows = rows
        self.position = position
    }
}

/// What beginning a part gives.
package enum PartOpening: Sendable {
    case load(any TableLoad)
    /// The part was committed by an attempt whose success was not heard of.
    case loaded(LoadedPart)
}

/// An index that a target dropped for the time of the copy.
package struct DroppedIndex: Hashable, Sendable {
    /// The table, by the source's name.
    package var table: TableName
    /// Its name, for people and for the target's records.
    package var name: String

    package init(table: TableName, name: String) {
        self.table = table
        self.name = name
    }
}

/// Builds one dropped index again.
package protocol IndexRestoration: Sendable {
    /// Builds the index and forgets in the same transaction that it is missing. An index that is there already is only
    /// forgotten.
    /// - Throws: the index's name is in the context; the record stays.
    func run() async throws(BridgeError)

    /// Makes ``run()`` end soon, and throw `interrupted`. From any thread.
    func cancel()
}

extension TargetConnector {
    package func openParts(
        _ link: LinkDescription, mapping: TableMapping, parts: Int, droppingIndexes: Bool
    ) async throws(BridgeError) -> (any PartedLoad)? { nil }

    package func droppedIndexes(_ link: LinkDescription) async throws(BridgeError) -> [DroppedIndex] { [] }

    package func restoration(
        of index: DroppedIndex, _ link: LinkDescription
    ) async throws(BridgeError) -> any IndexRestoration {
        throw BridgeError(.internalFault, "this target drops no indexes", context: [.init(.detail, index.name)])
    }
}

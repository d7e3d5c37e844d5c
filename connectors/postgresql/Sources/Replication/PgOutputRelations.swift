package import BridgeCore

/// A column's type as a relation message names it.
package struct TypeReference: Hashable, Sendable {
    package var oid: UInt32
    /// -1 without a modifier.
    package var modifier: Int32

    package init(oid: UInt32, modifier: Int32) {
        self.oid = oid
        self.modifier = modifier
    }
}

/// What the catalog says about a type.
package struct ResolvedType: Hashable, Sendable {
    /// By `format_type`.
    package var name: String
    package var logical: LogicalType

    package init(name: String, logical: LogicalType) {
        self.name = name
        self.logical = logical
    }
}

/// A relation as the stream last described it.
struct StreamRelation {
    var relation: Relation
    /// What a tuple of the stream must have.
    var columnCount: Int { kinds.count }
    var kinds: [CanonicalKind]
    var isKey: [Bool]
    /// Whether a relation record stands in the journal since the last change and in this session.
    var isJournaled: Bool
}

/// The relations of a session by their OIDs. The server describes a relation once in a session, and again after a change.
struct StreamRelations {
    private var identifiers: [UInt32] = []
    private(set) var entries: [StreamRelation] = []
    private var places: [UInt32: Int] = [:]
    private var last = 0

    /// The place of a relation among ``entries``.
    @inline(__always)
    mutating func place(of identifier: UInt32) -> Int? {
        if last < identifiers.count, identifiers[last] == identifier { return last }
        // Hashing costs more than looking through a few numbers.
        let found = identifiers.count <= 16 ? identifiers.firstIndex(of: identifier) : places[identifier]
        if let found { last = found }
        return found
    }

    /// Takes a description; one that says nothing new changes nothing.
    mutating func update(_ relation: Relation) {
        if let place = place(of: relation.id) {
            guard entries[place].relation != relation else { return }
            entries[place] = Self.entry(relation)
        } else {
            places[relation.id] = entries.count
            identifiers.append(relation.id)
            entries.append(Self.entry(relation))
        }
    }

    mutating func markJournaled(_ place: Int) { entries[place].isJournaled = true }

    private static func entry(_ relation: Relation) -> StreamRelation {
        StreamRelation(
            relation: relation, kinds: relation.columns.map { CanonicalKind($0.type) },
            isKey: relation.columns.map(\.isKey), isJournaled: false)
    }
}

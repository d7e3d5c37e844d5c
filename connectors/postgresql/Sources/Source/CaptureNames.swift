import BridgeCore

/// What a link makes on the source, and the checks on its names.
struct CaptureNames {
    let slot: String
    let publication: String

    /// - Throws: `configurationInvalid` if the migration's name is too long: the server would cut the names, and two
    ///   migrations could end up with one slot.
    init(_ link: LinkDescription) throws(BridgeError) {
        let identifier = link.identifier
        guard identifier.utf8.count <= 63 else {
            throw BridgeError(
                .configurationInvalid, "the migration's name is too long for a slot name",
                context: [.init(.migration, link.migration)], hint: "use at most 48 characters")
        }
        slot = identifier
        publication = identifier
    }

    /// More of them would not fit into a journal's header.
    private static let mostTables = 20_000

    /// The facts that bind the tables' names to what they were when the capture was made.
    static func facts(_ tables: [CapturedTable]) -> [String: String] {
        guard tables.count <= mostTables else { return [:] }
        return Dictionary(tables.map { (OriginKey.tablePrefix + "\($0.oid)", digest($0.schema.name)) }) { first, _ in first }
    }

    /// A name as a fact of the origin, which holds no line break: a hash of it, by FNV-1a, since nobody gains by forging it.
    static func digest(_ name: TableName) -> String {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in name.quoted.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return String(hash, radix: 16)
    }
}

/// The keys of ``CaptureOrigin/identity``.
enum OriginKey {
    static let systemIdentifier = "system_identifier"
    static let timeline = "timeline"
    static let databaseOid = "database_oid"
    static let database = "database"
    static let slot = "slot"
    /// The slot's consistent point, where it was made.
    static let slotCreated = "slot_created"
    static let publication = "publication"
    static let publicationOid = "publication_oid"
    /// ``Publication/State/tablesFingerprint`` when it was made.
    static let publicationTables = "publication_tables"
    /// Behind it stands a table's OID; the value is ``CaptureNames/digest(_:)`` of its name.
    static let tablePrefix = "table_"
}

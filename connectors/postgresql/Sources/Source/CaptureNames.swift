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
}

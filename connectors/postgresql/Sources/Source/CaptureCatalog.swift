import BridgeCore

/// What a capture asks the server while it streams. It asks seldom, so each time over a connection that is made for it.
struct CaptureCatalog: Sendable {
    private let connectionString: ConnectionString
    private let applicationName: String

    init(_ connectionString: ConnectionString, applicationName: String) {
        self.connectionString = connectionString
        self.applicationName = applicationName
    }

    /// The types that the stream's numbers stand for.
    func types(_ references: [TypeReference]) throws(BridgeError) -> [(TypeReference, ResolvedType)] {
        let session = try connect()
        let domains = try PostgresTypes.domains(session)
        var types: [(TypeReference, ResolvedType)] = []
        for reference in references {
            let row = try session.rows(
                "SELECT format_type($1::oid, CASE WHEN $2::int >= 0 THEN $2::int END)",
                [String(reference.oid), String(reference.modifier)], during: "looking up a type")
            // A type that was dropped since has no name; its values are text all the same.
            let name = row.first?[0] ?? "???"
            let logical = PostgresTypes.logicalType(name, oid: reference.oid, domains: domains)
            types.append((reference, ResolvedType(name: name, logical: logical)))
        }
        return types
    }

    /// The number that the next transaction will have, with its epoch.
    func nextTransaction() throws(BridgeError) -> UInt64 { try Self.nextTransaction(connect()) }

    static func nextTransaction(_ session: PostgresConnection) throws(BridgeError) -> UInt64 {
        let row = try session.rows("SELECT pg_snapshot_xmax(pg_current_snapshot())", during: "reading the transaction number")
        guard let number = row.first?[0].flatMap({ UInt64($0) }) else {
            throw BridgeError(.serverRefused, "the server did not say its next transaction number")
        }
        return number
    }

    private func connect() throws(BridgeError) -> PostgresConnection {
        try PostgresConnection(connectionString, applicationName: applicationName)
    }
}

/// Errors of the change stream that mean more than their SQLSTATE says.
enum StreamErrors {
    /// The server looks into the catalog as a running transaction has it, and there is DDL in subtransactions that makes
    /// it stumble once they are rolled back ("could not map filenode"). Decoded at the commit, they are not there.
    static func refusal(_ error: BridgeError) -> BridgeError? {
        guard error.code == .serverRefused, error.sqlState == "XX000" else { return nil }
        return BridgeError(
            .streamingRefused, "the server cannot stream a running transaction; from now on it holds them until they commit",
            cause: error)
    }

    static func explained(_ error: BridgeError) -> BridgeError {
        switch error.sqlState {
        case "42704": BridgeError(.captureBroken, error.message, context: error.context)
        case "58P01", "55000": BridgeError(.slotLost, error.message, context: error.context)
        default: error
        }
    }
}

/// What every connector is, whichever role it plays. A connector knows one database engine and one database in it.
///
/// Connectors are written as actors whose executor is a ``ThreadExecutor``, because the C libraries beneath them block.
/// Work that must go on side by side (capture, each copy worker, the applier) is done by objects that the connector
/// opens, each with a connection and a thread of its own.
package protocol Connector: Sendable {
    var engine: EngineName { get }
    /// The database, for people: host, port, name or file. Never a password.
    var displayName: String { get }

    /// Connects, if need be, and proves that the database answers.
    /// - Throws: `serverUnreachable`, `authenticationFailed`, `rightsMissing`, `inputOutput`.
    func connect() async throws(BridgeError)

    /// Every ordinary table that the connection may read, without those that belong to the engine or to bridge.
    func listTables() async throws(BridgeError) -> [TableSchema]

    /// The tables asked for, in the order asked; names that do not exist are left out of the answer. A name without a
    /// schema is looked up as the engine would. The catalog alone is asked, so that it costs nothing that grows with the rows.
    func describeTables(_ names: [TableName]) async throws(BridgeError) -> [TableSchema]

    /// Opens the database for the checker, in the role that it has in the link.
    func openComparison(
        _ link: LinkDescription, role: ComparisonRole
    ) async throws(BridgeError) -> any ComparisonSession

    /// Opens the database for a cutover, whichever side of the migration it is.
    func openCutover(migration: String) async throws(BridgeError) -> any CutoverSession

    /// Closes the connector's own connections. Objects that it opened are closed by their owners.
    func close() async
}

/// One way from a source to a target: which migration, which direction, which tables.
package struct LinkDescription: Hashable, Sendable {
    package enum Direction: String, Sendable { case forward, reverse }

    /// The migration's name: lower-case letters, digits and hyphens. Names on both databases are made from it.
    package var migration: String
    package var direction: Direction
    package var mappings: [TableMapping]
    /// Native where both ends are the same engine.
    package var form: ValueForm

    package init(migration: String, direction: Direction, mappings: [TableMapping], form: ValueForm) {
        self.migration = migration
        self.direction = direction
        self.mappings = mappings
        self.form = form
    }

    /// The link's key in the records on both databases: `shop-users` forward, `shop-users/reverse` back.
    package var name: String { direction == .forward ? migration : "\(migration)/reverse" }

    /// The link's name where only letters, digits and underscores are allowed: slots, publications, triggers.
    package var identifier: String {
        "bridge_" + migration.map { $0 == "-" ? "_" : String($0) }.joined()
            + (direction == .forward ? "" : "_reverse")
    }
}

/// Something that preflight found.
package struct Finding: Hashable, Sendable {
    package enum Severity: String, Sendable {
        /// `run` cannot work.
        case blocking
        /// It works, but something is worse than it could be.
        case warning
    }
    package var severity: Severity
    package var code: ErrorCode
    /// What was found, one sentence.
    package var what: String
    /// Why it matters, one sentence.
    package var why: String
    /// Statements or settings that mend it, in order.
    package var mend: [String]
    package var table: TableName?

    package init(
        _ severity: Severity, _ code: ErrorCode, what: String, why: String, mend: [String] = [],
        table: TableName? = nil
    ) {
        self.severity = severity
        self.code = code
        self.what = what
        self.why = why
        self.mend = mend
        self.table = table
    }

    /// The finding as the error that stops `run`.
    package var error: BridgeError {
        BridgeError(
            code, what, context: table.map { [.init(.table, $0.description)] } ?? [],
            hint: mend.isEmpty ? nil : mend.joined(separator: "; "))
    }
}

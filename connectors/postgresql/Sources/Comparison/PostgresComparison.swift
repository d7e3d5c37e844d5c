package import BridgeCore

extension PostgresSource {
    package func openComparison(
        _ link: LinkDescription, role: ComparisonRole
    ) async throws(BridgeError) -> any ComparisonSession {
        let session = try PostgresComparison(connectionString, link, role)
        try await session.open()
        return session
    }
}

extension PostgresTarget {
    package func openComparison(
        _ link: LinkDescription, role: ComparisonRole
    ) async throws(BridgeError) -> any ComparisonSession {
        let session = try PostgresComparison(try connectionString(), link, role)
        try await session.open()
        return session
    }
}

/// PostgreSQL as the checker reads it. The session's own connection serves the catalog and what only one role is asked;
/// each view has a connection of its own.
actor PostgresComparison: ComparisonSession {
    nonisolated let executor = ThreadExecutor(name: "pg-check")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    nonisolated let link: LinkDescription
    nonisolated let role: ComparisonRole
    private nonisolated let string: ConnectionString
    private nonisolated let interrupter: Interrupter
    private nonisolated let spare = SpareConnection()
    private nonisolated let known = KnownTables()
    private var connection: PostgresConnection?
    private var isClosed = false
    /// The columns that name a row of the link's tables, in their order, as far as a layout was asked for.
    private(set) var layoutKeys: [TableMapping: [String]] = [:]

    init(_ string: ConnectionString, _ link: LinkDescription, _ role: ComparisonRole) throws(BridgeError) {
        self.string = string
        self.link = link
        self.role = role
        interrupter = try Interrupter()
    }

    nonisolated var source: (any ComparisonSource)? { role == .source ? self : nil }
    nonisolated var target: (any ComparisonTarget)? { role == .target ? self : nil }

    func open() throws(BridgeError) { _ = try connected() }

    /// The session's connection, made anew if it was lost.
    func connected() throws(BridgeError) -> PostgresConnection {
        guard !isClosed else { throw BridgeError(.connectionLost, "the comparison is closed") }
        if let connection, connection.isReusable { return connection }
        let made = try PostgresConnection(string, applicationName: "bridge check \(link.name)", interrupter: interrupter)
        try made.requireSupported()
        connection = made
        return made
    }

    func close() {
        connection = nil
        _ = spare.take()
        isClosed = true
    }

    /// Runs what may wait for others; when the task is cancelled, its statement is too. A signal that is left over from a
    /// cancelled call must not end the next one.
    func cancellable<Value>(_ body: () throws(BridgeError) -> Value) async throws(BridgeError) -> Value {
        let interrupter = interrupter
        interrupter.reset()
        let result: Result<Value, BridgeError> = await withTaskCancellationHandler {
            self.result(of: body)
        } onCancel: {
            interrupter.signal()
        }
        return try result.get()
    }

    /// A method, so that the closure above captures the actor: one that does not is run on the cooperative pool.
    private func result<Value>(of body: () throws(BridgeError) -> Value) -> Result<Value, BridgeError> {
        preconditionIsolated()
        do throws(BridgeError) { return .success(try body()) } catch { return .failure(error) }
    }

    // MARK: Layout and views

    func layout(
        of mapping: TableMapping, columns: [Relation.Column]?
    ) async throws(BridgeError) -> ComparisonLayout {
        let name = role == .source ? mapping.source : mapping.target
        let context = [ErrorContext(.table, name.description)]
        let table = try ComparedTable.read(name, try connected()) { (schema) throws(BridgeError) in
            guard let columns else { return try CopyColumns(schema, mapping).columns }
            return try columns.map { (column) throws(BridgeError) in
                guard let found = schema.column(named: column.name) else {
                    throw BridgeError(
                        .targetTableMismatch, "the table lacks a column of the source",
                        context: context + [.init(.column, column.name)])
                }
                return Relation.Column(
                    name: column.name, isKey: column.isKey, typeName: found.typeName, type: found.type)
            }
        }
        guard let table else {
            throw role == .source
                ? BridgeError(.tableMissing, "the source has no such table", context: context)
                : BridgeError(.targetTableMissing, "the target table does not exist", context: context)
        }
        layoutKeys[mapping] = table.identity.map(\.column.name)
        var layout = table.layout
        // Those of partitions are not asked for: a guess that is missing costs less than one that is wrong.
        layout.estimatedBytes = try connected().rows(
            "SELECT nullif(pg_catalog.pg_table_size($1::oid), 0)", ["\(table.oid)"], during: "reading the catalog"
        ).first?[0].flatMap { Int64($0) }
        return layout
    }

    func openView(sparing: Bool) async throws(BridgeError) -> any ComparisonView {
        try await cancellable { () throws(BridgeError) in
            try PostgresView.open(string, link, role: role, sparing: sparing, spare, known)
        }
    }

    func facts() async throws(BridgeError) -> [TableFacts?] {
        let connection = try connected()
        return try await cancellable { () throws(BridgeError) in
            try FactsReader(connection).read(link.mappings.map { role == .source ? $0.source : $0.target })
        }
    }
}

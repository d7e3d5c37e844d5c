import BridgeCore

/// Raises, makes permanent and removes the fence of a migration. See ``FenceText`` for what it is, and the connector's
/// README for what it holds against.
struct PostgresFence {
    let connection: PostgresConnection
    let text: FenceText

    init(migration: String, _ connection: PostgresConnection) {
        self.connection = connection
        text = FenceText(migration: migration)
    }

    /// How long a change of a fence that stands is tried for.
    private static let patience = Duration.seconds(10)

    func read(_ tables: some Collection<TableName>) throws(BridgeError) -> FenceCatalog {
        if connection.isInTransaction { return try FenceCatalog(text, tables: tables, connection) }
        return try connection.inTransaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") { () throws(BridgeError) in
            try FenceCatalog(text, tables: tables, connection)
        }
    }

    func state(of tables: [TableName]) throws(BridgeError) -> FenceState {
        let catalog = try read(tables)
        let state = catalog.state
        if state == .none, let table = catalog.missing.first { throw Self.missing(table) }
        return state
    }

    private static func missing(_ table: TableName) -> BridgeError {
        BridgeError(.tableMissing, "there is no such table", context: [.init(.table, table.description)])
    }

    // MARK: Raising

    func raise(_ fence: Fence, patience: Duration) throws(BridgeError) {
        let deadline = ContinuousClock.now + patience
        let tables = fence.tables.keys.sorted()
        guard !tables.isEmpty else { return }
        guard ([fence.attempt] + fence.tables.values).allSatisfy({ !$0.utf8.contains(0) }) else {
            throw BridgeError(.configurationInvalid, "a service's name cannot hold a zero byte")
        }
        try admit(fence, try read(tables))
        try CutoverRecords.make(connection)
        try FenceLocks(connection: connection).hold({ () throws(BridgeError) in try read(tables) }, until: deadline) {
            (catalog) throws(BridgeError) in
            try admit(fence, catalog)
            let newest = try CutoverRecords(migration: text.migration, connection: connection).routes().map(\.epoch).max() ?? .min
            guard newest < fence.epoch else {
                throw BridgeError(
                    .leaseLost, "the attempt is over: a newer one has published its routes", context: [.init(.migration, text.migration)],
                    hint: "bridge cutover status tells where each service is")
            }
            // What has passed the point of no return does not come back by being raised again.
            if case .permanent = catalog.state { return }
            let expiry = try expiry(fence.lease)
            var services: [UInt32: String] = [:]
            for (name, oid) in catalog.roots { if let oid { services[oid] = fence.tables[name] } }
            try make(catalog) { relation in
                FenceText.Arguments(
                    attempt: fence.attempt, expiry: expiry, service: services[relation.root] ?? "", epoch: fence.epoch,
                    root: relation.root)
            }
            try check(try read(tables), for: fence.attempt)
        }
    }

    /// Refuses what cannot be fenced, and what somebody else has fenced.
    private func admit(_ fence: Fence, _ catalog: FenceCatalog) throws(BridgeError) {
        if let table = catalog.missing.first { throw Self.missing(table) }
        if let other = catalog.foreign.first {
            throw BridgeError(
                .fenceForeign, "another migration's fence stands on the table",
                context: [.init(.table, other.table.name.description), .init(.migration, other.migration)])
        }
        // To close for good what is closed for good, as a whole again, takes nothing from anybody.
        let isClosing = fence.lease == nil
        if let other = catalog.own.first(where: {
            !$0.isLifted && $0.arguments?.attempt != fence.attempt
                && !(isClosing && $0.arguments?.expiry == FenceText.Arguments.permanent)
        }) {
            throw BridgeError(
                .fenceForeign, "the fence of another attempt stands on the table",
                context: [.init(.table, other.relationName), .init(.migration, text.migration)]
                    + (other.arguments.map { [.init(.detail, "attempt \($0.attempt)")] } ?? []))
        }
        if let table = catalog.unfenceable.first {
            throw BridgeError(
                table.code, table.why, context: [.init(.table, table.table.description)],
                hint: table.hint.map { $0 + Rights.role(connection) })
        }
    }

    /// When a fence that is made now ends.
    private func expiry(_ lease: Duration?) throws(BridgeError) -> String {
        guard let lease else { return FenceText.Arguments.permanent }
        let rows = try connection.rows(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $1::bigint", ["\(lease.wholeMicroseconds)"],
            during: "raising the fence")
        guard let expiry = rows.first?[0] else { throw BridgeError(.serverRefused, "the server's clock cannot be read") }
        return expiry
    }

    /// Makes function and triggers in the open transaction, under the locks.
    private func make(
        _ catalog: FenceCatalog, _ arguments: (FenceCatalog.Relation) -> FenceText.Arguments
    ) throws(BridgeError) {
        let action = "raising the fence"
        if !catalog.isFunctionAsMade { try connection.execute(text.createFunction, during: action) }
        let statements = catalog.relations.flatMap { relation in
            let arguments = arguments(relation)
            return text.triggers(on: relation).map { text.create($0, on: relation.quoted, arguments) }
        }
        try connection.execute(statements.joined(separator: "; "), during: action)
        try FenceVersions.note(catalog, connection)
    }

    /// What was made must be what is looked for later, also on a server that words its catalog in another way.
    private func check(_ catalog: FenceCatalog, for attempt: String) throws(BridgeError) {
        switch catalog.state {
        case .leased(attempt, _), .expired(attempt), .permanent(attempt): return
        default:
            throw BridgeError(
                .internalFault, "the fence cannot be recognised",
                context: [.init(.detail, catalog.differences.values.sorted().first ?? "")])
        }
    }

    // MARK: The point of no return

    func makePermanent(attempt: String, tables: [TableName], margin: Duration) throws(BridgeError) {
        // Nobody writes while the fence stands, so the locks are free but for appliers and what is refused just then.
        var deadline = ContinuousClock.now
        if case .leased(attempt, let remaining) = try read(tables).state, remaining > margin { deadline += remaining - margin }
        do throws(BridgeError) {
            try FenceLocks(connection: connection).hold({ () throws(BridgeError) in try read(tables) }, until: deadline) {
                (catalog) throws(BridgeError) in
                if case .permanent(attempt) = catalog.state { return }
                // The clock was read under the locks: whoever got through after the expiry has ended by now.
                guard case .leased(attempt, let remaining) = catalog.state, remaining > margin else {
                    throw Self.notStanding(catalog.state)
                }
                try makePermanent(attempt, catalog)
                try check(try read(tables), for: attempt)
            }
        } catch where FenceLocks.isBusy(error) {
            throw BridgeError(
                .fenceExpired, "the tables could not be locked while the fence held: other transactions hold them",
                context: error.context)
        }
    }

    private func makePermanent(_ attempt: String, _ catalog: FenceCatalog) throws(BridgeError) {
        let standing = catalog.own
        try make(catalog) { relation in
            let old = standing.first { $0.relation == relation.oid }?.arguments
            return FenceText.Arguments(
                attempt: attempt, expiry: FenceText.Arguments.permanent, service: old?.service ?? "", epoch: old?.epoch ?? 0,
                root: relation.root)
        }
    }

    private static func notStanding(_ state: FenceState) -> BridgeError {
        let what =
            switch state {
            case .none: "there is no fence on the tables"
            case .leased(_, let remaining): "the fence has only \(remaining.wholeMilliseconds) ms left, or is another attempt's"
            case .expired: "the fence has expired"
            case .permanent: "the fence is another attempt's"
            case .mixed(let why), .permanentAltered(let why): "the fence is not as it was made: \(why)"
            }
        return BridgeError(.fenceExpired, what)
    }

    // MARK: Removing

    /// In two steps. The triggers are made to stop nobody, for which it takes the lock that raised them. Dropping them
    /// takes a lock that waits for everybody's reads, and makes reads wait; what cannot be dropped in a few short tries is
    /// left for later, and counts as gone.
    /// - Parameter insisting: whether a trigger that cannot be dropped is an error.
    func remove(attempt: String?, through epoch: Int64? = nil, tables: [TableName], insisting: Bool = false) throws(BridgeError) {
        try lift(attempt, epoch, tables)
        try drop(try read(tables).own.filter(\.isLifted), insisting: insisting)
    }

    private func lift(_ attempt: String?, _ epoch: Int64?, _ tables: [TableName]) throws(BridgeError) {
        func standing(_ catalog: FenceCatalog) -> [FenceCatalog.Trigger] {
            catalog.own.filter { trigger in
                guard !trigger.isLifted else { return false }
                guard let attempt else { return epoch.map { trigger.arguments?.epoch ?? .min <= $0 } ?? true }
                // What has passed the point of no return meanwhile, by another process's hand, is not gone back from. What has
                // expired stops nobody, and would stand in the way of the next attempt.
                if trigger.arguments?.expiry == FenceText.Arguments.permanent { return false }
                return trigger.arguments?.attempt == attempt
                    || trigger.arguments.flatMap { Int64($0.expiry) }.map { $0 <= catalog.now } ?? false
            }
        }
        guard !standing(try read(tables)).isEmpty else { return }
        let locks = FenceLocks(connection: connection)
        try locks.hold({ () throws(BridgeError) in try read(tables) }, until: .now + Self.patience) {
            (catalog) throws(BridgeError) in
            for trigger in standing(catalog) {
                // A trigger that is not ours any more is no use to keep.
                guard var arguments = trigger.arguments, [text.statementTrigger, text.rowTrigger].contains(trigger.name) else {
                    try connection.execute(Self.drop(trigger), during: "removing the fence")
                    continue
                }
                arguments.expiry = FenceText.Arguments.lifted
                try connection.execute(text.create(trigger.name, on: trigger.relationName, arguments), during: "removing the fence")
            }
        }
    }

    private static func drop(_ trigger: FenceCatalog.Trigger) -> String {
        "DROP TRIGGER IF EXISTS \(quoteIdentifier(trigger.name)) ON \(trigger.relationName)"
    }

    /// One table after the other, since the lock holds off everybody.
    private func drop(_ triggers: [FenceCatalog.Trigger], insisting: Bool) throws(BridgeError) {
        let deadline = ContinuousClock.now + (insisting ? Self.patience * 3 : .milliseconds(300))
        for (_, triggers) in Dictionary(grouping: triggers, by: \.relation).sorted(by: { $0.key < $1.key }) {
            var pause = Duration.milliseconds(20)
            while true {
                do throws(BridgeError) {
                    try connection.inTransaction { () throws(BridgeError) in
                        try connection.execute("SET LOCAL lock_timeout = 100")
                        for trigger in triggers { try connection.execute(Self.drop(trigger), during: "removing the fence's triggers") }
                    }
                    break
                } catch where FenceLocks.isBlocked(error) && !connection.isBroken {
                    let jittered = pause * Double.random(in: 0.5...1.5)
                    guard .now + jittered < deadline else {
                        if insisting { throw error.adding(.table, triggers[0].relationName) }
                        break
                    }
                    try connection.pause(jittered)
                    pause = min(pause * 2, .seconds(1))
                }
            }
        }
    }

    /// Removes all fences of the migration, wherever they are, and the function.
    func removeAll() throws(BridgeError) {
        let everywhere = try read([TableName]()).triggers.filter { $0.function == text.function }
        let roots = Set(everywhere.map(\.relation)).sorted()
        let names = try connection.rows(
            """
            SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = ANY ($1::oid[]) ORDER BY c.oid
            """, [ArrayLiteral.make(roots)], during: "reading the fence")
        try remove(attempt: nil, tables: names.map { TableName(schema: $0[0], name: $0[1] ?? "") }, insisting: true)
        try connection.execute(
            "DROP FUNCTION IF EXISTS \(text.qualifiedFunction)()", during: "removing the fence's function")
    }
}

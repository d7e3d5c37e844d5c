import BridgeCore

/// What the catalog says of some tables and of the fences on them, read at one moment.
struct FenceCatalog {
    /// A table, or a partition or child of one, at any depth.
    struct Relation: Hashable {
        var oid: UInt32
        var name: TableName
        var quoted: String
        /// `r`, `p`, or `f` for a foreign table.
        var kind: String
        /// The table that was asked for.
        var root: UInt32
        var isOwned: Bool
        var owner: String
        /// The transaction that wrote the table's row in `pg_class`.
        var version: String

        var holdsRows: Bool { kind != "p" }
        var isForeign: Bool { kind == "f" }
    }

    struct Trigger: Hashable {
        var relation: UInt32
        /// Quoted, for SQL.
        var relationName: String
        var name: String
        var function: String
        var isAlways: Bool
        var definition: String
        var arguments: FenceText.Arguments?

        var isLifted: Bool { arguments?.expiry == FenceText.Arguments.lifted }
    }

    let text: FenceText
    /// By the tables asked for; nil for one that is not there.
    private(set) var roots: [TableName: UInt32?] = [:]
    /// In the order of their OIDs, which is that of locking.
    private(set) var relations: [Relation] = []
    /// All triggers of all migrations' fences in this database.
    private(set) var triggers: [Trigger] = []
    private(set) var isFunctionAsMade = false
    /// Microseconds since 1970 by the database's clock.
    private(set) var now: Int64 = 0

    // MARK: Reading

    init(_ text: FenceText, tables: some Collection<TableName>, _ connection: PostgresConnection) throws(BridgeError) {
        self.text = text
        let names = Array(tables)
        let found = try PostgresCatalog(connection).resolve(names)
        for (name, oid) in zip(names, found) { roots[name] = .some(oid) }
        try readRelations(found.compactMap { $0 }, connection)
        try readTriggers(connection)
    }

    private mutating func readRelations(_ roots: [UInt32], _ connection: PostgresConnection) throws(BridgeError) {
        let rows = try connection.rows(Self.treeQuery, [ArrayLiteral.make(roots)], during: "reading the catalog")
        relations = rows.compactMap { row in
            guard let oid = row[0].flatMap({ UInt32($0) }), let root = row[1].flatMap({ UInt32($0) }), let name = row[3],
                let quoted = row[4], let kind = row[5]
            else { return nil }
            return Relation(
                oid: oid, name: TableName(schema: row[2], name: name), quoted: quoted, kind: kind, root: root,
                isOwned: row[6] == "t", owner: row[7] ?? "", version: row[8] ?? "")
        }
    }

    /// Rows (OID, table asked for) of the tables `$1` and everything below them. A table below two of them belongs to
    /// itself if it was asked for.
    static let tree = """
        WITH RECURSIVE below(oid, root) AS (
          SELECT w.oid, w.oid FROM unnest($1::oid[]) AS w(oid)
          UNION SELECT i.inhrelid, b.root FROM below b JOIN pg_inherits i ON i.inhparent = b.oid),
        tree AS (SELECT DISTINCT ON (oid) oid, root FROM below ORDER BY oid, root = oid DESC, root)
        """

    private static let treeQuery = """
        \(tree)
        SELECT c.oid, t.root, n.nspname, c.relname, quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind,
          pg_has_role(c.relowner, 'USAGE'), quote_ident(pg_get_userbyid(c.relowner)), c.xmin
        FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY c.oid
        """

    private mutating func readTriggers(_ connection: PostgresConnection) throws(BridgeError) {
        let action = "reading the fence"
        let rows = try connection.rows(
            """
            SELECT t.tgrelid, quote_ident(n.nspname) || '.' || quote_ident(c.relname), t.tgname, p.proname, t.tgenabled = 'A',
              pg_get_triggerdef(t.oid), encode(t.tgargs, 'hex')
            FROM pg_proc p JOIN pg_trigger t ON t.tgfoid = p.oid JOIN pg_class c ON c.oid = t.tgrelid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE p.pronamespace = to_regnamespace('_bridge') AND starts_with(p.proname::text, $1) AND NOT t.tgisinternal
            ORDER BY t.tgrelid, t.tgname
            """, [FenceText.functionPrefix], during: action)
        triggers = rows.compactMap { row in
            guard let relation = row[0].flatMap({ UInt32($0) }), let relationName = row[1], let name = row[2], let function = row[3]
            else { return nil }
            return Trigger(
                relation: relation, relationName: relationName, name: name, function: function, isAlways: row[4] == "t",
                definition: row[5] ?? "", arguments: row[6].flatMap { FenceText.Arguments(hexadecimal: $0) })
        }
        let functions = try connection.rows(
            """
            SELECT p.prosrc = $2 AND p.proconfig = ARRAY[$3] AND NOT p.prosecdef
              AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql')
            FROM pg_proc p WHERE p.pronamespace = to_regnamespace('_bridge') AND p.proname = $1 AND p.pronargs = 0
            """, [text.function, text.functionBody, FenceText.functionSettings], during: action)
        isFunctionAsMade = functions.count == 1 && functions[0][0] == "t"
        let clock = try connection.rows("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", during: action)
        guard let now = clock.first?[0].flatMap({ Int64($0) }) else {
            throw BridgeError(.serverRefused, "the server's clock cannot be read")
        }
        self.now = now
    }

    // MARK: Judging

    var missing: [TableName] { roots.filter { $0.value == nil }.keys.sorted() }

    /// The triggers of this migration that belong to the tables asked for: on them and below, and on what was below them
    /// when the fence was made.
    var own: [Trigger] {
        let relations = Set(relations.map(\.oid))
        let roots = Set(roots.values.compactMap { $0 })
        return triggers.filter { trigger in
            trigger.function == text.function
                && (relations.contains(trigger.relation) || trigger.arguments.map { roots.contains($0.root) } ?? false)
        }
    }

    /// Fences of other migrations on these tables that still stop somebody, by the tables.
    var foreign: [(table: Relation, migration: String)] {
        var seen: Set<UInt32> = []
        return triggers.compactMap { trigger in
            guard trigger.function != text.function, !trigger.isLifted,
                trigger.arguments.map({ Int64($0.expiry).map { $0 > now } ?? true }) ?? true,
                let relation = relations.first(where: { $0.oid == trigger.relation }), seen.insert(relation.oid).inserted
            else { return nil }
            return (relation, String(trigger.function.dropFirst(FenceText.functionPrefix.count)))
        }
    }

    /// What stands. Triggers that were lifted stop nobody and count as nothing.
    var state: FenceState {
        if let other = foreign.first {
            return mixed("a fence of the migration \(other.migration) stands on \(other.table.name)")
        }
        let standing = own.filter { !$0.isLifted }
        guard let first = standing.first else { return .none }
        let differences = differences
        guard differences.isEmpty, let arguments = first.arguments else {
            return mixed(differences.values.sorted().prefix(5).joined(separator: "; "))
        }
        if arguments.expiry == FenceText.Arguments.permanent { return .permanent(attempt: arguments.attempt) }
        let left = (Int64(arguments.expiry) ?? 0) - now
        return left > 0
            ? .leased(attempt: arguments.attempt, remaining: .microseconds(left)) : .expired(attempt: arguments.attempt)
    }

    private func mixed(_ why: String) -> FenceState {
        own.contains { $0.arguments?.expiry == FenceText.Arguments.permanent } ? .permanentAltered(why) : .mixed(why)
    }

    /// Where the fence is not as it was made, and how. Empty where none stands.
    var differences: [TableName: String] {
        let standing = own.filter { !$0.isLifted }
        guard let first = standing.first else { return [:] }
        var found: [TableName: String] = [:]
        func note(_ table: TableName, _ what: String) { if found[table] == nil { found[table] = what } }
        for table in missing { note(table, "the table \(table) is gone") }
        if !isFunctionAsMade { for relation in relations { note(relation.name, "the fence's function is not as it was made") } }
        for relation in relations {
            if relation.isForeign { note(relation.name, "\(relation.name) is a foreign table") }
            for name in text.triggers(on: relation) {
                guard let trigger = standing.first(where: { $0.relation == relation.oid && $0.name == name }) else {
                    note(relation.name, "\(relation.name) lacks the trigger \(name)")
                    continue
                }
                if let difference = difference(trigger, relation, first) { note(relation.name, difference) }
            }
        }
        for trigger in standing where !relations.contains(where: { $0.oid == trigger.relation }) {
            note(TableName(name: trigger.relationName), "\(trigger.relationName) has the fence and is no part of the tables any more")
        }
        return found
    }

    private func difference(_ trigger: Trigger, _ relation: Relation, _ first: Trigger) -> String? {
        let place = "the trigger \(trigger.name) on \(relation.name)"
        guard trigger.isAlways else { return "\(place) is not enabled ALWAYS" }
        guard let arguments = trigger.arguments, trigger.definition.hasPrefix(text.definition(trigger.name, on: relation.quoted)) else {
            return "\(place) is not as it was made"
        }
        if arguments.attempt != first.arguments?.attempt { return "\(place) is another attempt's" }
        if arguments.expiry != first.arguments?.expiry { return "\(place) has another expiry" }
        return nil
    }

    /// Tables that cannot be fenced, and why.
    var unfenceable: [(table: TableName, code: ErrorCode, why: String, hint: String?)] {
        relations.compactMap { relation in
            if relation.isForeign {
                return (relation.name, .sourceUnsupported, "\(relation.name) is a foreign table, whose rows are written elsewhere", nil)
            }
            if !relation.isOwned {
                return (
                    relation.name, .rightsMissing, "the role does not own \(relation.name), and only an owner can fence it",
                    "GRANT \(relation.owner) TO "
                )
            }
            return nil
        }
    }
}

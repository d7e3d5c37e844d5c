/// Draws random statements of an application over a schema's tables.
package struct FuzzStatements: Sendable {
    /// Where a column came from that was not there in the beginning.
    package enum Origin: Sendable {
        case renamed(from: String)
        /// With what the rows hold that were there before, and what is written into it.
        case added(default: Default, values: [String])
    }

    package enum Default: Sendable {
        case null
        case integer(Int64)
        case text(String)
    }

    package let schema: FuzzSchema
    package var random: SeededGenerator
    /// With the columns that they have now.
    package private(set) var tables: [FuzzSchema.Table]
    /// By the column's name, which no other column has or had in any table of the schema.
    package private(set) var origins: [String: Origin]
    /// Whether an UPDATE may take its values out of several rows, among which SQLite chooses.
    package var drawsJoins = true
    private let prefix: String
    private var isPlain = true

    /// - Parameters:
    ///   - seed: names of new columns are made of it, so that one database takes the histories of many seeds.
    ///   - origins: of columns that an earlier history left.
    package init(schema: FuzzSchema, seed: UInt64, origins: [String: Origin] = [:]) {
        self.schema = schema
        self.origins = origins
        tables = schema.tables
        random = SeededGenerator(seed: seed)
        prefix = "n\(seed)_"
    }

    private func quote(_ name: String) -> String { "\"" + name.replacing("\"", with: "\"\"") + "\"" }

    /// The next statement of one connection.
    package mutating func next(isInsideTransaction: Bool) -> String {
        switch random.below(100) {
        case 0..<8: isInsideTransaction ? random.pick(["COMMIT", "COMMIT", "ROLLBACK"]) : "BEGIN"
        case 8..<14: isInsideTransaction ? random.pick(["SAVEPOINT s", "ROLLBACK TO s", "RELEASE s"]) : "SAVEPOINT s"
        default: change()
        }
    }

    /// A statement that changes rows.
    package mutating func change() -> String {
        let table = random.pick(tables)
        let statement: String
        switch random.below(86) {
        case 0..<41: statement = insert(table)
        case 41..<68: statement = update(table)
        case 68..<81: statement = delete(table)
        default:
            if isPlain, !schema.extra.isEmpty { return random.pick(schema.extra) }
            statement = insert(table)
        }
        return random.chance(8) ? statement + " RETURNING *" : statement
    }

    // MARK: Columns that come, go and change their names

    /// Takes over the names that a table's columns have now.
    package mutating func adopt(_ names: [String], of table: String) {
        guard let place = schema.tables.firstIndex(where: { $0.name == table }) else { return }
        let first = schema.tables[place]
        tables[place].columns = names.compactMap { name in
            var ancestor = name
            while let origin = origins[ancestor] {
                switch origin {
                case .renamed(let earlier): ancestor = earlier
                case .added(_, let values): return (name, values)
                }
            }
            return first.columns.first { $0.name == ancestor }.map { (name, $0.values) }
        }
        isPlain = zip(schema.tables, tables).allSatisfy { before, now in
            before.columns.allSatisfy { column in now.columns.contains { $0.name == column.name } }
        }
    }

    /// An ALTER of some table's columns.
    package mutating func alteration() -> String {
        let place = random.below(tables.count)
        let table = tables[place]
        let alter = "ALTER TABLE \(quote(table.name)) "
        let name = prefix + String(origins.count)
        let added = table.columns.filter { isAdded($0.name) }
        switch random.below(10) {
        case 0..<4 where added.count < 4:
            let (type, value, values): (String, Default, [String]) = random.pick([
                ("TEXT", .null, FuzzSchema.texts), ("TEXT DEFAULT 'new'", .text("new"), FuzzSchema.texts),
                ("INT NOT NULL DEFAULT 7", .integer(7), FuzzSchema.integers),
            ])
            origins[name] = .added(default: value, values: values)
            return alter + "ADD COLUMN \(name) \(type)"
        case 4 where added.count < 4:
            return alter + "ADD COLUMN \(name) ANY AS (\(quote(random.pick(table.columns).name)) || 'x')"
        case 5..<8:
            let old = random.pick(table.columns).name
            origins[name] = .renamed(from: old)
            return alter + "RENAME COLUMN \(quote(old)) TO \(name)"
        default:
            return alter + "DROP COLUMN \(quote(added.isEmpty || random.chance(15) ? random.pick(table.columns).name : random.pick(added).name))"
        }
    }

    private func isAdded(_ name: String) -> Bool {
        var ancestor = name
        while let origin = origins[ancestor] {
            switch origin {
            case .renamed(let earlier): ancestor = earlier
            case .added: return true
            }
        }
        return false
    }

    // MARK: Changes

    private mutating func conflictClause() -> String {
        random.pick(["", "OR REPLACE", "OR REPLACE", "OR REPLACE", "OR IGNORE", "OR FAIL", "OR ABORT", "OR ROLLBACK"])
    }

    private mutating func insert(_ table: FuzzSchema.Table) -> String {
        var columns = table.columns.filter { _ in random.chance(85) }
        if columns.isEmpty { columns = table.columns }
        if table.hasRowid, random.chance(8) { columns.append((name: "_rowid_", values: ["1", "2", "3", "4", "NULL"])) }
        let names = columns.map { quote($0.name) }.joined(separator: ", ")
        let isUpsert = isPlain && !table.conflictTargets.isEmpty && random.chance(20)
        let source: String
        if random.chance(12) {
            let list = columns.map { random.chance(60) ? quote($0.name) : random.pick($0.values) }.joined(separator: ", ")
            // SQLite reads ON after a SELECT as part of a join unless there is a WHERE.
            source = "SELECT \(list) FROM \(quote(table.name)) WHERE \(condition(table))" + (isUpsert ? "" : " LIMIT 3")
        } else {
            let rows = (0..<(random.chance(30) ? random.below(4) + 1 : 1)).map { _ in
                "(" + columns.map { random.pick($0.values) }.joined(separator: ", ") + ")"
            }
            source = "VALUES \(rows.joined(separator: ", "))"
        }
        guard isUpsert else { return "INSERT \(conflictClause()) INTO \(quote(table.name))(\(names)) \(source)" }
        let verb = random.chance(20) ? "INSERT OR REPLACE" : "INSERT"
        var clauses: [String] = []
        for target in table.conflictTargets.shuffled(using: &random).prefix(random.chance(30) ? 3 : 1) {
            // Only the last one may be without a target.
            if target.isEmpty, clauses.contains(where: { $0.hasPrefix(" ON CONFLICT DO") }) { continue }
            let action = target.isEmpty || random.chance(25) ? "NOTHING" : "UPDATE SET \(assignments(table, isUpsert: true))"
            let clause = " ON CONFLICT\(target) DO \(action)"
            if target.isEmpty { clauses.append(clause) } else { clauses.insert(clause, at: 0) }
        }
        return "\(verb) INTO \(quote(table.name))(\(names)) \(source)" + clauses.joined()
    }

    private mutating func assignments(_ table: FuzzSchema.Table, isUpsert: Bool = false, from: String? = nil) -> String {
        var chosen = table.columns.filter { _ in random.chance(35) }
        if chosen.isEmpty { chosen = [random.pick(table.columns)] }
        return chosen.map { column in
            let own = (from == nil ? "" : quote(table.name) + ".") + quote(column.name)
            let other = random.pick(table.columns).name
            let value =
                switch random.below(10) {
                case 0: (from.map { $0 + "." } ?? "") + quote(other)
                case 1: "\(own) + 1"
                case 2: "upper(\(own))"
                case 3 where isUpsert: "excluded.\(quote(other))"
                default: random.pick(column.values)
                }
            return "\(quote(column.name)) = \(value)"
        }.joined(separator: ", ")
    }

    private mutating func update(_ table: FuzzSchema.Table) -> String {
        let name = quote(table.name)
        if table.hasRowid, random.chance(6) {
            return "UPDATE \(conflictClause()) \(name) SET rowid = \(random.below(6)) WHERE \(condition(table))"
        }
        if drawsJoins, random.chance(12) {
            let (mine, theirs) = (quote(random.pick(table.columns).name), quote(random.pick(table.columns).name))
            return """
                UPDATE \(conflictClause()) \(name) SET \(assignments(table, from: "f")) FROM \(name) AS f \
                WHERE \(name).\(mine) \(random.pick(["=", "<", "IS NOT"])) f.\(theirs)
                """
        }
        return "UPDATE \(conflictClause()) \(name) SET \(assignments(table)) WHERE \(condition(table))"
    }

    private mutating func delete(_ table: FuzzSchema.Table) -> String {
        random.chance(8) ? "DELETE FROM \(quote(table.name))" : "DELETE FROM \(quote(table.name)) WHERE \(condition(table))"
    }

    private mutating func condition(_ table: FuzzSchema.Table) -> String {
        let column = random.pick(table.columns)
        switch random.below(7) {
        case 0: return "1"
        case 1: return "\(quote(column.name)) IS NULL"
        case 2: return "\(quote(column.name)) > \(random.pick(column.values))"
        case 3:
            return "\(quote(column.name)) IN (SELECT \(quote(random.pick(table.columns).name)) FROM \(quote(random.pick(tables).name)) AS o LIMIT 2)"
        default: return "\(quote(column.name)) = \(random.pick(column.values))"
        }
    }
}

extension FuzzStatements {
    /// Whether an application may meet such an error without anybody's doing but its own.
    package static func mayFail(_ sql: String, isConstraint: Bool, isPlainError: Bool, message: String) -> Bool {
        if isConstraint { return true }
        guard isPlainError, !message.contains("_bridge_") else { return false }
        // What SQLite refuses of an ALTER: a column that an index, a key, a trigger or another column needs.
        if sql.hasPrefix("ALTER TABLE") { return true }
        // The last one comes of a trigger of the application that names a column which the application dropped.
        return ["ON CONFLICT clause does not match", "too many levels of trigger recursion", "no such savepoint", "has no column named"].contains {
            message.contains($0)
        }
    }
}

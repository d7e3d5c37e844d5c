/// Tables made of ``TypeMatrix``, and what is done to their rows.
struct TypeTables {
    let entries: [TypeMatrix.Entry]
    /// Whether values are left out that SQLite cannot hold.
    let forSQLite: Bool

    init(forSQLite: Bool) {
        self.forSQLite = forSQLite
        entries = TypeMatrix.entries
    }

    private func values(_ entry: TypeMatrix.Entry) -> [String] {
        (entry.values + (forSQLite ? [] : entry.notInSQLite)).map { entry.literal($0) }
    }

    /// Entries whose type can be a key, by number.
    var keys: [(number: Int, entry: TypeMatrix.Entry)] {
        entries.enumerated().filter { $0.element.isKey }.map { ($0.offset, $0.element) }
    }

    var names: [String] { (forSQLite ? ["plain", "arrays"] : ["plain", "arrays", "whole"]) + keys.map { "key_\($0.number)" } }

    // MARK: Definitions

    func definitions(isTarget: Bool) -> String {
        let columns = entries.enumerated().map { "c\($0.offset) \($0.element.type)\(collation($0.element))" }.joined(separator: ", ")
        let arrays = entries.indices.map { "a\($0) \(entries[$0].type)[]" }.joined(separator: ", ")
        var statements = [
            TypeMatrix.setup, "CREATE TABLE plain (id int PRIMARY KEY, \(columns))", "CREATE TABLE arrays (id int PRIMARY KEY, \(arrays))",
            "CREATE TABLE whole (id int, \(columns))", "ALTER TABLE whole REPLICA IDENTITY FULL",
        ]
        for (number, entry) in keys {
            let isIndex = number % 2 == 0 && !isTarget && !forSQLite
            statements.append(
                "CREATE TABLE key_\(number) (n int, k \(entry.type)\(collation(entry)) NOT NULL\(isIndex ? "" : " PRIMARY KEY"), big text)")
            statements.append("ALTER TABLE key_\(number) ALTER big SET STORAGE EXTERNAL")
            if isIndex {
                statements.append("CREATE UNIQUE INDEX key_\(number)_k ON key_\(number) (k)")
                statements.append("ALTER TABLE key_\(number) REPLICA IDENTITY USING INDEX key_\(number)_k")
            }
        }
        return statements.joined(separator: ";\n")
    }

    private func collation(_ entry: TypeMatrix.Entry) -> String { entry.collation.map { " COLLATE \($0)" } ?? "" }

    // MARK: Rows

    private var rowCount: Int { entries.map { values($0).count + $0.long.count }.max() ?? 0 }

    private func row(_ number: Int, _ id: Int, hasLong: Bool = true) -> String {
        let cells = entries.map { entry in
            let all = values(entry) + (hasLong ? entry.long.map { entry.literal($0) } : [])
            let index = number % (all.count + 1)
            return index < all.count ? all[index] : "NULL"
        }
        return "(\(id), \(cells.joined(separator: ", ")))"
    }

    private func arrayRow(_ number: Int, _ id: Int) -> String {
        let cells = entries.enumerated().map { index, entry -> String in
            let all = values(entry)
            let (one, other) = (all[number % all.count], all[(number + 1) % all.count])
            let type = "\(entry.type)[]"
            switch (number + index) % 5 {
            case 0: return "NULL"
            case 1: return "'{}'::\(type)"
            case 2: return "ARRAY[\(all.joined(separator: ", ")), NULL]::\(type)"
            case 3: return "ARRAY[ARRAY[\(one), NULL], ARRAY[NULL, \(other)]]::\(type)"
            default: return "('[-5:-4]=' || ARRAY[\(one), \(other)]::\(type)::text)::\(type)"
            }
        }
        return "(\(id), \(cells.joined(separator: ", ")))"
    }

    /// New rows in all tables; in the tables of keys those that are not there.
    func inserts(from id: Int) -> [String] {
        var statements: [String] = []
        for number in 0...rowCount {
            statements.append("INSERT INTO plain VALUES \(row(number, id + number))")
            statements.append("INSERT INTO arrays VALUES \(arrayRow(number, id + number))")
            if !forSQLite { statements.append("INSERT INTO whole VALUES \(row(number, id + number, hasLong: false)), \(row(number, id + number, hasLong: false))") }
        }
        for (number, entry) in keys {
            let rows = values(entry).enumerated().map { "(\($0.offset), \($0.element))" }.joined(separator: ", ")
            statements.append(
                """
                INSERT INTO key_\(number) SELECT n, k, repeat('big', 1000) FROM (VALUES \(rows)) AS v(n, k) \
                WHERE pg_column_size(k) < 2000 ON CONFLICT DO NOTHING
                """)
        }
        return statements
    }

    /// Changes of every kind to rows that begin at `id`, which leave enough of them.
    func changes(from id: Int) -> [String] {
        var statements: [String] = []
        let last = id + rowCount
        for (index, entry) in entries.enumerated() {
            // Each column takes the value of the row behind, and other columns of long values stay as they are.
            if index % 7 == 0 {
                let columns = (index..<min(index + 7, entries.count)).map { "c\($0) = o.c\($0)" }.joined(separator: ", ")
                let arrays = (index..<min(index + 7, entries.count)).map { "a\($0) = o.a\($0)" }.joined(separator: ", ")
                let rows = "id BETWEEN \(id + 2) AND \(last - 3)"
                statements.append("UPDATE plain AS t SET \(columns) FROM plain AS o WHERE o.id = t.id + 1 AND t.\(rows)")
                statements.append("UPDATE arrays AS t SET \(arrays) FROM arrays AS o WHERE o.id = t.id + 1 AND t.\(rows)")
                if !forSQLite {
                    statements.append("UPDATE whole SET \(columns) FROM (SELECT DISTINCT ON (id) * FROM whole) AS o WHERE o.id = whole.id + 1 AND whole.\(rows) AND whole.ctid = (SELECT min(x.ctid) FROM whole AS x WHERE x.id = whole.id)")
                }
            }
            guard entry.isKey else { continue }
            statements += keyChanges("key_\(index)", entry)
        }
        statements.append("UPDATE plain SET id = -id WHERE id IN (\(id + 1), \(last))")
        statements.append("DELETE FROM plain WHERE id = \(last - 1)")
        statements.append("DELETE FROM arrays WHERE id = \(last - 1)")
        if !forSQLite {
            statements.append("DELETE FROM whole WHERE id = \(last - 1) AND ctid = (SELECT min(x.ctid) FROM whole AS x WHERE x.id = \(last - 1))")
            statements.append("DELETE FROM whole WHERE id BETWEEN \(last - 4) AND \(last - 3)")
        }
        return statements
    }

    private func keyChanges(_ table: String, _ entry: TypeMatrix.Entry) -> [String] {
        let all = values(entry)
        guard let one = all.first, let other = all.last else { return [] }
        var statements = ["UPDATE \(table) SET n = n + 1"]
        if let (first, second) = entry.same {
            if !forSQLite || !entry.notInSQLite.contains(second) {
                statements += [
                    "INSERT INTO \(table) VALUES (50, \(entry.literal(first)), repeat('same', 1000)) ON CONFLICT DO NOTHING",
                    "UPDATE \(table) SET n = n + 1, k = \(entry.literal(second)) WHERE k = \(entry.literal(first))",
                    "UPDATE \(table) SET k = \(entry.literal(first)) WHERE k = \(entry.literal(second))",
                    "UPDATE \(table) SET k = \(entry.literal(second)) WHERE k = \(entry.literal(first))",
                    "UPDATE \(table) SET n = n + 1 WHERE k = \(entry.literal(first))",
                ]
            }
        }
        guard all.count > 1 else { return statements + ["DELETE FROM \(table)"] }
        return statements + [
            "DELETE FROM \(table) WHERE \(isKey(other))", "UPDATE \(table) SET k = \(other) WHERE \(isKey(one))",
            "UPDATE \(table) SET n = -n WHERE \(isKey(other))",
        ]
    }

    /// Each key that has an equal one becomes that, in SQL for either engine.
    var sameKeys: [String] {
        keys.compactMap { number, entry in
            guard let (first, second) = entry.same, entry.notInSQLite.isEmpty else { return nil }
            return "UPDATE key_\(number) SET k = \(first), n = n + 1 WHERE k = \(second)"
        }
    }

    /// A domain over an enum has no `=`.
    private func isKey(_ literal: String) -> String { "format('%s', k) = format('%s', \(literal))" }

    /// All rows of all tables, in an order that the values do not decide.
    var dump: String {
        names.map { name in
            let order = name.hasPrefix("key_") ? "format('%s', k) COLLATE \"C\"" : name == "whole" ? "id, format('%s', whole) COLLATE \"C\"" : "id"
            let columns = name.hasPrefix("key_") ? "n, k, md5(big)" : "*"
            return "SELECT 'table \(name)';\nCOPY (SELECT \(columns) FROM public.\(name) ORDER BY \(order)) TO STDOUT;"
        }.joined(separator: "\n")
    }
}

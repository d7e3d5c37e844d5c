import BridgeTestSupport

/// A random history over ``GeneratedTables`` as SQL: transactions, and which session goes on when. It comes again with
/// its seed; statements that fail are part of it.
struct GeneratedHistory {
    enum Step {
        case statement(String)
        /// Undone if it fails; otherwise a failure ends the transaction.
        case guarded(String)
        case savepoint
        case rollbackToSavepoint
        case end(commits: Bool)
    }

    struct Transaction {
        var steps: [Step] = []
    }

    private var random: SeededGenerator
    /// Which session does its next step, in order.
    private(set) var schedule: [(session: Int, step: Step)] = []
    /// Whether all transactions are captured before the first is applied.
    let isHeld: Bool
    static let sessions = 3

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed)
        isHeld = random.chance(60)
        var lanes = (0..<Self.sessions).map { _ in [Step]() }
        for _ in 0..<(2 + random.below(9)) {
            let transaction = makeTransaction()
            lanes[random.below(Self.sessions)] += transaction.steps
        }
        var next = [Int](repeating: 0, count: Self.sessions)
        while true {
            let open = lanes.indices.filter { next[$0] < lanes[$0].count }
            guard !open.isEmpty else { break }
            let lane = random.pick(open)
            for _ in 0...random.below(4) where next[lane] < lanes[lane].count {
                schedule.append((lane, lanes[lane][next[lane]]))
                next[lane] += 1
            }
        }
    }

    /// What every seed begins with: the same rows, whatever came before.
    static let beginning: [String] = {
        let rows = "SELECT n, n * 2, 'e' || n, n % 3 = 0, n * 3, repeat(chr(96 + n), 40 + 500 * n) FROM generate_series(1, 12) AS n"
        return ["SELECT setval('public.i_id_seq', 1, false)"] + GeneratedTables.names.map { "DELETE FROM public.\($0)" }
            + GeneratedTables.names.map {
                "INSERT INTO public.\($0) (id, u, e, f, v, big) OVERRIDING SYSTEM VALUE \(rows)"
            }
    }()

    // MARK: Transactions

    private mutating func makeTransaction() -> Transaction {
        var transaction = Transaction()
        let isGuarded = random.chance(70)
        var hasSavepoint = false
        for _ in 0...random.below(random.chance(20) ? 25 : 7) {
            if random.chance(6) {
                transaction.steps.append(.savepoint)
                hasSavepoint = true
            } else if hasSavepoint, random.chance(8) {
                transaction.steps.append(.rollbackToSavepoint)
            }
            for statement in makeStatements() {
                transaction.steps.append(isGuarded ? .guarded(statement) : .statement(statement))
            }
        }
        transaction.steps.append(.end(commits: random.chance(94)))
        return transaction
    }

    private mutating func id() -> Int { 1 + random.below(24) }

    private mutating func small() -> String { random.chance(10) ? "NULL" : "\(random.below(30))" }

    private mutating func label() -> String {
        random.chance(10) ? "NULL" : random.pick(["'e", "'E", "'x\"", "'tab\t", "'\\\\N", "'ü", "'"]) + "\(random.below(14))'"
    }

    private mutating func big() -> String {
        "repeat('\(random.pick(["x", "\\\\", "ä", "'' "]))', \(random.pick([0, 1, 30, 900, 2_100, 9_000]))) || \(random.below(5))"
    }

    private mutating func assignment(_ table: String) -> String {
        switch random.below(8) {
        case 0: "u = \(small())"
        case 1: "e = \(label())"
        case 2: "f = \(random.pick(["true", "false", "NULL", "NOT f"]))"
        case 3: "v = \(small())"
        case 4: "big = \(big())"
        case 5: "v = v + 1, e = e || '!'"
        case 6: "u = \(small()), v = \(small()), big = \(big())"
        default: "u = u"
        }
    }

    /// One statement, or several that belong together.
    private mutating func makeStatements() -> [String] {
        let name = random.pick(GeneratedTables.names)
        let table = "public.\(name)"
        let (one, other) = (id(), id())
        switch random.below(22) {
        case 0...3:
            let rows = (0...random.below(3)).map { _ in
                "(\(id()), \(small()), \(label()), \(random.pick(["true", "false", "NULL"])), \(small()), \(big()))"
            }
            let conflict = random.chance(50) && name != "h" && name != "c" ? " ON CONFLICT DO NOTHING" : ""
            return ["INSERT INTO \(table) (id, u, e, f, v, big) OVERRIDING SYSTEM VALUE VALUES \(rows.joined(separator: ", "))\(conflict)"]
        case 4...7: return ["UPDATE \(table) SET \(assignment(name)) WHERE id = \(one)"]
        case 8, 9:
            // Another key, with or without other values.
            let key = name == "i" ? "id = DEFAULT" : "id = \(other)"
            return ["UPDATE \(table) SET \(key)\(random.chance(50) ? ", \(assignment(name))" : "") WHERE id = \(one)"]
        case 10, 11: return ["DELETE FROM \(table) WHERE id = \(one)"]
        case 12: return ["DELETE FROM \(table) WHERE id BETWEEN \(one) AND \(one + random.below(6))"]
        case 13: return ["UPDATE \(table) SET \(assignment(name)) WHERE id BETWEEN \(one) AND \(other)"]
        case 14: return ["UPDATE \(table) SET u = u \(random.pick(["+", "-"])) \(1 + random.below(2)) WHERE id > \(one)"]
        case 15:
            // At once, which only a constraint that is checked later allows.
            return ["UPDATE \(table) SET u = CASE id WHEN \(one) THEN (SELECT u FROM \(table) WHERE id = \(other) LIMIT 1) ELSE (SELECT u FROM \(table) WHERE id = \(one) LIMIT 1) END WHERE id IN (\(one), \(other))"]
        case 16 where name != "i":
            return ["UPDATE \(table) SET id = \(one + other) - id WHERE id IN (\(one), \(other))"]
        case 16, 17: return swap(table, one, other)
        case 18 where name != "i": return cycle(table)
        case 18:
            return ["DELETE FROM \(table) WHERE id = \(one)", "INSERT INTO \(table) (u, e, v) VALUES (\(small()), \(label()), \(small()))"]
        case 19:
            return [
                "DELETE FROM \(table) WHERE id = \(one)",
                "INSERT INTO \(table) (id, u, e, f, v, big) OVERRIDING SYSTEM VALUE VALUES (\(one), \(small()), \(label()), true, \(small()), \(big()))",
            ]
        case 20:
            // Rows enough to go over set-wise.
            let first = 100 + 200 * random.below(3)
            let width = random.pick([10, 400])
            return [
                "INSERT INTO \(table) (id, u, e, f, v, big) OVERRIDING SYSTEM VALUE SELECT n, n, 'r' || n, n % 2 = 0, n, repeat('r', \(width)) FROM generate_series(\(first), \(first + 40 + random.below(100))) AS n",
                "UPDATE \(table) SET big = '', u = u + 1000 WHERE id >= \(first + random.below(60))",
            ]
        default:
            guard random.chance(15) else { return ["UPDATE \(table) SET \(assignment(name))"] }
            let others = GeneratedTables.names.filter { _ in random.chance(20) }.map { "public.\($0)" }
            let all = Set(others + [table]).sorted().joined(separator: ", ")
            return ["TRUNCATE \(all)\(random.chance(50) ? " RESTART IDENTITY" : "")\(random.chance(30) ? " CASCADE" : "")"]
        }
    }

    /// Two rows exchange a unique value over a third.
    private mutating func swap(_ table: String, _ one: Int, _ other: Int) -> [String] {
        let column = random.pick(["u", "v"])
        let parked = 500 + random.below(100)
        return [
            "UPDATE \(table) SET \(column) = -\(column) - \(parked) WHERE id = \(one)",
            "UPDATE \(table) SET \(column) = (SELECT -\(column) - \(parked) FROM \(table) WHERE id = \(one) LIMIT 1) + 0 * \(column) WHERE id = \(other)",
            "UPDATE \(table) SET \(column) = \(parked + 100 + random.below(20)) WHERE id = \(one)",
        ]
    }

    /// A ring of keys goes one on, over a key that nobody has; or a chain is shifted.
    private mutating func cycle(_ table: String) -> [String] {
        let start = id()
        let length = 2 + random.below(3)
        let keys = (0..<length).map { start + $0 }
        guard random.chance(60) else { return keys.reversed().map { "UPDATE \(table) SET id = \($0 + 1) WHERE id = \($0)" } }
        return ["UPDATE \(table) SET id = -\(start) WHERE id = \(keys[0])"]
            + keys.dropFirst().map { "UPDATE \(table) SET id = \($0 - 1) WHERE id = \($0)" }
            + ["UPDATE \(table) SET id = \(keys[length - 1]) WHERE id = -\(start)"]
    }
}

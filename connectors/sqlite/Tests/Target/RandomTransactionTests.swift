import BridgeCore
import BridgeSQLite
import BridgeTestSupport
import GRDB
import Glibc
import Testing

/// Random transactions run as SQL on a reference database, and as records through the applier; the two must be equal.
///
/// `BRIDGE_TEST_SEED` sets the first seed, `BRIDGE_TEST_ROUNDS` how many follow.
@Suite struct RandomTransactionTests {
    static var seeds: Range<UInt64> {
        let environment = { (name: String) in getenv(name).flatMap { UInt64(String(cString: $0)) } }
        let first = environment("BRIDGE_TEST_SEED") ?? UInt64.random(in: 0...UInt64(Int32.max))
        return first..<first + (environment("BRIDGE_TEST_ROUNDS") ?? 25)
    }

    /// Whatever ends a round early is reported with the seed that brings it back.
    private static func named(_ seed: UInt64, _ round: () async throws -> Void) async {
        do { try await round() } catch { Issue.record(error, "seed \(seed)") }
    }

    // MARK: Sources that log rows

    /// A row of the reference: key, unique code, free text that is sometimes not sent.
    struct Item: Equatable {
        var code: String?
        var text: String
    }

    static let rows = postgresRelation(3, "items", ["id*:bigint", "code:text", "body:text"])

    @Test("P24 P25 random transactions of rows, with unique values that change places, give the source's rows")
    func rowLog() async throws {
        for seed in Self.seeds { await Self.named(seed) { try await rowLog(seed) } }
    }

    private func rowLog(_ seed: UInt64) async throws {
        var random = SeededGenerator(seed: seed)
        let fixture = try TargetFixture("CREATE TABLE items(id INTEGER PRIMARY KEY, code TEXT UNIQUE, body TEXT)")
        var applier = try await fixture.applier([Self.rows])
        var items: [Int64: Item] = [:]
        var commit: UInt64 = 10
        for _ in 0..<8 {
            let writer = BatchWriter([Self.rows])
            for _ in 0..<Int.random(in: 1...5, using: &random) {
                commit += 1
                writer.transaction(commit) { Self.randomChanges(&items, $0, &random) }
            }
            try await applier.apply(writer.batch())
            if Int.random(in: 0..<4, using: &random) == 0 {
                await applier.close()
                applier = try await fixture.target.openApplier(fixture.link([Self.rows]))
            }
        }
        await applier.close()
        let expected = items.sorted { $0.key < $1.key }.map { id, item in
            "i:\(id)|\(item.code.map { "t:\($0)" } ?? "null")|t:\(item.text)"
        }
        #expect(try fixture.rows("SELECT * FROM items ORDER BY id") == expected, "seed \(seed)")
        #expect(try fixture.rows("PRAGMA integrity_check") == ["t:ok"], "seed \(seed)")
    }

    /// One source transaction, under a unique constraint that is checked at its end.
    private static func randomChanges(
        _ items: inout [Int64: Item], _ writer: BatchWriter, _ random: inout SeededGenerator
    ) {
        for _ in 0..<Int.random(in: 1...12, using: &random) {
            let ids = items.keys.sorted()
            let free = "c\(UInt32.random(in: 0...UInt32.max, using: &random))"
            switch Int.random(in: 0..<10, using: &random) {
            case 0...2:
                let id = Int64.random(in: 1...60, using: &random)
                guard items[id] == nil else { continue }
                items[id] = Item(code: Bool.random(using: &random) ? free : nil, text: free)
                writer.insert(3, [.integer(id), items[id]?.code.map { .text($0) } ?? nil, .text(free)])
            case 3, 4:
                guard let id = ids.randomElement(using: &random), var item = items[id] else { continue }
                let keepsText = Bool.random(using: &random)
                item.code = free
                if !keepsText { item.text = free }
                items[id] = item
                writer.update(3, to: [.integer(id), .text(free), keepsText ? .unchanged : .text(free)])
            case 5:
                guard let id = ids.randomElement(using: &random), let item = items[id] else { continue }
                let new = Int64.random(in: 1...60, using: &random)
                guard items[new] == nil else { continue }
                items[id] = nil
                items[new] = item
                writer.update(
                    3, key: [.integer(id), .absent, .absent],
                    to: [.integer(new), item.code.map { .text($0) } ?? nil, .unchanged])
            case 6:
                guard let id = ids.randomElement(using: &random) else { continue }
                items[id] = nil
                writer.delete(3, key: [.integer(id), .absent, .absent])
            case 7 where Int.random(in: 0..<8, using: &random) == 0:
                items.removeAll()
                writer.truncate([3])
            default:
                // Several rows pass their codes round.
                let ring = Array(ids.shuffled(using: &random).prefix(Int.random(in: 2...6, using: &random)))
                guard ring.count > 1 else { continue }
                let codes = ring.map { items[$0]?.code }
                for (place, id) in ring.enumerated() {
                    let code = codes[(place + 1) % ring.count] ?? nil
                    items[id]?.code = code
                    writer.update(3, to: [.integer(id), code.map { .text($0) } ?? nil, .unchanged])
                }
            }
        }
    }

    // MARK: Sources that log keys

    private static let keyLogTables: [(create: String, relation: Relation)] = [
        (
            """
            CREATE TABLE items(id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE UNIQUE, b, c REAL);
            CREATE UNIQUE INDEX items_b ON items(abs(b)) WHERE b <> 0
            """, sqliteRelation(3, "items", ["id*:INTEGER", "a:TEXT", "b:", "c:REAL"])
        ),
        (
            """
            CREATE TABLE items(id TEXT COLLATE NOCASE, a TEXT UNIQUE, b, c REAL, PRIMARY KEY(id)) WITHOUT ROWID;
            CREATE UNIQUE INDEX items_bc ON items(b, c)
            """, sqliteRelation(3, "items", ["id*:TEXT", "a:TEXT", "b:", "c:REAL"])
        ),
        (
            "CREATE TABLE items(id PRIMARY KEY, a TEXT UNIQUE, b NUMERIC UNIQUE, c REAL)",
            sqliteRelation(3, "items", ["id*:", "a:TEXT", "b:NUMERIC", "c:REAL"])
        ),
    ]

    @Test("S12 final states of random SQL, in random order and with surplus keys, give the source's rows", arguments: 0..<3)
    func keyLog(table: Int) async throws {
        for seed in Self.seeds { await Self.named(seed) { try await keyLog(seed, table) } }
    }

    private func keyLog(_ seed: UInt64, _ table: Int) async throws {
        let (create, relation) = Self.keyLogTables[table]
        var random = SeededGenerator(seed: seed)
        let fixture = try TargetFixture(create)
        let reference = try DatabaseQueue()
        try await reference.write { try $0.execute(sql: create) }
        // The copy is taken somewhere in the middle; what is older is applied to it all the same.
        let copyAt = Int.random(in: 0...6, using: &random)
        var before: [[Value]] = []
        var batches: [ChangeBatch] = []
        let link = fixture.link([relation])
        for step in 0..<12 {
            if step == copyAt { try await Self.copy(before, fixture, link, relation, at: UInt64(100 + step)) }
            let statements = (0..<Int.random(in: 1...15, using: &random)).map { _ in Self.randomSQL(&random) }
            try await reference.write { database in
                // What a constraint refuses is refused in the application, too.
                for sql in statements { try? database.execute(sql: sql) }
            }
            let after = try Self.snapshot(reference)
            let writer = BatchWriter([relation])
            writer.transaction(UInt64(100 + step)) {
                Self.log(from: before, to: after, $0, &random)
            }
            batches.append(writer.batch())
            before = after
        }
        let applier = try await fixture.target.openApplier(link)
        for batch in batches { try await applier.apply(batch) }
        await applier.close()
        let query = "SELECT * FROM items ORDER BY typeof(id), id, id COLLATE BINARY"
        #expect(try fixture.rows(query) == showRows(reference, query), "seed \(seed), table \(table)")
        #expect(try fixture.rows("PRAGMA integrity_check") == ["t:ok"], "seed \(seed)")
    }

    private static func copy(
        _ rows: [[Value]], _ fixture: TargetFixture, _ link: LinkDescription, _ relation: Relation, at commit: UInt64
    ) async throws {
        _ = try await fixture.target.prepareLink(link)
        try await fixture.target.recordOrigin(
            link, CaptureOrigin(identity: [:], position: Position(commit: 1)))
        let load = try await fixture.target.openLoad(
            link, mapping: link.mappings[0], columns: relation.columns, format: .rows)
        try await load.write(chunk(rows))
        try await load.finish(position: Position(commit: commit), rows: Int64(rows.count))
        try await fixture.target.finishCopy(link)
    }

    private static func randomSQL(_ random: inout SeededGenerator) -> String {
        let id = ["\(Int.random(in: 1...9, using: &random))", "'k\(Int.random(in: 1...3, using: &random))'",
            "'K\(Int.random(in: 1...3, using: &random))'", "\(Int.random(in: 1...3, using: &random)).0",
        ].randomElement(using: &random) ?? "1"
        let a = ["'x'", "'X'", "'y'", "'z'", "NULL", "'w'"].randomElement(using: &random) ?? "NULL"
        let b = ["1", "-1", "2", "0", "NULL", "'2'", "2.0", "x'00'"].randomElement(using: &random) ?? "NULL"
        let c = ["1", "0.5", "NULL", "1e300"].randomElement(using: &random) ?? "NULL"
        switch Int.random(in: 0..<12, using: &random) {
        case 0...3: return "INSERT OR REPLACE INTO items VALUES(\(id), \(a), \(b), \(c))"
        case 4: return "INSERT OR IGNORE INTO items VALUES(\(id), \(a), \(b), \(c))"
        case 5: return "UPDATE OR REPLACE items SET id = \(id) WHERE a = \(a)"
        case 6: return "UPDATE OR REPLACE items SET a = \(a), b = \(b) WHERE id = \(id)"
        case 7: return "UPDATE items SET c = \(c) WHERE b IS \(b)"
        case 8: return "DELETE FROM items WHERE id = \(id)"
        case 9: return "INSERT INTO items VALUES(\(id), \(a), \(b), \(c)) ON CONFLICT DO UPDATE SET c = excluded.c"
        case 10: return Int.random(in: 0..<10, using: &random) == 0 ? "DELETE FROM items" : "UPDATE items SET c = 7"
        default:
            // Two rows change places.
            return """
                CREATE TEMP TABLE swap AS SELECT id, a FROM items ORDER BY random() LIMIT 2;
                UPDATE items SET a = NULL WHERE id IN (SELECT id FROM swap);
                UPDATE items SET a = (SELECT a FROM swap WHERE swap.id <> items.id) WHERE id IN (SELECT id FROM swap);
                DROP TABLE swap
                """
        }
    }

    private static func snapshot(_ database: DatabaseQueue) throws -> [[Value]] {
        try database.read { database in
            try Row.fetchAll(database, sql: "SELECT * FROM items").map { row in
                row.databaseValues.map { value -> Value in
                    switch value.storage {
                    case .null: .null
                    case .int64(let value): .integer(value)
                    case .double(let value): .real(value)
                    case .string(let value): .text(value)
                    case .blob(let value): .blob([UInt8](value))
                    }
                }
            }
        }
    }

    /// What a log of keys makes of two states: each touched key as it is now, in any order; surplus keys do no harm.
    private static func log(
        from before: [[Value]], to after: [[Value]], _ writer: BatchWriter, _ random: inout SeededGenerator
    ) {
        let old = Dictionary(uniqueKeysWithValues: before.map { ($0[0], $0) })
        let new = Dictionary(uniqueKeysWithValues: after.map { ($0[0], $0) })
        let keys = Set(old.keys).union(new.keys).filter { key in
            old[key] != new[key] || Int.random(in: 0..<5, using: &random) == 0
        }
        for key in keys.sorted(by: { "\($0)" < "\($1)" }).shuffled(using: &random) where key != .null {
            if let row = new[key] { writer.upsert(3, row) } else { writer.remove(3, [key, .absent, .absent, .absent]) }
        }
        // Some come twice: a transaction may grow while it is read.
        for key in keys.sorted(by: { "\($0)" < "\($1)" }).prefix(2) where key != .null {
            if let row = new[key] { writer.upsert(3, row) }
        }
    }
}

import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

/// Random histories, applied through batches of random sizes and run statement by statement in a second table.
@Suite("Applying equals running")
struct ApplyPropertyTests {
    /// One row of the model.
    private struct Row {
        var id: Int
        var unique: Int
        var label: String?
        var big: String
    }

    /// Makes a valid history: at no moment does it break one of the table's unique indexes.
    private struct History {
        var random: SeededGenerator
        var rows: [Int: Row] = [:]
        var writer: BatchWriter
        var statements: [String] = []
        let relation: UInt32 = 1
        let identity: Relation.IdentityKind
        /// Histories without key changes and swaps are those that are applied set-wise from end to end.
        let keyChanges: Int
        let swaps: Int

        init(seed: UInt64, identity: Relation.IdentityKind) {
            random = SeededGenerator(seed: seed)
            self.identity = identity
            keyChanges = seed % 3 == 0 ? 15 : 0
            swaps = seed % 2 == 0 ? 8 : 0
            writer = BatchWriter(relations: [ApplyPropertyTests.relation(identity)])
        }

        mutating func flip(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }
        mutating func number(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &random) }
        mutating func anyRow() -> Row? { rows.values.sorted { $0.id < $1.id }.randomElement(using: &random) }

        func isFree(unique: Int) -> Bool { !rows.values.contains { $0.unique == unique } }
        func isFree(label: String?) -> Bool { label == nil || !rows.values.contains { $0.label == label } }

        mutating func label() -> String? {
            let label = flip(30) ? nil : ["a\tb", "c\\d", "e\nf", "g'h", "ü"][number(5)] + "\(number(12))"
            return isFree(label: label) ? label : nil
        }

        mutating func big() -> String { String(repeating: "x\\", count: number(4)) + "\(number(1_000))" }

        func full(_ row: Row) -> [TestCell] {
            [.text("\(row.id)"), .text("\(row.unique)"), TestCell(row.label), .text(row.big)]
        }

        func key(_ id: Int) -> [TestCell] { [.text("\(id)"), .absent, .absent, .absent] }

        private func literal(_ text: String?) -> String {
            text.map { "convert_from('\\x" + $0.utf8.map { String(65536 + Int($0), radix: 16).suffix(2) }.joined() + "', 'UTF8')" }
                ?? "NULL"
        }

        mutating func insert() {
            let row = Row(id: number(40), unique: number(60), label: label(), big: big())
            guard rows[row.id] == nil, isFree(unique: row.unique) else { return }
            rows[row.id] = row
            writer.insert(relation, full(row))
            statements.append(
                "INSERT INTO reference VALUES (\(row.id), \(row.unique), \(literal(row.label)), \(literal(row.big)))")
        }

        mutating func change(_ old: Row, to new: Row) {
            rows[old.id] = nil
            rows[new.id] = new
            var image = full(new)
            if old.big == new.big && flip(70) { image[3] = .unchanged }
            switch identity {
            case .full: writer.update(relation, image, old: full(old), kind: .full)
            default: writer.update(relation, image, old: old.id == new.id ? nil : key(old.id))
            }
            statements.append(
                "UPDATE reference SET id = \(new.id), u = \(new.unique), label = \(literal(new.label)), big = \(literal(new.big)) WHERE id = \(old.id)")
        }

        mutating func update() {
            guard let old = anyRow() else { return }
            var new = old
            if flip(40) {
                let unique = number(60)
                if isFree(unique: unique) { new.unique = unique }
            }
            if flip(30) { new.label = label() }
            if flip(30) { new.big = big() }
            if flip(keyChanges) {
                let id = number(40)
                if rows[id] == nil { new.id = id }
            }
            change(old, to: new)
        }

        mutating func swapUnique() {
            guard var a = anyRow(), let b = anyRow(), a.id != b.id else { return }
            let (first, second) = (a.unique, b.unique)
            var parked = a
            parked.unique = 1_000 + number(1_000)
            change(a, to: parked)
            a = parked
            var moved = b
            moved.unique = first
            change(b, to: moved)
            var done = a
            done.unique = second
            change(a, to: done)
        }

        mutating func delete() {
            guard let row = anyRow() else { return }
            rows[row.id] = nil
            writer.delete(relation, identity == .full ? full(row) : key(row.id), kind: identity == .full ? .full : .key)
            statements.append("DELETE FROM reference WHERE id = \(row.id)")
        }

        mutating func truncate() {
            rows.removeAll()
            writer.truncate([relation])
            statements.append("TRUNCATE reference")
        }

        mutating func step() {
            switch number(100) {
            case 0..<35: insert()
            case 35..<(78 - swaps): update()
            case (78 - swaps)..<78: swapUnique()
            case 78..<99: delete()
            default: if flip(30) { truncate() }
            }
        }
    }

    private static func relation(_ identity: Relation.IdentityKind) -> Relation {
        BridgePostgreSQLTests.relation(
            1, "t", identity, [("id", "integer"), ("u", "integer"), ("label", "text"), ("big", "text")])
    }

    private static let shapes: [String] = [
        "CREATE TABLE t (id int PRIMARY KEY, u int NOT NULL UNIQUE, label text UNIQUE, big text NOT NULL)",
        // Another order, a column of its own, an identity that may not be set by UPDATE.
        """
        CREATE TABLE t (extra text DEFAULT 'mine', big text NOT NULL, label text UNIQUE, u bigint NOT NULL UNIQUE,
          id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, twice bigint GENERATED ALWAYS AS (u * 2) STORED)
        """,
        // Partitioned: rows move when their key changes.
        """
        CREATE TABLE t (id int PRIMARY KEY, u int NOT NULL, label text, big text NOT NULL) PARTITION BY RANGE (id);
        CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (MINVALUE) TO (20);
        CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (20) TO (MAXVALUE)
        """,
        // No key on the target: the whole old row, or the source's key without an index.
        "CREATE TABLE t (id int, u int, label text, big text)",
    ]

    @Test("P1 P12 P25 random histories in batches of random sizes leave what running them leaves")
    func randomHistories() async throws {
        let rounds = environment("BRIDGE_APPLY_SEEDS", default: 40)
        let first = environment("BRIDGE_APPLY_SEED", default: Int.random(in: 0..<1_000_000))
        for seed in first..<first + rounds {
            let shape = Self.shapes[seed / 6 % Self.shapes.count]
            let fixture = try await TargetFixture(
                shape + "; CREATE TABLE reference (id int PRIMARY KEY, u int, label text, big text)", tables: ["t"])
            try await fixture.begin()
            let applier = try await fixture.openApplier()
            var history = History(seed: UInt64(seed), identity: seed % 5 == 4 ? .full : .key)
            var isOpen = false
            for _ in 0..<(4 + history.number(10)) {
                for _ in 0..<(1 + history.number(8)) {
                    history.writer.begin()
                    for _ in 0..<(1 + history.number(history.flip(20) ? 60 : 6)) {
                        history.step()
                        if history.flip(2) {
                            try await applier.apply(history.writer.take(isPart: true))
                            isOpen = true
                        }
                    }
                    history.writer.commit()
                }
                do {
                    try await applier.apply(history.writer.take())
                } catch {
                    Issue.record("seed \(seed): \(error)")
                    return
                }
                isOpen = false
            }
            #expect(!isOpen)
            await applier.close()
            let statements = history.statements.joined(separator: ";\n")
            try await fixture.cluster.psql(fixture.url, "BEGIN; \(statements); COMMIT")
            let difference = try await fixture.sql(
                """
                SELECT count(*) FROM ((TABLE reference EXCEPT ALL SELECT id, u::int, label, big FROM t)
                  UNION ALL (SELECT id, u::int, label, big FROM t EXCEPT ALL TABLE reference)) d
                """)
            #expect(difference == "0", "seed \(seed)")
            let checkpoint = try await fixture.checkpoint()
            #expect(checkpoint?.position == history.writer.position, "seed \(seed)")
            try await fixture.end()
            if difference != "0" { return }
        }
    }
}

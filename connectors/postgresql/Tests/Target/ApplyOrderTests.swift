import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

/// What the applier does where the order of changes matters, against a real server.
@Suite("PostgreSQL target: apply in order")
struct ApplyOrderTests: ApplySuite {
    @Test("P25 a unique swap, a chain of keys and a delete that frees a value are applied in one batch")
    func orders() async throws {
        let fixture = try await TargetFixture(
            "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE); INSERT INTO t SELECT i, i FROM generate_series(1, 200) i",
            tables: ["t"])
        try await fixture.begin()
        let described = relation(1, "t", [("id", "integer"), ("u", "integer")])
        var writer = BatchWriter(relations: [described])
        writer.begin()
        // Every pair swaps its unique values.
        for row in stride(from: 1, to: 100, by: 2) {
            writer.update(1, [.text("\(row)"), "-1"])
            writer.update(1, [.text("\(row + 1)"), .text("\(row)")])
            writer.update(1, [.text("\(row)"), .text("\(row + 1)")])
        }
        // 200 → 201, 199 → 200, … : each takes the key that the one before left.
        for row in stride(from: 200, to: 150, by: -1) {
            writer.update(1, [.text("\(row + 1)"), .text("\(row)")], old: [.text("\(row)"), .absent])
        }
        writer.delete(1, ["120", .absent])
        writer.insert(1, ["1000", "120"])
        writer.commit()
        let applier = try await fixture.openApplier()
        try await applier.apply(writer.take())
        await applier.close()
        #expect(
            try await fixture.sql(
                """
                SELECT count(*) FILTER (WHERE id <= 100 AND u = CASE WHEN id % 2 = 1 THEN id + 1 ELSE id - 1 END),
                  count(*) FILTER (WHERE id BETWEEN 152 AND 201 AND u = id - 1), count(*), bool_or(id = 1000 AND u = 120) FROM t
                """) == "100|50|200|t")
        try await fixture.end()
    }

    /// Swaps pairs of unique values the way that only a constraint looked at later allows.
    private static func swap(_ pairs: Int, in writer: inout BatchWriter) {
        for row in stride(from: 1, to: 2 * pairs, by: 2) {
            writer.update(1, [.text("\(row)"), .text("\(row + 1)")])
            writer.update(1, [.text("\(row + 1)"), .text("\(row)")])
        }
    }

    /// Gives rows other keys.
    private static func move(_ count: Int, in writer: inout BatchWriter) {
        for row in 150..<(150 + count) {
            writer.update(1, [.text("\(row + 1_000)"), .text("\(row)")], old: [.text("\(row)"), .absent])
        }
    }

    @Test("P24 P25 a column that the target gets while the applier runs keeps its values in rows that are put back")
    func columnAdded() async throws {
        for (pairs, moves) in [(2, 0), (60, 0), (0, 2), (0, 45)] {
            let fixture = try await TargetFixture(
                "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE); INSERT INTO t SELECT i, i FROM generate_series(1, 200) i",
                tables: ["t"])
            try await fixture.begin()
            var writer = BatchWriter(relations: [relation(1, "t", [("id", "integer"), ("u", "integer")])])
            let applier = try await fixture.openApplier()
            for size in [1, Self.many] {
                writer.begin()
                for _ in 0..<size { writer.update(1, ["200", "200"]) }
                writer.commit()
                try await applier.apply(writer.take())
            }
            try await fixture.cluster.psql(fixture.url, "ALTER TABLE t ADD own text; UPDATE t SET own = 'own' || u")
            writer.begin()
            Self.swap(pairs, in: &writer)
            Self.move(moves, in: &writer)
            writer.commit()
            try await applier.apply(writer.take())
            // Behind it all goes on.
            writer.begin()
            Self.swap(max(1, pairs), in: &writer)
            writer.commit()
            try await applier.apply(writer.take())
            await applier.close()
            #expect(
                try await fixture.sql(
                    """
                    SELECT count(*), count(own), count(*) FILTER (WHERE id <= \(2 * max(1, pairs)) AND u = CASE WHEN id % 2 = 1 THEN id + 1 ELSE id - 1 END),
                      count(*) FILTER (WHERE id > 1000 AND own = 'own' || u AND u = id - 1000) FROM t
                    """) == "200|200|\(2 * max(1, pairs))|\(moves)", "\(pairs) \(moves)")
            try await fixture.end()
        }
    }

    @Test("P24 a table that gets another shape within a transaction of several batches sends it back to its beginning")
    func columnAddedWithin() async throws {
        let fixture = try await TargetFixture(
            """
            CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE); INSERT INTO t SELECT i, i FROM generate_series(1, 200) i;
            CREATE TABLE other (id int PRIMARY KEY)
            """, tables: ["t", "other"])
        try await fixture.begin()
        let relations = [relation(1, "t", [("id", "integer"), ("u", "integer")]), relation(2, "other", [("id", "integer")])]
        var writer = BatchWriter(relations: relations)
        let applier = try await fixture.openApplier()
        writer.begin()
        writer.update(1, ["200", "200"])
        writer.commit()
        try await applier.apply(writer.take())
        writer.begin()
        writer.insert(2, ["1"])
        let first = writer.take(isPart: true)
        Self.move(50, in: &writer)
        writer.commit()
        let second = writer.take()
        try await applier.apply(first)
        try await fixture.cluster.psql(fixture.url, "ALTER TABLE t ADD own text; UPDATE t SET own = 'own' || u")
        let error = await #expect(throws: BridgeError.self) { try await applier.apply(second) }
        #expect(error?.retry == .backoff, "\(String(describing: error))")
        #expect(error?.context.first { $0.key == .table }?.value == "public.t")
        await applier.close()
        #expect(try await fixture.sql("SELECT count(*) FILTER (WHERE own = 'own' || id AND u = id), count(*) FROM t") == "200|200")
        let again = try await fixture.openApplier()
        try await again.apply(first)
        try await again.apply(second)
        await again.close()
        #expect(try await fixture.sql("SELECT count(own), count(*) FILTER (WHERE id > 1000) FROM t") == "200|50")
        try await fixture.end()
    }

    @Test("P31 an update, a delete and an insert that meet another state are named conflicts")
    func conflicts() async throws {
        let fixture = try await TargetFixture(Self.simpleTable + "; INSERT INTO t VALUES (5, 'here', NULL)", tables: ["t"])
        try await fixture.begin()
        for filler in [0, Self.many] {
            let changes: [(inout BatchWriter) -> Void] = [
                { $0.update(1, ["77", "x", "y"]) },
                { $0.delete(1, ["77", .absent, .absent]) },
                { $0.insert(1, ["5", "there", nil]) },
            ]
            for change in changes {
                var writer = BatchWriter(relations: [Self.simple])
                for row in 0..<filler {
                    writer.begin()
                    writer.insert(1, [.text("\(1_000 + row)"), nil, nil])
                    writer.commit()
                }
                writer.begin()
                change(&writer)
                let position = writer.position
                writer.commit()
                writer.begin()
                writer.commit()
                let applier = try await fixture.openApplier()
                let error = await #expect(throws: BridgeError.self) { try await applier.apply(writer.take()) }
                #expect(error?.code == .conflict)
                #expect(error?.context.first { $0.key == .table }?.value == "public.t")
                #expect(error?.context.first { $0.key == .position }?.value == position.storedForm)
                #expect(error.map { "\($0)".contains("77") || "\($0)".contains("there") } == false)
                await applier.close()
            }
        }
        #expect(try await fixture.sql("TABLE t") == "5|here|")
        try await fixture.end()
    }

    @Test("P11 a truncate of several tables is one statement between what comes before and after")
    func truncate() async throws {
        let fixture = try await TargetFixture(
            """
            CREATE TABLE parent (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY);
            CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)
            """, tables: ["parent", "child"])
        try await fixture.begin()
        let relations = [
            relation(1, "parent", [("id", "integer")]), relation(2, "child", [("id", "integer"), ("parent", "integer")]),
        ]
        for rows in [3, Self.many] {
            var writer = BatchWriter(relations: relations, lsn: UInt64(rows) * 1_000)
            writer.begin()
            for row in 0..<rows { writer.insert(1, [.text("\(100 + row)")]) }
            writer.insert(2, ["1", "1"])
            writer.truncate([1, 2], .restartIdentity)
            writer.insert(1, ["7"])
            writer.insert(2, ["8", "7"])
            writer.commit()
            writer.begin()
            writer.truncate([1, 2], [.cascade])
            writer.insert(1, ["9"])
            writer.commit()
            let applier = try await fixture.openApplier()
            try await applier.apply(writer.take())
            await applier.close()
            #expect(try await fixture.sql("SELECT (SELECT array_agg(id) FROM parent), (SELECT count(*) FROM child)") == "{9}|0")
        }
        try await fixture.end()
    }

    @Test("P33 a long exact-order run goes over in bounded pieces")
    func longPipeline() async throws {
        let fixture = try await TargetFixture("CREATE TABLE t (id int, u int UNIQUE, big text)", tables: ["t"])
        try await fixture.begin()
        // The target has no unique index on the key: every update takes the exact order.
        let described = relation(1, "t", [("id", "integer"), ("u", "integer"), ("big", "text")])
        try await fixture.cluster.psql(fixture.url, "CREATE INDEX ON t (id)")
        let big = String(repeating: "z", count: 3_000)
        var writer = BatchWriter(relations: [described])
        writer.begin()
        for row in 0..<3_000 { writer.insert(1, [.text("\(row)"), .text("\(row)"), .text(big)]) }
        for row in 0..<3_000 { writer.update(1, [.text("\(row)"), .text("\(row + 10_000)"), .unchanged]) }
        writer.commit()
        let applier = try await fixture.openApplier()
        try await applier.apply(writer.take())
        await applier.close()
        #expect(try await fixture.sql("SELECT count(*), min(u - id), max(u - id), min(length(big)) FROM t") == "3000|10000|10000|3000")
        try await fixture.end()
    }

    @Test("S12 sources that log keys: swaps, stale holders of a unique value, removes of rows that are not there")
    func states() async throws {
        for filler in [0, Self.many] {
            let fixture = try await TargetFixture(
                """
                CREATE TABLE t (id bigint PRIMARY KEY, u text, f boolean, r double precision, b bytea);
                CREATE UNIQUE INDEX ON t (lower(u)) WHERE f;
                INSERT INTO t SELECT i, 'v' || i, true, i, NULL FROM generate_series(1, 300) i
                """, tables: [(TableName(name: "t"), TargetFixture.name("t"))], form: .canonical)
            try await fixture.begin()
            let described = relation(
                1, "t", [("id", "bigint"), ("u", "text"), ("f", "boolean"), ("r", "double precision"), ("b", "bytea")],
                form: .canonical, schema: nil)
            var writer = BatchWriter(relations: [described])
            let applier = try await fixture.openApplier()
            writer.begin()
            for row in 0..<filler { writer.upsert(1, [.integer(Int64(1_000 + row)), .string("f\(row)"), 1, .real(0.1), .blob([0, 255])]) }
            writer.upsert(1, [1, .string("v2"), 1, .real(1e300), .blob([])])
            writer.upsert(1, [2, .string("v1"), 1, .real(-0.0), nil])
            // Row 3 holds V3 on the target still; its own record comes in the next part.
            writer.upsert(1, [500, .string("V3"), 1, .real(.infinity), nil])
            writer.remove(1, [9_999, .absent, .absent, .absent, .absent])
            writer.remove(1, [4, .absent, .absent, .absent, .absent])
            try await applier.apply(writer.take(isPart: true))
            writer.upsert(1, [3, .string("moved"), 0, nil, nil])
            writer.commit()
            try await applier.apply(writer.take())
            await applier.close()
            #expect(
                try await fixture.sql("SELECT id, u, f, r, b FROM t WHERE id < 6 OR id = 500 ORDER BY id")
                    == "1|v2|t|1e+300|\\x\n2|v1|t|-0|\n3|moved|f||\n5|v5|t|5|\n500|V3|t|Infinity|")
            #expect(try await fixture.sql("SELECT count(*) FROM t") == "\(300 + filler)")
            try await fixture.end()
        }
    }
}

import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

/// What the applier does with each kind of change, against a real server.
@Suite("PostgreSQL target: apply")
struct ApplyTests {
    private static let simple = relation(1, "t", [("id", "integer"), ("v", "text"), ("big", "text")])
    private static let simpleTable = "CREATE TABLE t (id int PRIMARY KEY, v text, big text)"

    /// Rows enough that a batch is applied set-wise.
    private static let many = 100

    private func expect(
        _ code: ErrorCode, table: String = "public.t", _ fixture: TargetFixture, _ batch: ChangeBatch,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let before = try await fixture.checkpoint()
        let applier = try await fixture.openApplier()
        let error = await #expect(throws: BridgeError.self, sourceLocation: sourceLocation) {
            try await applier.apply(batch)
        }
        await applier.close()
        #expect(error?.code == code, "\(String(describing: error))", sourceLocation: sourceLocation)
        #expect(error?.context.first { $0.key == .table }?.value == table, sourceLocation: sourceLocation)
        #expect(try await fixture.checkpoint() == before, sourceLocation: sourceLocation)
    }

    @Test("P24 the checkpoint moves with the data, and what it has passed is not applied again")
    func checkpoint() async throws {
        let fixture = try await TargetFixture(Self.simpleTable, tables: ["t"])
        try await fixture.begin()
        for rows in [1, Self.many] {
            var writer = BatchWriter(relations: [Self.simple], lsn: UInt64(rows) * 10_000)
            writer.begin()
            for row in 0..<rows { writer.insert(1, [.text("\(rows * 1_000 + row)"), "a", nil]) }
            writer.commit()
            let batch = writer.take()
            let applier = try await fixture.openApplier()
            try await applier.apply(batch)
            await applier.close()
            #expect(try await fixture.checkpoint() == batch.checkpoint)
            // A session that was handed the batch again, because its checkpoint was read too early, passes over it.
            let second = try await fixture.openApplier()
            try await second.apply(batch)
            await second.close()
            #expect(try await fixture.checkpoint() == batch.checkpoint)
        }
        #expect(try await fixture.sql("SELECT count(*), count(DISTINCT id) FROM t") == "101|101")
        try await fixture.end()
    }

    @Test("P24 a second applier of the same link is refused")
    func exclusive() async throws {
        let fixture = try await TargetFixture(Self.simpleTable, tables: ["t"])
        try await fixture.begin()
        let first = try await fixture.openApplier()
        let error = await #expect(throws: BridgeError.self) { _ = try await fixture.openApplier() }
        #expect(error?.code == .alreadyRunning)
        await first.close()
        await (try fixture.openApplier()).close()
        try await fixture.end()
    }

    @Test("P24 P16 a transaction in parts is seen whole or not at all")
    func parts() async throws {
        let fixture = try await TargetFixture(Self.simpleTable, tables: ["t"])
        try await fixture.begin()
        let applier = try await fixture.openApplier()
        var writer = BatchWriter(relations: [Self.simple])
        writer.begin()
        for part in 0..<5 {
            for row in 0..<200 { writer.insert(1, [.text("\(part * 200 + row)"), .text("part \(part)"), "big"]) }
            // Rows of earlier parts change and go.
            if part > 0 {
                for row in 0..<50 { writer.update(1, [.text("\((part - 1) * 200 + row)"), "changed", .unchanged]) }
                for row in 50..<80 { writer.delete(1, [.text("\((part - 1) * 200 + row)"), .absent, .absent]) }
            }
            try await applier.apply(writer.take(isPart: true))
            #expect(try await fixture.sql("SELECT count(*) FROM t") == "0")
        }
        try await applier.rollback()
        #expect(try await fixture.sql("SELECT count(*) FROM t") == "0")
        writer = BatchWriter(relations: [Self.simple])
        writer.begin()
        for part in 0..<3 {
            for row in 0..<200 { writer.insert(1, [.text("\(part * 200 + row)"), "v", "big"]) }
            try await applier.apply(writer.take(isPart: true))
        }
        writer.update(1, ["7", "last", .unchanged])
        writer.commit()
        try await applier.apply(writer.take())
        #expect(try await fixture.sql("SELECT count(*), count(*) FILTER (WHERE v = 'last' AND big = 'big') FROM t") == "600|1")
        await applier.close()
        try await fixture.end()
    }

    @Test("P12 unchanged values survive updates, key changes and a key change of a row the batch does not know")
    func unchanged() async throws {
        for filler in [0, Self.many] {
            let fixture = try await TargetFixture(
                Self.simpleTable + "; INSERT INTO t VALUES (1, 'a', 'one'), (2, 'b', 'two'), (3, 'c', 'three')", tables: ["t"])
            try await fixture.begin()
            var writer = BatchWriter(relations: [Self.simple])
            writer.begin()
            for row in 0..<filler { writer.insert(1, [.text("\(1_000 + row)"), nil, nil]) }
            writer.update(1, ["1", "a2", .unchanged])
            writer.update(1, ["2", .unchanged, "TWO"])
            writer.update(1, ["2", "b2", .unchanged])
            // The row's third column is only on the target.
            writer.update(1, ["30", "c2", .unchanged], old: ["3", .absent, .absent])
            // A key whose value is stored out of line is named by the old row.
            writer.update(1, [.unchanged, "a3", .unchanged], old: ["1", .absent, .absent])
            writer.insert(1, ["4", "d", "four"])
            writer.update(1, ["40", .unchanged, .unchanged], old: ["4", .absent, .absent])
            writer.commit()
            let applier = try await fixture.openApplier()
            try await applier.apply(writer.take())
            await applier.close()
            #expect(
                try await fixture.sql("SELECT id, v, big FROM t WHERE id < 1000 ORDER BY id")
                    == "1|a3|one\n2|b2|TWO\n30|c2|three\n40|d|four")
            try await fixture.end()
        }
    }

    @Test("P12 P25 values left out by a later image come from an earlier one of the same batch, set-wise")
    func carriedForward() async throws {
        let fixture = try await TargetFixture(
            Self.simpleTable + "; INSERT INTO t SELECT i, 'v', 'big' FROM generate_series(1, 300) i", tables: ["t"])
        try await fixture.begin()
        var writer = BatchWriter(relations: [Self.simple])
        writer.begin()
        for row in 1...100 {
            writer.update(1, [.text("\(row)"), .unchanged, "new big"])
            writer.update(1, [.text("\(row)"), "new v", .unchanged])
        }
        for row in 101...200 { writer.update(1, [.text("\(row)"), "new v", .unchanged]) }
        for row in 201...250 { writer.update(1, [.text("\(row)"), .unchanged, "new big"]) }
        for row in 251...300 { writer.delete(1, [.text("\(row)"), .absent, .absent]) }
        for row in 251...260 { writer.insert(1, [.text("\(row)"), "again", nil]) }
        // A row of this batch takes another key and keeps what it was inserted with.
        writer.insert(1, ["500", "inserted", "with"])
        writer.update(1, ["501", .unchanged, .unchanged], old: ["500", .absent, .absent])
        writer.insert(1, ["600", "comes", "and goes"])
        writer.delete(1, ["600", .absent, .absent])
        writer.commit()
        let applier = try await fixture.openApplier()
        try await applier.apply(writer.take())
        await applier.close()
        let seen = try await fixture.sql("SELECT v, big, count(*), min(id) FROM t GROUP BY v, big ORDER BY min(id)")
        #expect(seen == "new v|new big|100|1\nnew v|big|100|101\nv|new big|50|201\nagain||10|251\ninserted|with|1|501")
        try await fixture.end()
    }

    @Test("P12 a value that the stream lacks is an error, not a guess")
    func missingValue() async throws {
        let fixture = try await TargetFixture(Self.simpleTable, tables: ["t"])
        try await fixture.begin()
        for filler in [0, Self.many] {
            var writer = BatchWriter(relations: [Self.simple])
            writer.begin()
            for row in 0..<filler { writer.insert(1, [.text("\(1_000 + row)"), nil, nil]) }
            writer.insert(1, ["1", "a", .unchanged])
            writer.commit()
            try await expect(.valueMissing, fixture, writer.take())
        }
        try await fixture.end()
    }

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

    @Test("P13 a whole row with NULL is not matched with a composite value whose fields are NULL")
    func wholeRowsComposite() async throws {
        let fixture = try await TargetFixture(
            """
            CREATE TYPE pair AS (a int, b text); CREATE TABLE t (a int, c pair, n int);
            INSERT INTO t VALUES (1, (NULL, NULL), NULL), (1, NULL, NULL), (1, (2, NULL), NULL), (2, (NULL, NULL), NULL), (2, NULL, NULL)
            """, tables: ["t"])
        try await fixture.begin()
        let described = relation(1, "t", .full, key: [], [("a", "integer"), ("c", "public.pair"), ("n", "integer")])
        var writer = BatchWriter(relations: [described])
        writer.begin()
        writer.delete(1, ["1", nil, nil], kind: .full)
        writer.update(1, ["2", nil, "7"], old: ["2", nil, nil], kind: .full)
        writer.update(1, ["1", "(3,)", nil], old: ["1", "(2,)", nil], kind: .full)
        writer.commit()
        let applier = try await fixture.openApplier()
        try await applier.apply(writer.take())
        await applier.close()
        #expect(try await fixture.sql("SELECT a, c, n FROM t ORDER BY a, c::text, n") == "1|(,)|\n1|(3,)|\n2|(,)|\n2||7")
        try await fixture.end()
    }

    @Test("P13 without a key whole rows are matched, NULL with NULL, types without equality by text, one of several")
    func wholeRows() async throws {
        let fixture = try await TargetFixture(
            """
            CREATE TABLE t (a int, j json, p point, n numeric, s text);
            INSERT INTO t VALUES (1, '{"x": 1}', '(1,2)', 1.0, NULL), (1, '{"x": 1}', '(1,2)', 1.0, NULL),
              (1, '{"x": 1}', '(1,2)', 1.00, NULL), (1, '{"x":1}', '(1,2)', 1.0, NULL), (NULL, NULL, NULL, NULL, NULL)
            """, tables: ["t"])
        try await fixture.begin()
        let described = relation(
            1, "t", .full, key: [], [("a", "integer"), ("j", "json"), ("p", "point"), ("n", "numeric"), ("s", "text")])
        var writer = BatchWriter(relations: [described])
        writer.begin()
        writer.delete(1, ["1", "{\"x\": 1}", "(1,2)", "1.0", nil], kind: .full)
        writer.update(
            1, ["2", .unchanged, "(1,2)", "1.00", "new"], old: ["1", "{\"x\": 1}", "(1,2)", "1.00", nil], kind: .full)
        writer.delete(1, [nil, nil, nil, nil, nil], kind: .full)
        writer.insert(1, [nil, nil, nil, "NaN", "x"])
        writer.commit()
        let applier = try await fixture.openApplier()
        try await applier.apply(writer.take())
        let seen = try await fixture.sql("SELECT a, j, p, n, s FROM t ORDER BY a, n::text, j::text COLLATE \"C\", s")
        #expect(
            seen
                == "1|{\"x\": 1}|(1,2)|1.0|\n1|{\"x\":1}|(1,2)|1.0|\n2|{\"x\": 1}|(1,2)|1.00|new\n|||NaN|x")
        writer = BatchWriter(relations: [described], lsn: 50_000)
        writer.begin()
        writer.delete(1, ["1", "{\"x\":  1}", "(1,2)", "1.0", nil], kind: .full)
        writer.commit()
        let error = await #expect(throws: BridgeError.self) { try await applier.apply(writer.take()) }
        #expect(error?.code == .conflict)
        await applier.close()
        try await fixture.end()
    }

    @Test("P13 a table without replica identity takes inserts; an update of it is refused")
    func nothing() async throws {
        let fixture = try await TargetFixture("CREATE TABLE t (a int, b text)", tables: ["t"])
        try await fixture.begin()
        let described = relation(1, "t", .nothing, key: [], [("a", "integer"), ("b", "text")])
        let applier = try await fixture.openApplier()
        for rows in [3, Self.many] {
            var writer = BatchWriter(relations: [described], lsn: UInt64(rows) * 1_000)
            writer.begin()
            for row in 0..<rows { writer.insert(1, [.text("\(row)"), "tab\tnew\nline\\N"]) }
            writer.commit()
            try await applier.apply(writer.take())
        }
        await applier.close()
        #expect(try await fixture.sql("SELECT count(*) FROM t WHERE b = E'tab\\tnew\\nline\\\\N'") == "103")
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

    @Test("P9 P10 columns map by name per relation, and a column that the target lacks stops the link by name")
    func schemaChange() async throws {
        let fixture = try await TargetFixture("CREATE TABLE t (b text, a text, id int PRIMARY KEY)", tables: ["t"])
        try await fixture.begin()
        let first = relation(1, "t", [("id", "integer"), ("a", "text")])
        let second = relation(1, "t", [("id", "integer"), ("b", "text"), ("a", "text")])
        let third = relation(1, "t", [("id", "integer"), ("b", "text"), ("new", "text")])
        var writer = BatchWriter(relations: [first])
        writer.begin()
        writer.insert(1, ["1", "a1"])
        writer.describe(second)
        writer.insert(1, ["2", "b2", "a2"])
        writer.update(1, ["1", "b1", .unchanged])
        writer.commit()
        let applier = try await fixture.openApplier()
        try await applier.apply(writer.take())
        #expect(try await fixture.sql("SELECT id, a, b FROM t ORDER BY id") == "1|a1|b1\n2|a2|b2")
        writer.begin()
        writer.describe(third)
        writer.insert(1, ["3", "b3", "n3"])
        writer.commit()
        let batch = writer.take()
        let error = await #expect(throws: BridgeError.self) { try await applier.apply(batch) }
        #expect(error?.code == .schemaChanged)
        #expect(error?.context.first { $0.key == .column }?.value == "new")
        #expect(error?.context.first { $0.key == .table }?.value == "public.t")
        await applier.close()
        // Altered, it goes on where it stopped.
        try await fixture.cluster.psql(fixture.url, "ALTER TABLE t ADD COLUMN new text")
        let next = try await fixture.openApplier()
        try await next.apply(batch)
        await next.close()
        #expect(try await fixture.sql("SELECT id, a, b, new FROM t WHERE id = 3") == "3||b3|n3")
        try await fixture.end()
    }

    @Test("P28 P29 identity and generated columns, hostile names, another schema, a column of the target's own")
    func hostile() async throws {
        let table = "We\"ird; DROP TABLE x --"
        let column = "a b\"c'd"
        for filler in [0, Self.many] {
            let fixture = try await TargetFixture(
                """
                CREATE SCHEMA "Other ""schema";
                CREATE TABLE "Other ""schema"."We""ird; DROP TABLE x --" (own text DEFAULT 'mine', g int, s int,
                  "select" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "a b""c'd" text,
                  twice int GENERATED ALWAYS AS ("select" * 2) STORED)
                """, tables: [(TableName(schema: "public", name: "src"), TableName(schema: "Other \"schema", name: table))])
            try await fixture.begin()
            let described = relation(
                1, "src", key: ["select"], [("select", "integer"), (column, "text"), ("g", "integer"), ("s", "integer")])
            var writer = BatchWriter(relations: [described])
            writer.begin()
            for row in 0..<filler { writer.insert(1, [.text("\(1_000 + row)"), nil, nil, nil]) }
            writer.insert(1, ["1", "one", "1", nil])
            writer.insert(1, ["2", "two", "2", nil])
            writer.commit()
            let applier = try await fixture.openApplier()
            try await applier.apply(writer.take())
            let name = "\"Other \"\"schema\".\"We\"\"ird; DROP TABLE x --\""
            try await fixture.cluster.psql(fixture.url, "UPDATE \(name) SET own = 'kept'")
            writer.begin()
            for row in 0..<filler { writer.update(1, [.text("\(1_000 + row)"), "u", nil, nil]) }
            writer.update(1, ["20", .unchanged, "3", nil], old: ["2", .absent, .absent, .absent])
            writer.update(1, ["1", "uno", "1", nil])
            writer.commit()
            try await applier.apply(writer.take())
            await applier.close()
            #expect(
                try await fixture.sql(
                    "SELECT \"select\", \"a b\"\"c'd\", g, twice, own FROM \(name) WHERE \"select\" < 100 ORDER BY 1")
                    == "1|uno|1|2|kept\n20|two|3|40|kept")
            try await fixture.end()
        }
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

    @Test("S16 values that do not fit are refused with table and column, whatever way they take")
    func values() async throws {
        let fixture = try await TargetFixture(
            """
            CREATE TABLE t (id bigint PRIMARY KEY, b boolean, i integer, f double precision, g real, n numeric(10,2), s text,
              v varchar(3), ts timestamptz, x bytea)
            """, tables: [(TableName(name: "t"), TargetFixture.name("t"))], form: .canonical)
        try await fixture.begin()
        let names = ["b", "i", "f", "g", "n", "s", "v", "ts", "x"]
        let described = relation(
            1, "t",
            [("id", "bigint"), ("b", "boolean"), ("i", "integer"), ("f", "double precision"), ("g", "real"), ("n", "numeric"),
                ("s", "text"), ("v", "text"), ("ts", "timestamp with time zone"), ("x", "bytea")],
            form: .canonical, schema: nil)
        let bad: [(String, TestCell)] = [
            ("b", 2), ("b", .string("true")), ("i", 3_000_000_000), ("i", .real(1)), ("i", .string("1")),
            ("f", .integer(1 << 53 + 1)), ("g", .real(0.1)), ("n", .string("1.239")), ("n", .string("1e3")), ("s", 5),
            ("s", .string([0x61, 0])), ("s", .string([0xC3, 0x28])), ("s", .blob([1])), ("v", .string("abc ")),
            ("ts", .string("now")), ("ts", .string("1/2/2024")), ("x", .string("text")),
        ]
        for (column, cell) in bad {
            for filler in [0, Self.many] {
                var writer = BatchWriter(relations: [described])
                writer.begin()
                for row in 0..<filler { writer.upsert(1, [.integer(Int64(100 + row))] + names.map { _ in nil }) }
                writer.upsert(1, [1] + names.map { $0 == column ? cell : nil })
                writer.commit()
                let applier = try await fixture.openApplier()
                let error = await #expect(throws: BridgeError.self) { try await applier.apply(writer.take()) }
                #expect(error?.code == .valueDoesNotFit, "\(column) \(cell)")
                #expect(error?.context.first { $0.key == .column }?.value == column, "\(column) \(cell)")
                await applier.close()
            }
        }
        var writer = BatchWriter(relations: [described])
        writer.begin()
        let good: [TestCell] = [
            1, 1, -2_147_483_648, .integer(1 << 53), .real(0.5), .string("12345678.10"), .string("ü\t\\N\n"), .string("äöü"),
            .string("2024-01-02 03:04:05.000001Z"), .blob([0, 1, 254]),
        ]
        writer.upsert(1, good)
        for row in 2..<150 { writer.upsert(1, [.integer(Int64(row))] + good.dropFirst()) }
        writer.commit()
        let applier = try await fixture.openApplier()
        try await applier.apply(writer.take())
        await applier.close()
        let seen = try await fixture.sql(
            "SELECT DISTINCT b, i, f, g, n, s = E'ü\\t\\\\N\\n', v, ts AT TIME ZONE 'UTC', x FROM t")
        #expect(
            seen == "t|-2147483648|9.007199254740992e+15|0.5|12345678.10|t|äöü|2024-01-02 03:04:05.000001|\\x0001fe")
        try await fixture.end()
    }

    @Test("P24 the applier's writes carry the link's replication origin and fire no triggers")
    func origin() async throws {
        let fixture = try await TargetFixture(
            Self.simpleTable + """
                ; CREATE TABLE fired (n int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO fired VALUES (1); RETURN NEW; END $$;
                CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()
                """, tables: ["t"])
        try await fixture.cluster.psql(
            fixture.url, "SELECT pg_create_logical_replication_slot('\(fixture.link.identifier)', 'test_decoding')")
        try await fixture.begin()
        var writer = BatchWriter(relations: [Self.simple])
        writer.begin()
        writer.insert(1, ["1", "a", nil])
        writer.commit()
        let applier = try await fixture.openApplier()
        try await applier.apply(writer.take())
        await applier.close()
        #expect(try await fixture.sql("SELECT count(*) FROM fired") == "0")
        #expect(
            try await fixture.sql(
                """
                SELECT count(*) FILTER (WHERE data LIKE 'table public.t:%') FROM pg_logical_slot_peek_changes(
                  '\(fixture.link.identifier)', NULL, NULL, 'only-local', '1')
                """) == "0")
        #expect(
            try await fixture.sql(
                """
                SELECT count(*) FILTER (WHERE data LIKE 'table public.t:%') FROM pg_logical_slot_peek_changes(
                  '\(fixture.link.identifier)', NULL, NULL)
                """) == "1")
        try await fixture.cluster.psql(fixture.url, "SELECT pg_drop_replication_slot('\(fixture.link.identifier)')")
        try await fixture.end()
    }

    @Test("P24 a batch's error leaves the session ready for the next batch")
    func recovers() async throws {
        let fixture = try await TargetFixture(Self.simpleTable, tables: ["t"])
        try await fixture.begin()
        let applier = try await fixture.openApplier()
        for rows in [1, Self.many] {
            var writer = BatchWriter(relations: [Self.simple], lsn: UInt64(rows) * 10_000)
            writer.begin()
            for row in 0..<rows { writer.insert(1, [.text("\(rows * 1_000 + row)"), "a", nil]) }
            writer.update(1, ["-1", "x", nil])
            writer.commit()
            let bad = writer.take()
            let error = await #expect(throws: BridgeError.self) { try await applier.apply(bad) }
            #expect(error?.code == .conflict)
            writer = BatchWriter(relations: [Self.simple], lsn: UInt64(rows) * 10_000)
            writer.begin()
            for row in 0..<rows { writer.insert(1, [.text("\(rows * 1_000 + row)"), "a", nil]) }
            writer.commit()
            try await applier.apply(writer.take())
        }
        await applier.close()
        #expect(try await fixture.sql("SELECT count(*) FROM t") == "101")
        try await fixture.end()
    }

    @Test("P24 a server that dies around COMMIT leaves the batch applied once, with its checkpoint")
    func crash() async throws {
        let fixture = try await TargetFixture(Self.simpleTable, tables: ["t"])
        try await fixture.begin()
        var random = SeededGenerator(seed: 42)
        var lsn: UInt64 = 1_000
        var expected = 0
        for round in 0..<12 {
            let applier = try await fixture.openApplier()
            let checkpoint = try await fixture.checkpoint()
            lsn = max(lsn, checkpoint?.position.commit ?? 0)
            var writer = BatchWriter(relations: [Self.simple], lsn: lsn)
            writer.begin()
            let rows = round % 2 == 0 ? 5 : 500
            for row in 0..<rows { writer.insert(1, [.text("\(round * 1_000 + row)"), "a", nil]) }
            writer.commit()
            let batch = writer.take()
            let delay = Int.random(in: 0..<8, using: &random)
            async let killed: String = fixture.sql(
                """
                SELECT pg_sleep(\(Double(delay) / 1_000)), pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name LIKE 'bridge apply \(fixture.link.name)%'
                """)
            do throws(BridgeError) { try await applier.apply(batch) } catch {
                #expect(error.code == .connectionLost, "\(error)")
            }
            _ = try await killed
            await applier.close()
            // The same batch again, as a new session gets it: applied now if it was not then.
            let again = try await fixture.openApplier()
            try await again.apply(batch)
            await again.close()
            expected += rows
            lsn = writer.position.commit
            #expect(try await fixture.checkpoint() == batch.checkpoint)
            #expect(try await fixture.sql("SELECT count(*) FROM t") == "\(expected)")
        }
        try await fixture.end()
    }
}

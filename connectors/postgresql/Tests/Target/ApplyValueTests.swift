import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

/// What the applier does with values and columns of all kinds, against a real server.
@Suite("PostgreSQL target: apply values and columns")
struct ApplyValueTests: ApplySuite {
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

    @Test("S16 values that do not fit are refused with table and column, whatever way they take")
    func values() async throws {
        let fixture = try await TargetFixture(
            """
            CREATE TABLE t (id bigint PRIMARY KEY, b boolean, i integer, f double precision, g real, n numeric(20,2), s text,
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
            ("n", .real(1.239)), ("n", .real(1e-7)),
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
        // A double whose shortest form has an exponent.
        writer.upsert(1, [1_000] + names.map { $0 == "n" ? .real(1e16) : nil })
        writer.commit()
        let applier = try await fixture.openApplier()
        try await applier.apply(writer.take())
        await applier.close()
        let seen = try await fixture.sql(
            "SELECT DISTINCT b, i, f, g, n, s = E'ü\\t\\\\N\\n', v, ts AT TIME ZONE 'UTC', x FROM t WHERE id < 1000")
        #expect(
            seen == "t|-2147483648|9.007199254740992e+15|0.5|12345678.10|t|äöü|2024-01-02 03:04:05.000001|\\x0001fe")
        #expect(try await fixture.sql("SELECT n FROM t WHERE id = 1000") == "10000000000000000.00")
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
}

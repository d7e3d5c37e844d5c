import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

/// What the applier does with tables whose rows no key names, against a real server.
@Suite("PostgreSQL target: apply without a key")
struct ApplyWholeRowTests: ApplySuite {
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

    @Test("P13 P15 whole rows that a column's collation takes for the same are told apart, in arrays too")
    func wholeRowsCollation() async throws {
        let fixture = try await TargetFixture(
            """
            CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
            CREATE TABLE t (a text COLLATE loose, b text[] COLLATE loose);
            INSERT INTO t VALUES ('x', '{y}'), ('X', '{y}'), ('x', '{Y}'), ('X', '{Y}')
            """, tables: ["t"])
        try await fixture.begin()
        let described = relation(1, "t", .full, key: [], [("a", "text"), ("b", "text[]")])
        var writer = BatchWriter(relations: [described])
        writer.begin()
        writer.delete(1, ["X", "{y}"], kind: .full)
        writer.update(1, ["z", "{y}"], old: ["x", "{Y}"], kind: .full)
        writer.delete(1, ["X", "{Y}"], kind: .full)
        writer.commit()
        let applier = try await fixture.openApplier()
        try await applier.apply(writer.take())
        await applier.close()
        #expect(try await fixture.sql("SELECT * FROM t ORDER BY a") == "x|{y}\nz|{y}")
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
}

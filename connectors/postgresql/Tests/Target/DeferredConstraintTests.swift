import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

/// Constraints that the source or the target checks at commit only, against a real server.
@Suite("PostgreSQL target: deferrable constraints")
struct DeferredConstraintTests: ApplySuite {
    private static let described = relation(1, "t", [("id", "integer"), ("a", "integer"), ("b", "text")])

    /// What the constraint says, and a row that clashes with the row (1, 1, 'x').
    private static let constraints: [(definition: String, clash: [TestCell])] = [
        ("UNIQUE (a) DEFERRABLE", ["2", "1", "y"]),
        ("UNIQUE (a, b) DEFERRABLE INITIALLY DEFERRED", ["2", "1", "x"]),
        ("EXCLUDE USING btree (a WITH =, lower(b) WITH =) WHERE (a > 0) DEFERRABLE", ["2", "1", "X"]),
        ("EXCLUDE USING gist (int4range(a, a + 10) WITH &&) DEFERRABLE", ["2", "8", "y"]),
    ]

    @Test("P26 two rows that a deferrable constraint of the target forbids are a named conflict, whatever way they take")
    func duplicates() async throws {
        for (definition, clash) in Self.constraints {
            let fixture = try await TargetFixture(
                """
                CREATE TABLE t (id int PRIMARY KEY, a int, b text, own int DEFAULT 7, CONSTRAINT "de""ferred" \(definition));
                INSERT INTO t VALUES (1, 1, 'x'), (3, -500, 'z')
                """, tables: ["t"])
            try await fixture.begin()
            for filler in [0, Self.many] {
                let changes: [(inout BatchWriter) -> Void] = [
                    { $0.insert(1, clash) },
                    { $0.update(1, ["3"] + clash.dropFirst()) },
                    // Own columns on the target: the exact order.
                    { $0.update(1, clash, old: ["3", .absent, .absent]) },
                ]
                for (number, change) in changes.enumerated() {
                    var writer = BatchWriter(relations: [Self.described])
                    writer.begin()
                    for row in 0..<filler { writer.insert(1, [.text("\(1_000 + row)"), .text("\(-100 * row - 1_000)"), nil]) }
                    change(&writer)
                    writer.commit()
                    let position = writer.position
                    let applier = try await fixture.openApplier()
                    let error = await #expect(throws: BridgeError.self, "\(definition) \(number)") {
                        try await applier.apply(writer.take())
                    }
                    #expect(error?.code == .conflict)
                    #expect(error?.context.first { $0.key == .table }?.value == "public.t")
                    #expect(error?.context.first { $0.key == .detail }?.value == "constraint de\"ferred")
                    #expect(error?.context.first { $0.key == .position }?.value == position.storedForm)
                    await applier.close()
                    #expect(try await fixture.sql("SELECT id, a, b FROM t ORDER BY id") == "1|1|x\n3|-500|z")
                }
            }
            // What clashes in the middle of a transaction only is right, also where a batch ends in between.
            var writer = BatchWriter(relations: [Self.described], lsn: 900_000)
            writer.begin()
            writer.insert(1, clash)
            let applier = try await fixture.openApplier()
            try await applier.apply(writer.take(isPart: true))
            writer.update(1, ["1", "-900", "x"])
            writer.commit()
            try await applier.apply(writer.take())
            #expect(try await fixture.sql("SELECT count(*) FROM t") == "3")
            // And what the first part of a transaction wrote is checked at its end.
            writer.begin()
            writer.update(1, ["1", "1", "x"])
            try await applier.apply(writer.take(isPart: true))
            writer.insert(1, ["50", "-2000", nil])
            writer.commit()
            let error = await #expect(throws: BridgeError.self) { try await applier.apply(writer.take()) }
            #expect(error?.code == .conflict)
            await applier.close()
            #expect(try await fixture.sql("SELECT count(*) FROM t WHERE a = -900") == "1")
            try await fixture.end()
        }
    }

    @Test("P26 a deferrable constraint that the target gets while the applier runs counts from the next batch on")
    func addedLater() async throws {
        let fixture = try await TargetFixture(
            "CREATE TABLE t (id int PRIMARY KEY, a int, b text); INSERT INTO t VALUES (1, 1, 'x')", tables: ["t"])
        try await fixture.begin()
        for filler in [0, Self.many] {
            var writer = BatchWriter(relations: [Self.described], lsn: filler == 0 ? 1_000 : 900_000)
            let applier = try await fixture.openApplier()
            writer.begin()
            for row in 0...filler { writer.insert(1, [.text("\(10_000 + filler + row)"), .text("\(-filler - row - 1)"), nil]) }
            writer.commit()
            try await applier.apply(writer.take())
            try await fixture.cluster.psql(fixture.url, "ALTER TABLE t ADD CONSTRAINT later UNIQUE (a) DEFERRABLE")
            writer.begin()
            for row in 0..<filler { writer.insert(1, [.text("\(20_000 + row)"), .text("\(5_000 + row)"), nil]) }
            writer.insert(1, ["2", "1", "y"])
            writer.commit()
            let error = await #expect(throws: BridgeError.self) { try await applier.apply(writer.take()) }
            #expect(error?.code == .conflict, "\(String(describing: error))")
            #expect(error?.context.first { $0.key == .detail }?.value == "constraint later")
            await applier.close()
            #expect(try await fixture.sql("SELECT count(*) FROM t WHERE a = 1") == "1")
            try await fixture.cluster.psql(fixture.url, "ALTER TABLE t DROP CONSTRAINT later")
        }
        try await fixture.end()
    }

    @Test("P26 NULL clashes with NULL only where the constraint says so")
    func nulls() async throws {
        let fixture = try await TargetFixture(
            """
            CREATE TABLE t (id int PRIMARY KEY, a int, b text, CONSTRAINT u UNIQUE (a) DEFERRABLE);
            CREATE TABLE n (id int PRIMARY KEY, a int, b text, CONSTRAINT u_n UNIQUE NULLS NOT DISTINCT (a, b) DEFERRABLE)
            """, tables: ["t", "n"])
        try await fixture.begin()
        let other = relation(2, "n", [("id", "integer"), ("a", "integer"), ("b", "text")])
        var writer = BatchWriter(relations: [Self.described, other])
        let applier = try await fixture.openApplier()
        writer.begin()
        for row in 0..<3 { writer.insert(1, [.text("\(row)"), nil, "x"]) }
        writer.insert(2, ["1", nil, "x"])
        writer.insert(2, ["2", nil, "y"])
        writer.insert(2, ["3", nil, nil])
        writer.commit()
        try await applier.apply(writer.take())
        for clash: [TestCell] in [["9", nil, "x"], ["9", nil, nil]] {
            writer.begin()
            writer.insert(2, clash)
            writer.commit()
            let error = await #expect(throws: BridgeError.self) { try await applier.apply(writer.take()) }
            #expect(error?.context.first { $0.key == .detail }?.value == "constraint u_n")
        }
        await applier.close()
        #expect(try await fixture.sql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM n)") == "3|3")
        try await fixture.end()
    }

    @Test("P26 P13 rows without a key, and partitions with constraints of their own")
    func keylessAndPartitions() async throws {
        let fixture = try await TargetFixture(
            """
            CREATE TABLE k (a int, b text, PRIMARY KEY (a) DEFERRABLE);
            CREATE TABLE p (id int, a int, b text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
            CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (MINVALUE) TO (100);
            CREATE TABLE p_high PARTITION OF p (CONSTRAINT own UNIQUE (a) DEFERRABLE) FOR VALUES FROM (100) TO (MAXVALUE);
            INSERT INTO k VALUES (1, 'one'), (2, 'two')
            """, tables: ["k", "p"])
        try await fixture.begin()
        let relations = [
            relation(1, "k", .full, key: [], [("a", "integer"), ("b", "text")]),
            relation(2, "p", [("id", "integer"), ("a", "integer"), ("b", "text")]),
        ]
        var writer = BatchWriter(relations: relations)
        let applier = try await fixture.openApplier()
        // A swap of keys, which the source allows inside a transaction.
        writer.begin()
        writer.update(1, ["2", "one"], old: ["1", "one"], kind: .full)
        writer.update(1, ["1", "two"], old: ["2", "two"], kind: .full)
        writer.commit()
        try await applier.apply(writer.take())
        #expect(try await fixture.sql("SELECT * FROM k ORDER BY a") == "1|two\n2|one")
        writer.begin()
        writer.insert(2, ["1", "5", nil])
        writer.insert(2, ["2", "5", nil])
        writer.insert(2, ["101", "5", nil])
        writer.commit()
        try await applier.apply(writer.take())
        let clashes: [(String, (inout BatchWriter) -> Void)] = [
            ("k_pkey", { $0.insert(1, ["1", "again"]) }),
            ("k_pkey", { $0.update(1, ["1", "one"], old: ["2", "one"], kind: .full) }),
            ("own", { $0.insert(2, ["102", "5", nil]) }),
            ("own", { $0.update(2, ["103", "5", nil], old: ["1", .absent, .absent]) }),
        ]
        for (name, change) in clashes {
            writer.begin()
            change(&writer)
            writer.commit()
            let error = await #expect(throws: BridgeError.self) { try await applier.apply(writer.take()) }
            #expect(error?.code == .conflict)
            #expect(error?.context.first { $0.key == .detail }?.value == "constraint \(name)")
        }
        await applier.close()
        #expect(try await fixture.sql("SELECT * FROM k ORDER BY a") == "1|two\n2|one")
        #expect(try await fixture.sql("SELECT count(*) FROM p") == "3")
        try await fixture.end()
    }

    @Test("P26 a copy that brings what a deferrable constraint forbids is not finished")
    func copied() async throws {
        let fixture = try await TargetFixture(
            "CREATE TABLE t (id int PRIMARY KEY, a int, b text, CONSTRAINT u UNIQUE (a) DEFERRABLE)", tables: ["t"])
        _ = try await fixture.target.prepareLink(fixture.link)
        try await fixture.target.recordOrigin(
            fixture.link, CaptureOrigin(identity: ["system": "7"], position: Position(commit: 1)))
        try await fixture.cluster.psql(
            fixture.url,
            """
            SET session_replication_role = replica; INSERT INTO t VALUES (1, 1), (2, 1), (3, NULL), (4, NULL);
            UPDATE _bridge.link_table SET state = 'done'
            """)
        let error = await #expect(throws: BridgeError.self) { try await fixture.target.finishCopy(fixture.link) }
        #expect(error?.code == .conflict)
        #expect(error?.context.first { $0.key == .detail }?.value == "constraint u")
        try await fixture.cluster.psql(fixture.url, "UPDATE t SET a = 2 WHERE id = 2")
        try await fixture.target.finishCopy(fixture.link)
        try await fixture.end()
    }

    @Test("P25 a swap that only a deferrable constraint of the source allows is applied to a target that checks at once")
    func sourceDefers() async throws {
        for filler in [0, Self.many] {
            let fixture = try await TargetFixture(
                """
                CREATE TABLE t (own text DEFAULT 'mine', big text, u int UNIQUE, id int PRIMARY KEY,
                  n int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (u * 2) STORED);
                INSERT INTO t (id, u, big, own) VALUES (1, 1, 'one', 'a'), (2, 2, 'two', 'b'), (3, 3, 'three', 'c'), (4, 4, 'four', 'd')
                """, tables: ["t"])
            try await fixture.begin()
            let described = relation(1, "t", [("id", "integer"), ("u", "integer"), ("big", "text")])
            var writer = BatchWriter(relations: [described])
            writer.begin()
            for row in 0..<filler { writer.insert(1, [.text("\(1_000 + row)"), .text("\(1_000 + row)"), nil]) }
            writer.update(1, ["1", "2", .unchanged])
            writer.update(1, ["2", "3", "TWO"])
            writer.update(1, ["3", "1", .unchanged])
            writer.insert(1, ["5", "4", "five"])
            writer.delete(1, ["4", .absent, .absent])
            writer.commit()
            let applier = try await fixture.openApplier()
            try await applier.apply(writer.take())
            await applier.close()
            #expect(
                try await fixture.sql("SELECT id, u, big, own, twice, n <= 4 FROM t WHERE id < 1000 ORDER BY id")
                    == "1|2|one|a|4|t\n2|3|TWO|b|6|t\n3|1|three|c|2|t\n5|4|five|mine|8|f")
            #expect(try await fixture.sql("SELECT count(*) FROM t") == "\(4 + filler)")
            try await fixture.end()
        }
    }

    @Test("P13 P25 keys that two rows swap at once under identity FULL are never taken one for the other")
    func swappedKeys() async throws {
        for filler in [0, Self.many] {
            let fixture = try await TargetFixture(
                "CREATE TABLE t (id int PRIMARY KEY, a int, b text); INSERT INTO t VALUES (1, 1, 'one'), (2, 2, 'two')",
                tables: ["t"])
            try await fixture.begin()
            let described = relation(1, "t", .full, key: [], [("id", "integer"), ("a", "integer"), ("b", "text")])
            var writer = BatchWriter(relations: [described])
            writer.begin()
            for row in 0..<filler { writer.insert(1, [.text("\(1_000 + row)"), "1", nil]) }
            writer.update(1, ["2", "1", "one"], old: ["1", "1", "one"], kind: .full)
            writer.update(1, ["1", "2", "two"], old: ["2", "2", "two"], kind: .full)
            writer.commit()
            let applier = try await fixture.openApplier()
            let error = await #expect(throws: BridgeError.self) { try await applier.apply(writer.take()) }
            #expect(error?.code == .conflict)
            await applier.close()
            #expect(try await fixture.sql("SELECT * FROM t ORDER BY id") == "1|1|one\n2|2|two")
            try await fixture.end()
        }
    }
}

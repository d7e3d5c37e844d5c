import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

/// Changes that the target's data contradicts, and changes that the target refuses, against a real server.
@Suite("PostgreSQL target: conflicts")
struct ConflictTests: ApplySuite {
    /// `own` is a column that the source does not have.
    private static let table = """
        CREATE TABLE t (id int PRIMARY KEY, v text, u int UNIQUE, own text DEFAULT 'default');
        INSERT INTO t VALUES (5, 'here', 50, 'kept'), (6, 'six', 60, 'kept too'), (7, 'seven', 70, 'kept as well')
        """
    private static var described: Relation { relation(1, "t", [("id", "integer"), ("v", "text"), ("u", "integer")]) }

    private typealias Change = @Sendable (inout BatchWriter) -> Void
    private static let changes: [(kind: ConflictKind, change: Change)] = [
        (.updateFoundNoRow, { $0.update(1, ["77", "secret", "7700"]) }),
        (.deleteFoundNoRow, { $0.delete(1, ["78", .absent, .absent]) }),
        (.insertFoundRow, { $0.insert(1, ["5", "secret", "51"]) }),
        (.keyTaken, { $0.update(1, ["6", "secret", "70"], old: ["7", .absent, .absent]) }),
        (.uniqueValueTaken, { $0.insert(1, ["79", "secret", "50"]) }),
        (.uniqueValueTaken, { $0.update(1, ["6", "secret", "50"]) }),
    ]

    /// One transaction with fillers before and behind the change; its ordinal is the number of fillers before.
    private func writer(filler: Int, _ change: Change) -> BatchWriter {
        var writer = BatchWriter(relations: [Self.described])
        writer.begin()
        for row in 0..<filler { writer.insert(1, [.text("\(1_000 + row)"), nil, nil]) }
        change(&writer)
        for row in 0..<filler { writer.insert(1, [.text("\(5_000 + row)"), nil, nil]) }
        writer.commit()
        return writer
    }

    private func apply(_ batch: ChangeBatch, _ fixture: TargetFixture, _ policy: ConflictPolicy) async throws {
        let applier = try await fixture.target.openApplier(fixture.link, onConflict: policy)
        do { try await applier.apply(batch) } catch {
            await applier.close()
            throw error
        }
        await applier.close()
    }

    private func records(_ fixture: TargetFixture) async throws -> [ConflictRecord] {
        try await fixture.target.conflictHistory(fixture.link, limit: 1_000).newest
    }

    @Test("P31 stop: each kind is named with table, position and place in its transaction, and no value")
    func stop() async throws {
        let fixture = try await TargetFixture(Self.table, tables: ["t"])
        try await fixture.begin()
        for filler in [3, 300] {
            for (kind, change) in Self.changes {
                var writer = writer(filler: filler, change)
                let commit = writer.position.commit
                let error = await #expect(throws: BridgeError.self) { try await apply(writer.take(), fixture, .stop) }
                #expect(error?.conflictKind == kind, "\(filler) \(kind): \(String(describing: error))")
                #expect(error?.changePosition == Position(commit: commit, ordinal: UInt64(filler)), "\(filler) \(kind)")
                #expect(error?.context.first { $0.key == .table }?.value == "public.t")
                #expect(error.map { "\($0)".contains("secret") } == false)
            }
        }
        #expect(try await fixture.sql("SELECT count(*) FROM t") == "3")
        #expect(try await records(fixture).isEmpty)
        try await fixture.end()
    }

    @Test("P31 skip: the change is left out and recorded once, what is around it is applied")
    func skip() async throws {
        for filler in [3, 300] {
            let fixture = try await TargetFixture(Self.table, tables: ["t"])
            try await fixture.begin()
            var lsn = UInt64(1_000)
            var expected: [ConflictRecord.Outcome] = []
            for (number, (kind, change)) in Self.changes.enumerated() {
                var writer = BatchWriter(relations: [Self.described], lsn: lsn)
                writer.begin()
                for row in 0..<filler { writer.insert(1, [.text("\(10_000 * (number + 1) + row)"), nil, nil]) }
                change(&writer)
                writer.update(1, ["5", "here", "50"])
                writer.commit()
                lsn = writer.position.commit
                try await apply(writer.take(), fixture, .skip)
                expected.append(.skipped)
                let found = try await records(fixture)
                #expect(found.map(\.outcome) == expected, "\(filler) \(kind)")
                #expect(found.last?.reason == kind.rawValue)
                #expect(found.last?.position == Position(commit: lsn, ordinal: UInt64(filler)))
            }
            #expect(try await records(fixture).map(\.key) == ["77", "78", "5", "7", "79", "6"].map { "{\"id\":\"\($0)\"}" })
            #expect(try await records(fixture).map(\.change) == ["update", "delete", "insert", "update", "insert", "update"])
            #expect(
                try await fixture.sql("SELECT id, v, u, own FROM t WHERE id < 100 ORDER BY id")
                    == "5|here|50|kept\n6|six|60|kept too\n7|seven|70|kept as well")
            #expect(try await fixture.sql("SELECT count(*) FROM t") == "\(3 + filler * Self.changes.count)")
            try await fixture.end()
        }
    }

    @Test("P31 overwrite: rows become the source's, columns of the target's own stay, and each is recorded")
    func overwrite() async throws {
        for filler in [0, 300] {
            let fixture = try await TargetFixture(Self.table, tables: ["t"])
            try await fixture.begin()
            var writer = BatchWriter(relations: [Self.described])
            writer.begin()
            for row in 0..<filler { writer.insert(1, [.text("\(1_000 + row)"), nil, nil]) }
            writer.insert(1, ["5", "new", "51"])
            writer.update(1, ["77", "made", "77"])
            writer.update(1, ["77", "changed", "78"])
            writer.delete(1, ["78", .absent, .absent])
            // The row moves to a key that another row has: what is the target's own goes with the row that moves.
            writer.update(1, ["6", .unchanged, "66"], old: ["7", .absent, .absent])
            // It was not there, and the key that it takes is.
            writer.update(1, ["77", "moved", "79"], old: ["88", .absent, .absent])
            writer.commit()
            try await apply(writer.take(), fixture, .overwrite)
            #expect(
                try await fixture.sql("SELECT id, v, u, own FROM t WHERE id < 100 ORDER BY id")
                    == "5|new|51|kept\n6|seven|66|kept as well\n77|moved|79|default")
            let found = try await records(fixture)
            #expect(
                found.map(\.reason) == [
                    "insert_found_row", "update_found_no_row", "delete_found_no_row", "key_taken", "update_found_no_row",
                ])
            #expect(found.map(\.position.ordinal) == [0, 1, 3, 4, 5].map { UInt64(filler + $0) })
            #expect(found.allSatisfy { $0.outcome == .overwritten })
            try await fixture.end()
        }
    }

    @Test("P31 P12 overwrite stops where a value is not known, or a row would go that the change does not name")
    func overwriteStops() async throws {
        let changes: [(ConflictKind, Change)] = [
            (.updateFoundNoRow, { $0.update(1, ["77", .unchanged, "7"]) }),
            (.uniqueValueTaken, { $0.insert(1, ["77", "x", "50"]) }),
            (.uniqueValueTaken, { $0.update(1, ["6", "x", "50"]) }),
            (.uniqueValueTaken, { $0.insert(1, ["5", "x", "60"]) }),
            (.uniqueValueTaken, { $0.update(1, ["77", "x", "60"]) }),
        ]
        let fixture = try await TargetFixture(Self.table, tables: ["t"])
        try await fixture.begin()
        let before = try await fixture.sql("SELECT * FROM t ORDER BY id")
        for filler in [0, 300] {
            for (kind, change) in changes {
                var writer = writer(filler: filler, change)
                let error = await #expect(throws: BridgeError.self) { try await apply(writer.take(), fixture, .overwrite) }
                #expect(error?.conflictKind == kind)
                #expect(error?.changePosition?.ordinal == UInt64(filler))
            }
        }
        #expect(try await fixture.sql("SELECT * FROM t ORDER BY id") == before)
        #expect(try await records(fixture).isEmpty)
        try await fixture.end()
    }

    @Test("P31 overwrite leaves rows alone that are not the link's")
    func overwriteFiltered() async throws {
        let fixture = try await TargetFixture(Self.table, tables: ["t"]).filtering("t", by: "id <> 5")
        try await fixture.begin()
        var writer = writer(filler: 0) { $0.insert(1, ["5", "new", "51"]) }
        let error = await #expect(throws: BridgeError.self) { try await apply(writer.take(), fixture, .overwrite) }
        #expect(error?.conflictKind == .insertFoundRow)
        var other = self.writer(filler: 0) { $0.update(1, ["5", "x", "70"], old: ["7", .absent, .absent]) }
        let taken = await #expect(throws: BridgeError.self) { try await apply(other.take(), fixture, .overwrite) }
        #expect(taken?.conflictKind == .keyTaken)
        #expect(try await fixture.sql("SELECT id, v FROM t ORDER BY id") == "5|here\n6|six\n7|seven")
        try await fixture.end()
    }

    @Test("P31 P30 overwrite in a partitioned table and under an identity that may not be set")
    func overwriteShapes() async throws {
        let shapes = [
            """
            CREATE TABLE t (id int PRIMARY KEY, v text, u int, own text DEFAULT 'd') PARTITION BY RANGE (id);
            CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (6);
            CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (6) TO (99999);
            """,
            "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, u int, own text DEFAULT 'd');",
            "CREATE TABLE t (id int PRIMARY KEY, v text, u int GENERATED ALWAYS AS IDENTITY, own text DEFAULT 'd');",
        ]
        for shape in shapes {
            let fixture = try await TargetFixture(
                shape + "INSERT INTO t (id, v, u, own) OVERRIDING SYSTEM VALUE VALUES (5, 'a', 1, 'k5'), (6, 'b', 2, 'k6')",
                tables: ["t"])
            try await fixture.begin()
            var writer = writer(filler: 0) {
                $0.insert(1, ["5", "new", "9"])
                $0.update(1, ["5", "moved", "10"], old: ["6", .absent, .absent])
                $0.update(1, ["8", "made", "11"])
            }
            try await apply(writer.take(), fixture, .overwrite)
            #expect(
                try await fixture.sql("SELECT id, v, u, own FROM t ORDER BY id") == "5|moved|10|k6\n8|made|11|d", "\(shape)")
            #expect(try await records(fixture).count == 3)
            try await fixture.end()
        }
    }

    @Test("P31 P13 overwrite in a partitioned table under identity FULL: only another key takes the row that has it")
    func overwriteFullPartitioned() async throws {
        let described = relation(
            1, "t", .full, key: ["id", "part"], [("id", "integer"), ("part", "integer"), ("v", "text")])
        for filler in [0, 300] {
            let fixture = try await TargetFixture(
                """
                CREATE TABLE t (id int, part int, v text, own text DEFAULT 'd', PRIMARY KEY (id, part), UNIQUE (v, part))
                  PARTITION BY LIST (part);
                CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
                INSERT INTO t VALUES (1, 1, 'a', 'k1'), (2, 1, 'b', 'k2')
                """, tables: ["t"])
            try await fixture.begin()
            func writer(lsn: UInt64, _ change: Change) -> BatchWriter {
                var writer = BatchWriter(relations: [described], lsn: lsn)
                writer.begin()
                for row in 0..<filler { writer.insert(1, [.text("\(lsn + UInt64(row))"), "1", nil]) }
                change(&writer)
                writer.commit()
                return writer
            }
            var held = writer(lsn: 10_000) { $0.update(1, ["1", "1", "b"], old: ["1", "1", "a"], kind: .full) }
            let error = await #expect(throws: BridgeError.self) { try await apply(held.take(), fixture, .overwrite) }
            #expect(error?.conflictKind == .uniqueValueTaken, "\(String(describing: error))")
            #expect(error?.changePosition?.ordinal == UInt64(filler))
            #expect(try await fixture.sql("SELECT id, v FROM t ORDER BY id") == "1|a\n2|b")
            var moved = writer(lsn: 20_000) { $0.update(1, ["1", "1", "c"], old: ["2", "1", "b"], kind: .full) }
            try await apply(moved.take(), fixture, .overwrite)
            #expect(try await fixture.sql("SELECT id, v, own FROM t WHERE id < 100") == "1|c|k2")
            #expect(try await records(fixture).map(\.outcome) == [.overwritten])
            try await fixture.end()
        }
    }

    @Test("P31 P25 behind more conflicts than a batch is halved for, a swap is still applied")
    func swapBehindManyConflicts() async throws {
        for policy in [ConflictPolicy.skip, .overwrite] {
            let fixture = try await TargetFixture(Self.table, tables: ["t"])
            try await fixture.begin()
            var writer = BatchWriter(relations: [Self.described])
            for row in 0..<150 {
                writer.begin()
                writer.update(1, [.text("\(10_000 + row)"), "missing", .text("\(20_000 + row)")])
                writer.commit()
            }
            writer.begin()
            writer.update(1, ["5", .unchanged, "60"])
            writer.update(1, ["6", "six", "50"])
            writer.commit()
            try await apply(writer.take(), fixture, policy)
            #expect(try await fixture.sql("SELECT id, u, own FROM t WHERE id < 7 ORDER BY id") == "5|60|kept\n6|50|kept too")
            #expect(try await records(fixture).count == 150)
            try await fixture.end()
        }
    }

    /// Two rows swap their unique values, as a source with a deferrable constraint allows, many transactions before and
    /// behind one that is contradicted.
    @Test("P31 P25 a conflict leaves the swap of another transaction in its batch alone")
    func swapBesideConflict() async throws {
        for (filler, policy) in [(1, ConflictPolicy.stop), (150, .stop), (1, .skip), (150, .skip), (150, .overwrite)] {
            let fixture = try await TargetFixture(
                Self.table + "; CREATE TABLE calm (id int PRIMARY KEY)", tables: ["t", "calm"])
            try await fixture.begin()
            let calm = relation(2, "calm", [("id", "integer")])
            var writer = BatchWriter(relations: [Self.described, calm])
            func swap() {
                writer.begin()
                writer.update(1, ["5", .unchanged, "60"])
                writer.update(1, ["6", "six", "50"])
                writer.commit()
            }
            func fill(_ first: Int) {
                for row in 0..<filler {
                    writer.begin()
                    writer.insert(1, [.text("\(first + row)"), nil, nil])
                    writer.insert(2, [.text("\(first + row)")])
                    writer.commit()
                }
            }
            swap()
            fill(1_000)
            writer.begin()
            writer.insert(1, ["90", "before", nil])
            writer.update(1, ["77", "missing", "7700"])
            writer.commit()
            let commit = writer.position.commit
            fill(5_000)
            swap()
            swap()
            if policy == .stop {
                let error = await #expect(throws: BridgeError.self) { try await apply(writer.take(), fixture, policy) }
                #expect(error?.conflictKind == .updateFoundNoRow, "\(filler) \(String(describing: error))")
                #expect(error?.changePosition == Position(commit: commit, ordinal: 1), "\(filler)")
            } else {
                try await apply(writer.take(), fixture, policy)
                #expect(
                    try await fixture.sql("SELECT id, v, u, own FROM t WHERE id < 90 ORDER BY id")
                        == "5|here|60|kept\n6|six|50|kept too\n7|seven|70|kept as well"
                        + (policy == .skip ? "" : "\n77|missing|7700|default"))
                #expect(try await records(fixture).map(\.key) == ["{\"id\":\"77\"}"])
                #expect(try await records(fixture).map(\.position) == [Position(commit: commit, ordinal: 1)])
                #expect(try await fixture.sql("SELECT count(*) FROM calm") == "\(2 * filler)")
                #expect(try await fixture.sql("SELECT count(*) FROM t WHERE id >= 90") == "\(2 * filler + 1)")
            }
            try await fixture.end()
        }
    }

    @Test("P31 a row that comes and goes within a batch finds one in its place all the same")
    func comesAndGoes() async throws {
        for policy in ConflictPolicy.allCases {
            let fixture = try await TargetFixture(Self.table, tables: ["t"])
            try await fixture.begin()
            var writer = writer(filler: 300) {
                $0.insert(1, ["5", "x", "51"])
                $0.delete(1, ["5", .absent, .absent])
            }
            if policy == .stop {
                let error = await #expect(throws: BridgeError.self) { try await apply(writer.take(), fixture, policy) }
                #expect(error?.conflictKind == .insertFoundRow && error?.changePosition?.ordinal == 300)
            } else {
                try await apply(writer.take(), fixture, policy)
                #expect(try await fixture.sql("SELECT count(*) FROM t WHERE id = 5") == "0")
                #expect(try await records(fixture).map(\.reason) == ["insert_found_row"])
            }
            try await fixture.end()
        }
    }

    @Test("P32 a change that the target refuses is named exactly, whatever it is applied together with")
    func refused() async throws {
        let fixture = try await TargetFixture(
            """
            CREATE TABLE t (id int PRIMARY KEY, v varchar(5) CHECK (v <> 'bad'), u int);
            CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.v = 'raise' THEN RAISE EXCEPTION 'secret %', NEW.v; END IF; RETURN NEW; END $$;
            CREATE TRIGGER no BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no();
            ALTER TABLE t ENABLE ALWAYS TRIGGER no
            """, tables: ["t"])
        try await fixture.begin()
        let described = relation(1, "t", [("id", "integer"), ("v", "character varying(5)"), ("u", "integer")])
        let changes: [(ErrorCode, Change)] = [
            (.changeRefused, { $0.insert(1, ["1", "bad", nil]) }),
            (.changeRefused, { $0.insert(1, ["1", "raise", nil]) }),
            (.valueDoesNotFit, { $0.insert(1, ["1", "too long", nil]) }),
            (.valueDoesNotFit, { $0.insert(1, ["1", "ok", "secret"]) }),
            (.valueMissing, { $0.insert(1, ["1", .unchanged, nil]) }),
        ]
        for filler in [0, 300] {
            for (code, change) in changes {
                var writer = BatchWriter(relations: [described])
                writer.begin()
                for row in 0..<filler { writer.insert(1, [.text("\(1_000 + row)"), nil, nil]) }
                change(&writer)
                writer.commit()
                let error = await #expect(throws: BridgeError.self) { try await apply(writer.take(), fixture, .skip) }
                #expect(error?.code == code && error?.isOfChange == true, "\(filler) \(String(describing: error))")
                #expect(error?.changePosition == Position(commit: 1_100, ordinal: UInt64(filler)), "\(filler) \(code)")
                #expect(error.map { "\($0)".contains("secret") } == false)
            }
        }
        try await fixture.end()
    }

    @Test("P32 of the rows of a source that logs keys, too, the refused one is named")
    func refusedState() async throws {
        for filler in [1, 300] {
            let fixture = try await TargetFixture(
                "CREATE TABLE t (id bigint PRIMARY KEY, u text UNIQUE CHECK (u <> 'bad')); INSERT INTO t VALUES (1, 'a'), (2, 'b')",
                tables: [(TableName(name: "t"), TargetFixture.name("t"))], form: .canonical)
            try await fixture.begin()
            var writer = BatchWriter(relations: [
                relation(1, "t", [("id", "bigint"), ("u", "text")], form: .canonical, schema: nil)
            ])
            writer.begin()
            writer.upsert(1, [1, .string("b")])
            writer.upsert(1, [2, .string("a")])
            for row in 0..<filler { writer.upsert(1, [.integer(Int64(row + 10)), .string("f\(row)")]) }
            writer.upsert(1, [3, .string("bad")])
            writer.upsert(1, [4, .string("d")])
            writer.commit()
            let error = await #expect(throws: BridgeError.self) { try await apply(writer.take(), fixture, .stop) }
            #expect(error?.code == .changeRefused)
            #expect(error?.changePosition?.ordinal == UInt64(filler + 2), "\(String(describing: error))")
            try await fixture.end()
        }
    }

    @Test(
        "P32 a connection, a busy server, a full disk, a lock and a deadlock are never the change's fault",
        arguments: ["40001", "40P01", "55P03", "53100", "53200", "57P01", "57014", "08006", "08000"])
    func neverTheChange(_ sqlState: String) async throws {
        let fixture = try await TargetFixture(
            """
            CREATE TABLE t (id int PRIMARY KEY, v text, big text);
            CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.v = 'now' THEN RAISE EXCEPTION 'x' USING ERRCODE = '\(sqlState)'; END IF; RETURN NEW; END $$;
            CREATE TRIGGER no BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no();
            ALTER TABLE t ENABLE ALWAYS TRIGGER no
            """, tables: ["t"])
        try await fixture.begin()
        for filler in [0, 100] {
            var writer = BatchWriter(relations: [Self.simple])
            writer.begin()
            for row in 0..<filler { writer.insert(1, [.text("\(1_000 + row)"), nil, nil]) }
            writer.insert(1, ["1", "now", nil])
            writer.commit()
            let error = await #expect(throws: BridgeError.self) { try await apply(writer.take(), fixture, .skip) }
            #expect(error?.isOfChange == false, "\(String(describing: error))")
            #expect(error?.retry == .backoff || error?.code == .diskFull, "\(String(describing: error))")
        }
        #expect(try await records(fixture).isEmpty)
        try await fixture.end()
    }

    @Test("P32 what was left out before is recorded with the checkpoint that goes past it")
    func leftOut() async throws {
        let fixture = try await TargetFixture(Self.simpleTable, tables: ["t"])
        try await fixture.begin()
        var writer = BatchWriter(relations: [Self.simple])
        writer.begin()
        writer.insert(1, ["1", "a", nil])
        writer.commit()
        var batch = writer.take()
        let record = ConflictRecord(
            position: Position(commit: writer.position.commit, ordinal: 3), commitTime: Timestamp(microseconds: 7),
            table: "public.t", change: "update", reason: "change_refused", outcome: .passedOver, key: "{\"id\":\"it's\"}")
        batch.leftOut = [record]
        try await apply(batch, fixture, .stop)
        // The same batch again, as after a crash behind COMMIT: nothing of it happens twice.
        try await apply(batch, fixture, .stop)
        var found = try await records(fixture)
        #expect(found.first?.recordedAt != nil)
        if !found.isEmpty { found[0].recordedAt = nil }
        #expect(found == [record])
        #expect(try await fixture.sql("SELECT count(*) FROM t") == "1")
        try await fixture.end()
        #expect(try await fixture.sql("SELECT to_regclass('_bridge.conflict') IS NULL") == "t")
    }

    @Test("P31 overwriting on a target that was damaged makes every touched row the source's")
    func damaged() async throws {
        let rounds = environment("BRIDGE_CONFLICT_SEEDS", default: 8)
        let first = environment("BRIDGE_CONFLICT_SEED", default: Int.random(in: 0..<1_000_000))
        print("overwriting on a damaged target: BRIDGE_CONFLICT_SEED=\(first)")
        for seed in first..<first + rounds {
            var random = SeededGenerator(seed: UInt64(seed))
            let fixture = try await TargetFixture("CREATE TABLE t (id int PRIMARY KEY, v text, own text)", tables: ["t"])
            try await fixture.begin()
            // The target has some rows of the source, some others in their place, some too many.
            var source: [Int: String] = [:]
            var statements: [String] = []
            for id in 0..<30 {
                if random.chance(60) { source[id] = "s\(id)" }
                switch random.below(3) {
                case 0: if let v = source[id] { statements.append("INSERT INTO t VALUES (\(id), '\(v)', 'own\(id)')") }
                case 1: statements.append("INSERT INTO t VALUES (\(id), 'damaged', 'own\(id)')")
                default: break
                }
            }
            _ = try await fixture.sql(statements.joined(separator: ";"))
            var touched = Set<Int>()
            let described = relation(1, "t", [("id", "integer"), ("v", "text")])
            var writer = BatchWriter(relations: [described])
            let applier = try await fixture.target.openApplier(fixture.link, onConflict: .overwrite)
            for _ in 0..<6 {
                for _ in 0..<(1 + random.below(30)) {
                    writer.begin()
                    for _ in 0..<(1 + random.below(5)) {
                        let id = random.below(30)
                        touched.insert(id)
                        let text = TestCell.text("\(id)")
                        guard source[id] != nil else {
                            source[id] = "n\(random.below(1_000))"
                            writer.insert(1, [text, TestCell(source[id])])
                            continue
                        }
                        let to = random.below(30)
                        if random.chance(30) {
                            source[id] = nil
                            writer.delete(1, [text, .absent])
                        } else if random.chance(30), source[to] == nil {
                            touched.insert(to)
                            source[id] = nil
                            source[to] = "m\(random.below(1_000))"
                            writer.update(1, [.text("\(to)"), TestCell(source[to])], old: [text, .absent])
                        } else {
                            source[id] = "u\(random.below(1_000))"
                            writer.update(1, [text, TestCell(source[id])])
                        }
                    }
                    writer.commit()
                }
                do { try await applier.apply(writer.take()) } catch {
                    Issue.record("seed \(seed): \(error)")
                    return
                }
            }
            await applier.close()
            let rows = try await fixture.sql("SELECT id || '=' || v FROM t ORDER BY id").split(separator: "\n").map(String.init)
            let wanted = touched.filter { source[$0] != nil }.sorted().map { "\($0)=\(source[$0] ?? "")" }
            #expect(rows.filter { row in touched.contains { row.hasPrefix("\($0)=") } } == wanted, "seed \(seed)")
            let found = try await records(fixture)
            #expect(Set(found.map(\.position)).count == found.count, "seed \(seed)")
            try await fixture.end()
        }
    }
}

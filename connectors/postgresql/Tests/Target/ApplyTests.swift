import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

/// What the applier promises of a batch and its checkpoint, against a real server.
@Suite("PostgreSQL target: apply")
struct ApplyTests: ApplySuite {
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

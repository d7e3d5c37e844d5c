import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// Progress is bound to what it was made on (P5), and the making of a slot leaves nothing half done (P8).
@Suite struct CaptureBindingTests {
    private func fixture(_ cluster: PostgresCluster? = nil) async throws -> (SourceFixture, CaptureOrigin) {
        var options = PostgresSource.Options()
        options.readerPatience = .milliseconds(200)
        let fixture = try await SourceFixture(
            "CREATE TABLE t(id int PRIMARY KEY); CREATE TABLE u(id int PRIMARY KEY)", tables: ["t"], cluster: cluster, options: options)
        let origin = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false)
        try await fixture.source.openSnapshot(fixture.link).close()
        return (fixture, origin)
    }

    /// What opening a capture fails with.
    private func refusal(
        _ fixture: SourceFixture, _ origin: CaptureOrigin, _ durable: Position? = nil,
        _ location: SourceLocation = #_sourceLocation
    ) async throws -> BridgeError {
        try await failure(location) {
            try await fixture.source.openCapture(fixture.link, origin: origin, durable: durable ?? origin.position)
        }
    }

    @Test("P5 a dropped slot is a missing slot, and is not made anew")
    func dropped() async throws {
        let (fixture, origin) = try await fixture()
        try await fixture.psql("SELECT pg_drop_replication_slot('\(fixture.slot)')")
        #expect(try await refusal(fixture, origin).code == .slotMissing)
        #expect(try await fixture.slotFact("count(*)") == "0")
    }

    @Test("P5 a slot that was made anew, advanced, or is of another kind is foreign")
    func foreign() async throws {
        let (fixture, origin) = try await fixture()
        try await fixture.psql(
            "SELECT pg_drop_replication_slot('\(fixture.slot)'); INSERT INTO t VALUES (1); SELECT pg_create_logical_replication_slot('\(fixture.slot)', 'pgoutput')")
        #expect(try await refusal(fixture, origin).code == .slotForeign)

        let (other, itsOrigin) = try await self.fixture()
        try await other.psql(
            "INSERT INTO t VALUES (1); SELECT pg_replication_slot_advance('\(other.slot)', pg_current_wal_lsn())")
        let error = try await refusal(other, itsOrigin)
        #expect(error.code == .slotForeign && error.hint.contains("begin again under a new migration name"))
        // A journal that reaches as far as the slot has nothing lost.
        let position = try await other.source.currentPosition(other.link)
        let session = try await other.source.openCapture(other.link, origin: itsOrigin, durable: position)
        await session.close()

        try await other.psql(
            "SELECT pg_drop_replication_slot('\(other.slot)'); SELECT pg_create_logical_replication_slot('\(other.slot)', 'test_decoding')")
        #expect(try await refusal(other, itsOrigin, position).code == .slotForeign)
    }

    @Test("P5 another cluster, timeline or database is a replaced source")
    func replaced() async throws {
        let (fixture, origin) = try await fixture()
        for key in ["system_identifier", "timeline", "database_oid"] {
            var other = origin
            other.identity[key] = "77"
            #expect(try await refusal(fixture, other).code == .sourceReplaced)
        }
        await (try await fixture.open(origin, origin.position)).session.close()
    }

    @Test("P5 P10 tables that swapped their names while nobody looked are refused by name, and nothing is lost once the names are back",
        arguments: [false, true])
    func swapped(betweenSessions: Bool) async throws {
        let fixture = try await SourceFixture(
            "CREATE TABLE a(id int PRIMARY KEY); CREATE TABLE b(id int PRIMARY KEY)", tables: ["a", "b"])
        let origin = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false)
        try await fixture.source.openSnapshot(fixture.link).close()
        var durable = origin.position
        if betweenSessions {
            let first = try await fixture.open(origin, durable)
            try await first.catchUp()
            await first.session.close()
            durable = first.frontier
        }
        let swap = "BEGIN; ALTER TABLE a RENAME TO tmp; ALTER TABLE b RENAME TO a; ALTER TABLE tmp RENAME TO b; COMMIT"
        try await fixture.psql("INSERT INTO a VALUES (1); INSERT INTO b VALUES (20); \(swap); INSERT INTO a VALUES (30)")
        let refused = try await refusal(fixture, origin, durable)
        #expect(refused.code == .tableMissing, "\(refused)")
        #expect(refused.context == [ErrorContext(.table, "public.a"), ErrorContext(.detail, "now public.b")])
        #expect(refused.hint.contains("has that name now"))
        try await fixture.psql("\(swap); INSERT INTO a VALUES (2)")
        let stream = try await fixture.open(origin, durable)
        try await stream.catchUp()
        #expect(stream.takeChanges() == ["insert a (1)", "insert b (20)", "insert b (30)", "insert a (2)"])
        await stream.session.close()

        // An origin of an older version knows no names.
        var older = origin
        older.identity = origin.identity.filter { !$0.key.hasPrefix("table_") }
        await (try await fixture.open(older, stream.frontier)).session.close()
    }

    @Test("P5 P10 a table whose name was given to another one is not copied under it, with an older picture as with a new one")
    func swappedForCopy() async throws {
        let fixture = try await SourceFixture(
            "CREATE TABLE a(id int PRIMARY KEY); CREATE TABLE b(id int PRIMARY KEY); INSERT INTO a VALUES (1); INSERT INTO b VALUES (20)",
            tables: ["a", "b"])
        let origin = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false)
        let tables = try await fixture.source.describeTables([TableName(name: "a"), TableName(name: "b")])
        func copy(_ name: String, from snapshot: any SourceSnapshot) async throws -> [String] {
            let table = try #require(tables.first { $0.name.name == name })
            let mapping = try #require(fixture.link.mappings.first { $0.source.name == name })
            return try await rowsText(try await snapshot.openTable(table, mapping: mapping, format: .rows))
        }
        let swap = "BEGIN; ALTER TABLE a RENAME TO tmp; ALTER TABLE b RENAME TO a; ALTER TABLE tmp RENAME TO b; COMMIT"
        for _ in ["the picture of the slot", "one of its own"] {
            let snapshot = try await fixture.source.openSnapshot(fixture.link, origin: origin)
            try await fixture.psql(swap)
            let refused = try await failure { try await copy("a", from: snapshot) }
            #expect(refused.code == .tableMissing, "\(refused)")
            #expect(refused.context.contains(ErrorContext(.detail, "now public.b")))
            try await fixture.psql(swap)
            #expect(try await copy("a", from: snapshot) == ["i1"])
            // A new table under the old name is another one too.
            try await fixture.psql("ALTER TABLE b RENAME TO away; CREATE TABLE b(id int PRIMARY KEY)")
            #expect(try await failure { try await copy("b", from: snapshot) }.code == .connectionLost)
            let later = try await fixture.source.openSnapshot(fixture.link, origin: origin)
            let replaced = try await failure { try await copy("b", from: later) }
            #expect(replaced.code == .tableMissing, "\(replaced)")
            await later.close()
            try await fixture.psql("DROP TABLE b; ALTER TABLE away RENAME TO b")
            #expect(try await copy("b", from: snapshot) == ["i20"])
            await snapshot.close()
        }
    }

    @Test("P20 a part is copied only from the table that it was planned in")
    func partOfAnother() async throws {
        let fixture = try await SourceFixture(
            """
            CREATE TABLE a(id int PRIMARY KEY); CREATE TABLE b(id int PRIMARY KEY);
            INSERT INTO a SELECT generate_series(1, 5000); INSERT INTO b SELECT generate_series(1, 5000)
            """, tables: ["a", "b"])
        let origin = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false)
        let snapshot = try await fixture.source.openSnapshot(fixture.link, origin: origin)
        let tables = try await fixture.source.describeTables(fixture.link.mappings.map(\.source))
        let copied = zip(tables, fixture.link.mappings).map { CopiedTable(schema: $0, mapping: $1) }
        let parts = try await snapshot.planParts(copied, partBytes: 8_192)
        try #require(parts.count == 2 && parts[1].count > 1)
        let error = try await failure {
            try await snapshot.openTable(tables[0], mapping: fixture.link.mappings[0], part: parts[1][0], format: .rows)
        }
        #expect(error.code == .connectionLost, "\(error)")
        await snapshot.close()
    }

    @Test("P5 a slot whose WAL was removed is lost")
    func lost() async throws {
        let cluster = try await PostgresCluster.started(settings: ["max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"])
        let (fixture, origin) = try await fixture(cluster)
        try await waitUntil("the slot losing its WAL") {
            try await fixture.psql("INSERT INTO u VALUES (1); DELETE FROM u; SELECT pg_switch_wal(); CHECKPOINT")
            return try await fixture.slotFact("wal_status") == "lost"
        }
        #expect(try await refusal(fixture, origin).code == .slotLost)
    }

    @Test("P5 a slot that somebody reads is in use, and the reader is named")
    func inUse() async throws {
        let (fixture, origin) = try await fixture()
        let stream = try await fixture.open(origin, origin.position)
        let error = try await refusal(fixture, origin)
        #expect(error.code == .slotInUse && error.retry == .backoff)
        let process = try await fixture.slotFact("active_pid")
        #expect(error.context.contains(ErrorContext(.processes, process)))
        await stream.session.close()
        await (try await fixture.open(origin, origin.position)).session.close()
    }

    @Test(
        "P5 a changed publication is a broken capture",
        arguments: [
            "DROP PUBLICATION p", "ALTER PUBLICATION p ADD TABLE u", "ALTER PUBLICATION p DROP TABLE t",
            "DROP PUBLICATION p; CREATE PUBLICATION p FOR TABLE t WITH (publish_via_partition_root)",
            "ALTER PUBLICATION p SET (publish = 'insert')", "DROP TABLE t; CREATE TABLE t(id int PRIMARY KEY)",
            "ALTER PUBLICATION p SET TABLE t WHERE (id > 3)",
        ])
    func publication(change: String) async throws {
        let (fixture, origin) = try await fixture()
        try await fixture.psql(change.replacing("PUBLICATION p", with: "PUBLICATION \(fixture.link.identifier)"))
        #expect(try await refusal(fixture, origin).code == .captureBroken)
    }

    @Test("P5 a publication dropped under a running capture stops it")
    func publicationDropped() async throws {
        let (fixture, origin) = try await fixture()
        let stream = try await fixture.open(origin, origin.position)
        try await fixture.psql("INSERT INTO t VALUES (1)")
        try await stream.catchUp()
        try await fixture.psql("DROP PUBLICATION \(fixture.link.identifier); INSERT INTO t VALUES (2)")
        let error = try await failure { while true { try await stream.step() } }
        #expect(error.code == .captureBroken)
        #expect(stream.takeChanges() == ["insert t (1)"])
    }

    @Test("P8 an open transaction holds a slot up for a bounded time, is named, and nothing is left behind")
    func blocked() async throws {
        var options = PostgresSource.Options()
        options.slotPatience = .milliseconds(300)
        // A cluster of its own: the slots of all other tests would wait too.
        let fixture = try await SourceFixture(
            "CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"], cluster: try await PostgresCluster.started(), options: options)
        let holder = BlockingSession(fixture.uri)
        let process = try await holder.execute("BEGIN; INSERT INTO t VALUES (1)")
        let error = try await failure { try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false) }
        #expect(error.code == .slotBlocked && error.retry == .backoff)
        #expect(error.context.contains(ErrorContext(.processes, String(process))))
        #expect(try await fixture.psql("SELECT count(*) FROM pg_replication_slots") == "0")
        #expect(try await fixture.psql("SELECT count(*) FROM pg_publication") == "0")
        #expect((try await fixture.source.preflight(fixture.link)).isEmpty)

        try await holder.execute("PREPARE TRANSACTION 'older'")
        let prepared = try await failure { try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false) }
        #expect(prepared.context.contains(ErrorContext(.processes, "a prepared transaction")))
        try await holder.execute("COMMIT PREPARED 'older'")
        // The same connector goes on to work, and copies what was committed.
        let origin = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false)
        let snapshot = try await fixture.source.openSnapshot(fixture.link)
        let table = try #require(try await fixture.source.describeTables([TableName(name: "t")]).first)
        let reader = try await snapshot.openTable(table, mapping: fixture.link.mappings[0], format: .rows)
        #expect(try await rowsText(reader) == ["i1"])
        #expect(reader.position == origin.position)

        // The copy's own slot is just as patient.
        try await holder.execute("BEGIN; INSERT INTO t VALUES (2)")
        #expect(try await failure { try await fixture.source.openSnapshot(fixture.link) }.code == .slotBlocked)
        try await holder.execute("ROLLBACK")
        await snapshot.close()
        await holder.close()
    }

    @Test("R4 a capture that meets a locked table says so instead of waiting for as long as that lasts")
    func locked() async throws {
        var options = PostgresSource.Options()
        options.lockPatience = .milliseconds(50)
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"], options: options)
        let origin = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false)
        try await fixture.source.openSnapshot(fixture.link).close()
        let holder = BlockingSession(fixture.uri)
        try await holder.execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        let error = try await refusal(fixture, origin)
        #expect(error.code == .serverBusy && error.retry == .backoff, "\(error)")
        try await holder.execute("ROLLBACK")
        await (try await fixture.open(origin, origin.position)).session.close()
    }

    @Test("P8 names that are taken are refused, leftovers are replaced only when told so, and removal is complete")
    func leftovers() async throws {
        let (fixture, origin) = try await fixture()
        let taken = try await failure { try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false) }
        #expect(taken.code == .slotForeign)
        // Ours is still whole.
        await (try await fixture.open(origin, origin.position)).session.close()
        let again = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: true)
        #expect(again.position > origin.position)
        #expect(try await refusal(fixture, origin).code == .slotForeign)
        await (try await fixture.open(again, again.position)).session.close()

        try await fixture.source.removeCapture(fixture.link)
        try await fixture.source.removeCapture(fixture.link)
        #expect(try await fixture.slotFact("count(*)") == "0")
        #expect(try await fixture.psql("SELECT count(*) FROM pg_publication") == "0")

        try await fixture.psql("CREATE PUBLICATION \(fixture.link.identifier) FOR TABLE u")
        #expect(
            try await failure { try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false) }.code
                == .slotForeign)
        #expect(try await fixture.slotFact("count(*)") == "0")
        // A slot of that name in another database is nobody's leftover.
        let other = try await fixture.cluster.makeDatabase("elsewhere")
        try await fixture.cluster.psql(other, "SELECT pg_create_logical_replication_slot('\(fixture.slot)', 'pgoutput')")
        #expect(
            try await failure { try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: true) }.code
                == .slotForeign)
    }

    @Test("P18 a server that restarts ends the session as a lost connection, and the next one goes on")
    func restart() async throws {
        let (fixture, origin) = try await fixture(try await PostgresCluster.started())
        var stream = try await fixture.open(origin, origin.position)
        for (round, mode) in [PostgresCluster.StopMode.fast, .immediate].enumerated() {
            try await fixture.psql("INSERT INTO t VALUES (\(round * 2))")
            try await stream.catchUp()
            // A server that shuts down waits until its readers have everything: reading goes on meanwhile.
            let restart = Task { try await BlockingWork().run { try fixture.cluster.restart(mode: mode) } }
            let error = try await failure { while true { try await stream.step() } }
            try await restart.value
            #expect(error.code == .connectionLost && error.retry == .backoff)
            try await fixture.psql("INSERT INTO t VALUES (\(round * 2 + 1))")
            #expect(stream.takeChanges() == ["insert t (\(round * 2))"])
            stream = try await fixture.open(origin, stream.frontier)
            try await stream.catchUp()
            #expect(stream.takeChanges() == ["insert t (\(round * 2 + 1))"])
        }
        await stream.session.close()
    }
}

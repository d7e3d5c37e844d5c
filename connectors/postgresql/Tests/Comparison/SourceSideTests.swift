import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

struct SourceSideTests {
    private static func session(_ uri: String) throws -> PostgresConnection {
        try PostgresConnection(try ConnectionString(uri), applicationName: "application")
    }

    private static let schema = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')"

    @Test("K1 a settled position does not wait for transactions that are idle, prepared or in another database")
    func idle() async throws {
        let fixture = try await ComparisonFixture(Self.schema, tables: ["t"])
        let source = try #require(fixture.source.source)
        let idle = try Self.session(fixture.sourceURL)
        try idle.execute("BEGIN; UPDATE public.t SET v = 'idle' WHERE id = 1")
        let failed = try Self.session(fixture.sourceURL)
        try failed.execute("BEGIN; SELECT pg_current_xact_id()")
        #expect(throws: BridgeError.self) { try failed.execute("SELECT 1 / 0") }
        try await fixture.cluster.psql(fixture.sourceURL, "BEGIN; UPDATE t SET v = 'prepared' WHERE id = 2; PREPARE TRANSACTION '\(fixture.link.migration)'")
        let elsewhere = try Self.session(fixture.targetURL)
        try elsewhere.execute("BEGIN; SELECT pg_current_xact_id()")
        let sleeping = Task { try await fixture.cluster.psql(fixture.targetURL, "BEGIN; SELECT pg_current_xact_id(); SELECT pg_sleep(600)") }
        let sleepers = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND backend_xid IS NOT NULL AND datname = current_database()"
        try await waitUntil("the other database's statement") { try await !fixture.cluster.psql(fixture.targetURL, sleepers).isEmpty }

        let position = try await source.settledPosition(patience: .seconds(30))
        try idle.execute("COMMIT")
        // Its commit stands behind the position.
        let end = try await source.currentPosition()
        #expect(position < end)
        try await fixture.cluster.psql(fixture.sourceURL, "ROLLBACK PREPARED '\(fixture.link.migration)'")
        _ = try await fixture.cluster.psql(fixture.targetURL, "SELECT pg_terminate_backend(pid) FROM (\(sleepers)) AS s")
        _ = try? await sleeping.value
        try await fixture.end()
    }

    @Test("K1 a settled position waits for a transaction in the middle of a statement, and names it when patience ends")
    func busy() async throws {
        let fixture = try await ComparisonFixture(Self.schema, tables: ["t"])
        let source = try #require(fixture.source.source)
        let writing = Task {
            try await fixture.cluster.psql(fixture.sourceURL, "SET application_name = 'writer'; UPDATE t SET v = pg_sleep(600)::text WHERE id = 1 AND pg_current_xact_id() IS NOT NULL")
        }
        let writer = "SELECT pid FROM pg_stat_activity WHERE application_name = 'writer' AND backend_xid IS NOT NULL AND wait_event = 'PgSleep'"
        try await waitUntil("the writer") { try await !fixture.cluster.psql(fixture.sourceURL, writer).isEmpty }
        let process = try await fixture.cluster.psql(fixture.sourceURL, writer)
        let error = try await failure { try await source.settledPosition(patience: .milliseconds(200)) }
        #expect(error.code == .slotBlocked)
        #expect(error.context.contains(ErrorContext(.processes, process)), "\(error)")
        let settled = Task { try await source.settledPosition(patience: .seconds(60)) }
        _ = try await fixture.cluster.psql(fixture.sourceURL, "SELECT pg_terminate_backend(\(process))")
        _ = try await settled.value
        _ = try? await writing.value
        try await fixture.end()
    }

    @Test("K1 a role that may not see what other sessions do is told the right that it needs")
    func hidden() async throws {
        let fixture = try await ComparisonFixture(Self.schema, tables: ["t"])
        let role = "app_\(fixture.link.migration)"
        try await fixture.cluster.psql(fixture.sourceURL, "CREATE ROLE \(role) LOGIN")
        let name = String(fixture.sourceURL.split(separator: "/")[2].prefix { $0 != "?" })
        let connector = try PostgresSource(connectionString: fixture.cluster.uri(name, user: role))
        let session = try await connector.openComparison(fixture.link, role: .source)
        let source = try #require(session.source)
        let idle = try Self.session(fixture.sourceURL)
        try idle.execute("BEGIN; SELECT pg_current_xact_id()")
        let error = try await failure { try await source.settledPosition(patience: .milliseconds(100)) }
        #expect(error.code == .slotBlocked && error.context.contains(ErrorContext(.processes, "\(idle.backendProcess)")))
        try await fixture.cluster.psql(fixture.sourceURL, error.hint)
        _ = try await source.settledPosition(patience: .seconds(30))
        try idle.execute("COMMIT")
        await session.close()
        try await fixture.end()
        try await fixture.cluster.psql(fixture.cluster.uri("postgres"), "DROP ROLE \(role)")
    }

    @Test("K1 a writer that goes on with another statement was not committing")
    func another() async throws {
        let fixture = try await ComparisonFixture(Self.schema, tables: ["t"])
        let source = try #require(fixture.source.source)
        // One transaction of many statements with no rest between them that a look is likely to find.
        let statements = (0..<300).map { _ in "SELECT pg_sleep(0.05);" }.joined(separator: "\n")
        let writing = Task {
            try await fixture.cluster.psql(
                fixture.sourceURL, "SET application_name = 'writer'; BEGIN; UPDATE t SET v = 'x' WHERE id = 1;\n\(statements)\nSELECT pg_sleep(600); COMMIT;")
        }
        let writer = "SELECT pid FROM pg_stat_activity WHERE application_name = 'writer' AND backend_xid IS NOT NULL"
        try await waitUntil("the writer") { try await !fixture.cluster.psql(fixture.sourceURL, writer).isEmpty }
        _ = try await source.settledPosition(patience: .seconds(30))
        #expect(try await !fixture.cluster.psql(fixture.sourceURL, writer).isEmpty)
        _ = try await fixture.cluster.psql(fixture.sourceURL, "SELECT pg_terminate_backend(pid) FROM (\(writer)) AS w")
        _ = try? await writing.value
        try await fixture.end()
    }

    @Test("K1 a commit that stands in the log and waits for a standby is waited for, prepared or not")
    func committing() async throws {
        let cluster = try await PostgresCluster.started(settings: ["synchronous_standby_names": "nobody", "synchronous_commit": "local"])
        let fixture = try await ComparisonFixture(Self.schema, tables: ["t"], cluster: cluster)
        let source = try #require(fixture.source.source)
        try await cluster.psql(fixture.sourceURL, "BEGIN; UPDATE t SET v = 'prepared' WHERE id = 2; PREPARE TRANSACTION 'p'")
        for statement in ["UPDATE t SET v = 'new' WHERE id = 1", "COMMIT PREPARED 'p'"] {
            let writing = Task { try await cluster.psql(fixture.sourceURL, "SET synchronous_commit = on; \(statement)") }
            let waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            try await waitUntil("the commit to wait") { try await !cluster.psql(fixture.sourceURL, waiting).isEmpty }
            let process = try await cluster.psql(fixture.sourceURL, waiting)
            let error = try await failure { try await source.settledPosition(patience: .milliseconds(300)) }
            #expect(error.code == .slotBlocked, "\(statement)")
            let settled = Task { try await source.settledPosition(patience: .seconds(60)) }
            // Ends its wait; the commit stands.
            _ = try await cluster.psql(fixture.sourceURL, "SELECT pg_cancel_backend(\(process))")
            let position = try await settled.value
            #expect(position > .zero)
            _ = try? await writing.value
        }
        #expect(try await cluster.psql(fixture.sourceURL, "SELECT string_agg(v, ' ' ORDER BY id) FROM t") == "new prepared")
        try await fixture.end()
    }

    @Test("K1 every commit before a settled position is seen by the next view, under concurrent writers")
    func settledUnderLoad() async throws {
        let fixture = try await SourceFixture(Self.schema + "; INSERT INTO t SELECT g, 'x' FROM generate_series(3, 2000) g", tables: ["t"])
        let (_, stream) = try await fixture.open()
        let session = try await fixture.source.openComparison(fixture.link, role: .source)
        let source = try #require(session.source)
        let script = try TemporaryDirectory(prefix: "load")
        try script.write("w.sql", "\\set id random(1, 2000)\nBEGIN;\nUPDATE t SET v = 'y' WHERE id = :id;\nCOMMIT;\n")
        let load = Task {
            try await ChildProcess.run([fixture.cluster.program("pgbench"), "-n", "-c", "8", "-j", "2", "-T", "3", "-f", script.path("w.sql"), fixture.uri])
        }
        try await waitUntil("the load") { try await fixture.psql("SELECT count(*) > 4 FROM pg_stat_activity WHERE application_name = 'pgbench'") == "t" }
        var taken: [(Position, ViewMark)] = []
        for _ in 0..<40 {
            let position = try await source.settledPosition(patience: .seconds(30))
            let view = try await session.openView()
            taken.append((position, view.sees))
            await view.close()
        }
        _ = try await load.value
        try await stream.catchUp()
        #expect(stream.ends.count > 100)
        var before = 0
        for (start, end) in zip(stream.starts, stream.ends) {
            for (position, mark) in taken where end.position < position {
                before += 1
                #expect(mark.sees(start.transaction, commit: end.position))
            }
        }
        #expect(before > 0)
        await stream.session.close()
        await session.close()
        try await fixture.source.removeCapture(fixture.link)
    }

    @Test("K15 waiting for writers ends with the last of them, or with patience")
    func writers() async throws {
        let fixture = try await ComparisonFixture(Self.schema + "; CREATE TABLE u (id int PRIMARY KEY)", tables: ["t", "u"])
        let source = try #require(fixture.source.source)
        try await source.waitForWriters(patience: .seconds(5))
        let reader = try Self.session(fixture.sourceURL)
        try reader.execute("BEGIN; SELECT FROM public.t")
        try await source.waitForWriters(patience: .seconds(5))
        let writer = try Self.session(fixture.sourceURL)
        try writer.execute("BEGIN; INSERT INTO public.u VALUES (1)")
        let error = try await failure { try await source.waitForWriters(patience: .milliseconds(100)) }
        #expect(error.code == .serverBusy)
        let waiting = Task { try await source.waitForWriters(patience: .seconds(60)) }
        try await waitUntil("the wait") {
            try await fixture.cluster.psql(fixture.sourceURL, "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ShareLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "1"
        }
        try writer.execute("COMMIT")
        try await waiting.value
        // Nothing is held afterwards.
        try writer.execute("SET lock_timeout = '1s'; INSERT INTO public.u VALUES (2)")
        try await fixture.end()
    }

    @Test("K15 the capture's fingerprint stays the same until something that it rests on changes")
    func fingerprint() async throws {
        let fixture = try await SourceFixture(Self.schema + "; CREATE TABLE u (id int PRIMARY KEY, v text, w int)", tables: ["t", "u"])
        let session = try await fixture.source.openComparison(fixture.link, role: .source)
        let source = try #require(session.source)
        #expect(try await failure { try await source.captureFingerprint() }.code == .slotMissing)
        let (_, stream) = try await fixture.open()
        var first = try await source.captureFingerprint()
        try await fixture.psql("INSERT INTO u VALUES (1, 'a', 1); VACUUM u; ANALYZE u; CREATE INDEX ON u (w)")
        try await stream.catchUp()
        #expect(try await source.captureFingerprint() == first)
        for (change, undo) in [
            ("ALTER TABLE u REPLICA IDENTITY FULL", "ALTER TABLE u REPLICA IDENTITY DEFAULT"),
            ("ALTER TABLE u RENAME v TO z", "ALTER TABLE u RENAME z TO v"),
            ("ALTER TABLE u ALTER v TYPE varchar(7)", "ALTER TABLE u ALTER v TYPE text"),
            ("ALTER TABLE u DROP w; ALTER TABLE u ADD w int", ""),
        ] {
            try await fixture.psql(change)
            #expect(try await source.captureFingerprint() != first, "\(change)")
            if !undo.isEmpty {
                // Taken back is not as if it had not been.
                try await fixture.psql(undo)
                #expect(try await source.captureFingerprint() != first, "\(undo)")
            }
            first = try await source.captureFingerprint()
        }
        for (change, undo) in [
            ("ALTER PUBLICATION \(fixture.slot) SET (publish = 'insert')", "ALTER PUBLICATION \(fixture.slot) SET (publish = 'insert, update, delete, truncate')"),
            ("ALTER PUBLICATION \(fixture.slot) DROP TABLE u", "ALTER PUBLICATION \(fixture.slot) ADD TABLE ONLY u"),
            ("ALTER PUBLICATION \(fixture.slot) SET TABLE t, u (id)", "ALTER PUBLICATION \(fixture.slot) SET TABLE ONLY t, ONLY u"),
            ("ALTER PUBLICATION \(fixture.slot) SET TABLE t WHERE (id > 1), u", "ALTER PUBLICATION \(fixture.slot) SET TABLE ONLY t, ONLY u"),
            ("ALTER PUBLICATION \(fixture.slot) RENAME TO gone", ""),
        ] {
            try await fixture.psql(change)
            #expect(try await failure { try await source.captureFingerprint() }.code == .captureBroken, "\(change)")
            if !undo.isEmpty { try await fixture.psql(undo) }
        }
        await stream.session.close()
        try await fixture.psql("DROP PUBLICATION gone")
        await session.close()
        try await fixture.source.removeCapture(fixture.link)
    }

    @Test("K15 the capture's fingerprint tells of what the log does not show, also if it was taken back, and of nothing else")
    func hiddenChanges() async throws {
        let fixture = try await SourceFixture(
            """
            \(Self.schema); CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE other AS ENUM ('one', 'two');
            CREATE DOMAIN short AS varchar(9); CREATE TYPE pair AS (a int, m mood); CREATE TYPE unused AS ENUM ('x');
            CREATE TABLE u (id int PRIMARY KEY, v text, s short, q pair[], o other[]);
            INSERT INTO u VALUES (1, 'a', 's', ARRAY[(1, 'sad')::pair], '{one}');
            CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
            CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100); INSERT INTO p VALUES (1, 'a');
            """, tables: ["t", "u", "p"])
        let session = try await fixture.source.openComparison(fixture.link, role: .source)
        let source = try #require(session.source)
        let (_, stream) = try await fixture.open()
        var last = try await source.captureFingerprint()
        for harmless in [
            "INSERT INTO u SELECT g, 'b' FROM generate_series(2, 500) g; UPDATE u SET v = 'c'; DELETE FROM u WHERE id > 7; UPDATE p SET v = 'b'",
            "SELECT count(*) FROM u; COPY t TO STDOUT", "ANALYZE", "VACUUM", "VACUUM (FREEZE, ANALYZE) u, t, p, p1",
            "VACUUM (FREEZE) pg_class; VACUUM (FREEZE) pg_attribute; VACUUM (FREEZE) pg_publication; VACUUM (FREEZE) pg_enum",
            "CREATE INDEX ON u (v); REINDEX TABLE u", "CHECKPOINT", "ALTER TYPE unused RENAME VALUE 'x' TO 'y'",
        ] {
            try await fixture.psql(harmless)
            #expect(try await source.captureFingerprint() == last, "\(harmless)")
        }
        let publication = "ALTER PUBLICATION \(fixture.slot)"
        for change in [
            "ALTER TABLE u ALTER v TYPE text USING upper(v)", "ALTER TABLE p ALTER v TYPE text USING upper(v)",
            "ALTER TYPE mood RENAME VALUE 'sad' TO 'bad'", "ALTER TYPE mood RENAME VALUE 'bad' TO 'x'; ALTER TYPE mood RENAME VALUE 'x' TO 'bad'",
            "ALTER TYPE other RENAME VALUE 'one' TO 'x'; ALTER TYPE other RENAME VALUE 'x' TO 'one'",
            "ALTER TYPE pair RENAME ATTRIBUTE a TO b; ALTER TYPE pair RENAME ATTRIBUTE b TO a",
            "ALTER DOMAIN short SET DEFAULT 'x'; ALTER DOMAIN short DROP DEFAULT",
            "\(publication) SET (publish = 'insert'); DELETE FROM u WHERE id = 3; \(publication) SET (publish = 'insert, update, delete, truncate')",
            "\(publication) DROP TABLE u; \(publication) ADD TABLE ONLY u",
            "\(publication) SET TABLE ONLY t WHERE (id > 1), ONLY u, p; \(publication) SET TABLE ONLY t, ONLY u, p",
            "ALTER TABLE u REPLICA IDENTITY FULL; ALTER TABLE u REPLICA IDENTITY DEFAULT",
            "ALTER TABLE p1 SET UNLOGGED; INSERT INTO p VALUES (2, 'b'); ALTER TABLE p1 SET LOGGED",
            "ALTER TABLE p DETACH PARTITION p1; INSERT INTO p1 VALUES (3, 'c'); ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (100)",
            "VACUUM FULL u", "GRANT SELECT ON p1 TO PUBLIC", "TRUNCATE p",
        ] {
            try await fixture.psql(change)
            let now = try await source.captureFingerprint()
            #expect(now != last, "\(change)")
            // The publication's own row concerns all, anything else the table that it is about.
            let table = change.contains("SET TABLE") ? 0 : change.contains("TABLE p") || change.contains(" p1 ") || change == "TRUNCATE p" ? 2 : 1
            #expect(now.changedTables(since: last) == (change.contains("publish =") ? nil : [table]), "\(change)")
            #expect(try await source.captureFingerprint() == now, "\(change)")
            last = now
        }
        await stream.session.close()
        await session.close()
        try await fixture.source.removeCapture(fixture.link)
    }
}

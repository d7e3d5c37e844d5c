import BridgeConformance
import BridgeConsistency
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Testing

/// What went past capture or watch between two looks, with everything as it was in place again: nothing may be built upon
/// what was known before.
@Suite("Unseen changes", .serialized)
struct UnseenChangeTests {
    private static let manyRows = """
        BEGIN; INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 3000)
          SELECT n, 'u' || n, n, NULL FROM g; INSERT INTO items(a, b, price) VALUES (1, 'x', 0.5); COMMIT;
        """

    private func holds(_ report: CheckReport, _ obligation: String) -> Bool? {
        report.soundness.first { $0.name == obligation }?.holds
    }

    // MARK: The watch

    @Test("K15 a watch that vanished whole and was made anew is another watch", arguments: Pair.wanted)
    func watchReplaced(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts, .items])
        try await checked.source.execute(CheckedPair.someRows)
        try await checked.whileSyncing { _ in
            let first = try await checked.check()
            #expect(first.verdict == .consistent, "\(first.summary)")
            try await checked.dropWatch()
            try await checked.target.execute("BEGIN; UPDATE accounts SET balance = -1 WHERE id = 1; COMMIT;")
            // The check of another table makes it anew.
            #expect(try await checked.check(change: { $0.tables = [checked.link.mappings[1].source] }).verdict == .consistent)
            let report = try await checked.check(.incremental)
            #expect(report.verdict == .inconclusive && holds(report, "target_watched") == false, "\(report.summary)")
            let later = try await checked.check(.fence)
            #expect(later.verdict == .inconclusive, "\(later.summary)")
            let again = try await checked.check()
            #expect(try checked.table(again, "accounts").samples.map(\.key) == [["id": "1"]], "\(again.summary)")
        }
    }

    @Test("K15 K18 a full check that was stopped is not taken up again with another watch", arguments: Pair.wanted)
    func resumedWithAnotherWatch(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts, .items])
        try await checked.source.execute(Self.manyRows)
        try await checked.whileSyncing { _ in
            let check = try checked.makeCheck(.full, change: { $0.chunkRows = 20 })
            let running = Task { try await check.run() }
            // Past what a sample of the first rows would find.
            try await waitUntil { check.progress.rowsDone >= 400 }
            check.stop()
            let stopped = await #expect(throws: BridgeError.self) { try await running.value }
            #expect(stopped?.code == .interrupted)
            // With the same watch it goes on.
            let second = try checked.makeCheck(.full, change: { $0.chunkRows = 20 })
            let goingOn = Task { try await second.run() }
            try await waitUntil { second.progress.rowsDone >= 100 }
            second.stop()
            _ = await #expect(throws: BridgeError.self) { try await goingOn.value }
            try await checked.dropWatch()
            try await checked.target.execute("BEGIN; UPDATE accounts SET balance = -1 WHERE id = 300; COMMIT;")
            let report = try await checked.check()
            #expect(try checked.table(report, "accounts").samples.map(\.key) == [["id": "300"]], "\(report.summary)")
        }
    }

    @Test("K15 a target that was put back to an older state and overtook is found", arguments: Pair.wanted)
    func putBack(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts, .items])
        try await checked.source.execute(CheckedPair.someRows)
        try await checked.whileSyncing { _ in
            let first = try await checked.check()
            #expect(first.verdict == .consistent, "\(first.summary)")
        }
        let backup = try await checked.backUpTarget()
        try await checked.whileSyncing { _ in
            let second = try await checked.check(.incremental)
            #expect(second.verdict == .consistent, "\(second.summary)")
        }
        try await checked.restoreTarget(backup)
        try await checked.whileSyncing { _ in
            try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'on' WHERE id = 2; COMMIT;")
            try await waitUntil { try await checked.count("SELECT count(*) FROM accounts WHERE note = 'on'") == 1 }
            let report = try await checked.check(.incremental)
            #expect(report.verdict == .inconclusive && holds(report, "capture_uninterrupted") == false, "\(report.summary)")
            #expect(report.soundness.contains { $0.detail?.contains("put back") == true }, "\(report.summary)")
            let again = try await checked.check()
            #expect(again.verdict == .consistent, "\(again.summary)")
            #expect(try await checked.check(.fence).verdict == .consistent)
        }
    }

    @Test("K15 a check leaves its mark before its first view, and takes no other's away before it has written its state", arguments: Pair.wanted)
    func markedFirst(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute(CheckedPair.someRows.replacing("INSERT INTO items(a, b, price) VALUES (1, 'x', 0.5);", with: ""))
        try await checked.whileSyncing { _ in
            #expect(try await checked.check().verdict == .consistent)
            #expect(try await checked.marks() == 1)
            let check = try checked.makeCheck(.full)
            check.stop()
            let stopped = await #expect(throws: BridgeError.self) { try await check.run() }
            #expect(stopped?.code == .interrupted)
            #expect(try await checked.marks() == 2)
            let later = try await checked.check(.incremental)
            #expect(later.verdict == .consistent, "\(later.summary)")
            #expect(try await checked.check().verdict == .consistent)
            #expect(try await checked.marks() == 2)
            // A sample writes nothing.
            #expect(try await checked.check(.sample).verdict == .consistent)
            #expect(try await checked.marks() == 2)
        }
    }

    @Test(
        "K15 K16 rules and triggers that alter the applier's own rows are named",
        arguments: Pair.wanted.filter { $0.target is PostgreSQLEngine })
    func rulesAndTriggers(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts, .items])
        try await checked.source.execute(CheckedPair.someRows)
        try await checked.target.execute(
            """
            CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
            CREATE TRIGGER meddler BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION meddle();
            CREATE RULE ruler AS ON UPDATE TO items DO ALSO DELETE FROM accounts WHERE id = 77;
            """)
        try await checked.whileSyncing { _ in
            #expect(try await checked.check().verdict == .consistent)
            for (change, undo, name) in [
                ("accounts ENABLE ALWAYS TRIGGER meddler", "accounts ENABLE TRIGGER meddler", "meddler"),
                ("accounts ENABLE REPLICA TRIGGER meddler", "accounts DISABLE TRIGGER meddler", "meddler"),
                ("items ENABLE ALWAYS RULE ruler", "items ENABLE RULE ruler", "ruler"),
                ("items ENABLE REPLICA RULE ruler", "items DISABLE RULE ruler", "ruler"),
            ] {
                try await checked.target.execute("ALTER TABLE \(change)")
                for mode in [CheckReport.Mode.incremental, .full] {
                    let report = try await checked.check(mode)
                    #expect(report.verdict == .inconclusive && holds(report, "target_watched") == false, "\(change): \(report.summary)")
                    #expect(report.soundness.contains { $0.detail?.contains(name) == true }, "\(change): \(report.summary)")
                }
                try await checked.target.execute("ALTER TABLE \(undo)")
                #expect(try await checked.check(.incremental).verdict == .inconclusive)
                let again = try await checked.check()
                #expect(again.verdict == .consistent, "\(undo): \(again.summary)")
            }
        }
    }

    // MARK: Tables rebuilt

    @Test("K15 an SQLite source's table that was rebuilt with its triggers is compared anew", arguments: Pair.wanted.filter { $0.source is SQLiteEngine })
    func sourceRebuilt(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts, .items])
        try await checked.source.execute(CheckedPair.someRows)
        try await checked.whileSyncing { _ in
            #expect(try await checked.check().verdict == .consistent)
            try await checked.source.execute("VACUUM; ANALYZE; CREATE TABLE other(a); CREATE INDEX other_a ON other(a);")
            let calm = try await checked.check(.incremental)
            #expect(calm.verdict == .consistent, "\(calm.summary)")
            for value in [-1, -2] {
                try await CheckedPair.rebuild(checked.source.url, setting: value)
                let report = try await checked.check(.incremental)
                #expect(report.verdict == .inconclusive && holds(report, "whole_table_changes") == false, "\(report.summary)")
                #expect(try checked.table(report, "accounts").status == .inconclusive, "\(report.summary)")
                #expect(try checked.table(report, "items").status == .consistent, "\(report.summary)")
                let again = try await checked.check()
                #expect(try checked.table(again, "accounts").samples.map(\.key) == [["id": "1"]], "\(again.summary)")
                // Its change carries the whole row over.
                try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'n' WHERE id = 1; COMMIT;")
                try await waitUntil { try await checked.count("SELECT count(*) FROM accounts WHERE balance = \(value)") == 1 }
                let healed = try await checked.check(.incremental)
                #expect(healed.verdict == .consistent, "\(healed.summary)")
            }
        }
    }

    @Test("K15 an SQLite target's table that was rebuilt with its triggers is not watched", arguments: Pair.wanted.filter { $0.target is SQLiteEngine })
    func targetRebuilt(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts, .items])
        try await checked.source.execute(CheckedPair.someRows)
        try await checked.whileSyncing { _ in
            #expect(try await checked.check().verdict == .consistent)
            try await checked.target.execute("VACUUM; ANALYZE; CREATE INDEX more ON accounts(balance); CREATE TABLE other(a);")
            let calm = try await checked.check(.incremental)
            #expect(calm.verdict == .consistent, "\(calm.summary)")
            for value in [-1, -2] {
                try await CheckedPair.rebuild(checked.target.url, setting: value)
                let report = try await checked.check(.incremental)
                #expect(report.verdict == .inconclusive && holds(report, "target_watched") == false, "\(report.summary)")
                let again = try await checked.check()
                #expect(try checked.table(again, "accounts").samples.map(\.key) == [["id": "1"]], "\(again.summary)")
                try await checked.target.plant("UPDATE accounts SET balance = 10 WHERE id = 1")
                let healed = try await checked.check(.incremental)
                #expect(healed.verdict == .consistent, "\(healed.summary)")
            }
        }
    }

    // MARK: One table's capture

    private static let fromPostgres = Pair.wanted.filter { $0.source is PostgreSQLEngine }

    @Test("K15 a table that is emptied and filled again in the middle of a full check is compared again", arguments: fromPostgres)
    func truncatedMeanwhile(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts, .items])
        try await checked.source.execute(Self.manyRows)
        try await checked.whileSyncing { _ in
            let check = try checked.makeCheck(.full, change: { $0.chunkRows = 20 })
            async let outcome = check.run()
            try await waitUntil { check.progress.rowsDone >= 100 }
            try await checked.source.execute(
                "TRUNCATE accounts; INSERT INTO accounts SELECT n, 'v' || n, n, NULL FROM generate_series(1, 500) n; GRANT SELECT ON items TO PUBLIC")
            try #require(check.progress.rowsDone < 3_000)
            let report = try await outcome
            #expect(report.verdict == .consistent && report.gate.isOpen, "\(report.summary)")
            #expect(try checked.table(report, "accounts").rowsCompared == 500)
            let later = try await checked.check(.fence)
            #expect(later.verdict == .consistent, "\(later.summary)")
        }
    }

    @Test("K15 what rewrites one table leaves the others proven", arguments: fromPostgres)
    func oneTableRewritten(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts, .items])
        try await checked.source.execute(CheckedPair.someRows)
        try await checked.whileSyncing { _ in
            #expect(try await checked.check().verdict == .consistent)
            try await checked.source.execute("ALTER TABLE accounts ALTER email TYPE text USING upper(email)")
            for mode in [CheckReport.Mode.incremental, .fence, .incremental] {
                let report = try await checked.check(mode)
                #expect(report.verdict == .inconclusive && holds(report, "whole_table_changes") == false, "\(report.summary)")
                #expect(holds(report, "capture_unchanged") == true, "\(report.summary)")
                #expect(try checked.table(report, "accounts").status == .inconclusive, "\(report.summary)")
                #expect(try checked.table(report, "items").status == .consistent, "\(report.summary)")
            }
            let full = try await checked.check()
            #expect(full.verdict == .inconsistent, "\(full.summary)")
            try await checked.source.execute("UPDATE accounts SET email = lower(email)")
            let target = checked.target
            let source = checked.source
            try await waitUntil { try await source.rows(.accounts) == target.rows(.accounts) }
            let healed = try await checked.check(.incremental)
            #expect(healed.verdict == .consistent, "\(healed.summary)")
        }
    }
}

extension CheckedPair {
    private func sqlite(_ sql: String) async throws -> String {
        try await ChildProcess.run(
            ["sqlite3", "-batch", "-bail", String(target.url.dropFirst("sqlite:".count))], input: ".timeout 30000\n\(sql)\n")
    }

    /// How many checks have a mark on the target.
    func marks() async throws -> Int {
        let suffix = link.identifier.dropFirst("bridge_".count)
        if target is PostgreSQLDatabase { return try await count("SELECT count(*) FROM _bridge.marks_\(suffix) WHERE name <> ''") }
        return try await count("SELECT count(*) FROM \"_\(link.identifier)-foreign_state\" WHERE name LIKE 'check %'")
    }

    /// Removes everything that watches for foreign writes, as somebody who tidies up would.
    func dropWatch() async throws {
        if let target = target as? PostgreSQLDatabase {
            try await target.execute(
                """
                DO $$ DECLARE s text; BEGIN
                  FOR s IN SELECT 'DROP FUNCTION ' || oid::regprocedure || ' CASCADE' FROM pg_proc WHERE pronamespace = '_bridge'::regnamespace
                    UNION ALL SELECT 'DROP TABLE ' || oid::regclass FROM pg_class
                    WHERE relnamespace = '_bridge'::regnamespace AND relkind = 'r' AND relname NOT LIKE 'link%' AND relname <> 'conflict'
                  LOOP EXECUTE s; END LOOP; END $$
                """)
        } else {
            let drops = try await sqlite(
                """
                SELECT 'DROP ' || type || ' "' || name || '";' FROM sqlite_master WHERE name LIKE '%-foreign%' AND type = 'trigger';
                SELECT 'DROP ' || type || ' "' || name || '";' FROM sqlite_master WHERE name LIKE '%-foreign%' AND type = 'table';
                """)
            _ = try await sqlite("BEGIN IMMEDIATE; \(drops) COMMIT;")
        }
    }

    /// - Returns: the name of a copy of the target, which nobody may be connected to.
    func backUpTarget() async throws -> String {
        if let target = target as? PostgreSQLDatabase {
            try await replace(target.database + "_backup", with: target.database, target.cluster)
            return target.database + "_backup"
        }
        // The last connection that closes leaves one file.
        _ = try await sqlite("PRAGMA wal_checkpoint(TRUNCATE);")
        let path = String(target.url.dropFirst("sqlite:".count))
        try await ChildProcess.run(["cp", path, path + "-backup"])
        return path + "-backup"
    }

    func restoreTarget(_ backup: String) async throws {
        if let target = target as? PostgreSQLDatabase {
            try await replace(target.database, with: backup, target.cluster)
        } else {
            let path = String(target.url.dropFirst("sqlite:".count))
            try await ChildProcess.run(["sh", "-c", "rm -f \"$1-wal\" \"$1-shm\" && cp \"$2\" \"$1\"", "sh", path, backup])
        }
    }

    private func replace(_ name: String, with template: String, _ cluster: PostgresCluster) async throws {
        try await cluster.psql(
            cluster.uri("postgres"),
            """
            DROP DATABASE IF EXISTS \(quoteIdentifier(name)) WITH (FORCE);
            ALTER DATABASE \(quoteIdentifier(template)) ALLOW_CONNECTIONS false;
            SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = \(quoteLiteral(template));
            CREATE DATABASE \(quoteIdentifier(name)) TEMPLATE \(quoteIdentifier(template));
            ALTER DATABASE \(quoteIdentifier(template)) ALLOW_CONNECTIONS true;
            """)
    }

    /// Rebuilds the table `accounts` of an SQLite database as its manual says, triggers and all, and changes a row on the way.
    static func rebuild(_ url: String, setting value: Int) async throws {
        let path = String(url.dropFirst("sqlite:".count))
        func run(_ sql: String) async throws -> String {
            try await ChildProcess.run(["sqlite3", "-batch", "-bail", path], input: ".timeout 30000\n\(sql)\n")
        }
        let table = try await run("SELECT replace(sql, 'accounts', 'accounts_new') FROM sqlite_master WHERE type = 'table' AND name = 'accounts';")
        let rest = try await run("SELECT sql || ';' FROM sqlite_master WHERE tbl_name = 'accounts' AND type IN ('index', 'trigger') AND sql NOT NULL ORDER BY rowid;")
        _ = try await run(
            """
            BEGIN IMMEDIATE; \(table);
            INSERT INTO accounts_new SELECT id, email, iif(id = 1, \(value), balance), note FROM accounts;
            DROP TABLE accounts; ALTER TABLE accounts_new RENAME TO accounts; \(rest) COMMIT;
            """)
    }
}

extension PostgreSQLDatabase {
    var database: String { String(url.split(separator: "?")[0].split(separator: "/").last ?? "") }
}

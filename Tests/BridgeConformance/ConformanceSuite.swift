import BridgeCore
import BridgeReplication
import BridgeTestSupport
import Logging
import Testing

/// What every pair of connectors must do, written once against the contracts.
///
/// Each function is one scenario; the tests run each for every pair of engines.
package struct ConformanceSuite: Sendable {
    package let source: any ConformanceDatabase
    package let target: any ConformanceDatabase
    let folder: TemporaryDirectory
    let link: LinkDescription

    package init(source: any ConformanceEngine, target: any ConformanceEngine) async throws {
        self.source = try await source.makeDatabase()
        self.target = try await target.makeDatabase()
        folder = try TemporaryDirectory(prefix: "pair")
        let (from, to) = (self.source, self.target)
        let isSame = try from.makeSource().engine == to.makeSource().engine
        link = LinkDescription(
            migration: "pair-\(UInt32.random(in: 0...UInt32.max))", direction: .forward,
            mappings: ConformanceTable.all.map {
                TableMapping(source: from.tableName($0.name), target: to.tableName($0.name))
            },
            form: isSame ? .native : .canonical)
        for table in ConformanceTable.all {
            try await from.create(table)
            try await to.create(table)
        }
    }

    func makeRunner(
        batchBytes: Int = 1 << 20, budget: Int64? = nil, selecting: LinkDescription? = nil
    ) throws -> LinkRunner {
        try LinkRunner(
            configuration: LinkConfiguration(
                link: selecting ?? link, journalDirectory: folder.path("journal"), captureDirectory: folder.path("capture"),
                batchBytes: batchBytes,
                journalBudget: budget, patience: .seconds(30)),
            source: source.makeSource(), target: target.makeTarget(),
            logger: Logger(label: "conformance") { _ in SwiftLogNoOpLogHandler() })
    }

    func expectEqual(_ comment: Comment) async throws {
        for table in ConformanceTable.all {
            let (expected, found) = (try await source.rows(table), try await target.rows(table))
            #expect(expected == found, "\(comment): \(table.name)")
        }
    }

    static let first = #"""
        BEGIN;
        INSERT INTO accounts VALUES (1, 'a', 10, NULL), (2, 'b', -9223372036854775808, ''), (3, 'c', NULL, 'tab\#there'),
          (4, 'd', 9223372036854775807, 'back\slash'), (5, 'e', 0, 'ünï ''quoted'' "x"');
        INSERT INTO items(a, b, price) VALUES (1, 'x', 0.1), (1, 'y', -1.5e300), (2, '', 5e-324), (3, ' ', NULL);
        INSERT INTO "Order ""x""" VALUES ('k', 1, NULL), ('K', 2, 'v'), ('', 3, 'w');
        COMMIT;
        """#
    static let changes = #"""
        BEGIN; UPDATE accounts SET balance = 11 WHERE id = 1; DELETE FROM accounts WHERE id = 3; COMMIT;
        BEGIN; UPDATE accounts SET id = 30 WHERE id = 4; INSERT INTO accounts VALUES (4, 'again', 1, NULL); COMMIT;
        BEGIN; DELETE FROM accounts WHERE email = 'b'; INSERT INTO accounts VALUES (2, 'b', 7, 'back'); COMMIT;
        BEGIN; UPDATE items SET b = 'z', price = 2.5 WHERE a = 1 AND b = 'x'; DELETE FROM items WHERE a = 2; COMMIT;
        BEGIN; UPDATE "Order ""x""" SET data = NULL, "Ünï code" = NULL WHERE "select" = ''; COMMIT;
        BEGIN; UPDATE accounts SET email = 'swap' WHERE id = 1; UPDATE accounts SET email = 'a' WHERE id = 2;
          UPDATE accounts SET email = 'b' WHERE id = 1; COMMIT;
        """#

    /// Rows that are there before, and changes of every kind after.
    package func copyThenStream() async throws {
        try await source.execute(Self.first)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await expectEqual("after the copy")
        try await source.execute(Self.changes)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await expectEqual("after the changes")
        #expect(try await !source.rows(.accounts).isEmpty)
    }

    /// A writer that never pauses from before the copy begins until after it ended.
    package func writesDuringCopy() async throws {
        try await source.execute(Self.bulk(from: 1_000, count: 5_000))
        let (source, writing) = (source, StopFlag())
        async let written: Int = {
            var round = 0
            while !Task.isCancelled, !writing.isSet || round < 20 {
                round += 1
                try await source.execute(
                    """
                    BEGIN; INSERT INTO accounts VALUES (\(round), 'w\(round)', \(round), NULL);
                    UPDATE accounts SET balance = balance + 1 WHERE id % 50 = \(round % 50);
                    DELETE FROM accounts WHERE id = \(1_000 + round); COMMIT;
                    """)
            }
            return round
        }()
        let runner = try makeRunner()
        #expect(try await runner.run(untilCaughtUp: true))
        writing.set()
        #expect(try await written >= 20)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await expectEqual("after writes during the copy")
    }

    /// Stopped in good order again and again; each run goes on where the last one stopped.
    package func stopsAndResumes() async throws {
        try await source.execute(Self.first)
        for round in 0..<4 {
            let runner = try makeRunner()
            async let outcome = runner.run(untilCaughtUp: false)
            try await waitUntil { runner.progress.activity == .streaming }
            try await source.execute(Self.bulk(from: 10_000 * (round + 1), count: 300))
            if round % 2 == 0 {
                try await waitUntil { runner.progress.transactionsApplied > 0 }
            }
            runner.stop()
            #expect(try await !outcome)
        }
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await expectEqual("after four stops")
    }

    /// One transaction far larger than a batch, with updates of what it inserted.
    package func largeTransaction() async throws {
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await source.execute(
            "BEGIN; \(Self.rows(from: 1, count: 20_000)); UPDATE accounts SET note = 'x' || note WHERE id % 3 = 0; "
                + "DELETE FROM accounts WHERE id % 7 = 0; COMMIT;")
        #expect(try await makeRunner(batchBytes: 64 << 10).run(untilCaughtUp: true))
        try await expectEqual("after a large transaction")
        try await source.execute("BEGIN; DELETE FROM accounts; COMMIT;")
        #expect(try await makeRunner(batchBytes: 64 << 10).run(untilCaughtUp: true))
        try await expectEqual("after everything was deleted")
    }

    /// A transaction that the journal's budget has no room for passes all the same, and so does what follows it.
    package func transactionLargerThanBudget() async throws {
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await source.execute(Self.bulk(from: 100, count: 20_000))
        try await source.execute(Self.first)
        #expect(try await makeRunner(batchBytes: 64 << 10, budget: 50_000).run(untilCaughtUp: true))
        try await expectEqual("after a transaction larger than the budget")
    }

    /// A stop is heard while capture waits for room in the journal, and for the applier that would make it.
    package func stopsWithoutRoom() async throws {
        #expect(try await makeRunner().run(untilCaughtUp: true))
        let runner = try makeRunner(budget: 50_000)
        let run = Task { try await runner.run(untilCaughtUp: false) }
        try await waitUntil { runner.progress.activity == .streaming }
        let isOver = StopFlag()
        let applier = Task {
            await runner.betweenTransactions { _, _ in try? await waitUntil(deadline: .seconds(120)) { isOver.isSet } }
        }
        for round in 0..<8 { try await source.execute(Self.bulk(from: 10_000 * (round + 1), count: 5_000)) }
        try await waitUntil { runner.progress.trouble?.contains("budget") == true }
        // Meanwhile the next part has been read, and waits to be handed on.
        try await source.execute(Self.first)
        runner.stop()
        isOver.set()
        try await waitUntil("the run's end") { runner.progress.activity == .stopped }
        _ = await applier.value
        #expect(try await !run.value)
        #expect(try await makeRunner(budget: 50_000).run(untilCaughtUp: true))
        try await expectEqual("after a stop without room")
    }

    /// The target's connection is cut while a change waits there, and the source has nothing more to say.
    package func lostTargetOnIdleSource(cut: @Sendable (_ write: @Sendable () async throws -> Void) async throws -> Void) async throws {
        try await source.execute(Self.first)
        let runner = try makeRunner()
        async let outcome = runner.run(untilCaughtUp: false)
        try await waitUntil { runner.progress.activity == .streaming }
        let source = source
        try await cut { try await source.execute("BEGIN; UPDATE accounts SET balance = 77 WHERE id = 1; COMMIT;") }
        let target = target
        try await waitUntil { try await source.rows(.accounts) == target.rows(.accounts) }
        #expect(runner.progress.reconnects > 0)
        runner.stop()
        #expect(try await !outcome)
    }

    /// A live link keeps up: what is committed arrives without another run.
    package func staysInSync() async throws {
        try await source.execute(Self.first)
        let runner = try makeRunner()
        async let outcome = runner.run(untilCaughtUp: false)
        try await waitUntil { runner.progress.activity == .streaming }
        for round in 1...5 {
            try await source.execute("BEGIN; UPDATE accounts SET balance = \(round) WHERE id = 1; COMMIT;")
            let (source, target) = (source, target)
            try await waitUntil { try await source.rows(.accounts) == target.rows(.accounts) }
        }
        #expect(runner.progress.journaled >= runner.progress.applied || runner.progress.isDrained)
        runner.stop()
        #expect(try await !outcome)
        try await expectEqual("after live changes")
    }

    /// What was made is named after the migration and can be removed without a trace, data aside.
    package func removesItsTraces() async throws {
        #expect(try await source.traces().isEmpty)
        try await source.execute(Self.first)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        #expect(try await !source.traces().isEmpty)
        let (from, to) = (try source.makeSource(), try target.makeTarget())
        try await from.connect()
        try await to.connect()
        try await from.removeCapture(link)
        try await to.removeLink(link)
        try await from.removeCapture(link)
        try await to.removeLink(link)
        await from.close()
        await to.close()
        #expect(try await source.traces().isEmpty)
        #expect(try await target.traces().isEmpty)
        try await source.execute(Self.changes)
    }

    /// A target that holds rows already is not touched, and a failed start leaves nothing behind.
    package func refusesFilledTarget() async throws {
        try await source.execute(Self.first)
        try await target.execute("BEGIN; INSERT INTO accounts VALUES (99, 'mine', 1, NULL); COMMIT;")
        let error = await #expect(throws: BridgeError.self) { try await makeRunner().run(untilCaughtUp: true) }
        #expect(error?.code == .targetTableNotEmpty)
        #expect(error?.exitStatus == .configuration)
        #expect(try await source.traces().isEmpty)
        #expect(try await target.traces().isEmpty)
        #expect(try await target.rows(.accounts).count == 1)
    }

    /// A target that somebody else changed is a named conflict, never papered over.
    package func staleJournalIsRefused() async throws {
        try await source.execute(Self.first)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        // A journal of another link in this one's place.
        let other = try await ConformanceSuite(source: SameDatabase(source), target: SameDatabase(target), folder: folder)
        let error = await #expect(throws: BridgeError.self) { try await other.makeRunner().run(untilCaughtUp: true) }
        #expect([.journalForeign, .targetTableNotEmpty].contains(error?.code))
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await expectEqual("after a foreign start was refused")
    }

    /// A name that is taken on the source by something the target knows nothing of is refused before anything is made,
    /// and what stands there is left alone.
    package func refusesTakenName() async throws {
        let other = try source.makeSource()
        try await other.connect()
        _ = try await other.prepareCapture(link, replacingLeftovers: false)
        await other.close()
        let traces = try await source.traces()
        #expect(!traces.isEmpty)
        let error = await #expect(throws: BridgeError.self) { try await makeRunner().run(untilCaughtUp: true) }
        #expect(error?.code == .slotForeign)
        #expect(try await source.traces() == traces)
        #expect(try await target.traces().isEmpty)
    }

    /// Other tables, columns or filters under a migration that has begun would leave rows out without a word.
    package func refusesChangedSelection() async throws {
        try await source.execute(Self.first)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        var (fewer, narrower, filtered) = (link, link, link)
        fewer.mappings.removeLast()
        narrower.mappings[0].columns = ["id", "email"]
        filtered.mappings[0].rowFilter = "id > 2"
        for changed in [fewer, narrower, filtered] {
            let error = await #expect(throws: BridgeError.self) {
                try await makeRunner(selecting: changed).run(untilCaughtUp: true)
            }
            #expect(error?.code == .configurationInvalid)
        }
        try await source.execute(Self.changes)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await expectEqual("after the first selection was restored")
    }

    /// What was captured and not yet applied is on no other disk: without its journal a link does not go on.
    package func refusesMissingJournal() async throws {
        try await source.execute(Self.first)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        let rows = try await target.rows(.accounts)
        let (journal, aside) = (folder.path("journal"), folder.path("aside"))
        try ChildProcess.runBlocking(["mv", journal, aside])
        try await source.execute(Self.changes)
        let error = await #expect(throws: BridgeError.self) { try await makeRunner().run(untilCaughtUp: true) }
        #expect(error?.code == .journalMissing)
        #expect(try await target.rows(.accounts) == rows)
        try ChildProcess.runBlocking(["rm", "-rf", journal])
        try ChildProcess.runBlocking(["mv", aside, journal])
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await expectEqual("after the journal came back")
    }

    private init(source: SameDatabase, target: SameDatabase, folder: TemporaryDirectory) async throws {
        self.source = source.database
        self.target = target.database
        self.folder = folder
        let (from, to) = (source.database, target.database)
        link = LinkDescription(
            migration: "other-\(UInt32.random(in: 0...UInt32.max))", direction: .forward,
            mappings: ConformanceTable.all.map {
                TableMapping(source: from.tableName($0.name), target: to.tableName($0.name))
            },
            form: try from.makeSource().engine == to.makeSource().engine ? .native : .canonical)
    }

    static func rows(from first: Int, count: Int) -> String {
        """
        INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT \(first) UNION ALL SELECT n + 1 FROM g
          WHERE n < \(first + count - 1)) SELECT n, 'bulk' || n, n % 1000, 'note ' || n FROM g
        """
    }

    static func bulk(from first: Int, count: Int) -> String { "BEGIN; \(rows(from: first, count: count)); COMMIT;" }
}

/// Stands for a database that exists already.
private struct SameDatabase: Sendable {
    let database: any ConformanceDatabase
    init(_ database: any ConformanceDatabase) { self.database = database }
}

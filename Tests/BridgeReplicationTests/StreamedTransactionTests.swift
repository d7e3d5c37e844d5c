import BridgeConformance
import BridgeCore
import BridgePostgreSQL
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Logging
import Synchronization
import Testing

/// Transactions that a PostgreSQL source streams while they run, from end to end.
@Suite("Streamed transactions", .serialized)
struct StreamedTransactionTests {
    private let source: PostgreSQLDatabase
    private let target: PostgreSQLDatabase
    private let folder: TemporaryDirectory
    private let link: LinkDescription
    private static let tables = [ConformanceTable.accounts, .items]

    init() async throws {
        source = try #require(try await PostgreSQLEngine().makeDatabase() as? PostgreSQLDatabase)
        target = try #require(try await PostgreSQLEngine().makeDatabase() as? PostgreSQLDatabase)
        folder = try TemporaryDirectory(prefix: "streamed")
        for database in [source, target] {
            for table in Self.tables { try await database.create(table) }
            try await Self.streamFromTheStart(database)
        }
        link = LinkDescription(
            migration: "streamed-\(UInt32.random(in: 0...UInt32.max))", direction: .forward,
            mappings: Self.tables.map {
                TableMapping(source: TableName(schema: "public", name: $0.name), target: TableName(schema: "public", name: $0.name))
            }, form: .native)
    }

    /// Lets the server stream transactions from 64 kB on.
    private static func streamFromTheStart(_ database: PostgreSQLDatabase) async throws {
        let name = try await database.cluster.psql(database.url, "SELECT current_database()")
        try await database.execute("ALTER DATABASE \"\(name)\" SET logical_decoding_work_mem = '64kB'")
    }

    private func makeRunner(budget: Int64? = nil, log: LogLines? = nil) throws -> LinkRunner {
        try LinkRunner(
            configuration: LinkConfiguration(
                link: link, journalDirectory: folder.path("journal"), captureDirectory: folder.path("capture"), batchBytes: 64 << 10,
                journalBudget: budget, patience: .seconds(30)),
            source: source.makeSource(), target: target.makeTarget(),
            logger: Logger(label: "streamed") { _ in log ?? LogLines() })
    }

    private func expectEqual() async throws {
        for table in Self.tables {
            let (expected, found) = (try await source.rows(table), try await target.rows(table))
            #expect(expected == found, "\(table.name)")
        }
        #expect(try await !source.rows(.accounts).isEmpty)
    }

    @Test("P16 P17 200 interleaved transactions commit in another order than they began")
    func interleaved() async throws {
        #expect(try await makeRunner().run(untilCaughtUp: true))
        let runner = try makeRunner()
        async let outcome = runner.run(untilCaughtUp: false)
        try await waitUntil { runner.progress.activity == .streaming }
        // Fifty side by side, four times over.
        try await BlockingWork().run { [url = source.url] in
            var (random, _) = SeededGenerator.named("200 interleaved transactions")
            let sessions = try (0..<50).map { _ in try PostgresConnection(try ConnectionString(url)) }
            for round in 0..<4 {
                for part in 0..<2 {
                    for (number, session) in sessions.enumerated().shuffled(using: &random) {
                        let id = (round * 50 + number + 1) * 1_000 + part * 200
                        try session.execute(
                            """
                            \(part == 0 ? "BEGIN;" : "") SET search_path = public; INSERT INTO accounts SELECT \(id) + g, 'n' || \(id) + g, g, repeat('x', 400) FROM generate_series(1, 60) g;
                            UPDATE accounts SET balance = balance + 1 WHERE id BETWEEN \(id) AND \(id) + 20; SAVEPOINT s;
                            DELETE FROM accounts WHERE id = \(id) + 7; \(number % 3 == part ? "ROLLBACK TO s;" : "")
                            """)
                    }
                }
                for (number, session) in sessions.enumerated().shuffled(using: &random) {
                    try session.execute((round * 50 + number) % 10 == 9 ? "ROLLBACK" : "COMMIT")
                }
            }
        }
        try await source.execute("BEGIN; INSERT INTO items VALUES (1, 'end', NULL, NULL); COMMIT;")
        let target = target
        try await waitUntil(deadline: .seconds(60)) { try await target.rows(.items).count == 1 }
        runner.stop()
        #expect(try await !outcome)
        try await expectEqual()
        #expect(try await source.rows(.accounts).count > 15_000)
    }

    @Test("P16 P19 a large transaction that begins with a truncate is not sent back by a streaming capture of the target")
    func noEcho() async throws {
        #expect(try await makeRunner().run(untilCaughtUp: true))
        let back = try PostgresSource(connectionString: target.url)
        let origin = try await back.prepareCapture(link.reversed, replacingLeftovers: false)
        let session = try await back.openCapture(
            link.reversed, origin: origin, durable: origin.position, workspace: CaptureWorkspace(directory: folder.path("back")))
        for first in ["TRUNCATE accounts, items;", "DELETE FROM accounts WHERE id % 2 = 0;"] {
            try await source.execute(
                "BEGIN; \(first) INSERT INTO accounts SELECT g * 2, 'n' || g, g, repeat('x', 100) FROM generate_series(1, 3000) g; COMMIT;")
            #expect(try await makeRunner().run(untilCaughtUp: true))
        }
        try await expectEqual()
        let end = try await back.currentPosition(link.reversed)
        let buffer = RecordBuffer()
        var rows = 0
        try await waitUntil {
            buffer.removeAll()
            let progress = try await session.read(into: buffer, limit: 1 << 20, patience: .milliseconds(50))
            rows += progress.rows
            return progress.frontier >= end
        }
        #expect(rows == 0)
        await session.close()
        try await back.removeCapture(link.reversed)
    }

    /// The larger budget holds a transaction once, but not twice.
    @Test("P16 J6 without room for running transactions the source holds them, a warning says so, and all arrives", arguments: [200_000, 900_000] as [Int64])
    func noRoom(_ budget: Int64) async throws {
        #expect(try await makeRunner().run(untilCaughtUp: true))
        let log = LogLines()
        let runner = try makeRunner(budget: budget, log: log)
        async let outcome = runner.run(untilCaughtUp: false)
        try await waitUntil { runner.progress.activity == .streaming }
        for round in 0..<3 {
            try await source.execute(
                "BEGIN; INSERT INTO accounts SELECT \(round * 10_000) + g, 'n\(round)' || g, g, repeat('x', 100) FROM generate_series(1, 4000) g; COMMIT;")
        }
        let (source, target) = (source, target)
        try await waitUntil { try await source.rows(.accounts).count == target.rows(.accounts).count }
        runner.stop()
        #expect(try await !outcome)
        try await expectEqual()
        #expect(log.lines.count { $0.contains("the source holds them until they commit") } == 1)
        #expect(runner.progress.reconnects == 1)
    }

    @Test("R1 P1 P16 killed where running transactions are kept and read back, the target is equal at the end", arguments: Failpoint.ofStreaming.map(\.name))
    func killed(_ failpoint: String) async throws {
        let configuration = try BridgeProgram.configure(
            in: folder, migration: link.migration, source: source.url, target: target.url, tables: Self.tables.map(\.name),
            settings: "replication: { batch_bytes: 64KiB }\n")
        let arguments = ["run", "--until-caught-up", "--config", configuration]
        #expect(try await BridgeProgram.run(arguments).status == 0)
        // Larger than the program's reads of 1 MiB.
        let passage = failpoint == Failpoint.captureReadBack.name ? 1 : 2
        try await source.execute(
            """
            BEGIN; SAVEPOINT a; INSERT INTO accounts SELECT -g, 'gone' || g, g, repeat('x', 100) FROM generate_series(1, 2000) g; ROLLBACK TO a;
            INSERT INTO accounts SELECT \(passage) * 100000 + g, \(passage) || 'n' || g, g, repeat('x', 100) FROM generate_series(1, 15000) g;
            UPDATE accounts SET balance = 0 WHERE id % 10 = 0; COMMIT;
            BEGIN; INSERT INTO items VALUES (\(passage), 'b', NULL, 0.5); COMMIT;
            """)
        let outcome = try await BridgeProgram.run(arguments, environment: ["BRIDGE_FAILPOINTS": "\(failpoint)=kill@\(passage)"])
        #expect(outcome.status == -9, "\(failpoint): \(outcome.errors)")
        let last = try await BridgeProgram.run(arguments)
        #expect(last.status == 0, "\(last.errors)")
        try await expectEqual()
    }
}

/// Keeps the warnings and errors.
private final class LogLines: LogHandler {
    private let texts = Mutex<[String]>([])
    var lines: [String] { texts.withLock { $0 } }

    var metadata: Logger.Metadata { get { [:] } set {} }
    var logLevel: Logger.Level { get { .trace } set {} }
    subscript(metadataKey _: String) -> Logger.Metadata.Value? { get { nil } set {} }

    func log(event: LogEvent) {
        if event.level >= .warning { texts.withLock { $0.append("\(event.message)") } }
    }
}

import BridgeConformance
import BridgeCore
import BridgePostgreSQL
import BridgeReplication
import BridgeTestSupport
import Logging
import Synchronization
import Testing

/// A link between two PostgreSQL databases, either of which may stand behind a proxy on a cluster of its own.
struct FailurePlace: Sendable {
    /// A database, and how the link reaches it.
    struct End: Sendable {
        let cluster: PostgresCluster
        let uri: String
        var address: String
        let proxy: TCPProxy?

        /// In the shared cluster, reached over its socket.
        static func shared() async throws -> End {
            let cluster = try PostgresCluster.shared
            let uri = try await cluster.makeDatabase("failure")
            return End(cluster: cluster, uri: uri, address: uri, proxy: nil)
        }

        /// In a cluster of its own behind a proxy, with `words` in the connection string.
        static func proxied(
            user: String = "postgres", words: [String] = ["tcp_user_timeout=300", "connect_timeout=5"]
        ) async throws -> End {
            let cluster = try await PostgresCluster.started(
                // A server that is killed leaves what it wrote to the system.
                settings: ["fsync": "off"], isListening: true)
            let uri = try await cluster.makeDatabase("failure")
            let proxy = try TCPProxy(to: try #require(cluster.port))
            return End(
                cluster: cluster, uri: uri, address: cluster.overTCP(uri, port: proxy.port, user: user, words: words), proxy: proxy)
        }

        @discardableResult
        func sql(_ text: String) async throws -> String { try await cluster.psql(uri, text) }

        func blocking(_ body: @Sendable (PostgresCluster) throws -> Void) async throws {
            try await BlockingWork().run { [cluster] in try body(cluster) }
        }
    }

    static let tables = ["a", "b"]
    let source: End
    let target: End
    let folder: TemporaryDirectory
    let link: LinkDescription

    init(source: End, target: End) async throws {
        self.source = source
        self.target = target
        folder = try TemporaryDirectory(prefix: "failure")
        for end in [source, target] {
            for table in Self.tables { try await end.sql("CREATE TABLE \(table)(id bigint PRIMARY KEY, v bigint NOT NULL, note text)") }
        }
        let name = { TableName(schema: "public", name: $0) }
        link = LinkDescription(
            migration: "failure-\(UInt32.random(in: 0...UInt32.max))", direction: .forward,
            mappings: Self.tables.map { TableMapping(source: name($0), target: name($0)) }, form: .native)
    }

    func runner(limit: SlotLimit? = nil, budget: Int64? = nil) throws -> LinkRunner {
        LinkRunner(
            configuration: LinkConfiguration(
                link: link, journalDirectory: folder.path("journal"), batchBytes: 1 << 20, journalBudget: budget, slotLimit: limit),
            source: try PostgresSource(connectionString: source.address),
            target: PostgresTarget(connectionString: target.address),
            logger: Logger(label: "failure") { _ in SwiftLogNoOpLogHandler() })
    }

    /// A transaction over both tables. Whether it was committed, only the source knows where its answer was lost.
    static func transaction(_ number: Int) -> String {
        """
        BEGIN;
        INSERT INTO a VALUES (\(number), 0, 'n\(number)'); INSERT INTO b SELECT \(number) * 10 + g, g, NULL FROM generate_series(0, 2) g;
        UPDATE a SET v = v + 1 WHERE id % 7 = \(number % 7); DELETE FROM b WHERE id = \(number * 10 - 50);
        COMMIT;
        """
    }

    /// Writes until told to stop, whatever fails. Numbers go up from `start`.
    func write(from start: Int, until stop: StopFlag) async -> Int {
        var number = start
        while !stop.isSet, !Task.isCancelled {
            number += 1
            if (try? await source.sql(Self.transaction(number))) == nil { try? await Task.sleep(for: .milliseconds(50)) }
        }
        return number
    }

    static func contents(_ end: End) async throws -> String {
        try await end.sql(
            tables.map { "SELECT '\($0)', count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM \($0) t" }.joined(separator: " UNION ALL ") + " ORDER BY 1")
    }

    /// Runs the link with a writer at work, and `body` meanwhile; then both sides must be equal.
    func run(limit: SlotLimit? = nil, _ body: (LinkRunner) async throws -> Void) async throws {
        let runner = try runner(limit: limit)
        let running = Task { () async -> Result<Bool, BridgeError> in
            do throws(BridgeError) { return .success(try await runner.run(untilCaughtUp: false)) } catch { return .failure(error) }
        }
        let flag = StopFlag()
        let writing = Task { await write(from: 0, until: flag) }
        do {
            try await waitUntil("the link streams") { runner.progress.isCapturing && runner.progress.transactionsApplied > 0 }
            try await body(runner)
            flag.set()
            #expect(await writing.value > 0)
            try await waitUntil(deadline: .seconds(60), "both sides are equal; \(runner.progress)") {
                try await Self.contents(source) == Self.contents(target)
            }
        } catch {
            Issue.record("\(error); \(runner.progress)")
        }
        flag.set()
        runner.stop()
        _ = await writing.value
        if case .failure(let error) = await running.value { Issue.record("the run failed: \(error)") }
    }

    /// Does something to the link, and waits until it is at work again.
    static func fault(_ runner: LinkRunner, _ what: String, _ body: () async throws -> Void) async throws {
        let before = runner.progress.reconnects
        try await body()
        try await recovered(runner, after: before, what)
    }

    /// Waits until the link is at work after a failure: it has noticed, and applies anew.
    static func recovered(_ runner: LinkRunner, after reconnects: Int, _ what: String) async throws {
        try await waitUntil(deadline: .seconds(60), "\(what) is noticed") { runner.progress.reconnects > reconnects }
        let applied = runner.progress.transactionsApplied
        try await waitUntil(deadline: .seconds(60), "the link goes on after \(what)") {
            let progress = runner.progress
            return progress.isCapturing && progress.transactionsApplied > applied && progress.trouble == nil
        }
    }
}

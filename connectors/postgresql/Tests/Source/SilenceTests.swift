import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// Servers that cannot be heard any more though their connections stand (P18).
@Suite(.serialized) struct SilenceTests {
    static let cluster = Result { try PostgresCluster.start(isListening: true) }

    /// With a short limit: twice `tcp_user_timeout`.
    private static let words = ["tcp_user_timeout=200", "connect_timeout=5"]

    private func proxied() throws -> (PostgresCluster, TCPProxy) {
        let cluster = try Self.cluster.get()
        return (cluster, try TCPProxy(to: try #require(cluster.port)))
    }

    struct Fault: CustomTestStringConvertible, Sendable {
        var toServer: TCPProxy.Flow
        var toClient: TCPProxy.Flow
        var sparesNew = false
        var testDescription: String { "\(toServer) \(toClient)\(sparesNew ? ", old connections only" : "")" }
    }

    @Test(
        "P18 a capture notices that nothing arrives any more, and the next one goes on",
        arguments: [
            Fault(toServer: .stalled, toClient: .stalled), Fault(toServer: .passing, toClient: .stalled, sparesNew: true),
        ])
    func capture(_ fault: Fault) async throws {
        let (cluster, proxy) = try proxied()
        let fixture = try await SourceFixture("CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"], cluster: cluster)
        var options = PostgresSource.Options()
        options.readerPatience = .seconds(20)
        let source = try PostgresSource(
            connectionString: cluster.overTCP(fixture.uri, port: proxy.port, words: Self.words), options: options)
        let origin = try await source.prepareCapture(fixture.link, replacingLeftovers: false)
        try await source.openSnapshot(fixture.link).close()
        var stream = Stream(
            session: try await source.openCapture(fixture.link, origin: origin, durable: origin.position), source: source,
            link: fixture.link)
        try await fixture.psql("INSERT INTO t VALUES (1)")
        try await stream.catchUp()
        proxy.set(toServer: fault.toServer, toClient: fault.toClient, sparesNew: fault.sparesNew)
        try await fixture.psql("INSERT INTO t VALUES (2)")
        let error = try await failure {
            let end = ContinuousClock.now + .seconds(60)
            while .now < end { try await stream.step() }
        }
        #expect(error.code == .connectionLost && error.retry == .backoff, "\(error)")
        let durable = stream.frontier
        let delivered = stream.takeChanges()
        await stream.session.close()
        proxy.drop()
        proxy.restore()
        stream = Stream(
            session: try await source.openCapture(fixture.link, origin: origin, durable: durable), source: source,
            link: fixture.link)
        try await stream.catchUp()
        #expect(delivered + stream.takeChanges() == ["insert t (1)", "insert t (2)"])
        await stream.session.close()
        try await source.removeCapture(fixture.link)
        await source.close()
    }

    @Test("P18 a statement that takes long, or waits for a lock, is no lost connection")
    func working() async throws {
        let (cluster, proxy) = try proxied()
        let uri = try await cluster.makeDatabase("silence")
        let address = cluster.overTCP(uri, port: proxy.port, words: ["tcp_user_timeout=100"])
        let before = proxy.accepted
        try await BlockingWork().run { () throws(BridgeError) in
            let session = try PostgresConnection(ConnectionString(address))
            #expect(try session.rows("SELECT pg_sleep(1), 'done'").first?[1] == "done")
        }
        // It was really asked for.
        #expect(proxy.accepted > before + 1)
        let holder = BlockingSession(uri)
        try await holder.execute("CREATE TABLE t(id int)")
        try await holder.execute("BEGIN; LOCK TABLE t")
        async let waiting = BlockingWork().run { () throws(BridgeError) in
            try PostgresConnection(ConnectionString(address)).rows("SELECT count(*) FROM public.t")
        }
        let asked = proxy.accepted
        try await waitUntil("the server is asked what the session does") { proxy.accepted > asked + 2 }
        try await holder.execute("COMMIT")
        #expect(try await waiting.first?[0] == "0")
        await holder.close()
    }

    @Test("P18 an answer, or a stream of rows, that does not arrive is a lost connection")
    func lost() async throws {
        let (cluster, proxy) = try proxied()
        let uri = try await cluster.makeDatabase("silence")
        let address = cluster.overTCP(uri, port: proxy.port, words: ["tcp_user_timeout=100"])
        for copies in [false, true] {
            for sparesNew in [false, true] {
                let error = try await failure {
                    try await BlockingWork().run { () throws(BridgeError) in
                        let session = try PostgresConnection(ConnectionString(address))
                        var data = PGCopyData()
                        if copies {
                            try session.beginCopyOut("COPY (SELECT g, repeat('x', 1000) FROM generate_series(1, 100000) g) TO STDOUT")
                            _ = try session.nextCopy(&data)
                        }
                        proxy.set(toServer: .passing, toClient: .stalled, sparesNew: sparesNew)
                        if copies { while try session.nextCopy(&data) {} } else { try session.execute("SELECT 1") }
                    }
                }
                proxy.restore()
                #expect(error.code == .connectionLost, "\(error)")
            }
        }
    }

    @Test("P18 a server that does not take what is sent is a lost connection")
    func notTaken() async throws {
        let (cluster, proxy) = try proxied()
        let uri = try await cluster.makeDatabase("silence")
        try await cluster.psql(uri, "CREATE TABLE t(id text)")
        let address = cluster.overTCP(uri, port: proxy.port, words: ["tcp_user_timeout=200"])
        let error = try await failure {
            try await BlockingWork().run { () throws in
                let session = try PostgresConnection(ConnectionString(address))
                try session.beginCopyIn("COPY public.t FROM STDIN")
                proxy.set(toServer: .stalled, toClient: .passing, sparesNew: true)
                let line = Array((String(repeating: "x", count: 999) + "\n").utf8)
                for _ in 0..<100_000 {
                    try line.withUnsafeBytes { bytes in try session.writeCopy(bytes) }
                }
            }
        }
        proxy.restore()
        #expect(error.code == .connectionLost, "\(error)")
    }
}

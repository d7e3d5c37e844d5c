import BridgeTestSupport
import Testing

/// The fixture that everything else stands on.
@Suite struct ClusterTests {
    @Test("each test has a database of its own, seen by the real psql")
    func databases() async throws {
        let cluster = try PostgresCluster.shared
        let one = try await cluster.makeDatabase("cluster")
        let other = try await cluster.makeDatabase("cluster")
        #expect(one != other)
        try await cluster.psql(one, "CREATE TABLE t(a int); INSERT INTO t VALUES (1), (2)")
        #expect(try await cluster.psql(one, "SELECT a, 'x' FROM t ORDER BY a") == "1|x\n2|x")
        #expect(try await cluster.psql(other, "SELECT count(*) FROM pg_class WHERE relname = 't'") == "0")
        #expect(try await cluster.psql(one, "SHOW wal_level") == "logical")
        await #expect(throws: ChildProcess.Failure.self) { try await cluster.psql(one, "SELECT 1/0") }
    }

    @Test("a cluster of one's own restarts, crashes, and leaves nothing behind")
    func ownCluster() async throws {
        var folder = ""
        do {
            let cluster = try await PostgresCluster.started(settings: ["wal_level": "replica"])
            folder = cluster.folder.path
            #expect(try await cluster.psql(cluster.uri("postgres"), "SHOW wal_level") == "replica")
            try await cluster.psql(cluster.uri("postgres"), "CREATE TABLE t(a int); INSERT INTO t VALUES (1)")
            try cluster.configure(["wal_level": "logical"])
            try await BlockingWork().run { try cluster.restart(mode: .immediate) }
            #expect(try await cluster.psql(cluster.uri("postgres"), "SHOW wal_level") == "logical")
            #expect(try await cluster.psql(cluster.uri("postgres"), "TABLE t") == "1")
        }
        try await waitUntil("the watcher removing the folder") {
            (try? TemporaryDirectory.readFile("\(folder)/settings.conf")) == nil
        }
    }
}

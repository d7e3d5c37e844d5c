import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// Authentication and TLS (P18): what is refused is fatal at once, and nothing is done with less protection than asked for.
@Suite(.serialized) struct SecurityTests {
    /// A cluster that speaks TLS, with a certificate for `db.bridge.test`, and two authorities of which one made it.
    private struct Place: Sendable {
        let cluster: PostgresCluster
        let folder: TemporaryDirectory

        init() async throws {
            cluster = try await PostgresCluster.started(isListening: true)
            folder = try TemporaryDirectory(prefix: "tls")
            for name in ["right", "other"] {
                try await ChildProcess.run([
                    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=\(name) authority",
                    "-keyout", folder.path("\(name).key"), "-out", folder.path("\(name).crt"),
                ])
            }
            let (key, certificate) = (cluster.folder.path("server.key"), cluster.folder.path("server.crt"))
            try await ChildProcess.run([
                "openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=db.bridge.test", "-keyout", key,
                "-out", folder.path("server.csr"),
            ])
            try folder.write("names", "subjectAltName=DNS:db.bridge.test\n")
            try await ChildProcess.run([
                "openssl", "x509", "-req", "-days", "2", "-in", folder.path("server.csr"), "-CA", folder.path("right.crt"),
                "-CAkey", folder.path("right.key"), "-CAcreateserial", "-extfile", folder.path("names"), "-out", certificate,
            ])
            for file in [key, certificate] { cluster.entrust(file) }
            try cluster.configure(["ssl": "on", "ssl_key_file": key, "ssl_cert_file": certificate])
            try await BlockingWork().run { [cluster] in
                try cluster.restart()
                try cluster.prependAccessRules("host all refused_role all reject\nhostnossl all tls_role all reject\n")
            }
        }

        func address(_ uri: String, host: String = "db.bridge.test", user: String = "postgres", mode: String, authority: String?) -> String {
            var words = ["hostaddr=127.0.0.1", "sslmode=\(mode)"]
            if let authority { words.append("sslrootcert=\(folder.path(authority))") }
            return cluster.overTCP(uri, user: user, host: host, words: words)
        }
    }

    /// One for all tests.
    private static let place = Task { try await Place() }

    private func error(_ uri: String) async throws -> BridgeError {
        try await failure { try await (try PostgresSource(connectionString: uri)).connect() }
    }

    @Test("P18 sslmode=verify-full works with a right certificate, for sessions and streams, and refuses any other for good")
    func verifyFull() async throws {
        let place = try await Self.place.value
        let fixture = try await SourceFixture(
            "CREATE TABLE t(id int PRIMARY KEY)", tables: ["t"], cluster: place.cluster)
        let right = place.address(fixture.uri, mode: "verify-full", authority: "right.crt")
        let source = try PostgresSource(connectionString: right)
        let origin = try await source.prepareCapture(fixture.link, replacingLeftovers: false)
        try await source.openSnapshot(fixture.link).close()
        let stream = Stream(
            session: try await source.openCapture(fixture.link, origin: origin, durable: origin.position), source: source,
            link: fixture.link)
        try await fixture.psql("INSERT INTO t VALUES (1)")
        try await stream.catchUp()
        #expect(stream.takeChanges() == ["insert t (1)"])
        let ours = "FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'bridge%'"
        #expect(try await fixture.psql("SELECT bool_and(ssl), count(*) > 1 \(ours)") == "t|t")
        await stream.session.close()
        await source.close()

        let refused = [
            place.address(fixture.uri, host: "another.bridge.test", mode: "verify-full", authority: "right.crt"),
            place.address(fixture.uri, mode: "verify-full", authority: "other.crt"),
            place.address(fixture.uri, mode: "verify-ca", authority: "other.crt"),
            place.address(fixture.uri, mode: "verify-full", authority: "missing.crt"),
        ]
        for uri in refused {
            let error = try await error(uri)
            #expect(error.code == .authenticationFailed && error.retry == .never && error.exitStatus == .rights, "\(error)")
            #expect(error.hint.contains("sslmode"), "\(error)")
        }
        // The name does not matter to verify-ca.
        try await PostgresSource(
            connectionString: place.address(fixture.uri, host: "another.bridge.test", mode: "verify-ca", authority: "right.crt")
        ).connect()
    }

    @Test("P18 a wrong password, an unknown role, a refusal by pg_hba.conf and a server without TLS are fatal at once")
    func refusals() async throws {
        let place = try await Self.place.value
        let uri = try await place.cluster.makeDatabase("security")
        try await place.cluster.psql(
            uri,
            """
            CREATE ROLE guarded LOGIN PASSWORD 'right-secret' IN ROLE password_required;
            CREATE ROLE refused_role LOGIN; CREATE ROLE tls_role LOGIN;
            """)
        let cases: [(String, String?)] = [
            (place.cluster.overTCP(uri, user: "guarded", password: "wrong-secret"), "28P01"),
            (place.cluster.overTCP(uri, user: "nobody_of_that_name"), "28000"),
            (place.cluster.overTCP(uri, user: "refused_role"), "28000"),
            (place.cluster.overTCP(uri, user: "tls_role", words: ["sslmode=disable"]), "28000"),
        ]
        for (address, state) in cases {
            let error = try await error(address)
            #expect(error.code == .authenticationFailed && error.retry == .never && error.sqlState == state, "\(error)")
            #expect(!"\(error) \(error.hint)".contains("secret"))
        }
        try await PostgresSource(connectionString: place.cluster.overTCP(uri, user: "tls_role", words: ["sslmode=require"])).connect()
        try await PostgresSource(
            connectionString: place.cluster.overTCP(uri, user: "guarded", password: "right-secret")).connect()
        let error = try await error(try SilenceTests.cluster.get().overTCP("/postgres", words: ["sslmode=require"]))
        #expect(error.code == .authenticationFailed && error.retry == .never, "\(error)")
    }

    @Test("P18 a network that fails under a handshake is no matter of rights")
    func handshake() async throws {
        for reason in [
            "SSL SYSCALL error: Connection reset by peer", "SSL SYSCALL error: EOF detected", "SSL error: unexpected eof while reading",
            "SSL connection has been closed unexpectedly", "server closed the connection unexpectedly",
        ] {
            #expect(!ConnectFailure.isAboutSecurity(reason), "\(reason)")
        }
        for reason in [
            "SSL error: certificate verify failed", "server does not support SSL, but SSL was required",
            "server certificate for \"a\" does not match host name \"b\"", "root certificate file \"/x\" does not exist",
        ] {
            #expect(ConnectFailure.isAboutSecurity(reason), "\(reason)")
        }
        let cluster = try await Self.place.value.cluster
        let uri = try await cluster.makeDatabase("security")
        let proxy = try TCPProxy(to: try #require(cluster.port))
        proxy.set(toServer: .passing, toClient: .stalled)
        async let failed = error(cluster.overTCP(uri, port: proxy.port, words: ["sslmode=require", "connect_timeout=20"]))
        try await waitUntil("the connection") { proxy.open == 1 }
        proxy.drop()
        let error = try await failed
        #expect(error.code == .serverUnreachable && error.retry == .backoff, "\(error)")
    }
}

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif
import Synchronization

/// A throw-away PostgreSQL cluster on a Unix socket in a temporary folder.
///
/// ``shared`` is started once a test run; each test makes a database of its own in it. Tests that stop or kill a server
/// start another with ``start(settings:)``. A small shell process watches over each cluster: when this process ends, in
/// whatever way, it stops the server and removes the folder.
package final class PostgresCluster: Sendable {
    /// How to stop: `fast` ends the sessions and writes a checkpoint, `immediate` is a crash.
    package enum StopMode: String, Sendable { case fast, immediate }

    /// Where data, log and socket are.
    package let folder: TemporaryDirectory
    /// As whom the server runs; nil: as ourselves.
    private let account: String?
    private let programs: String
    /// Closing this end tells the watcher that we are gone.
    private let lifeline: Int32
    private let databases = Mutex(0)
    /// Where it listens on 127.0.0.1; nil for not at all.
    package let port: UInt16?

    private static let sharedResult = Result { try PostgresCluster.start() }

    /// The cluster of this test run. The first call starts it.
    package static var shared: PostgresCluster {
        get throws { try sharedResult.get() }
    }

    /// Starts another cluster, which goes when its last reference goes.
    /// - Parameters:
    ///   - settings: added to postgresql.conf, later ones win: `["wal_level": "replica"]`.
    ///   - isListening: whether it listens on a free port of 127.0.0.1 too.
    package static func start(settings: [String: String] = [:], isListening: Bool = false) throws -> PostgresCluster {
        let cluster = try PostgresCluster(port: isListening ? TCPProxy.freePort() : nil)
        try cluster.initialize(settings: settings)
        try cluster.startServer()
        try cluster.psqlBlocking(cluster.uri("postgres"), "CREATE ROLE password_required")
        return cluster
    }

    /// The same without holding a thread of the cooperative pool, which the tests beside this one need.
    package static func started(
        settings: [String: String] = [:], isListening: Bool = false
    ) async throws -> PostgresCluster {
        try await BlockingWork().run { try start(settings: settings, isListening: isListening) }
    }

    private init(port: UInt16?) throws {
        self.port = port
        programs = try Self.findPrograms()
        account = getuid() == 0 ? (getpwnam("postgres") != nil ? "postgres" : "nobody") : nil
        folder = try TemporaryDirectory(prefix: "pg", isKept: true)
        if let account, let entry = getpwnam(account) {
            chown(folder.path, entry.pointee.pw_uid, entry.pointee.pw_gid)
        }
        // A named pipe, since it can be opened close-on-exec in one step: a child that inherited the lifeline would keep
        // the cluster alive.
        let pipe = folder.path("lifeline")
        guard mkfifo(pipe, 0o600) == 0 else { throw ChildProcess.Failure("no pipe") }
        let reading = open(pipe, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        lifeline = open(pipe, O_WRONLY | O_CLOEXEC)
        guard reading >= 0, lifeline >= 0 else { throw ChildProcess.Failure("no pipe") }
        _ = fcntl(reading, F_SETFL, 0)
        let stop = Self.command(
            as: account, ["\(programs)/pg_ctl", "stop", "-s", "-m", "immediate", "-D", folder.path("data")])
        // The watcher is a grandchild, whose end init learns of. A child that ended and that nobody waited for would keep
        // the tests that await a process's exit from ever hearing of theirs.
        let script = """
            trap '' HUP INT TERM; exec 3<&0; { cat <&3 >/dev/null; cd /; \
            \(stop.map { "'\($0)'" }.joined(separator: " ")) >/dev/null 2>&1; rm -rf '\(folder.path)'; } &
            """
        _ = try ChildProcess(["/bin/sh", "-c", script], inputDescriptor: reading, newSession: true).waitBlocking()
        close(reading)
    }

    deinit { close(lifeline) }

    // MARK: Databases

    /// Makes an empty database of its own for a test; returns its connection URI.
    package func makeDatabase(_ prefix: String = "test") async throws -> String {
        let number = databases.withLock { count in
            count += 1
            return count
        }
        let name = "\(prefix)_\(number)"
        try await psql(uri("postgres"), "CREATE DATABASE \"\(name)\" TEMPLATE template0 ENCODING 'UTF8'")
        return uri(name)
    }

    /// A connection URI. Members of the role `password_required` must give a password, all others need none.
    package func uri(_ database: String, user: String = "postgres", password: String? = nil) -> String {
        "postgresql://\(user)\(password.map { ":\($0)" } ?? "")@/\(database)?host=\(folder.path)"
            + (port.map { "&port=\($0)" } ?? "")
    }

    /// The same database over TCP.
    /// - Parameters:
    ///   - uri: of the database, as ``makeDatabase(_:)`` gave it.
    ///   - port: of a proxy, say; the cluster's own by default.
    ///   - words: more of the connection string: `connect_timeout=2`.
    package func overTCP(
        _ uri: String, port: UInt16? = nil, user: String = "postgres", password: String? = nil, host: String = "127.0.0.1",
        words: [String] = []
    ) -> String {
        let database = uri.split(separator: "?")[0].split(separator: "/").last ?? ""
        let secret = password.map { ":\($0)" } ?? ""
        return "postgresql://\(user)\(secret)@\(host):\(port ?? self.port ?? 0)/\(database)"
            + (words.isEmpty ? "" : "?" + words.joined(separator: "&"))
    }

    /// Runs SQL with the real psql, the tool that is independent of ours. Gives the rows, one a line, columns separated
    /// by `|`, without the last line break. Several statements run one by one, each in its own transaction.
    /// - Throws: ``ChildProcess/Failure`` with the server's message.
    @discardableResult
    package func psql(_ uri: String, _ sql: String) async throws -> String {
        let output = try await ChildProcess.run(psqlCommand(uri), input: sql)
        return output.hasSuffix("\n") ? String(output.dropLast()) : output
    }

    /// The same on the calling thread.
    @discardableResult
    package func psqlBlocking(_ uri: String, _ sql: String) throws -> String {
        let output = try ChildProcess.runBlocking(psqlCommand(uri), input: sql)
        return output.hasSuffix("\n") ? String(output.dropLast()) : output
    }

    private func psqlCommand(_ uri: String) -> [String] {
        ["\(programs)/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", uri]
    }

    /// The path of one of PostgreSQL's programs: `pgbench`, `pg_recvlogical`.
    package func program(_ name: String) -> String { "\(programs)/\(name)" }

    /// The server's log.
    package var log: String { (try? folder.read("log")) ?? "" }

    // MARK: The server

    /// Starts the server and waits until it accepts connections.
    package func startServer() throws {
        try control(["start", "-w", "-l", folder.path("log")])
    }

    package func stop(mode: StopMode = .fast) throws {
        try control(["stop", "-w", "-m", mode.rawValue])
    }

    package func restart(mode: StopMode = .fast) throws {
        try stop(mode: mode)
        try startServer()
    }

    /// Kills the server's first process with SIGKILL, as a machine that runs out of memory may; the others go by themselves.
    package func kill() throws {
        guard let line = try folder.read("data/postmaster.pid").split(separator: "\n").first, let process = pid_t(line) else {
            throw ChildProcess.Failure("no server runs")
        }
        sendSignal(process, SIGKILL)
    }

    /// Starts a server that was killed, as soon as what was left of it is gone.
    package func startAfterKill() throws {
        for _ in 0..<300 {
            if (try? startServer()) != nil { return }
            usleep(100_000)
        }
        try startServer()
    }

    /// Makes a standby of this cluster, which follows it.
    package func makeStandby() throws -> PostgresCluster {
        let standby = try PostgresCluster(port: TCPProxy.freePort())
        try ChildProcess.runBlocking(
            Self.command(
                as: account,
                ["\(programs)/pg_basebackup", "-d", uri("postgres"), "-D", standby.folder.path("data"), "-R", "-X", "stream", "-c", "fast", "--no-sync"]))
        try standby.writeSettings([:])
        let configuration = try standby.folder.read("data/postgresql.conf")
        try standby.folder.write("data/postgresql.conf", configuration + "\ninclude '\(standby.folder.path("settings.conf"))'\n")
        try standby.startServer()
        return standby
    }

    /// Makes a standby a primary server, on a timeline of its own.
    package func promote() throws { try control(["promote", "-w"]) }

    /// Puts lines before those of pg_hba.conf, and makes the server read them.
    package func prependAccessRules(_ text: String) throws {
        try folder.write("data/pg_hba.conf", text + folder.read("data/pg_hba.conf"))
        try control(["reload"])
    }

    /// Gives a file to the server, for its eyes only: a private key.
    package func entrust(_ path: String) { give(path, 0o600) }

    /// Gives a folder to the server.
    package func entrustFolder(_ path: String) { give(path, 0o700) }

    private func give(_ path: String, _ mode: mode_t) {
        chmod(path, mode)
        if let account, let entry = getpwnam(account) { chown(path, entry.pointee.pw_uid, entry.pointee.pw_gid) }
    }

    /// Adds to postgresql.conf; takes effect with ``restart(mode:)``.
    package func configure(_ settings: [String: String]) throws {
        let text = try folder.read("settings.conf") + Self.lines(settings)
        try folder.write("settings.conf", text)
    }

    private func control(_ arguments: [String]) throws {
        try ChildProcess.runBlocking(
            Self.command(as: account, ["\(programs)/pg_ctl", "-s", "-D", folder.path("data")] + arguments))
    }

    private func initialize(settings: [String: String]) throws {
        try ChildProcess.runBlocking(
            Self.command(
                as: account,
                [
                    "\(programs)/initdb", "-D", folder.path("data"), "-U", "postgres", "-A", "trust", "-E", "UTF8",
                    "--locale=C", "--no-sync",
                ]))
        try writeSettings(settings)
        try folder.write(
            "data/pg_hba.conf",
            """
            local all +password_required scram-sha-256
            local all all trust
            local replication all trust
            host all +password_required all scram-sha-256
            host all all 127.0.0.1/32 trust
            host all all ::1/128 trust

            """)
        let configuration = try folder.read("data/postgresql.conf")
        try folder.write("data/postgresql.conf", configuration + "\ninclude '\(folder.path("settings.conf"))'\n")
    }

    private func writeSettings(_ settings: [String: String]) throws {
        let defaults = [
            "listen_addresses": port == nil ? "" : "127.0.0.1", "port": "\(port ?? 5432)", "unix_socket_directories": folder.path, "fsync": "on", "wal_level": "logical",
            "max_replication_slots": "300", "max_wal_senders": "100", "max_connections": "200",
            "max_prepared_transactions": "10", "shared_buffers": "64MB", "max_wal_size": "2GB",
            // What a killed client had open must not hold up the tests after it.
            "client_connection_check_interval": "1s",
        ]
        try folder.write("settings.conf", Self.lines(defaults) + Self.lines(settings))
        chmod(folder.path("settings.conf"), 0o644)
    }

    private static func lines(_ settings: [String: String]) -> String {
        settings.sorted { $0.key < $1.key }.map { "\($0.key) = '\($0.value)'\n" }.joined()
    }

    /// initdb and postgres refuse to run as root.
    private static func command(as account: String?, _ arguments: [String]) -> [String] {
        guard let account else { return arguments }
        return ["setpriv", "--reuid=\(account)", "--regid=\(account)", "--clear-groups"] + arguments
    }

    /// The newest server under /usr/lib/postgresql, else the one in PATH.
    private static func findPrograms() throws -> String {
        for version in stride(from: 30, through: 14, by: -1)
        where access("/usr/lib/postgresql/\(version)/bin/initdb", X_OK) == 0 {
            return "/usr/lib/postgresql/\(version)/bin"
        }
        let path = getenv("PATH").map { String(cString: $0) } ?? ""
        for folder in path.split(separator: ":") where access("\(folder)/initdb", X_OK) == 0 {
            return String(folder)
        }
        throw ChildProcess.Failure("no PostgreSQL server programs found; install the package postgresql")
    }
}

private func sendSignal(_ process: pid_t, _ signal: Int32) { kill(process, signal) }

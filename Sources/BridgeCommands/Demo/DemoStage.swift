import BridgeCore
import Foundation
import Synchronization

/// The two temporary databases of a demo, in a temporary folder.
protocol DemoStage: Sendable {
    var folder: String { get }
    var source: DemoAddress { get }
    var target: DemoAddress { get }
    /// Makes both databases, empty. Blocks.
    func setUp() throws(BridgeError)
    /// Stops what runs. Quick, and may be called twice, from any thread.
    func tearDown()
}

/// A folder that is removed at the end.
enum TemporaryFolder {
    /// - Parameter mode: the folder's permissions.
    static func make(_ prefix: String, mode: mode_t) throws(BridgeError) -> String {
        let base = ProcessInfo.processInfo.environment["TMPDIR"].flatMap { $0.isEmpty ? nil : $0 } ?? "/tmp"
        var template = Array("\(absolute(base, in: "/"))/\(prefix)-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            throw BridgeError(
                .inputOutput, "no temporary folder can be made", context: [.init(.file, base)],
                hint: "set TMPDIR to a folder that can be written")
        }
        let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        chmod(path, mode)
        return path
    }

    static func remove(_ path: String) { try? FileManager.default.removeItem(atPath: path) }
}

struct SQLiteDemoStage: DemoStage {
    let folder: String
    var source: DemoAddress { DemoAddress(engine: .sqlite, place: "\(folder)/monolith.db") }
    var target: DemoAddress { DemoAddress(engine: .sqlite, place: "\(folder)/shop.db") }

    init() throws(BridgeError) { folder = try TemporaryFolder.make("bridge-demo", mode: 0o700) }

    func setUp() throws(BridgeError) {
        _ = try SQLiteDemoSession(path: source.place, create: true)
        _ = try SQLiteDemoSession(path: target.place, create: true)
    }

    func tearDown() {}
}

/// Two PostgreSQL clusters that listen on Unix sockets only, with the programs that are installed here.
final class PostgresDemoStage: DemoStage {
    let folder: String
    private let programs: String
    /// As whom the servers run; nil: as ourselves. initdb and postgres refuse to run as root.
    private let account: String?
    private let servers = Mutex<[HelperProcess]>([])

    var source: DemoAddress { address("source", database: "monolith") }
    var target: DemoAddress { address("target", database: "shop") }

    init() throws(BridgeError) {
        programs = try Self.findPrograms()
        account = geteuid() == 0 ? (getpwnam("postgres") != nil ? "postgres" : "nobody") : nil
        folder = try TemporaryFolder.make("bridge-demo", mode: 0o711)
    }

    private func address(_ name: String, database: String) -> DemoAddress {
        let host = ConnectionURL.percentEncoded("\(folder)/\(name)")
        return DemoAddress(engine: .postgresql, place: "postgresql://postgres@/\(database)?host=\(host)")
    }

    func setUp() throws(BridgeError) {
        for (name, database) in [("source", "monolith"), ("target", "shop")] {
            try start(name)
            let session = try waitUntilReady(address(name, database: "postgres"))
            try session.execute("CREATE DATABASE \(database)")
        }
    }

    func tearDown() {
        let running = servers.withLock { servers in
            defer { servers = [] }
            return servers
        }
        for server in running { server.closeInput() }
        for server in running { _ = server.wait(for: .seconds(20)) }
    }

    private func start(_ name: String) throws(BridgeError) {
        let directory = "\(folder)/\(name)"
        let log = "\(folder)/\(name).log"
        guard mkdir(directory, 0o700) == 0 else {
            throw BridgeError(.inputOutput, "a folder cannot be made", context: [.init(.file, directory)])
        }
        if let account, let entry = getpwnam(account) {
            chown(directory, entry.pointee.pw_uid, entry.pointee.pw_gid)
        }
        let initialize = command([
            "\(programs)/initdb", "-D", "\(directory)/data", "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale=C", "--no-sync",
        ])
        guard try HelperProcess.run(initialize, log: log) == 0 else {
            throw BridgeError(
                .inputOutput, "initdb failed", context: [.init(.file, log)],
                hint: "run the demo with --keep and read this file; or run it without --postgres")
        }
        let server = command([
            "\(programs)/postgres", "-D", "\(directory)/data", "-c", "listen_addresses=", "-c",
            "unix_socket_directories=\(directory)", "-c", "wal_level=logical", "-c", "shared_buffers=32MB", "-c",
            "max_wal_size=512MB",
        ])
        // The shell waits for the end of its input, which comes even if this process is killed, and stops the server.
        let script = """
            "$@" </dev/null & server=$!; cat >/dev/null; kill -INT $server 2>/dev/null; wait $server
            """
        let process = try HelperProcess(["/bin/sh", "-c", script, "sh"] + server, output: .file(log))
        servers.withLock { $0.append(process) }
    }

    private func waitUntilReady(_ address: DemoAddress) throws(BridgeError) -> any DemoSession {
        let end = ContinuousClock.now + .seconds(60)
        while true {
            do throws(BridgeError) {
                return try address.openSession()
            } catch  where error.retry == .backoff && ContinuousClock.now < end {
                usleep(50_000)
            }
        }
    }

    private func command(_ arguments: [String]) -> [String] {
        guard let account else { return arguments }
        return ["setpriv", "--reuid=\(account)", "--regid=\(account)", "--clear-groups", "--"] + arguments
    }

    /// The newest server of Debian's packages, else the one in PATH.
    private static func findPrograms() throws(BridgeError) -> String {
        let base = "/usr/lib/postgresql"
        let versions = ((try? FileManager.default.contentsOfDirectory(atPath: base)) ?? []).compactMap { Int($0) }
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        let folders = versions.sorted(by: >).map { "\(base)/\($0)/bin" } + path.split(separator: ":").map(String.init)
        for folder in folders where access("\(folder)/initdb", X_OK) == 0 && access("\(folder)/postgres", X_OK) == 0 {
            return folder
        }
        throw BridgeError(
            .serverUnreachable, "no PostgreSQL server is installed here",
            hint: "apt-get install postgresql; or run the demo without --postgres")
    }
}

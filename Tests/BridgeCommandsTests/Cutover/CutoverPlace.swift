import BridgeConformance
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Foundation
import Synchronization
import Testing

@testable import BridgeCommands

/// A migration with a run beside it that is ready to be switched.
struct CutoverPlace: Sendable {
    let links: LinkPlace
    var source: any ConformanceDatabase { links.source }
    var target: any ConformanceDatabase { links.target }

    /// Copied, checked, and kept in sync by the run that is returned.
    static func ready(_ pair: Pair, settings: String = "") async throws -> (CutoverPlace, ChildProcess) {
        let place = CutoverPlace(links: try await LinkPlace(pair))
        if !settings.isEmpty {
            try place.links.folder.write("bridge.yaml", try place.links.folder.read("bridge.yaml") + settings)
        }
        return (place, try await place.begin())
    }

    func begin() async throws -> ChildProcess {
        let run = try links.start()
        try await links.waitUntilStreaming(.forward, process: run)
        let check = try await links.run("check")
        #expect(check.status == 0, "\(check.output)\(check.errors)")
        return run
    }

    /// - Parameter failpoints: where the process is to die.
    func start(_ arguments: [String], failpoints: String? = nil) throws -> ChildProcess {
        try Executable.start(
            ["cutover"] + arguments + ["--json", "--config", links.folder.path("bridge.yaml")],
            environment: ["BRIDGE_FAILPOINTS": failpoints])
    }

    /// Runs a verb, and reads its JSON, which must have what others build on.
    @discardableResult
    func verb(_ arguments: String..., status: Int32 = 0) async throws -> [String: Any] {
        let outcome = try await start(arguments).wait()
        #expect(outcome.status == status, "\(arguments): \(outcome.output)\(outcome.errors)")
        let report = try object(outcome)
        for key in ["format_version", "phase", "gates", "steps", "next_steps", "routing", "pause_ms"] {
            #expect(report[key] != nil, "C24 \(key)")
        }
        return report
    }

    func phase() async throws -> String { try #require(try await verb("status")["phase"] as? String) }

    /// Both databases as text: schemas, and what a server keeps beside them.
    func dump() async throws -> [String] { [try await Self.dump(source), try await Self.dump(target)] }

    private static func dump(_ database: any ConformanceDatabase) async throws -> String {
        if let database = database as? PostgreSQLDatabase {
            let schema = try await ChildProcess.run([database.cluster.program("pg_dump"), "--schema-only", database.url])
            // Newer versions put a word of their own around the text.
            let text = schema.split(separator: "\n").filter { !$0.hasPrefix("--") && !$0.contains("restrict ") }.joined(separator: "\n")
            let beside = try await database.cluster.psql(
                database.url,
                """
                SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
                UNION ALL SELECT 'publication ' || pubname FROM pg_publication
                UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal
                UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
                UNION ALL SELECT 'replica identity ' || relname || relreplident::text FROM pg_class WHERE relname = 'accounts' ORDER BY 1
                """)
            return text + "\n" + beside
        }
        let path = String(database.url.dropFirst("sqlite:".count))
        return try await ChildProcess.run(["sqlite3", "-batch", path, ".schema"])
    }

    /// The origins that the cluster knows of this migration; they are the server's, not the database's.
    func origins() async throws -> [String] {
        var names: [String] = []
        for case let database as PostgreSQLDatabase in [source, target] {
            names += try await database.cluster.psql(
                database.url, "SELECT roname FROM pg_replication_origin WHERE roname LIKE '%' || translate(\(quoteLiteral(links.configuration.migration)), '-', '_') || '%'"
            ).split(separator: "\n").map(String.init)
        }
        return names
    }

    /// Each acknowledged row is once on the side that serves, and the other side gets to hold the same.
    func account(_ writer: FollowingWriter) async throws {
        let acknowledged = await writer.stop()
        let report = try await verb("status")
        #expect((report["drift"] as? [Any])?.isEmpty == true, "\(report["drift"] ?? "")")
        let serving = report["phase"] as? String == "writes_switched" ? target : source
        let rows = try await serving.rows(.accounts)
        let present = Dictionary(grouping: rows.compactMap { $0.split(separator: "\t").first.flatMap { Int($0.dropFirst(2)) } }) { $0 }
        for id in acknowledged { #expect(present[id]?.count == 1, "row \(id)") }
        #expect(rows.count == acknowledged.count + 2)
        try await links.waitUntilEqual(rows.count)
    }

    static func stop(_ run: ChildProcess) async {
        run.send(signal: SIGTERM)
        let outcome = await run.wait()
        #expect(outcome.status == 0, "\(outcome.errors)")
    }
}

/// An application that knows nothing of bridge, but that a write which is refused is tried on the other side.
final class FollowingWriter: Sendable {
    private let task: Task<Void, Never>

    init(_ place: CutoverPlace) {
        let written = Written()
        let sides = [place.source, place.target]
        self.written = written
        task = Task {
            var (side, id) = (0, 1_000)
            while !Task.isCancelled {
                do {
                    try await sides[side].execute(LinkPlace.insert(id))
                    written.rows.withLock { $0.append(id) }
                    id += 1
                } catch { side = 1 - side }
            }
        }
    }

    private final class Written: Sendable { let rows = Mutex<[Int]>([]) }
    private let written: Written

    private var count: Int { written.rows.withLock { $0.count } }

    /// Returns once it has written again.
    func waitForWrite() async throws {
        let before = count
        try await waitUntil(deadline: .seconds(60), "the application writes") { self.count > before }
    }

    func stop() async -> [Int] {
        task.cancel()
        await task.value
        return written.rows.withLock { $0 }
    }
}

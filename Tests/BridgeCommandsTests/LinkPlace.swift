import BridgeConformance
import BridgeCore
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Foundation
import Logging
import Testing

@testable import BridgeCommands

/// A migration between two databases, with the real program at work; the way back is made as a verb makes it.
struct LinkPlace: Sendable {
    let folder: TemporaryDirectory
    let source: any ConformanceDatabase
    let target: any ConformanceDatabase
    let configuration: Configuration
    let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    /// - Parameter services: `all` with the accounts; or `first` with the accounts and `second` with the items.
    init(_ pair: Pair, twoServices: Bool = false) async throws {
        folder = try TemporaryDirectory(prefix: "links")
        source = try await pair.source.makeDatabase()
        target = try await pair.target.makeDatabase()
        for database in [source, target] {
            try await database.create(.accounts)
            if twoServices { try await database.create(.items) }
        }
        try await source.execute("INSERT INTO accounts VALUES (1, 'a', 1, NULL), (2, 'b', 2, NULL);")
        let file = try BridgeProgram.configure(
            in: folder, migration: "links-\(UInt32.random(in: 0...UInt32.max))", source: source.url, target: target.url,
            tables: [ConformanceTable.accounts.name])
        if twoServices {
            let text = try folder.read("bridge.yaml").replacingOccurrences(of: "  all:", with: "  first:")
            try folder.write("bridge.yaml", text + "  second: { tables: [items] }\n")
        }
        configuration = try ConfigurationLoader(environment: [:], registry: .standard).load(.init(file: file, dataDirectory: nil))
    }

    var directory: DataDirectory { DataDirectory(configuration.dataDirectory) }

    func start(_ arguments: String...) throws -> ChildProcess {
        try Executable.start(["run"] + arguments + ["--config", folder.path("bridge.yaml")])
    }

    func run(_ arguments: String...) async throws -> ChildProcess.Outcome {
        try await Executable.run(arguments + ["--config", folder.path("bridge.yaml")])
    }

    func isStreaming(_ direction: LinkDirection) -> Bool {
        let report = RunReport.read(from: directory, direction: direction)
        return report?.activity == "streaming" && report?.isCapturing == true && report?.state == .running
            && report?.process == DirectoryLock.holder(of: directory)
    }

    func waitUntilStreaming(_ directions: LinkDirection..., process: ChildProcess? = nil) async throws {
        do {
            try await waitUntil(deadline: .seconds(120), "\(directions) stream") { directions.allSatisfy(isStreaming) }
        } catch {
            Issue.record("\(process?.errorsSoFar ?? "")")
            throw error
        }
    }

    func prepareReverse() async throws {
        let migration = try Migration(configuration, registry: .standard, direction: .reverse)
        let link = try await migration.open()
        try await ReversePreparation(
            configuration: migration.linkConfiguration(link), source: migration.source, target: migration.target, logger: logger
        ).prepare()
        await migration.close()
    }

    func removeRecords(_ direction: LinkDirection) async throws {
        let holder = try direction == .forward ? target.makeTarget() : source.makeTarget()
        try await holder.removeLink(link(direction))
        await holder.close()
    }

    func removeCapture(_ direction: LinkDirection) async throws {
        let captured = try direction == .forward ? source.makeSource() : target.makeSource()
        try await captured.removeCapture(link(direction))
        await captured.close()
    }

    func link(_ direction: LinkDirection) -> LinkDescription {
        let forward = configuration.link()
        return direction == .forward ? forward : forward.reversed
    }

    func waitUntilEqual(_ count: Int) async throws {
        try await waitUntil(deadline: .seconds(120), "both sides hold \(count) rows") {
            let (here, there) = (try await source.rows(.accounts), try await target.rows(.accounts))
            return here == there && here.count == count
        }
    }

    func links() async throws -> [[String: Any]] {
        let json = try object(try await run("status", "--json"))
        return try #require(json["links"] as? [[String: Any]])
    }

    static func insert(_ id: Int) -> String { "INSERT INTO accounts VALUES (\(id), 'm\(id)', 0, NULL);" }
}

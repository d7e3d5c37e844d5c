import BridgeConformance
import BridgeCore
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Logging
import Testing

/// A link out of an SQLite file, and what the stock tools say of its two ends.
final class SQLiteCourse: Sendable {
    enum Target: String, CaseIterable, Sendable, CustomTestStringConvertible {
        case sqlite, postgresql
        var testDescription: String { rawValue }
    }

    let kind: Target
    let sourceFile: SQLiteFile
    let targetDatabase: any ConformanceDatabase
    let link: LinkDescription
    private let folder: TemporaryDirectory

    /// - Parameters:
    ///   - tables: SQL that makes them on the source.
    ///   - targetTables: the same for the target; nil for the source's.
    init(_ kind: Target, _ tables: String, names: [String], targetTables: String? = nil) async throws {
        self.kind = kind
        sourceFile = try SQLiteFile()
        targetDatabase = try await (kind == .sqlite ? SQLiteEngine() as any ConformanceEngine : PostgreSQLEngine()).makeDatabase()
        folder = try TemporaryDirectory(prefix: "course")
        let target = targetDatabase
        link = LinkDescription(
            migration: "course-\(UInt32.random(in: 0 ... .max))", direction: .forward,
            mappings: names.map { TableMapping(source: TableName(name: $0), target: target.tableName($0)) },
            form: kind == .sqlite ? .native : .canonical)
        try await source(tables)
        try await self.target(targetTables ?? tables)
    }

    @discardableResult
    func source(_ sql: String) async throws -> String { try await Self.run(sql, sourceFile) }

    @discardableResult
    func target(_ sql: String) async throws -> String { try await Self.run(sql, targetDatabase) }

    /// Through sqlite3 or psql.
    private static func run(_ sql: String, _ database: any ConformanceDatabase) async throws -> String {
        if let database = database as? PostgreSQLDatabase { return try await database.cluster.psql(database.url, sql) }
        let path = String(database.url.dropFirst("sqlite:".count))
        let text = try await ChildProcess.run(["sqlite3", "-batch", "-bail", path], input: ".timeout 30000\n\(sql);\n")
        return text.hasSuffix("\n") ? String(text.dropLast()) : text
    }

    // MARK: Runs

    /// A link at work.
    struct Running: Sendable {
        let runner: LinkRunner
        let task: Task<BridgeError?, Never>

        func wait(_ what: String, _ condition: @escaping @Sendable () async throws -> Bool) async throws {
            try await waitUntil(deadline: .seconds(60), "\(what); \(runner.progress)") {
                if runner.progress.activity == .stopped {
                    throw ChildProcess.Failure("the link has ended: \(await task.value.map { "\($0)" } ?? "without an error")")
                }
                return try await condition()
            }
        }

        /// - Returns: what it stopped at.
        func stop() async -> BridgeError? {
            runner.stop()
            return await task.value
        }
    }

    func start(untilCaughtUp: Bool = false, change: (inout LinkConfiguration) -> Void = { _ in }) throws -> Running {
        let (source, target) = (try sourceFile.makeSource(), try targetDatabase.makeTarget())
        var configuration = LinkConfiguration(link: link, journalDirectory: folder.path("journal"), patience: .seconds(30))
        change(&configuration)
        let runner = LinkRunner(
            configuration: configuration, source: source, target: target, logger: Logger(label: "course") { _ in SwiftLogNoOpLogHandler() })
        let task = Task { () async -> BridgeError? in
            var failure: BridgeError?
            do throws(BridgeError) { _ = try await runner.run(untilCaughtUp: untilCaughtUp) } catch { failure = error }
            await source.close()
            await target.close()
            return failure
        }
        return Running(runner: runner, task: task)
    }

    /// Copies if need be, and applies all that is committed now.
    /// - Returns: what it stopped at.
    func run() async throws -> BridgeError? { await (try start(untilCaughtUp: true)).task.value }

    func catchesUp(_ location: SourceLocation = #_sourceLocation) async throws {
        let error = try await run()
        #expect(error == nil, "\(String(describing: error))", sourceLocation: location)
    }

    /// Runs into an error that names table and column, as often as it is tried.
    func stops(at table: String, _ column: String, _ location: SourceLocation = #_sourceLocation) async throws {
        for _ in 0..<2 {
            let error = try #require(try await run(), "it went on", sourceLocation: location)
            Self.expect(error, .schemaChanged, names: [table, column], location)
        }
    }

    static func expect(_ error: BridgeError, _ code: ErrorCode, names: [String], _ location: SourceLocation = #_sourceLocation) {
        #expect(error.code == code, "\(error)", sourceLocation: location)
        let named = error.context.filter { $0.key == .table || $0.key == .column }.map(\.value)
        for name in names {
            #expect(named.contains { $0 == name || $0.hasSuffix(".\(name)") }, "\(error)", sourceLocation: location)
        }
    }

    /// The same query gives the same on both sides.
    func isEqual(_ query: String, _ location: SourceLocation = #_sourceLocation) async throws {
        let (expected, found) = (try await source(query), try await target(query))
        #expect(expected == found, sourceLocation: location)
        #expect(!expected.isEmpty, sourceLocation: location)
    }
}

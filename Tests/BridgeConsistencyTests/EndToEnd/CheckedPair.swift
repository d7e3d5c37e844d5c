import BridgeConformance
import BridgeConsistency
import BridgeCore
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Logging
import Testing

/// A link between two real databases, checked from beside it as `bridge check` does.
struct CheckedPair: Sendable {
    static let silent = Logger(label: "check") { _ in SwiftLogNoOpLogHandler() }

    let source: any ConformanceDatabase
    let target: any ConformanceDatabase & PlantingDatabase
    let folder: TemporaryDirectory
    let link: LinkDescription

    /// - Parameter names: more tables, which the test makes itself.
    init(_ pair: Pair, tables: [ConformanceTable] = ConformanceTable.all, names: [String] = []) async throws {
        source = try await pair.source.makeDatabase()
        target = try #require(try await pair.target.makeDatabase() as? any ConformanceDatabase & PlantingDatabase)
        folder = try TemporaryDirectory(prefix: "check")
        let (from, to) = (source, target)
        link = LinkDescription(
            migration: "check-\(UInt32.random(in: 0...UInt32.max))", direction: .forward,
            mappings: (tables.map(\.name) + names).map {
                TableMapping(source: from.tableName($0), target: to.tableName($0))
            },
            form: try from.makeSource().engine == to.makeSource().engine ? .native : .canonical)
        for table in tables {
            try await source.create(table)
            try await target.create(table)
        }
    }

    /// Makes the target's tables as `bridge schema apply` would.
    func applySchema() async throws {
        let (from, to) = (try source.makeSource(), try target.makeTarget())
        try await from.connect()
        try await to.connect()
        let schemas = try await from.planTables(link.mappings.map(\.source))
        try await to.execute(to.schemaPlan(for: schemas, mappings: link.mappings))
        await from.close()
        await to.close()
    }

    /// A number that a query on the target gives.
    func count(_ sql: String) async throws -> Int {
        let text: String
        if let target = target as? PostgreSQLDatabase {
            text = try await target.cluster.psql(target.url, sql)
        } else {
            text = try await ChildProcess.run(
                ["sqlite3", "-batch", String(target.url.dropFirst("sqlite:".count))], input: ".timeout 30000\n\(sql);\n")
        }
        return try #require(Int(text.filter(\.isNumber)))
    }

    func makeRunner(segmentBytes: Int64 = 64 << 20) throws -> LinkRunner {
        try LinkRunner(
            configuration: LinkConfiguration(
                link: link, journalDirectory: folder.path("journal"), batchBytes: 1 << 20, segmentBytes: segmentBytes,
                patience: .seconds(30)),
            source: source.makeSource(), target: target.makeTarget(), logger: Self.silent)
    }

    func makeCheck(
        _ mode: CheckReport.Mode, change: (inout CheckOptions) -> Void = { _ in }, probe: ViewProbe? = nil,
        access: ApplierAccess? = nil
    ) throws -> CheckRunner {
        var options = CheckOptions(
            mode: mode, throttle: 0, stateDirectory: folder.path("checks"), journalDirectory: folder.path("journal"),
            patience: .seconds(30))
        change(&options)
        var (from, to): (any SourceConnector, any TargetConnector) = (try source.makeSource(), try target.makeTarget())
        if let probe {
            from = ProbedSource(base: from, probe: probe)
            to = ProbedTarget(base: to, probe: probe)
        }
        return CheckRunner(link: link, options: options, source: from, target: to, logger: Self.silent, access: access)
    }

    func check(
        _ mode: CheckReport.Mode = .full, change: (inout CheckOptions) -> Void = { _ in }
    ) async throws -> CheckReport {
        try await makeCheck(mode, change: change).run()
    }

    /// A few rows of `accounts` and `items`.
    static let someRows = """
        BEGIN; INSERT INTO accounts VALUES (1, 'a', 10, NULL), (2, 'b', 5, ''); INSERT INTO items(a, b, price) VALUES (1, 'x', 0.5);
        COMMIT;
        """

    /// Copies, then keeps the link running while `body` works.
    func whileSyncing<Result: Sendable>(
        _ body: @Sendable (LinkRunner) async throws -> Result
    ) async throws -> Result {
        let runner = try makeRunner()
        async let outcome = runner.run(untilCaughtUp: false)
        try await waitUntil { runner.progress.activity == .streaming }
        let result: Swift.Result<Result, any Error>
        do { result = .success(try await body(runner)) } catch { result = .failure(error) }
        runner.stop()
        _ = try await outcome
        return try result.get()
    }

    func table(_ report: CheckReport, _ name: String) throws -> CheckReport.Table {
        try #require(report.tables.first { $0.source.hasSuffix(name) })
    }
}

extension CheckReport {
    /// Rows that are to be looked at again, in all tables.
    var pendingRows: Int64 { tables.reduce(0) { $0 + $1.pending } }

    /// What a failed expectation shows.
    var summary: String {
        let broken = soundness.filter { !$0.holds }.map { "\($0.name): \($0.detail ?? "")" }
        let failed = validations.filter { $0.status != .passed }.map { "\($0.name) \($0.status) \($0.findings)" }
        let rows = tables.map {
            "\($0.source) \($0.status) \($0.mismatched)/\($0.sourceOnly)/\($0.targetOnly) pending \($0.pending) \($0.reason ?? "") \($0.samples.map(\.key))"
        }
        return "\(verdict) \(gate.reasons) \(broken) \(failed) \(rows)"
    }
}

extension Pair {
    /// All, or the one that `BRIDGE_TEST_PAIR` names ("PostgreSQL to SQLite").
    static let wanted = all.filter { environment("BRIDGE_TEST_PAIR").map { [pair = $0.description] in $0 == pair } ?? true }
}

import BridgeConformance
import BridgeConsistency
import BridgeCore
import BridgeReplication
import BridgeTestEngines
import BridgeTestSupport
import Logging
import Testing

private let silent = Logger(label: "check") { _ in SwiftLogNoOpLogHandler() }

/// A link between two real databases, checked from beside it as `bridge check` does.
struct CheckedPair: Sendable {
    let source: any ConformanceDatabase
    let target: any ConformanceDatabase & PlantingDatabase
    let folder: TemporaryDirectory
    let link: LinkDescription

    init(_ pair: Pair, tables: [ConformanceTable] = ConformanceTable.all) async throws {
        source = try await pair.source.makeDatabase()
        target = try #require(try await pair.target.makeDatabase() as? any ConformanceDatabase & PlantingDatabase)
        folder = try TemporaryDirectory(prefix: "check")
        let (from, to) = (source, target)
        link = LinkDescription(
            migration: "check-\(UInt32.random(in: 0...UInt32.max))", direction: .forward,
            mappings: tables.map { TableMapping(source: from.tableName($0.name), target: to.tableName($0.name)) },
            form: try from.makeSource().engine == to.makeSource().engine ? .native : .canonical)
        for table in tables {
            try await source.create(table)
            try await target.create(table)
        }
    }

    func makeRunner(segmentBytes: Int64 = 64 << 20) throws -> LinkRunner {
        try LinkRunner(
            configuration: LinkConfiguration(
                link: link, journalDirectory: folder.path("journal"), batchBytes: 1 << 20, segmentBytes: segmentBytes,
                patience: .seconds(30)),
            source: source.makeSource(), target: target.makeTarget(), logger: silent)
    }

    func makeCheck(_ mode: CheckReport.Mode, change: (inout CheckOptions) -> Void = { _ in }) throws -> CheckRunner {
        var options = CheckOptions(
            mode: mode, throttle: 0, stateDirectory: folder.path("checks"), journalDirectory: folder.path("journal"),
            patience: .seconds(30))
        change(&options)
        return CheckRunner(
            link: link, options: options, source: try source.makeSource(), target: try target.makeTarget(), logger: silent)
    }

    func check(
        _ mode: CheckReport.Mode = .full, change: (inout CheckOptions) -> Void = { _ in }
    ) async throws -> CheckReport {
        try await makeCheck(mode, change: change).run()
    }

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

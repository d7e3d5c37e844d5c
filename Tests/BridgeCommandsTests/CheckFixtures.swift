import BridgeConsistency
import BridgeCore
import BridgeTestSupport
import Foundation
import Logging
import Synchronization

@testable import BridgeCommands

/// Reports as an engine would make them.
enum Reports {
    static func clean(id: String = "20261121T055900Z-0001", verdict: CheckReport.Verdict = .consistent) -> CheckReport {
        let isOpen = verdict == .consistent
        var report = CheckReport(
            checkId: id, migration: "shop", mode: .full, verdict: verdict,
            gate: .init(isOpen: isOpen, reasons: isOpen ? [] : ["the verdict is \(verdict.rawValue)"]),
            startedAt: "2026-11-21T05:59:00.000001Z", source: "sqlite:/old.db", target: "sqlite:/new.db")
        report.completedAt = "2026-11-21T05:59:02.500001Z"
        report.fenceSeconds = 0.25
        report.foreignWrites = 3
        report.soundness = [.init(name: "journal_uninterrupted", holds: true)]
        report.progress = .init(rowsDone: 1000, rowsEstimated: 1000, etaSeconds: 0)
        report.validations = CheckReport.ValidationName.allCases.map { .init(name: $0, status: .passed) }
        var table = CheckReport.Table(source: "users", target: "users", status: verdict)
        table.rowsCompared = 1000
        table.matching = 1000
        table.hashAlgorithm = "siphash-2-4-128"
        table.sourceSchema = "00112233445566778899aabbccddeeff"
        report.tables = [table]
        return report
    }

    /// Two rows that differ, one missing, one extra, a failed validation and an obligation that does not hold.
    static func fiveFaults(showingValues: Bool = false) -> CheckReport {
        var report = clean(id: "20261121T055900Z-00zz", verdict: .inconsistent)
        report.gate = .init(isOpen: false, reasons: ["4 rows differ", "1 obligation does not hold"])
        report.soundness.append(.init(name: "no_foreign_writes", holds: false, detail: "3 writes to users by someone else"))
        report.validations[0] = .init(name: .rowCounts, status: .failed, findings: ["users: 999 rows on the source, 998 on the target"])
        report.validations[1].findings = ["note: users: column name is compared by collation \"C\" on the source and none on the target"]
        report.validations[2] = .init(name: .indexes, status: .failed, findings: ["users: index users_email has no counterpart on the target"])
        report.validations[4] = .init(name: .dataSamples, status: .skipped)
        var users = report.tables[0]
        users.rowsCompared = 1000
        users.matching = 995
        users.mismatched = 2
        users.sourceOnly = 1
        users.targetOnly = 1
        users.pending = 1
        users.equalByPolicy = ["negative_zero": 3]
        var first = CheckReport.Sample(
            kind: .different, key: ["id": "9007199254740993", "user_name": nil], columns: ["email", "userName"], position: "4711",
            sourceHash: "00112233445566778899aabbccddeeff", targetHash: "ffeeddccbbaa99887766554433221100")
        if showingValues {
            first.sourceValues = ["email": "a@example.com", "userName": nil]
            first.targetValues = ["email": "a@example.com ", "userName": "\u{1B}[31mred\n"]
        }
        users.samples = [
            first, .init(kind: .different, key: ["id": "2", "user_name": "x"], columns: ["email"]),
            .init(kind: .missing, key: ["id": "3", "user_name": "y"], sourceHash: "01"),
            .init(kind: .extra, key: ["id": "4", "user_name": "a\u{1B}[2Jb"], targetHash: "02"),
        ]
        users.samplesCut = true
        var orders = CheckReport.Table(source: "public.orders", target: "orders", status: .inconclusive)
        orders.reason = "column total holds values that cannot be compared"
        report.tables = [users, orders]
        return report
    }

    static func error() -> CheckReport {
        CheckReport.failed(
            BridgeError(.connectionLost, "the server went away", context: [.init(.server, "old-db")]),
            checkId: "20261121T055900Z-0002", migration: "shop", mode: .incremental,
            startedAt: "2026-11-21T05:59:00.000001Z", source: "postgresql://old-db/shop", target: "sqlite:/new.db")
    }
}

/// A check that does what a test says, and tells what it was asked.
final class FakeCheck: ConsistencyCheck {
    private struct State {
        var isStopped = false
        var isRunning = false
    }
    private let state = Mutex(State())
    private let body: @Sendable (FakeCheck) async throws(BridgeError) -> CheckReport

    init(_ body: @escaping @Sendable (FakeCheck) async throws(BridgeError) -> CheckReport) { self.body = body }

    func run() async throws(BridgeError) -> CheckReport {
        state.withLock { $0.isRunning = true }
        return try await body(self)
    }

    func stop() { state.withLock { $0.isStopped = true } }
    var isStopped: Bool { state.withLock { $0.isStopped } }
    var isRunning: Bool { state.withLock { $0.isRunning } }
    var progress: CheckReport.Progress { .init(rowsDone: 10, rowsEstimated: 40, etaSeconds: 2) }

    /// What a check does that has not reached a verdict.
    func waitForStop() async throws(BridgeError) -> CheckReport {
        while !isStopped { try? await Task.sleep(for: .milliseconds(5)) }
        throw CheckSession.interrupted
    }
}

/// A migration between two SQLite files, brought as far as a test wants it.
struct CheckPlace: Sendable {
    let folder: TemporaryDirectory
    let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    /// Made, not begun.
    init() async throws {
        folder = try TemporaryDirectory(prefix: "check")
        try await sql(
            "old.db",
            """
            PRAGMA journal_mode = WAL; CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT);
            CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO users VALUES (1, 'a'), (2, 'b');
            """)
        try await succeeding("init", "sqlite:old.db", "sqlite:new.db", "--migration", "shop")
        try await succeeding("schema", "apply")
    }

    /// Copied and in sync, with nothing running.
    static func syncing() async throws -> CheckPlace {
        let place = try await CheckPlace()
        try await place.succeeding("run", "--until-caught-up")
        return place
    }

    @discardableResult
    func sql(_ file: String, _ sql: String) async throws -> String {
        try await ChildProcess.run(["sqlite3", "-bail", "-cmd", ".timeout 10000", folder.path(file)], input: sql)
    }

    @discardableResult
    func succeeding(_ arguments: String...) async throws -> ChildProcess.Outcome {
        let outcome = try await Executable.run(arguments, in: folder)
        guard outcome.status == 0 else { throw ChildProcess.Failure("\(arguments): \(outcome.errors)") }
        return outcome
    }

    func migration() throws -> Migration {
        let registry = ConnectorRegistry.standard
        let loader = ConfigurationLoader(environment: [:], registry: registry)
        return try Migration(
            try loader.load(.init(file: folder.path("bridge.yaml"), dataDirectory: nil)), registry: registry)
    }

    var history: [CheckHistory.Entry] { get throws { try CheckHistory(migration().directory).entries() } }
}

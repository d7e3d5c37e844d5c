import BridgeCore
import Foundation
import Testing

@testable import BridgeCommands

/// A status as it would be collected; tests change what they are about.
private func status() -> MigrationStatus {
    MigrationStatus(
        migration: "shop", source: .init(address: "sqlite:/a.db"), target: .init(address: "sqlite:/b.db"),
        forward: LinkStatus(
            LinkDescription(
                migration: "shop", direction: .forward,
                mappings: [
                    TableMapping(source: TableName(name: "users"), target: TableName(name: "users")),
                    TableMapping(source: TableName(name: "orders"), target: TableName(name: "orders")),
                ], form: .native)) { "seq \($0.commit)" })
}

private func report(phase: String = "syncing", activity: String = "streaming") -> RunReport {
    var report = RunReport(
        migration: "shop", direction: "forward", process: 7, startedAt: 1, updatedAt: 2, state: .running, phase: phase)
    report.activity = activity
    report.capturedPosition = "120"
    report.journaledPosition = "110"
    report.appliedPosition = "100"
    report.lagSeconds = 0.5
    report.rowsPerSecond = 12
    report.transactionsPerSecond = 3
    return report
}

private func parsed(_ status: MigrationStatus) throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: Data(status.json.pretty.utf8)) as? [String: Any])
}

@Suite("Status")
struct StatusTests {
    @Test("every field of the contract is there, null where nothing is known")
    func shape() throws {
        let json = try parsed(status())
        #expect(json["format_version"] as? Int == 1)
        #expect(json["migration"] as? String == "shop")
        #expect(json["phase"] as? String == "preparing")
        for key in ["last_check", "conflicts"] { #expect(json[key] is NSNull) }
        for key in ["gates", "drift", "next_steps", "links"] { #expect(json[key] is [Any]) }
        let link = try #require((json["links"] as? [[String: Any]])?.first)
        #expect(link["direction"] as? String == "forward")
        #expect(link["state"] as? String == "not_started")
        for key in [
            "captured_position", "journaled_position", "applied_position", "lag_bytes", "lag_seconds",
            "rows_per_second", "transactions_per_second", "journal_bytes", "slot_retained_bytes",
        ] {
            #expect(link[key] is NSNull, "\(key)")
        }
        let copy = try #require(json["copy"] as? [String: Any])
        #expect(copy["eta_seconds"] is NSNull)
        let tables = try #require(copy["tables"] as? [[String: Any]])
        #expect(tables.count == 2)
        #expect(tables[0]["state"] as? String == "pending")
        #expect(tables[0]["rows_done"] as? Int == 0)
        #expect(tables[0]["rows_estimated"] is NSNull)
    }

    @Test("R3 while it runs, positions, lag and rates come from the run, and the lag in bytes from the source")
    func running() throws {
        var status = status()
        status.forward.report = report()
        status.forward.runState = .running
        status.forward.state = LinkState(
            phase: .syncing, origin: CaptureOrigin(identity: [:], position: .zero),
            checkpoint: Checkpoint(position: Position(commit: 90), frontier: Position(commit: 91), commitTime: .now))
        status.forward.health = SourceHealth(
            current: Position(commit: 130), acknowledged: Position(commit: 105), retainedBytes: 4096, lagBytes: 30)
        status.forward.journalBytes = 1234
        let link = try #require((try parsed(status)["links"] as? [[String: Any]])?.first)
        #expect(link["state"] as? String == "running")
        #expect(link["captured_position"] as? String == "seq 120")
        #expect(link["journaled_position"] as? String == "seq 110")
        #expect(link["applied_position"] as? String == "seq 100")
        #expect(link["source_position"] as? String == "seq 130")
        #expect(link["acknowledged_position"] as? String == "seq 105")
        #expect(link["lag_bytes"] as? Int == 30)
        #expect(link["lag_seconds"] as? Double == 0.5)
        #expect(link["rows_per_second"] as? Double == 12)
        #expect(link["journal_bytes"] as? Int == 1234)
        #expect(link["slot_retained_bytes"] as? Int == 4096)
        #expect(status.nextSteps.isEmpty)
    }

    @Test("R3 an old report never shows a journal behind what the databases have of it")
    func order() throws {
        var status = status()
        status.forward.report = report()
        status.forward.runState = .running
        status.forward.state = LinkState(
            phase: .syncing, origin: CaptureOrigin(identity: [:], position: .zero),
            checkpoint: Checkpoint(position: Position(commit: 124), frontier: Position(commit: 125), commitTime: .now))
        status.forward.health = SourceHealth(current: Position(commit: 130), acknowledged: Position(commit: 127))
        let link = try #require((try parsed(status)["links"] as? [[String: Any]])?.first)
        #expect(link["applied_position"] as? String == "seq 125")
        #expect(link["journaled_position"] as? String == "seq 127")
        #expect(link["captured_position"] as? String == "seq 127")
    }

    @Test("a run that was killed counts as stopped: its rates are gone, and the target's checkpoint counts")
    func stopped() throws {
        var status = status()
        status.forward.report = report()
        status.forward.runState = .stopped
        status.forward.state = LinkState(
            phase: .syncing, origin: CaptureOrigin(identity: [:], position: .zero),
            checkpoint: Checkpoint(
                position: Position(commit: 99), frontier: Position(commit: 100),
                commitTime: Timestamp(microseconds: Timestamp.now.microseconds - 60_000_000)))
        status.forward.health = SourceHealth(current: Position(commit: 130))
        let link = try #require((try parsed(status)["links"] as? [[String: Any]])?.first)
        #expect(link["state"] as? String == "stopped")
        #expect(link["rows_per_second"] is NSNull)
        #expect(link["applied_position"] as? String == "seq 100")
        #expect((link["lag_seconds"] as? Double ?? 0) >= 60)
        #expect(status.nextSteps == ["bridge run"])
        status.forward.health = SourceHealth(current: Position(commit: 100))
        #expect(status.forward.lagSeconds == 0)
    }

    @Test("a failed run says why")
    func failed() throws {
        var status = status()
        var last = report()
        last.error = "the slot is gone"
        status.forward.report = last
        status.forward.runState = .failed
        let link = try #require((try parsed(status)["links"] as? [[String: Any]])?.first)
        #expect(link["state"] as? String == "failed")
        #expect(link["error"] as? String == "the slot is gone")
        #expect(status.lines(.plain).contains { $0.contains("the last run failed: the slot is gone") })
    }

    @Test("in the copy, finished tables are the target's and the others the run's")
    func copying() throws {
        var status = status()
        var run = report(phase: "copying", activity: "copying")
        run.tables = [
            .init(name: "users", rowsDone: 1, rowsEstimated: 50, state: "loading"),
            .init(name: "orders", rowsDone: 500, rowsEstimated: 1000, state: "loading"),
        ]
        run.copyEtaSeconds = 4
        status.forward.report = run
        status.forward.runState = .running
        status.forward.state = LinkState(
            phase: .copying, origin: CaptureOrigin(identity: [:], position: .zero),
            tables: [
                TableName(name: "users"): .init(state: .done, rows: 51),
                TableName(name: "orders"): .init(state: .loading),
            ])
        let copy = try #require(try parsed(status)["copy"] as? [String: Any])
        let tables = try #require(copy["tables"] as? [[String: Any]])
        #expect(tables[0]["state"] as? String == "done")
        #expect(tables[0]["rows_done"] as? Int == 51)
        #expect(tables[1]["rows_done"] as? Int == 500)
        #expect(tables[1]["rows_estimated"] as? Int == 1000)
        #expect(copy["eta_seconds"] as? Double == 4)
        #expect((try parsed(status)["links"] as? [[String: Any]])?.first?["lag_seconds"] is NSNull)
    }

    @Test("with a database down the rest is still told, and the database named")
    func down() throws {
        var status = status()
        status.forward.report = report()
        status.forward.runState = .stopped
        status.target.error = BridgeError(.serverUnreachable, "the server does not answer")
        let json = try parsed(status)
        #expect(json["phase"] as? String == "syncing")
        #expect((json["target"] as? [String: Any])?["reachable"] as? Bool == false)
        #expect((json["source"] as? [String: Any])?["reachable"] as? Bool == true)
        #expect(status.lines(.plain).contains { $0.contains("the server does not answer") })
        #expect(status.nextSteps.first?.hasPrefix("target: ") == true)
    }
}

@Suite("Preflight's verdict")
struct PreflightReportTests {
    private func report(_ codes: [(ErrorCode, Finding.Severity)]) -> PreflightReport {
        PreflightReport(
            migration: "m",
            entries: codes.map { .init(side: .source, finding: Finding($0.1, $0.0, what: "w", why: "y", mend: ["m"])) })
    }

    @Test(
        "the gravest finding decides the exit status",
        arguments: [
            ([], 0), ([(.serverSettings, .warning)], 0), ([(.tableWithoutKey, .blocking)], 78),
            ([(.tableWithoutKey, .blocking), (.rightsMissing, .blocking)], 77),
            ([(.rightsMissing, .blocking), (.serverUnreachable, .blocking)], 69), ([(.inputOutput, .blocking)], 74),
        ] as [([(ErrorCode, Finding.Severity)], Int32)])
    func status(_ codes: [(ErrorCode, Finding.Severity)], _ status: Int32) {
        #expect(report(codes).exitStatus.rawValue == status)
    }

    @Test("each finding says what, why, and what mends it")
    func text() {
        let lines = report([(.serverSettings, .warning), (.tableWithoutKey, .blocking)]).lines(.plain)
        #expect(lines[0] == "blocking  source: w")
        #expect(lines[1] == "  why: y")
        #expect(lines[2] == "  mend: m")
        #expect(lines[3].hasPrefix("warning"))
        #expect(lines.last == "1 finding must be mended before: bridge run")
    }
}

@Suite("The file that init writes")
struct ConfigurationDraftTests {
    private func table(_ name: String, schema: String? = "public", key: [String] = ["id"]) -> TableSchema {
        TableSchema(
            engine: .postgresql, name: TableName(schema: schema, name: name),
            columns: [ColumnSchema(name: "id", typeName: "bigint", type: .int64)], primaryKey: key, estimatedRows: 1200)
    }

    private func draft(_ found: [TableSchema], wanted: [String] = []) throws(BridgeError) -> ConfigurationDraft {
        try ConfigurationDraft(
            migration: nil,
            source: DatabaseAddress("postgresql://app:hunter2@old-db:5432/shop?sslmode=require", relativeTo: "/"),
            target: DatabaseAddress("sqlite:new.db", relativeTo: "/srv/move"), directory: "/srv/move", found: found,
            existing: [table("orders", schema: nil)], wanted: wanted)
    }

    @Test("it can be read back, holds no password, and leaves out what cannot be moved")
    func text() throws {
        let draft = try draft([
            table("users"), table("orders"), table("log", key: []), table("odd.name", schema: "my app"),
        ])
        #expect(draft.text.contains("hunter2") == false)
        #expect(draft.placeholders == ["SOURCE_PASSWORD"])
        #expect(draft.text.contains("      # - log  # it has no primary key"))
        let loader = ConfigurationLoader(environment: ["SOURCE_PASSWORD": "hunter2"], workingDirectory: "/")
        let configuration = try loader.parse(draft.text, path: "/srv/move/bridge.yaml")
        #expect(configuration.source.connection == "postgresql://app:hunter2@old-db:5432/shop?sslmode=require")
        #expect(configuration.target.connection == "/srv/move/new.db")
        #expect(configuration.migration == "shop-to-new")
        #expect(
            configuration.mappings.map(\.source) == [
                TableName(name: "users"), TableName(name: "orders"), TableName(schema: "my app", name: "odd.name"),
            ])
        #expect(configuration.replication == Configuration.Replication())
    }

    @Test("only the tables asked for are in it, in that order")
    func chosen() throws {
        let draft = try draft([table("a"), table("b"), table("c")], wanted: ["c", "public.a"])
        #expect(draft.chosen.map(\.name.name) == ["c", "a"])
    }

    @Test("a table that is not there, or has no key, is refused by name")
    func refused() {
        let missing = failure { () throws(BridgeError) in _ = try draft([table("users")], wanted: ["usres"]) }
        #expect(missing?.code == .tableMissing)
        #expect(missing?.hint == "did you mean users?")
        let keyless = failure { () throws(BridgeError) in _ = try draft([table("log", key: [])], wanted: ["log"]) }
        #expect(keyless?.code == .tableWithoutKey)
    }
}

@Suite("Configuration against the tables")
struct ConfigurationChecksTests {
    @Test("columns must exist and hold the key; what this version cannot do is said")
    func findings() throws {
        let text = """
            migration: m
            source: sqlite:a.db
            target: sqlite:b.db
            data_dir: /proc/nowhere
            services: { app: { tables: [{from: users, columns: [email, nmae]}] } }
            replication: { on_conflict: skip, apply_jobs: 2 }
            """
        let schema = TableSchema(
            engine: .sqlite, name: TableName(name: "users"),
            columns: ["id", "email", "name"].map { ColumnSchema(name: $0, typeName: "TEXT", type: .text) },
            primaryKey: ["id"])
        let findings = ConfigurationChecks.findings(try parse(text), sources: [schema])
        #expect(
            findings.map(\.what)
                == [
                    "the source table has no column 'nmae'", "'columns' leaves out the key column 'id'",
                    "replication.apply_jobs is 2",
                    "data_dir cannot be written: /proc",
                ].filter { geteuid() != 0 || !$0.hasPrefix("data_dir") })
        #expect(findings.first?.mend == ["write 'name' in 'columns'"])
        #expect(findings.filter { $0.severity == .warning && $0.code != .diskFull }.map(\.what) == ["replication.apply_jobs is 2"])
    }

    @Test("what a connector found stands beside what was asked for, gaps included")
    func match() {
        func schema(_ name: String, _ schema: String? = nil) -> TableSchema {
            TableSchema(engine: .sqlite, name: TableName(schema: schema, name: name), columns: [])
        }
        let wanted = ["a", "b", "Users", "c"].map { TableName(name: $0) }
        let found = [schema("b", "public"), schema("users")]
        #expect(Migration.match(wanted, found).map { $0?.name.name } == [nil, "b", "users", nil])
        let both = [TableName(name: "Users"), TableName(name: "users")]
        #expect(Migration.match(both, [schema("users")]).map { $0?.name.name } == [nil, "users"])
        #expect(Migration.match([TableName(schema: "x", name: "b")], [schema("b", "y")]) == [nil])
    }
}

import BridgeConsistency
import BridgeCore
import BridgeTestSupport
import Foundation
import Synchronization
import Testing

@testable import BridgeCommands

@Suite("A check's report")
struct CheckReportTests {
    private let validator: JSONSchemaValidator

    init() throws { validator = try JSONSchemaValidator(CheckReportSchema.text) }

    @Test("K22 the schema that the program prints is the one in the repository")
    func schemaFile() async throws {
        let file = (#filePath as NSString).deletingLastPathComponent + "/../../schemas/check-report.schema.json"
        let text = try TemporaryDirectory.readFile(file)
        #expect(text == CheckReportSchema.text + "\n")
        let outcome = try await Executable.run(["check", "--schema"])
        #expect(outcome.status == 0)
        #expect(outcome.output == text)
    }

    @Test(
        "K22 every report fits the schema, and comes back as it was written",
        arguments: [
            Reports.clean(), Reports.fiveFaults(), Reports.fiveFaults(showingValues: true), Reports.error(),
            Reports.clean(verdict: .inconclusive),
        ])
    func roundTrip(_ report: CheckReport) throws {
        for text in [report.json.pretty, report.json.compact] {
            #expect(try validator.problems(text) == [])
            var expected = report
            expected.validations = report.allValidations
            #expect(CheckReport.read(Data(text.utf8)) == expected)
        }
    }

    @Test("K22 a report without something that the schema asks for is refused")
    func schemaIsStrict() throws {
        let whole = try #require(
            try JSONSerialization.jsonObject(with: Data(Reports.fiveFaults().json.compact.utf8)) as? [String: Any])
        func problems(_ object: [String: Any]) throws -> [String] {
            try validator.problems(String(decoding: try JSONSerialization.data(withJSONObject: object), as: UTF8.self))
        }
        #expect(try problems(whole) == [])
        for key in whole.keys {
            var object = whole
            object[key] = nil
            #expect(try problems(object).count == 1, "\(key)")
            object[key] = ["fence_seconds", "foreign_writes", "completed_at", "sample_seed"].contains(key) ? "soon" : NSNull()
            #expect(try !problems(object).isEmpty, "\(key)")
        }
        var object = whole
        object["later"] = ["whatever": 1]
        #expect(try problems(object) == [])
        object["verdict"] = "fine"
        #expect(try problems(object).count == 1)
        object = whole
        object["gate"] = ["open": true, "reasons": ["but"]]
        #expect(try problems(object).count == 1)
        object = whole
        object["validations"] = Array((whole["validations"] as? [Any] ?? []).dropLast())
        #expect(try problems(object).count == 2)
        object = whole
        var tables = try #require(whole["tables"] as? [[String: Any]])
        tables[0]["matching"] = -1
        object["tables"] = tables
        #expect(try problems(object).count == 1)
        tables[0]["matching"] = 1
        tables[0]["samples"] = [["kind": "different", "key": ["id": 7]]]
        object["tables"] = tables
        #expect(try problems(object).count == 5)
    }

    @Test("C10 a report without the tables' definitions, as older versions wrote it, is read and fits the schema")
    func withoutDefinitions() throws {
        var whole = try #require(
            try JSONSerialization.jsonObject(with: Data(Reports.clean().json.compact.utf8)) as? [String: Any])
        var tables = try #require(whole["tables"] as? [[String: Any]])
        #expect(tables[0]["source_schema"] as? String == Reports.clean().tables[0].sourceSchema)
        for key in ["source_schema", "target_schema"] { #expect(tables[0].removeValue(forKey: key) != nil) }
        whole["tables"] = tables
        let data = try JSONSerialization.data(withJSONObject: whole)
        #expect(try validator.problems(String(decoding: data, as: UTF8.self)) == [])
        var expected = Reports.clean()
        expected.tables[0].sourceSchema = nil
        #expect(CheckReport.read(data) == expected)
    }

    @Test("K22 keys of a later minor version are passed over, another major version is not read")
    func versions() throws {
        let text = Reports.clean().json.compact
        let later = text.replacing("\"format_version\":\"1.0\"", with: "\"format_version\":\"1.7\",\"later\":{\"a\":[1]}")
        #expect(CheckReport.read(Data(later.utf8))?.formatVersion == "1.7")
        #expect(CheckReport.read(Data(text.replacing("\"1.0\"", with: "\"2.0\"").utf8)) == nil)
        #expect(CheckReport.read(Data(text.replacing("\"kind\":\"check\"", with: "\"kind\":\"else\"").utf8)) == nil)
        #expect(CheckReport.read(Data(text.dropLast().utf8)) == nil)
        #expect(CheckReport.read(Data()) == nil)
    }

    @Test("K22 all six validations are there, also those that a check did not make; values only if asked for")
    func shape() throws {
        let text = Reports.error().json.compact
        #expect(try validator.problems(text) == [])
        for name in CheckReport.ValidationName.allCases {
            #expect(text.contains("{\"name\":\"\(name.rawValue)\",\"status\":\"skipped\",\"findings\":[]}"))
        }
        let hidden = Reports.fiveFaults()
        #expect(!hidden.json.compact.contains("_values"))
        #expect(!hidden.json.compact.contains("example.com"))
        #expect(hidden.json.compact.contains("\"id\":\"9007199254740993\""))
        let shown = Reports.fiveFaults(showingValues: true).json.compact
        #expect(shown.contains(#""source_values":{"email":"a@example.com","userName":null}"#))
    }

    @Test(
        "the exit status follows the verdict",
        arguments: [
            (Reports.clean(), BridgeCore.ExitStatus.done), (Reports.fiveFaults(), .inconsistent),
            (Reports.clean(verdict: .inconclusive), .inconclusive), (Reports.error(), .unavailable),
            (Reports.clean(verdict: .error), .internalFault),
        ])
    func exitStatus(_ report: CheckReport, _ status: BridgeCore.ExitStatus) { #expect(report.exitStatus == status) }

    @Test("for people: tables, validations, what does not hold, rows, verdict, what to do next")
    func text() {
        #expect(
            Reports.fiveFaults().lines(.plain).joined(separator: "\n") == #"""
                shop  full check 20261121T055900Z-00zz  2.5 s
                  source  sqlite:/old.db
                  target  sqlite:/new.db

                  table          verdict        rows  matching  different  missing  extra  pending
                  users          inconsistent  1,000       995          2        1      1        1
                  public.orders  inconclusive      0         0          0        0      0        0
                  users: 3 rows are equal only under the policy negative_zero
                  public.orders: column total holds values that cannot be compared

                  validations
                  row_counts    failed
                    users: 999 rows on the source, 998 on the target
                  schemas       passed
                    note: users: column name is compared by collation "C" on the source and none on the target
                  indexes       failed
                    users: index users_email has no counterpart on the target
                  constraints   passed
                  data_samples  skipped
                  checksums     passed

                  does not hold
                  no_foreign_writes: 3 writes to users by someone else

                  rows that differ
                  users  different  id=9007199254740993 user_name=NULL  in email, userName
                  users  different  id=2 user_name=x  in email
                  users  missing  id=3 user_name=y
                  users  extra  id=4 user_name=a\u{1b}[2Jb
                  more rows differ: --samples N shows more, --differences FILE writes the keys of all

                inconsistent  the gate is shut: 4 rows differ; 1 obligation does not hold
                next: bridge check --differences FILE writes the keys of all rows that differ; bridge check --repair writes the source's rows to the target; bridge schema show prints the expected tables
                """#)
    }

    @Test("values and their control characters are written out where values were asked for")
    func values() {
        let lines = Reports.fiveFaults(showingValues: true).lines(.plain)
        #expect(lines.contains("    email: source a@example.com  target a@example.com "))
        #expect(lines.contains("    userName: source NULL  target \\u{1b}[31mred\\u{a}"))
        #expect(!lines.joined().contains("\u{1B}"))
    }

    @Test("a clean report is short and says that the gate is open; long lists of findings are cut")
    func clean() {
        let lines = Reports.clean().lines(.plain)
        #expect(lines.last == "consistent  the gate is open")
        #expect(!lines.contains { $0.hasPrefix("next:") })
        var many = Reports.clean(verdict: .inconsistent)
        many.validations[1] = .init(name: .schemas, status: .failed, findings: (0..<25).map { "finding \($0)" })
        #expect(many.lines(.plain).contains("    finding 9"))
        #expect(!many.lines(.plain).contains("    finding 10"))
        #expect(many.lines(.plain).contains("    and 15 more: --json has them all"))
        #expect(many.lines(.plain).last == "next: bridge schema show prints the expected tables")
    }

    @Test("the progress line tells how far it is, and never goes beyond its end")
    func progress() {
        #expect(
            CheckDisplay.line(.init(rowsDone: 500, rowsEstimated: 2000, etaSeconds: 3))
                == "checking  [#####---------------] 25%  500 rows  3.0 s left")
        #expect(CheckDisplay.line(.init(rowsDone: 3000, rowsEstimated: 2000)).contains("] 100%"))
        #expect(CheckDisplay.line(.init()) == "checking  0 rows")
        #expect(CheckDisplay.line(.init(rowsDone: 0, rowsEstimated: 0)).contains("] 0%"))
    }
}

@Suite("The history of checks")
struct CheckHistoryTests {
    private let folder: TemporaryDirectory
    private let history: CheckHistory

    init() throws {
        folder = try TemporaryDirectory(prefix: "history")
        history = CheckHistory(DataDirectory(folder.path))
    }

    @Test("K22 reports come back newest first, and no more than a hundred stay")
    func order() throws {
        #expect(try history.entries().isEmpty)
        let names = (0..<103).map { CheckIdentifier.make(at: Timestamp(microseconds: Int64($0) * 700_000)) }
        for name in names.shuffled() { try history.add(Reports.clean(id: name)) }
        let entries = try history.entries()
        #expect(entries.map(\.checkId) == Array(names.sorted().reversed().prefix(100)))
        #expect(entries.allSatisfy { $0.report?.checkId == $0.checkId })
        let files = try FileManager.default.contentsOfDirectory(atPath: folder.path("checks"))
        #expect(files.count == 100)
    }

    @Test("K22 a file is whole, durable and its owner's alone; the same check replaces its report")
    func file() throws {
        var report = Reports.clean()
        try history.add(report)
        report.verdict = .inconclusive
        try history.add(report)
        let entries = try history.entries()
        #expect(entries.map { $0.report?.verdict } == [.inconclusive])
        let validator = try JSONSchemaValidator(CheckReportSchema.text)
        #expect(try validator.problems(TemporaryDirectory.readFile(entries[0].path)) == [])
        for (path, mode) in [(entries[0].path, 0o600), (folder.path("checks"), 0o700)] {
            let attributes = try FileManager.default.attributesOfItem(atPath: path)
            #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == mode)
        }
    }

    @Test("K22 a broken file is listed as broken, and counts as the newest; others' files are passed over")
    func broken() throws {
        try history.add(Reports.clean(id: "20261121T055900Z-0001"))
        try folder.write("checks/20261121T055900Z-0002.json", "{\"verdict\": \"consist")
        try folder.write("checks/20261121T055900Z-0000.json", Reports.clean(id: "20261121T055900Z-0009").json.pretty)
        try folder.write("checks/notes.txt", "mine")
        try folder.write("checks/zzz.json", "{}")
        try FileManager.default.createDirectory(
            atPath: folder.path("checks/20261121T055900Z-0003.json"), withIntermediateDirectories: false)
        let entries = try history.entries()
        #expect(entries.map { $0.report != nil } == [false, false, true, false])
        #expect(try history.newest(of: "shop")?.checkId == "20261121T055900Z-0003")
        #expect(try history.newest(of: "shop")?.report == nil)
        let lines = CheckHistory.lines(entries, .plain)
        #expect(lines.count == 5)
        #expect(lines[1].contains("broken file"))
        let json = CheckHistory.json(entries)["checks"]
        guard case .array(let checks) = json else { throw ChildProcess.Failure("no checks") }
        #expect(checks.map { $0["readable"] } == [false, false, true, false])
        #expect(checks[2]["verdict"] == "consistent")
        #expect(checks[2]["rows_compared"] == 1000)
    }

    @Test("K22 the newest report of this migration is found behind those of another")
    func foreign() throws {
        try history.add(Reports.clean(id: "20261121T055900Z-0001"))
        var other = Reports.clean(id: "20261121T055900Z-0002")
        other.migration = "elsewhere"
        try history.add(other)
        #expect(try history.newest(of: "shop")?.checkId == "20261121T055900Z-0001")
        #expect(try history.newest(of: "none") == nil)
    }

    @Test("K22 a name that leads out of the folder is refused, and a folder that cannot be written is named")
    func refused() throws {
        let error = failure { () throws(BridgeError) in try history.add(Reports.clean(id: "../../x")) }
        #expect(error?.code == .internalFault)
        try folder.write("file", "")
        let stuck = CheckHistory(DataDirectory(folder.path("file")))
        #expect(failure { () throws(BridgeError) in try stuck.add(Reports.clean()) }?.exitStatus == .inputOutput)
    }

    @Test("status shows the newest check, and one that cannot be read as an error")
    func lastCheck() async throws {
        let directory = DataDirectory(folder.path)
        #expect(await LastCheck.read(directory, migration: "shop") == nil)
        try history.add(Reports.fiveFaults())
        let last = try #require(await LastCheck.read(directory, migration: "shop"))
        let now = Timestamp(microseconds: 1_795_240_742_500_001 + 125_000_000)
        let json = last.json(at: now)
        #expect(json["verdict"] == "inconsistent")
        #expect(json["mode"] == "full")
        #expect(json["check_id"] == "20261121T055900Z-00zz")
        #expect(json["completed_at"] == "2026-11-21T05:59:02.500001Z")
        guard case .number(let age)? = json["age_seconds"] else { throw ChildProcess.Failure("no age") }
        #expect(abs(age - 125) < 0.01)
        #expect(last.line(.plain, at: now) == "  last check  inconsistent, full, 2 m 05 s ago  20261121T055900Z-00zz")
        try folder.write("checks/20271121T055900Z-0000.json", "")
        let broken = try #require(await LastCheck.read(directory, migration: "shop"))
        #expect(broken.json(at: now)["verdict"] == "error")
        #expect(broken.json(at: now)["age_seconds"] == .null)
        #expect(broken.line(.plain, at: now) == "  last check  the report 20271121T055900Z-0000 cannot be read")
    }
}

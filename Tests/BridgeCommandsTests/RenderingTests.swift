import BridgeCore
import Foundation
import Testing

@testable import BridgeCommands

@Suite("Rendering")
struct RenderingTests {
    @Test("an error says what, where, why and what to try, and no cause twice")
    func error() {
        let root = BridgeError(.inputOutput, "the disk is gone", context: [.init(.file, "/a")])
        let middle = BridgeError(.journalDamaged, "the journal cannot be written", cause: root)
        let top = BridgeError(
            .internalFault, "capture stopped", context: [.init(.table, "users")], hint: "do this", cause: middle)
        #expect(
            ErrorRenderer.text(top, style: .plain) == """
                error: capture stopped (table: users)
                  because the journal cannot be written
                  because the disk is gone (file: /a)
                try: do this
                """)
        let repeating = BridgeError(.internalFault, "stopped: the disk is gone", cause: root)
        #expect(ErrorRenderer.text(repeating, style: .plain).contains("because") == false)
    }

    @Test("every code has a hint that stands behind 'try: '", arguments: ErrorCode.allCases)
    func hints(_ code: ErrorCode) {
        let lines = ErrorRenderer.text(BridgeError(code, "x"), style: .plain).split(separator: "\n")
        #expect(lines.count == 2)
        #expect(lines.last?.hasPrefix("try: ") == true)
        #expect((lines.last?.count ?? 0) > 10)
    }

    @Test("JSON is read back by another reader as what was meant")
    func json() throws {
        let document: JSONValue = [
            "text": "a \"quoted\" \\ line\nbreak\t\u{01}\u{7F} ü 😀 </script>", "int": .integer(.min),
            "max": .integer(.max),
            "real": .number(0.1), "whole": .number(3), "nan": .number(.nan), "none": nil, "yes": true,
            "list": [1, 2, []], "object": [:],
        ]
        for text in [document.pretty, document.compact] {
            let parsed = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
            #expect(parsed["text"] as? String == "a \"quoted\" \\ line\nbreak\t\u{01}\u{7F} ü 😀 </script>")
            #expect((parsed["int"] as? NSNumber)?.int64Value == .min)
            #expect((parsed["max"] as? NSNumber)?.int64Value == .max)
            #expect((parsed["real"] as? NSNumber)?.doubleValue == 0.1)
            #expect(parsed["nan"] is NSNull)
            #expect(parsed["none"] is NSNull)
            #expect((parsed["list"] as? [Any])?.count == 3)
        }
        #expect(document.compact.contains("\n") == false)
    }

    @Test("tables line up")
    func table() {
        var table = Table([("name", .left), ("rows", .right)])
        table.append(["a", "1"])
        table.append(["longer", "12,345"])
        #expect(table.lines(style: .plain) == ["name      rows", "a            1", "longer  12,345"])
    }

    @Test("colours only where they are wanted")
    func colours() {
        #expect(Style.plain.red("x") == "x")
        #expect(Style(isColored: true).red("x") == "\u{1B}[31mx\u{1B}[0m")
        #expect(Style(descriptor: -1, noColor: false, environment: [:]).isColored == false)
    }

    @Test("numbers for people")
    func numbers() {
        #expect(Numbers.grouped(0) == "0")
        #expect(Numbers.grouped(999) == "999")
        #expect(Numbers.grouped(1_234_567) == "1,234,567")
        #expect(Numbers.grouped(.min) == "-9,223,372,036,854,775,808")
        #expect(Numbers.bytes(512) == "512 B")
        #expect(Numbers.bytes(1500) == "1.5 kB")
        #expect(Numbers.bytes(20_000_000_000) == "20.0 GB")
        #expect(Numbers.duration(seconds: 0.04) == "40 ms")
        #expect(Numbers.duration(seconds: 1.44) == "1.4 s")
        #expect(Numbers.duration(seconds: 125) == "2 m 05 s")
        #expect(Numbers.duration(seconds: 11_520) == "3 h 12 m")
        #expect(Numbers.duration(seconds: .infinity) == "–")
        #expect(Numbers.rate(12_345.4) == "12,345")
    }

    @Test("the copy's line tells how far, how fast and how long still")
    func copyLine() {
        var report = RunReport(
            migration: "m", direction: "forward", process: 1, startedAt: 0, updatedAt: 0, state: .running,
            phase: "copying")
        report.activity = "copying"
        report.tables = [
            .init(name: "a", rowsDone: 100, rowsEstimated: 90, state: "done"),
            .init(name: "b", rowsDone: 150, rowsEstimated: 400, state: "loading"),
        ]
        report.copyRowsPerSecond = 50
        report.copyEtaSeconds = 5
        #expect(
            RunDisplay.line(report)
                == "copying  [##########----------] 50%  250 rows  1 of 2 tables  50.0 rows/s  5.0 s left")
    }

    @Test("a log line is one line, as text and as JSON")
    func logLine() throws {
        let text = ConsoleLogHandler.line(
            level: .info, message: "hello", facts: [("table", "a b")], time: Timestamp(microseconds: 0), format: .text,
            style: .plain)
        #expect(text == "00:00:00.000 info hello table=\"a b\"")
        let json = ConsoleLogHandler.line(
            level: .error, message: "a\nb", facts: [], time: Timestamp(microseconds: 0), format: .json, style: .plain)
        #expect(json == #"{"time":"1970-01-01T00:00:00.000000Z","level":"error","message":"a\nb"}"#)
    }

    @Test(
        "the nearest name is the one that was meant",
        arguments: [
            ("copyjobs", "copy_jobs"), ("batch_size", "batch_bytes"), ("conflict", "on_conflict"),
            ("jornal_keep", "journal_keep"), ("zzz", nil),
        ] as [(String, String?)])
    func nearest(_ name: String, _ expected: String?) {
        let known = ["batch_bytes", "copy_jobs", "apply_jobs", "journal_budget", "journal_keep", "on_conflict"]
        #expect(nearestName(to: name, in: known) == expected)
    }
}

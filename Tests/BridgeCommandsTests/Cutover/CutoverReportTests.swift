import BridgeCore
import BridgeCutover
import Testing

@testable import BridgeCommands

@Suite struct CutoverReportTests {
    @Test("C24 where nobody could look at the end, the phase is said to be unknown")
    func phase() throws {
        var report = CutoverReport(verb: "switch-writes", migration: "shop")
        #expect(try phase(of: report) == "unknown")
        report.standing = Standing(phases: ["a": .writesSwitched, "b": .readsSwitched])
        #expect(try phase(of: report) == "reads_switched")
        report.standing = nil
        report.ending = .completed
        #expect(try phase(of: report) == "completed")
    }

    @Test("C19 what is waited for is said with its limit")
    func waiting() {
        let line = CutoverLines(style: .plain).waiting(BridgeError(.serverUnreachable, "the server does not answer"), .seconds(90))
        #expect(line == "waiting for up to 90s: the server does not answer")
    }

    private func phase(of report: CutoverReport) throws -> String {
        let text = report.json.pretty
        let line = try #require(text.split(separator: "\n").first { $0.contains("\"phase\"") })
        return String(try #require(line.split(separator: "\"").last { $0 != "," }))
    }
}

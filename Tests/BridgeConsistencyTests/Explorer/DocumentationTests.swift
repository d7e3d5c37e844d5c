import BridgeConsistency
import Foundation
import Testing

/// The pages say what the explorer tries, and what no mode can see.
@Suite("Documentation")
struct DocumentationTests {
    private func page(_ name: String) throws -> String {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        return try String(
            contentsOf: root.appendingPathComponent("Sources/BridgeConsistency/Documentation.docc/\(name).md"), encoding: .utf8)
    }

    @Test("K15 each obligation of the proof is explored, and each explored one stands in the proof")
    func obligations() throws {
        let lines = try page("SoundnessOfTheFenceCheck").split(separator: "\n")
        let documented = lines.compactMap { line -> Int? in
            guard line.hasPrefix("| O"), let number = line.dropFirst(3).split(separator: " ").first else { return nil }
            return Int(number)
        }
        #expect(documented == Array(1...documented.count))
        #expect(Set(documented) == Set(Obligation.allCases.map(\.number)))
    }

    @Test("K21 the page says of each mode what it cannot see", arguments: CheckReport.Mode.allCases)
    func modes(_ mode: CheckReport.Mode) throws {
        let sections = try page("WhatACheckProves").components(separatedBy: "\n### ")
        let section = sections.first { $0.lowercased().hasPrefix(mode.rawValue + "\n") }
        let text = try #require(section, "no section on \(mode.rawValue)")
        #expect(text.contains("It proves:"))
        #expect(text.contains("It cannot see:"))
    }
}

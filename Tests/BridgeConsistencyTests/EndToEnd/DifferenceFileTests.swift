import BridgeConformance
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeConsistency

private struct Line: Decodable {
    struct Difference: Decodable {
        var kind: String
        var key: [String: String?]
    }
    var table: String
    var difference: Difference

    static func all(_ path: String) throws -> [Line] {
        try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").map {
            try JSONDecoder().decode(Line.self, from: Data($0.utf8))
        }
    }
    static func keys(_ path: String) throws -> [String] { try all(path).compactMap { $0.difference.key["id"] ?? nil } }
}

@Suite("The file of differences between real databases", .serialized)
struct DifferenceFileEndToEndTests {
    private static func rows(_ count: Int) -> String {
        """
        BEGIN; INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < \(count))
          SELECT n, 'u' || n, n, NULL FROM g; COMMIT;
        """
    }

    @Test("K6 a chunk that is compared again after a lost connection writes and counts each row once", arguments: Pair.wanted)
    func again(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute(Self.rows(4000))
        try await checked.whileSyncing { _ in
            #expect(try await checked.check().verdict == .consistent)
            try await checked.target.plant("UPDATE accounts SET balance = -1 WHERE id > 1000")
            let path = checked.folder.path("differences.jsonl")
            // Far enough into the chunk for some differences to have been told already.
            let probe = ViewProbe { _, number in number == 12 }
            let report = try await checked.makeCheck(.full, change: { $0.differencesFile = path }, probe: probe).run()
            #expect(probe.all.finds > 12)
            let table = try checked.table(report, "accounts")
            #expect(table.mismatched == 3000, "\(report.summary)")
            #expect(table.rowsCompared == 4000)
            let keys = try Line.keys(path)
            #expect(keys.count == 3000)
            #expect(Set(keys).count == 3000)
        }
    }

    @Test("K6 incremental checks and samples write what they find, each row once", arguments: Pair.wanted)
    func otherModes(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.source.execute(Self.rows(40))
        try await checked.whileSyncing { _ in
            let path = checked.folder.path("differences.jsonl")
            #expect(try await checked.check(change: { $0.differencesFile = path }).verdict == .consistent)
            #expect(try Line.all(path).isEmpty)
            try await checked.source.execute("BEGIN; UPDATE accounts SET note = 'm' WHERE id < 10; COMMIT;")
            try await waitUntil { try await checked.count("SELECT count(*) FROM accounts WHERE note = 'm'") == 9 }
            try await checked.target.plant("UPDATE accounts SET balance = -1 WHERE id IN (3, 5)")
            for mode in [CheckReport.Mode.incremental, .fence, .incremental, .sample, .full] {
                let report = try await checked.check(mode) { $0.differencesFile = path }
                #expect(report.verdict == .inconsistent, "\(mode): \(report.summary)")
                #expect(try Line.keys(path).sorted() == ["3", "5"], "\(mode)")
            }
        }
    }
}

@Suite("The file of differences")
struct DifferenceFileTests {
    private func sample(_ id: Int) -> CheckReport.Sample { .init(kind: .different, key: ["id": "\(id)"]) }
    private func key(_ id: Int) -> KeyImage { image([.integer(Int64(id))]) }

    @Test("K6 what is cut back, or of a table begun anew, is gone; what is there already is not written again")
    func cutsAndFinds() throws {
        let folder = try TemporaryDirectory(prefix: "differences")
        let path = folder.path("d.jsonl")
        let file = try DifferenceFile(path: path, tables: ["a", "b"], folder: folder.path(""), remembered: 4)
        for id in 0..<1000 { try file.write(sample(id), key: key(id), table: 0) }
        let mark = try file.mark()
        for id in 1000..<2000 { try file.write(sample(id), key: key(id), table: 0) }
        try file.cut(to: mark)
        for id in 0..<500 { try file.write(sample(id), key: key(id), table: 1) }
        for id in 1000..<1500 { try file.write(sample(id), key: key(id), table: 0) }
        // In batches beyond what is remembered, so that the file itself is asked.
        for start in stride(from: 0, to: 1600, by: 100) {
            for _ in 0..<2 { try file.writeNew((start..<start + 100).map { (key($0), sample($0)) }, table: 0) }
        }
        try file.finish()
        let all = try Line.all(path)
        #expect(all.count == 2100)
        #expect(all.filter { $0.table == "a" }.compactMap { $0.difference.key["id"] ?? nil }.compactMap { Int($0) }.sorted() == Array(0..<1600))
        try file.remove(table: 0)
        try file.writeNew([(key(3), sample(3))], table: 0)
        try file.writeNew([(key(3), sample(3))], table: 1)
        try file.finish()
        let left = try Line.all(path)
        #expect(left.count == 501)
        #expect(left.filter { $0.table == "b" }.compactMap { $0.difference.key["id"] ?? nil } == (0..<500).map(String.init))
    }
}

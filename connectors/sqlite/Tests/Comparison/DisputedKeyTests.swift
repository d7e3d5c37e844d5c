import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// The checker's rule upon a source's views: what two views show of a key can differ only if some captured transaction
/// touched the key that is not seen by both.
@Suite("SQLite comparison: disputed keys")
struct DisputedKeyTests {
    private struct Captured {
        var begin: UInt64
        var commit: UInt64
        var keys: Set<[UInt8]>
    }

    private struct Target {
        var frontier: Position
        var rows: [[UInt8]: [UInt8]]
    }

    @Test("K2 outside of the keys disputed by commit, a view and every target state agree; by begin they would not", arguments: 1...6 as ClosedRange<UInt64>)
    func rule(seed: UInt64) async throws {
        var random = SeededGenerator(seed: seed)
        let harness = try await CaptureHarness(
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)", tables: ["t"])
        // Captured transactions take many reads.
        harness.limit = 80
        let session = try await harness.source.openComparison(harness.link, role: .source)
        let request = ComparisonRequest(layout: try await session.layout(of: harness.link.mappings[0], columns: nil))
        var targets = [Target(frontier: harness.durable, rows: [:])]
        var views: [(mark: Position, rows: [[UInt8]: [UInt8]], target: Target)] = []
        var transactions: [Captured] = []
        for _ in 0..<400 {
            let (key, value) = (random.below(400), random.below(600))
            let statement = random.pick([
                "INSERT OR REPLACE INTO t VALUES(\(key), \(value))", "DELETE FROM t WHERE a = \(key)",
                "UPDATE OR REPLACE t SET b = b + 1 WHERE a BETWEEN \(key) AND \(key + 9)",
            ])
            try harness.database.run("BEGIN; \(statement); UPDATE OR IGNORE t SET b = \(value) WHERE a = \(key + 3); COMMIT")
            // Now and then the reader falls behind.
            for _ in 0..<(random.chance(55) ? random.below(3) : 0) {
                let progress = try await harness.read()
                try Self.collect(harness.buffer.bytes, into: &transactions)
                if !progress.isInsideTransaction { targets.append(Self.state(harness)) }
            }
            if random.chance(25) {
                let view = try await session.openView()
                guard case .before(let mark) = view.sees else { break }
                let rows = try await allRows(view, request)
                await view.close()
                let keyed = Dictionary(uniqueKeysWithValues: rows.map { (Array($0.prefix(13)), $0) })
                views.append((mark, keyed, targets[max(0, targets.count - 1 - random.below(3))]))
            }
        }
        while true {
            let progress = try await harness.read()
            try Self.collect(harness.buffer.bytes, into: &transactions)
            if !progress.isInsideTransaction, harness.durable == (try await harness.source.currentPosition(harness.link)) { break }
        }
        // Each view also with a target state that is ahead of it.
        let last = Self.state(harness)
        views += views.map { ($0.mark, $0.rows, last) }
        var (compared, falseAlarmsByBegin) = (0, 0)
        for view in views {
            let unseen = transactions.filter { $0.commit >= view.mark.commit || $0.commit >= view.target.frontier.commit }
            let disputed = unseen.reduce(into: Set<[UInt8]>()) { $0.formUnion($1.keys) }
            let byBegin = transactions.filter { $0.begin >= view.mark.commit || $0.begin >= view.target.frontier.commit }
                .reduce(into: Set<[UInt8]>()) { $0.formUnion($1.keys) }
            for key in Set(view.rows.keys).union(view.target.rows.keys) {
                let isSame = view.rows[key] == view.target.rows[key]
                if !byBegin.contains(key), !isSame { falseAlarmsByBegin += 1 }
                guard !disputed.contains(key) else { continue }
                compared += 1
                #expect(isSame, "seed \(seed), view before \(view.mark.commit), target before \(view.target.frontier.commit)")
            }
        }
        #expect(views.count > 100 && compared > 100)
        #expect(falseAlarmsByBegin > 0, "no transaction spanned a view, so nothing was tried")
        await session.close()
        await harness.close()
    }

    private static func state(_ harness: CaptureHarness) -> Target {
        Target(frontier: harness.durable, rows: harness.mirror.table(named: "t")?.rows ?? [:])
    }

    /// Which keys each transaction touches: the first cell of each row, an integer's thirteen bytes.
    private static func collect(_ bytes: UnsafeRawBufferPointer, into transactions: inout [Captured]) throws {
        var reader = Mirror.Reader(bytes: Array(bytes))
        while reader.offset < reader.bytes.count {
            let length = Int(try reader.number(4))
            let end = reader.offset + length
            switch try reader.number(1) {
            case 2:
                _ = try reader.number(8)
                transactions.append(Captured(begin: try reader.number(8), commit: .max, keys: []))
            case 7: transactions[transactions.count - 1].commit = try reader.number(8)
            case 8, 9:
                let start = reader.offset + 6
                transactions[transactions.count - 1].keys.insert(Array(reader.bytes[start..<start + 13]))
            default: break
            }
            reader.offset = end
        }
    }
}

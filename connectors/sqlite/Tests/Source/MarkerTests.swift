import BridgeCore
import Testing

@testable import BridgeSQLite

@Suite("SQLite capture: markers")
struct MarkerTests {
    private static let schema = "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)"

    /// The markers in what was read last.
    /// - Parameter inside: a transaction that an earlier read began.
    private static func markers(_ harness: CaptureHarness, inside: Position? = nil) throws -> [String] {
        var cursor = RecordCursor(harness.buffer.bytes)
        var open = inside
        var found: [String] = []
        while let record = try cursor.next() {
            switch record.kind {
            case .begin: open = try record.transactionStart().position
            case .commit: open = nil
            case .message:
                let (prefix, content) = try record.message()
                #expect(prefix == "bridge.marker")
                #expect(open != nil)
                found.append(String(decoding: content, as: UTF8.self))
            default: continue
            }
        }
        return found
    }

    private static func write(_ marker: String, _ harness: CaptureHarness) throws {
        try harness.database.run("INSERT INTO \(CaptureNames(harness.link).log)(tbl, k0) VALUES(0, '\(marker)')")
    }

    @Test("C6 a marker in the log comes as a message in a transaction of its position, behind what stands before it")
    func alone() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        let before = try await harness.source.currentPosition(harness.link)
        try Self.write("m1", harness)
        // Whoever asks how far capture has to come is told of the marker too.
        #expect(try await harness.source.currentPosition(harness.link) > before)
        let progress = try await harness.read(patience: .seconds(30))
        #expect(try Self.markers(harness) == ["m1"])
        #expect(progress.transactions == 1)
        let sequence = try harness.database.integer("SELECT max(seq) FROM \(CaptureNames(harness.link).log)")
        #expect(progress.lastCommit?.position.commit == UInt64(sequence))
        #expect(progress.lastCommit?.changes == 1)

        try harness.database.run("BEGIN; INSERT INTO t VALUES(1, 1); INSERT INTO t VALUES(2, 2); COMMIT")
        try Self.write("m2", harness)
        try harness.database.run("DELETE FROM t WHERE a = 1")
        try await harness.read(patience: .seconds(30))
        #expect(try Self.markers(harness) == ["m2"])
        #expect(try harness.compare(["t": ["a", "b"]]) == nil)
        await harness.close()
    }

    @Test("C6 S5 a marker is acknowledged, pruned and leapt behind like a change, and the ends of leaps are no markers")
    func acknowledged() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        let log = CaptureNames(harness.link).log
        for round in 1...3 {
            try Self.write("m\(round)", harness)
            try await harness.drain()
            let end = harness.durable
            harness.session.acknowledge(end)
            // Behind the marker the sequence leaps, and the frontier follows: nothing is delivered for it.
            try await eventually("the frontier stands behind a leap") {
                let progress = try await harness.read(patience: .milliseconds(20))
                #expect(progress.transactions == 0)
                return progress.frontier > end
            }
            harness.session.acknowledge(harness.durable)
            try await eventually("one row is left") { try harness.database.integer("SELECT count(*) FROM \(log)") == 1 }
        }
        let health = try await harness.source.health(harness.link, applied: harness.durable)
        #expect(health.lagBytes == 0)
        try await harness.reopen()
        try Self.write("m4", harness)
        try await harness.read(patience: .seconds(30))
        #expect(try Self.markers(harness) == ["m4"])
        await harness.close()
    }

    @Test("C6 a marker that several reads stand before comes in the transaction that ends with the last of them")
    func behindManyReads() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        harness.limit = 2_000
        try harness.database.run(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t SELECT i, i FROM n")
        try Self.write("last", harness)
        var seen: [String] = []
        while seen.isEmpty {
            let progress = try await harness.read(patience: .seconds(30))
            seen = try Self.markers(harness, inside: progress.firstCommit)
        }
        #expect(seen == ["last"])
        #expect(harness.reads > 5)
        #expect(try harness.compare(["t": ["a", "b"]]) == nil)
        await harness.close()
    }
}

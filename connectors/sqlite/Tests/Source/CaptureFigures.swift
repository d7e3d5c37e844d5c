import BridgeCore
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// Figures, not tests: printed when `BRIDGE_FIGURES` is set, on a quiet machine and a release build if they are to mean
/// something.
@Suite("Figures of SQLite capture", .serialized, .enabled(if: ProcessInfo.processInfo.environment["BRIDGE_FIGURES"] != nil))
struct CaptureFigures {
    private static let schema = "CREATE TABLE t(a INTEGER PRIMARY KEY, b INT UNIQUE, c TEXT)"

    @Test("S7 from an application's commit to the read that returns it")
    func latency() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        var latencies: [Double] = []
        for round in 0..<400 {
            let waiting = Task { [session = harness.session, buffer = harness.buffer] in
                let progress = try await session.read(into: buffer, limit: 1 << 20, patience: .seconds(10))
                return (progress.rows, ContinuousClock.now)
            }
            try await Task.sleep(for: .milliseconds(3))
            try harness.database.run("INSERT INTO t VALUES(\(round), \(round), 'x')")
            let committed = ContinuousClock.now
            let (rows, seen) = try await waiting.value
            #expect(rows == 1)
            harness.buffer.removeAll()
            latencies.append(max(0, (seen - committed) / .milliseconds(1)))
        }
        latencies.sort()
        let mean = latencies.reduce(0, +) / Double(latencies.count)
        print("S7 latency ms: mean \(mean), median \(latencies[200]), p99 \(latencies[395]), max \(latencies[399])")
        let before = clock()
        try await Task.sleep(for: .milliseconds(10))
        _ = try await harness.session.read(into: harness.buffer, limit: 1 << 20, patience: .seconds(5))
        print("S7 idle CPU: \(Double(clock() - before) / Double(CLOCKS_PER_SEC) / 5 * 100) %")
        await harness.close()
    }

    @Test("S8 the application's insert rate with triggers, relative to the rate without")
    func writers() async throws {
        for (name, size) in [("bulk", 200_000), ("100-row transactions", 100)] {
            var rates: [Double] = []
            for captured in [false, true, false, true] {
                let database = try TestDatabase(Self.schema)
                let source = SQLiteSource(path: database.path)
                if captured { _ = try await source.prepareCapture(forwardLink(["t"]), replacingLeftovers: false) }
                let total = 200_000
                let start = ContinuousClock.now
                try insert(database, total: total, size: size)
                rates.append(Double(total) / ((ContinuousClock.now - start) / .seconds(1)))
                await source.close()
            }
            print("S8 \(name): \((rates[1] + rates[3]) / (rates[0] + rates[2])) of \(rates[0]) rows/s")
        }
    }

    private func insert(_ database: TestDatabase, total: Int, size: Int) throws {
        try database.application.writeWithoutTransaction { application in
            let statement = try application.makeStatement(sql: "INSERT INTO t VALUES(?, ?, 'some text that is stored with the row')")
            for key in 0..<total {
                if key % size == 0 { try application.execute(sql: "BEGIN") }
                try statement.execute(arguments: [key, key])
                if key % size == size - 1 { try application.execute(sql: "COMMIT") }
            }
        }
    }

    @Test("S8 writers that do not wait for locks, while capture reads, acknowledges and prunes")
    func busy() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        let path = harness.database.path
        let writer = Task.detached {
            let queue = try TestDatabase.open(path, setUp: "PRAGMA busy_timeout=0;")
            var (commits, busy) = (0, 0)
            let end = ContinuousClock.now + .seconds(10)
            while ContinuousClock.now < end {
                do {
                    try queue.writeWithoutTransaction { try $0.execute(sql: "BEGIN IMMEDIATE; INSERT INTO t VALUES(\(commits), \(commits), 'x'); COMMIT") }
                    commits += 1
                } catch let error as DatabaseError where error.resultCode == .SQLITE_BUSY { busy += 1 }
                usleep(200)
            }
            return (commits, busy)
        }
        let end = ContinuousClock.now + .seconds(11)
        var rows = 0
        while ContinuousClock.now < end {
            let progress = try await harness.read(patience: .milliseconds(100))
            rows += progress.rows
            harness.session.acknowledge(harness.durable)
        }
        let (commits, busy) = try await writer.value
        print("S8 zero timeout: \(commits) commits, \(busy) SQLITE_BUSY, \(rows) rows captured in \(harness.reads) reads")
        await harness.close()
    }

    @Test("rows a second that capture reads from a log that is there")
    func backlog() async throws {
        let harness = try await CaptureHarness(Self.schema, tables: ["t"])
        try insert(harness.database, total: 500_000, size: 10_000)
        let start = ContinuousClock.now
        var rows = 0
        var isInside = true
        while isInside {
            harness.buffer.removeAll()
            let progress = try await harness.session.read(into: harness.buffer, limit: 4 << 20, patience: .seconds(1))
            rows += progress.rows
            isInside = progress.isInsideTransaction
        }
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        print("capture of a backlog: \(Double(rows) / seconds) rows/s (\(rows) rows)")
        await harness.close()
    }
}

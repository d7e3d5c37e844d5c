import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// A source that goes back in time and overtakes the place up to which its changes were taken. In each case the same keys are
/// changed again, so that neither the places in the log nor what stands there says anything.
@Suite("SQLite capture: a log is known by its content", .serialized)
struct RewindTests {
    private static let schema = "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a TEXT PRIMARY KEY NOT NULL, b)"
    private static let suffixes = ["", "-wal", "-journal"]

    private static func harness(_ mode: String = "WAL") async throws -> CaptureHarness {
        try await CaptureHarness(schema, tables: ["t", "u"], journalMode: mode, hasWorkspace: true)
    }

    private static func burst(_ database: TestDatabase, from first: Int, _ value: String) throws {
        for key in first..<first + 20 { try database.run("INSERT INTO t VALUES(\(key), '\(value)'); REPLACE INTO u VALUES('c', \(key))") }
    }

    /// File and log as they are between two commits, as a power failure or a backup tool would leave them.
    private static func copyFiles(_ database: TestDatabase, to name: String) throws {
        let folder = database.folder + "/" + name
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        for suffix in suffixes where FileManager.default.fileExists(atPath: database.path + suffix) {
            try FileManager.default.copyItem(atPath: database.path + suffix, toPath: folder + "/app.db" + suffix)
        }
    }

    /// Nobody has the file open any more.
    private static func putBack(_ database: TestDatabase, from name: String) throws {
        for suffix in suffixes + ["-shm"] { try? FileManager.default.removeItem(atPath: database.path + suffix) }
        for suffix in suffixes where FileManager.default.fileExists(atPath: database.folder + "/\(name)/app.db" + suffix) {
            try FileManager.default.copyItem(
                atPath: database.folder + "/\(name)/app.db" + suffix, toPath: database.path + suffix)
        }
    }

    /// The application writes more than was lost, and capture begins again.
    /// - Returns: what it stops at.
    private static func overtaken(_ harness: CaptureHarness) async throws -> ErrorCode? {
        let restored = try TestDatabase.open(harness.database.path)
        try await restored.writeWithoutTransaction { database in
            for key in 100..<140 {
                try database.execute(sql: "INSERT INTO t VALUES(\(key), 'other'); REPLACE INTO u VALUES('c', \(key))")
            }
        }
        let source = SQLiteSource(path: harness.database.path)
        let code = await errorCode {
            let session = try await source.openCapture(
                harness.link, origin: harness.origin, durable: harness.durable, workspace: harness.workspace)
            await session.close()
        }
        await source.close()
        try restored.close()
        return code
    }

    @Test(
        "S5 files put back as they were before the last changes are found, though nothing was acknowledged since and the application overtook",
        arguments: ["WAL", "DELETE"])
    func putBackBetweenSessions(_ mode: String) async throws {
        let harness = try await Self.harness(mode)
        try Self.burst(harness.database, from: 1, "both")
        try await harness.drain()
        try Self.copyFiles(harness.database, to: "backup")
        try Self.burst(harness.database, from: 100, "lost")
        try await harness.drain()
        await harness.close()
        try harness.database.application.close()
        try Self.putBack(harness.database, from: "backup")
        #expect(try await Self.overtaken(harness) == .sourceReplaced)
    }

    @Test("S5 a WAL that lost its last commits in a power failure is found, though the application overtook")
    func powerFailure() async throws {
        let harness = try await Self.harness()
        try harness.database.run("PRAGMA wal_autocheckpoint=0")
        try Self.burst(harness.database, from: 1, "both")
        let log = harness.database.path + "-wal"
        let synced = try #require(try FileManager.default.attributesOfItem(atPath: log)[.size] as? Int)
        try Self.burst(harness.database, from: 100, "lost")
        try await harness.drain()
        try Self.copyFiles(harness.database, to: "after")
        await harness.close()
        try harness.database.application.close()
        let cut = try #require(FileHandle(forWritingAtPath: harness.database.folder + "/after/app.db-wal"))
        try cut.truncate(atOffset: UInt64(synced))
        try cut.close()
        try Self.putBack(harness.database, from: "after")
        #expect(try harness.database.shell("SELECT count(*) FROM t") == "20\n")
        #expect(try await Self.overtaken(harness) == .sourceReplaced)
    }

    @Test("S5 a backup written back into the open file is found by the running session, though the application overtook before it looked")
    func underSession() async throws {
        let harness = try await Self.harness()
        let backup = harness.database.folder + "/backup.db"
        try Self.burst(harness.database, from: 1, "both")
        try await harness.drain()
        try harness.database.run("VACUUM INTO '\(backup)'")
        try Self.burst(harness.database, from: 100, "lost")
        try await harness.drain()
        let again = (100..<140).map { "INSERT INTO t VALUES(\($0), 'other'); REPLACE INTO u VALUES('c', \($0));" }
        try harness.database.shell(".restore \(backup)\n" + again.joined(separator: "\n"))
        #expect(await errorCode { try await harness.read(patience: .seconds(5)) } == .sourceReplaced)
        await harness.close()
    }

    @Test("S5 a copy notices a backup that is written back in its middle")
    func underCopy() async throws {
        let harness = try await Self.harness()
        let backup = harness.database.folder + "/backup.db"
        for key in stride(from: 1, to: 400, by: 20) { try Self.burst(harness.database, from: key, "both") }
        let snapshot = try await harness.source.openSnapshot(harness.link)
        let reader = try await harness.openTable("t", of: snapshot)
        try harness.database.run("VACUUM INTO '\(backup)'")
        try Self.burst(harness.database, from: 1_000, "lost")
        let chunk = RecordBuffer()
        #expect(try await reader.read(into: chunk, limit: 500) > 0)
        let again = (1_000..<1_040).map { "INSERT INTO t VALUES(\($0), 'other'); REPLACE INTO u VALUES('c', \($0));" }
        try harness.database.shell(".restore \(backup)\n" + again.joined(separator: "\n"))
        #expect(await errorCode { _ = try await reader.read(into: chunk, limit: 500) } != nil)
        await reader.close()
        await harness.close()
    }

    @Test("S5 no end of a session that can come about keeps the next one from beginning")
    func noFalseAlarm() async throws {
        let seed = UInt64.random(in: 0..<1 << 32)
        var random = SeededGenerator(seed: seed)
        let harness = try await Self.harness()
        let record = try #require(harness.workspace).directory + "/delivered"
        // What the journal may have synced: nothing before what was acknowledged.
        var possible = [harness.durable]
        for round in 0..<40 {
            for _ in 0..<random.below(4) {
                try harness.database.run(
                    "REPLACE INTO t VALUES(\(random.below(50)), \(round)); REPLACE INTO u VALUES('c\(random.below(5))', \(round))")
                if random.below(2) == 0 { try await harness.drain() } else { try await harness.read() }
                possible.append(harness.durable)
            }
            if random.below(2) == 0, let durable = possible.randomElement(using: &random) {
                harness.session.acknowledge(durable)
                possible.removeAll { $0 < durable }
                if random.below(2) == 0 {
                    try await eventually("acknowledged") {
                        try await harness.source.health(harness.link, applied: .zero).acknowledged == durable
                    }
                }
            }
            let durable = try #require(possible.randomElement(using: &random))
            possible = possible.filter { $0 <= durable }
            if possible.isEmpty { possible = [durable] }
            await harness.session.close()
            switch random.below(6) {
            case 0: try harness.database.run("VACUUM")
            case 1:
                // The last write did not reach the disk whole.
                let file = try #require(FileHandle(forWritingAtPath: record))
                let size = try file.seekToEnd()
                try file.truncate(atOffset: size - min(size, UInt64(random.below(60))))
                try file.close()
            case 2: try? FileManager.default.removeItem(atPath: record)
            case 3: try harness.database.run("PRAGMA wal_checkpoint(TRUNCATE)")
            default: break
            }
            let code = await errorCode { try await harness.reopen(durable: durable) }
            try #require(code == nil, "seed \(seed), round \(round)")
        }
        #expect(try await harness.difference(["t": ["a", "b"], "u": ["a", "b"]]) == nil, "seed \(seed)")
        await harness.close()
    }

    @Test("S5 a file put in the place of another with the same content, while nobody reads, is the same source")
    func sameContent() async throws {
        let harness = try await Self.harness()
        try Self.burst(harness.database, from: 1, "both")
        try await harness.drain()
        await harness.session.close()
        try harness.database.run("VACUUM INTO '\(harness.database.folder)/copy.db'")
        await harness.source.close()
        try harness.database.application.close()
        for suffix in Self.suffixes + ["-shm"] { try? FileManager.default.removeItem(atPath: harness.database.path + suffix) }
        try FileManager.default.moveItem(atPath: harness.database.folder + "/copy.db", toPath: harness.database.path)
        let source = SQLiteSource(path: harness.database.path)
        let session = try await source.openCapture(
            harness.link, origin: harness.origin, durable: harness.durable, workspace: harness.workspace)
        await session.close()
        await source.close()
    }

    @Test("the record of what was delivered is read up to where it is whole, and not for another log")
    func text() {
        let text = DeliveryProofText(nonce: "abc")
        let proofs = (1...5).map { DeliveryProof(sequence: Int64($0) << 40, mark: -Int64($0)) }
        var bytes = text.header
        for proof in proofs { bytes += text.encode(proof) }
        #expect(text.decode(bytes) == proofs)
        #expect(DeliveryProofText(nonce: "abd").decode(bytes).isEmpty)
        for count in text.header.count..<bytes.count {
            #expect(text.decode(Array(bytes[..<count])) == Array(proofs.prefix((count - text.header.count) / 24)))
        }
        for place in text.header.count..<bytes.count {
            var broken = bytes
            broken[place] ^= 1
            #expect(text.decode(broken) == Array(proofs.prefix((place - text.header.count) / 24)))
        }
    }
}

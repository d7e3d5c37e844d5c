import BridgeTestSupport
import BridgeCore
import Foundation
import Synchronization
import Testing

@testable import BridgeJournal

@Suite struct WriterTests {
    static func transaction(_ position: UInt64, relation: Bool = false, rows: Int = 1, size: Int = 8) -> RecordBuffer {
        let batch = RecordBuffer()
        if relation { batch.appendRelation(.test(1)) }
        batch.appendTransaction(position, rows: rows, size: size)
        return batch
    }

    @Test("J3 an append that returned is durable; callers at the same time share a sync")
    func groupCommit() async throws {
        let directory = ScratchDirectory()
        let files = FaultyFiles()
        let writer = try await openJournal(directory, files: files)
        _ = try await writer.append(Self.transaction(11, relation: true))
        let before = files.faults.withLock { $0.syncs }
        for position in UInt64(12)..<UInt64(112) { _ = try await writer.write(Self.transaction(position)) }
        #expect(writer.durable.lastCommit?.position.commit == 11)
        #expect(writer.written.lastCommit?.position.commit == 111)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<50 {
                group.addTask {
                    let durable = try? await writer.sync()
                    #expect(durable?.lastCommit?.position.commit == 111)
                }
            }
        }
        #expect(writer.durable == writer.written)
        // The first sync serves everybody who asked for no more.
        #expect(files.faults.withLock { $0.syncs } - before == 1)
        _ = try await writer.sync()
        #expect(files.faults.withLock { $0.syncs } - before == 1)
        await writer.close()
    }

    @Test("J6 a full disk: the write fails by name, the journal ends at its last durable position and opens again")
    func diskFull() async throws {
        let directory = ScratchDirectory()
        let files = FaultyFiles()
        let writer = try await openJournal(directory, files: files)
        let end = try await writer.append(Self.transaction(11, relation: true))
        for room in [0, 1, 100, 200] {
            files.faults.withLock { $0.room = room }
            let failing = try await openedAgain(writer, directory, files, room)
            let error = await #expect(throws: BridgeError.self) { try await failing.append(Self.transaction(12)) }
            #expect(error?.code == .diskFull)
            // Nothing more is written, even with room again; the same error is told.
            files.faults.withLock { $0.room = nil }
            let again = await #expect(throws: BridgeError.self) { try await failing.append(Self.transaction(12)) }
            #expect(again?.code == .diskFull)
            #expect(failing.durable.lastCommit == end.lastCommit)
            #expect(failing.written.lastCommit == end.lastCommit)
            await failing.close()
        }
        let recovered = try await openJournal(directory)
        #expect(recovered.durable.lastCommit == end.lastCommit)
        _ = try await recovered.append(Self.transaction(12))
        await recovered.close()
        #expect(try await JournalInspector.verify(directory: directory.path) == [])
    }

    /// The first round uses the writer that is open; later ones have to open the journal again.
    private func openedAgain(
        _ writer: JournalWriter, _ directory: ScratchDirectory, _ files: FaultyFiles, _ room: Int
    ) async throws -> JournalWriter {
        if room == 0 { return writer }
        return try await openJournal(directory, files: files)
    }

    @Test("J6 the disk is full while a segment is begun: what was durable stays")
    func diskFullAtRotation() async throws {
        for room in stride(from: 0, through: 900, by: 50) {
            let directory = ScratchDirectory()
            let files = FaultyFiles()
            let writer = try await openJournal(directory, segmentBytes: 500, blockBytes: 300, files: files)
            _ = try await writer.append(Self.transaction(11, relation: true))
            _ = try await writer.append(Self.transaction(12))
            files.faults.withLock { $0.room = room }
            var position: UInt64 = 13
            var failure: BridgeError?
            while failure == nil {
                do throws(BridgeError) {
                    _ = try await writer.append(Self.transaction(position))
                    position += 1
                } catch { failure = error }
            }
            #expect(failure?.code == .diskFull)
            #expect(writer.durable.lastCommit?.position.commit == position - 1)
            await writer.close()
            files.faults.withLock { $0.room = nil }
            let recovered = try await openJournal(directory, segmentBytes: 500, blockBytes: 300, files: files)
            #expect(recovered.durable.lastCommit?.position.commit == position - 1)
            _ = try await recovered.append(Self.transaction(position))
            await recovered.close()
            #expect(try await JournalInspector.verify(directory: directory.path) == [])
        }
    }

    @Test("J6 a failing sync: durable stays, the writer is done for, and the segment is not gone on with")
    func failingSync() async throws {
        let directory = ScratchDirectory()
        let files = FaultyFiles()
        let writer = try await openJournal(directory, files: files)
        let end = try await writer.append(Self.transaction(11, relation: true))
        files.faults.withLock { $0.syncsFail = true }
        let error = await #expect(throws: BridgeError.self) { try await writer.append(Self.transaction(12)) }
        #expect(error?.code == .inputOutput)
        #expect(writer.durable == end)
        files.faults.withLock { $0.syncsFail = false }
        let again = await #expect(throws: BridgeError.self) { try await writer.write(Self.transaction(13)) }
        #expect(again?.code == .inputOutput)
        let sync = await #expect(throws: BridgeError.self) { try await writer.sync() }
        #expect(sync?.code == .inputOutput)
        #expect(writer.durable == end)
        await writer.close()
        let recovered = try await openJournal(directory, files: files)
        #expect(recovered.written.segment == end.segment + 1)
        #expect(recovered.durable == recovered.written)
        await recovered.close()
        // Once is enough.
        let later = try await openJournal(directory, files: files)
        #expect(later.written.segment == end.segment + 1)
        await later.close()
        #expect(try await JournalInspector.verify(directory: directory.path) == [])
    }

    @Test("J6 beyond the budget nothing is written, and the journal stays usable")
    func budget() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory, segmentBytes: 1000, blockBytes: 300, budgetBytes: 3000)
        var position: UInt64 = 11
        var failure: BridgeError?
        var before = writer.written
        while failure == nil {
            #expect(writer.budgetUsed < 1.0 || writer.bytesOnDisk >= 3000)
            do throws(BridgeError) {
                _ = try await writer.append(Self.transaction(position, relation: position == 11))
                before = writer.written
                position += 1
            } catch { failure = error }
        }
        #expect(failure?.code == .journalBudget)
        #expect(writer.budgetUsed >= 1)
        #expect(writer.written == before)
        let onDisk = try segmentNames(directory.path).map { try bytes(ofFile: directory.file($0)).count }.reduce(0, +)
        #expect(writer.bytesOnDisk == Int64(onDisk))
        let removed = try await writer.removeSegments(
            appliedThrough: Position(commit: position), olderThan: Timestamp(microseconds: .max))
        #expect(!removed.isEmpty)
        _ = try await writer.append(Self.transaction(position))
        await writer.close()
    }

    @Test("J6 a budget smaller than a segment is freed as well once everything is applied")
    func budgetSmallerThanSegment() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory, budgetBytes: 2000)
        let everything = Timestamp(microseconds: .max)
        for position in UInt64(11)...UInt64(60) {
            let batch = Self.transaction(position, relation: position == 11)
            do throws(BridgeError) {
                _ = try await writer.append(batch)
            } catch {
                #expect(error.code == .journalBudget)
                let before = Position(commit: position - 2)
                #expect(try await writer.removeSegments(appliedThrough: before, olderThan: everything) == [])
                let applied = Position(commit: position - 1)
                #expect(try await writer.removeSegments(appliedThrough: applied, olderThan: everything).count == 1)
                _ = try await writer.append(batch)
            }
        }
        #expect(writer.written.segment > 3)
        await writer.close()
        #expect(try await JournalInspector.verify(directory: directory.path) == [])
    }

    @Test("J6 a real full file system", .enabled(if: SmallFileSystem.canMount))
    func realDiskFull() async throws {
        let disk = try SmallFileSystem()
        defer { disk.unmount() }
        let writer = try await JournalWriter.open(
            directory: disk.path + "/journal", binding: .test, options: JournalOptions(segmentBytes: 64 << 10))
        var position: UInt64 = 11
        var failure: BridgeError?
        var generator = SeededGenerator(seed: 3)
        while failure == nil {
            let batch = RecordBuffer()
            if position == 11 { batch.appendRelation(.test(1)) }
            batch.appendBegin(position)
            batch.appendInsert(1, id: 1, text: (0..<5000).map { _ in UInt8.random(in: 0...255, using: &generator) })
            batch.appendCommit(position, changes: 1)
            do throws(BridgeError) {
                _ = try await writer.append(batch)
                position += 1
            } catch { failure = error }
        }
        #expect(failure?.code == .diskFull)
        #expect(position > 20)
        #expect(writer.durable.lastCommit?.position.commit == position - 1)
        await writer.close()
        let reader = try await JournalReader.open(directory: disk.path + "/journal")
        #expect(try DecodedRecords(try await reader.readAll()).commits.last == position - 1)
    }

    @Test("what breaks the journal's invariants is refused whole")
    func malformed() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory)
        let end = try await writer.append(Self.transaction(11, relation: true))
        let cases: [(String, (RecordBuffer) -> Void)] = [
            ("a row outside a transaction", { $0.appendInsert(1, id: 1, text: []) }),
            ("a commit without a begin", { $0.appendCommit(12, changes: 0) }),
            ("an abandon without a begin", { $0.appendAbandon() }),
            (
                "nested",
                {
                    $0.appendBegin(12)
                    $0.appendBegin(13)
                }
            ),
            (
                "before its begin",
                {
                    $0.appendBegin(12)
                    $0.appendCommit(11, changes: 0)
                }
            ),
            (
                "too few changes",
                {
                    $0.appendBegin(12)
                    $0.appendCommit(12, changes: 1)
                }
            ),
            ("not behind", { $0.appendTransaction(11) }),
            (
                "behind the frontier",
                {
                    $0.appendFrontier(Position(commit: 20), time: .now)
                    $0.appendTransaction(19)
                }
            ),
            (
                "frontier too far",
                {
                    $0.appendBegin(12)
                    $0.appendFrontier(Position(commit: 13), time: .now)
                }
            ),
            (
                "unknown relation",
                {
                    $0.appendBegin(12)
                    $0.appendInsert(2, id: 1, text: [])
                }
            ),
            (
                "unknown kind",
                {
                    $0.append(bigEndian: UInt32(1))
                    $0.append(99)
                }
            ),
            (
                "cut off",
                {
                    $0.append(bigEndian: UInt32(100))
                    $0.append(2)
                }
            ),
            ("no kind", { $0.append(bigEndian: UInt32(0)) }),
            ("short", { $0.append(7) }),
            (
                "truncate of an unknown table",
                {
                    $0.appendBegin(12)
                    $0.appendTruncate([1, 9], options: [])
                }
            ),
        ]
        for (name, build) in cases {
            let batch = Self.transaction(12)
            batch.removeAll()
            build(batch)
            let error = await #expect(throws: BridgeError.self, "\(name)") { try await writer.write(batch) }
            #expect(error?.code == .recordMalformed, "\(name)")
            #expect(writer.written == end, "\(name)")
        }
        #expect(try await writer.write(RecordBuffer()) == end)
        _ = try await writer.append(Self.transaction(12))
        await writer.close()
    }

    @Test("J11 a second writer is refused and told who holds the journal; the lock goes with its holder")
    func lock() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory)
        let error = await #expect(throws: BridgeError.self) { try await openJournal(directory) }
        #expect(error?.code == .journalLocked)
        #expect(error?.message.contains("process \(getpid())") == true)
        await writer.close()
        let next = try await openJournal(directory)
        await next.close()
    }

    @Test("J11 another process that holds the lock is named")
    func lockOfAnotherProcess() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory)
        await writer.close()
        // util-linux's flock takes the same lock.
        let holder = try ChildProcess([
            "flock", "--nonblock", directory.file("lock"), "sh", "-c",
            "echo process $$ on host elsewhere > \"$0\"; echo held; until [ -e \"$0.go\" ]; do sleep 0.01; done",
            directory.file("lock"),
        ])
        try await waitUntil { holder.outputSoFar.contains("held") }
        let error = await #expect(throws: BridgeError.self) { try await openJournal(directory) }
        #expect(error?.code == .journalLocked)
        #expect(error?.message.contains("on host elsewhere") == true)
        try ChildProcess.runBlocking(["touch", directory.file("lock.go")])
        _ = await holder.wait()
        try ChildProcess.runBlocking(["rm", directory.file("lock.go")])
        let next = try await openJournal(directory)
        await next.close()
    }
}

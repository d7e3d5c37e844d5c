import BridgeTestSupport
import BridgeCore
import Foundation
import Synchronization
import Testing

@testable import BridgeJournal

@Suite struct ReaderTests {
    @Test("J8 a reader follows the writer: it is woken by a write, and by nothing else")
    func follow() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory, segmentBytes: 2000, blockBytes: 300)
        let reader = try await writer.makeReader(after: .zero)
        let buffer = RecordBuffer()
        #expect(try await reader.read(into: buffer, limit: 1000) == 0)
        #expect(await reader.waitForData(patience: .milliseconds(5)) == false)
        for position in UInt64(11)...UInt64(60) {
            async let woken = reader.waitForData(patience: .seconds(60))
            _ = try await writer.write(WriterTests.transaction(position, relation: position == 11))
            #expect(await woken)
            buffer.removeAll()
            while try await reader.read(into: buffer, limit: 1000) > 0 {}
            #expect(try DecodedRecords(buffer).commits == [position])
            // What was only written may be read; it need not be durable.
            #expect(writer.durable.records < writer.written.records)
        }
        await writer.close()
        #expect(await reader.waitForData(patience: .seconds(60)) == false)
    }

    @Test("J8 a reader that shares nothing with the writer sees on refresh what was written, over segments and reopenings")
    func refresh() async throws {
        let directory = ScratchDirectory()
        var writer = try await openJournal(directory, segmentBytes: 2000, blockBytes: 300)
        _ = try await writer.write(WriterTests.transaction(11, relation: true))
        let reader = try await JournalReader.open(directory: directory.path)
        var commits: [UInt64] = []
        let buffer = RecordBuffer()
        for position in UInt64(12)...UInt64(200) {
            _ = try await writer.write(WriterTests.transaction(position))
            if position % 40 == 0 {
                await writer.close()
                writer = try await openJournal(directory, segmentBytes: 2000, blockBytes: 300)
            }
            guard position % 3 != 0 || position == 200 else { continue }
            try await reader.refresh()
            buffer.removeAll()
            while try await reader.read(into: buffer, limit: 1000) > 0 {}
            commits += try DecodedRecords(buffer).commits
            #expect(commits.last == position)
        }
        #expect(commits == Array(11...200))
        #expect(try segmentNames(directory.path).count > 5)
        await writer.close()
    }

    @Test("J8 a reader whose segment retention removed says so on refresh")
    func refreshAfterRemoval() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory, segmentBytes: 2000, blockBytes: 300)
        _ = try await writer.write(WriterTests.transaction(11, relation: true))
        let reader = try await JournalReader.open(directory: directory.path)
        for position in UInt64(12)...UInt64(100) { _ = try await writer.write(WriterTests.transaction(position)) }
        _ = try await writer.sync()
        _ = try await writer.removeSegments(
            appliedThrough: Position(commit: 100), olderThan: Timestamp(microseconds: .max))
        let error = await #expect(throws: BridgeError.self) {
            try await reader.refresh()
            while try await reader.read(into: RecordBuffer(), limit: 1000) > 0 {}
        }
        #expect(error?.code == .journalMissing || error?.code == .inputOutput)
        await writer.close()
    }

    @Test("J8 waiting ends with the task and with the writer")
    func cancellation() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory)
        let reader = try await writer.makeReader(after: .zero)
        let cancelled = Task { await reader.waitForData(patience: .seconds(600)) }
        cancelled.cancel()
        #expect(await cancelled.value == false)
        async let waiting = reader.waitForData(patience: .seconds(600))
        await writer.close()
        #expect(await waiting == false)
    }

    @Test("J8 readers on other threads see all of it in order while it is written, synced and removed")
    func manyReaders() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory, segmentBytes: 8000, blockBytes: 1000)
        let last: UInt64 = 1500
        try await withThrowingTaskGroup(of: Void.self) { group in
            for start in [UInt64(0), 11, 100, 700] {
                let reader = try await writer.makeReader(after: Position(commit: start))
                group.addTask {
                    var commits: [UInt64] = []
                    var relations = reader.relations.count
                    let buffer = RecordBuffer()
                    while commits.last != last {
                        buffer.removeAll()
                        if try await reader.read(into: buffer, limit: 4000) == 0 {
                            _ = await reader.waitForData(patience: .seconds(60))
                            continue
                        }
                        let decoded = try DecodedRecords(buffer)
                        commits += decoded.commits
                        relations += decoded.kinds.filter { $0 == .relation }.count
                    }
                    // Those that were opened before anything was written get everything; their caller skips.
                    #expect(commits == Array(11...last))
                    #expect(relations == 1)
                    await reader.close()
                }
            }
            group.addTask {
                for position in 11...last {
                    _ = try await writer.write(
                        WriterTests.transaction(position, relation: position == 11, rows: Int(position % 9) + 1))
                    if position % 50 == 0 {
                        _ = try await writer.sync()
                        _ = try await writer.removeSegments(
                            appliedThrough: Position(commit: position), olderThan: Timestamp(microseconds: .max))
                    }
                }
            }
            try await group.waitForAll()
        }
        _ = try await writer.removeSegments(
            appliedThrough: Position(commit: last), olderThan: Timestamp(microseconds: .max))
        #expect(try segmentNames(directory.path).count == 1)
        await writer.close()
    }

    @Test("J7 a segment goes only when applied, old enough and read")
    func retention() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory, segmentBytes: 800, blockBytes: 300)
        let batch = RecordBuffer()
        batch.appendRelation(.test(1))
        for position in UInt64(11)...UInt64(40) {
            batch.appendTransaction(position, rows: position == 25 ? 60 : 1, size: 20)
            _ = try await writer.append(batch)
            batch.removeAll()
        }
        let listed = try await JournalInspector.list(directory: directory.path)
        #expect(listed.count > 6)
        let everything = Timestamp(microseconds: .max)
        #expect(try await writer.removeSegments(appliedThrough: .zero, olderThan: everything) == [])
        #expect(
            try await writer.removeSegments(
                appliedThrough: Position(commit: 40), olderThan: try #require(listed.first).lastWritten) == [])
        let reader = try await writer.makeReader(after: Position(commit: 14))
        #expect(try await writer.removeSegments(appliedThrough: Position(commit: 40), olderThan: everything).count <= 2)
        _ = try await reader.readAll()
        await reader.close()

        // The transaction that spans segments holds all of them until it is applied itself.
        _ = try await writer.removeSegments(appliedThrough: Position(commit: 24), olderThan: everything)
        let kept = try await writer.makeReader(after: Position(commit: 24))
        #expect(try DecodedRecords(try await kept.readAll()).commits == Array(25...40))
        await kept.close()
        let applied = try await writer.removeSegments(appliedThrough: Position(commit: 30), olderThan: everything)
        #expect(!applied.isEmpty)
        for name in applied { #expect(!FileManager.default.fileExists(atPath: directory.file(name))) }

        let refused = await #expect(throws: BridgeError.self) {
            try await writer.makeReader(after: Position(commit: 12))
        }
        #expect(refused?.code == .journalMissing)
        for position in UInt64(30)...UInt64(41) {
            let reader = try await writer.makeReader(after: Position(commit: position))
            let read = try DecodedRecords(try await reader.readAll())
            #expect(read.commits == (position < 40 ? Array((position + 1)...40) : []))
            #expect(reader.relations[1] == .test(1))
            await reader.close()
        }
        #expect(!(try await writer.removeSegments(appliedThrough: Position(commit: 99), olderThan: everything)).isEmpty)
        #expect(try segmentNames(directory.path).count == 1)
        await writer.close()
        #expect(try await JournalInspector.verify(directory: directory.path) == [])

        let again = try await openJournal(directory, segmentBytes: 800, blockBytes: 300)
        #expect(again.written.lastCommit?.position.commit == 40)
        _ = try await again.append(WriterTests.transaction(41))
        await again.close()
        #expect(
            try DecodedRecords(try await JournalReader.open(directory: directory.path).readAll()).commits.last == 41)
    }

    @Test("J7 a removal that a crash cut short is finished at the next opening")
    func removalCutShort() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory, segmentBytes: 500, blockBytes: 300)
        for position in UInt64(11)...UInt64(20) {
            _ = try await writer.append(WriterTests.transaction(position, relation: position == 11))
        }
        let first = try segmentNames(directory.path)[0]
        let saved = try bytes(ofFile: directory.file(first))
        let removed = try await writer.removeSegments(
            appliedThrough: Position(commit: 14), olderThan: Timestamp(microseconds: .max))
        #expect(removed.first == first)
        await writer.close()
        try write(saved, toFile: directory.file(first))
        #expect(try await JournalInspector.verify(directory: directory.path) == [])
        let again = try await openJournal(directory, segmentBytes: 500, blockBytes: 300)
        #expect(try !segmentNames(directory.path).contains(first))
        await again.close()
    }

    @Test("J10 opening and seeking read headers, summaries and one index, not the data")
    func openingReadsNoData() async throws {
        let directory = ScratchDirectory()
        let files = FaultyFiles()
        let writer = try await openJournal(directory, segmentBytes: 300_000, blockBytes: 20_000, files: files)
        var generator = SeededGenerator(seed: 5)
        let noise = (0..<4000).map { _ in UInt8.random(in: 0...255, using: &generator) }
        for position in UInt64(11)...UInt64(800) {
            let batch = RecordBuffer()
            if position == 11 { batch.appendRelation(.test(1)) }
            batch.appendBegin(position)
            batch.appendInsert(1, id: 1, text: noise)
            batch.appendCommit(position, changes: 1)
            _ = try await writer.write(batch)
        }
        let total = Int(writer.bytesOnDisk)
        await writer.close()
        let segments = try segmentNames(directory.path).count
        #expect(segments >= 10)
        let lastSize = try bytes(ofFile: directory.file(try segmentNames(directory.path)[segments - 1])).count
        files.faults.withLock { $0.bytesRead = 0 }
        let again = try await openJournal(directory, segmentBytes: 300_000, blockBytes: 20_000, files: files)
        let opening = files.faults.withLock { $0.bytesRead }
        #expect(opening < segments * 2048 + lastSize + 600_000)
        #expect(opening < total / 2)
        files.faults.withLock { $0.bytesRead = 0 }
        let reader = try await again.makeReader(after: Position(commit: 404))
        let seeking = files.faults.withLock { $0.bytesRead }
        #expect(seeking < 1_200_000)
        #expect(try DecodedRecords(try await reader.readAll()).commits == Array(405...800))
        await reader.close()
        await again.close()
    }

    @Test("a row of a hundred megabytes passes, and its memory is given back")
    func giantRow() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory)
        let batch = RecordBuffer()
        batch.appendRelation(.test(1))
        batch.appendBegin(11)
        batch.appendInsert(1, id: 1, text: [UInt8](repeating: 0x5A, count: 100 << 20))
        batch.appendInsert(1, id: 2, text: [1])
        batch.appendCommit(11, changes: 2)
        _ = try await writer.append(batch)
        let expected = batch.bytes.count
        let checksum = Checksum.of(batch.bytes)
        batch.removeAll()
        batch.appendTransaction(12)
        _ = try await writer.append(batch)
        let reader = try await writer.makeReader(after: .zero)
        let read = RecordBuffer()
        while try await reader.read(into: read, limit: 1000) > 0, read.count < expected {}
        #expect(Checksum.of(UnsafeRawBufferPointer(rebasing: read.bytes[..<expected])) == checksum)
        await reader.close()
        let second = try await writer.makeReader(after: Position(commit: 11))
        #expect(try DecodedRecords(try await second.readAll()).commits == [12])
        await second.close()
        await writer.close()
    }
}

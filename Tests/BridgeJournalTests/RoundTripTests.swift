import BridgeCore
import Foundation
import Testing

@testable import BridgeJournal

@Suite struct RoundTripTests {
    @Test("records come back as they were written, across blocks, segments and a reopening")
    func roundTrip() async throws {
        let directory = ScratchDirectory()
        var writer = try await openJournal(directory, segmentBytes: 4096, blockBytes: 700)
        let all = RecordBuffer()
        let batch = RecordBuffer()
        batch.appendRelation(.test(1))
        for position in UInt64(11)...UInt64(200) {
            batch.appendTransaction(position * 10, rows: Int(position % 7) + 1, size: Int(position))
            if position % 5 == 0 {
                all.append(batch.bytes)
                let end = try await writer.append(batch)
                #expect(end.lastCommit?.position.commit == position * 10)
                #expect(end.frontier.commit == position * 10 + 1)
                #expect(writer.durable.records == end.records)
                batch.removeAll()
            }
            if position == 100 {
                await writer.close()
                writer = try await openJournal(directory, segmentBytes: 4096, blockBytes: 700)
                #expect(writer.written.lastCommit?.position.commit == 1000)
            }
        }
        #expect(try segmentNames(directory.path).count > 3)
        let reader = try await writer.makeReader(after: .zero)
        let read = try await reader.readAll()
        #expect(read.array == all.array)
        await reader.close()
        await writer.close()
        let offline = try await JournalReader.open(directory: directory.path)
        #expect(try await offline.readAll().array == all.array)
    }

    @Test("J8 a reader starts anywhere and gets every transaction behind its position and none before")
    func seek() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory, segmentBytes: 3000, blockBytes: 400)
        let batch = RecordBuffer()
        batch.appendRelation(.test(1))
        for position in UInt64(11)...UInt64(150) {
            batch.appendTransaction(position * 10, rows: Int(position % 40), size: 20)
            if position % 11 == 0 { batch.appendFrontier(Position(commit: position * 10 + 5), time: .now) }
        }
        batch.appendBegin(1600)
        batch.appendInsert(1, id: 1, text: [1])
        _ = try await writer.append(batch)
        for asked in UInt64(9)...UInt64(170) {
            for shift in [UInt64(0), 3] {
                let position = asked * 10 + shift
                let reader = try await writer.makeReader(after: Position(commit: position))
                let read = try DecodedRecords(try await reader.readAll())
                #expect(read.commits == (11...150).map { $0 * 10 }.filter { $0 > position }, "after \(position)")
                #expect(read.begins.last == 1600)
                #expect(read.kinds.first { $0 != .relation && $0 != .frontier } == .begin)
                #expect(read.kinds.contains(.relation) || reader.relations[1] == .test(1))
                await reader.close()
            }
        }
        await writer.close()
    }
}

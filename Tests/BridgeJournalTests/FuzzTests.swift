import BridgeTestSupport
import BridgeCore
import Foundation
import Testing

@testable import BridgeJournal

@Suite struct FuzzTests {
    /// Appends random records that keep the journal's invariants; returns the commits in them.
    private struct Generator {
        var random: SeededGenerator
        var position: UInt64 = 10
        var relations: [UInt32] = []
        var isInside = false
        var changes: UInt64 = 0

        mutating func append(to buffer: RecordBuffer) {
            for _ in 0..<Int.random(in: 1...12, using: &random) { appendOne(to: buffer) }
        }

        private mutating func appendOne(to buffer: RecordBuffer) {
            switch Int.random(in: 0..<20, using: &random) {
            case 0 where relations.count < 6, 1 where relations.isEmpty:
                let id = UInt32.random(in: 1...9, using: &random)
                if !relations.contains(id) { relations.append(id) }
                buffer.appendRelation(.test(id, columns: Int.random(in: 2...5, using: &random)))
            case 2 where !isInside:
                buffer.appendFrontier(Position(commit: position + 1), time: .now)
            case 3:
                [UInt8](repeating: 7, count: Int.random(in: 0...50, using: &random)).withUnsafeBytes {
                    buffer.appendMessage(prefix: "p", content: $0)
                }
                if isInside { changes += 1 }
            case 4 where isInside:
                buffer.appendAbandon()
                isInside = false
                position -= 1
            case 5...8 where isInside:
                buffer.appendCommit(position, changes: changes)
                isInside = false
            case _ where isInside && !relations.isEmpty:
                let relation = relations[Int.random(in: 0..<relations.count, using: &random)]
                let size = Int.random(in: 0..<20, using: &random) == 0 ? 5000 : 30
                buffer.appendInsert(
                    relation, id: Int64.random(in: 0...99, using: &random),
                    text: (0..<Int.random(in: 0...size, using: &random)).map { _ in
                        UInt8.random(in: 0...9, using: &random)
                    })
                changes += 1
            case _ where !isInside:
                position += UInt64.random(in: 2...5, using: &random)
                buffer.appendBegin(position)
                isInside = true
                changes = 0
            default: break
            }
        }
    }

    @Test("random records, crashed at random points, recovered, sought and read back")
    func fuzz() async throws {
        var (random, seed) = SeededGenerator.named("journal fuzz")
        for round in 0..<fuzzRounds(12) {
            let directory = ScratchDirectory()
            let segmentBytes = Int64.random(in: 400...6000, using: &random)
            let blockBytes = Int.random(in: 100...3000, using: &random)
            let place: Comment = "seed \(seed), round \(round)"
            var generator = Generator(random: SeededGenerator(seed: random.next()))
            let expected = RecordBuffer()
            for _ in 0..<4 {
                let writer = try await openJournal(
                    directory, segmentBytes: segmentBytes, blockBytes: blockBytes, files: InterposedFiles())
                if generator.isInside {
                    // Recovery has closed it; the source sends it again.
                    expected.appendAbandon()
                    generator.isInside = false
                    generator.position = max(10, writer.written.frontier.commit)
                }
                for _ in 0..<Int.random(in: 1...25, using: &random) {
                    let batch = RecordBuffer()
                    generator.append(to: batch)
                    _ = try await writer.append(batch)
                    expected.append(batch.bytes)
                }
                #expect(writer.written.isInsideTransaction == generator.isInside, place)
                await writer.close()
                try tear(directory, &random)
            }
            let read = try await JournalReader.open(directory: directory.path).readAll()
            #expect(read.array == expected.array, place)
            #expect(
                try await JournalInspector.verify(directory: directory.path).allSatisfy { $0.severity == .tornTail },
                place)
            let all = try DecodedRecords(read).commits
            for position in all.shuffled(using: &random).prefix(10) {
                let reader = try await JournalReader.open(directory: directory.path, after: Position(commit: position))
                let decoded = try DecodedRecords(try await reader.readAll())
                #expect(decoded.commits == all.filter { $0 > position }, "\(place) after \(position)")
            }
        }
    }

    /// What a crash may leave behind what was synced: part of a block, or zeros.
    private func tear(_ directory: ScratchDirectory, _ random: inout SeededGenerator) throws {
        guard let name = try segmentNames(directory.path).last else { return }
        var content = try bytes(ofFile: directory.file(name))
        switch Int.random(in: 0..<3, using: &random) {
        case 0: content += [UInt8](repeating: 0, count: Int.random(in: 1...2000, using: &random))
        case 1:
            content += withUnsafeBytes(of: FrameMagic.descriptor.littleEndian) { Array($0) } + [0x98, 0, 0, 0, 0x42]
        default: break
        }
        try write(content, toFile: directory.file(name))
    }
}

import BridgeTestSupport
import BridgeCore
import Foundation
import Testing

@testable import BridgeJournal

/// J1: what the format document shows is what the code reads.
@Suite struct FormatDocumentTests {
    static let document: String = {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
            .appendingPathComponent("Sources/BridgeJournal/Documentation.docc/JournalFormat.md")
        return (try? String(contentsOf: path, encoding: .utf8)) ?? ""
    }()

    /// The bytes of all code blocks of that language, with the offsets in the left column checked.
    static func bytes(_ language: String, from start: Int = 0) throws -> [[UInt8]] {
        var blocks: [[UInt8]] = []
        var current: [UInt8]?
        var offset = start
        for line in document.split(separator: "\n", omittingEmptySubsequences: false) {
            if line == "```\(language)" {
                current = []
            } else if line == "```", let block = current {
                blocks.append(block)
                current = nil
            } else if current != nil {
                let parts = line.split(separator: " ")
                #expect(Int(try #require(parts.first), radix: 16) == offset)
                let bytes = parts.dropFirst().compactMap { UInt8($0, radix: 16) }
                current?.append(contentsOf: bytes)
                offset += bytes.count
            }
        }
        return blocks
    }

    @Test("J1 the document's example decodes to what the document says of it")
    func example() async throws {
        let parts = try Self.bytes("hex")
        #expect(parts.count == 6)
        let segment = parts.flatMap { $0 }
        let directory = ScratchDirectory()
        try write(segment, toFile: directory.file("segment-000000000001.lz4"))
        #expect(try await JournalInspector.verify(directory: directory.path) == [])

        let binding = try await JournalInspector.binding(directory: directory.path)
        #expect(
            binding
                == JournalBinding(
                    link: "shop-users", direction: .forward, identity: "database=4f1d\nepoch=1",
                    origin: Position(commit: 4096)))
        let listed = try #require(try await JournalInspector.list(directory: directory.path).first)
        #expect(listed.isClosed && listed.blocks == 2 && listed.records == 5 && listed.transactions == 1)
        #expect(listed.bytes == UInt64(segment.count))
        #expect(listed.firstCommit == Position(commit: 4711) && listed.lastCommit == Position(commit: 4711))
        #expect(listed.frontier == Position(commit: 4800))

        let reader = try await JournalReader.open(directory: directory.path)
        let records = try await reader.readAll()
        var cursor = RecordCursor(records.bytes)
        let relation = try Relation(payload: try #require(try cursor.next()).payload)
        #expect(relation.id == 7 && relation.name == TableName(name: "users") && relation.form == .canonical)
        #expect(relation.columns.map(\.name) == ["id", "name"] && relation.columns.map(\.isKey) == [true, false])
        let begin = try #require(try cursor.next()).transactionStart()
        #expect(begin.position.commit == 4711 && begin.commitTime.rfc3339 == "2026-01-01T00:00:01.000000Z")
        let insert = try RowChange(try #require(try cursor.next()))
        var cells = try #require(insert.new).cells
        #expect(try cells.next()?.integer == 42)
        #expect(try cells.next().map { Array($0.bytes) } == Array("Ada".utf8))
        let commit = try #require(try cursor.next()).transactionEnd()
        #expect(commit.end == 4712 && commit.changes == 1)
        #expect(try #require(try cursor.next()).frontier().position.commit == 4800)
        #expect(try cursor.next() == nil)
    }

    @Test("J1 the code writes the document's example byte for byte, frames as given")
    func encoding() async throws {
        let parts = try Self.bytes("hex")
        try #require(parts.count == 6)
        let header = try #require(
            try parts[0].withUnsafeBytes { try SegmentHeader.decode($0, file: "example") })
        #expect(header.encoded().bytes == parts[0])
        for index in [1, 3] {
            let (block, checksum) = try #require(parts[index].withUnsafeBytes { BlockDescriptor.decode($0) })
            var encoded = [UInt8](repeating: 0xEE, count: BlockDescriptor.size)
            let written = encoded.withUnsafeMutableBytes { block.encode(into: $0) }
            #expect(encoded == parts[index])
            #expect(written == checksum)
            #expect(block.frameChecksum == parts[index + 1].withUnsafeBytes { Checksum.of($0) })
        }
        let footer = parts[5]
        let summary = try #require(
            Array(footer.suffix(SegmentSummary.size)).withUnsafeBytes { SegmentSummary.decode($0) })
        let index = try #require(
            Array(footer.dropLast(SegmentSummary.size)).withUnsafeBytes { SegmentFooter.decodeIndex($0) })
        #expect(SegmentFooter.encoded(index, summary) == footer)
        let slotBytes = try #require(try Self.bytes("state", from: 512).first)
        let slot = try #require(slotBytes.withUnsafeBytes { StateSlot.decode($0) })
        #expect(slot.sequence == 9 && slot.durableSegment == 1 && slot.durableRecords == 5)
        #expect(slot.durableOffset == UInt64(parts.reduce(0) { $0 + $1.count }))
        #expect(slot.encoded() == slotBytes)
    }

    @Test("J1 the checksum is CRC-32C, by instruction and by table")
    func checksum() throws {
        let check = Array("123456789".utf8)
        #expect(check.withUnsafeBytes { Checksum.ofWithTables($0) } == 0xE306_9283)
        #expect(check.withUnsafeBytes { Checksum.of($0) } == 0xE306_9283)
        guard Checksum.canUseInstruction else { return }
        var generator = SeededGenerator(seed: 1)
        for size in 0..<200 {
            let bytes = (0..<size).map { _ in UInt8.random(in: 0...255, using: &generator) }
            #expect(
                bytes.withUnsafeBytes { Checksum.ofWithTables($0) }
                    == bytes.withUnsafeBytes { Checksum.ofWithInstruction($0) })
        }
    }

    @Test("J2 the stock lz4 tool yields exactly the records")
    func stockTool() async throws {
        let tool = "/usr/bin/lz4"
        guard FileManager.default.isExecutableFile(atPath: tool) else { return }
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory, segmentBytes: 20_000, blockBytes: 3000)
        let batch = RecordBuffer()
        batch.appendRelation(.test(1))
        for position in UInt64(11)...UInt64(300) { batch.appendTransaction(position, rows: 3, size: Int(position)) }
        // One record that alone is larger than a block, and than LZ4's own blocks.
        batch.appendBegin(301)
        batch.appendInsert(1, id: 1, text: [UInt8](repeating: 0x7A, count: 9_000_000))
        batch.appendCommit(301, changes: 1)
        batch.appendTransaction(302)
        _ = try await writer.append(batch)
        await writer.close()
        var unpacked: [UInt8] = []
        for name in try segmentNames(directory.path) {
            let unpackedFile = directory.file("unpacked")
            try ChildProcess.runBlocking(["sh", "-c", "\"$0\" -dc \"$1\" >\"$2\"", tool, directory.file(name), unpackedFile])
            let output = [UInt8](try Data(contentsOf: URL(fileURLWithPath: unpackedFile)))
            try FileManager.default.removeItem(atPath: unpackedFile)
            // Every segment but the first begins by repeating the one relation.
            let repeated = RecordBuffer()
            repeated.appendRelation(.test(1))
            if !unpacked.isEmpty { #expect(Array(output.prefix(repeated.count)) == repeated.array) }
            unpacked += unpacked.isEmpty ? output[...] : output.dropFirst(repeated.count)
        }
        #expect(unpacked == batch.array)
        #expect(try await JournalReader.open(directory: directory.path).readAll().array == batch.array)
        #expect(try await JournalInspector.verify(directory: directory.path) == [])
    }
}

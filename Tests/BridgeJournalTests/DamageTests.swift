import BridgeCore
import Foundation
import Testing

@testable import BridgeJournal

@Suite struct DamageTests {
    /// A small journal: finished segments, and a last one that is not.
    static func make(segmentBytes: Int64 = 700, transactions: UInt64 = 6) async throws -> (ScratchDirectory, [UInt8]) {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory, segmentBytes: segmentBytes, blockBytes: 300)
        let all = RecordBuffer()
        let batch = RecordBuffer()
        batch.appendRelation(.test(1))
        for position in 11..<(11 + transactions) {
            batch.appendTransaction(position, rows: 2)
            all.append(batch.bytes)
            _ = try await writer.append(batch)
            batch.removeAll()
        }
        await writer.close()
        return (directory, all.array)
    }

    /// What can be read before an error, and the error.
    static func readUntilDamage(_ directory: ScratchDirectory) async -> (records: [UInt8], error: BridgeError?) {
        let buffer = RecordBuffer()
        do {
            let reader = try await JournalReader.open(directory: directory.path)
            while try await reader.read(into: buffer, limit: 1) > 0 {}
            return (buffer.array, nil)
        } catch {
            return (buffer.array, error)
        }
    }

    enum Place: CaseIterable { case finished, last, lastWithoutStateFile }

    @Test("J5 one flipped bit anywhere in a segment is found, with segment and offset", arguments: Place.allCases)
    func everyBit(place: Place) async throws {
        let (directory, records) = try await Self.make(segmentBytes: 600, transactions: 4)
        if place == .lastWithoutStateFile {
            try FileManager.default.removeItem(atPath: directory.file(JournalFileName.state))
        }
        let names = try segmentNames(directory.path)
        #expect(names.count >= 2)
        do {
            let name = place == .finished ? names[0] : names[names.count - 1]
            let path = directory.file(name)
            let whole = try bytes(ofFile: path)
            for bit in 0..<whole.count * 8 {
                var flipped = whole
                flipped[bit / 8] ^= 1 << UInt8(bit % 8)
                try write(flipped, toFile: path)
                let problems = try await JournalInspector.verify(directory: directory.path)
                let problem = problems.first { $0.severity == .damage && $0.file == path }
                #expect(problem != nil, "\(name) bit \(bit) of \(whole.count * 8)")
                // The frame or descriptor that the bit stands in begins at or before it.
                #expect(problem.map { $0.offset <= UInt64(bit / 8) } ?? true, "\(name) bit \(bit): \(problems)")
                let (read, error) = await Self.readUntilDamage(directory)
                // The index is only read by those who seek; all else a reader meets.
                let isIndex = error == nil && read == records && problem?.what.contains("index") == true
                #expect(isIndex || error?.code == .journalDamaged, "\(name) bit \(bit): \(String(describing: error))")
                #expect(records.starts(with: read), "\(name) bit \(bit): records from beyond damage")
                if !isIndex { #expect(error?.context.contains { $0.key == .file && $0.value == path } == true) }
            }
            try write(whole, toFile: path)
        }
        #expect(try await JournalInspector.verify(directory: directory.path) == [])
    }

    @Test("J5 a writer refuses a flipped bit as well, and changes nothing")
    func writerRefuses() async throws {
        let (directory, _) = try await Self.make()
        let names = try segmentNames(directory.path)
        let path = directory.file(names[names.count - 1])
        let whole = try bytes(ofFile: path)
        for byte in stride(from: 0, to: whole.count, by: 7) {
            var flipped = whole
            flipped[byte] ^= 0x10
            try write(flipped, toFile: path)
            await #expect(throws: BridgeError.self, "byte \(byte)") { try await openJournal(directory) }
            #expect(try bytes(ofFile: path) == flipped)
        }
    }

    @Test("J5 missing, swapped, truncated and foreign segments are found and named")
    func segments() async throws {
        let (directory, _) = try await Self.make(transactions: 9)
        let names = try segmentNames(directory.path)
        #expect(names.count >= 4)
        let contents = try names.map { try bytes(ofFile: directory.file($0)) }
        let (foreignDirectory, _) = try await { () async throws -> (ScratchDirectory, [UInt8]) in
            let other = ScratchDirectory()
            var binding = JournalBinding.test
            binding.identity = "database=ffff\nepoch=1"
            let writer = try await openJournal(other, binding, segmentBytes: 700, blockBytes: 300)
            let batch = RecordBuffer()
            batch.appendRelation(.test(1))
            for position in UInt64(11)...UInt64(20) {
                batch.appendTransaction(position, rows: 2)
                _ = try await writer.append(batch)
                batch.removeAll()
            }
            await writer.close()
            return (other, [])
        }()
        let sibling = try await Self.make(transactions: 9).0
        func damaged(_ what: String, at index: Int, code: ErrorCode = .journalDamaged, _ change: () throws -> Void)
            async throws
        {
            for (name, content) in zip(names, contents) { try write(content, toFile: directory.file(name)) }
            try change()
            let path = directory.file(names[index])
            let problems = try await JournalInspector.verify(directory: directory.path)
            #expect(problems.contains { $0.severity == .damage && $0.file == path }, "\(what): \(problems)")
            let error = await #expect(throws: BridgeError.self, "\(what)") { try await openJournal(directory) }
            #expect(error?.code == code, "\(what): \(String(describing: error))")
            #expect(error?.context.contains { $0.key == .file && $0.value == path } == true, "\(what)")
            #expect(await Self.readUntilDamage(directory).error != nil, "\(what)")
        }
        for index in names.indices {
            try await damaged("missing \(index)", at: index) {
                try FileManager.default.removeItem(atPath: directory.file(names[index]))
            }
            try await damaged("truncated \(index)", at: index) {
                try write(Array(contents[index].dropLast(1)), toFile: directory.file(names[index]))
            }
            try await damaged("cut to half \(index)", at: index) {
                try write(
                    Array(contents[index].prefix(contents[index].count / 2)), toFile: directory.file(names[index]))
            }
            try await damaged("empty \(index)", at: index) { try write([], toFile: directory.file(names[index])) }
            // Of the same link, but another history: only the chain tells.
            if index > 0 {
                try await damaged("another history \(index)", at: index) {
                    try write(try bytes(ofFile: sibling.file(names[index])), toFile: directory.file(names[index]))
                }
            }
            let foreign = try bytes(ofFile: foreignDirectory.file(names[index]))
            try await damaged("foreign \(index)", at: index, code: .journalForeign) {
                try write(foreign, toFile: directory.file(names[index]))
            }
        }
        try await damaged("swapped", at: 1) {
            try write(contents[2], toFile: directory.file(names[1]))
            try write(contents[1], toFile: directory.file(names[2]))
        }
        try await damaged("an old state of the last segment", at: names.count - 1) {
            let header = SegmentHeader.size(
                contents[names.count - 1].withUnsafeBytes { UnsafeRawBufferPointer(rebasing: $0[..<24]) })
            try write(
                Array(contents[names.count - 1].prefix(try #require(header))),
                toFile: directory.file(names[names.count - 1]))
        }
    }

    @Test("a journal bound to anything else is refused, and a version from the future too")
    func binding() async throws {
        let (directory, _) = try await Self.make()
        for change: (inout JournalBinding) -> Void in [
            { $0.link = "other" }, { $0.direction = .reverse }, { $0.identity = "database=0" },
            { $0.origin = Position(commit: 11) },
        ] {
            var binding = JournalBinding.test
            change(&binding)
            let error = await #expect(throws: BridgeError.self) { try await openJournal(directory, binding) }
            #expect(error?.code == .journalForeign)
        }
        let path = directory.file(try segmentNames(directory.path)[0])
        var content = try bytes(ofFile: path)
        let size = try #require(
            SegmentHeader.size(content.withUnsafeBytes { UnsafeRawBufferPointer(rebasing: $0[..<24]) }))
        content[17] = 9
        let checksum = content.withUnsafeBytes { Checksum.of(UnsafeRawBufferPointer(rebasing: $0[..<(size - 4)])) }
        content.replaceSubrange((size - 4)..<size, with: withUnsafeBytes(of: checksum.bigEndian) { Array($0) })
        try write(content, toFile: path)
        let error = await #expect(throws: BridgeError.self) { try await openJournal(directory) }
        #expect(error?.code == .journalVersion)
    }

    @Test("no journal is an error that says so")
    func missing() async throws {
        let directory = ScratchDirectory()
        for path in [directory.path, directory.file("nothing")] {
            let error = await #expect(throws: BridgeError.self) { try await JournalReader.open(directory: path) }
            #expect(error?.code == .journalMissing)
            let listing = await #expect(throws: BridgeError.self) { try await JournalInspector.list(directory: path) }
            #expect(listing?.code == .journalMissing)
            let verifying = await #expect(throws: BridgeError.self) {
                try await JournalInspector.verify(directory: path)
            }
            #expect(verifying?.code == .journalMissing)
        }
    }
}

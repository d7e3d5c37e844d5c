import BridgeTestSupport
import BridgeCore
import Foundation
import Testing

@testable import BridgeJournal

/// A file system as a crash may leave it, built from a trace.
struct CrashedDisk {
    private struct File {
        /// What a sync made durable, and what is there as long as the machine runs.
        var durable: [UInt8] = []
        var current: [UInt8] = []
    }
    private var files: [String: File] = [:]
    /// Directory entries as they are durable.
    private var durableNames: [String: String] = [:]
    private var names: [String: String] = [:]
    private var lastID = 0

    mutating func apply(_ operation: FileOperation, bytes limit: Int? = nil) {
        switch operation {
        case .create(let name):
            lastID += 1
            names[name] = "\(lastID)"
            files["\(lastID)"] = File()
        case .write(let name, let offset, let bytes):
            guard let id = names[name] else { return }
            let part = bytes.prefix(limit ?? bytes.count)
            var content = files[id]?.current ?? []
            if content.count < offset + part.count {
                content += [UInt8](repeating: 0, count: offset + part.count - content.count)
            }
            content.replaceSubrange(offset..<offset + part.count, with: part)
            files[id]?.current = content
        case .truncate(let name, let size):
            guard let id = names[name], let content = files[id]?.current else { return }
            files[id]?.current = Array(content.prefix(size))
        case .synchronize(let name):
            guard let id = names[name], let content = files[id]?.current else { return }
            files[id]?.durable = content
        case .synchronizeDirectory: durableNames = names
        case .rename(let name, let newName): names[newName] = names.removeValue(forKey: name)
        case .remove(let name): names[name] = nil
        }
    }

    /// The process died: all that was written is there.
    func killed() -> [String: [UInt8]] { names.mapValues { files[$0]?.current ?? [] } }

    /// The machine died: of what was not synced each sector is there or not, and the file may end anywhere behind what
    /// was.
    func lostPower(_ generator: inout SeededGenerator) -> [String: [UInt8]] {
        let survivors = Bool.random(using: &generator) ? names : durableNames
        var result: [String: [UInt8]] = [:]
        for (name, id) in survivors.sorted(by: { $0.key < $1.key }) {
            guard let file = files[id] else { continue }
            let size = Int.random(
                in: file.durable.count...max(file.durable.count, file.current.count), using: &generator)
            var content = file.durable + [UInt8](repeating: 0, count: size - file.durable.count)
            for start in stride(from: 0, to: size, by: 512) where Bool.random(using: &generator) {
                let sector = start..<min(start + 512, size)
                content.replaceSubrange(sector, with: file.current[sector])
            }
            result[name] = content
        }
        return result
    }

    /// The machine died, and each file has its full size: all that may be left of it, by which sectors of which file did
    /// not reach the disk. At most six of a file are looked at.
    func lostSectors() -> [(what: String, files: [String: [UInt8]])] {
        names.sorted { $0.key < $1.key }.flatMap { name, id -> [(String, [String: [UInt8]])] in
            guard let file = files[id] else { return [] }
            let starts = Array(stride(from: 0, to: file.current.count, by: 512)).filter { start in
                let sector = start..<min(start + 512, file.current.count)
                return file.durable.count < sector.upperBound || file.durable[sector] != file.current[sector]
            }.suffix(6)
            return (1..<max(1, 1 << starts.count)).map { mask in
                var disk = killed()
                for (place, start) in starts.enumerated() where mask >> place & 1 == 1 {
                    for index in start..<min(start + 512, file.current.count) {
                        disk[name]?[index] = index < file.durable.count ? file.durable[index] : 0
                    }
                }
                return ("\(name) without its unsynced sectors by the mask \(mask)", disk)
            }
        }
    }
}

@Suite struct CrashTests {
    /// A journal written under a trace: several segments, transactions of several sizes, some in two parts.
    struct Recording {
        var trace: [FileOperation] = []
        /// The records as written.
        var records: [UInt8] = []
        /// After that many operations, these many commits were acknowledged as durable.
        var acknowledged: [(operations: Int, commits: [UInt64])] = []

        func durableCommits(after operations: Int) -> [UInt64] {
            acknowledged.last { $0.operations <= operations }?.commits ?? []
        }
    }

    static func record(syncsEvery: Int = 1, last: Int = 15) async throws -> Recording {
        let directory = ScratchDirectory()
        let files = TracingFiles()
        var recording = Recording()
        let writer = try await openJournal(directory, segmentBytes: 900, blockBytes: 300, files: files)
        var commits: [UInt64] = []
        let batch = RecordBuffer()
        batch.appendRelation(.test(1))
        for position in UInt64(11)...UInt64(last) {
            batch.appendTransaction(position, rows: Int(position % 3) + 1, size: 10)
            commits.append(position)
            if position % 3 == 0 {
                // The next transaction's first part.
                batch.appendBegin(position * 10)
                batch.appendInsert(1, id: 1, text: [1, 2, 3])
                batch.appendAbandon()
            }
            recording.records += batch.array
            let end = try await writer.write(batch)
            if Int(position) % syncsEvery == 0 {
                _ = try await writer.sync()
                recording.acknowledged.append((files.count, commits))
            }
            #expect(end.lastCommit?.position.commit == position)
            batch.removeAll()
        }
        recording.trace = files.trace
        await writer.close()
        return recording
    }

    /// Opens what a crash left, and holds it against what was acknowledged.
    static func check(
        _ disk: [String: [UInt8]], _ recording: Recording, operations: Int, _ place: String
    ) async throws {
        let directory = ScratchDirectory()
        for (name, content) in disk { try write(content, toFile: directory.file(name)) }
        let writer: JournalWriter
        do {
            writer = try await openJournal(directory, segmentBytes: 900, blockBytes: 300, files: InterposedFiles())
        } catch {
            Issue.record("\(place): the journal cannot be opened: \(error)")
            return
        }
        let reader = try await writer.makeReader(after: .zero)
        let read = try await reader.readAll()
        let decoded = try DecodedRecords(read)
        #expect(
            decoded.commits.starts(with: recording.durableCommits(after: operations)),
            "\(place): synced records are lost")
        // All of it was written so, but for the abandon record that recovery puts where a transaction was cut off.
        var body = read.array
        if !recording.records.starts(with: body), decoded.kinds.last == .abandon { body.removeLast(5) }
        #expect(recording.records.starts(with: body), "\(place): something was read that was not written")
        #expect(!writer.written.isInsideTransaction)
        // And it goes on.
        let batch = RecordBuffer()
        batch.appendRelation(.test(1))
        batch.appendTransaction(1000)
        _ = try await writer.append(batch)
        await reader.close()
        await writer.close()
        let problems = try await JournalInspector.verify(directory: directory.path)
        #expect(problems == [], "\(place)")
        let again = try await JournalReader.open(directory: directory.path)
        #expect(try DecodedRecords(try await again.readAll()).commits == decoded.commits + [1000], "\(place)")
    }

    @Test("J4 killed at every byte of every write: every synced record is kept, nothing else is read")
    func everyByte() async throws {
        let recording = try await Self.record()
        var disk = CrashedDisk()
        for (index, operation) in recording.trace.enumerated() {
            try await Self.check(disk.killed(), recording, operations: index, "before operation \(index)")
            if case .write(let name, _, let bytes) = operation {
                for count in 1..<max(1, bytes.count) {
                    if name == JournalFileName.state && bytes.count > StateSlot.size { break }
                    var torn = disk
                    torn.apply(operation, bytes: count)
                    try await Self.check(
                        torn.killed(), recording, operations: index, "operation \(index), \(name) cut at \(count)")
                }
            }
            disk.apply(operation)
        }
        try await Self.check(disk.killed(), recording, operations: recording.trace.count, "at the end")
    }

    @Test("J4 power lost at any moment: whichever unsynced sectors are missing, every synced record is kept")
    func powerLoss() async throws {
        var (generator, seed) = SeededGenerator.named("power loss")
        let recording = try await Self.record(syncsEvery: 3, last: 25)
        for round in 0..<fuzzRounds(300) {
            let operations = Int.random(in: 0...recording.trace.count, using: &generator)
            var disk = CrashedDisk()
            for operation in recording.trace.prefix(operations) { disk.apply(operation) }
            try await Self.check(
                disk.lostPower(&generator), recording, operations: operations,
                "seed \(seed), round \(round), \(operations) operations")
        }
    }

    @Test("J4 power lost after every operation, without any of the unsynced sectors: a footer does not vouch for the blocks before it")
    func lostSectors() async throws {
        let recording = try await Self.record(syncsEvery: 3, last: 25)
        var disk = CrashedDisk()
        var count = 0
        for (index, operation) in recording.trace.enumerated() {
            disk.apply(operation)
            for (what, files) in disk.lostSectors() {
                try await Self.check(files, recording, operations: index + 1, "after operation \(index), \(what)")
                count += 1
            }
        }
        #expect(count > recording.trace.count)
    }

    @Test("J4 the last segment truncated at every byte of its last block, without a state file")
    func truncatedTail() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory)
        let batch = RecordBuffer()
        batch.appendRelation(.test(1))
        batch.appendTransaction(11)
        _ = try await writer.append(batch)
        let before = try await writer.sync()
        batch.removeAll()
        batch.appendTransaction(12, rows: 3, size: 40)
        _ = try await writer.append(batch)
        await writer.close()
        let whole = try bytes(ofFile: directory.file("segment-000000000001.lz4"))
        for size in Int(before.offset)..<whole.count {
            let copy = ScratchDirectory()
            try write(Array(whole.prefix(size)), toFile: copy.file("segment-000000000001.lz4"))
            let offline = try await JournalReader.open(directory: copy.path)
            #expect(try DecodedRecords(try await offline.readAll()).commits == [11])
            let recovered = try await openJournal(copy, files: InterposedFiles())
            #expect(recovered.written.lastCommit?.position.commit == 11)
            #expect(recovered.durable.offset == before.offset)
            await recovered.close()
            #expect(try bytes(ofFile: copy.file("segment-000000000001.lz4")) == Array(whole.prefix(Int(before.offset))))
        }
    }

    @Test("J4 a tail that ends inside a transaction is closed with a durable abandon record")
    func abandon() async throws {
        let directory = ScratchDirectory()
        var writer: JournalWriter? = try await openJournal(directory)
        let batch = RecordBuffer()
        batch.appendRelation(.test(1))
        batch.appendTransaction(11)
        batch.appendBegin(12)
        batch.appendInsert(1, id: 1, text: [1])
        let end = try await writer?.append(batch)
        #expect(end?.isInsideTransaction == true)
        await writer?.close()
        writer = nil
        let again = try await openJournal(directory)
        #expect(!again.written.isInsideTransaction)
        #expect(again.durable == again.written)
        batch.removeAll()
        batch.appendTransaction(12, rows: 2)
        _ = try await again.append(batch)
        let read = try DecodedRecords(try await again.makeReader(after: Position(commit: 11)).readAll())
        #expect(read.kinds == [.begin, .insert, .abandon, .begin, .insert, .insert, .commit])
        await again.close()
    }
}

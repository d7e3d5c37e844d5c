import BridgeCore
import Foundation
import Synchronization
import Testing

@testable import BridgeJournal

@Suite struct InspectorTests {
    static let accounts = Relation(
        id: 16_400, engine: EngineName(rawValue: "postgresql"), form: .native,
        name: TableName(schema: "public", name: "acc\"ounts"), identity: .key,
        columns: [
            .init(name: "id", isKey: true, typeName: "bigint", type: .int64),
            .init(name: "note", isKey: false, typeName: "text", type: .text),
            .init(name: "extra", isKey: false, typeName: "bytea", type: .bytes),
        ])

    static func text(_ buffer: RecordBuffer, _ text: String) {
        Array(text.utf8).withUnsafeBytes { buffer.appendCell(.text, $0) }
    }

    /// One record of each kind.
    static func everything() -> RecordBuffer {
        let buffer = RecordBuffer()
        buffer.appendRelation(accounts)
        buffer.appendBegin(
            TransactionStart(
                transaction: 771, position: Position(commit: 100),
                commitTime: Timestamp(microseconds: 1_767_225_600_123_456)))
        var start = buffer.beginRow(.insert, relation: 16_400)
        buffer.beginRowImage(columns: 3)
        text(buffer, "1")
        text(buffer, "quote \" backslash \\ newline \n tab \t nul \u{0} snow ☃")
        buffer.appendCell(.null)
        buffer.endRecord(start)
        start = buffer.beginRow(.update, relation: 16_400, old: .key)
        buffer.beginRowImage(columns: 3)
        text(buffer, "1")
        buffer.appendCell(.absent)
        buffer.appendCell(.absent)
        buffer.beginRowImage(columns: 3)
        text(buffer, "2")
        buffer.appendCell(.unchanged)
        [UInt8]([0, 1, 254, 255]).withUnsafeBytes { buffer.appendCell(.blob, $0) }
        buffer.endRecord(start)
        start = buffer.beginRow(.delete, relation: 16_400, old: .full)
        buffer.beginRowImage(columns: 3)
        buffer.appendCell(integer: 2)
        [UInt8]([0x61, 0xFF, 0x62]).withUnsafeBytes { buffer.appendCell(.string, $0) }
        buffer.appendCell(real: .infinity)
        buffer.endRecord(start)
        buffer.appendTruncate([16_400], options: [.cascade])
        Array("hello".utf8).withUnsafeBytes { buffer.appendMessage(prefix: "app", content: $0) }
        start = buffer.beginRow(.upsert, relation: 16_400)
        buffer.beginRowImage(columns: 3)
        for _ in 0..<3 { buffer.appendCell(real: 1.5) }
        buffer.endRecord(start)
        start = buffer.beginRow(.remove, relation: 16_400)
        buffer.beginRowImage(columns: 3)
        buffer.appendCell(integer: 9)
        buffer.appendCell(.absent)
        buffer.appendCell(.absent)
        buffer.endRecord(start)
        buffer.appendCommit(
            TransactionEnd(
                position: Position(commit: 100), end: 140, commitTime: Timestamp(microseconds: 1_767_225_600_123_456),
                changes: 7))
        buffer.appendBegin(200, transaction: 772)
        start = buffer.beginRow(.insert, relation: 16_400)
        buffer.beginRowImage(columns: 3)
        for _ in 0..<3 { text(buffer, "void") }
        buffer.endRecord(start)
        buffer.appendAbandon()
        buffer.appendFrontier(Position(commit: 300), time: Timestamp(microseconds: 0))
        buffer.appendBegin(400, transaction: 773)
        start = buffer.beginRow(.insert, relation: 16_400)
        buffer.beginRowImage(columns: 3)
        for _ in 0..<3 { text(buffer, "open") }
        buffer.endRecord(start)
        return buffer
    }

    static func dump(_ format: JournalInspector.DumpFormat) async throws -> [[String: Any]] {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory, blockBytes: 300)
        _ = try await writer.append(everything())
        await writer.close()
        #expect(try await JournalInspector.verify(directory: directory.path) == [])
        let lines = Mutex<[String]>([])
        try await JournalInspector.dump(directory: directory.path, format: format) { line in
            lines.withLock { $0.append(line) }
        }
        return try lines.withLock { $0 }.map { line in
            #expect(!line.contains("\n"))
            return try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
        }
    }

    @Test("J12 dump prints every record as a line of JSON")
    func json() async throws {
        let lines = try await Self.dump(.json)
        #expect(
            lines.map { $0["kind"] as? String } == [
                "relation", "begin", "insert", "update", "delete", "truncate", "message", "upsert", "remove", "commit",
                "begin", "insert", "abandon", "frontier", "begin", "insert",
            ])
        #expect(lines[0]["table"] as? String == "public.acc\"ounts")
        #expect(lines[1]["commit_time"] as? String == "2026-01-01T00:00:00.123456Z")
        let inserted = try #require(lines[2]["new"] as? [String: Any])
        #expect(inserted["note"] as? String == "quote \" backslash \\ newline \n tab \t nul \u{0} snow ☃")
        #expect(inserted["extra"] is NSNull)
        #expect(lines[2]["position"] as? String == "100" && lines[3]["position"] as? String == "100.1")
        #expect((lines[3]["old"] as? [String: Any])?.keys.sorted() == ["id"])
        let updated = try #require(lines[3]["new"] as? [String: Any])
        #expect(updated.keys.sorted() == ["extra", "id"])
        #expect((updated["extra"] as? [String: Any])?["base64"] as? String == "AAH+/w==")
        #expect(lines[3]["unchanged"] as? [String] == ["note"])
        let deleted = try #require(lines[4]["old"] as? [String: Any])
        #expect(deleted["id"] as? Int == 2 && deleted["extra"] as? String == "Infinity")
        #expect(deleted["note"] as? String == "a\u{FFFD}b")
        #expect(lines[5]["cascade"] as? Bool == true && lines[5]["tables"] as? [String] == ["public.acc\"ounts"])
        #expect(lines[6]["content_base64"] as? String == "aGVsbG8=")
        #expect(lines[9]["changes"] as? Int == 7)
    }

    @Test("J12 the Debezium format prints the change events of committed transactions only")
    func debezium() async throws {
        let events = try await Self.dump(.debezium)
        #expect(events.map { $0["op"] as? String } == ["c", "u", "d", "t", "m", "u", "d"])
        for event in events where event["op"] as? String != "m" {
            #expect(Set(event.keys) == ["before", "after", "source", "op", "ts_ms", "transaction"])
            let source = try #require(event["source"] as? [String: Any])
            #expect(source["connector"] as? String == "postgresql" && source["table"] as? String == "acc\"ounts")
            #expect(source["schema"] as? String == "public" && source["txId"] as? Int == 771)
            #expect(source["lsn"] as? Int == 100 && source["ts_ms"] as? Int == 1_767_225_600_123)
        }
        #expect(events[0]["before"] is NSNull)
        #expect((events[0]["after"] as? [String: Any])?["id"] as? String == "1")
        let updated = try #require(events[1]["after"] as? [String: Any])
        #expect(updated["note"] as? String == "__debezium_unavailable_value")
        #expect(updated["extra"] as? String == "AAH+/w==")
        #expect((events[1]["before"] as? [String: Any])?.count == 1)
        #expect((events[1]["transaction"] as? [String: Any])?["total_order"] as? Int == 2)
        #expect(events[2]["after"] is NSNull && events[6]["after"] is NSNull)
    }

    @Test("J9 records carry transaction, commit position, commit time, and old and new keys")
    func checkerNeeds() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory)
        _ = try await writer.append(Self.everything())
        let read = try await writer.makeReader(after: .zero).readAll()
        var cursor = RecordCursor(read.bytes)
        _ = try cursor.next()
        let begin = try #require(try cursor.next()).transactionStart()
        #expect(begin.transaction == 771 && begin.position.commit == 100)
        #expect(begin.commitTime.microseconds == 1_767_225_600_123_456)
        _ = try cursor.next()
        let update = try RowChange(try #require(try cursor.next()))
        var old = try #require(update.old).cells
        var new = try #require(update.new).cells
        #expect(try old.next().map { Array($0.bytes) } == [0x31])
        #expect(try new.next().map { Array($0.bytes) } == [0x32])
        await writer.close()
    }

    @Test("J2 list and verify work beside a writer, without its lock")
    func beside() async throws {
        let directory = ScratchDirectory()
        let writer = try await openJournal(directory, segmentBytes: 600, blockBytes: 300)
        for position in UInt64(11)...UInt64(30) {
            _ = try await writer.write(WriterTests.transaction(position, relation: position == 11))
            #expect(try await JournalInspector.verify(directory: directory.path) == [])
        }
        let listed = try await JournalInspector.list(directory: directory.path)
        #expect(listed.map(\.number) == Array(1...UInt64(listed.count)))
        #expect(listed.dropLast().allSatisfy { $0.isClosed } && listed.last?.isClosed == false)
        #expect(listed.reduce(0) { $0 + $1.transactions } == 20)
        #expect(listed.first?.firstCommit?.commit == 11 && listed.last?.lastCommit?.commit == 30)
        #expect(listed.reduce(0) { $0 + Int64($1.bytes) } == writer.bytesOnDisk)
        await writer.close()
    }
}

import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// A source with a change log, as the checker has it.
final class ComparedSource: Sendable {
    let database: TestDatabase
    let source: SQLiteSource
    let link: LinkDescription
    let session: any ComparisonSession

    init(_ sql: String, mappings: [TableMapping], journalMode: String = "WAL", encoding: String = "UTF-8") async throws {
        database = try TestDatabase(sql, journalMode: journalMode, encoding: encoding)
        source = SQLiteSource(path: database.path)
        link = LinkDescription(migration: "test", direction: .forward, mappings: mappings, form: .native)
        _ = try await source.prepareCapture(link, replacingLeftovers: false)
        session = try await source.openComparison(link, role: .source)
    }

    convenience init(_ sql: String, tables: [String], journalMode: String = "WAL", encoding: String = "UTF-8") async throws {
        try await self.init(
            sql, mappings: forwardLink(tables).mappings, journalMode: journalMode, encoding: encoding)
    }

    func request(_ table: Int = 0) async throws -> ComparisonRequest {
        ComparisonRequest(
            layout: try await session.layout(of: link.mappings[table], columns: nil),
            rowFilter: link.mappings[table].rowFilter)
    }

    func close() async {
        await session.close()
        await source.close()
    }
}

/// A target with a link that is syncing, as the checker has it.
final class ComparedTarget: Sendable {
    let fixture: TargetFixture
    let link: LinkDescription
    let relations: [Relation]
    let session: any ComparisonSession

    init(_ sql: String, _ relations: [Relation]) async throws {
        fixture = try TargetFixture(sql)
        self.relations = relations
        link = fixture.link(relations)
        try await fixture.startSyncing(link, relations: relations, origin: 5, copied: 5)
        session = try await fixture.target.openComparison(link, role: .target)
    }

    func layout(_ table: Int = 0) async throws -> ComparisonLayout {
        try await session.layout(of: link.mappings[table], columns: relations[table].columns)
    }

    /// The application's statements, in one transaction.
    func run(_ sql: String) throws { try fixture.execute(sql) }

    func watch() async throws { try await requireTarget().watchForeignWrites() }

    /// Keys as text, `table[i:1|t:a]`, with those of `after` and before left out.
    func writes(after: Int64 = 0) async throws -> [String] {
        try await requireTarget().foreignWrites(after: after, limit: 1_000_000).map { write in
            "\(write.table.name)[\(try write.key.map { try show($0.bytes) } ?? "*")]"
        }
    }

    func lastNumber() async throws -> Int64 {
        try await requireTarget().foreignWrites(after: 0, limit: 1_000_000).last?.number ?? 0
    }

    func requireTarget() throws -> any ComparisonTarget { try #require(session.target) }
}

/// Rows as a stream or a look-up gave them: a length and an image each, the images without their count of cells.
func images(_ bytes: UnsafeRawBufferPointer) throws -> [[UInt8]] {
    var reader = Mirror.Reader(bytes: Array(bytes))
    var rows: [[UInt8]] = []
    while reader.offset < reader.bytes.count {
        let length = Int(try reader.number(4))
        let start = reader.offset
        try reader.skip(length)
        rows.append(Array(reader.bytes[start + 2..<reader.offset]))
    }
    return rows
}

func allRows(_ view: any ComparisonView, _ request: ComparisonRequest, limit: Int = 4_096) async throws -> [[UInt8]] {
    let stream = try await view.openRows(request)
    let buffer = RecordBuffer()
    var rows: [[UInt8]] = []
    while true {
        buffer.removeAll()
        let count = try await stream.read(into: buffer, limit: limit)
        let read = try images(buffer.bytes)
        #expect(read.count == count)
        if count == 0 { break }
        rows += read
    }
    await stream.close()
    return rows
}

func found(_ view: any ComparisonView, _ request: ComparisonRequest, _ keys: [[Value]]) async throws -> [[UInt8]] {
    let buffer = RecordBuffer()
    let count = try await view.findRows(request, keys: keys.map(key), into: buffer)
    let rows = try images(buffer.bytes)
    #expect(rows.count == count)
    return rows
}

func key(_ values: [Value]) -> KeyImage {
    let buffer = RecordBuffer()
    appendRow(values, to: buffer)
    return withExtendedLifetime(buffer) { KeyImage(Array(buffer.bytes)) }
}

/// An image as text: `i:1|t:a|null`, as ``showRows(_:_:)`` shows rows.
func show(_ image: [UInt8]) throws -> String {
    var reader = Mirror.Reader(bytes: image)
    var parts: [String] = []
    for _ in 0..<Int(try reader.number(2)) {
        switch UInt8(try reader.number(1)) {
        case 0x6E: parts.append("null")
        case 0x69:
            _ = try reader.number(4)
            parts.append("i:\(Int64(bitPattern: try reader.number(8)))")
        case 0x72:
            _ = try reader.number(4)
            parts.append("r:\(String(try reader.number(8), radix: 16))")
        case let tag:
            let size = Int(try reader.number(4))
            let bytes = Array(reader.bytes[reader.offset..<reader.offset + size])
            try reader.skip(size)
            parts.append(
                tag == 0x73 ? "t:" + String(decoding: bytes, as: UTF8.self)
                    : "x:" + bytes.map { String($0, radix: 16) }.joined(separator: ","))
        }
    }
    return parts.joined(separator: "|")
}

func showCells(_ row: [UInt8], columns: Int) throws -> String { try show([0, UInt8(columns)] + row) }

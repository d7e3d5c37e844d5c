import BridgeCore
import Foundation
import Testing

@testable import BridgeJournal

/// A directory that goes away with its owner.
final class ScratchDirectory: Sendable {
    let path: String

    /// In memory where the system offers that: these tests make thousands of directories.
    init() {
        let memory = URL(fileURLWithPath: "/dev/shm")
        let parent =
            FileManager.default.isWritableFile(atPath: memory.path) ? memory : FileManager.default.temporaryDirectory
        path = parent.appendingPathComponent("bridge-journal-\(UUID().uuidString)").path
        try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }
}

func bytes(ofFile path: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }

func write(_ bytes: [UInt8], toFile path: String) throws { try Data(bytes).write(to: URL(fileURLWithPath: path)) }

/// The segments in a directory, in order.
func segmentNames(_ directory: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: directory).filter { $0.hasSuffix(".lz4") }.sorted()
}

extension JournalBinding {
    static let test = JournalBinding(
        link: "shop-users", direction: .forward, identity: "database=4f1d\nepoch=1", origin: Position(commit: 10))
}

/// Numbers that come again with the seed.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// The environment variable's seed, or a new one; printed, so that a failure can be had again.
    static func named(_ test: String) -> (generator: SeededGenerator, seed: UInt64) {
        let seed =
            ProcessInfo.processInfo.environment["BRIDGE_TEST_SEED"].flatMap { UInt64($0) }
            ?? UInt64.random(in: 0...99_999)
        print("\(test): BRIDGE_TEST_SEED=\(seed)")
        return (SeededGenerator(seed: seed), seed)
    }
}

/// Rounds of a fuzz test: a short default, or what the environment asks for.
func fuzzRounds(_ standard: Int) -> Int {
    ProcessInfo.processInfo.environment["BRIDGE_TEST_ROUNDS"].flatMap { Int($0) } ?? standard
}

extension Relation {
    static func test(_ id: UInt32, columns: Int = 2) -> Relation {
        Relation(
            id: id, engine: EngineName(rawValue: "sqlite"), form: .canonical, name: TableName(name: "table\(id)"),
            identity: .key,
            columns: [Column(name: "id", isKey: true, typeName: "INTEGER", type: .int64)]
                + (1..<columns).map { Column(name: "c\($0)", isKey: false, typeName: "TEXT", type: .text) })
    }
}

extension RecordBuffer {
    func appendInsert(_ relation: UInt32, id: Int64, text: [UInt8]) {
        let start = beginRow(.insert, relation: relation)
        beginRowImage(columns: 2)
        appendCell(integer: id)
        text.withUnsafeBytes { appendCell(.string, $0) }
        endRecord(start)
    }

    func appendBegin(_ position: UInt64, transaction: UInt64 = 0) {
        appendBegin(
            TransactionStart(
                transaction: transaction, position: Position(commit: position),
                commitTime: Timestamp(microseconds: Int64(position) * 1000)))
    }

    func appendCommit(_ position: UInt64, changes: UInt64) {
        appendCommit(
            TransactionEnd(
                position: Position(commit: position), end: position + 1,
                commitTime: Timestamp(microseconds: Int64(position) * 1000), changes: changes))
    }

    /// A whole transaction of inserts into relation 1, whose rows tell which they are.
    func appendTransaction(_ position: UInt64, rows: Int = 1, size: Int = 8) {
        appendBegin(position)
        for row in 0..<rows {
            appendInsert(1, id: Int64(position) * 1000 + Int64(row), text: [UInt8](repeating: 0x61, count: size))
        }
        appendCommit(position, changes: UInt64(rows))
    }

    var array: [UInt8] { Array(bytes) }
}

/// What a run of records holds, as far as tests compare it.
struct DecodedRecords: Equatable {
    var commits: [UInt64] = []
    var records = 0
    var rows = 0
    var begins: [UInt64] = []
    var kinds: [RecordKind] = []

    init(_ buffer: RecordBuffer) throws {
        var cursor = RecordCursor(buffer.bytes)
        while let record = try cursor.next() {
            records += 1
            kinds.append(record.kind)
            switch record.kind {
            case .begin: begins.append(try record.transactionStart().position.commit)
            case .commit: commits.append(try record.transactionEnd().position.commit)
            case .insert, .update, .delete, .upsert, .remove:
                _ = try RowChange(record)
                rows += 1
            default: break
            }
        }
    }
}

extension JournalReader {
    /// Everything up to the present end.
    func readAll() async throws -> RecordBuffer {
        let buffer = RecordBuffer()
        while try await read(into: buffer, limit: 1 << 20) > 0 {}
        return buffer
    }
}

func openJournal(
    _ directory: ScratchDirectory, _ binding: JournalBinding = .test, segmentBytes: Int64 = 64 << 20,
    blockBytes: Int = 512 << 10, budgetBytes: Int64? = nil, files: any JournalFiles = SystemFiles()
) async throws -> JournalWriter {
    try await JournalWriter.open(
        JournalDirectory(path: directory.path, files: files), binding: binding,
        options: JournalOptions(exactSegmentBytes: segmentBytes, blockBytes: blockBytes, budgetBytes: budgetBytes))
}

extension JournalOptions {
    /// Sizes as small as a test wants them.
    init(exactSegmentBytes: Int64, blockBytes: Int, budgetBytes: Int64?) {
        self.init(budgetBytes: budgetBytes)
        segmentBytes = exactSegmentBytes
        self.blockBytes = blockBytes
    }
}

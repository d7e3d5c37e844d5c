package import BridgeCore

// Signatures only, so that others can compile against them; replaced one by one.

package actor JournalWriter {
    package static func open(
        directory: String, binding: JournalBinding, options: JournalOptions = JournalOptions()
    ) async throws(BridgeError) -> JournalWriter {
        throw BridgeError(.internalFault, "the journal is not built yet")
    }
    package func write(_ records: RecordBuffer) async throws(BridgeError) -> JournalEnd {
        throw BridgeError(.internalFault, "the journal is not built yet")
    }
    package nonisolated func sync() async throws(BridgeError) -> JournalEnd {
        throw BridgeError(.internalFault, "the journal is not built yet")
    }
    package nonisolated func append(_ records: RecordBuffer) async throws(BridgeError) -> JournalEnd {
        throw BridgeError(.internalFault, "the journal is not built yet")
    }
    package nonisolated var written: JournalEnd {
        JournalEnd(lastCommit: nil, frontier: .zero, isInsideTransaction: false, records: 0, segment: 0, offset: 0)
    }
    package nonisolated var durable: JournalEnd { written }
    package nonisolated var bytesOnDisk: Int64 { 0 }
    /// Bytes on disk in relation to the budget; 0 without a budget.
    package nonisolated var budgetUsed: Double { 0 }
    package nonisolated func makeReader(after position: Position) async throws(BridgeError) -> JournalReader {
        throw BridgeError(.internalFault, "the journal is not built yet")
    }
    package func removeSegments(
        appliedThrough: Position, olderThan: Timestamp
    ) async throws(BridgeError) -> [String] { [] }
    package func close() async {}
}

package actor JournalReader {
    package static func open(
        directory: String, after position: Position = .zero
    ) async throws(BridgeError) -> JournalReader {
        throw BridgeError(.internalFault, "the journal is not built yet")
    }
    package nonisolated let relations: [UInt32: Relation] = [:]
    package func read(into buffer: RecordBuffer, limit: Int) async throws(BridgeError) -> Int { 0 }
    package func waitForData(patience: Duration) async -> Bool { false }
    package func close() async {}
}

package struct JournalSegmentSummary: Hashable, Sendable {
    package var number: UInt64
    package var file: String
    package var bytes: UInt64
    package var uncompressedBytes: UInt64
    package var blocks: UInt64
    package var firstRecord: UInt64
    package var records: UInt64
    package var transactions: UInt64
    package var firstCommit: Position?
    package var lastCommit: Position?
    package var firstWritten: Timestamp
    package var lastWritten: Timestamp
    package var isClosed: Bool
}

package struct JournalProblem: Hashable, Sendable {
    package var file: String
    package var offset: UInt64
    /// One sentence, without row values.
    package var what: String
}

package enum JournalInspector {
    package enum DumpFormat: String, Sendable { case json, debezium }
    package static func list(directory: String) async throws(BridgeError) -> [JournalSegmentSummary] { [] }
    package static func verify(directory: String) async throws(BridgeError) -> [JournalProblem] { [] }
    package static func dump(
        directory: String, format: DumpFormat, emit: @Sendable (String) throws(BridgeError) -> Void
    ) async throws(BridgeError) {}
}

package import BridgeCore

// Signatures only, so that others can compile against them; replaced one by one.

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

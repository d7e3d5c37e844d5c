package import BridgeCore

/// One segment of a journal, for `journal list`.
package struct JournalSegmentSummary: Hashable, Sendable {
    package var number: UInt64
    /// Name without the directory.
    package var file: String
    package var bytes: UInt64
    /// Of the records in it.
    package var uncompressedBytes: UInt64
    package var blocks: UInt64
    package var firstRecord: UInt64
    package var records: UInt64
    package var transactions: UInt64
    /// Of the commit records in it; nil if there is none.
    package var firstCommit: Position?
    package var lastCommit: Position?
    package var frontier: Position
    package var firstWritten: Timestamp
    package var lastWritten: Timestamp
    package var isClosed: Bool
    /// Where a torn tail begins that the next opening for writing will cut off.
    package var tornAt: UInt64?
}

/// Something that ``JournalInspector/verify(directory:)`` found.
package struct JournalProblem: Hashable, Sendable {
    package enum Severity: String, Sendable {
        /// The journal cannot be used.
        case damage
        /// As a crash, or a writer at work, leaves it; the next opening for writing mends it.
        case tornTail = "torn_tail"
    }
    package var severity: Severity
    package var file: String
    package var offset: UInt64
    /// One sentence, without row values.
    package var what: String
}

/// Looks at a journal without a database and without its lock. Changes nothing.
package enum JournalInspector {
    package enum DumpFormat: String, CaseIterable, Sendable {
        /// One object a record, as it stands.
        case json
        /// One Debezium change event a row of every committed transaction.
        case debezium
    }

    /// What the journal is bound to.
    /// - Throws: as ``list(directory:)``.
    package static func binding(directory: String) async throws(BridgeError) -> JournalBinding {
        let catalog = try await catalog(directory)
        guard let first = catalog.segments.first else { throw missing(directory) }
        return first.header.binding
    }

    /// The segments in order, from headers and footers; the last one is walked through if it is not finished.
    /// - Throws: `journalMissing`, `journalDamaged`, `journalForeign`, `journalVersion`.
    package static func list(directory: String) async throws(BridgeError) -> [JournalSegmentSummary] {
        let catalog = try await catalog(directory)
        return catalog.segments.map { entry in
            JournalSegmentSummary(
                number: entry.number, file: JournalFileName.segment(entry.number), bytes: entry.fileBytes,
                uncompressedBytes: entry.recordBytes, blocks: entry.blocks, firstRecord: entry.start.records,
                records: entry.end.records &- entry.start.records, transactions: entry.commits,
                firstCommit: entry.firstCommit.map { Position(commit: $0) },
                lastCommit: entry.commits > 0 ? entry.end.lastCommit?.position : nil,
                frontier: max(entry.header.binding.origin, Position(commit: entry.end.frontier)),
                firstWritten: entry.firstWritten, lastWritten: entry.lastWritten, isClosed: entry.isClosed,
                tornAt: entry.number == catalog.segments.last?.number ? catalog.tornAt : nil)
        }
    }

    /// Reads every byte and holds it against the format's invariants.
    /// - Returns: what is wrong, at most one problem a segment; empty for a sound journal.
    /// - Throws: `journalMissing`, `inputOutput`.
    package static func verify(directory: String) async throws(BridgeError) -> [JournalProblem] {
        try await JournalThread(name: "journal-verify").run { () throws(BridgeError) in
            var verifier = JournalVerifier(JournalDirectory(path: directory, files: SystemFiles()))
            return try verifier.run()
        }
    }

    /// Prints the journal, a line of JSON at a time, without line breaks. Damage ends it with an error behind the last
    /// sound record.
    package static func dump(
        directory: String, format: DumpFormat, emit: @Sendable (String) throws(BridgeError) -> Void
    ) async throws(BridgeError) {
        switch format {
        case .json:
            let reader = try await JournalReader.open(directory: directory)
            var dump = RecordDump(relations: reader.relations)
            try await forEachRecord(reader) { record throws(BridgeError) in try emit(dump.line(record)) }
        case .debezium:
            // What a transaction that was abandoned holds never happened; that is known only behind it.
            let first = try await JournalReader.open(directory: directory)
            var void = VoidTransactions()
            try await forEachRecord(first) { record throws(BridgeError) in void.see(record) }
            void.finish()
            let reader = try await JournalReader.open(directory: directory)
            var dump = DebeziumDump(
                link: try await binding(directory: directory).link, relations: reader.relations, void: void)
            try await forEachRecord(reader) { record throws(BridgeError) in try dump.lines(record, emit) }
        }
    }

    private static func forEachRecord(
        _ reader: JournalReader, _ body: (RecordView) throws(BridgeError) -> Void
    ) async throws(BridgeError) {
        let buffer = RecordBuffer()
        while true {
            buffer.removeAll()
            guard try await reader.read(into: buffer, limit: 1 << 20) > 0 else { break }
            var cursor = RecordCursor(buffer.bytes)
            while let record = try cursor.next() { try body(record) }
        }
        await reader.close()
    }

    private static func catalog(_ directory: String) async throws(BridgeError) -> SegmentCatalog {
        try await JournalThread(name: "journal-list").run { () throws(BridgeError) in
            let catalog = try SegmentCatalog.read(
                JournalDirectory(path: directory, files: SystemFiles()), binding: nil)
            guard !catalog.segments.isEmpty else { throw missing(directory) }
            return catalog
        }
    }

    static func missing(_ directory: String) -> BridgeError {
        BridgeError(.journalMissing, "there is no journal", context: [.init(.file, directory)])
    }
}

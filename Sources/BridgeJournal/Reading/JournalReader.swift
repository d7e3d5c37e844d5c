package import BridgeCore

/// Reads a journal's records from some position on, and follows its writer.
///
/// Apart from relation, frontier and message records, the first record delivered is a `begin`, and every transaction
/// behind the asked position is delivered. Transactions at or before it can come as well where the journal got them
/// later (a target that was ahead of the journal when that was cut off); the caller skips those. Abandoned transactions
/// are delivered as they stand. What a segment repeats is not delivered.
package actor JournalReader {
    private nonisolated let executor: ThreadExecutor
    package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// The relations that are known before the first record delivered. It does not change as records are read.
    package nonisolated let relations: [UInt32: Relation]

    let shared: JournalShared
    let files: any JournalFiles
    private let id: UInt64
    private let decompressor: FrameDecompressor

    private var file: SegmentFile?
    private var segment: UInt64
    private var offset: UInt64
    /// The checksum of the block before, and the number of the next record.
    private var checksum: UInt32
    private var nextRecord: UInt64
    /// Bytes of the first block that belong to what was asked to be passed over.
    private var skippedBytes: Int
    private var failure: BridgeError?

    /// Opens a journal that no writer in this process has: to dump it, to look at it. What is written later is not
    /// seen.
    /// - Parameter position: zero for everything that the journal still has, even if retention has removed the
    ///   beginning of its first transaction.
    /// - Throws: `journalMissing` if there is none, or no longer what stands behind `position`; `journalDamaged`.
    package static func open(
        directory: String, after position: Position = .zero
    ) async throws(BridgeError) -> JournalReader {
        let directory = JournalDirectory(path: directory, files: SystemFiles())
        let thread = JournalThread(name: "journal-read")
        let catalog = try await thread.run { () throws(BridgeError) in
            let catalog = try SegmentCatalog.read(directory, binding: nil)
            guard !catalog.segments.isEmpty else {
                throw BridgeError(.journalMissing, "there is no journal", context: [.init(.file, directory.path)])
            }
            return catalog
        }
        guard let first = catalog.segments.first else {
            throw BridgeError(.journalMissing, "there is no journal", context: [.init(.file, directory.path)])
        }
        let shared = JournalShared(catalog.segments, binding: first.header.binding, activeFile: nil)
        shared.close()
        return try await open(
            shared, files: directory.files, after: position == .zero ? nil : position, thread: thread)
    }

    static func open(
        _ shared: JournalShared, files: any JournalFiles, after position: Position?,
        thread: JournalThread = JournalThread(name: "journal-read")
    ) async throws(BridgeError) -> JournalReader {
        let id = shared.addReader()
        do throws(BridgeError) {
            let start = try await thread.run { () throws(BridgeError) in
                try ReadingStart.find(after: position, in: shared.segments, files: files)
            }
            shared.reader(id, needs: start.segment)
            return try JournalReader(shared, files, id, start, executor: thread.executor)
        } catch {
            shared.removeReader(id)
            throw error
        }
    }

    private init(
        _ shared: JournalShared, _ files: any JournalFiles, _ id: UInt64, _ start: ReadingStart,
        executor: ThreadExecutor
    ) throws(BridgeError) {
        self.executor = executor
        self.shared = shared
        self.files = files
        self.id = id
        decompressor = try FrameDecompressor()
        relations = start.relations
        segment = start.segment
        offset = start.offset
        checksum = start.predecessor
        nextRecord = start.firstRecord
        skippedBytes = start.skippedBytes
    }

    deinit { shared.removeReader(id) }

    /// Appends whole blocks of records until `limit` bytes or more were appended, or there is no more at present.
    /// - Returns: how many bytes were appended; 0 at the present end.
    /// - Throws: `journalDamaged` with file and offset. What was appended before stays and is sound; every later call
    ///   throws the same.
    package func read(into buffer: RecordBuffer, limit: Int) async throws(BridgeError) -> Int {
        if let failure { throw failure }
        let before = buffer.count
        do throws(BridgeError) {
            while buffer.count - before < limit {
                guard let extent = shared.extent(ofSegment: segment) else {
                    throw BridgeError(.journalMissing, "segment \(segment) was removed while it was being read")
                }
                if offset < extent.dataEnd {
                    try readBlocks(into: buffer, upTo: extent.dataEnd, limit: limit - (buffer.count - before))
                } else if let next = extent.next {
                    try enter(next)
                } else {
                    break
                }
            }
        } catch {
            failure = error
            // What is sound is handed over first; the next call tells.
            guard buffer.count > before else { throw error }
        }
        return buffer.count - before
    }

    /// Waits until the writer has written more than was read.
    /// - Returns: true as soon as it has; false after `patience`, when the task is cancelled, or when the journal is
    ///   closed or has no writer in this process.
    package func waitForData(patience: Duration) async -> Bool {
        await shared.waitForRecords(beyond: nextRecord, patience: patience)
    }

    /// Lets go of the segments. The reader cannot be used afterwards.
    package func close() async {
        file = nil
        failure = failure ?? BridgeError(.internalFault, "the journal's reader is closed")
        shared.removeReader(id)
    }

    private func enter(_ next: SegmentEntry) throws(BridgeError) {
        guard next.header.predecessor == checksum, next.start.records == nextRecord else {
            throw .damaged(next.path, 0, "the segment does not follow the one before it")
        }
        file = nil
        segment = next.number
        offset = next.headerBytes
        checksum = next.headerChecksum
        shared.reader(id, needs: segment)
    }

    private func readBlocks(into buffer: RecordBuffer, upTo end: UInt64, limit: Int) throws(BridgeError) {
        let file = try openFile()
        let before = buffer.count
        while offset < end, buffer.count - before < limit {
            let block = try file.block(
                at: offset, segment: segment, limit: end, predecessor: checksum, firstRecord: nextRecord)
            if skippedBytes > 0 {
                let whole = RecordBuffer()
                try decode(block, file, into: whole)
                buffer.append(UnsafeRawBufferPointer(rebasing: whole.bytes.dropFirst(skippedBytes)))
                skippedBytes = 0
            } else if !block.descriptor.flags.contains(.repeats) {
                try decode(block, file, into: buffer)
            }
            offset = block.descriptor.nextOffset
            checksum = block.checksum
            nextRecord = block.descriptor.end.records
        }
    }

    private func decode(_ block: StoredBlock, _ file: SegmentFile, into buffer: RecordBuffer) throws(BridgeError) {
        guard let count = Int(exactly: block.descriptor.recordBytes),
            decompressor.decompress(block.frame, count: count, into: buffer)
        else { throw .damaged(file.path, block.descriptor.offset, "a block's data cannot be decompressed") }
    }

    private func openFile() throws(BridgeError) -> SegmentFile {
        if let file { return file }
        guard let entry = shared.entry(ofSegment: segment) else {
            throw BridgeError(.journalMissing, "segment \(segment) was removed while it was being read")
        }
        let opened = try SegmentFile(entry.path, files: files)
        file = opened
        return opened
    }
}

package import BridgeCore

/// Writes a journal. One in a process and one on a machine for each directory: a lock sees to it.
///
/// After a failing write or sync every later call throws the same error, and ``durable`` stays where it was; the
/// journal has to be opened again, which finds out what the disk has.
package actor JournalWriter {
    private nonisolated let executor: ThreadExecutor
    package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private nonisolated let shared: JournalShared
    private nonisolated let syncer: JournalSyncer
    private nonisolated let directory: JournalDirectory
    private nonisolated let options: JournalOptions
    private let state: StateFile
    private let builder: SegmentBuilder
    private let compressor: FrameCompressor
    private let output = RecordBuffer(capacity: 1 << 20)

    private var lock: JournalLock?
    private var relations: RelationTable
    private var file: OpenFile
    /// Behind the last block that was written.
    private var end: StreamState
    private var segment: UInt64
    private var offset: UInt64
    private var checksum: UInt32

    /// Opens a journal, making it where there is none.
    ///
    /// A torn tail is cut off, and a transaction that the end of the journal leaves open is closed with an abandon
    /// record.
    /// - Throws: `journalForeign` if it is bound to something else; `journalLocked` if somebody writes it;
    ///   `journalDamaged` with file and offset; `journalVersion`; `diskFull`; `inputOutput`.
    package static func open(
        directory: String, binding: JournalBinding, options: JournalOptions = JournalOptions()
    ) async throws(BridgeError) -> JournalWriter {
        try await open(JournalDirectory(path: directory, files: SystemFiles()), binding: binding, options: options)
    }

    static func open(
        _ directory: JournalDirectory, binding: JournalBinding, options: JournalOptions
    ) async throws(BridgeError) -> JournalWriter {
        let thread = JournalThread(name: "journal-write")
        let started = try await thread.run { () throws(BridgeError) -> StartedJournal in
            try StartedJournal(JournalRecovery.recover(directory, binding: binding), binding, options)
        }
        let writer = try JournalWriter(started, binding, options, executor: thread.executor)
        try await writer.closeOpenTransaction()
        return writer
    }

    private init(
        _ started: StartedJournal, _ binding: JournalBinding, _ options: JournalOptions, executor: ThreadExecutor
    ) throws(BridgeError) {
        self.executor = executor
        self.options = options.withinBudget
        directory = started.recovered.directory
        state = started.recovered.state
        lock = started.recovered.lock
        relations = started.recovered.relations
        builder = started.builder
        compressor = try FrameCompressor()
        shared = JournalShared(started.segments, binding: binding, activeFile: started.file)
        syncer = JournalSyncer(shared: shared, files: directory.files, state: state)
        file = started.file
        end = started.last.end
        segment = started.last.number
        offset = started.last.fileBytes
        checksum = started.last.lastChecksum
    }

    /// Where the journal ends for readers in this process.
    package nonisolated var written: JournalEnd { shared.written }
    /// What survives a crash.
    package nonisolated var durable: JournalEnd { shared.durable }
    /// Bytes of all segments.
    package nonisolated var bytesOnDisk: Int64 { shared.bytesOnDisk }
    /// Bytes on disk in relation to the budget; 0 without a budget. From 1 on, ``write(_:)`` refuses.
    package nonisolated var budgetUsed: Double {
        guard let budget = options.budgetBytes else { return 0 }
        return Double(bytesOnDisk) / Double(max(1, budget))
    }

    /// Writes whole records. Readers in this process see them at once; they are not durable yet.
    ///
    /// Begins and commits must nest, positions must rise, and a commit must state as many changes (row and truncate
    /// records) as there were since its begin.
    /// - Parameter exceedingBudget: writes even if the budget is used up. For the rest of a transaction without which
    ///   nothing that is in the journal could ever be applied and removed.
    /// - Throws: `recordMalformed` and `journalBudget`, with nothing written and the journal still usable; `diskFull`
    ///   and `inputOutput`, after which it is not.
    package func write(_ records: RecordBuffer, exceedingBudget: Bool = false) async throws(BridgeError) -> JournalEnd {
        try checkUsable()
        if !exceedingBudget, let budget = options.budgetBytes, bytesOnDisk >= budget {
            throw BridgeError(
                .journalBudget, "the journal has \(bytesOnDisk) bytes and may have \(budget)",
                context: [.init(.file, directory.path)])
        }
        return try writeWithinBudget(records)
    }

    /// Returns when everything that was written before the call is durable. Runs beside ``write(_:)``; callers at the
    /// same time share syncs.
    /// - Throws: `diskFull`, `inputOutput`; then nothing can be written any more.
    package nonisolated func sync() async throws(BridgeError) -> JournalEnd {
        try await syncer.sync(upTo: shared.written)
    }

    /// ``write(_:)``, then ``sync()``.
    package nonisolated func append(
        _ records: RecordBuffer, exceedingBudget: Bool = false
    ) async throws(BridgeError) -> JournalEnd {
        let end = try await write(records, exceedingBudget: exceedingBudget)
        return try await syncer.sync(upTo: end)
    }

    /// A reader of every transaction behind `position`: see ``JournalReader``.
    /// - Throws: `journalMissing` if retention has removed some of them; `journalDamaged`.
    package nonisolated func makeReader(after position: Position) async throws(BridgeError) -> JournalReader {
        try await JournalReader.open(shared, files: directory.files, after: position)
    }

    /// Removes segments from the oldest on, as far as all of these hold: every transaction with a record in it is
    /// committed at or before `appliedThrough`, or void; it was finished before `olderThan`; no open reader needs it;
    /// it is not the last.
    /// - Parameter appliedThrough: the target's durable checkpoint.
    /// - Returns: the names of the files removed.
    package func removeSegments(
        appliedThrough: Position, olderThan: Timestamp
    ) async throws(BridgeError) -> [String] {
        try checkUsable()
        try releaseLastSegment(appliedThrough: appliedThrough)
        let segments = shared.segments
        let removable = Retention.removable(
            segments, appliedThrough: appliedThrough, olderThan: olderThan,
            neededByReaders: shared.firstNeededByReaders)
        guard !removable.isEmpty, removable.count < segments.count else { return [] }
        let firstKept = segments[removable.count].number
        // Stated durably first: a segment that is missing is then known to have been removed.
        try state.update(synchronize: true) { $0.firstSegment = firstKept }
        var removed: [String] = []
        for entry in removable {
            try Failpoint.journalRetention.hit()
            try directory.files.remove(entry.path)
            removed.append(JournalFileName.segment(entry.number))
        }
        try directory.files.synchronizeDirectory(directory.path)
        shared.removeSegments(before: firstKept)
        return removed
    }

    /// Makes what was written durable if that is still possible, ends all waiting and releases the lock.
    package func close() async {
        guard lock != nil else { return }
        if shared.failure == nil { _ = try? await sync() }
        try? state.update(synchronize: true) { _ in }
        shared.fail(BridgeError(.internalFault, "the journal is closed"))
        shared.close()
        lock = nil
    }
}

// MARK: Writing

extension JournalWriter {
    private func checkUsable() throws(BridgeError) {
        if let failure = shared.failure { throw failure }
    }

    /// The source sends a transaction again that a crash cut off; what there is of it is void.
    private func closeOpenTransaction() async throws(BridgeError) {
        guard end.openTransaction != nil else { return }
        let records = RecordBuffer()
        records.appendAbandon()
        let written = try writeWithinBudget(records)
        _ = try await syncer.sync(upTo: written)
    }

    private func writeWithinBudget(_ records: RecordBuffer) throws(BridgeError) -> JournalEnd {
        let bytes = records.bytes
        let plans = try RecordScanner.plan(bytes, state: end, known: relations, blockBytes: options.blockBytes)
        do throws(BridgeError) {
            for plan in plans {
                if offset >= UInt64(clamping: options.segmentBytes) { try beginNextSegment() }
                try write(plan, of: bytes)
            }
        } catch {
            shared.fail(error)
            throw error
        }
        return shared.written
    }

    private func write(_ plan: BlockPlan, of records: UnsafeRawBufferPointer) throws(BridgeError) {
        // A segment that was begun on the way has repeated records, which count.
        var shifted = plan
        shifted.firstRecord = end.records
        shifted.end.records = end.records &+ UInt64(plan.records)
        let (block, blockChecksum) = try BlockEncoder.encode(
            shifted, of: records, segment: segment, offset: offset, predecessor: checksum,
            durableBytes: shared.durableBytes(ofSegment: segment), compressor, into: output)
        try Failpoint.journalBeforeWrite.hit()
        do throws(BridgeError) {
            try directory.files.write(output.bytes, to: file, at: offset)
        } catch {
            // Half a block may be there. Recovery would cut it off; a full disk has the room back at once.
            try? directory.files.truncate(file, to: offset)
            throw error
        }
        try Failpoint.journalAfterWrite.hit()
        for range in plan.relations { relations.insert(UnsafeRawBufferPointer(rebasing: records[range])) }
        end = block.end
        offset = block.nextOffset
        checksum = blockChecksum
        shared.publish(block, checksum: blockChecksum)
    }

    /// Begins another segment where the budget is used up and everything is applied, so that the last one can go as
    /// well: otherwise nothing could ever be removed, nor written again.
    private func releaseLastSegment(appliedThrough position: Position) throws(BridgeError) {
        guard budgetUsed >= 1, let last = shared.entry(ofSegment: segment), last.commits > 0,
            end.openTransaction == nil, let commit = end.lastPosition, commit <= position.commit
        else { return }
        do throws(BridgeError) {
            try beginNextSegment()
        } catch {
            shared.fail(error)
            throw error
        }
    }

    /// Finishes the segment and makes it durable before its successor gets its name: a torn tail is only ever in the
    /// last one.
    private func beginNextSegment() throws(BridgeError) {
        guard var entry = shared.segments.last else { return }
        try SegmentCloser.close(&entry, file, directory.files)
        // Readers that need it find it in the footer; kept for all segments it would grow with the journal.
        entry.index = []
        entry.isIndexRead = false
        let (next, nextFile) = try builder.make(
            segment + 1, after: end, predecessor: checksum, relations: relations, compressor: compressor)
        file = nextFile
        end = next.end
        segment = next.number
        offset = next.fileBytes
        checksum = next.lastChecksum
        shared.publish(closed: entry, next: next, file: nextFile)
        try state.recordDurable(segment: segment, offset: offset, records: end.records)
    }
}

/// Writes footers.
enum SegmentCloser {
    /// Appends the footer and makes the whole segment durable.
    static func close(_ entry: inout SegmentEntry, _ file: OpenFile, _ files: any JournalFiles) throws(BridgeError) {
        let summary = entry.summary(closed: .now)
        try SegmentFooter.encoded(entry.index, summary).withBytes { bytes throws(BridgeError) in
            try files.write(bytes, to: file, at: entry.dataEnd)
        }
        try files.synchronize(file)
        entry.close(summary)
    }
}

import BridgeCore

/// Reads a whole journal and holds it against the invariants of the format. A segment that is damaged is left at its
/// first problem; the next one is looked at on its own.
struct JournalVerifier {
    private let directory: JournalDirectory
    private var problems: [JournalProblem] = []
    /// The segment before, as far as it could be made out.
    private var before: SegmentEntry?
    /// What most of the segments are bound to.
    private var binding: JournalBinding?
    private let records = RecordBuffer()

    init(_ directory: JournalDirectory) { self.directory = directory }

    mutating func run() throws(BridgeError) -> [JournalProblem] {
        let names = try directory.names()
        let state = try StateFile.read(directory, names: names)
        let numbers = names.compactMap(JournalFileName.number).filter { $0 >= state?.firstSegment ?? 0 }.sorted()
        guard !numbers.isEmpty || (state?.durableSegment ?? 0) > 0 else {
            throw JournalInspector.missing(directory.path)
        }
        let firstNeeded = (state?.durableSegment ?? 0) > 0 ? state?.firstSegment : nil
        binding = mostCommonBinding(numbers)
        var expected = firstNeeded ?? numbers.first ?? 0
        for number in numbers {
            reportMissing(expected, upTo: number)
            if number > expected { before = nil }
            try verifySegment(number, isLast: number == numbers.last, state)
            expected = number + 1
        }
        if let state { reportMissing(expected, upTo: state.durableSegment + 1) }
        return problems
    }

    private func mostCommonBinding(_ numbers: [UInt64]) -> JournalBinding? {
        var counts: [JournalBinding: Int] = [:]
        for number in numbers {
            let path = directory.path(of: JournalFileName.segment(number))
            // What cannot be read is reported when its turn comes.
            guard let entry = try? SegmentFile(path, files: directory.files).entry() else { continue }
            counts[entry.header.binding, default: 0] += 1
        }
        return counts.max { $0.value < $1.value }?.key
    }

    private mutating func reportMissing(_ first: UInt64, upTo end: UInt64) {
        var number = first
        while number < end {
            report(directory.path(of: JournalFileName.segment(number)), 0, "the segment is missing")
            number += 1
        }
    }

    private mutating func report(
        _ file: String, _ offset: UInt64, _ what: String, _ severity: JournalProblem.Severity = .damage
    ) {
        problems.append(JournalProblem(severity: severity, file: file, offset: offset, what: what))
    }

    /// Turns an error about the journal's contents into a problem; any other error goes on.
    private mutating func report(_ error: BridgeError, _ file: String, at offset: UInt64) throws(BridgeError) {
        switch error.code {
        case .journalDamaged, .journalForeign, .journalVersion, .recordMalformed: break
        default: throw error
        }
        let isOfFile = error.context.contains { $0.key == .file && $0.value == file }
        let place = error.context.first { $0.key == .offset }.flatMap { UInt64($0.value) }
        report(file, isOfFile ? place ?? offset : offset, error.message)
    }

    private mutating func verifySegment(_ number: UInt64, isLast: Bool, _ state: StateSlot?) throws(BridgeError) {
        let path = directory.path(of: JournalFileName.segment(number))
        let follows = before
        before = nil
        do throws(BridgeError) {
            let file = try SegmentFile(path, files: directory.files)
            let entry = try file.entry()
            try checkPlace(entry, number, after: follows)
            var summary = try file.summary(entry)
            let end: UInt64
            var tailProblem: BridgeError?
            if isLast {
                let isClosed: Bool
                (end, isClosed, tailProblem) = try verifyTail(file, entry, state)
                if !isClosed { summary = nil }
            } else if let summary {
                end = summary.footerOffset
            } else {
                end = try file.size()
            }
            let walked = try verifyBlocks(file, entry, upTo: end)
            if let tailProblem { throw tailProblem }
            if let summary { try verifyFooter(file, walked, summary) }
            if summary == nil, !isLast { throw .damaged(path, end, "a finished segment has no valid footer") }
            let size = try file.size()
            if let state, state.durableSegment == number, size < state.durableOffset {
                throw .damaged(path, size, "\(state.durableOffset) bytes were durable and fewer are there")
            }
            before = walked
        } catch {
            try report(error, path, at: 0)
        }
    }

    private func checkPlace(
        _ entry: SegmentEntry, _ number: UInt64, after follows: SegmentEntry?
    ) throws(BridgeError) {
        guard entry.number == number else {
            throw .damaged(entry.path, 0, "the file holds segment \(entry.number), not \(number)")
        }
        guard entry.header.binding == binding else {
            throw .damaged(entry.path, 0, "the segment belongs to another journal")
        }
        guard let follows else { return }
        guard entry.header.predecessor == follows.lastChecksum, entry.start == follows.end else {
            throw .damaged(entry.path, 0, "the segment does not follow the one before it")
        }
    }

    /// Where the sound blocks of the last segment end, whether its footer follows them, and what is wrong there.
    private mutating func verifyTail(
        _ file: SegmentFile, _ entry: SegmentEntry, _ state: StateSlot?
    ) throws(BridgeError) -> (end: UInt64, isClosed: Bool, problem: BridgeError?) {
        do throws(BridgeError) {
            let tail = try TailScan.walk(file, entry, state: state)
            if let tornAt = tail.tornAt {
                report(file.path, tornAt, "the segment ends in a block that was not written whole", .tornTail)
            }
            return (tail.entry.dataEnd, tail.entry.isClosed, nil)
        } catch {
            let place = error.context.first { $0.key == .offset }.flatMap { UInt64($0.value) }
            return (place ?? entry.dataEnd, false, error)
        }
    }

    /// Walks all blocks and decodes them; returns the segment as its blocks make it.
    private func verifyBlocks(
        _ file: SegmentFile, _ entry: SegmentEntry, upTo end: UInt64
    ) throws(BridgeError) -> SegmentEntry {
        var walked = entry
        var known = RelationTable()
        let decompressor = try FrameDecompressor()
        while walked.dataEnd < end {
            let offset = walked.dataEnd
            let block = try file.block(
                at: offset, segment: entry.number, limit: end, predecessor: walked.lastChecksum,
                firstRecord: walked.end.records)
            records.removeAll()
            try file.decode(block.descriptor, limit: end, decompressor, into: records)
            do throws(BridgeError) {
                try check(block.descriptor, after: walked.end, &known)
            } catch {
                throw .damaged(file.path, offset, error.message)
            }
            walked.add(block.descriptor, checksum: block.checksum)
        }
        return walked
    }

    /// Holds a block's records against the invariants and its descriptor against its records.
    private func check(
        _ block: BlockDescriptor, after state: StreamState, _ known: inout RelationTable
    ) throws(BridgeError) {
        let plans = try RecordScanner.plan(records.bytes, state: state, known: known, blockBytes: .max)
        try known.insertAll(in: records.bytes)
        try checkPayloads()
        guard let plan = plans.first, plans.count == 1, plan.records == block.records, plan.commits == block.commits,
            plan.firstCommit == block.firstCommit, plan.end == block.end,
            plan.flags == block.flags.subtracting(.repeats), block.durableBytes <= block.offset
        else { throw BridgeError(.recordMalformed, "a block's descriptor does not fit its records") }
    }

    private func checkPayloads() throws(BridgeError) {
        var cursor = RecordCursor(records.bytes)
        while let record = try cursor.next() {
            switch record.kind {
            case .relation: _ = try Relation(payload: record.payload)
            case .begin: _ = try record.transactionStart()
            case .commit: _ = try record.transactionEnd()
            case .insert, .update, .delete, .upsert, .remove: _ = try RowChange(record)
            case .truncate: _ = try record.truncation()
            case .message: _ = try record.message()
            case .frontier: _ = try record.frontier()
            case .abandon: break
            }
        }
    }

    private func verifyFooter(
        _ file: SegmentFile, _ walked: SegmentEntry, _ summary: SegmentSummary
    ) throws(BridgeError) {
        guard walked.summary(closed: summary.closed) == summary else {
            throw .damaged(file.path, summary.footerOffset, "the segment's summary does not fit its blocks")
        }
        var indexed = walked
        indexed.close(summary)
        indexed.isIndexRead = false
        try file.readIndex(&indexed)
        guard indexed.index == walked.index else {
            throw .damaged(file.path, summary.footerOffset, "the segment's index does not fit its blocks")
        }
    }
}

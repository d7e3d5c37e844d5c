import BridgeCore

/// Everything that opening a journal finds out: a header and a summary a segment, and a walk through the last one.
struct SegmentCatalog: Sendable {
    /// In order; empty only for a journal that does not exist yet.
    var segments: [SegmentEntry] = []
    var state: StateSlot?
    /// Where the last segment's torn tail begins, if it has one.
    var tornAt: UInt64?
    /// Names of files that are to be removed when the journal is opened for writing.
    var leftovers: [String] = []

    /// Reads a journal without changing anything.
    /// - Parameters:
    ///   - binding: what the journal must be bound to; nil to take what the first segment says.
    ///   - dropsCache: reads the last segment from the disk itself, after flushing it.
    /// - Throws: `journalDamaged`, `journalForeign`, `journalVersion`, `journalMissing` for a directory that is not
    ///   there.
    static func read(
        _ directory: JournalDirectory, binding: JournalBinding?, dropsCache: Bool = false
    ) throws(BridgeError) -> SegmentCatalog {
        // The state first: what it says was true before the segments were looked at.
        let names = try directory.names()
        var catalog = SegmentCatalog()
        catalog.state = try StateFile.read(directory, names: names)
        let firstNeeded = catalog.state?.firstSegment ?? 0
        var numbers: [UInt64] = []
        for name in names {
            if JournalFileName.isUnfinished(name) { catalog.leftovers.append(name) }
            guard let number = JournalFileName.number(name) else { continue }
            if number < firstNeeded { catalog.leftovers.append(name) } else { numbers.append(number) }
        }
        numbers.sort()
        try catalog.checkNumbers(numbers, directory)
        for number in numbers {
            try catalog.add(number, isLast: number == numbers.last, binding, directory, dropsCache: dropsCache)
        }
        return catalog
    }

    private func checkNumbers(_ numbers: [UInt64], _ directory: JournalDirectory) throws(BridgeError) {
        func missing(_ number: UInt64) -> BridgeError {
            .damaged(directory.path(of: JournalFileName.segment(number)), 0, "the segment is missing")
        }
        if let state, state.durableSegment > 0 {
            guard let first = numbers.first, first == state.firstSegment else { throw missing(state.firstSegment) }
        }
        for (number, next) in zip(numbers, numbers.dropFirst()) where next != number + 1 { throw missing(number + 1) }
        if let state, let last = numbers.last, last < state.durableSegment { throw missing(last + 1) }
    }

    private mutating func add(
        _ number: UInt64, isLast: Bool, _ binding: JournalBinding?, _ directory: JournalDirectory, dropsCache: Bool
    ) throws(BridgeError) {
        let file = try SegmentFile(directory.path(of: JournalFileName.segment(number)), files: directory.files)
        if isLast, dropsCache { try file.reloadFromDisk() }
        var entry = try file.entry()
        guard entry.number == number else {
            throw .damaged(file.path, 0, "the file holds segment \(entry.number), not \(number)")
        }
        let expected = binding ?? segments.first?.header.binding ?? entry.header.binding
        guard entry.header.binding == expected else { throw Self.foreign(entry, expected) }
        if let before = segments.last {
            guard entry.header.predecessor == before.lastChecksum, entry.start == before.end else {
                throw .damaged(file.path, 0, "the segment does not follow the one before it")
            }
        }
        if isLast {
            // Also one with a footer: before a successor has its name, what the footer tells of may not have reached the
            // disk although the footer has.
            let tail = try TailScan.walk(file, entry, state: state)
            entry = tail.entry
            tornAt = tail.tornAt
        } else if let summary = try file.summary(entry) {
            entry.close(summary)
            entry.isIndexRead = false
        } else {
            let size = try file.size()
            throw .damaged(
                file.path, size - min(size, UInt64(SegmentSummary.size)), "a finished segment has no valid footer")
        }
        if let state, state.durableSegment == number, entry.fileBytes < state.durableOffset {
            throw .damaged(
                file.path, entry.fileBytes, "\(state.durableOffset) bytes were durable and fewer are there")
        }
        segments.append(entry)
    }

    private static func foreign(_ entry: SegmentEntry, _ expected: JournalBinding) -> BridgeError {
        let found = entry.header.binding
        let what =
            if found.link != expected.link {
                "the journal belongs to link \(found.link), not to \(expected.link)"
            } else if found.direction != expected.direction {
                "the journal belongs to the \(found.direction.rawValue) direction"
            } else if found.identity != expected.identity {
                "the journal was captured from something else than the source"
            } else {
                "the journal begins at another position than the link"
            }
        return BridgeError(.journalForeign, what, context: [.init(.file, entry.path)])
    }
}

extension SegmentFile {
    /// Flushes the file and lets the page cache forget it: after a sync that failed, the cache may hold what the disk
    /// has not.
    func reloadFromDisk() throws(BridgeError) {
        let writable = try files.open(path, forWriting: true)
        try files.synchronize(writable)
        files.dropCache(writable)
    }

    /// Reads the segment's header.
    /// - Throws: `journalDamaged`, `journalVersion`.
    func entry() throws(BridgeError) -> SegmentEntry {
        let limit = UInt64(SegmentHeader.largestSize)
        let beginning = try bytes(at: 0, 24, limit: limit, ahead: 1024)
        guard let size = SegmentHeader.size(beginning) else {
            throw .damaged(path, 0, "the file does not begin with a segment's header")
        }
        let whole = try bytes(at: 0, size, limit: limit, ahead: 1024)
        guard whole.count == size, let header = try SegmentHeader.decode(whole, file: path) else {
            throw .damaged(path, 0, "the segment's header is not what was written")
        }
        let checksum = UInt32(bigEndian: whole.loadUnaligned(fromByteOffset: size - 4, as: UInt32.self))
        return SegmentEntry(header: header, path: path, headerBytes: UInt64(size), headerChecksum: checksum)
    }

    /// The summary at the end of the file; nil if there is none that is whole and fits.
    func summary(_ entry: SegmentEntry) throws(BridgeError) -> SegmentSummary? {
        let size = try size()
        guard size >= entry.headerBytes + UInt64(SegmentFooter.fixedSize) else { return nil }
        let bytes = try bytes(
            at: size - UInt64(SegmentSummary.size), SegmentSummary.size, limit: size, ahead: SegmentSummary.size)
        guard let summary = SegmentSummary.decode(bytes), summary.segment == entry.number,
            summary.footerOffset >= entry.headerBytes, summary.footerOffset < size,
            size - summary.footerOffset == UInt64(summary.footerBytes), summary.firstRecord == entry.start.records
        else { return nil }
        return summary
    }

    /// Reads the index of a finished segment into its entry.
    func readIndex(_ entry: inout SegmentEntry) throws(BridgeError) {
        guard !entry.isIndexRead else { return }
        guard let index = try index(from: entry.dataEnd, to: entry.fileBytes) else {
            throw .damaged(path, entry.dataEnd, "the segment's index is not what was written")
        }
        entry.index = index
        entry.isIndexRead = true
    }

    /// The index in a footer; nil if it is not what was written.
    func index(from start: UInt64, to end: UInt64) throws(BridgeError) -> [IndexEntry]? {
        guard end >= start, end - start >= UInt64(SegmentSummary.size) else { return nil }
        let limit = end - UInt64(SegmentSummary.size)
        let size = Int(clamping: limit - start)
        let bytes = try bytes(at: start, size, limit: limit, ahead: size)
        return bytes.count == size ? SegmentFooter.decodeIndex(bytes) : nil
    }
}

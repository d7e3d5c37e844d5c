import BridgeCore

/// A recovered journal that has a segment to write to.
struct StartedJournal: Sendable {
    let recovered: RecoveredJournal
    let builder: SegmentBuilder
    let segments: [SegmentEntry]
    let last: SegmentEntry
    let file: OpenFile

    /// Begins a segment where there is none that can be gone on with: in a new journal, behind a finished segment, and
    /// behind one whose sync had failed.
    init(
        _ recovered: RecoveredJournal, _ binding: JournalBinding, _ options: JournalOptions
    ) throws(BridgeError) {
        self.recovered = recovered
        let directory = recovered.directory
        builder = SegmentBuilder(directory: directory, binding: binding, blockBytes: options.blockBytes)
        var segments = recovered.segments
        if let active = recovered.file, var entry = segments.last {
            if recovered.isDistrusted {
                try SegmentCloser.close(&entry, active, directory.files)
                segments[segments.count - 1] = entry
            } else {
                // The walk through it has read what the disk has, but nothing says that a crash would leave it there.
                try directory.files.synchronize(active)
                try recovered.state.recordDurable(
                    segment: entry.number, offset: entry.fileBytes, records: entry.end.records)
                last = entry
                file = active
                self.segments = segments
                return
            }
        }
        let before = segments.last
        let (entry, made) = try builder.make(
            (before?.number ?? 0) + 1, after: before?.end ?? .beginning(binding), predecessor: before?.lastChecksum,
            relations: recovered.relations, compressor: FrameCompressor())
        segments.append(entry)
        try recovered.state.update { slot in
            slot.durableSegment = entry.number
            slot.durableOffset = entry.fileBytes
            slot.durableRecords = entry.end.records
            slot.isDistrusted = false
        }
        last = entry
        file = made
        self.segments = segments
    }
}

extension StreamState {
    /// Before the first record of a journal.
    static func beginning(_ binding: JournalBinding) -> StreamState {
        StreamState(lastCommit: nil, frontier: binding.origin.commit, openTransaction: nil, records: 0)
    }
}

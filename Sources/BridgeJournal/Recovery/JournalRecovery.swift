import BridgeCore

/// What opening a journal for writing hands to the writer.
struct RecoveredJournal: Sendable {
    let directory: JournalDirectory
    let lock: JournalLock
    let state: StateFile
    let segments: [SegmentEntry]
    /// The last segment's file; nil if that segment is finished or there is none, and a new one must be begun.
    let file: OpenFile?
    let relations: RelationTable
    /// A sync of the last segment had failed.
    let isDistrusted: Bool
}

/// Opens a journal for writing: the steps 1 to 5 of the format's recovery. Whatever is wrong is found before anything
/// is changed.
enum JournalRecovery {
    static func recover(
        _ directory: JournalDirectory, binding: JournalBinding
    ) throws(BridgeError) -> RecoveredJournal {
        try directory.create()
        let lock = try JournalLock(directory)
        let catalog = try SegmentCatalog.read(directory, binding: binding, dropsCache: true)
        let state = try StateFile(
            directory,
            continuing: catalog.state
                ?? StateSlot(
                    firstSegment: catalog.segments.first?.number ?? 1, durableSegment: 0, durableOffset: 0,
                    durableRecords: 0))
        for name in catalog.leftovers { try directory.files.remove(directory.path(of: name)) }
        if !catalog.leftovers.isEmpty { try directory.files.synchronizeDirectory(directory.path) }
        var segments = catalog.segments
        guard var last = segments.popLast() else {
            return RecoveredJournal(
                directory: directory, lock: lock, state: state, segments: [], file: nil, relations: RelationTable(),
                isDistrusted: false)
        }
        let reading = try SegmentFile(last.path, files: directory.files)
        try reading.readIndex(&last)
        let relations = try RelationSearch.relations(reading, last, before: last.dataEnd, FrameDecompressor())
        segments.append(last)
        guard !last.isClosed else {
            return RecoveredJournal(
                directory: directory, lock: lock, state: state, segments: segments, file: nil, relations: relations,
                isDistrusted: false)
        }
        let file = try directory.files.open(last.path, forWriting: true)
        if let tornAt = catalog.tornAt {
            try directory.files.truncate(file, to: tornAt)
            try directory.files.synchronize(file)
        }
        return RecoveredJournal(
            directory: directory, lock: lock, state: state, segments: segments, file: file, relations: relations,
            isDistrusted: catalog.state?.isDistrusted ?? false)
    }
}

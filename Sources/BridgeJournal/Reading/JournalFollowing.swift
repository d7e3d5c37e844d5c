package import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

extension JournalReader {
    /// Looks for what the journal's writer, in another process, has written since the journal was opened or last looked
    /// at; ``read(into:limit:)`` then goes on with it.
    ///
    /// Only whole blocks that follow their predecessors are taken in. A writer that was killed and started again cuts off
    /// nothing of these: its recovery keeps every valid block.
    /// - Throws: `journalDamaged`; `journalMissing` if retention has removed the segment that is being read.
    package func refresh() async throws(BridgeError) {
        guard var entry = shared.segments.last else { return }
        var found: [SegmentEntry] = []
        while true {
            if !entry.isClosed {
                guard exists(entry.path) else { throw removed(entry.number) }
                // A file of its own each time: the window of an older one may end in the middle of a block.
                entry = try TailScan.walk(try SegmentFile(entry.path, files: files), entry, state: nil).entry
                found.append(entry)
            }
            let next = path(ofSegment: entry.number + 1, beside: entry.path)
            guard entry.isClosed, exists(next) else { break }
            let following = try SegmentFile(next, files: files).entry()
            guard following.number == entry.number + 1, following.header.binding == shared.binding,
                following.header.predecessor == entry.lastChecksum, following.start == entry.end
            else { throw .damaged(next, 0, "the segment does not follow the one before it") }
            entry = following
            found.append(entry)
        }
        shared.extend(with: found)
    }

    private func path(ofSegment number: UInt64, beside path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return JournalFileName.segment(number) }
        return String(path[...slash]) + JournalFileName.segment(number)
    }

    private func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    private func removed(_ number: UInt64) -> BridgeError {
        BridgeError(.journalMissing, "segment \(number) was removed while it was being read")
    }
}

import BridgeCore

/// Which segments may go.
enum Retention {
    /// The longest run of segments from the oldest on that nobody needs. The last segment is never among them.
    static func removable(
        _ segments: [SegmentEntry], appliedThrough: Position, olderThan: Timestamp, neededByReaders: UInt64?
    ) -> ArraySlice<SegmentEntry> {
        var count = 0
        for (index, entry) in segments.enumerated() {
            guard entry.isClosed, index + 1 < segments.count, entry.lastWritten < olderThan,
                entry.number < neededByReaders ?? .max,
                isApplied(entry, followers: segments[(index + 1)...], appliedThrough)
            else { break }
            count = index + 1
        }
        return segments[..<count]
    }

    /// Whether all transactions with a record in the segment are committed at or before `position`. The one that is
    /// open at its end counts as applied when the first commit behind the segment is: either that is its own, or it was
    /// abandoned before.
    private static func isApplied(
        _ entry: SegmentEntry, followers: ArraySlice<SegmentEntry>, _ position: Position
    ) -> Bool {
        if let last = entry.end.lastPosition, last > position.commit { return false }
        guard entry.end.openTransaction != nil else { return true }
        guard let first = followers.lazy.compactMap(\.firstCommit).first else { return false }
        return first <= position.commit
    }
}

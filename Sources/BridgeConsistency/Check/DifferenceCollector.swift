import BridgeCore
import Synchronization

/// Takes the differences of one chunk: so many are remembered, and all go to the file that was asked for.
final class DifferenceCollector: Sendable {
    struct Found: Sendable {
        var rows: [(key: KeyImage, sample: CheckReport.Sample)] = []
        var hasMore = false
        var footprint = 0
        /// What the file may have already.
        var unwritten: [(key: KeyImage, sample: CheckReport.Sample)] = []
    }

    private static let unwrittenRows = 1000

    private let found = Mutex(Found())
    private let file: DifferenceFile?
    private let table: Int
    private let isRepeated: Bool
    private let room: Int

    /// - Parameters:
    ///   - isRepeated: whether the chunk was compared before, so that the file may have its rows.
    ///   - room: bytes that may be remembered.
    init(table: Int, file: DifferenceFile?, isRepeated: Bool = false, room: Int = .max) {
        self.table = table
        self.file = file
        self.isRepeated = isRepeated
        self.room = room
    }

    /// - Throws: `inputOutput`, `diskFull`.
    func take(_ sample: CheckReport.Sample, _ key: KeyImage) throws(BridgeError) {
        let size = SuspectSet.footprint(key, sample)
        let isFull = found.withLock { found in
            if found.rows.count < SuspectSet.mostOfTable, found.footprint + size <= room {
                found.rows.append((key, sample))
                found.footprint += size
            } else {
                found.hasMore = true
            }
            guard file != nil, isRepeated else { return false }
            found.unwritten.append((key, sample))
            return found.unwritten.count >= Self.unwrittenRows
        }
        if isFull { try writeNew() }
        if !isRepeated { try file?.write(sample, key: key, table: table) }
    }

    /// What was found, once all of it is in the file.
    func finish() throws(BridgeError) -> Found {
        try writeNew()
        return found.withLock { $0 }
    }

    private func writeNew() throws(BridgeError) {
        let rows = found.withLock { found in
            defer { found.unwritten = [] }
            return found.unwritten
        }
        try file?.writeNew(rows, table: table)
    }
}

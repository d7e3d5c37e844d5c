import BridgeCore

/// Where the next chunk of a table ends. A value type without I/O.
///
/// A chunk has as many rows as take some time, so that opening views and waiting for the journal costs little beside the
/// work, no view is held for long, and little is done again after a kill. A source that is being written to gets shorter
/// ones, with pauses between them. Where a key of one integer column leaves
/// few gaps, its end is reckoned; elsewhere the source counts its way to it.
struct ChunkPlan: Sendable, Equatable {
    /// Few at first: rows may be large, most of all where they have to be sent.
    private static let first = 50_000
    private static let firstOfServer = 400_000
    private static let range = 1_000...5_000_000
    /// Bytes that a server hashes in about the time that a chunk should take.
    private static let small: Int64 = 512 << 20
    /// One chunk says only so much about the next.
    private static let growth = 32.0
    /// With fewer rows in a range a reckoned chunk could have many times the rows that it should.
    private static let leastDensity = 0.25

    private(set) var rows: Int
    /// Whether the source was written to while the last chunk was compared.
    var isBusy = false {
        // What such a source gives in a while is learnt from below.
        didSet { if isBusy, isFirst, !isFixed { rows = min(rows, Self.first) } }
    }
    private var isFirst = true
    private let isFixed: Bool
    /// Whether the key is one integer column.
    private let hasIntegerKey: Bool
    private let estimatedRows: Int64
    /// Whether the whole table is little work for a server.
    private let isSmall: Bool
    private var rowsDone: Int64 = 0
    /// Rows for each number in the last range.
    private var density = 0.0

    /// - Parameters:
    ///   - isHashedByServer: whether rows stay on the servers.
    ///   - fixed: nil for a size that is learnt.
    init(_ layout: ComparisonLayout, isHashedByServer: Bool, fixed: Int?) {
        isFixed = fixed != nil
        rows = max(1, fixed ?? (isHashedByServer ? Self.firstOfServer : Self.first))
        let keys = layout.columns.count { $0.isKey }
        hasIntegerKey = keys == 1 && layout.keyOrder == "integer"
        estimatedRows = layout.estimatedRows ?? 0
        isSmall = isHashedByServer && layout.estimatedBytes.map { $0 <= Self.small } ?? false
    }

    /// Whether the lowest key is worth asking for.
    var wantsStart: Bool { hasIntegerKey && !isFixed }

    /// Whether the next chunk is the table's rest: so few rows should be left that twice as many would do no harm, or the
    /// whole table is small and nobody is disturbed.
    var takesRest: Bool {
        guard !isFixed else { return false }
        return isSmall && !isBusy && rowsDone == 0 || rowsDone < estimatedRows && rows >= 2 * (estimatedRows - rowsDone)
    }

    /// The end of a chunk that begins at `from`; nil if it has to be counted.
    func end(from: Int64?) -> Int64? {
        guard wantsStart, let from, density >= Self.leastDensity else { return nil }
        // The last chunk has no end, and only counting tells which is the last.
        guard Double(rowsDone) + Double(rows) < 0.9 * Double(estimatedRows) else { return nil }
        let (end, overflow) = from.addingReportingOverflow(Int64(Double(rows) / density))
        return overflow ? nil : end
    }

    /// - Parameters:
    ///   - found: how many rows there were between `from` and `to`.
    ///   - worked: how long that took.
    mutating func learn(found: Int64, from: Int64?, to: Int64?, worked: Duration) {
        rowsDone += found
        isFirst = false
        density = 0
        if let from, let to, to > from { density = min(1, Double(found) / (Double(to) - Double(from))) }
        guard !isFixed else { return }
        let wanted: Duration = isBusy ? .milliseconds(250) : .seconds(2)
        let factor = min(wanted / max(worked, .microseconds(1)), Self.growth)
        rows = min(max(Int(Double(rows) * factor), Self.range.lowerBound), Self.range.upperBound)
    }
}

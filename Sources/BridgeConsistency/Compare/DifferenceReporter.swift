import BridgeCore

/// Takes what was found row by row, fetches the rows where that is needed to say more, and adds up the outcome.
final class DifferenceReporter {
    /// A difference, or rows equal only by a policy.
    struct Finding {
        /// Nil: equal by a policy.
        var kind: CheckReport.Sample.Kind?
        var key: UInt128
        var source: Row?
        var target: Row?
        var count: Int64 = 1
    }

    /// A row by what is known of it.
    struct Row {
        var key: KeyImage
        /// The hash made here, or the server's.
        var hash: UInt128
        /// The row's size; 0 if it is not known.
        var weight: Int
    }

    private(set) var outcome = ChunkOutcome()
    private let views: (source: any ComparisonView, target: any ComparisonView)
    private let pair: TablePair
    private let limits: CompareLimits
    private let samples: SampleMaker
    private let imager: RowImager
    private let onDifference: DifferenceHandler?
    /// Whether hashes are the server's, which cannot be found again in a row that was read.
    private let isServer: Bool

    private var pending: [Finding] = []
    private var pendingWeight = 0
    private var pendingSamples: Int64 = 0
    private var largestRow: Int
    private var size: FindSize

    init(
        _ comparer: TableComparer, source: any ComparisonView, target: any ComparisonView, isServer: Bool,
        onDifference: DifferenceHandler?
    ) {
        views = (source, target)
        pair = comparer.pair
        limits = comparer.limits
        samples = comparer.sampleMaker(target)
        imager = RowImager(comparer.pair, hasher: comparer.hasher)
        self.onDifference = onDifference
        self.isServer = isServer
        size = FindSize(comparer.limits)
        // Nothing is known of the rows' sizes yet: begin with few.
        largestRow = max(1, comparer.limits.memory / 16)
    }

    func addMatching(_ count: Int64) {
        outcome.matching += count
        outcome.rowsCompared += count
    }

    /// Adds a finding. Rows equal by a policy must have been added as matching as well.
    func add(_ finding: Finding) async throws(BridgeError) {
        switch finding.kind {
        case .missing: outcome.sourceOnly += finding.count
        case .extra: outcome.targetOnly += finding.count
        case .different: outcome.mismatched += finding.count
        case nil:
            if pair.policies.singles.count == 1 { return count(pair.policies, finding.count) }
        }
        if finding.kind != nil {
            outcome.rowsCompared += finding.count
            let left = Int64(limits.samples) - Int64(outcome.samples.count) - pendingSamples
            if left < finding.count { outcome.samplesCut = true }
            if left <= 0, onDifference == nil { return }
            pendingSamples += finding.count
        }
        pending.append(finding)
        for row in [finding.source, finding.target] {
            pendingWeight += row.map { max($0.weight, $0.weight == 0 ? largestRow : 0) + $0.key.bytes.count } ?? 0
        }
        if pending.count >= limits.findBatch || pendingWeight > limits.memory / 2 { try await flush() }
    }

    /// Says all that was held back.
    func finish() async throws(BridgeError) -> ChunkOutcome {
        try await flush()
        return outcome
    }

    private func count(_ policies: EqualityPolicies, _ count: Int64) {
        for name in policies.names { outcome.equalByPolicy[name, default: 0] += count }
    }

    // MARK: Fetching

    private func needsRows(_ finding: Finding) -> Bool {
        finding.kind == nil || finding.kind == .different || samples.showValues
    }

    private func flush() async throws(BridgeError) {
        var counts: [UInt128: Int] = [:]
        var start = 0
        while start < pending.count {
            let part = pending[start..<min(pending.count, start + size.keys)]
            guard let rows = try await fetch(part) else {
                size.shrink()
                continue
            }
            try say(part, rows, &counts)
            start += part.count
            size.grow(keys: part.count, took: max(rows.source.buffer.count, rows.target.buffer.count))
        }
        pending.removeAll(keepingCapacity: true)
        pendingWeight = 0
        pendingSamples = 0
    }

    private func say(
        _ part: ArraySlice<Finding>, _ rows: (source: FoundRows, target: FoundRows), _ counts: inout [UInt128: Int]
    ) throws(BridgeError) {
        for finding in part {
            let earlier = counts[finding.key, default: 0]
            counts[finding.key] = earlier + 1
            let source = image(finding.source, finding, rows.source, rows.target, earlier)
            let target = image(finding.target, finding, rows.target, rows.source, earlier)
            // A row that cannot be found by its key differs nevertheless; only in what is then not known.
            var columns: [String] = []
            var policies = pair.policies
            if let source, let target {
                (columns, policies) = try rows.source.withImage(source) { a throws(BridgeError) in
                    try rows.target.withImage(target) { b throws(BridgeError) in try imager.differences(a, b) }
                }
            }
            if finding.kind == nil {
                count(policies, finding.count)
            } else {
                try report(finding, columns, source, target, rows)
            }
        }
    }

    private func report(
        _ finding: Finding, _ columns: [String], _ source: Range<Int>?, _ target: Range<Int>?,
        _ rows: (source: FoundRows, target: FoundRows)
    ) throws(BridgeError) {
        guard let kind = finding.kind, let key = finding.source?.key ?? finding.target?.key else { return }
        let digits = isServer ? 16 : 32
        let sample = try rows.source.withImage(source) { a throws(BridgeError) in
            try rows.target.withImage(target) { b throws(BridgeError) in
                try samples.sample(
                    kind, key: key, columns: columns,
                    sourceHash: finding.source.map { SampleMaker.text($0.hash, digits: digits) },
                    targetHash: finding.target.map { SampleMaker.text($0.hash, digits: digits) }, source: a, target: b)
            }
        }
        for _ in 0..<finding.count {
            if outcome.samples.count < limits.samples {
                outcome.samples.append(sample)
            } else if onDifference == nil {
                return
            }
            try onDifference?(sample, key)
        }
    }

    /// Where the row stands among those found; nil if it was not asked for, or not found.
    /// - Parameter earlier: how many findings with its key came before.
    private func image(
        _ row: Row?, _ finding: Finding, _ found: FoundRows, _ other: FoundRows, _ earlier: Int
    ) -> Range<Int>? {
        guard let row, needsRows(finding) else { return nil }
        return isServer ? found.range(finding.key, besides: other, earlier) : found.range(finding.key, row.hash)
    }

    /// - Returns: nil if the rows take too much.
    private func fetch(
        _ part: ArraySlice<Finding>
    ) async throws(BridgeError) -> (source: FoundRows, target: FoundRows)? {
        let wanted = part.filter(needsRows)
        let limit = part.count > 1 ? limits.findBytes : .max
        let (first, second) = (wanted.compactMap(\.source?.key), wanted.compactMap(\.target?.key))
        let buffers: (source: RecordBuffer?, target: RecordBuffer?)
        if pair.hasKey {
            let (views, pair) = (views, pair)
            buffers = try await onBothSides {
                () async throws(BridgeError) in try await findRows(views.source, pair.request(.source), first, limit: limit)
            } _: { () async throws(BridgeError) in
                try await findRows(views.target, pair.request(.target), second, limit: limit)
            }
        } else {
            // The key is the row.
            buffers = (rowBuffer(first), rowBuffer(second))
        }
        guard let source = buffers.source, let target = buffers.target else { return nil }
        let rows = (source: try FoundRows(source, imager), target: try FoundRows(target, imager))
        largestRow = max(rows.source.largest, rows.target.largest, largestRow == limits.memory / 16 ? 1 : largestRow)
        return rows
    }

    private func rowBuffer(_ keys: [KeyImage]) -> RecordBuffer {
        let buffer = RecordBuffer()
        for key in keys {
            buffer.append(bigEndian: UInt32(truncatingIfNeeded: key.bytes.count))
            key.bytes.withUnsafeBytes { buffer.append($0) }
        }
        return buffer
    }
}

/// Looks keys up, each once; nil if their rows take more than `limit` bytes.
func findRows(
    _ view: any ComparisonView, _ request: ComparisonRequest, _ keys: [KeyImage], limit: Int
) async throws(BridgeError) -> RecordBuffer? {
    let buffer = RecordBuffer()
    var seen: Set<KeyImage> = []
    let distinct = keys.filter { seen.insert($0).inserted }
    guard !distinct.isEmpty else { return buffer }
    return try await view.findRows(request, keys: distinct, into: buffer, limit: limit) == nil ? nil : buffer
}

/// Rows of a buffer by their hashes.
struct FoundRows {
    struct Found {
        var hashes: RowImager.Hashes
        var range: Range<Int>
    }

    let buffer: RecordBuffer
    private(set) var byKey: [UInt128: [Found]] = [:]
    private(set) var largest = 1

    init(_ buffer: RecordBuffer, _ imager: RowImager) throws(BridgeError) {
        self.buffer = buffer
        var offset = 0
        var found: [UInt128: [Found]] = [:]
        var size = 1
        try forEachRow(in: buffer) { image throws(BridgeError) in
            let hashes = try imager.hashes(image)
            let start = offset + 4
            offset = start + image.count
            size = max(size, image.count)
            found[hashes.key, default: []].append(Found(hashes: hashes, range: start..<offset))
        }
        byKey = found
        largest = size
    }

    func range(_ key: UInt128, _ strict: UInt128) -> Range<Int>? {
        byKey[key]?.first { $0.hashes.strict == strict }?.range
    }

    /// A row with the key; if there are several, one that the other side does not have.
    func range(_ key: UInt128, besides other: FoundRows, _ earlier: Int) -> Range<Int>? {
        guard let rows = byKey[key], rows.count > 1 || (other.byKey[key]?.count ?? 0) > 1 else {
            return byKey[key]?.first?.range
        }
        var theirs = other.byKey[key] ?? []
        let own = rows.filter { row in
            guard let index = theirs.firstIndex(where: { $0.hashes.strict == row.hashes.strict }) else { return true }
            theirs.remove(at: index)
            return false
        }
        return own.isEmpty ? rows.first?.range : own[min(earlier, own.count - 1)].range
    }

    func withImage<Answer>(
        _ range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws(BridgeError) -> Answer
    ) throws(BridgeError) -> Answer {
        try body(UnsafeRawBufferPointer(rebasing: buffer.bytes[range]))
    }

    func withImage<Answer>(
        _ range: Range<Int>?, _ body: (UnsafeRawBufferPointer?) throws(BridgeError) -> Answer
    ) throws(BridgeError) -> Answer {
        try body(range.map { UnsafeRawBufferPointer(rebasing: buffer.bytes[$0]) })
    }
}

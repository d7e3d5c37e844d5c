import BridgeCore

/// Compares a chunk by hashes that both servers make in the same way.
///
/// A listing's hash is 64 bits wide and a digest's sum is of these, extended in a way that is the servers' affair; so
/// where sums are reckoned with here, it is modulo 2 to the 64.
struct ServerComparison {
    let comparer: TableComparer
    let chunk: Chunk
    let reporter: DifferenceReporter

    private var pair: TablePair { comparer.pair }

    /// The disputed rows of one side.
    private struct Disputed: Sendable {
        var keys: Set<UInt128> = []
        /// Those within the bounds.
        var count: UInt64 = 0
        var sum: UInt64 = 0
        /// Whether it is known of all which are within.
        var isDecided = true
    }

    private struct Listing: Sendable {
        var side: DifferenceSide
        /// All rows, the disputed ones included.
        var count: UInt64 = 0
        var sum: UInt64 = 0
        /// Without the disputed ones.
        var kept: Int64 = 0
    }

    func run() async throws(BridgeError) {
        let disputed = try await disputedRows()
        let excluded = disputed.source.keys.union(disputed.target.keys)
        guard disputed.source.isDecided && disputed.target.isDecided && (pair.hasKey || excluded.isEmpty) else {
            try await list(buckets: 1, [0], excluded, try await digests(1))
            return
        }
        let whole = try await digests(1)
        let (a, b) = (whole.source[0], whole.target[0])
        let rows = a.count &- disputed.source.count
        if excluded.isEmpty {
            if a == b { return reporter.addMatching(Int64(truncatingIfNeeded: rows)) }
        } else if rows == b.count &- disputed.target.count,
            UInt64(truncatingIfNeeded: a.sum) &- disputed.source.sum
                == UInt64(truncatingIfNeeded: b.sum) &- disputed.target.sum
        {
            return reporter.addMatching(Int64(truncatingIfNeeded: rows))
        }
        var buckets = 1
        while buckets < 4096, UInt64(buckets) * 1024 < max(a.count, b.count) { buckets *= 2 }
        let parts = buckets == 1 ? whole : try await digests(buckets)
        let differing = Set((0..<buckets).filter { parts.source[$0] != parts.target[$0] })
        // None, if only the taking out of disputed rows made the sums differ: then all are looked at.
        let wanted = differing.isEmpty ? Set(0..<buckets) : differing
        let kept = try await list(buckets: buckets, wanted, excluded, parts)
        reporter.addMatching(max(0, Int64(truncatingIfNeeded: rows) - kept))
    }

    // MARK: Digests

    private func digests(_ buckets: Int) async throws(BridgeError) -> (source: [RowDigest], target: [RowDigest]) {
        let result = try await onBothSides { [chunk] () async throws(BridgeError) in
            try await chunk.source.digest(chunk.sourceRequest, buckets: buckets)
        } _: { [chunk] () async throws(BridgeError) in
            try await chunk.target.digest(chunk.targetRequest, buckets: buckets)
        }
        guard result.source.count == buckets, result.target.count == buckets else {
            throw BridgeError(.internalFault, "a digest has another number of buckets than was asked for")
        }
        return result
    }

    // MARK: Disputed keys

    private func disputedRows() async throws(BridgeError) -> (source: Disputed, target: Disputed) {
        guard !chunk.disputed.isEmpty else { return (Disputed(), Disputed()) }
        var found = try await onBothSides { [comparer, chunk] () async throws(BridgeError) in
            try await Self.find(comparer, chunk.source, chunk.sourceRequest, chunk.disputed)
        } _: { [comparer, chunk] () async throws(BridgeError) in
            try await Self.find(comparer, chunk.target, chunk.targetRequest, chunk.disputed)
        }
        let imager = RowImager(pair, hasher: comparer.hasher)
        found.source.keys.formUnion(chunk.disputed.map { imager.rawKeyHash($0) })
        return found
    }

    private static func find(
        _ comparer: TableComparer, _ view: any ComparisonView, _ request: ComparisonRequest, _ keys: [KeyImage]
    ) async throws(BridgeError) -> Disputed {
        var found = Disputed()
        let range = KeyRange(request)
        try await lookUp(keys, limits: comparer.limits) { batch, buffer async throws(BridgeError) in
            // Keys and hashes only: no more than was given.
            try await view.findHashes(request, keys: Array(batch), into: buffer)
            return true
        } _: { _, buffer throws(BridgeError) in
            // One row can be found by two keys given, in two batches; it counts once.
            let before = found.keys
            try forEachRow(in: buffer) { image throws(BridgeError) in
                let row = try HashedKey(image, comparer)
                found.keys.insert(row.rawHash)
                guard !before.contains(row.rawHash) else { return }
                guard let isInside = range.contains(row.image) else {
                    found.isDecided = false
                    return
                }
                guard isInside else { return }
                found.count &+= 1
                found.sum &+= row.hash
            }
        }
        return found
    }

    // MARK: Listing

    /// Matches the rows of the wanted buckets.
    /// - Returns: how many rows of the source these were.
    @discardableResult
    private func list(
        buckets: Int, _ wanted: Set<Int>, _ excluded: Set<UInt128>,
        _ digests: (source: [RowDigest], target: [RowDigest])
    ) async throws(BridgeError) -> Int64 {
        let lists = try await onBothSides { [comparer, chunk] () async throws(BridgeError) in
            try await Self.list(comparer, chunk.source, chunk.sourceRequest, buckets, wanted, excluded, digests.source)
        } _: { [comparer, chunk] () async throws(BridgeError) in
            try await Self.list(comparer, chunk.target, chunk.targetRequest, buckets, wanted, excluded, digests.target)
        }
        try await DifferenceMatching(pair: pair, memory: comparer.limits.memory, reporter: reporter)
            .match(lists.source.side, lists.target.side)
        return lists.source.kept
    }

    private static func list(
        _ comparer: TableComparer, _ view: any ComparisonView, _ request: ComparisonRequest, _ buckets: Int,
        _ wanted: Set<Int>, _ excluded: Set<UInt128>, _ expected: [RowDigest]
    ) async throws(BridgeError) -> Listing {
        var listing = Listing(
            side: DifferenceSide(limit: comparer.limits.memory / 2, folder: comparer.limits.spillDirectory))
        let imager = RowImager(comparer.pair, hasher: comparer.hasher)
        let stream = try await view.openHashes(request, buckets: buckets, wanted: wanted)
        try await readAll(stream, limit: comparer.limits.readBytes) { buffer async throws(BridgeError) in
            try forEachRow(in: buffer) { image throws(BridgeError) in
                let row = try HashedKey(image, comparer)
                listing.count &+= 1
                listing.sum &+= row.hash
                guard !excluded.contains(row.rawHash) else { return }
                listing.kept += 1
                let hash = UInt128(row.hash)
                let key = try imager.keyHash(row.image)
                let entry = DifferenceEntry(key: key, strict: hash, lenient: hash, count: 1, weight: 0)
                let kept = comparer.keepsImages ? row.image.bytes : []
                kept.withUnsafeBytes { listing.side.table.add(entry, image: $0) }
            }
            if listing.side.needsSpill { try await listing.side.spill() }
        }
        // Rows are judged by the listing, so it must be a listing of what the digest told of.
        let whole = wanted.reduce(into: RowDigest()) {
            $0.count &+= expected[$1].count
            $0.sum &+= expected[$1].sum
        }
        guard listing.count == whole.count, listing.sum == UInt64(truncatingIfNeeded: whole.sum) else {
            throw BridgeError.unstableView(request.layout.table)
        }
        return listing
    }
}

/// A row of a listing of hashes.
private struct HashedKey {
    var image: KeyImage
    var hash: UInt64
    /// Of the key's cells as they stand.
    var rawHash: UInt128

    init(_ bytes: UnsafeRawBufferPointer, _ comparer: TableComparer) throws(BridgeError) {
        var reader = ByteReader(bytes)
        let row = try RowImage(&reader)
        let columns = comparer.pair.hasKey ? comparer.pair.keyIndexes.count : comparer.pair.forms.count
        // The hash is the last cell: a tag, a length, 8 bytes.
        let end = bytes.count - 13
        guard row.columnCount == columns + 1, reader.isAtEnd, end >= 2 else { throw RowImager.shapeFault }
        var cells = row.cells
        var last: Cell?
        while let cell = try cells.next() { last = cell }
        guard let value = last?.integer else { throw RowImager.shapeFault }
        let key = UnsafeRawBufferPointer(rebasing: bytes[2..<end])
        hash = UInt64(bitPattern: value)
        rawHash = comparer.hasher.hash(key)
        image = KeyImage([UInt8(truncatingIfNeeded: columns >> 8), UInt8(truncatingIfNeeded: columns)] + key)
    }
}

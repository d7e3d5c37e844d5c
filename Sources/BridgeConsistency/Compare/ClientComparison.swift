import BridgeCore

/// Compares a chunk by reading both sides. One pass sums hashes up by bucket; where a bucket differs, a second one keeps
/// its keys and hashes.
struct ClientComparison {
    let comparer: TableComparer
    let chunk: Chunk
    let reporter: DifferenceReporter

    private var pair: TablePair { comparer.pair }

    func run() async throws(BridgeError) {
        let excluded = try await excludedKeys()
        let buckets = bucketCount()
        let digests = try await onBothSides { [comparer, chunk] () async throws(BridgeError) in
            try await Self.digest(comparer, chunk.source, chunk.sourceRequest, excluded, buckets)
        } _: { [comparer, chunk] () async throws(BridgeError) in
            try await Self.digest(comparer, chunk.target, chunk.targetRequest, excluded, buckets)
        }
        var wanted = [Bool](repeating: false, count: buckets)
        var equal: UInt64 = 0
        for index in 0..<buckets {
            wanted[index] = digests.source[index] != digests.target[index]
            if !wanted[index] { equal += digests.source[index].count }
        }
        reporter.addMatching(Int64(truncatingIfNeeded: equal))
        guard wanted.contains(true) else { return }
        let listed = wanted
        let sides = try await onBothSides { [comparer, chunk] () async throws(BridgeError) in
            try await Self.list(comparer, chunk.source, chunk.sourceRequest, excluded, listed, digests.source)
        } _: { [comparer, chunk] () async throws(BridgeError) in
            try await Self.list(comparer, chunk.target, chunk.targetRequest, excluded, listed, digests.target)
        }
        try await DifferenceMatching(pair: pair, memory: comparer.limits.memory, reporter: reporter)
            .match(sides.source, sides.target)
    }

    /// Enough that one difference lists few rows, few enough to stay in the cache.
    private func bucketCount() -> Int {
        let rows = max(pair.source.estimatedRows ?? 0, pair.target.estimatedRows ?? 0)
        var count = 1024
        while count < 16_384, Int64(count) * 256 < rows { count *= 2 }
        return count
    }

    // MARK: Disputed keys

    /// Hashes of the disputed keys' images, as they stand: as given, and as either side has them.
    ///
    /// As they stand, not as they are compared: a row whose key only counts as equal to a disputed one is looked up by
    /// nobody, so it must stay in.
    private func excludedKeys() async throws(BridgeError) -> Set<UInt128> {
        guard !chunk.disputed.isEmpty else { return [] }
        let found = try await onBothSides { [comparer, chunk] () async throws(BridgeError) in
            try await Self.find(comparer, chunk.source, chunk.sourceRequest, chunk.disputed)
        } _: { [comparer, chunk] () async throws(BridgeError) in
            try await Self.find(comparer, chunk.target, chunk.targetRequest, chunk.disputed)
        }
        let imager = RowImager(pair, hasher: comparer.hasher)
        return found.source.union(found.target).union(chunk.disputed.map { imager.rawKeyHash($0) })
    }

    private static func find(
        _ comparer: TableComparer, _ view: any ComparisonView, _ request: ComparisonRequest, _ keys: [KeyImage]
    ) async throws(BridgeError) -> Set<UInt128> {
        let imager = RowImager(comparer.pair, hasher: comparer.hasher)
        var found: Set<UInt128> = []
        try await lookUp(keys, limits: comparer.limits) { batch, buffer async throws(BridgeError) in
            try await view.findRows(request, keys: Array(batch), into: buffer, limit: comparer.limits.findBytes) != nil
        } _: { _, buffer throws(BridgeError) in
            try forEachRow(in: buffer) { image throws(BridgeError) in found.insert(try imager.rawKeyHash(of: image)) }
        }
        return found
    }

    // MARK: The two passes

    private static func digest(
        _ comparer: TableComparer, _ view: any ComparisonView, _ request: ComparisonRequest, _ excluded: Set<UInt128>,
        _ buckets: Int
    ) async throws(BridgeError) -> [RowDigest] {
        let imager = RowImager(comparer.pair, hasher: comparer.hasher)
        var digests = [RowDigest](repeating: RowDigest(), count: buckets)
        try await readAll(try await view.openRows(request), limit: comparer.limits.readBytes) {
            buffer async throws(BridgeError) in
            try add(buffer, imager, excluded, to: &digests)
        }
        return digests
    }

    /// The inner loop: everything that is done to every row of a table.
    static func add(
        _ buffer: RecordBuffer, _ imager: RowImager, _ excluded: Set<UInt128>, to digests: inout [RowDigest]
    ) throws(BridgeError) {
        let mask = UInt64(digests.count - 1)
        try forEachRow(in: buffer) { image throws(BridgeError) in
            if !excluded.isEmpty, excluded.contains(try imager.rawKeyHash(of: image)) { return }
            let (bucket, hash) = try imager.first(image)
            digests[Int(bucket & mask)].add(hash)
        }
    }

    private static func list(
        _ comparer: TableComparer, _ view: any ComparisonView, _ request: ComparisonRequest, _ excluded: Set<UInt128>,
        _ wanted: [Bool], _ expected: [RowDigest]
    ) async throws(BridgeError) -> DifferenceSide {
        let imager = RowImager(comparer.pair, hasher: comparer.hasher)
        let side = DifferenceSide(limit: comparer.limits.memory / 2, folder: comparer.limits.spillDirectory)
        var digests = [RowDigest](repeating: RowDigest(), count: wanted.count)
        try await readAll(try await view.openRows(request), limit: comparer.limits.readBytes) {
            buffer async throws(BridgeError) in
            try list(buffer, imager, excluded, wanted, comparer, side, &digests)
            if side.needsSpill { try await side.spill() }
        }
        for index in wanted.indices where wanted[index] && digests[index] != expected[index] {
            throw BridgeError.unstableView(request.layout.table)
        }
        return side
    }

    private static func list(
        _ buffer: RecordBuffer, _ imager: RowImager, _ excluded: Set<UInt128>, _ wanted: [Bool],
        _ comparer: TableComparer, _ side: DifferenceSide, _ digests: inout [RowDigest]
    ) throws(BridgeError) {
        let mask = UInt64(wanted.count - 1)
        let keepsImage = comparer.keepsImages
        try forEachRow(in: buffer) { image throws(BridgeError) in
            if !excluded.isEmpty, excluded.contains(try imager.rawKeyHash(of: image)) { return }
            let (bucket, hash) = try imager.first(image)
            let index = Int(bucket & mask)
            guard wanted[index] else { return }
            digests[index].add(hash)
            let hashes = try imager.hashes(image)
            let key = keepsImage ? try imager.keyImage(of: image).bytes : []
            let entry = DifferenceEntry(
                key: hashes.key, strict: hashes.strict, lenient: hashes.lenient, count: 1, weight: image.count)
            key.withUnsafeBytes { side.table.add(entry, image: $0) }
        }
    }
}

extension TableComparer {
    /// Whether the images of differing rows' keys are needed. Without a key that would be the rows themselves.
    var keepsImages: Bool { pair.hasKey || showValues || pair.policies.singles.count > 1 }
}

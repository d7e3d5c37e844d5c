import BridgeCore

/// Looks rows up by key on both sides and compares them.
struct KeyComparison {
    let comparer: TableComparer
    let source: any ComparisonView
    let target: any ComparisonView

    private var pair: TablePair { comparer.pair }

    /// Keys given that denote the same row, so far as can be told.
    private struct Wanted {
        var key: KeyImage
        /// With canonical cells; as it is given where that cannot be told.
        var canonical: KeyImage
        /// ``RowImager/Hashes/key`` of its rows; nil if it cannot be told before they are seen.
        var hash: UInt128?
    }

    private struct Answer {
        var difference: CheckReport.Sample?
        var policies: EqualityPolicies = []
        var key: KeyImage?
    }

    func run(_ keys: [KeyImage]) async throws(BridgeError) -> [KeyOutcome] {
        var seen: Set<KeyImage> = []
        let distinct = keys.filter { seen.insert($0).inserted }
        let imager = RowImager(pair, hasher: comparer.hasher)
        var batchable: [UInt128: (key: KeyImage, name: KeyName)] = [:]
        let isFree = pair.spellsFreely(.source) || pair.spellsFreely(.target)
        var hashes: [UInt128?] = []
        var canonicals: [KeyImage] = []
        var ambiguous: Set<UInt128> = []
        for key in distinct {
            let canonical = try CanonicalKey.make(key, pair)
            let hash = try canonical.map { key throws(BridgeError) in try imager.keyHash(key) }
            hashes.append(hash)
            canonicals.append(canonical ?? key)
            guard let canonical, let hash else { continue }
            let name = try KeyName(canonical, pair)
            // Two keys that only count as equal are two rows, and so may two spellings be on a side that has both.
            if let other = batchable[hash], isFree ? other.key != canonical : other.name != name { ambiguous.insert(hash) }
            batchable[hash] = (canonical, name)
        }
        let wanted = distinct.indices.map { index in
            Wanted(
                key: distinct[index], canonical: canonicals[index], hash: hashes[index].flatMap { ambiguous.contains($0) ? nil : $0 })
        }
        var outcomes = try await outcomes(wanted, imager)
        try await search(&outcomes, imager)
        return outcomes
    }

    // MARK: By another spelling

    /// Looks through a whole side for rows that it seems to lack, where it may spell their keys in another way than the side
    /// that has them.
    private func search(_ outcomes: inout [KeyOutcome], _ imager: RowImager) async throws(BridgeError) {
        for (kind, side) in [(CheckReport.Sample.Kind.missing, ComparisonRole.target), (.extra, .source)]
        where pair.hasKey && pair.spellsFreely(side) {
            var wanted: [UInt128: [Int]] = [:]
            for (index, outcome) in outcomes.enumerated() where outcome.difference?.kind == kind {
                guard let key = outcome.canonicalKey else { continue }
                wanted[try imager.keyHash(key), default: []].append(index)
            }
            guard !wanted.isEmpty else { continue }
            for (hash, spelling) in try await spellings(of: Set(wanted.keys), on: side, imager) {
                for index in wanted[hash] ?? [] {
                    guard let key = outcomes[index].canonicalKey else { continue }
                    let found = try await findOne(
                        source: side == .source ? spelling : key, target: side == .target ? spelling : key, imager)
                    let answer = try answer(
                        outcomes[index].key, found, found.source.byKey.values.flatMap { $0 },
                        found.target.byKey.values.flatMap { $0 }, imager)
                    outcomes[index] = outcome(outcomes[index].key, answer)
                }
            }
        }
    }

    /// The keys as a side has them, out of all its keys.
    private func spellings(
        of hashes: Set<UInt128>, on side: ComparisonRole, _ imager: RowImager
    ) async throws(BridgeError) -> [UInt128: KeyImage] {
        var request = pair.request(side)
        request.layout.columns = pair.keyIndexes.map { request.layout.columns[$0] }
        request.layout.keyOrder = nil
        request.layout.serverHash = nil
        let stream = try await (side == .source ? source : target).openRows(request)
        var found: [UInt128: KeyImage] = [:]
        try await readAll(stream, limit: comparer.limits.readBytes) { buffer async throws(BridgeError) in
            try forEachRow(in: buffer) { image throws(BridgeError) in
                // A row of nothing but the key's columns is the key's image.
                let key = KeyImage(Array(image))
                let hash = try imager.keyHash(key)
                if hashes.contains(hash) { found[hash] = key }
            }
        }
        return found
    }

    // MARK: By the spelling given

    private func outcomes(_ wanted: [Wanted], _ imager: RowImager) async throws(BridgeError) -> [KeyOutcome] {
        var result = [KeyOutcome?](repeating: nil, count: wanted.count)
        let singles = wanted.indices.filter { wanted[$0].hash == nil }
        let batched = wanted.indices.filter { wanted[$0].hash != nil }
        var start = 0
        var size = FindSize(comparer.limits, rowBytes: pair.estimatedRowBytes)
        while start < batched.count {
            let batch = batched[start..<min(batched.count, start + size.keys)]
            let hashes = Set(batch.compactMap { wanted[$0].hash })
            // A key that is given in two forms is looked up once, so that no row is found twice.
            var seen: Set<KeyImage> = []
            let keys = batch.map { wanted[$0] }.filter { seen.insert($0.canonical).inserted }.map(\.key)
            guard let found = try await find(source: keys, target: keys, imager) else {
                size.shrink()
                continue
            }
            let areKnown = found.source.byKey.keys.allSatisfy(hashes.contains)
                && found.target.byKey.keys.allSatisfy(hashes.contains)
            for index in batch {
                if areKnown, let hash = wanted[index].hash {
                    let answer = try answer(
                        wanted[index].key, found, found.source.byKey[hash] ?? [], found.target.byKey[hash] ?? [], imager)
                    result[index] = outcome(wanted[index].key, answer)
                } else {
                    // A row was found by a key that it does not have as it stands: by the engine's own idea of equality.
                    result[index] = try await single(wanted[index].key, imager)
                }
            }
            start += batch.count
            size.grow(keys: batch.count, took: max(found.source.buffer.count, found.target.buffer.count))
        }
        for index in singles { result[index] = try await single(wanted[index].key, imager) }
        return result.compactMap { $0 }
    }

    private func outcome(_ key: KeyImage, _ answer: Answer) -> KeyOutcome {
        KeyOutcome(
            key: key, canonicalKey: answer.key, difference: answer.difference,
            equalByPolicy: Set(answer.policies.names))
    }

    private func single(_ key: KeyImage, _ imager: RowImager) async throws(BridgeError) -> KeyOutcome {
        let found = try await findOne(source: key, target: key, imager)
        let answer = try answer(
            key, found, found.source.byKey.values.flatMap { $0 }, found.target.byKey.values.flatMap { $0 }, imager)
        return outcome(key, answer)
    }

    private func findOne(
        source: KeyImage, target: KeyImage, _ imager: RowImager
    ) async throws(BridgeError) -> (source: FoundRows, target: FoundRows) {
        guard let found = try await find(source: [source], target: [target], imager) else {
            throw BridgeError(.internalFault, "the rows of a single key were refused for their size")
        }
        return found
    }

    /// - Returns: nil if the rows take too much.
    private func find(
        source sourceKeys: [KeyImage], target targetKeys: [KeyImage], _ imager: RowImager
    ) async throws(BridgeError) -> (source: FoundRows, target: FoundRows)? {
        if Task.isCancelled { throw BridgeError(.interrupted, "the comparison was stopped") }
        let limit = comparer.limits.findBytes
        let buffers = try await onBothSides { [pair, source] () async throws(BridgeError) in
            try await findRows(source, pair.request(.source), sourceKeys, limit: limit)
        } _: { [pair, target] () async throws(BridgeError) in
            try await findRows(target, pair.request(.target), targetKeys, limit: limit)
        }
        guard let first = buffers.source, let second = buffers.target else { return nil }
        return (try FoundRows(first, imager), try FoundRows(second, imager))
    }

    /// Compares what one key found: usually one row on either side.
    private func answer(
        _ key: KeyImage, _ found: (source: FoundRows, target: FoundRows), _ source: [FoundRows.Found],
        _ target: [FoundRows.Found], _ imager: RowImager
    ) throws(BridgeError) -> Answer {
        var left = source
        var right = target
        var answer = Answer()
        if let row = source.first {
            answer.key = try found.source.withImage(row.range) { row throws(BridgeError) in try imager.keyImage(of: row) }
        } else if let row = target.first {
            answer.key = try found.target.withImage(row.range) { row throws(BridgeError) in try imager.keyImage(of: row) }
        }
        left.removeAll { row in
            guard let index = right.firstIndex(where: { $0.hashes.strict == row.hashes.strict }) else { return false }
            right.remove(at: index)
            return true
        }
        for (position, row) in left.enumerated().reversed() {
            guard let index = right.firstIndex(where: { $0.hashes.lenient == row.hashes.lenient }) else { continue }
            answer.policies.formUnion(try differences(found, row, right[index], imager).policies)
            right.remove(at: index)
            left.remove(at: position)
        }
        guard left.first != nil || right.first != nil else { return answer }
        let (a, b) = (left.first, right.first)
        let pairs = pair.hasKey ? b : (a == nil ? b : nil)
        var columns: [String] = []
        if let a, let pairs { columns = try differences(found, a, pairs, imager).columns }
        let samples = comparer.sampleMaker(self.target)
        answer.difference = try found.source.withImage(a?.range) { left throws(BridgeError) in
            try found.target.withImage(pairs?.range) { right throws(BridgeError) in
                // The key as it stands on a side reads better than a native one.
                let shown = try (left ?? right).map { row throws(BridgeError) in try imager.keyImage(of: row) } ?? key
                return try samples.sample(
                    a == nil ? .extra : pairs == nil ? .missing : .different, key: shown, columns: columns,
                    sourceHash: a.map { SampleMaker.text($0.hashes.strict, digits: 32) },
                    targetHash: pairs.map { SampleMaker.text($0.hashes.strict, digits: 32) }, source: left, target: right)
            }
        }
        return answer
    }

    private func differences(
        _ found: (source: FoundRows, target: FoundRows), _ a: FoundRows.Found, _ b: FoundRows.Found, _ imager: RowImager
    ) throws(BridgeError) -> (columns: [String], policies: EqualityPolicies) {
        try found.source.withImage(a.range) { left throws(BridgeError) in
            try found.target.withImage(b.range) { right throws(BridgeError) in try imager.differences(left, right) }
        }
    }
}

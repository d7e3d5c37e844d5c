package import BridgeCore

/// Compares one table between two views.
///
/// The comparison is of the views, whatever they see: which keys are disputed is the caller's knowledge. Errors never
/// hold values. A view that gives different answers to the same question ends the comparison with `inconclusive`.
package struct TableComparer: Sendable {
    package let pair: TablePair
    package let limits: CompareLimits
    package let showValues: Bool
    /// What the target sees, for samples.
    let describePosition: @Sendable (ViewMark) -> String?
    /// The same for both sides, and for all chunks of a check.
    let hasher = RowHasher()

    package init(
        pair: TablePair, limits: CompareLimits = CompareLimits(), showValues: Bool = false,
        describePosition: @escaping @Sendable (ViewMark) -> String? = { _ in nil }
    ) {
        self.pair = pair
        self.limits = limits
        self.showValues = showValues
        self.describePosition = describePosition
    }

    /// Compares the rows whose first key column is at or above `from` and below `to`, without those that have a disputed
    /// key.
    /// - Parameters:
    ///   - disputed: keys as they stand in the journal, canonical or native; also more than once, and out of the range.
    ///   - onDifference: gets every difference, not only the samples.
    package func compare(
        source: any ComparisonView, target: any ComparisonView, from: KeyImage? = nil, to: KeyImage? = nil,
        disputed: [KeyImage] = [], onDifference: DifferenceHandler? = nil
    ) async throws(BridgeError) -> ChunkOutcome {
        let chunk = Chunk(
            source: source, target: target, sourceRequest: pair.request(.source, from: from, to: to),
            targetRequest: pair.request(.target, from: from, to: to), disputed: try distinctKeys(disputed))
        let reporter = DifferenceReporter(
            self, source: source, target: target, isServer: pair.method == .server, onDifference: onDifference)
        switch pair.method {
        case .client: try await ClientComparison(comparer: self, chunk: chunk, reporter: reporter).run()
        case .server: try await ServerComparison(comparer: self, chunk: chunk, reporter: reporter).run()
        }
        return try await reporter.finish()
    }

    /// Looks the rows with these keys up on both sides and compares them.
    /// - Returns: an outcome for every distinct key given, in the order given.
    package func compare(
        keys: [KeyImage], source: any ComparisonView, target: any ComparisonView
    ) async throws(BridgeError) -> [KeyOutcome] {
        try await KeyComparison(comparer: self, source: source, target: target).run(keys)
    }

    func sampleMaker(_ target: any ComparisonView) -> SampleMaker {
        SampleMaker(pair: pair, showValues: showValues, position: describePosition(target.sees))
    }

    /// Each key once. What cannot be a key of the table is an error: leaving it out would leave its row in.
    private func distinctKeys(_ keys: [KeyImage]) throws(BridgeError) -> [KeyImage] {
        var seen: Set<KeyImage> = []
        var result: [KeyImage] = []
        for key in keys where seen.insert(key).inserted {
            let count = pair.hasKey ? pair.keyIndexes.count : pair.forms.count
            try RowImager.withImage(key) { image throws(BridgeError) in
                guard image.columnCount == count else { throw RowImager.shapeFault }
            }
            result.append(key)
        }
        return result
    }
}

/// What is compared in one go.
struct Chunk: Sendable {
    let source: any ComparisonView
    let target: any ComparisonView
    let sourceRequest: ComparisonRequest
    let targetRequest: ComparisonRequest
    /// Each once.
    let disputed: [KeyImage]
}

extension BridgeError {
    /// A view that contradicts itself proves nothing.
    static func unstableView(_ table: TableName) -> BridgeError {
        BridgeError(
            .inconclusive, "a view of a table gave two different answers to the same question",
            context: [.init(.table, table.description)])
    }
}

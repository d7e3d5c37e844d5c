import BridgeCore

extension CheckSession {
    /// Keys that are looked up in one pair of views.
    private static let keysOfRound = 5_000

    /// Looks dirty and suspect keys up on both sides: at a fence until all are settled, for nothing moves there any more;
    /// otherwise until each key that was dirty at the beginning was compared once. Keys that are in use all the time never
    /// settle, and stay dirty for the fence. What was in dispute in every round is in ``uncompared``.
    func drain(untilAllSettled: Bool) async throws(BridgeError) {
        var unproven: [Int: Set<KeyImage>]?
        var idle = 0
        while true {
            try board.goOn()
            let before = dirty.count
            var left = unproven ?? Dictionary(uniqueKeysWithValues: wanted.map { ($0, Set(dirty.keys(of: $0))) })
            let leftBefore = left.values.reduce(0) { $0 + $1.count }
            try await again { () async throws(BridgeError) in left = try await self.drainRound(left) }
            let leftAfter = left.values.reduce(0) { $0 + $1.count }
            unproven = left
            uncompared = left.mapValues(\.count)
            let hasProgress = untilAllSettled ? dirty.count < before : leftAfter < leftBefore
            idle = hasProgress ? 0 : idle + 1
            let isDone = untilAllSettled ? wanted.allSatisfy { dirty.keys(of: $0).isEmpty } : leftAfter == 0
            guard !isDone, idle < (untilAllSettled ? 200 : 50) else { return }
            if !hasProgress { await board.sleep(.milliseconds(20)) }
        }
    }

    private func drainRound(_ unproven: [Int: Set<KeyImage>]) async throws(BridgeError) -> [Int: Set<KeyImage>] {
        let views = try await openViews()
        var left = unproven
        do throws(BridgeError) {
            // After the view was opened: what it holds of others' writes is recorded by now.
            try await takeForeignWrites()
            try await compareDirty(views, &left)
        } catch {
            await views.close()
            throw error
        }
        await views.close()
        state.viewSeconds = views.seconds
        return left
    }

    private func compareDirty(_ views: AlignedViews, _ unproven: inout [Int: Set<KeyImage>]) async throws(BridgeError) {
        for index in wanted where pairs[index].incomparable.isEmpty {
            guard !views.dispute.excludedTables.contains(index) else { continue }
            let excluded = views.dispute.excluded[index] ?? []
            let first = unproven[index] ?? []
            var keys = Array(first.subtracting(excluded).prefix(Self.keysOfRound))
            if keys.isEmpty { keys = Array(dirty.keys(of: index).filter { !excluded.contains($0) }.prefix(Self.keysOfRound)) }
            let comparer = makeComparer(pairs[index])
            if !keys.isEmpty { try await settle(keys, of: index, comparer, views) }
            unproven[index]?.subtract(keys)
            let suspected = suspects.keys(of: index)
            guard !suspected.isEmpty else { continue }
            let inDispute = try await canonicalExcluded(index, views)
            let clear = suspected.filter { !inDispute.contains($0) }
            let outcomes = try await comparer.compare(keys: clear, source: views.source, target: views.target)
            try writeFound(outcomes, of: index)
            for outcome in outcomes {
                if let sample = outcome.difference {
                    suspects.found(index, outcome.key, sample)
                } else {
                    // Nothing found on either side proves nothing where a row may be spelled in two ways.
                    if outcome.canonicalKey == nil, !pairs[index].hasExactKey { dirty.touchWhole(index) }
                    suspects.clear(index, outcome.key)
                }
            }
        }
    }

    private func settle(
        _ keys: [KeyImage], of index: Int, _ comparer: TableComparer, _ views: AlignedViews
    ) async throws(BridgeError) {
        let clock = ContinuousClock()
        let began = clock.now
        let unsettled = views.dispute.unsettled[index] ?? []
        let isTouchedWhole = views.dispute.unsettledTables.contains(index)
        let outcomes = try await comparer.compare(keys: keys, source: views.source, target: views.target)
        try writeFound(outcomes, of: index)
        for outcome in outcomes {
            if let sample = outcome.difference {
                // It is looked at again as a suspect, under the name that both sides share.
                suspects.found(index, outcome.canonicalKey ?? outcome.key, sample)
            } else if let key = outcome.canonicalKey {
                suspects.clear(index, key)
            }
            // The dispute covers all that was read: touches come in with the next pair of views only.
            if !unsettled.contains(outcome.key), !isTouchedWhole { dirty.settle(index, outcome.key) }
        }
        let seconds = Double((clock.now - began) / .microseconds(1)) / 1e6
        if keys.count >= 100 { state.keysPerSecond = Double(keys.count) / max(seconds, 1e-6) }
    }

    /// Rows that somebody else wrote to the target since the check began become suspects.
    private func takeForeignWrites() async throws(BridgeError) {
        guard options.mode != .sample, let side = targetSide.target else { return }
        var newest = max(state.foreignBefore, foreignSeen)
        do throws(BridgeError) {
            while true {
                let writes = try await side.foreignWrites(after: newest, limit: 10_000)
                guard let last = writes.last else { return }
                for write in writes { take(write) }
                newest = last.number
                foreignSeen = newest
            }
        } catch where error.code == .captureBroken {
            soundness.fail(.targetWatched, error.message)
        }
    }

    private func take(_ write: ForeignWrite) {
        guard let index = wanted.first(where: { pairs[$0].target.table == write.table }) else { return }
        foreignWrites += 1
        if let key = write.key { suspects.suspect(index, key) } else { dirty.touchWhole(index) }
    }
}

import BridgeCore

extension CheckSession {
    /// Keys that are looked up in one pair of views.
    private static let keysOfRound = 5_000

    /// Looks dirty and suspect keys up on both sides: at a fence until all are settled, for nothing moves there any more;
    /// otherwise until each key that was dirty at the beginning was compared once. Keys that are in use all the time never
    /// settle, and stay dirty for the fence. What was in dispute in every round is in ``uncompared``.
    /// - Parameter samples: whether the first views are used to look at some rows cell by cell as well.
    func drain(untilAllSettled: Bool, samples: Bool = false) async throws(BridgeError) {
        var unproven: [Int: Set<KeyImage>]?
        var idle = 0
        var repeats = 0
        while true {
            try board.goOn()
            let before = openKeys
            let unseenBefore = unproven == nil ? Int.max : unseenCount
            let leftBefore = unproven?.values.reduce(0) { $0 + $1.count } ?? .max
            var left = unproven ?? [:]
            let isFirst = unproven == nil
            let mayRepeat = repeats < 10
            // Behind a fence nobody is there to be spared; and an operator, or clients held back, wait for one.
            try await sparing(unless: untilAllSettled || isPreparing) { () async throws(BridgeError) in
                try await self.again { () async throws(BridgeError) in
                    left = try await self.drainRound(isFirst ? nil : left, mayDrop: mayRepeat, samples: samples && isFirst)
                }
            }
            if mayRepeat, hasChunksAgain {
                repeats += 1
                for index in wanted where !dirty.wholeTables.contains(index) { try await compareChunksAgain(index) }
            }
            // Keys that were dropped are not looked up: their chunks are compared.
            for (index, keys) in left { left[index] = keys.filter { dirty.contains(index, $0) } }
            let leftAfter = left.values.reduce(0) { $0 + $1.count }
            unproven = left
            uncompared = left.mapValues(\.count)
            for index in wanted { uncompared[index, default: 0] += Int(state.tables[index].chunks.rowsAgain) }
            let hasProgress =
                (untilAllSettled ? openKeys < before : leftAfter < leftBefore) || unseenCount < unseenBefore
            idle = hasProgress ? 0 : idle + 1
            let isDone = untilAllSettled ? openKeys == 0 : leftAfter == 0
            let isAllSeen = isDone && unseenCount == 0
            guard !isAllSeen || (repeats < 10 && hasChunksAgain), idle < (untilAllSettled ? 200 : isPreparing ? 5 : 50) else {
                return doubtUnseen()
            }
            if !hasProgress { await board.sleep(.milliseconds(20)) }
        }
    }

    /// How many keys of the tables that are looked at are dirty.
    private var openKeys: Int { wanted.reduce(0) { $0 + dirty.count(of: $1) } }

    /// How many suspects have not been looked at yet; one that was cleared meanwhile need not be.
    private var unseenCount: Int {
        unseenSuspects.reduce(0) { sum, table in
            table.value.isEmpty ? sum : sum + table.value.intersection(suspects.keys(of: table.key)).count
        }
    }

    /// What an earlier check found, and this one could not look at, is no finding of this one.
    private func doubtUnseen() {
        for (index, keys) in unseenSuspects {
            let unseen = keys.intersection(suspects.keys(of: index))
            uncompared[index, default: 0] += unseen.count
            guard mode != .full else { continue }
            for key in unseen { suspects.doubt(index, key) }
        }
    }

    private var hasChunksAgain: Bool {
        wanted.contains { !state.tables[$0].chunks.again.isEmpty && !dirty.wholeTables.contains($0) }
    }

    /// - Parameters:
    ///   - unproven: nil in the first round: all that is dirty once the journal was read.
    ///   - mayDrop: whether keys may be dropped to have their chunks compared again.
    private func drainRound(
        _ unproven: [Int: Set<KeyImage>]?, mayDrop: Bool, samples: Bool
    ) async throws(BridgeError) -> [Int: Set<KeyImage>] {
        let views = try await openViews()
        do throws(BridgeError) {
            async let read = isFenced ? readCapture() : nil
            async let origin = isFenced ? readOrigin() : nil
            // After the view was opened: what it holds of others' writes is recorded by now.
            try await takeForeignWrites()
            async let watch = isFenced ? readWatch(isProven: true) : nil
            if unproven == nil {
                let compared = wanted.filter { pairs[$0].incomparable.isEmpty }
                unseenSuspects = Dictionary(uniqueKeysWithValues: compared.map { ($0, Set(suspects.keys(of: $0))) })
            }
            if mayDrop { try dropCrowdedKeys() }
            var left = unproven ?? Dictionary(uniqueKeysWithValues: wanted.map { ($0, Set(dirty.keys(of: $0))) })
            try await compareDirty(views, &left)
            if samples { for index in wanted { try await sample(index, views) } }
            if isPreparing { try await readAhead(views) }
            // Nothing shows in the views that this could have missed.
            if let capture = await read, let origin = await origin {
                conditions = Conditions(capture: capture, origin: origin, watch: await watch)
            }
            await views.close()
            state.viewSeconds = views.seconds
            return left
        } catch {
            await views.close()
            throw error
        }
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
            let clear = try inDispute.leaving(suspected)
            let outcomes = try Self.undisputed(
                try await comparer.compare(keys: clear, source: views.source, target: views.target), inDispute)
            unseenSuspects[index]?.subtract(outcomes.map(\.key))
            try writeFound(outcomes, of: index)
            for outcome in outcomes {
                if let sample = outcome.difference {
                    // Two spellings of a key are one row.
                    let name = outcome.canonicalKey ?? outcome.key
                    if name != outcome.key { suspects.clear(index, outcome.key) }
                    suspects.found(index, name, sample)
                } else {
                    // The target's spelling found nothing: that proves nothing of a source that has others.
                    if outcome.canonicalKey == nil, pairs[index].spellsFreely(.source) { dirty.touchWhole(index) }
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
        var outcomes = try await comparer.compare(keys: keys, source: views.source, target: views.target)
        if outcomes.contains(where: { $0.difference != nil }) {
            outcomes = try Self.undisputed(outcomes, try DisputedKeys(views.dispute.excluded[index] ?? [], pairs[index]))
        }
        try writeFound(outcomes, of: index)
        for outcome in outcomes {
            if let sample = outcome.difference {
                // It is looked at again as a suspect, under the name that both sides share.
                suspects.found(index, outcome.canonicalKey ?? outcome.key, sample)
            } else if let key = outcome.canonicalKey {
                suspects.clear(index, key)
            }
            // The dispute covers all that was read: touches come in with the next pair of views only.
            guard !unsettled.contains(outcome.key), !isTouchedWhole else { continue }
            dirty.settle(index, outcome.key)
            for policy in outcome.equalByPolicy { equalByPolicy[index, default: [:]][policy, default: 0] += 1 }
        }
        let seconds = Double((clock.now - began) / .microseconds(1)) / 1e6
        if keys.count >= 100 { state.keysPerSecond = Double(keys.count) / max(seconds, 1e-6) }
    }

    /// Leaves out differences of rows that have another key than was looked up, equal to the engine (5 and 5.0), which is in
    /// dispute.
    private static func undisputed(_ outcomes: [KeyOutcome], _ disputed: DisputedKeys) throws(BridgeError) -> [KeyOutcome] {
        var result: [KeyOutcome] = []
        for outcome in outcomes {
            if outcome.difference != nil, let key = outcome.canonicalKey, try disputed.leaving([key]).isEmpty { continue }
            result.append(outcome)
        }
        return result
    }

    /// Rows that somebody else wrote to the target since the check began become suspects.
    private func takeForeignWrites() async throws(BridgeError) {
        guard mode != .sample, let side = targetSide.target else { return }
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
        // What is read once is not read again, so of a state of all tables all are taken.
        guard let index = pairs.indices.first(where: { pairs[$0].target.table == write.table }),
            options.buildsOnWhole || wanted.contains(index)
        else { return }
        if wanted.contains(index), !isServed(write.number) {
            foreignWrites += 1
            foreignNewest = write.number
        }
        guard let key = write.key else { return dirty.touchWhole(index) }
        // Without room for it, all that was compared is compared again, in views that are opened after this one.
        if !suspects.suspect(index, key) { state.tables[index].chunks.compareAllAgain() }
    }

    /// Whether the application itself made that write to the target, being served there.
    func isServed(_ number: Int64) -> Bool {
        options.servedWrites.map { $0.watch == state.watch?.identity && number <= $0.number } ?? false
    }
}

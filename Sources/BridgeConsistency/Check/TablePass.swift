import BridgeCore

extension CheckSession {
    /// Compares one table from where it stands to its end.
    func compareTable(_ index: Int) async throws(BridgeError) {
        let pair = pairs[index]
        guard pair.incomparable.isEmpty else {
            markIncomparable(index)
            state.tables[index].isDone = true
            return
        }
        state.tables[index].report.hashAlgorithm = pair.hashAlgorithm
        let comparer = makeComparer(pair)
        var plan = ChunkPlan(pair.source, isHashedByServer: pair.method == .server, fixed: options.chunkRows)
        plan.isBusy = isSourceBusy
        while !state.tables[index].isDone {
            try board.goOn()
            try await sparing { () async throws(BridgeError) in
                try await self.again { () async throws(BridgeError) in
                    try await self.compareChunk(index, comparer, &plan)
                }
                try await self.save()
            }
            plan.isBusy = isSourceBusy
        }
    }

    /// Does a piece of work, and then leaves the source alone for a while if it was written to meanwhile: of what a check
    /// takes, `1 - throttle` of a machine with two cores is the most.
    func sparing(unless isHurried: Bool = false, _ work: () async throws(BridgeError) -> Void) async throws(BridgeError) {
        let began = ContinuousClock.now
        // What was journaled before the check began says nothing of the source's load now.
        let seen = hasReadJournal ? await tail?.transactionCount ?? 0 : .max
        try await work()
        isSourceBusy = await tail?.transactionCount ?? 0 > seen
        guard isSourceBusy, !isHurried, options.throttle > 0 else { return }
        let share = max(0.02, min(1, Self.shareOfLoss * (1 - options.throttle)))
        await board.sleep((ContinuousClock.now - began) * (1 / share - 1))
    }

    /// How much of the time a check may work for each part of the throughput that it may cost: a view keeps one core of
    /// the source's at work, and those that have to serve writers besides are two or more.
    private static let shareOfLoss = 1.75

    /// Does something again that a lost connection, or a table rewritten under a view, ended.
    func again(_ body: () async throws(BridgeError) -> Void) async throws(BridgeError) {
        let deadline = ContinuousClock.now + patience
        var wait: Duration = .milliseconds(50)
        while true {
            do throws(BridgeError) { return try await body() } catch where error.code == .connectionLost {
                guard ContinuousClock.now + wait < deadline else { throw error }
                logger.info("a chunk is compared again: \(error.message)")
                await board.sleep(wait)
                try board.goOn()
                wait = min(wait * 2, .seconds(2))
            }
        }
    }

    private func compareChunk(
        _ index: Int, _ comparer: TableComparer, _ plan: inout ChunkPlan
    ) async throws(BridgeError) {
        let pair = pairs[index]
        let views = try await openViews()
        do throws(BridgeError) {
            guard !views.dispute.unsettledTables.contains(index) else {
                await views.close()
                // Emptied or altered on one side and not on the other yet; or too much is under way.
                if dirty.wholeTables.contains(index) { try restart(index) }
                try await waitForTarget(index)
                return
            }
            if dirty.wholeTables.contains(index) {
                // Both views hold what emptied or altered it: from here on the table is compared anew.
                try restart(index)
                dirty.settleWhole(index)
            }
            let from = state.tables[index].next.map { KeyImage($0) }
            let (start, to) = try await bounds(pair, from, plan, views.source)
            let clock = ContinuousClock()
            let began = clock.now
            let outcome = try await compareRange(index, from: from, to: to, comparer, views)
            let worked = clock.now - began
            await views.close()
            blockedSince = nil
            touchUnsettled(index, views)
            take(outcome, into: index)
            state.tables[index].chunks.append(to: to, rows: outcome.rowsCompared)
            state.tables[index].next = to?.bytes
            state.tables[index].isDone = to == nil
            plan.learn(found: outcome.rowsCompared, from: start, to: to?.integer, worked: worked)
        } catch {
            await views.close()
            throw error
        }
    }

    /// - Returns: the lowest number of a chunk's key, if that is a number and known, and where the chunk ends.
    private func bounds(
        _ pair: TablePair, _ from: KeyImage?, _ plan: ChunkPlan, _ view: any ComparisonView
    ) async throws(BridgeError) -> (start: Int64?, to: KeyImage?) {
        guard pair.usesRanges, !plan.takesRest else { return (nil, nil) }
        let request = pair.request(.source, from: from)
        var start = from?.integer
        if start == nil, plan.wantsStart { start = try await view.boundary(request, rows: 1)?.integer }
        if let end = plan.end(from: start) { return (start, KeyImage(integer: end)) }
        return (start, try await view.boundary(request, rows: plan.rows))
    }

    /// A table that is in dispute as a whole is waited for, but not for ever.
    private func waitForTarget(_ index: Int) async throws(BridgeError) {
        let since = blockedSince ?? .now
        blockedSince = since
        guard ContinuousClock.now - since < patience * 10 else {
            throw BridgeError(
                .serverBusy, "the target is too far behind for a table to be compared",
                context: [.init(.table, pairs[index].mapping.source.description)],
                hint: "wait until bridge status shows a small lag, then check again: it goes on from here")
        }
        await board.sleep(.milliseconds(50))
    }

    /// Compares a range and remembers what differs there; all or nothing.
    func compareRange(
        _ index: Int, from: KeyImage?, to: KeyImage?, isRepeated: Bool = false, _ comparer: TableComparer, _ views: AlignedViews
    ) async throws(BridgeError) -> ChunkOutcome {
        let mark = try differenceFile?.mark()
        do throws(BridgeError) {
            let collector = DifferenceCollector(
                table: index, file: differenceFile, isRepeated: isRepeated, room: options.memory / 8)
            let outcome = try await comparer.compare(
                source: views.source, target: views.target, from: from, to: to,
                disputed: Array(views.dispute.excluded[index] ?? []),
                onDifference: { (sample, key) throws(BridgeError) in try collector.take(sample, key) })
            let found = try collector.finish()
            for (key, sample) in found.rows { suspects.found(index, key, sample) }
            if found.hasMore { suspects.overflow(index) }
            return outcome
        } catch {
            // The range is compared again, and its rows are written again.
            if let mark { try differenceFile?.cut(to: mark) }
            throw error
        }
    }

    func makeComparer(_ pair: TablePair) -> TableComparer {
        var limits = CompareLimits()
        limits.samples = options.sampleLimit
        limits.spillDirectory = options.stateDirectory
        let source = source
        return TableComparer(pair: pair, limits: limits, showValues: options.showValues) { mark in
            guard case .before(let position) = mark else { return nil }
            return source.describe(position)
        }
    }

    private func take(_ outcome: ChunkOutcome, into index: Int) {
        state.tables[index].report.rowsCompared += outcome.rowsCompared
        state.tables[index].report.matching += outcome.matching
        state.tables[index].report.mismatched += outcome.mismatched
        state.tables[index].report.sourceOnly += outcome.sourceOnly
        state.tables[index].report.targetOnly += outcome.targetOnly
        for (policy, rows) in outcome.equalByPolicy {
            state.tables[index].report.equalByPolicy[policy, default: 0] += rows
        }
        board.add(rows: outcome.rowsCompared)
    }

    // MARK: - Samples

    /// Reads some rows of each table on both sides and compares them cell by cell.
    func sampleRows() async throws(BridgeError) {
        for index in wanted {
            try board.goOn()
            try await again { () async throws(BridgeError) in
                let views = try await self.openViews()
                do throws(BridgeError) { try await self.sample(index, views) } catch {
                    await views.close()
                    throw error
                }
                await views.close()
            }
        }
    }

    private func markIncomparable(_ index: Int) {
        let names = pairs[index].incomparable.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
        state.tables[index].report.status = .inconclusive
        state.tables[index].report.reason = "cannot be compared: " + names.joined(separator: "; ")
    }

    func sample(_ index: Int, _ views: AlignedViews) async throws(BridgeError) {
        let pair = pairs[index]
        guard pair.incomparable.isEmpty else { return markIncomparable(index) }
        guard !views.dispute.excludedTables.contains(index) else {
            guard mode == .sample else { return }
            state.tables[index].report.status = .inconclusive
            state.tables[index].report.reason = "it was being emptied or altered"
            return
        }
        // From both sides, so that a row that only one of them has may be drawn.
        // Where all rows are compared, a few show that cells are what the hashes said.
        let count = mode == .sample ? options.sampleRows : min(options.sampleRows, 200)
        let seed = sampleSeed
        let drawn = try await onBothSides { () async throws(BridgeError) in
            try await views.source.drawKeys(pair.request(.source), count: count, seed: seed)
        } _: { () async throws(BridgeError) in
            try await views.target.drawKeys(pair.request(.target), count: count, seed: seed ^ 1)
        }
        let keys = Set(drawn.source).union(drawn.target)
        let chosen = try pair.distinct(try await canonicalExcluded(index, views).leaving(keys))
        let outcomes = try await makeComparer(pair).compare(keys: chosen, source: views.source, target: views.target)
        sampleFindings[index] = nil
        try writeFound(outcomes, of: index)
        sampledRows += Int64(chosen.count)
        for outcome in outcomes {
            guard let sample = outcome.difference else { continue }
            sampleFindings[index, default: []].append(sample)
            suspects.found(index, outcome.canonicalKey ?? outcome.key, sample)
        }
        if mode == .sample {
            state.tables[index].report.rowsCompared += Int64(outcomes.count)
            state.tables[index].report.matching += Int64(outcomes.count { $0.difference == nil })
            for policy in outcomes.flatMap(\.equalByPolicy) { equalByPolicy[index, default: [:]][policy, default: 0] += 1 }
            state.tables[index].report.hashAlgorithm = "cell by cell"
            board.add(rows: Int64(outcomes.count))
        }
    }

    /// Writes what look-ups found to the file of differences, as far as it is not there.
    func writeFound(_ outcomes: [KeyOutcome], of index: Int) throws(BridgeError) {
        try differenceFile?.writeNew(
            outcomes.compactMap { outcome in outcome.difference.map { (outcome.canonicalKey ?? outcome.key, $0) } }, table: index)
    }
}

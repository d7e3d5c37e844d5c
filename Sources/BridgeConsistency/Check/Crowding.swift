import BridgeCore

/// Where so many keys were touched that comparing rows again costs less, or takes less room, than looking each one up.
extension CheckSession {
    /// Fewer dirty keys of a chunk than this are always looked up: that is one question.
    static var fewKeys: Int { 500 }

    /// The keys that were touched of a table, chunk by chunk.
    private struct Sorted {
        var chunks: [Int: [KeyImage]] = [:]
        /// Not compared yet: their turn comes.
        var ahead: [KeyImage] = []
        var unknown: [KeyImage] = []
    }

    private func sorted(_ index: Int) throws(BridgeError) -> Sorted {
        let finder = ChunkFinder(pairs[index], state.tables[index].chunks)
        var result = Sorted()
        for key in dirty.keys(of: index) {
            switch try finder.place(of: key) {
            case .chunk(let number): result.chunks[number, default: []].append(key)
            case .ahead: result.ahead.append(key)
            case .unknown: result.unknown.append(key)
            }
        }
        return result
    }

    // MARK: - Room

    /// Drops keys until those left fit into half of the memory, and has the chunks that they are in compared again.
    ///
    /// Keys in front of the first row not compared yet can go without that: what is not settled when their chunk is
    /// compared becomes dirty then.
    func makeRoom() throws(BridgeError) {
        let limit = options.memory / 2
        guard dirty.footprint > limit else { return }
        while dirty.footprint > limit / 2, let index = dirty.largest, dirty.count(of: index) > 0 {
            try makeRoom(index, min(limit / 4, dirty.footprint(of: index) / 2))
        }
        logger.info("more rows change than are looked up one by one: their chunks are compared again")
    }

    private func makeRoom(_ index: Int, _ limit: Int) throws(BridgeError) {
        let keys = try sorted(index)
        // A table that was emptied or altered is compared anew, or not at all.
        guard !dirty.wholeTables.contains(index) else { return dirty.drop(index, dirty.keys(of: index)) }
        dirty.drop(index, keys.ahead)
        for (number, of) in keys.chunks.sorted(by: { $0.value.count > $1.value.count }) {
            guard dirty.footprint(of: index) > limit else { return }
            drop(index, number, of)
        }
        if dirty.footprint(of: index) > limit { dropUnknown(index, keys.unknown) }
    }

    private func drop(_ index: Int, _ number: Int, _ keys: [KeyImage]) {
        state.tables[index].chunks.compareAgain(number)
        dirty.drop(index, keys)
    }

    /// What cannot be placed may be anywhere.
    private func dropUnknown(_ index: Int, _ keys: [KeyImage]) {
        state.tables[index].chunks.compareAllAgain()
        dirty.drop(index, keys)
    }

    // MARK: - Comparing again

    /// Drops the keys of those chunks of which more than a tenth of the rows are dirty: they are to be compared again.
    func dropCrowdedKeys() throws(BridgeError) {
        for index in wanted where pairs[index].incomparable.isEmpty && !dirty.wholeTables.contains(index) {
            guard dirty.count(of: index) >= Self.fewKeys else { continue }
            let keys = try sorted(index)
            let map = state.tables[index].chunks
            for (number, of) in keys.chunks where Self.areCrowded(of, map.rows[number]) { drop(index, number, of) }
            if Self.areCrowded(keys.unknown, map.rowsAll) { dropUnknown(index, keys.unknown) }
        }
    }

    /// Compares the chunks again whose keys were dropped.
    func compareChunksAgain(_ index: Int) async throws(BridgeError) {
        for number in state.tables[index].chunks.again.sorted() {
            try await sparing(unless: mode == .fence || isPreparing) { () async throws(BridgeError) in try await self.compareAgain(index, number) }
        }
    }

    private static func areCrowded(_ keys: [KeyImage], _ rows: Int64) -> Bool {
        keys.count >= fewKeys && Int64(keys.count) > rows / 10
    }

    private func compareAgain(_ index: Int, _ number: Int) async throws(BridgeError) {
        for attempt in 0..<20 {
            try board.goOn()
            var isDone = false
            try await again { () async throws(BridgeError) in isDone = try await self.compareOnceMore(index, number) }
            if isDone { break }
            // Another try helps only if the target catches up meanwhile. What is left stays marked.
            if attempt < 19 { await board.sleep(.milliseconds(50)) }
        }
        // Behind the fence nothing is written while the application waits.
        if !isFenced { try await save() }
    }

    /// - Returns: false if the table is in dispute as a whole.
    private func compareOnceMore(_ index: Int, _ number: Int) async throws(BridgeError) -> Bool {
        let views = try await openViews()
        do throws(BridgeError) {
            guard !views.dispute.unsettledTables.contains(index), !dirty.wholeTables.contains(index) else {
                await views.close()
                return false
            }
            let map = state.tables[index].chunks
            let outcome = try await compareRange(
                index, from: map.from(number), to: map.to(number), isRepeated: true, makeComparer(pairs[index]), views)
            await views.close()
            equalByPolicy[index, default: [:]].merge(outcome.equalByPolicy, uniquingKeysWith: +)
            state.tables[index].chunks.compared(number, rows: outcome.rowsCompared)
            touchUnsettled(index, views)
            return true
        } catch {
            await views.close()
            throw error
        }
    }

    /// As after any look, what is not settled stays dirty. It may have been dropped, so all of it is put in.
    func touchUnsettled(_ index: Int, _ views: AlignedViews) {
        for key in views.dispute.unsettled[index] ?? [] { dirty.touch(index, key) }
    }
}

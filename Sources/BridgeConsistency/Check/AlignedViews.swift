import BridgeCore

/// A view of each side, and what cannot be compared between them.
struct AlignedViews: Sendable {
    let source: any ComparisonView
    let target: any ComparisonView
    let dispute: Dispute
    /// How long opening them and reading the journal up to them took.
    let seconds: Double

    func close() async {
        await source.close()
        await target.close()
    }
}

extension CheckSession {
    /// Opens both views, then reads the journal past the end that the source's log had after they were opened: whatever
    /// either view holds, its transaction has then been read.
    func openViews() async throws(BridgeError) -> AlignedViews {
        let clock = ContinuousClock()
        let began = clock.now
        let (source, target) = try await openBoth()
        // What was read before these views were opened says nothing of what they show.
        conditions = nil
        do throws(BridgeError) {
            let end = try await self.source.currentPosition(link)
            guard let tail else { throw BridgeError(.internalFault, "the check has no journal") }
            try await pass(end, tail, (source.sees, target.sees))
            hasReadJournal = true
            let dispute = await tail.dispute(source: source.sees, target: target.sees)
            soundness.hold(.journalPassed)
            if case .before(let applied) = target.sees {
                if applied.commit < state.applied {
                    soundness.fail(.captureUninterrupted, "the target was put back to an earlier state")
                }
                state.applied = max(state.applied, applied.commit)
            }
            return AlignedViews(
                source: source, target: target, dispute: dispute,
                seconds: Double((clock.now - began) / .microseconds(1)) / 1e6)
        } catch {
            await source.close()
            await target.close()
            throw error
        }
    }

    private func openBoth() async throws(BridgeError) -> (any ComparisonView, any ComparisonView) {
        let sparing = options.throttle > 0 && isSourceBusy && mode != .fence
        async let opening = Self.opened(sourceSide, sparing)
        let target = await Self.opened(targetSide, sparing)
        let source = await opening
        switch (source, target) {
        case (.success(let source), .success(let target)): return (source, target)
        case (.success(let source), .failure(let error)):
            await source.close()
            throw error
        case (.failure(let error), .success(let target)):
            await target.close()
            throw error
        case (.failure(let error), .failure): throw error
        }
    }

    private static func opened(
        _ side: any ComparisonSession, _ sparing: Bool
    ) async -> Result<any ComparisonView, BridgeError> {
        do throws(BridgeError) { return .success(try await side.openView(sparing: sparing)) } catch { return .failure(error) }
    }

    /// Reads the journal until everything committed before `end` has been read; all that was touched is dirty.
    /// - Parameter views: two views that are open; nil if none are.
    func pass(
        _ end: Position, _ tail: JournalTail, _ views: (source: ViewMark, target: ViewMark)?
    ) async throws(BridgeError) {
        let deadline = ContinuousClock.now + patience
        var wait: Duration = .milliseconds(1)
        while true {
            while true {
                let isMore = try await tail.advance(views: views)
                for transaction in await tail.takeTouched() { dirty.touch(transaction) }
                try makeRoom()
                try board.goOn()
                if !isMore { break }
            }
            if await tail.frontier >= end { return }
            guard ContinuousClock.now < deadline else {
                throw BridgeError(
                    .serverBusy, "the journal does not reach the end of the source's log",
                    context: [.init(.migration, link.migration)],
                    hint: "see with bridge status whether bridge run is alive and keeps up, then check again")
            }
            try? await Task.sleep(for: wait)
            wait = min(wait * 2, .milliseconds(20))
        }
    }

    /// The keys in dispute, by whatever spelling: as the journal has them, and as the rows on both sides do. Suspects may be
    /// named by any of these.
    func canonicalExcluded(_ index: Int, _ views: AlignedViews) async throws(BridgeError) -> DisputedKeys {
        let keys = views.dispute.excluded[index] ?? []
        let pair = pairs[index]
        guard !keys.isEmpty else { return try DisputedKeys([], pair) }
        var found = keys
        for (view, layout, filter) in [
            (views.source, pair.source, pair.mapping.rowFilter), (views.target, pair.target, nil),
        ] {
            let request = ComparisonRequest(layout: layout, rowFilter: filter)
            found.formUnion(try await Self.keysFound(Array(keys), request, view))
        }
        return try DisputedKeys(found, pair)
    }

    /// The keys of the rows that are found by these keys.
    private static func keysFound(
        _ keys: [KeyImage], _ request: ComparisonRequest, _ view: any ComparisonView
    ) async throws(BridgeError) -> Set<KeyImage> {
        var found: Set<KeyImage> = []
        let limits = CompareLimits()
        try await lookUp(keys, limits: limits) { batch, buffer async throws(BridgeError) in
            try await view.findRows(request, keys: Array(batch), into: buffer, limit: limits.findBytes) != nil
        } _: { _, buffer throws(BridgeError) in found.formUnion(try rowKeys(buffer, request.layout)) }
        return found
    }

    /// The keys of rows that a view gave.
    static func rowKeys(_ buffer: RecordBuffer, _ layout: ComparisonLayout) throws(BridgeError) -> [KeyImage] {
        var keys: [KeyImage] = []
        let places = layout.columns.indices.filter { layout.columns[$0].isKey }
        var reader = ByteReader(buffer.bytes)
        while !reader.isAtEnd {
            do throws(ByteReader.Truncated) { _ = try reader.readInteger(UInt32.self) } catch {
                throw BridgeError.malformedRecord(at: error.offset)
            }
            let image = try RowImage(&reader)
            keys.append(try KeyExtractor.key(of: image, places: places))
        }
        return keys
    }
}

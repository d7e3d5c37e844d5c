/// The checker, as the documentation describes it.
extension Rules {
    func checkerSteps(_ world: World, _ next: (World, Move) -> Void) {
        var after = world
        let move = Move(kind: .check, step: world.step)
        switch world.step {
        case .begin:
            if begin(&after) { next(after, move) }
        case .settle:
            if holds(.settledStart), !isSettled(world) { return }
            // A capture that is not whole when it is noted is refused.
            if holds(.captureSame), !holds(.captureNotedFirst), !world.publishesDeletes { return }
            after.begin = min(world.end, world.applied)
            after.read = after.begin
            after.end = 0
            after.step = .sourceRows
            next(after, move)
        case .sourceRows:
            after.sourceRows = world.source
            if holds(.markWithRows) { markSource(&after) }
            after.step = holds(.markWithRows) ? .targetRows : .sourceMark
            next(after, move)
        case .sourceMark:
            markSource(&after)
            after.step = .targetRows
            next(after, move)
        case .targetRows:
            after.targetRows = world.target
            if holds(.markWithRows) { after.targetMark = world.applied }
            after.step = holds(.markWithRows) ? .hold : .targetMark
            next(after, move)
        case .targetMark:
            after.targetMark = world.applied
            after.step = .hold
            next(after, move)
        case .hold:
            if holds(.tableHeldBeforeEnd), scenario.kind == .snapshot {
                // Waits for whoever holds the table.
                if isAnyWriterUnderWay(world, whole: true) { return }
                after.isHolding = true
            }
            after.step = .readEnd
            next(after, move)
        case .readEnd:
            after.end = holds(.journalPassedViews) ? world.logged : 0
            after.step = .compare
            next(after, move)
        case .compare:
            guard world.journaled >= world.end else { return }
            compare(&after)
            next(after, move)
        case .idle: idleSteps(world, next)
        case .fence:
            after.isFenced = true
            after.step = .waitForWriters
            next(after, move)
        case .waitForWriters:
            if holds(.writersWaitedOut), isAnyWriterUnderWay(world) { return }
            after.step = .readFenceEnd
            next(after, move)
        case .readFenceEnd:
            after.end = world.logged
            after.step = .waitForApplier
            next(after, move)
        case .waitForApplier:
            guard world.journaled >= world.end, world.applied >= world.end else { return }
            readJournal(&after)
            after.purpose = .fence
            after.step = holds(.foreignAfterView) ? .sourceRows : .readForeign
            next(after, move)
        case .readForeign:
            readForeign(&after)
            after.step = holds(.foreignAfterView) ? .verdict : .sourceRows
            next(after, move)
        case .verdict:
            after.step = verdict(world)
            forget(&after)
            next(after, move)
        case .consistent, .inconsistent, .inconclusive: break
        }
    }

    private func isAnyWriterUnderWay(_ world: World, whole: Bool = false) -> Bool {
        scenario.operations.indices.contains {
            world.transactions[$0].isUnderWay && (!whole || world.transactions[$0].isWhole)
        }
    }

    // MARK: Beginning

    private func begin(_ world: inout World) -> Bool {
        if holds(.afterCopy), world.isCopying { return false }
        if holds(.foreignFromStart) {
            // Making the triggers waits for whoever is writing.
            if scenario.foreign.indices.contains(where: { world.foreign[$0].status == .writing }) { return false }
            world.isWatched = true
        }
        if holds(.captureSame), holds(.captureNotedFirst), !world.publishesDeletes { return false }
        world.end = world.logged
        world.step = .settle
        return true
    }

    private func isSettled(_ world: World) -> Bool {
        var entry: UInt8 = 0
        while entry < world.end {
            guard world.transactions[Int(world.log[Int(entry)])].status == .visible else { return false }
            entry += 1
        }
        return true
    }

    private func markSource(_ world: inout World) {
        world.sourceMark = 0
        for index in scenario.operations.indices where world.transactions[index].status == .visible {
            world.sourceMark |= 1 << UInt8(index)
        }
    }

    // MARK: The journal

    /// The keys that an entry of the log dirties, as far as the journal has it.
    private func dirtyKeys(_ world: World, _ entry: UInt8) -> UInt8 {
        guard world.missing & (1 << entry) == 0 else { return 0 }
        let transaction = world.transactions[Int(world.log[Int(entry)])]
        if transaction.isWhole { return holds(.wholeTableDirty) ? 3 : 0 }
        return holds(.bothKeysDirty) ? transaction.keys : transaction.keys & ~transaction.oldKeys
    }

    private func readJournal(_ world: inout World) {
        while world.read < world.journaled {
            world.dirty |= dirtyKeys(world, world.read)
            world.read += 1
        }
    }

    /// Keys of entries that not both views see. They are not settled by being equal. Left out of a comparison are, where
    /// rows are copies of what transactions wrote, only those that one view sees and the other not.
    private func disputed(_ world: World) -> (excluded: UInt8, unsettled: UInt8) {
        var excluded: UInt8 = 0
        var unsettled: UInt8 = 0
        var entry = world.purpose == .drain && !holds(.disputedFromStart) ? world.readBeforeDrain : world.begin
        let end = world.purpose == .drain && !holds(.droppedOnlyIfUntouched) ? world.end : world.read
        while entry < end {
            let number = world.log[Int(entry)]
            // Where there is one writer, the bits of the mark are a prefix of the log.
            let isSeenBySource = world.sourceMark & (1 << number) != 0
            let isSeenByTarget = entry < world.targetMark
            let keys = dirtyKeys(world, entry)
            if !isSeenBySource || !isSeenByTarget { unsettled |= keys }
            if isSeenBySource != isSeenByTarget || isSeenBySource == false && leavesTraces(world.transactions[Int(number)]) {
                excluded |= keys
            }
            entry += 1
        }
        return (excluded, unsettled)
    }

    /// Whether a view may show what a transaction did that it does not see.
    private func leavesTraces(_ transaction: Transaction) -> Bool {
        scenario.kind == .state
            ? holds(.statesDisputedUnlessInBoth) : transaction.isWhole && holds(.wholeTableAlwaysDisputed)
    }

    private func readForeign(_ world: inout World) {
        for index in scenario.foreign.indices {
            let write = world.foreign[index]
            let number = UInt8(index) + 1
            guard write.isRecorded, write.status == .committed else { continue }
            if !holds(.foreignWhole), number <= world.foreignNumber { continue }
            world.dirty |= 1 << UInt8(scenario.foreign[index].key)
        }
        for index in scenario.foreign.indices {
            let write = world.foreign[index]
            guard write.isRecorded, write.status == .committed else { continue }
            world.foreignNumber = max(world.foreignNumber, UInt8(index) + 1)
        }
        world.dirty |= world.strayRecorded
    }

    // MARK: Comparing

    private func compare(_ world: inout World) {
        guard !world.restoreIsKnown else {
            world.step = .inconclusive
            forgetViews(&world)
            return
        }
        readJournal(&world)
        let disputed = disputed(world)
        let different = world.sourceRows.difference(world.targetRows)
        switch world.purpose {
        case .firstChunk, .secondChunk:
            let chunk: UInt8 = world.purpose == .firstChunk ? 1 : 2
            let wrong = chunk & different & ~disputed.excluded
            world.mismatched |= wrong
            world.dirty |= wrong
            world.step = .idle
        case .drain:
            // Compared are the dirty keys that are not left out; equal and settled ones are done with.
            let compared = world.dirty & ~disputed.excluded
            world.mismatched = world.mismatched & ~compared | compared & different
            world.dirty &= ~(compared & ~different & ~disputed.unsettled)
            world.step = .idle
        case .fence:
            world.step = holds(.foreignAfterView) ? .readForeign : .verdict
            return
        }
        forgetViews(&world)
    }

    private func verdict(_ world: World) -> Step {
        if world.restoreIsKnown { return .inconclusive }
        if holds(.journalWhole), world.wasInterrupted { return .inconclusive }
        if holds(.captureSame) {
            if holds(.captureSameBetween) ? world.captureChanged : !world.publishesDeletes { return .inconclusive }
        }
        if holds(.fenceStands), !world.isFenced { return .inconclusive }
        return world.sourceRows.difference(world.targetRows) & world.dirty == 0 ? .consistent : .inconsistent
    }

    // MARK: Between

    private func idleSteps(_ world: World, _ next: (World, Move) -> Void) {
        var after = world
        if world.purpose == .firstChunk {
            after.purpose = .secondChunk
            after.savedDirty = world.dirty
            after.step = .sourceRows
            next(after, Move(kind: .check, step: .idle))
            return
        }
        if scenario.faults.contains(.kill), !world.wasKilled {
            after.wasKilled = true
            if !holds(.dirtySavedWithPosition) { after.dirty = world.savedDirty | world.mismatched }
            next(after, Move(kind: .killed))
        }
        after = world
        // Without the obligation the watch comes late.
        after.isWatched = true
        if world.drains < scenario.drains {
            after.drains += 1
            readForeign(&after)
            after.readBeforeDrain = world.read
            after.purpose = .drain
            after.step = .sourceRows
            next(after, Move(kind: .drains))
        }
        after = world
        after.isWatched = true
        after.step = .fence
        next(after, Move(kind: .goesToFence))
    }

    /// What will not be asked for again is forgotten, so that states fall together.
    private func forgetViews(_ world: inout World) {
        world.sourceRows = Rows(0, 0)
        world.targetRows = Rows(0, 0)
        world.sourceMark = 0
        world.targetMark = 0
        world.isHolding = false
        world.end = 0
        world.readBeforeDrain = 0
    }

    private func forget(_ world: inout World) {
        world.sourceMark = 0
        world.targetMark = 0
        world.isHolding = false
        world.end = 0
    }
}

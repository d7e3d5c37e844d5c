/// One step of somebody.
struct Move: Hashable, CustomStringConvertible {
    enum Kind: UInt8 {
        case write, logs, commitsAtOnce, becomesVisible, aborts
        case captures, misses, losesDelete, altersPublication, restoresPublication, leaseEnds
        case applies, passesOver, appliesNewKey, appliesOldKey, appliesAndStrays
        case copyEnds, copyEndsWrong
        case foreignWrites, foreignCommits, restores
        case check, killed, goesToFence, drains
    }

    var kind: Kind
    var index: UInt8 = 0
    /// The checker's step that is done.
    var step = Step.begin

    var description: String {
        switch kind {
        case .write: "source: transaction \(index) writes"
        case .logs: "source: transaction \(index)'s commit record stands in the log, no snapshot sees it yet"
        case .commitsAtOnce: "source: transaction \(index) commits"
        case .becomesVisible: "source: transaction \(index) becomes visible"
        case .aborts: "source: transaction \(index) aborts"
        case .captures: "capture: entry \(index) stands in the journal"
        case .misses: "capture: entry \(index) is lost, capture was interrupted"
        case .losesDelete: "capture: entry \(index) is a delete and is not published"
        case .altersPublication: "operator: deletes are no longer published"
        case .restoresPublication: "operator: deletes are published again"
        case .leaseEnds: "fence: its lease is over, writes go on"
        case .applies: "applier: entry \(index)"
        case .passesOver: "applier: passes over entry \(index)"
        case .appliesNewKey: "applier: of entry \(index) only the new key"
        case .appliesOldKey: "applier: of entry \(index) only the old key"
        case .appliesAndStrays: "applier: entry \(index), and writes the other key too"
        case .copyEnds: "copy: ends"
        case .copyEndsWrong: "copy: ends, with a wrong row"
        case .foreignWrites: "stranger: write \(index) on the target, not committed yet"
        case .foreignCommits: "stranger: write \(index) commits"
        case .restores: "operator: puts the target back from a backup"
        case .killed: "check: killed, and resumed"
        case .goesToFence: "check: goes to the fence"
        case .drains: "check: drains the dirty set"
        case .check: "check: \(step)"
        }
    }
}

/// The rules of the world.
struct Rules {
    let scenario: Scenario
    /// The obligation that does not hold.
    let missing: Obligation?

    func holds(_ obligation: Obligation) -> Bool { obligation != missing }

    /// Calls `next` with every state that may follow.
    func successors(of world: World, _ next: (World, Move) -> Void) {
        sourceSteps(world, next)
        guard world.step.rawValue < Step.consistent.rawValue else { return }
        captureSteps(world, next)
        applierSteps(world, next)
        strangerSteps(world, next)
        checkerSteps(world, next)
    }

    // MARK: Source

    private func sourceSteps(_ world: World, _ next: (World, Move) -> Void) {
        var mayBegin = world.step.rawValue < Step.consistent.rawValue && !world.isFenced
        for index in scenario.operations.indices {
            let transaction = world.transactions[index]
            let number = UInt8(index)
            switch transaction.status {
            case .notBegun:
                // They begin in order; other orders are other scenarios.
                if mayBegin, let begun = write(world, scenario.operations[index]) {
                    var after = world
                    after.transactions[index] = begun
                    if scenario.kind == .state {
                        // One writer: whatever is committed is seen.
                        commit(&after, index)
                        after.transactions[index].status = .visible
                        after.source.put(begun.keys, of: begun.after)
                        next(after, Move(kind: .commitsAtOnce, index: number))
                    } else {
                        next(after, Move(kind: .write, index: number))
                    }
                }
                mayBegin = false
            case .writing:
                var after = world
                commit(&after, index)
                after.transactions[index].status = .logged
                next(after, Move(kind: .logs, index: number))
                after = world
                after.transactions[index] = Transaction(status: .aborted)
                next(after, Move(kind: .aborts, index: number))
            case .logged:
                var after = world
                after.transactions[index].status = .visible
                after.source.put(transaction.keys, of: transaction.after)
                // Not kept from older snapshots: they find the table empty.
                if transaction.isWhole, world.hasSourceView { after.sourceRows = Rows(0, 0) }
                next(after, Move(kind: .becomesVisible, index: number))
            case .visible, .aborted: break
            }
        }
        if world.isFenced, !world.leaseIsOver, scenario.faults.contains(.lease),
            world.step.rawValue < Step.consistent.rawValue
        {
            var after = world
            after.isFenced = false
            after.leaseIsOver = true
            next(after, Move(kind: .leaseEnds))
        }
    }

    private func commit(_ world: inout World, _ index: Int) {
        world.log[Int(world.logged)] = UInt8(index)
        world.logged += 1
    }

    /// The transaction with its effect; nil if it has nothing to do, or waits for a lock.
    private func write(_ world: World, _ operation: Operation) -> Transaction? {
        var result = Transaction(status: .writing)
        let rows = world.source
        if world.isHolding, operation == .truncate || operation == .rewrite { return nil }
        result.after = rows
        switch operation {
        case .set(let key, let value):
            result.keys = 1 << UInt8(key)
            result.after[key] = value
        case .delete(let key):
            guard rows[key] != 0 else { return nil }
            result.keys = 1 << UInt8(key)
            result.after[key] = 0
        case .move(let key):
            guard rows[key] != 0, rows[1 - key] == 0 else { return nil }
            result.keys = 3
            result.oldKeys = 1 << UInt8(key)
            result.after = key == 0 ? Rows(0, rows[0]) : Rows(rows[1], 0)
        case .truncate, .rewrite:
            guard rows.bits != 0 else { return nil }
            result.keys = 3
            result.isWhole = true
            result.after = Rows(0, 0)
            if operation == .rewrite {
                for key in 0..<2 where rows[key] != 0 { result.after[key] = 3 - rows[key] }
            }
        }
        for index in scenario.operations.indices {
            let other = world.transactions[index]
            if other.isUnderWay, other.keys & result.keys != 0 { return nil }
        }
        // What it leaves alone is no part of it.
        var after = Rows(0, 0)
        after.put(result.keys, of: result.after)
        result.after = after
        return result
    }

    // MARK: Capture

    private func captureSteps(_ world: World, _ next: (World, Move) -> Void) {
        if scenario.faults.contains(.publication) {
            var after = world
            after.publishesDeletes.toggle()
            if world.publishesDeletes, !world.publicationWasAltered {
                after.publicationWasAltered = true
                after.captureChanged = isCaptureNoted(world)
                next(after, Move(kind: .altersPublication))
            } else if !world.publishesDeletes {
                next(after, Move(kind: .restoresPublication))
            }
        }
        guard world.journaled < world.logged else { return }
        let index = world.journaled
        let transaction = world.transactions[Int(world.log[Int(index)])]
        var after = world
        after.journaled += 1
        let isDelete = !transaction.isWhole && transaction.after.bits == 0
        if !world.publishesDeletes, isDelete {
            after.missing |= 1 << index
            after.isFaulty = true
            next(after, Move(kind: .losesDelete, index: index))
            return
        }
        // A log of keys: the row is what it is now, perhaps newer than the entry.
        after.states[Int(index)] = scenario.kind == .state ? world.source : Rows(0, 0)
        next(after, Move(kind: .captures, index: index))
        if scenario.faults.contains(.interruption), !world.isFaulty {
            after = world
            after.journaled += 1
            after.missing |= 1 << index
            after.isFaulty = true
            // What was lost before is seen by the views of both sides: it is compared.
            after.wasInterrupted = isCaptureNoted(world)
            next(after, Move(kind: .misses, index: index))
        }
    }

    /// Whether the checker would notice that capture is not what it was.
    private func isCaptureNoted(_ world: World) -> Bool {
        world.step != .begin && (world.step != .settle || holds(.captureNotedFirst))
    }

    // MARK: Applier

    private func applierSteps(_ world: World, _ next: (World, Move) -> Void) {
        if world.isCopying {
            var after = world
            after.isCopying = false
            next(after, Move(kind: .copyEnds))
            if scenario.faults.contains(.badCopy), !world.isFaulty {
                after.target[1] = world.target[1] == 2 ? 1 : 2
                after.isFaulty = true
                next(after, Move(kind: .copyEndsWrong))
            }
        }
        if scenario.faults.contains(.restore), !world.wasRestored, world.applied > 0 {
            var after = world
            after.target = scenario.target ?? scenario.source
            after.applied = 0
            after.wasRestored = true
            after.restoreIsKnown = world.step != .begin && holds(.targetNotPutBack)
            next(after, Move(kind: .restores))
        }
        guard world.applied < world.journaled else { return }
        let index = world.applied
        var passed = world
        passed.applied += 1
        guard world.missing & (1 << index) == 0 else {
            next(passed, Move(kind: .passesOver, index: index))
            return
        }
        let transaction = world.transactions[Int(world.log[Int(index)])]
        if transaction.isWhole, world.isHolding { return }
        if transaction.isWhole, scenario.kind == .snapshot, world.hasTargetView { passed.targetRows = Rows(0, 0) }
        let rows = scenario.kind == .state ? world.states[Int(index)] : transaction.after
        var after = passed
        after.target.put(transaction.keys, of: rows)
        next(after, Move(kind: .applies, index: index))
        guard !world.isFaulty else { return }
        passed.isFaulty = true
        if scenario.faults.contains(.lostApply) { next(passed, Move(kind: .passesOver, index: index)) }
        if scenario.faults.contains(.halfMove), transaction.oldKeys != 0 {
            var half = passed
            half.target.put(transaction.oldKeys, of: rows)
            next(half, Move(kind: .appliesOldKey, index: index))
            half = passed
            half.target.put(transaction.keys & ~transaction.oldKeys, of: rows)
            next(half, Move(kind: .appliesNewKey, index: index))
        }
        if scenario.faults.contains(.strayApply), transaction.keys != 3 {
            let other = transaction.keys == 1 ? 1 : 0
            after.target[other] = after.target[other] == 2 ? 1 : 2
            after.isFaulty = true
            if holds(.applierConfined) { after.strayRecorded |= 1 << UInt8(other) }
            next(after, Move(kind: .appliesAndStrays, index: index))
        }
    }

    // MARK: Strangers on the target

    private func strangerSteps(_ world: World, _ next: (World, Move) -> Void) {
        for index in scenario.foreign.indices {
            var after = world
            switch world.foreign[index].status {
            case .notBegun:
                // Numbers are given in order, so the next one waits for this one to have got its.
                after.foreign[index] = Foreign(status: .writing, isRecorded: world.isWatched)
                next(after, Move(kind: .foreignWrites, index: UInt8(index)))
                return
            case .writing:
                after.foreign[index].status = .committed
                after.target[scenario.foreign[index].key] = scenario.foreign[index].value
                after.isFaulty = true
                next(after, Move(kind: .foreignCommits, index: UInt8(index)))
            case .committed: break
            }
        }
    }
}

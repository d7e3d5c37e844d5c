@testable import BridgeCutover

extension Physics {
    /// Everything that can happen next, with a name for it.
    func successors(_ world: World) -> [(name: String, world: World)] {
        others(world) + toolMoves(world)
    }

    // MARK: Everybody else

    private func others(_ world: World) -> [(String, World)] {
        var all: [(String, World)] = []
        for side in Side.allCases {
            if world.isOpen(side), world.unsynced[side] == false {
                var next = world
                next.unsynced[side] = true
                all.append(("a client writes to the \(side.rawValue)", next))
            }
            // The forward link is always there; the reverse one once it was made.
            if world.unsynced[side] == true, side == .source || world.reverseMade {
                var next = world
                next.unsynced[side] = false
                all.append(("the link carries the \(side.rawValue)'s writes over", next))
            }
            if world.fences[side] == .leased, leaseExpires {
                var next = world
                next.set(side, .expired)
                all.append(("the fence on the \(side.rawValue) expires", next))
            }
        }
        if world.tool != .dead {
            var next = world
            next.tool = .dead
            all.append(("the tool is killed", next))
        } else if world.attempt != nil {
            var next = world
            next.tool = .idle(isOurs: false)
            all.append(("the tool is started again", next))
        } else if world.attemptsLeft > 0 {
            for goal in goals where canBegin(goal, world) {
                var next = world
                next.attemptsLeft -= 1
                next.attempt = Attempt(id: "a\(world.attemptsLeft)", goal: goal, services: ["s"], epoch: 1)
                next.tool = .idle(isOurs: true)
                all.append(("the operator begins: \(goal.rawValue)", next))
            }
        }
        return all
    }

    private func canBegin(_ goal: Attempt.Goal, _ world: World) -> Bool {
        switch goal {
        case .switchReads: world.phase == .syncing
        case .writesBack: world.phase == .writesSwitched
        case .readsBack, .switchWrites, .rehearse: world.phase == .readsSwitched
        }
    }

    // MARK: The tool

    func observation(_ world: World, _ attempt: Attempt, isOurs: Bool) -> CutoverMachine.Observation {
        func seen(_ side: Side) -> CutoverMachine.Observed {
            switch world.fences[side, default: .open] {
            case .open: .none
            case .leased: .leased
            case .expired: .expired
            case .permanent: .permanent
            }
        }
        return .init(
            attempt: attempt, fence: seen(attempt.from), destination: seen(attempt.to), isOurs: isOurs,
            isRouted: attempt.movesWriters ? world.routed == attempt.to : world.readsRouted == attempt.phaseAfter.reads)
    }

    func toolMoves(_ world: World) -> [(String, World)] {
        guard let attempt = world.attempt else { return [] }
        switch world.tool {
        case .dead: return []
        case .idle(let isOurs):
            var next = world
            next.tool = .decided(machine.next(observation(world, attempt, isOurs: isOurs)), isOurs: isOurs)
            return [("the tool looks", next)]
        case .did(let step, let isOurs):
            var next = world
            next.attempt?.done.insert(step)
            next.tool = .idle(isOurs: isOurs)
            return [("the ledger has \(step.rawValue)", next)]
        case .decided(let decision, let isOurs): return carryOut(decision, world, attempt, isOurs)
        }
    }

    private func carryOut(
        _ decision: CutoverMachine.Decision, _ world: World, _ attempt: Attempt, _ isOurs: Bool
    ) -> [(String, World)] {
        var next = world
        switch decision {
        case .abort(let why):
            next.attempt?.aborting = why
            next.tool = .idle(isOurs: isOurs)
            return [("the ledger has: back, \(why)", next)]
        case .end(let succeeded):
            if succeeded { next.phase = attempt.phaseAfter }
            next.attempt = nil
            next.tool = .dead
            return [("the ledger has the end", next)]
        case .perform(let step):
            var all: [(String, World)] = []
            var failed = world
            failed.tool = .decided(
                machine.afterFailure(observation(world, attempt, isOurs: isOurs), "\(step.rawValue) failed"), isOurs: isOurs)
            if failed != world { all.append(("\(step.rawValue) fails", failed)) }
            guard effect(step, attempt, &next) else { return all }
            next.tool = .did(step, isOurs: isOurs)
            return all + [(step.rawValue, next)]
        }
    }

    /// What a step does to the databases. False if it cannot be done now.
    private func effect(_ step: Step, _ attempt: Attempt, _ world: inout World) -> Bool {
        let (from, to) = (attempt.from, attempt.to)
        switch step {
        case .closeDestination:
            // Only a side where nobody is at home can be closed without a drain.
            world.set(to, .permanent)
        case .prepareReverse: world.reverseMade = true
        case .proveReverse:
            guard world.reverseMade else { return false }
            world.reverseProven = true
        case .fence:
            guard world.fences[from] != .permanent else { return false }
            world.set(from, .leased)
        case .drain: return !drainsByMarker || world.unsynced[from] == false
        case .commit:
            guard world.fences[from] == .leased || (!commitLooksAtExpiry && world.fences[from] == .expired) else { return false }
            world.set(from, .permanent)
            if world.unsynced[from] == true { world.lost = true }
        case .openDestination: world.set(to, .open)
        case .publishRoutes:
            if attempt.movesWriters { world.routed = to } else { world.readsRouted = attempt.phaseAfter.reads }
        case .unfence: world.set(from, .open)
        case .preadvanceSequences, .pauseClients, .checkFenced, .setSequences, .resumeClients, .restoreClients: break
        }
        return true
    }
}

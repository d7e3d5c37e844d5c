@testable import BridgeCutover

/// Goes through every state that can be reached.
struct Explorer {
    struct Finding {
        var rule: String
        /// What happened, from the beginning on.
        var way: [String]
    }

    let physics: Physics

    func run(attempts: Int) -> (states: Int, finding: Finding?) {
        let first = World(attemptsLeft: attempts)
        var cameFrom: [World: (World, String)?] = [first: nil]
        var queue = [first]
        var index = 0
        while index < queue.count {
            let world = queue[index]
            index += 1
            if let rule = violated(world) { return (cameFrom.count, Finding(rule: rule, way: way(to: world, cameFrom))) }
            for (name, next) in physics.successors(world) where cameFrom[next] == nil {
                cameFrom[next] = (world, name)
                queue.append(next)
            }
        }
        return (cameFrom.count, nil)
    }

    private func way(to world: World, _ cameFrom: [World: (World, String)?]) -> [String] {
        var names: [String] = []
        var at = world
        while let step = cameFrom[at] ?? nil {
            names.append(step.1)
            at = step.0
        }
        return names.reversed()
    }

    // MARK: What must hold

    private func violated(_ world: World) -> String? {
        // Before reads have moved, nobody of the application knows the target.
        let isTargetKnown = world.phase != .syncing || world.readsRouted == .target
        if isTargetKnown, Side.allCases.allSatisfy(world.isOpen) { return "C14 both sides can be written" }
        if world.lost { return "C13 a side was closed for good before the other had all its writes" }
        if let attempt = world.attempt, world.fences[attempt.from] == .permanent, !world.reverseProven {
            return "C12 past the point of no return without a way back that was tried"
        }
        if world.tool == .dead, !writableWithoutHelp(world) { return "C2 a dead tool leaves an application that cannot write" }
        return unfinished(world)
    }

    /// Whether somebody will be able to write though the tool never comes back. Past the point of no return nobody has to.
    private func writableWithoutHelp(_ world: World) -> Bool {
        if Side.allCases.contains(where: world.isOpen) { return true }
        if let attempt = world.attempt, world.fences[attempt.from] == .permanent { return true }
        return physics.leaseExpires && world.fences.values.contains(.leased)
    }

    /// C20: run again, and not disturbed, the tool comes to an end, with one side open and the routes to it.
    private func unfinished(_ world: World) -> String? {
        var at = world
        if at.tool == .dead, at.attempt != nil { at.tool = .idle(isOurs: false) }
        for _ in 0..<200 {
            guard at.attempt != nil else {
                let home = at.phase.writes
                guard at.isOpen(home), at.phase == .syncing || !at.isOpen(home.other) else { return "C13 the end leaves the wrong side open" }
                return at.routed == home ? nil : "C15 the end leaves routes to the wrong side"
            }
            // Links keep working meanwhile.
            at.unsynced = [.source: false, .target: false]
            guard let next = physics.toolMoves(at).last?.1, next != at else { return "C20 the tool is stuck" }
            at = next
        }
        return "C20 the tool comes to no end"
    }
}

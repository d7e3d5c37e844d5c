import Testing

@testable import BridgeCutover

@Suite struct ExplorerTests {
    @Test("C26 in every state that can be reached C12, C13, C14 and C20 hold")
    func allStates() {
        let (states, finding) = Explorer(physics: Physics()).run(attempts: 4)
        print("explored \(states) states of the cutover")
        #expect(finding == nil, "\(finding.map { "\($0.rule): \($0.way.joined(separator: " / "))" } ?? "")")
        #expect(states > 10_000)
    }

    private static let broken: [(String, @Sendable (inout Physics) -> Void)] = [
        (
            "the reverse link after the point of no return",
            {
                $0.machine.rules.towardsCommit.removeAll { $0 == .prepareReverse || $0 == .proveReverse }
                $0.machine.rules.afterCommit = [.prepareReverse, .proveReverse] + Step.afterCommit
            }
        ),
        ("a fence without expiry", { $0.leaseExpires = false }),
        ("a drain by positions alone", { $0.drainsByMarker = false }),
        ("no drain", { $0.machine.rules.towardsCommit.removeAll { $0 == .drain } }),
        (
            "going on with another process's attempt, and a commit that does not look at the expiry",
            {
                $0.machine.rules.takesOver = true
                $0.machine.rules.looksAtFence = false
                $0.commitLooksAtExpiry = false
            }
        ),
        ("reads switched to a side that is not closed", { $0.machine.rules.closesForReads = false }),
        ("opening the destination before the point of no return", {
            let steps = $0.machine.rules.towardsCommit
            $0.machine.rules.towardsCommit = Array(steps.dropLast()) + [.openDestination, .commit]
        }),
        ("routes before the destination is open, and nothing after", { $0.machine.rules.afterCommit = [.publishRoutes] }),
        ("no routes", { $0.machine.rules.afterCommit = [.openDestination] }),
    ]

    @Test("C26 the explorer notices when any one rule is broken", arguments: broken.indices)
    func brokenRules(index: Int) throws {
        let (name, change) = Self.broken[index]
        var physics = Physics()
        change(&physics)
        let (states, finding) = Explorer(physics: physics).run(attempts: 4)
        let found = try #require(finding, "\(name): \(states) states and nothing found")
        print("\(name): \(found.rule), after \(found.way.count) steps: \(found.way.joined(separator: " / "))")
    }
}

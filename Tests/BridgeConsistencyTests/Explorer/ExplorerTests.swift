import Testing

/// The argument of the documentation's page on the soundness of the fence check, tried on every state of small worlds.
@Suite("Explorer")
struct ExplorerTests {
    private static let kinds = [Scenario.Kind.snapshot, .state]

    private func explore(_ scenarios: [Scenario]) -> Explorer.Result {
        var total = Explorer.Result()
        for scenario in scenarios {
            let result = Explorer(scenario).run()
            #expect(result.states < Explorer.bound, "the state space was cut off: \(scenario)")
            if let violation = result.violation {
                Issue.record("\(violation.rawValue) in \(scenario):\n\(result.trace.joined(separator: "\n"))")
            }
            total.add(result)
            if total.violation != nil { break }
        }
        return total
    }

    private func report(_ name: String, _ result: Explorer.Result, _ scenarios: Int) {
        print(
            "\(name): \(scenarios) worlds, \(result.states) states, \(result.transitions) steps; final states: "
                + "\(result.consistent) consistent, \(result.inconsistent) inconsistent, \(result.inconclusive) inconclusive")
    }

    /// Key b has no row at first, so one value for it is as good as the other.
    private let operations = Operation.all.filter { $0 != .set(key: 1, value: 1) }
    private var pairs: [[Operation]] { operations.flatMap { first in operations.map { [first, $0] } } }

    private let triples: [[Operation]] = [
        [.set(key: 0, value: 2), .move(from: 0), .set(key: 0, value: 2)],
        [.set(key: 1, value: 1), .truncate, .set(key: 0, value: 2)],
    ]

    @Test("K3 nothing is called a mismatch while capture, applier and strangers do nothing wrong")
    func noFalseAlarm() {
        // Harmless troubles: a killed check, and a fence that ends too soon.
        let scenarios = Self.kinds.flatMap { kind in
            operations.map { Scenario(kind: kind, operations: [$0], faults: [.kill, .lease], drains: 2) }
                + pairs.map { Scenario(kind: kind, operations: $0) }
        }
        let result = explore(scenarios)
        report("K3", result, scenarios.count)
        #expect(result.violation == nil)
        #expect(result.inconsistent == 0)
        #expect(result.consistent > 0)
        #expect(result.inconclusive > 0, "a fence that ended is no ground for a verdict")
    }

    @Test("K14 every consistent verdict is true while all obligations hold")
    func sound() {
        var scenarios: [Scenario] = []
        for kind in Self.kinds {
            for operations in pairs {
                scenarios.append(Scenario(kind: kind, operations: operations, faults: [.lostApply, .halfMove]))
            }
            for operations in triples {
                scenarios.append(Scenario(kind: kind, operations: operations, faults: [.lostApply, .halfMove]))
            }
            for operation in self.operations {
                let two = [operation, .set(key: 0, value: 2)]
                scenarios += [
                    Scenario(kind: kind, operations: two, faults: .interruption),
                    Scenario(kind: kind, source: Rows(1, 1), operations: two, faults: .publication),
                    Scenario(kind: kind, operations: two, faults: .strayApply),
                    Scenario(kind: kind, operations: [operation], faults: [.restore, .lostApply, .kill]),
                    Scenario(kind: kind, source: Rows(1, 1), operations: [operation], faults: .badCopy, isCopying: true),
                    Scenario(
                        kind: kind, source: Rows(1, 1), operations: [operation], foreign: [(0, 2), (1, 1)]),
                    // Wrong before the check begins: another value, a row too many, a row too few.
                    Scenario(kind: kind, target: Rows(2, 0), operations: two),
                    Scenario(kind: kind, target: Rows(1, 1), operations: two),
                    Scenario(kind: kind, target: Rows(0, 0), operations: two),
                ]
            }
        }
        let result = explore(scenarios)
        report("K14", result, scenarios.count)
        #expect(result.violation == nil)
        #expect(result.consistent > 0 && result.inconsistent > 0 && result.inconclusive > 0)
    }

    @Test("K15 without any one of the obligations the argument fails", arguments: Obligation.allCases)
    func needed(_ obligation: Obligation) {
        // As the documentation has it: without these four a row is called wrong; without any other a wrong one passes.
        let passes = obligation.counterexamples.contains { $0.violation == .falseConsistent }
        #expect(passes != [9, 14, 15, 16].contains(obligation.number) && !obligation.counterexamples.isEmpty)
        for (scenario, violation) in obligation.counterexamples {
            #expect(Explorer(scenario).run().violation == nil, "the world is sound as long as \(obligation) holds")
            let result = Explorer(scenario, without: obligation, sought: violation).run()
            #expect(result.violation == violation, "\(obligation) can be left out for a \(scenario.kind) source")
            print("K15 without \(obligation), \(scenario.kind) source: \(violation.rawValue) after \(result.states) states")
            for line in result.trace { print("    \(line)") }
            if violation == .falseConsistent {
                #expect(result.trace.contains { $0.hasPrefix("check: verdict") })
            } else {
                #expect(result.trace.last?.hasPrefix("check: ") == true)
            }
        }
    }
}

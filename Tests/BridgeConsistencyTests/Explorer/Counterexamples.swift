extension Obligation {
    /// The smallest worlds that show what the obligation is for, and what goes wrong there without it.
    var counterexamples: [(scenario: Scenario, violation: Violation)] {
        let update = Operation.set(key: 0, value: 2)
        switch self {
        case .journalWhole:
            return both([update], [.interruption])
        case .captureSame, .captureSameBetween:
            return both([.delete(key: 0)], .publication)
        case .captureNotedFirst:
            return both([.delete(key: 0)], .publication, .snapshot)
        case .foreignFromStart:
            return [foreign([(0, 2)])]
        case .foreignAfterView:
            return [foreign([(0, 2)])]
        case .foreignWhole:
            // The second write changes nothing, so only the first one can be missed.
            return [foreign([(0, 2), (1, 1)])]
        case .settledStart:
            // SQLite has no such moment: what is committed is seen.
            return [(Scenario(kind: .snapshot, operations: [update], faults: .lostApply), .falseConsistent)]
                + [(Scenario(kind: .snapshot, operations: [update]), .falseAlarm)]
        case .writersWaitedOut:
            return [(Scenario(kind: .snapshot, operations: [update]), .falseConsistent)]
        case .fenceStands:
            return both([update], .lease)
        case .wholeTableDirty:
            return both([.truncate], .lostApply, .snapshot) + both([.rewrite], .lostApply)
                + both([.truncate], [], .snapshot, .falseAlarm)
        case .bothKeysDirty:
            return both([.move(from: 0)], .halfMove) + both([.move(from: 0)], [], nil, .falseAlarm)
        case .afterCopy:
            return [Scenario.Kind.snapshot, .state].map {
                (Scenario(kind: $0, source: Rows(1, 1), operations: [], faults: .badCopy, isCopying: true), .falseConsistent)
            }
        case .markWithRows:
            return both([update], .lostApply) + both([update], [], nil, .falseAlarm)
        case .journalPassedViews:
            return both([update], [], nil, .falseAlarm)
        case .applierConfined:
            return both([update], .strayApply)
        case .disputedFromStart:
            return both([update], .lostApply, .snapshot) + both([update], [], nil, .falseAlarm)
        case .dirtySavedWithPosition:
            return both([update], [.lostApply, .kill])
        case .targetNotPutBack:
            return both([update], [.lostApply, .restore]) + both([update], .restore, nil, .falseAlarm)
        case .tableHeldBeforeEnd, .wholeTableAlwaysDisputed:
            return both([.truncate], [], .snapshot, .falseAlarm)
        case .droppedOnlyIfUntouched:
            return both([update, .set(key: 0, value: 1)], .lostApply)
        case .statesDisputedUnlessInBoth:
            return both([update, .set(key: 0, value: 1)], [], .state, .falseAlarm)
        }
    }

    private func both(
        _ operations: [Operation], _ faults: Faults, _ kind: Scenario.Kind? = nil,
        _ violation: Violation = .falseConsistent
    ) -> [(scenario: Scenario, violation: Violation)] {
        [Scenario.Kind.snapshot, .state].filter { kind == nil || kind == $0 }.map {
            (Scenario(kind: $0, operations: operations, faults: faults), violation)
        }
    }

    private func foreign(_ writes: [(key: Int, value: UInt8)]) -> (scenario: Scenario, violation: Violation) {
        (Scenario(kind: .snapshot, source: Rows(1, 1), operations: [], foreign: writes), .falseConsistent)
    }
}

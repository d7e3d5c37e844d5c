import BridgeConformance
import BridgeTestEngines
import BridgeTestSupport
import Testing

@Suite("Conformance", .serialized)
struct ConformanceTests {
    @Test("R6 copy, then changes of every kind", arguments: Pair.all)
    func copyThenStream(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).copyThenStream()
    }

    @Test("R6 P20 writes all through the copy", arguments: Pair.all)
    func writesDuringCopy(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).writesDuringCopy()
    }

    @Test("R4 R6 stopped in good order and resumed", arguments: Pair.all)
    func stopsAndResumes(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).stopsAndResumes()
    }

    @Test("R2 R6 a transaction far larger than a batch", arguments: Pair.all)
    func largeTransaction(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).largeTransaction()
    }

    @Test("J6 R6 a transaction larger than the journal's budget", arguments: Pair.all)
    func transactionLargerThanBudget(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).transactionLargerThanBudget()
    }

    @Test("J6 R4 a stop is heard while capture waits for room in the journal", arguments: Pair.all)
    func stopsWithoutRoom(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).stopsWithoutRoom()
    }

    @Test("P18 the target's connection is lost while the source is idle", arguments: engines.map { Pair(source: $0, target: PostgreSQLEngine()) })
    func lostTargetOnIdleSource(_ pair: Pair) async throws {
        let suite = try await ConformanceSuite(source: pair.source, target: pair.target)
        let target = try #require(suite.target as? PostgreSQLDatabase)
        let others = "datname = current_database() AND pid <> pg_backend_pid()"
        try await suite.lostTargetOnIdleSource { write in
            let lock = try ChildProcess(
                [target.cluster.program("psql"), "-qXAt", "-d", target.url],
                input: "BEGIN; LOCK TABLE accounts; SELECT 'locked', pg_sleep(60);")
            try await waitUntil {
                try await target.cluster.psql(
                    target.url, "SELECT count(*) FROM pg_locks WHERE relation = 'accounts'::regclass AND mode = 'AccessExclusiveLock' AND granted") == "1"
            }
            try await write()
            // The applier waits for the table; then it is gone, and after it the lock.
            try await waitUntil {
                try await target.cluster.psql(
                    target.url, "SELECT count(*) FROM pg_stat_activity WHERE \(others) AND application_name LIKE 'bridge apply%' AND wait_event_type = 'Lock'") == "1"
            }
            try await target.cluster.psql(
                target.url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE \(others) AND application_name LIKE 'bridge apply%'")
            try await target.cluster.psql(
                target.url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE \(others) AND query LIKE '%pg_sleep(60)%'")
            _ = await lock.wait()
        }
    }

    @Test("R3 R6 a live link keeps up and shows its positions", arguments: Pair.all)
    func staysInSync(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).staysInSync()
    }

    @Test("R6 all traces can be removed", arguments: Pair.all)
    func removesItsTraces(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).removesItsTraces()
    }

    @Test("R6 a target that holds rows is refused and left alone", arguments: Pair.all)
    func refusesFilledTarget(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).refusesFilledTarget()
    }

    @Test("J5 R6 another link's journal is refused", arguments: Pair.all)
    func foreignJournal(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).staleJournalIsRefused()
    }

    @Test("P5 R6 a capture's name that is taken is refused, and left alone", arguments: Pair.all)
    func takenName(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).refusesTakenName()
    }

    @Test("R6 other tables, columns or filters are refused once the migration has begun", arguments: Pair.all)
    func changedSelection(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).refusesChangedSelection()
    }

    @Test("R1 R6 a link whose journal is gone does not go on", arguments: Pair.all)
    func missingJournal(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).refusesMissingJournal()
    }

    @Test("C6 C7 5,000 small commits with a marker behind them: when it has arrived, nothing is missing", arguments: Pair.all)
    func markerAfterManyCommits(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).markerAfterManyCommits()
    }

    @Test("C6 a marker alone arrives, the last one is kept, and changes without one leave it", arguments: Pair.all)
    func markersAlone(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).markersAlone()
    }

    @Test("C6 records of an earlier version get their place for the marker", arguments: Pair.all)
    func recordsOfEarlierVersion(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).recordsOfEarlierVersion()
    }

    @Test("C12 a link without a copy is adopted at its origin, once, and from no other", arguments: Pair.all)
    func adopts(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).adopts()
    }
}

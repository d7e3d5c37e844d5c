import BridgeConformance
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
}

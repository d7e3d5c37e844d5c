import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

/// What the suites about the applier share.
protocol ApplySuite {}

extension ApplySuite {
    static var simple: Relation { relation(1, "t", [("id", "integer"), ("v", "text"), ("big", "text")]) }
    static var simpleTable: String { "CREATE TABLE t (id int PRIMARY KEY, v text, big text)" }

    /// Rows enough that a batch is applied set-wise.
    static var many: Int { 100 }

    /// Expects that a batch is refused as a whole.
    func expect(
        _ code: ErrorCode, table: String = "public.t", _ fixture: TargetFixture, _ batch: ChangeBatch,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let before = try await fixture.checkpoint()
        let applier = try await fixture.openApplier()
        let error = await #expect(throws: BridgeError.self, sourceLocation: sourceLocation) {
            try await applier.apply(batch)
        }
        await applier.close()
        #expect(error?.code == code, "\(String(describing: error))", sourceLocation: sourceLocation)
        #expect(error?.context.first { $0.key == .table }?.value == table, sourceLocation: sourceLocation)
        #expect(try await fixture.checkpoint() == before, sourceLocation: sourceLocation)
    }
}

import BridgeCore
import Testing

@testable import BridgeConsistency

@Suite struct ChunkPlanTests {
    private static func layout(
        keys: [String] = ["id"], order: String? = "integer", rows: Int64? = 10_000_000
    ) -> ComparisonLayout {
        ComparisonLayout(
            table: TableName(name: "t"),
            columns: keys.map { Relation.Column(name: $0, isKey: true, typeName: "bigint", type: .int64) }
                + [Relation.Column(name: "v", isKey: false, typeName: "text", type: .text)],
            keyOrder: order, estimatedRows: rows)
    }

    @Test("V7 chunks grow as long as they are quick, and shrink when they are not")
    func size() {
        var plan = ChunkPlan(Self.layout(), isHashedByServer: false, fixed: nil)
        let first = plan.rows
        plan.learn(found: 1, from: nil, to: nil, worked: .milliseconds(1))
        #expect(plan.rows == first * 32)
        for _ in 0..<5 { plan.learn(found: 1, from: nil, to: nil, worked: .milliseconds(1)) }
        #expect(plan.rows == 5_000_000)
        plan.learn(found: 1, from: nil, to: nil, worked: .seconds(20))
        #expect(plan.rows == 500_000)
        plan.isBusy = true
        plan.learn(found: 1, from: nil, to: nil, worked: .seconds(1))
        #expect(plan.rows == 125_000)
        for _ in 0..<5 { plan.learn(found: 1, from: nil, to: nil, worked: .seconds(1_000)) }
        #expect(plan.rows == 1_000)
        var fixed = ChunkPlan(Self.layout(), isHashedByServer: false, fixed: 20)
        fixed.learn(found: 20, from: 0, to: 20, worked: .zero)
        #expect(fixed.rows == 20 && fixed.end(from: 20) == nil)
    }

    @Test("V7 the end of a chunk is reckoned only where it cannot hold many more rows than wanted, nor pass the table's end")
    func ends() {
        var plan = ChunkPlan(Self.layout(), isHashedByServer: false, fixed: nil)
        #expect(plan.end(from: 0) == nil, "nothing is known yet")
        plan.learn(found: 50_000, from: 0, to: 100_000, worked: .seconds(2))
        #expect(plan.end(from: 100_000) == 200_000)
        #expect(plan.end(from: nil) == nil)
        #expect(plan.end(from: .max - 10) == nil)
        plan.learn(found: 50_000, from: 0, to: 1_000_000, worked: .seconds(2))
        #expect(plan.end(from: 100_000) == nil, "too many gaps")
        plan.learn(found: 0, from: 0, to: 1_000, worked: .seconds(2))
        #expect(plan.end(from: 1_000) == nil, "an empty range")
        plan.learn(found: 8_890_000, from: 0, to: 8_890_000, worked: .seconds(2))
        #expect(plan.end(from: 8_890_000) == nil, "near the end")
        var composite = ChunkPlan(Self.layout(keys: ["a", "b"]), isHashedByServer: false, fixed: nil)
        composite.learn(found: 50_000, from: 0, to: 50_000, worked: .seconds(2))
        #expect(composite.end(from: 50_000) == nil)
        var text = ChunkPlan(Self.layout(order: "utf8"), isHashedByServer: false, fixed: nil)
        text.learn(found: 50_000, from: 0, to: 50_000, worked: .seconds(2))
        #expect(text.end(from: 50_000) == nil)
        var unknown = ChunkPlan(Self.layout(rows: nil), isHashedByServer: false, fixed: nil)
        unknown.learn(found: 50_000, from: 0, to: 50_000, worked: .seconds(2))
        #expect(unknown.end(from: 50_000) == nil)
    }

    @Test("V7 the rest is taken without counting where it should be small, and never on the word of an estimate that was wrong")
    func rest() {
        var plan = ChunkPlan(Self.layout(rows: 1_000_000), isHashedByServer: true, fixed: nil)
        #expect(plan.rows == 400_000 && !plan.takesRest)
        plan.learn(found: 400_000, from: nil, to: nil, worked: .milliseconds(200))
        #expect(plan.takesRest)
        plan.learn(found: 700_000, from: nil, to: nil, worked: .milliseconds(200))
        #expect(!plan.takesRest)
        #expect(ChunkPlan(Self.layout(rows: 20_000), isHashedByServer: false, fixed: nil).takesRest)
        #expect(!ChunkPlan(Self.layout(rows: 20), isHashedByServer: false, fixed: 50).takesRest)
        #expect(!ChunkPlan(Self.layout(rows: nil), isHashedByServer: false, fixed: nil).takesRest)
    }

    @Test("K18 the first chunk of a source that is written to is small, since nothing is known of what it can give")
    func busyFromTheStart() {
        var plan = ChunkPlan(Self.layout(rows: 1_000_000), isHashedByServer: true, fixed: nil)
        plan.isBusy = true
        #expect(plan.rows == 50_000)
        plan.learn(found: 50_000, from: nil, to: nil, worked: .milliseconds(125))
        plan.isBusy = true
        #expect(plan.rows == 100_000)
        var fixed = ChunkPlan(Self.layout(), isHashedByServer: true, fixed: 70_000)
        fixed.isBusy = true
        #expect(fixed.rows == 70_000)
    }

    @Test("V7 a table that a server hashes in one go is one chunk, unless the source is busy or its rows have to be sent")
    func small() {
        func plan(bytes: Int64?, isHashedByServer: Bool = true, fixed: Int? = nil) -> ChunkPlan {
            var layout = Self.layout()
            layout.estimatedBytes = bytes
            return ChunkPlan(layout, isHashedByServer: isHashedByServer, fixed: fixed)
        }
        var small = plan(bytes: 200 << 20)
        #expect(small.takesRest)
        small.isBusy = true
        #expect(!small.takesRest)
        small.isBusy = false
        // It was busy at first: the rest goes on by the usual rule.
        small.learn(found: 10, from: nil, to: nil, worked: .seconds(10))
        #expect(!small.takesRest)
        #expect(!plan(bytes: 2 << 30).takesRest)
        #expect(!plan(bytes: nil).takesRest)
        #expect(!plan(bytes: 200 << 20, isHashedByServer: false).takesRest)
        #expect(!plan(bytes: 200 << 20, fixed: 50).takesRest)
    }
}

import BridgeCore
import Testing

@testable import BridgePostgreSQL

@Suite("PostgreSQL comparison: rows drawn at random")
struct RandomRowsTests {
    private func integers(_ keys: [KeyImage]) throws -> [Int64] {
        try keys.map { key in
            let result = key.bytes.withUnsafeBytes { bytes -> Result<Int64, BridgeError> in
                do throws(BridgeError) {
                    var reader = ByteReader(bytes)
                    var cells = try RowImage(&reader).cells
                    return .success(try cells.next()?.integer ?? -1)
                } catch { return .failure(error) }
            }
            return try result.get()
        }
    }

    @Test(
        "K21 rows are drawn from everywhere, once each, whatever the table",
        arguments: [
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 200000) i",
            """
            CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
            CREATE TABLE a PARTITION OF t FOR VALUES FROM (0) TO (50000); CREATE TABLE b PARTITION OF t FOR VALUES FROM (50000) TO (300000);
            INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 200000) i
            """,
        ])
    func everywhere(_ schema: String) async throws {
        let fixture = try await ComparisonFixture(schema, tables: ["t"])
        let (request, _) = try await fixture.requests()
        let view = try await fixture.source.openView()
        let keys = try integers(try await view.drawKeys(request, count: 1000, seed: 7))
        #expect(keys.count == 1000)
        #expect(Set(keys).count == 1000)
        for part in 0..<10 {
            let inside = keys.count { $0 > Int64(part) * 20_000 && $0 <= Int64(part + 1) * 20_000 }
            #expect((50...160).contains(inside), "\(part): \(inside)")
        }
        #expect(try integers(try await view.drawKeys(request, count: 1000, seed: 7)) == keys)
        #expect(try integers(try await view.drawKeys(request, count: 1000, seed: .max)) != keys)
        await view.close()
        try await fixture.end()
    }

    @Test("K21 what the row filter leaves out is not drawn, an empty table gives nothing")
    func filtered() async throws {
        let fixture = try await ComparisonFixture(
            "CREATE TABLE t (id int PRIMARY KEY, t int); INSERT INTO t SELECT i, i % 10 FROM generate_series(1, 3000) i; CREATE TABLE e (id int PRIMARY KEY, t int)",
            tables: ["t", "e"], rowFilter: "t.t = 7")
        let view = try await fixture.source.openView()
        let (request, _) = try await fixture.requests()
        let keys = try integers(try await view.drawKeys(request, count: 1000, seed: 3))
        #expect(keys.sorted() == (0..<300).map { Int64($0) * 10 + 7 })
        let (empty, _) = try await fixture.requests(1)
        await view.close()
        let other = try await fixture.target.openView()
        #expect(try await other.drawKeys(ComparisonRequest(layout: empty.layout), count: 10, seed: 1).isEmpty)
        await other.close()
        try await fixture.end()
    }
}

import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

@Suite struct TargetFilterTests {
    @Test("C13 P11 emptying a table whose rows are the link's only in part leaves the others", arguments: [1, 100])
    func truncate(rows: Int) async throws {
        let schema = "CREATE TABLE part (id int PRIMARY KEY, tenant int); CREATE TABLE whole (id int PRIMARY KEY, tenant int)"
        var fixture = try await TargetFixture(schema, tables: ["part", "whole"])
        fixture = fixture.filtering("part", by: "tenant = 7 OR tenant IS NULL")
        try await fixture.begin()
        try await fixture.cluster.psql(
            fixture.url, "INSERT INTO part VALUES (1, 7), (2, NULL), (3, 8); INSERT INTO whole SELECT * FROM part")
        let columns = [("id", "integer"), ("tenant", "integer")]
        var writer = BatchWriter(relations: [relation(1, "part", columns), relation(2, "whole", columns)])
        writer.begin()
        for row in 0..<rows { writer.insert(1, [.text("\(row + 1_000)"), "7"]) }
        writer.truncate([1, 2])
        writer.insert(1, ["5", "7"])
        writer.insert(2, ["6", "7"])
        writer.commit()
        let applier = try await fixture.openApplier()
        try await applier.apply(writer.take())
        await applier.close()
        #expect(try await fixture.sql("SELECT id FROM part ORDER BY id") == "3\n5")
        #expect(try await fixture.sql("SELECT id FROM whole ORDER BY id") == "6")
        try await fixture.end()
    }
}

import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

@Suite struct PartPlanTests {
    @Test("P21 whatever the tables, each block of each is in exactly one part, and the last part is open")
    func blocks() throws {
        var (generator, seed) = SeededGenerator.named("parts")
        for _ in 0..<500 {
            let relations = (0..<generator.below(6) + 1).map { number in
                let blocks = generator.chance(30) ? 0 : generator.below(400)
                return PartPlanner.Relation(
                    oid: UInt32(number + 1), bytes: Int64(blocks * 8_192 + (generator.chance(30) ? generator.below(9_000_000) : 0)),
                    blocks: UInt32(blocks), hasBlocks: generator.chance(85))
            }
            let size = Int64(8_192 << generator.below(9))
            let parts = PartPlanner(partBytes: size).parts(relations)
            #expect(parts.map(\.number) == Array(0..<parts.count), "seed \(seed)")
            #expect(parts.count <= PartPlanner.maximumParts + relations.count)
            if parts.count == 1, parts[0].locator.isEmpty { continue }
            let ranges = try parts.flatMap { try BlockRange.ranges($0.locator) }
            for relation in relations {
                let own = ranges.filter { $0.relation == relation.oid }
                #expect(own.first?.first == nil && own.last?.end == nil && !own.isEmpty, "seed \(seed)")
                for (before, after) in zip(own, own.dropFirst()) {
                    #expect(before.end != nil && before.end == after.first && (before.first ?? 0) < (after.first ?? 0), "seed \(seed)")
                }
                if !relation.hasBlocks { #expect(own.count == 1) }
            }
            #expect(ranges.count == relations.reduce(0) { count, relation in count + ranges.filter { $0.relation == relation.oid }.count })
        }
        // Small partitions are read together, and a large table is not cut into thousands.
        let small = (0..<50).map { PartPlanner.Relation(oid: UInt32($0 + 1), bytes: 8_192, blocks: 1, hasBlocks: true) }
        #expect(PartPlanner(partBytes: 16 * 8_192).parts(small).count == 4)
        let large = PartPlanner.Relation(oid: 1, bytes: 8_192 << 20, blocks: 1 << 20, hasBlocks: true)
        #expect(PartPlanner(partBytes: 8_192).parts([large]).count <= PartPlanner.maximumParts + 1)
    }

    @Test("P21 P23 the parts of a table hold the rows of the whole, with a row filter and a column list too")
    func rows() async throws {
        let mapping = TableMapping(
            source: TableName(schema: "public", name: "part ed"), target: TableName(name: "t"), columns: ["id", "tenant"],
            rowFilter: "tenant = 7 AND \"part ed\".id > 10")
        let plain = TableMapping(
            source: TableName(schema: "public", name: "plain"), target: TableName(name: "t"), rowFilter: "tenant < 5 OR tenant > 8")
        let fixture = try await SourceFixture(
            """
            CREATE TABLE "part ed" (id int, tenant int, pad text, PRIMARY KEY (id, tenant)) PARTITION BY LIST (tenant);
            CREATE TABLE sevens (pad text, gone int, tenant int NOT NULL, id int NOT NULL);
            ALTER TABLE sevens DROP COLUMN gone; ALTER TABLE "part ed" ATTACH PARTITION sevens FOR VALUES IN (7);
            CREATE TABLE rest PARTITION OF "part ed" DEFAULT;
            INSERT INTO "part ed" SELECT g, 5 + g % 4, repeat('p', 90) FROM generate_series(1, 4000) g;
            CREATE TABLE plain (id int, tenant int, pad text, PRIMARY KEY (id, tenant)); CREATE INDEX ON plain (tenant);
            INSERT INTO plain SELECT g, g % 10, repeat('p', 90) FROM generate_series(1, 4000) g;
            DELETE FROM plain WHERE id % 5 = 0 OR id > 3000; CREATE TABLE child () INHERITS (plain); INSERT INTO child VALUES (-1, 1, 'c');
            ANALYZE
            """, tables: [], mappings: [mapping, plain])
        _ = try await fixture.source.prepareCapture(fixture.link, replacingLeftovers: false)
        let snapshot = try await fixture.source.openSnapshot(fixture.link)
        try await fixture.psql("INSERT INTO plain SELECT g, 1, 'late' FROM generate_series(10000, 12000) g; UPDATE plain SET pad = 'changed'")
        let schemas = try await fixture.source.describeTables(fixture.link.mappings.map(\.source))
        let tables = zip(schemas, fixture.link.mappings).map { CopiedTable(schema: $0, mapping: $1) }
        let plans = try await snapshot.planParts(tables, partBytes: 32 << 10)
        for (table, parts) in zip(tables, plans) {
            #expect(parts.count > 5)
            for format in [CopyFormat.rows, .postgresText] {
                var found: [String] = []
                for part in parts {
                    let reader = try await snapshot.openTable(table.schema, mapping: table.mapping, part: part, format: format)
                    found += try await Self.lines(reader, format)
                }
                let whole = try await snapshot.openTable(table.schema, mapping: table.mapping, format: format)
                let expected = try await Self.lines(whole, format)
                #expect(found.sorted() == expected.sorted() && !expected.isEmpty, "\(table.schema.name) \(format.rawValue)")
            }
        }
        #expect(await snapshot.isUsable())
        #expect(
            try await fixture.psql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'bridge snapshot%'") == "t")
        try await waitUntil { await !snapshot.isUsable() }
        await snapshot.close()
    }

    private static func lines(_ reader: any CopyReader, _ format: CopyFormat) async throws -> [String] {
        guard format != .rows else { return try await rowsText(reader) }
        let buffer = RecordBuffer()
        while try await reader.read(into: buffer, limit: 1 << 20) > 0 {}
        await reader.close()
        return buffer.bytes.split(separator: UInt8(ascii: "\n")).map { String(decoding: $0, as: UTF8.self) }
    }
}

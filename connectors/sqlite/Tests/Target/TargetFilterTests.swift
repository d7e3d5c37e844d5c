import BridgeCore
import BridgeSQLite
import Testing

@Suite struct TargetFilterTests {
    @Test("C13 emptying a table whose rows are the link's only in part leaves the others")
    func truncate() async throws {
        let fixture = try TargetFixture("CREATE TABLE part(id INTEGER PRIMARY KEY, tenant INTEGER)")
        let relation = postgresRelation(1, "part", ["id*:bigint", "tenant:bigint"])
        var link = fixture.link([relation])
        link.mappings[0].targetFilter = "tenant = 7 OR tenant IS NULL"
        try await fixture.startSyncing(link, relations: [relation])
        try fixture.execute("INSERT INTO part VALUES (1, 7), (2, NULL), (3, 8)")
        let writer = BatchWriter([relation])
        writer.begin(10)
        writer.insert(1, [4, 7])
        writer.truncate([1])
        writer.insert(1, [5, 7])
        writer.commit()
        let applier = try await fixture.target.openApplier(link)
        try await applier.apply(writer.batch())
        await applier.close()
        #expect(try fixture.rows("SELECT id FROM part ORDER BY id") == ["i:3", "i:5"])
    }

    @Test("C12 the way back leaves the application's file in the journal mode that it has, and says so", arguments: [LinkDescription.Direction.forward, .reverse])
    func journalMode(_ direction: LinkDescription.Direction) async throws {
        let fixture = try TargetFixture("PRAGMA journal_mode = DELETE; CREATE TABLE t(id INTEGER PRIMARY KEY)")
        let relation = postgresRelation(1, "t", ["id*:bigint"])
        var link = fixture.link([relation])
        link.direction = direction
        let source = TableSchema(
            engine: EngineName(rawValue: "postgresql"), name: relation.name,
            columns: [ColumnSchema(name: "id", typeName: "bigint", type: .int64, isNotNull: true)], primaryKey: ["id"])
        let findings = try await fixture.target.preflight(link, sources: [source])
        #expect(findings.count == 1 && findings.allSatisfy { $0.what.contains("switches it over") == (direction == .forward) })
        _ = try await fixture.target.prepareLink(link)
        try await fixture.target.adoptLink(link, CaptureOrigin(identity: ["a": "b"], position: Position(commit: 1)))
        let applier = try await fixture.target.openApplier(link)
        let writer = BatchWriter([relation])
        try await applier.apply(writer.transaction(10) { $0.insert(1, [1]) }.batch())
        await applier.close()
        #expect(try fixture.rows("PRAGMA journal_mode") == [direction == .forward ? "t:wal" : "t:delete"])
        #expect(try fixture.rows("SELECT id FROM t") == ["i:1"])
    }
}

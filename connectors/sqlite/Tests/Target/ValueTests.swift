import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgeSQLite

@Suite struct ValueTests {
    @Test("S16 K10 a value that SQLite would change stops the link, by table and column")
    func refusedValues() async throws {
        let relation = postgresRelation(
            3, "v", ["id*:bigint", "i:integer", "r:double precision", "t:text", "b:bytea", "n:numeric"])
        let fixture = try TargetFixture(
            "CREATE TABLE v(id INTEGER PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB, n TEXT)")
        let applier = try await fixture.applier([relation])
        let good: [Value] = [1, 2, 2.5, "t", .blob([1]), "1.10"]
        let bad: [(Int, Value, ErrorCode)] = [
            (2, .real(.nan), .valueDoesNotFit), (2, .real(-0.0), .valueDoesNotFit), (1, "7", .valueDoesNotFit),
            (2, 7, .valueDoesNotFit), (3, 7, .valueDoesNotFit), (4, "text", .valueDoesNotFit),
            (5, 1.5, .valueDoesNotFit), (0, nil, .valueDoesNotFit), (3, .foreign("x"), .internalFault),
        ]
        let names = relation.columns.map(\.name)
        for (number, value, code) in bad {
            var row = good
            row[number] = value
            let error = await failure {
                try await applier.apply(BatchWriter([relation]).transaction(10) { $0.insert(3, row) }.batch())
            }
            #expect(error?.code == code, "\(names[number]) \(value)")
            #expect(error?.value(.column) == names[number])
            #expect(error?.value(.table) == "v")
        }
        try await applier.apply(
            BatchWriter([relation]).transaction(10) { writer in
                writer.insert(3, good)
                writer.insert(3, [2, nil, .real(-.infinity), "", .blob([]), "123456789012345678901234567890.10"])
            }.batch())
        #expect(
            try fixture.rows("SELECT * FROM v ORDER BY id") == [
                "i:1|i:2|r:4004000000000000|t:t|x:1|t:1.10",
                "i:2|null|r:fff0000000000000|t:|x:|t:123456789012345678901234567890.10",
            ])
        await applier.close()
    }

    @Test(
        "S-types a declared type that would convert the values is refused, by table and column",
        arguments: [
            ("uuid", "UUID"), ("text", "STRING"), ("numeric(10,2)", "DECIMAL(10,2)"), ("timestamp with time zone", "DATETIME"),
            ("jsonb", "JSON"), ("bigint", "TEXT"), ("boolean", "REAL"), ("double precision", "NUMERIC"),
            ("double precision", "INTEGER"), ("integer", "DOUBLE"), ("text", "FLOATING POINT"), ("date", "DATE"),
        ])
    func affinities(type: String, declared: String) async throws {
        let relation = postgresRelation(3, "v", ["id*:bigint", "c:\(type)"])
        let fixture = try TargetFixture("CREATE TABLE v(id INTEGER PRIMARY KEY, c \(declared))")
        let link = fixture.link([relation])
        _ = try await fixture.target.prepareLink(link)
        try await fixture.target.recordOrigin(link, CaptureOrigin(identity: [:], position: .zero))
        let error = await failure {
            _ = try await fixture.target.openLoad(
                link, mapping: link.mappings[0], columns: relation.columns, format: .rows)
        }
        #expect(error?.code == .targetTableMismatch)
        #expect(error?.value(.table) == "v")
        #expect(error?.value(.column) == "c")
        let source = TableSchema(
            engine: EngineName(rawValue: "postgresql"), name: relation.name,
            columns: relation.columns.map { ColumnSchema(name: $0.name, typeName: $0.typeName, type: $0.type) },
            primaryKey: ["id"])
        let findings = try await fixture.target.preflight(link, sources: [source])
        #expect(findings.map(\.code) == [.targetTableMismatch])
        #expect(findings.first?.mend == ["declare column c as \(targetDeclaration(for: LogicalType(name: type)))"])
    }

    @Test("S-types a STRICT table takes what its types hold, and ANY takes all")
    func strictTables() async throws {
        let relation = sqliteRelation(3, "s", ["id*:INTEGER", "i:INTEGER", "t:TEXT", "any:ANY"])
        let fixture = try TargetFixture(
            "CREATE TABLE s(id INTEGER PRIMARY KEY, i INTEGER, t TEXT, \"any\" ANY) STRICT")
        let applier = try await fixture.applier([relation])
        try await applier.apply(
            BatchWriter([relation]).transaction(10) { writer in
                writer.upsert(3, [1, 2, "t", "007"])
                writer.upsert(3, [2, 2, "t", 1.0])
            }.batch())
        #expect(
            try fixture.rows("SELECT * FROM s ORDER BY id") == [
                "i:1|i:2|t:t|t:007", "i:2|i:2|t:t|r:3ff0000000000000",
            ])
        let error = await failure {
            try await applier.apply(BatchWriter([relation]).transaction(11) { $0.upsert(3, [3, 2.0, "t", 1]) }.batch())
        }
        #expect(error?.code == .valueDoesNotFit)
        await applier.close()
    }

    @Test("column sets beyond 64 columns")
    func columnSets() {
        let numbers = [0, 1, 63, 64, 65, 127, 128, 1_999]
        let set = ColumnSet(numbers)
        for number in 0..<2_100 { #expect(set.contains(number) == numbers.contains(number)) }
        #expect(ColumnSet([Int]()).isEmpty)
        #expect(ColumnSet([70]) != ColumnSet([71]))
        #expect(!ColumnSet([70]).isEmpty)
    }

    @Test("P12 updates of a table with 300 columns set what was sent")
    func wideTable() async throws {
        let names = (0..<300).map { "c\($0)" }
        let relation = postgresRelation(3, "wide", ["id*:bigint"] + names.map { "\($0):text" })
        let fixture = try TargetFixture(
            "CREATE TABLE wide(id INTEGER PRIMARY KEY, \(names.map { "\($0) TEXT" }.joined(separator: ", ")))")
        let applier = try await fixture.applier([relation])
        try await applier.apply(
            BatchWriter([relation]).transaction(10) { writer in
                writer.insert(3, [1] + names.map { .text("old \($0)") })
                // Enough different statements to pass the bound of those that are kept.
                for kept in 0..<300 {
                    writer.update(
                        3, to: [1] + names.indices.map { $0 == kept ? .unchanged : .text("\(kept) \(names[$0])") })
                }
            }.batch())
        let row = try fixture.rows("SELECT c0, c64, c298, c299 FROM wide")
        #expect(row == ["t:299 c0|t:299 c64|t:299 c298|t:298 c299"])
        await applier.close()
    }
}

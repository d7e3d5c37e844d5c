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
            ("bigint", "TEXT"), ("boolean", "REAL"), ("integer", "DOUBLE"), ("double precision", "TEXT"), ("bytea", "TEXT STRICT"),
            ("text", "INTEGER STRICT"), ("numeric", "REAL STRICT"), ("boolean", "VARCHAR(5)"),
        ])
    func affinities(type: String, declared: String) async throws {
        let relation = postgresRelation(3, "v", ["id*:bigint", "c:\(type)"])
        let isStrict = declared.hasSuffix(" STRICT")
        let fixture = try TargetFixture(
            "CREATE TABLE v(id INTEGER PRIMARY KEY, c \(isStrict ? String(declared.dropLast(7)) : declared))\(isStrict ? "STRICT" : "")")
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

    @Test(
        "S16 text for a column of numbers is decided value by value, in copy and stream; what SQLite would change stops the link",
        arguments: [
            ("text", "STRING", ["007a", "", "-", " ", "2024-01-02", "0x10"], ["007", " 1", "1e400", "-.5\n"]),
            ("text", "INT", ["one"], ["1"]), ("text", "REAL", ["now"], ["5."]), ("text", "FLOATING POINT", ["1,5"], ["1.5"]),
            ("jsonb", "JSON", ["[1]", "null", "\"1\""], ["1"]), ("uuid", "UUID", ["123e4567-e89b-12d3-a456-426614174000"], []),
            ("timestamp with time zone", "DATETIME", ["2024-01-02 03:04:05.000000Z", "infinity"], []), ("date", "DATE", ["2024-01-02"], []),
            ("numeric(10,2)", "DECIMAL(10,2)", ["1.10", "5.00", "NaN"], ["1.1"]), ("numeric", "NUMERIC", ["1.1", "5"], ["1.10", "12345678901234567890.5"]),
            ("numeric", "REAL", ["1.1", "5", "-1200"], ["1.10", "5.0", "123456789012345678"]), ("numeric(10,2)", "DOUBLE", ["1.10", "5.00"], ["5"]),
            ("double precision", "NUMERIC", [1.5, 1.0, 1e300], [-0.0, .real(.nan)]), ("double precision", "INTEGER", [2.0, 2.5], [-0.0]),
        ] as [(String, String, [Value], [Value])])
    func numberColumns(type: String, declared: String, good: [Value], bad: [Value]) async throws {
        let relation = postgresRelation(3, "v", ["id*:bigint", "c:\(type)"])
        let fixture = try TargetFixture("CREATE TABLE v(id INTEGER PRIMARY KEY, c \(declared))")
        let applier = try await fixture.applier([relation])
        for (number, value) in good.enumerated() {
            try await applier.apply(
                BatchWriter([relation]).transaction(UInt64(10 + number)) { $0.insert(3, [.integer(Int64(number)), value]) }.batch())
        }
        let isText: (Value) -> Bool = { if case .text = $0 { true } else { false } }
        let kept = try fixture.rows("SELECT c FROM v WHERE typeof(c) = 'text' ORDER BY id")
        if !type.hasPrefix("numeric") {
            #expect(kept == good.filter(isText).map { if case .text(let text) = $0 { "t:\(text)" } else { "" } })
        }
        for value in bad {
            let error = await failure {
                try await applier.apply(BatchWriter([relation]).transaction(100) { $0.insert(3, [99, value]) }.batch())
            }
            #expect(error?.code == .valueDoesNotFit, "\(value)")
            #expect(error?.value(.table) == "v" && error?.value(.column) == "c", "\(value)")
        }
        #expect(try fixture.rows("SELECT count(*) FROM v") == ["i:\(good.count)"])
        await applier.close()
        try await copies(relation, declared, good: good, bad: bad)
    }

    private func copies(_ relation: Relation, _ declared: String, good: [Value], bad: [Value]) async throws {
        let fixture = try TargetFixture("CREATE TABLE v(id INTEGER PRIMARY KEY, c \(declared))")
        let link = fixture.link([relation])
        _ = try await fixture.target.prepareLink(link)
        try await fixture.target.recordOrigin(link, CaptureOrigin(identity: [:], position: .zero))
        let load = try await fixture.target.openLoad(link, mapping: link.mappings[0], columns: relation.columns, format: .rows)
        try await load.write(chunk(good.enumerated().map { [.integer(Int64($0)), $1] }))
        if let value = bad.first {
            let error = await failure { try await load.write(chunk([[99, value]])) }
            #expect(error?.code == .valueDoesNotFit && error?.value(.column) == "c")
        }
        #expect(try fixture.rows("SELECT count(*) FROM v") == ["i:\(good.count)"])
        await load.cancel()
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

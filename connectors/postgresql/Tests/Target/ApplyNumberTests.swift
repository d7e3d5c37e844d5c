import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

/// What becomes of another engine's values in columns of numbers, against a real server.
@Suite("PostgreSQL target: apply numbers")
struct ApplyNumberTests: ApplySuite {
    private static let columns = [
        ("n", "numeric"), ("s", "numeric(10,2)"), ("w", "numeric(6)"), ("h", "numeric(5,-2)"),
    ]

    private func fixture(_ direction: LinkDescription.Direction = .forward) async throws -> TargetFixture {
        let list = Self.columns.map { "\($0.0) \($0.1)" }.joined(separator: ", ")
        let fixture = try await TargetFixture("CREATE TABLE t (id bigint PRIMARY KEY, \(list))", tables: [(TableName(name: "t"), TargetFixture.name("t"))], form: .canonical, direction: direction)
        try await fixture.begin()
        return fixture
    }

    /// The source's columns, all of one type.
    private func described(_ type: String, declared: String) -> Relation {
        var described = relation(1, "t", [("id", "bigint")] + Self.columns.map { ($0.0, type) }, form: .canonical, schema: nil)
        for place in described.columns.indices.dropFirst() { described.columns[place].typeName = declared }
        return described
    }

    private func row(_ column: String, _ cell: TestCell) -> [TestCell] { [1] + Self.columns.map { $0.0 == column ? cell : nil } }

    /// A batch that stands behind all that was applied.
    private func writer(_ described: Relation, _ fixture: TargetFixture) async throws -> BatchWriter {
        let applied = try await fixture.checkpoint()?.position.commit ?? 0
        return BatchWriter(relations: [described], lsn: max(1_000, applied) + 100)
    }

    private func expectRefusal(_ cases: [(String, TestCell)], of described: Relation, _ fixture: TargetFixture) async throws {
        for (number, (column, cell)) in cases.enumerated() {
            // One value each way says that both ways look at it.
            for filler in number == 0 ? [0, Self.many] : [number % 2 * Self.many] {
                var writer = try await writer(described, fixture)
                writer.begin()
                for row in 0..<filler { writer.upsert(1, [.integer(Int64(100 + row))] + Self.columns.map { _ in nil }) }
                writer.upsert(1, row(column, cell))
                writer.commit()
                let applier = try await fixture.openApplier()
                let error = await #expect(throws: BridgeError.self, "\(column) \(cell)") { try await applier.apply(writer.take()) }
                #expect(error?.code == .valueDoesNotFit, "\(column) \(cell)")
                #expect(error?.context.first { $0.key == .column }?.value == column, "\(column) \(cell)")
                #expect(error?.context.first { $0.key == .table }?.value == "public.t", "\(column) \(cell)")
                await applier.close()
            }
        }
        #expect(try await fixture.sql("SELECT count(*) FROM t") == "0")
    }

    /// Applies a row for each cell, and gives back what the column then has.
    private func kept(_ column: String, _ cells: [TestCell], of described: Relation, _ fixture: TargetFixture) async throws -> [String] {
        for filler in [0, Self.many] {
            var writer = try await writer(described, fixture)
            writer.begin()
            for row in 0..<filler { writer.upsert(1, [.integer(Int64(100 + row))] + Self.columns.map { _ in nil }) }
            for (number, cell) in cells.enumerated() {
                writer.upsert(1, [.integer(Int64(number))] + Self.columns.map { $0.0 == column ? cell : nil })
            }
            writer.commit()
            let applier = try await fixture.openApplier()
            try await applier.apply(writer.take())
            await applier.close()
        }
        let found = try await fixture.sql("SELECT \(column)::text FROM t WHERE id < \(cells.count) ORDER BY id; TRUNCATE t")
        return found.split(separator: "\n").map(String.init).filter { $0 != "TRUNCATE TABLE" }
    }

    @Test("S16 text goes into a column of numbers only if it is what the type gives back")
    func text() async throws {
        let fixture = try await fixture()
        let described = described("text", declared: "TEXT")
        var bad: [(String, TestCell)] = ["007", "+5", " 5", "5 ", "1e3", "1E+3", ".5", "5.", "-0", "-0.00", "00", "", ".", "-", "nan", "inf", "0x10", "1_000"].map { ("n", .string($0)) }
        bad += ["1.1", "1.100", "5", "1.239", "05.00", "Infinity"].map { ("s", .string($0)) }
        bad += ["5.0", "007"].map { ("w", .string($0)) } + ["1234", "50", "1200.0"].map { ("h", .string($0)) }
        try await expectRefusal(bad, of: described, fixture)
        let good: [(String, [String])] = [
            ("n", ["0", "5", "-5", "1.10", "0.5", "0.00", "-0.05", "1200", "123456789012345678901234567890.10", "NaN", "Infinity", "-Infinity"]),
            ("s", ["1.10", "5.00", "-0.01", "0.00", "NaN"]), ("w", ["7", "0", "-999999"]), ("h", ["1200", "0", "-9999900"]),
        ]
        for (column, texts) in good {
            #expect(try await kept(column, texts.map { .string($0) }, of: described, fixture) == texts)
        }
        try await fixture.end()
    }

    @Test("S15 S16 on the way back a number of a scaled column may be written with other zeros at its end, and no other text may")
    func textOnTheWayBack() async throws {
        let fixture = try await fixture(.reverse)
        let described = described("text", declared: "TEXT")
        let bad: [(String, TestCell)] =
            ["007", "+5", "1e3", ".5", "5.", "-0", "1.239", "Infinity"].map { ("s", .string($0)) } + [("n", .string("007")), ("w", .string("1.5"))]
        try await expectRefusal(bad, of: described, fixture)
        let texts = ["7", "7.1", "7.100", "-0.5", "NaN"]
        #expect(try await kept("s", texts.map { .string($0) }, of: described, fixture) == ["7.00", "7.10", "7.10", "-0.50", "NaN"])
        #expect(try await kept("n", ["7.0", "7.10"].map { .string($0) }, of: described, fixture) == ["7.0", "7.10"])
        // Two rows of the source would be one.
        for index in ["CREATE UNIQUE INDEX u ON t(s)", "CREATE UNIQUE INDEX u ON t((s + 1))"] {
            try await fixture.cluster.psql(fixture.url, index)
            try await expectRefusal([("s", .string("7"))], of: described, fixture)
            #expect(try await kept("s", [.string("7.00")], of: described, fixture) == ["7.00"])
            try await fixture.cluster.psql(fixture.url, "DROP INDEX u")
        }
        try await fixture.end()
    }

    @Test("S15 S16 a double becomes the decimal that it is, without a zero behind the point, or stops the link")
    func doubles() async throws {
        let fixture = try await fixture()
        let described = described("double precision", declared: "REAL")
        try await expectRefusal(
            [("n", .real(-0.0)), ("n", .real(.infinity)), ("n", .real(.nan)), ("s", .real(1.239)), ("h", .real(1234))], of: described, fixture)
        #expect(
            try await kept("n", [.real(5), .real(1.5), .real(0), .real(1e20), .real(-2.5e-7)], of: described, fixture) == [
                "5", "1.5", "0", "100000000000000000000", "-0.00000025",
            ])
        #expect(try await kept("h", [.real(1200)], of: described, fixture) == ["1200"])
        let decimals = self.described("numeric", declared: "DECIMAL")
        try await expectRefusal([("h", 1234), ("h", -50)], of: decimals, fixture)
        #expect(try await kept("h", [1200, 0, -100], of: decimals, fixture) == ["1200", "0", "-100"])
        #expect(try await kept("s", [12, .real(1.5)], of: decimals, fixture) == ["12.00", "1.50"])
        try await fixture.end()
    }

    @Test("S16 a column without affinity keeps the class of its numbers, so none goes where it could not come back", arguments: ["", "ANY"])
    func withoutAffinity(_ declared: String) async throws {
        let fixture = try await TargetFixture(
            "CREATE TABLE t (id bigint PRIMARY KEY, f double precision, g real, n numeric, i bigint)",
            tables: [(TableName(name: "t"), TargetFixture.name("t"))], form: .canonical)
        try await fixture.begin()
        func described(_ column: String, _ type: LogicalType) -> Relation {
            Relation(
                id: 1, engine: EngineName(rawValue: "sqlite"), form: .canonical, name: TableName(name: "t"), identity: .key,
                columns: [
                    .init(name: "id", isKey: true, typeName: "INTEGER", type: .int64), .init(name: column, isKey: false, typeName: declared, type: type),
                ])
        }
        func apply(_ relation: Relation, _ cell: TestCell, filler: Int) async throws {
            var writer = try await writer(relation, fixture)
            writer.begin()
            for row in 0..<filler { writer.upsert(1, [.integer(Int64(100 + row)), nil]) }
            writer.upsert(1, [1, cell])
            writer.commit()
            let applier = try await fixture.openApplier()
            do { try await applier.apply(writer.take()) } catch {
                await applier.close()
                throw error
            }
            await applier.close()
        }
        for filler in [0, Self.many] {
            for column in ["f", "g"] {
                let error = await #expect(throws: BridgeError.self) { try await apply(described(column, .float64), 5, filler: filler) }
                #expect(error?.code == .valueDoesNotFit && error?.context.first { $0.key == .column }?.value == column)
                try await apply(described(column, .float64), .real(5), filler: filler)
            }
            // As a decimal a number would come back as text, as a double an integer would be one.
            for (column, type, cell) in [("n", .float64, .real(1.5)), ("n", .int64, 5), ("f", .int64, 5)] as [(String, LogicalType, TestCell)] {
                let error = await #expect(throws: BridgeError.self) { try await apply(described(column, type), cell, filler: filler) }
                #expect(error?.code == .schemaChanged && error?.context.first { $0.key == .column }?.value == column)
            }
            try await apply(described("i", .int64), 5, filler: filler)
        }
        #expect(try await fixture.sql("SELECT f, g, i FROM t WHERE id = 1") == "5|5|5")
        try await fixture.end()
    }
}

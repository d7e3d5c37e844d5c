import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

@Suite("PostgreSQL target: load, records, preflight")
struct LoadAndRecordsTests {
    private static func columns(_ list: [(String, String)]) -> [Relation.Column] {
        list.map { .init(name: $0.0, isKey: false, typeName: $0.1, type: LogicalType(name: $0.1)) }
    }

    private static func prepared(_ fixture: TargetFixture) async throws {
        _ = try await fixture.target.prepareLink(fixture.link)
        try await fixture.target.recordOrigin(
            fixture.link, CaptureOrigin(identity: ["system": "7", "slot": "a=b"], position: Position(commit: .max)))
    }

    private static func mapping(_ fixture: TargetFixture) throws -> TableMapping { try #require(fixture.link.mappings.first) }

    private static func chunk(_ rows: [[TestCell]]) -> RecordBuffer {
        let buffer = RecordBuffer()
        for row in rows {
            let start = buffer.count
            buffer.append(bigEndian: UInt32(0))
            buffer.append(row: row)
            buffer.patch(bigEndian: UInt32(buffer.count - start - 4), at: start)
        }
        return buffer
    }

    @Test("P20 P22 a load in each format is there whole with its record, or not at all")
    func load() async throws {
        let fixture = try await TargetFixture("CREATE TABLE t (id int PRIMARY KEY, v text)", tables: ["t"])
        try await Self.prepared(fixture)
        let columns = Self.columns([("id", "integer"), ("v", "text")])
        let mapping = try Self.mapping(fixture)
        // Given up: nothing is left, and the next load begins from an empty table.
        let first = try await fixture.target.openLoad(fixture.link, mapping: mapping, columns: columns, format: .rows)
        try await first.write(Self.chunk([[1, .string("a")]]))
        await first.cancel()
        #expect(try await fixture.sql("SELECT count(*) FROM t") == "0")
        let text = CopyFormat(rawValue: "postgresql.copy-text")
        let second = try await fixture.target.openLoad(fixture.link, mapping: mapping, columns: columns, format: text)
        let lines = RecordBuffer()
        lines.append(utf8: "1\ta\\tb\n2\t\\N\n3")
        try await second.write(lines)
        lines.removeAll()
        lines.append(utf8: "\tc\n")
        try await second.write(lines)
        #expect(try await fixture.sql("SELECT count(*) FROM t") == "0")
        try await second.finish(position: Position(commit: 77), rows: 3)
        #expect(try await fixture.sql("SELECT id, v FROM t ORDER BY id") == "1|a\tb\n2|\n3|c")
        let state = try await fixture.target.linkState(fixture.link)
        #expect(state?.tables[mapping.source] == .init(state: .done, position: Position(commit: 77), rows: 3))
        #expect(state?.phase == .copying)
        #expect(state?.origin?.position == Position(commit: .max))
        #expect(state?.origin?.identity == ["system": "7", "slot": "a=b"])
        try await fixture.target.finishCopy(fixture.link)
        #expect(try await fixture.checkpoint()?.frontier == Position(commit: .max))
        try await fixture.end()
    }

    @Test("P22 a binary stream is passed through, and binary is chosen only where the types are the same")
    func binary() async throws {
        let fixture = try await TargetFixture(
            "CREATE TYPE mood AS ENUM ('a'); CREATE TABLE t (id int PRIMARY KEY, n numeric); CREATE TABLE w (id bigint PRIMARY KEY, n numeric); CREATE TABLE e (id int PRIMARY KEY, n mood[])",
            tables: ["t"])
        try await fixture.cluster.psql(
            fixture.url, "CREATE TABLE s (id int PRIMARY KEY, n numeric); INSERT INTO s VALUES (1, 'NaN'), (2, 1.10), (3, NULL); CREATE TABLE f (id int PRIMARY KEY, n mood[])")
        let formats = [CopyFormat(rawValue: "postgresql.copy-binary"), CopyFormat(rawValue: "postgresql.copy-text"), .rows]
        let described = try await fixture.target.describeTables([TargetFixture.name("s"), TargetFixture.name("f")])
        let expected = [("t", 0, 0), ("w", 0, 1), ("e", 1, 1)]
        for (name, source, format) in expected {
            let mapping = TableMapping(source: described[source].name, target: TargetFixture.name(name))
            #expect(try await fixture.target.chooseCopyFormat(formats, source: described[source], mapping: mapping) == formats[format])
        }
        #expect(
            try await fixture.target.chooseCopyFormat(
                [.rows], source: described[0], mapping: TableMapping(source: described[0].name, target: TargetFixture.name("t")))
                == .rows)
        try await fixture.end()
    }

    @Test("P20 a table with rows that bridge did not load is not touched")
    func notEmpty() async throws {
        let fixture = try await TargetFixture(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (9, 'mine')", tables: ["t"])
        try await Self.prepared(fixture)
        let columns = Self.columns([("id", "integer"), ("v", "text")])
        let mapping = try Self.mapping(fixture)
        let error = await #expect(throws: BridgeError.self) {
            _ = try await fixture.target.openLoad(fixture.link, mapping: mapping, columns: columns, format: .rows)
        }
        #expect(error?.code == .targetTableNotEmpty)
        #expect(try await fixture.sql("TABLE t") == "9|mine")
        try await fixture.end()
    }

    @Test("S16 a value that does not fit stops the load with column and row, and leaves nothing")
    func badValue() async throws {
        let fixture = try await TargetFixture("CREATE TABLE t (id int PRIMARY KEY, v text)", tables: ["t"], form: .canonical)
        try await Self.prepared(fixture)
        let columns = Self.columns([("id", "integer"), ("v", "text")])
        let load = try await fixture.target.openLoad(fixture.link, mapping: try Self.mapping(fixture), columns: columns, format: .rows)
        try await load.write(Self.chunk([[1, .string("a")]]))
        let error = await #expect(throws: BridgeError.self) {
            try await load.write(Self.chunk([[2, .string([0x73, 0x65, 0x63, 0x72, 0x65, 0x74, 0])]]))
        }
        #expect(error?.code == .valueDoesNotFit)
        #expect(error?.context.contains(ErrorContext(.column, "v")) == true)
        #expect(error?.context.contains(ErrorContext(.detail, "row 2 of the copy")) == true)
        #expect(error.map { "\($0)".contains("secret") } == false)
        #expect(try await fixture.sql("SELECT count(*) FROM t") == "0")
        try await fixture.end()
    }

    @Test("P5 another origin, and another set of tables, are refused by the records")
    func records() async throws {
        let fixture = try await TargetFixture("CREATE TABLE t (id int PRIMARY KEY)", tables: ["t"])
        #expect(try await fixture.target.linkState(fixture.link) == nil)
        try await Self.prepared(fixture)
        // The same step again is no error.
        try await Self.prepared(fixture)
        let other = await #expect(throws: BridgeError.self) {
            try await fixture.target.recordOrigin(fixture.link, CaptureOrigin(identity: ["system": "8"], position: .zero))
        }
        #expect(other?.code == .checkpointForeign)
        var link = fixture.link
        link.mappings.append(TableMapping(source: TargetFixture.name("u"), target: TargetFixture.name("u")))
        let changed = link
        let tables = await #expect(throws: BridgeError.self) { _ = try await fixture.target.linkState(changed) }
        #expect(tables?.code == .configurationInvalid)
        #expect(tables?.message.contains("added: public.u") == true)
        let early = await #expect(throws: BridgeError.self) { _ = try await fixture.openApplier() }
        #expect(early?.code == .internalFault)
        try await fixture.target.removeLink(fixture.link)
        try await fixture.target.removeLink(fixture.link)
        #expect(try await fixture.sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%bridge%'") == "0")
        try await fixture.end()
    }

    @Test("P35 preflight finds what stands in the way and names what mends it")
    func preflight() async throws {
        let fixture = try await TargetFixture(
            """
            CREATE TABLE narrow (id int PRIMARY KEY, v varchar(3));
            CREATE TABLE keyless (id bigint, v text);
            CREATE TABLE demanding (id bigint PRIMARY KEY, must text NOT NULL);
            CREATE TABLE filled (id bigint PRIMARY KEY, v text); INSERT INTO filled VALUES (1, 'x');
            CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
            CREATE TRIGGER always BEFORE INSERT ON filled FOR EACH ROW EXECUTE FUNCTION f();
            ALTER TABLE filled ENABLE ALWAYS TRIGGER always;
            CREATE RULE ruler AS ON UPDATE TO filled DO ALSO NOTHING; ALTER TABLE filled ENABLE REPLICA RULE ruler;
            CREATE RULE quiet AS ON DELETE TO filled DO ALSO NOTHING
            """, tables: ["narrow", "keyless", "demanding", "filled", "gone"])
        let sources = ["narrow", "keyless", "demanding", "filled", "gone"].map { name in
            TableSchema(
                engine: .postgresql, name: TargetFixture.name(name),
                columns: [
                    ColumnSchema(name: "id", typeName: "bigint", type: .int64, isNotNull: true),
                    ColumnSchema(name: "v", typeName: "text", type: .text),
                ], primaryKey: ["id"])
        }
        let findings = try await fixture.target.preflight(fixture.link, sources: sources)
        func codes(_ table: String) -> [ErrorCode] { findings.filter { $0.table?.name == table }.map(\.code) }
        #expect(codes("narrow") == [.targetTableMismatch, .targetTableMismatch])
        #expect(codes("keyless") == [.targetTableMismatch])
        #expect(codes("demanding") == [.targetTableMismatch, .targetTableMismatch])
        #expect(codes("filled") == [.targetTableNotEmpty, .targetTableMismatch, .targetTableMismatch])
        #expect(findings.filter { $0.table?.name == "filled" }.map(\.severity) == [.blocking, .warning, .warning])
        #expect(findings.filter { $0.what.contains("ruler") }.count == 1 && !findings.contains { $0.what.contains("quiet") })
        #expect(codes("gone") == [.targetTableMissing])
        #expect(findings.allSatisfy { !$0.mend.isEmpty })
        #expect(try await fixture.sql("SELECT count(*) FROM pg_namespace WHERE nspname = '_bridge'") == "0")
        try await fixture.end()
    }

    @Test("P35 keys that the target takes for one, computed columns that it does not compute, types and tables that it cannot have")
    func differences() async throws {
        let fixture = try await TargetFixture(
            """
            CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
            CREATE TABLE collated (id text COLLATE loose PRIMARY KEY, v text); CREATE TABLE computed (id text PRIMARY KEY, v text);
            CREATE VIEW viewed AS SELECT 'a' AS id, 'b' AS v
            """, tables: ["collated", "computed", "viewed", "typed"])
        let sources = ["collated", "computed", "viewed", "typed"].map { name in
            var table = TableSchema(
                engine: .postgresql, name: TargetFixture.name(name),
                columns: [ColumnSchema(name: "id", typeName: "text", type: .text, isNotNull: true), ColumnSchema(name: "v", typeName: "text", type: .text)],
                primaryKey: ["id"])
            if name == "computed" { table.columns[1].generation = .stored("upper(id)") }
            if name == "typed" { table.columns[1].typeName = "public.nowhere" }
            return table
        }
        let findings = try await fixture.target.preflight(fixture.link, sources: sources)
        func found(_ table: String, _ what: String) -> Finding? { findings.first { $0.table?.name == table && $0.what.contains(what) } }
        #expect(found("collated", "the collation public.loose, which is not deterministic")?.severity == .warning)
        #expect(found("computed", "is computed on the source")?.mend.first?.hasSuffix("ADD COLUMN \"v\" text GENERATED ALWAYS AS (upper(id)) STORED") == true)
        #expect(found("viewed", "is no table on the target")?.severity == .blocking)
        #expect(found("typed", "the target has no type public.nowhere")?.severity == .blocking)
        #expect(findings.allSatisfy { !$0.mend.isEmpty && !$0.why.isEmpty })
        try await fixture.end()
    }

    @Test("P35 a role without rights is told the exact GRANTs, and with them it can run")
    func rights() async throws {
        let owner = try await TargetFixture("CREATE TABLE t (id int PRIMARY KEY, v text)", tables: ["t"])
        let role = "app_\(owner.link.migration)"
        try await owner.cluster.psql(
            owner.url, "CREATE ROLE \(role) LOGIN; REVOKE TEMPORARY ON DATABASE \(databaseName(owner.url)) FROM PUBLIC")
        let url = owner.cluster.uri(databaseName(owner.url), user: role)
        let target = PostgresTarget(connectionString: url)
        let source = TableSchema(
            engine: .postgresql, name: TargetFixture.name("t"),
            columns: [
                ColumnSchema(name: "id", typeName: "integer", type: .int32, isNotNull: true),
                ColumnSchema(name: "v", typeName: "text", type: .text),
            ], primaryKey: ["id"])
        let findings = try await target.preflight(owner.link, sources: [source])
        #expect(findings.count == 5, "\(findings.map(\.what))")
        #expect(findings.allSatisfy { $0.code == .rightsMissing && $0.severity == .blocking })
        for statement in findings.flatMap(\.mend) { try await owner.cluster.psql(owner.url, statement) }
        #expect(try await target.preflight(owner.link, sources: [source]).isEmpty)
        _ = try await target.prepareLink(owner.link)
        try await target.recordOrigin(owner.link, CaptureOrigin(identity: ["a": "b"], position: Position(commit: 1)))
        let load = try await target.openLoad(
            owner.link, mapping: try Self.mapping(owner), columns: Self.columns([("id", "integer"), ("v", "text")]), format: .rows)
        try await load.write(Self.chunk([[1, .string("a")]]))
        try await load.finish(position: Position(commit: 1), rows: 1)
        try await target.finishCopy(owner.link)
        let applier = try await target.openApplier(owner.link)
        for rows in [2, 100] {
            var writer = BatchWriter(relations: [relation(1, "t", [("id", "integer"), ("v", "text")])], lsn: UInt64(rows) * 1_000)
            writer.begin()
            for row in 0..<rows { writer.insert(1, [.text("\(rows * 100 + row)"), "x"]) }
            writer.truncate([1])
            writer.commit()
            try await applier.apply(writer.take())
        }
        await applier.close()
        try await target.removeLink(owner.link)
        await target.close()
        try await owner.cluster.psql(owner.url, "DROP OWNED BY \(role); DROP ROLE \(role)")
        await owner.target.close()
    }

    private func databaseName(_ url: String) -> String {
        String(url.split(separator: "/")[2].prefix { $0 != "?" })
    }
}

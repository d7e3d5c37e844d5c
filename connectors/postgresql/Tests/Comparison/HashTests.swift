import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// What the servers' hashes tell apart, and what they do not.
struct HashTests {
    struct Case {
        var name: String
        /// Columns of a table.
        var columns: String
        var rows: String
        /// What is done to the target's table, `t` in braces.
        var fault: String
        /// The target's columns, if they are others.
        var targetColumns: String?

        init(_ name: String, _ columns: String, _ rows: String, _ fault: String, target: String? = nil) {
            self.name = name
            self.columns = columns
            self.rows = rows
            self.fault = fault
            targetColumns = target
        }
    }

    static func one(_ name: String, _ type: String, _ before: String, _ after: String) -> Case {
        Case(name, "id int PRIMARY KEY, v \(type)", "(1, \(before)), (2, \(before))", "UPDATE {t} SET v = \(after) WHERE id = 2")
    }

    static let types = """
        CREATE TYPE mood AS ENUM ('sad', 'happy');
        CREATE TYPE pair AS (a int, b char(3));
        CREATE DOMAIN name_of AS text;
        CREATE DOMAIN sizes AS int[];
        CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        """

    static let faults: [Case] = [
        one("byte flip", "text", "'abcdef'", "'abcdeg'"),
        one("byte flip, varchar", "varchar(9)", "'abcdef'", "'abcdeg'"),
        one("byte flip, domain", "name_of", "'abcdef'", "'abcdeg'"),
        Case("deleted row", "id int PRIMARY KEY", "(1), (2)", "DELETE FROM {t} WHERE id = 2"),
        Case("extra row", "id int PRIMARY KEY", "(1), (2)", "INSERT INTO {t} VALUES (3)"),
        Case("another key", "id int PRIMARY KEY, v text", "(1, 'a'), (2, 'b')", "UPDATE {t} SET id = 3 WHERE id = 2"),
        Case("update on the wrong key", "id int PRIMARY KEY, v text", "(1, 'a'), (2, 'a')", "UPDATE {t} SET v = 'b' WHERE id = 1"),
        Case("columns swapped", "id int PRIMARY KEY, a text, b text", "(1, 'x', 'y')", "UPDATE {t} SET a = b, b = a"),
        Case("swapped between rows, text", "id int PRIMARY KEY, v text, w int", "(1, 'a', 1), (2, 'b', 2)", "UPDATE {t} SET v = chr(196 - ascii(v) - 1)"),
        Case("swapped between rows, int", "id int PRIMARY KEY, v int", "(1, 10), (2, 20)", "UPDATE {t} SET v = 30 - v"),
        Case("swapped between rows, bigint", "id bigint PRIMARY KEY, v bigint", "(1, 10), (2, 20)", "UPDATE {t} SET v = 30 - v"),
        Case("swapped between rows, numeric", "id int PRIMARY KEY, v numeric", "(1, 10), (2, 20)", "UPDATE {t} SET v = 30 - v"),
        Case("swapped between rows, float", "id int PRIMARY KEY, v float8", "(1, 10), (2, 20)", "UPDATE {t} SET v = 30 - v"),
        Case("all values turned round", "id int PRIMARY KEY, v int", "(1, 4), (2, 3), (3, 2), (4, 1)", "UPDATE {t} SET v = 5 - v"),
        Case("a pair twice, keyless", "a int, b text", "(1, 'x'), (1, 'x'), (2, 'y')", "UPDATE {t} SET a = 2, b = 'y' WHERE ctid = '(0,1)'"),
        Case("two pairs more, keyless", "a int", "(1)", "INSERT INTO {t} VALUES (2), (2)"),
        one("trailing space", "text", "'a'", "'a '"),
        one("trailing space, unbounded bpchar", "bpchar", "'a'", "'a '"),
        one("NULL and empty", "text", "NULL", "''"),
        one("NULL and 0", "int", "NULL", "0"),
        one("NULL and NaN", "float8", "NULL", "'NaN'"),
        one("NULL and NaN, numeric", "numeric", "NULL", "'NaN'"),
        one("NaN and Infinity", "float8", "'NaN'", "'Infinity'"),
        one("NaN and Infinity, real", "real", "'NaN'", "'Infinity'"),
        one("infinities", "float8", "'-Infinity'", "'Infinity'"),
        one("a numeric's sign", "numeric(12,2)", "5", "-5"),
        one("a numeric's scale within bounds", "numeric(12,2)", "0.05", "5"),
        one("a numeric's digit places", "numeric(12,2)", "5", "50000"),
        one("0 and NaN, numeric", "numeric(12,2)", "0", "'NaN'"),
        one("NULL and NaN, bounded numeric", "numeric(12,2)", "NULL", "'NaN'"),
        one("NULL and 0, bounded numeric", "numeric(12,2)", "NULL", "0"),
        one("numeric by one unit", "numeric(12,2)", "1234567.89", "1234567.90"),
        one("swapped signs", "numeric(12,2)", "-1", "1"),
        Case("two numerics, other digit places", "id int PRIMARY KEY, v numeric(12,2), w numeric(12,2)", "(1, 5, 7)", "UPDATE {t} SET v = v * 10000, w = w * 10000"),
        Case("columns swapped, numeric", "id int PRIMARY KEY, v numeric(12,2), w numeric(12,2)", "(1, 1, 10000)", "UPDATE {t} SET v = w, w = v"),
        Case("0 and NaN in two numerics", "id int PRIMARY KEY, a numeric(9,2), b numeric(9,2), c numeric(9,2), d numeric(9,2)", "(1, 0, 0, 0, 0)", "UPDATE {t} SET a = 'NaN', b = 'NaN', c = 'NaN', d = 'NaN'"),
        one("infinities, numeric", "numeric", "'-Infinity'", "'Infinity'"),
        one("last bit of a double", "float8", "0.1", "0.10000000000000002"),
        one("last bit of a real", "real", "0.1", "0.10000001"),
        one("last bit in an array", "float8[]", "'{0.1}'", "'{0.10000000000000002}'"),
        one("-0 and 0", "float8", "0", "'-0'"),
        one("-0 and 0, real", "real", "0", "'-0'"),
        one("-0 and 0 in an array", "real[]", "'{0}'", "'{-0}'"),
        one("one microsecond", "timestamptz", "'2024-01-01 00:00:00Z'", "'2024-01-01 00:00:00.000001Z'"),
        one("one microsecond, timestamp", "timestamp", "'2024-01-01'", "'2024-01-01 00:00:00.000001'"),
        one("one microsecond, time", "time", "'10:00'", "'10:00:00.000001'"),
        one("shifted by a zone", "timestamptz", "'2024-01-01 12:00Z'", "'2024-01-01 12:00+02'"),
        one("times whose halves fold alike", "timestamp", "'2000-01-01 00:00:00.000001'", "'2000-01-01 01:11:34.967296'"),
        one("integers whose halves fold alike", "bigint", "1", "4294967296"),
        one("integers whose halves fold alike, negative", "bigint", "-1", "-4294967298"),
        one("timetz of one instant", "timetz", "'10:00+00'", "'11:00+01'"),
        one("one day", "date", "'2024-01-01'", "'2024-01-02'"),
        one("NFC and NFD", "text", "U&'\\00E9'", "U&'e\\0301'"),
        one("letter case", "text", "'a'", "'A'"),
        one("letter case, nondeterministic", "text COLLATE anycase", "'a'", "'A'"),
        one("1 mon and 30 days", "interval", "'1 mon'", "'30 days'"),
        one("1 day and 24 hours", "interval", "'1 day'", "'24 hours'"),
        one("intervals in an array", "interval[]", "'{1 mon}'", "'{30 days}'"),
        one("array bounds", "int[]", "'{1,2}'", "'[0:1]={1,2}'"),
        one("array bounds, domain", "sizes", "'{1,2}'", "'[0:1]={1,2}'"),
        one("array's dimensions", "int[]", "'{1,2}'", "'{{1,2}}'"),
        one("NULL in an array", "text[]", "'{NULL}'", "'{\"NULL\"}'"),
        one("one bit of bytea", "bytea", "'\\x00ff00'", "'\\x00fe00'"),
        one("numeric by one unit", "numeric(30,2)", "12345678901234567890.12", "12345678901234567890.13"),
        one("numeric scale", "numeric", "1.0", "1.00"),
        one("numeric scale in an array", "numeric[]", "'{1.0}'", "'{1.00}'"),
        one("json spacing", "json", "'{\"a\":1}'", "'{\"a\": 1}'"),
        one("jsonb value", "jsonb", "'{\"a\":1}'", "'{\"a\":2}'"),
        one("jsonb number's scale", "jsonb", "'1.0'", "'1.00'"),
        one("jsonb null and NULL", "jsonb", "'null'", "NULL"),
        one("enum", "mood", "'sad'", "'happy'"),
        one("enum array", "mood[]", "'{sad}'", "'{happy}'"),
        one("composite", "pair", "ROW(1, 'a')", "ROW(2, 'a')"),
        one("composite of NULLs and NULL", "pair", "NULL", "ROW(NULL, NULL)"),
        one("range bound", "numrange", "'[1,2]'", "'[1,2)'"),
        one("range's numeric scale", "numrange", "'[1.0,2)'", "'[1.00,2)'"),
        one("multirange", "int4multirange", "'{[1,3)}'", "'{[1,4)}'"),
        one("inet and its mask", "inet", "'10.0.0.1'", "'10.0.0.1/24'"),
        one("money", "money", "1.00", "1.01"),
        one("bit string's length", "bit varying", "B'1'", "B'10'"),
        one("boolean", "boolean", "true", "false"),
        one("uuid", "uuid", "'00000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-0000-000000000002'"),
        one("point", "point", "'(1,2)'", "'(1,2.0000000000000004)'"),
        one("text search", "tsvector", "'a:1'", "'a:2'"),
        Case("faults that cancel", "id int PRIMARY KEY, v int", "(1, 10), (2, 20)", "UPDATE {t} SET v = v + CASE id WHEN 1 THEN 1 ELSE -1 END"),
        Case("faults that cancel between columns", "id int PRIMARY KEY, v int, w int", "(1, 10, 10)", "UPDATE {t} SET v = v + 1, w = w - 1"),
        Case("neighbouring texts", "id int PRIMARY KEY, v text, w text", "(1, 'ab', 'c')", "UPDATE {t} SET v = 'a', w = 'bc'"),
    ]

    static let equals: [Case] = [
        one("same instant in another zone", "timestamptz", "'2024-01-01 12:00Z'", "'2024-01-01 14:00+02'"),
        one("jsonb key order", "jsonb", "'{\"a\":1,\"b\":2}'", "'{\"b\" : 2, \"a\" : 1}'"),
        one("uuid case", "uuid", "'abcdefab-0000-0000-0000-00000000000f'", "'ABCDEFAB-0000-0000-0000-00000000000F'"),
        one("canonical ranges", "int4range", "'[1,2]'", "'[1,3)'"),
        one("char(n) padding", "char(5)", "'ab'", "'ab   '"),
        one("a computed NaN", "float8", "'NaN'", "'Infinity'::float8 - 'Infinity'::float8"),
        one("a computed NaN, real", "real", "'NaN'", "'Infinity'::real - 'Infinity'::real"),
        one("a computed NaN in an array", "float8[]", "'{NaN}'", "ARRAY['Infinity'::float8 - 'Infinity'::float8]"),
        one("bytea's spelling", "bytea", "'\\x6162'", "'ab'"),
        Case("another order of rows", "id int PRIMARY KEY, v text", "(1, 'a'), (2, 'b')", "DELETE FROM {t}; INSERT INTO {t} VALUES (2, 'b'), (1, 'a')"),
        Case("another order of columns", "id int PRIMARY KEY, v text, w text", "(1, 'a', 'b')", "INSERT INTO {t} (id, v, w) VALUES (1, 'a', 'b')", target: "w text, gone int, id int PRIMARY KEY, v text"),
        Case("text, varchar and domain", "id int PRIMARY KEY, v text, w name_of", "(1, 'a', 'b')", "INSERT INTO {t} VALUES (1, 'a', 'b')", target: "id int PRIMARY KEY, v varchar(3), w text"),
    ]

    private static func fixture(_ cases: [Case]) async throws -> ComparisonFixture {
        var source = types
        // Other numbers for the same types, and settings that change the text of values.
        var target = "CREATE TYPE mood_before AS ENUM ('x', 'y', 'z'); CREATE TABLE before (a int);" + types
        for (index, item) in cases.enumerated() {
            source += "CREATE TABLE c\(index) (\(item.columns)); INSERT INTO c\(index) VALUES \(item.rows);\n"
            target += "CREATE TABLE c\(index) (\(item.targetColumns ?? item.columns));"
            if item.targetColumns == nil { target += "INSERT INTO c\(index) VALUES \(item.rows);" }
            target += item.fault.replacing("{t}", with: "c\(index)") + ";\n"
        }
        target += """
            DO $$ BEGIN
              EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Tokyo''', current_database());
              EXECUTE format('ALTER DATABASE %I SET DateStyle = ''German''', current_database());
              EXECUTE format('ALTER DATABASE %I SET extra_float_digits = 0', current_database());
              EXECUTE format('ALTER DATABASE %I SET IntervalStyle = ''iso_8601''', current_database());
              EXECUTE format('ALTER DATABASE %I SET bytea_output = ''escape''', current_database());
            END $$;
            """
        return try await ComparisonFixture(source, target: target, tables: cases.indices.map { "c\($0)" })
    }

    @Test("K4 K7 K8 every fault changes the server's digest, in all and in its buckets")
    func faults() async throws {
        let fixture = try await Self.fixture(Self.faults)
        let a = try await fixture.source.openView()
        let b = try await fixture.target.openView()
        for (index, item) in Self.faults.enumerated() {
            let (left, right) = try await fixture.requests(index)
            try #require(left.layout.serverHash != nil && left.layout.serverHash == right.layout.serverHash, "\(item.name)")
            let one = try await (a.digest(left, buckets: 1), b.digest(right, buckets: 1))
            #expect(one.0 != one.1, "\(item.name)")
            let many = try await (a.digest(left, buckets: 7), b.digest(right, buckets: 7))
            #expect(many.0 != many.1, "\(item.name)")
            #expect(total(many.0) == total(one.0) && total(many.1) == total(one.1), "\(item.name)")
            // The hashes that are handed out are the ones that were summed.
            let hashes = try await drain(try await a.openHashes(left, buckets: 1, wanted: [0]))
            let sum = hashes.reduce(into: RowDigest()) { sum, line in
                sum.add(UInt128(truncatingIfNeeded: line.split(separator: "|").last.flatMap { Int64($0.dropFirst()) } ?? 0))
            }
            #expect(sum == total(one.0), "\(item.name)")
        }
        await a.close()
        await b.close()
        try await fixture.end()
    }

    @Test("K9 K11 what is equal by declaration has one digest, under any settings, type numbers and order of columns")
    func equal() async throws {
        // Every fault's table before its fault is equal too.
        let cases = Self.equals + Self.faults.map { Case($0.name, $0.columns, $0.rows, "SELECT 1") }
        let fixture = try await Self.fixture(cases)
        let a = try await fixture.source.openView()
        let b = try await fixture.target.openView()
        for (index, item) in cases.enumerated() {
            let (left, right) = try await fixture.requests(index)
            #expect(left.layout.serverHash == right.layout.serverHash, "\(item.name)")
            let digests = try await (a.digest(left, buckets: 5), b.digest(right, buckets: 5))
            #expect(digests.0 == digests.1, "\(item.name)")
            let rows = try await (drain(a.openRows(left)), drain(b.openRows(right)))
            #expect(rows.0 == rows.1, "\(item.name)")
            #expect(UInt64(rows.0.count) == total(digests.0).count && !rows.0.isEmpty, "\(item.name)")
            // Each row is found by its own key, whatever its type.
            let (keys, hashes) = try await (Self.keys(a, left), drain(a.openHashes(left, buckets: 1, wanted: [0])))
            let found = RecordBuffer()
            try await b.findRows(right, keys: keys, into: found)
            #expect(try lines(found) == rows.1, "\(item.name)")
            found.removeAll()
            try await b.findHashes(right, keys: keys, into: found)
            #expect(try lines(found) == hashes, "\(item.name)")
        }
        await a.close()
        await b.close()
        try await fixture.end()
    }

    /// The keys of all rows, as the hashes have them.
    private static func keys(_ view: any ComparisonView, _ request: ComparisonRequest) async throws -> [KeyImage] {
        let buffer = RecordBuffer()
        let stream = try await view.openHashes(request, buckets: 1, wanted: [0])
        while try await stream.read(into: buffer, limit: 1 << 20) > 0 {}
        var reader = ByteReader(buffer.bytes)
        var keys: [KeyImage] = []
        while !reader.isAtEnd {
            _ = try reader.readInteger(UInt32.self)
            let image = try RowImage(&reader)
            let key = RecordBuffer()
            key.beginRowImage(columns: image.columnCount - 1)
            var cells = image.cells
            for _ in 1..<image.columnCount {
                guard let cell = try cells.next() else { break }
                if cell.tag == .null { key.appendCell(.null) } else { key.appendCell(cell.tag, cell.bytes) }
            }
            keys.append(KeyImage(Array(key.bytes)))
        }
        return keys
    }

    @Test("K11 columns called like their table, like the alias, or with quotes do no harm")
    func names() async throws {
        let fixture = try await ComparisonFixture(
            """
            CREATE TABLE same (id int PRIMARY KEY, same text, s text, x text, h int, b int, k int, "q""'u" text);
            INSERT INTO same VALUES (1, 'a', 'b', 'c', 1, 2, 3, 'd'), (2, 'a', 'b', 'c', 1, 2, 3, 'd');
            """, tables: ["same"], rowFilter: "same.id > 0 AND same = 'a'")
        let (left, right) = try await fixture.requests()
        let a = try await fixture.source.openView()
        let b = try await fixture.target.openView()
        let before = try await a.digest(left, buckets: 1)
        #expect(try await b.digest(right, buckets: 1) == before)
        #expect(try await drain(a.openRows(left)) == drain(b.openRows(right)))
        let buffer = RecordBuffer()
        #expect(try await a.findRows(left, keys: [key(.integer(2))], into: buffer) == 1)
        #expect(try await a.findHashes(left, keys: [key("2")], into: buffer) == 1)
        await a.close()
        await b.close()
        for column in ["same", "s", "x", "\"q\"\"'u\""] {
            try await fixture.cluster.psql(fixture.targetURL, "UPDATE same SET \(column) = \(column) || '!' WHERE id = 2")
            let view = try await fixture.target.openView()
            #expect(try await view.digest(right, buckets: 1) != before, "\(column)")
            await view.close()
            try await fixture.cluster.psql(fixture.targetURL, "UPDATE same SET \(column) = rtrim(\(column), '!') WHERE id = 2")
        }
        try await fixture.end()
    }

    @Test("K4 columns of other types, and char(n) of another length, have no hash in common")
    func different() async throws {
        let types = [("int", "bigint"), ("char(3)", "char(4)"), ("json", "jsonb"), ("real", "float8"), ("text", "bytea"), ("timestamp", "timestamptz")]
        func tables(_ pick: (Int) -> String) -> String {
            types.indices.map { "CREATE TABLE c\($0) (id int PRIMARY KEY, v \(pick($0)));" }.joined()
        }
        let fixture = try await ComparisonFixture(
            tables { types[$0].0 }, target: tables { types[$0].1 }, tables: types.indices.map { "c\($0)" })
        for index in types.indices {
            let (left, right) = try await fixture.requests(index)
            #expect(left.layout.serverHash != right.layout.serverHash, "\(types[index])")
        }
        try await fixture.end()
    }
}

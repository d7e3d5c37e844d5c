import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

@Suite("SQLite comparison: rows and keys")
struct KeyTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var sql: String
        /// Columns compared, and the row's key out of them.
        var columns: [String]
        var keyPlaces: [Int]
        /// Keys that no row has, though SQLite may call one equal.
        var missing: [[Value]]
        var testDescription: String { name }
    }

    static let cases: [Case] = [
        Case(
            name: "no affinity: 1, '1' and x'31'",
            sql: "CREATE TABLE t(k PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES(1, 'i'), ('1', 't'), (x'31', 'b'), (2.0, 'r'), (-0.0, 'z'), ('', 'e'), (x'', 'f')",
            columns: ["k", "v"], keyPlaces: [0], missing: [[1.0], [2], [0], [0.0], [.bytes([0x31, 0])], [nil], [.real(.nan)]]),
        Case(
            name: "rowid", sql: "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 1), (-5, NULL), (9223372036854775807, 2)",
            columns: ["a", "b"], keyPlaces: [0], missing: [["1.5"], [1.5], [.blob([0x31])], [nil], [2], ["x"], ["9223372036854775808"]]),
        Case(
            name: "INTEGER affinity that holds text",
            sql: "CREATE TABLE t(a INT PRIMARY KEY NOT NULL, b); INSERT INTO t VALUES(1, 1), ('x', 2), (x'31', 3), (1.5, 4)",
            columns: ["a", "b"], keyPlaces: [0], missing: [[" 1"], [2.0], [.blob([0x78])], ["X"], ["1.50001"]]),
        Case(
            name: "TEXT affinity", sql: "CREATE TABLE t(a TEXT PRIMARY KEY NOT NULL, b); INSERT INTO t VALUES(1, 1), ('a', 2), ('a ', 3), (x'61', 4), ('é', 5), ('e\u{301}', 6)",
            columns: ["a", "b"], keyPlaces: [0], missing: [[2], [1.5], ["A"], ["a  "]]),
        Case(
            name: "NOCASE key", sql: "CREATE TABLE t(a TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, b); INSERT INTO t VALUES('Ab', 1), ('b', 2)",
            columns: ["a", "b"], keyPlaces: [0], missing: [["AB"], ["ab"], ["B"]]),
        Case(
            name: "key index with another collation than the column",
            sql: "CREATE TABLE t(a TEXT NOT NULL, b, PRIMARY KEY(a COLLATE NOCASE)); INSERT INTO t VALUES('Ab', 1), ('b', 2)",
            columns: ["a", "b"], keyPlaces: [0], missing: [["AB"], ["B"]]),
        Case(
            name: "composite, WITHOUT ROWID, key in another order than the columns",
            sql: "CREATE TABLE t(x, a TEXT COLLATE RTRIM, b, PRIMARY KEY(b, a)) WITHOUT ROWID; INSERT INTO t VALUES(0, 'a', 1), (1, 'a', '1'), (2, 'b ', 1), (3, 'a', x'31')",
            columns: ["x", "a", "b"], keyPlaces: [1, 2], missing: [["b", 1], ["a", 1.0], ["b", "1"]]),
        Case(
            name: "STRICT with ANY", sql: "CREATE TABLE t(a ANY PRIMARY KEY NOT NULL, b REAL) STRICT; INSERT INTO t VALUES(1, 1), ('1', 2), (1.5, NULL), (x'00', 4)",
            columns: ["a", "b"], keyPlaces: [0], missing: [[1.0], ["1.5"]]),
        Case(
            name: "generated columns do not travel",
            sql: "CREATE TABLE t(g AS (a || '!'), a TEXT PRIMARY KEY NOT NULL, h TEXT AS (b + 1) STORED, b INT); INSERT INTO t(a, b) VALUES('a', 1), ('b', 2)",
            columns: ["a", "b"], keyPlaces: [0], missing: [["a!"]]),
        Case(
            name: "columns named like the table and the rowid",
            sql: "CREATE TABLE t(rowid TEXT, t INTEGER PRIMARY KEY, \"se\"\"l ect\"); INSERT INTO t VALUES('9', 1, 2), ('1', 2, NULL)",
            columns: ["rowid", "t", "se\"l ect"], keyPlaces: [1], missing: [[9], ["9"]]),
        Case(
            name: "NULL in the key", sql: "CREATE TABLE t(a TEXT, b INT, c, PRIMARY KEY(a, b)); INSERT INTO t VALUES('a', NULL, 1), (NULL, 1, 2), ('', 1, 3)",
            columns: ["a", "b", "c"], keyPlaces: [0, 1], missing: [[nil, nil], ["a", 0], [nil, 2]]),
    ]

    @Test("K7 rows are read and found by keys that are the same bytes, and by no others", arguments: cases)
    func keys(_ example: Case) async throws {
        let compared = try await ComparedSource(example.sql, tables: ["t"])
        let request = try await compared.request()
        #expect(request.layout.columns.map(\.name) == example.columns)
        #expect(request.layout.columns.indices.filter { request.layout.columns[$0].isKey } == example.keyPlaces)
        let expected = try compared.database.images("t", example.columns)
        let view = try await compared.session.openView()
        let rows = try await allRows(view, request)
        #expect(Set(rows) == expected && rows.count == expected.count)
        for row in rows {
            let cells = try cells(row, example.columns.count)
            let key = KeyImage([0, UInt8(example.keyPlaces.count)] + example.keyPlaces.flatMap { cells[$0] })
            let buffer = RecordBuffer()
            #expect(try await view.findRows(request, keys: [key], into: buffer) == 1)
            #expect(try images(buffer.bytes) == [row])
        }
        #expect(try await found(view, request, example.missing).isEmpty)
        // One after the other in one call, hits among misses.
        let buffer = RecordBuffer()
        let all = try rows.map { row in
            let cells = try cells(row, example.columns.count)
            return KeyImage([0, UInt8(example.keyPlaces.count)] + example.keyPlaces.flatMap { cells[$0] })
        }
        let mixed = Array(zip(all, example.missing.map(key)).map { [$0, $1] }.joined()) + all.dropFirst(example.missing.count)
        #expect(try await view.findRows(request, keys: mixed, into: buffer) == rows.count)
        #expect(Set(try images(buffer.bytes)) == expected)
        await view.close()
        await compared.close()
    }

    struct Conversion: Sendable, CustomTestStringConvertible {
        var name: String
        var sql: String
        /// A key as another database has it, and the row that it names.
        var keys: [([Value], String?)]
        var testDescription: String { name }
    }

    static let conversions: [Conversion] = [
        Conversion(
            name: "NUMERIC",
            sql: """
                CREATE TABLE t(k NUMERIC PRIMARY KEY NOT NULL, v);
                INSERT INTO t VALUES(5, 'a'), (12.5, 'b'), ('x', 'c'), (1e20, 'd'), (9223372036854775807, 'e'), (0.1, 'f'),
                  (-3, 'g'), (x'37', 'h'), (-9e999, 'i'), (9007199254740993, 'j'), (0, 'k')
                """,
            keys: [
                (["5"], "i:5|t:a"), (["5.00"], "i:5|t:a"), ([5.0], "i:5|t:a"), (["+05"], "i:5|t:a"), (["12.50"], "r:4029000000000000|t:b"),
                (["100000000000000000000"], "r:4415af1d78b58c40|t:d"), (["9223372036854775807"], "i:9223372036854775807|t:e"),
                (["9223372036854775808"], nil), (["0.1"], "r:3fb999999999999a|t:f"), (["0.1000000000000000055"], nil),
                (["x"], "t:x|t:c"), (["X"], nil), (["NaN"], nil), (["7"], nil), ([.blob([0x37])], "x:37|t:h"), (["-3"], "i:-3|t:g"),
                (["-Infinity"], "r:fff0000000000000|t:i"), (["9007199254740993"], "i:9007199254740993|t:j"),
                (["9007199254740992"], nil), ([9_007_199_254_740_992.0], nil), (["-0"], "i:0|t:k"), ([-0.0], nil), ([""], nil),
                ([nil], nil),
            ]),
        Conversion(
            name: "REAL", sql: "CREATE TABLE t(k REAL PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES(5, 'a'), (0.1, 'b'), (-1e300, 'c'), ('x', 'd')",
            keys: [
                ([5], "r:4014000000000000|t:a"), (["5.0"], "r:4014000000000000|t:a"), (["0.1"], "r:3fb999999999999a|t:b"), ([6], nil),
                (["0.10000000000000001"], nil), (["x"], "t:x|t:d"), ([0.1], "r:3fb999999999999a|t:b"),
            ]),
        Conversion(
            name: "INTEGER PRIMARY KEY", sql: "CREATE TABLE t(k INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(5, 'a'), (-9223372036854775808, 'b')",
            keys: [
                (["5"], "i:5|t:a"), ([5.0], "i:5|t:a"), (["-9223372036854775808"], "i:-9223372036854775808|t:b"),
                ([-9223372036854775808.0], "i:-9223372036854775808|t:b"), (["5.5"], nil), ([9223372036854775808.0], nil),
            ]),
        Conversion(
            name: "TEXT", sql: "CREATE TABLE t(k TEXT PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES('5', 'a'), ('5.0', 'b'), (x'35', 'c')",
            keys: [([5], "t:5|t:a"), (["5"], "t:5|t:a"), (["5.0"], "t:5.0|t:b"), (["5.00"], nil), ([.blob([0x35])], "x:35|t:c")]),
        Conversion(
            name: "no affinity, integers by plan", sql: "CREATE TABLE t(k PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES(5, 'a'), (-7, 'b')",
            keys: [(["5"], "i:5|t:a"), ([5], "i:5|t:a"), (["-7.0"], "i:-7|t:b"), (["6"], nil)]),
        Conversion(
            name: "no affinity, a mixture", sql: "CREATE TABLE t(k PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES(5, 'a'), ('7', 'b')",
            keys: [(["5"], nil), ([7], nil), ([5], "i:5|t:a"), (["7"], "t:7|t:b"), ([5.0], nil)]),
        Conversion(
            name: "composite", sql: "CREATE TABLE t(l TEXT NOT NULL, k DECIMAL(10,2) NOT NULL, v, PRIMARY KEY(k, l)); INSERT INTO t VALUES('x', 5, 'a'), ('5', 5, 'b')",
            keys: [(["x", "5.0"], "t:x|i:5|t:a"), ([5, "5"], "t:5|i:5|t:b"), (["X", "5"], nil), (["x", "6"], nil)]),
    ]

    @Test("K9 a key in another database's class finds the row that has its value in the column's own", arguments: conversions)
    func conversion(_ example: Conversion) async throws {
        let compared = try await ComparedSource(example.sql, tables: ["t"])
        let request = try await compared.request()
        let view = try await compared.session.openView()
        for (key, row) in example.keys {
            let hits = try await found(view, request, [key])
            #expect(try hits.map { try showCells($0, columns: request.layout.columns.count) } == [row].compactMap { $0 }, "\(key)")
        }
        // Spelled in several ways in one call, a row comes once.
        let all = try await found(view, request, example.keys.map(\.0))
        let rows = Set(example.keys.compactMap(\.1))
        #expect(try all.map { try showCells($0, columns: request.layout.columns.count) }.sorted() == rows.sorted())
        await view.close()
        await compared.close()
    }

    /// The cells of an image's bytes.
    private func cells(_ row: [UInt8], _ columns: Int) throws -> [[UInt8]] {
        var reader = Mirror.Reader(bytes: row)
        return try (0..<columns).map { _ in
            let start = reader.offset
            if try reader.number(1) != 0x6E { try reader.skip(Int(try reader.number(4))) }
            return Array(row[start..<reader.offset])
        }
    }

    @Test("K5 a list of columns and a row filter bind rows and look-ups alike; native text is text")
    func filtered() async throws {
        let mapping = TableMapping(
            source: TableName(name: "t"), target: TableName(name: "t"), columns: ["a", "C"], rowFilter: "t.b > 1 OR c IS NULL")
        let compared = try await ComparedSource(
            "CREATE TABLE t(a TEXT PRIMARY KEY NOT NULL, b INT, c); INSERT INTO t VALUES('p', 1, 'x'), ('q', 2, 'y'), ('r', 1, NULL), ('s', 3, 1)",
            mappings: [mapping])
        let request = try await compared.request()
        #expect(request.layout.columns.map(\.name) == ["a", "c"])
        let view = try await compared.session.openView()
        #expect(Set(try await allRows(view, request).map { try showCells($0, columns: 2) }) == ["t:q|t:y", "t:r|null", "t:s|i:1"])
        let hits = try await found(view, request, [["p"], ["q"], [.foreign("r")], ["z"]])
        #expect(try hits.map { try showCells($0, columns: 2) } == ["t:q|t:y", "t:r|null"])
        var range = request
        range.from = key(["q"])
        range.to = key(["s"])
        #expect(Set(try await allRows(view, range).map { try showCells($0, columns: 2) }) == ["t:q|t:y", "t:r|null"])
        range.from = nil
        #expect(Set(try await allRows(view, range).map { try showCells($0, columns: 2) }) == ["t:q|t:y", "t:r|null"])
        await view.close()
        await compared.close()
    }

    @Test("K7 a table without a key is compared by whole rows, which may occur twice")
    func keyless() async throws {
        let relation = postgresRelation(1, "t", ["a:bigint", "b:text"], identity: .full)
        let compared = try await ComparedTarget("CREATE TABLE t(a INTEGER, b TEXT)", [relation])
        try compared.run("INSERT INTO t VALUES(1, 'x'), (1, 'x'), (1, 'X'), (NULL, ''), (2, NULL)")
        let request = ComparisonRequest(layout: try await compared.layout())
        #expect(request.layout.keyOrder == nil)
        let view = try await compared.session.openView()
        #expect(try await allRows(view, request).count == 5)
        let hits = try await found(view, request, [[1, "x"], [1, .foreign("x")], [nil, ""], [2, ""], ["1", "x"]])
        #expect(try hits.map { try showCells($0, columns: 2) } == ["i:1|t:x", "i:1|t:x", "null|t:"])
        #expect(await errorCode { _ = try await found(view, request, [[1]]) } == .recordMalformed)
        await view.close()
    }

    @Test("K7 keys are read and found as they are in a UTF-16 database")
    func utf16() async throws {
        let compared = try await ComparedSource(
            "CREATE TABLE t(k TEXT PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES('é', '😀'), ('a', x'00'), ('e\u{301}', '')",
            tables: ["t"], encoding: "UTF-16le")
        let request = try await compared.request()
        let view = try await compared.session.openView()
        #expect(Set(try await allRows(view, request)) == (try compared.database.images("t", ["k", "v"])))
        let hits = try await found(view, request, [["é"], ["A"], ["e\u{301}"]])
        #expect(try hits.map { try showCells($0, columns: 2) } == ["t:é|t:😀", "t:e\u{301}|t:"])
        await view.close()
        await compared.close()
    }

    @Test("K18 rows of 10 MB are read and found, a buffer at a time")
    func large() async throws {
        let compared = try await ComparedSource(
            "CREATE TABLE t(k BLOB PRIMARY KEY NOT NULL, v); INSERT INTO t VALUES(zeroblob(10000000), randomblob(10000000)), (x'01', randomblob(10000000))",
            tables: ["t"])
        let request = try await compared.request()
        let view = try await compared.session.openView()
        let stream = try await view.openRows(request)
        let buffer = RecordBuffer()
        #expect(try await stream.read(into: buffer, limit: 1 << 20) == 1)
        buffer.removeAll()
        #expect(try await stream.read(into: buffer, limit: 1 << 20) == 1)
        buffer.removeAll()
        #expect(try await stream.read(into: buffer, limit: 1 << 20) == 0)
        let hits = try await found(view, request, [[.blob([UInt8](repeating: 0, count: 10_000_000))], [.blob([1])]])
        #expect(Set(hits) == (try compared.database.images("t", ["k", "v"])))
        #expect(try await view.boundary(request, rows: 1)?.bytes.count == 2 + 5 + 1)
        await view.close()
        await compared.close()
    }
}

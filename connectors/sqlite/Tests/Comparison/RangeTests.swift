import BridgeCore
import BridgeTestSupport
import CSQLite
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

@Suite("SQLite comparison: ranges")
struct RangeTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var sql: String
        var order: String?
        var encoding = "UTF-8"
        var testDescription: String { name }
    }

    private static let numbers =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)"

    static let cases: [Case] = [
        Case(name: "rowid", sql: "CREATE TABLE t(a INTEGER PRIMARY KEY, b); \(numbers) INSERT INTO t SELECT i * 3 - 50, i FROM n", order: "integer"),
        Case(
            name: "odd values under INTEGER affinity",
            sql: """
                CREATE TABLE t(a INT, b INT, PRIMARY KEY(a, b)); \(numbers) INSERT INTO t SELECT i, 0 FROM n;
                \(numbers) INSERT INTO t SELECT 'text ' || i, 0 FROM n; \(numbers) INSERT INTO t SELECT i + 0.5, i FROM n WHERE i % 7 = 0;
                INSERT INTO t VALUES(NULL, 1), (NULL, 2), (NULL, NULL), (x'31', 0), (1e300, 0), (-1e300, 0), (-1e300, 1), (-0.5, 0),
                  (9223372036854775807, 0), (-9223372036854775808, 0), (9.3e18, 0), ('', 0);
                """, order: "integer"),
        Case(name: "only odd values", sql: "CREATE TABLE t(a INT PRIMARY KEY, b); INSERT INTO t VALUES('a', 1), ('b', 2), (x'00', 3), (NULL, 4), (NULL, 5), (1e300, 6)", order: "integer"),
        Case(name: "only NULLs and reals below", sql: "CREATE TABLE t(a INT PRIMARY KEY, b); INSERT INTO t VALUES(NULL, 1), (NULL, 2), (-1e300, 3), (-1e299, 4), (0.25, 5), (0.5, 6), (3, 7)", order: "integer"),
        Case(
            name: "one value of the first column over and over",
            sql: "CREATE TABLE t(a INTEGER, b INTEGER, PRIMARY KEY(a, b)) WITHOUT ROWID; \(numbers) INSERT INTO t SELECT i / 40, i FROM n", order: "integer"),
        Case(
            name: "text with blobs", sql: """
                CREATE TABLE t(a TEXT PRIMARY KEY, b); \(numbers) INSERT INTO t SELECT char(i * 500) || i, i FROM n;
                INSERT INTO t VALUES(NULL, 1), (NULL, 2), (x'', 3), (x'ff', 4), ('', 5), ('a', 6), ('A', 7), ('😀', 8), (char(65530), 9);
                """, order: "utf8"),
        Case(
            name: "blobs with everything else", sql: """
                CREATE TABLE t(a BLOB PRIMARY KEY, b) WITHOUT ROWID; \(numbers) INSERT INTO t SELECT randomblob(i % 5 + 2), i FROM n;
                INSERT INTO t VALUES(1, 1), (2.5, 2), ('a', 3), ('b', 4), (x'', 5), ('c', 6);
                """, order: "bytes"),
        Case(name: "descending index", sql: "CREATE TABLE t(a INT, b, PRIMARY KEY(a DESC)); \(numbers) INSERT INTO t SELECT i, i FROM n", order: "integer"),
        Case(name: "NOCASE text", sql: "CREATE TABLE t(a TEXT COLLATE NOCASE PRIMARY KEY)"),
        Case(name: "UTF-16", sql: "CREATE TABLE t(a TEXT PRIMARY KEY)", encoding: "UTF-16le"),
        Case(name: "no affinity", sql: "CREATE TABLE t(a PRIMARY KEY)"),
        Case(name: "reals", sql: "CREATE TABLE t(a REAL PRIMARY KEY)"),
        Case(name: "a key whose second column comes first", sql: "CREATE TABLE t(b INT, a INT, PRIMARY KEY(a, b))"),
    ]

    @Test("K6 ranges take every row exactly once, whatever the column holds", arguments: cases)
    func partition(_ example: Case) async throws {
        let compared = try await ComparedSource(example.sql, tables: ["t"], encoding: example.encoding)
        let request = try await compared.request()
        #expect(request.layout.keyOrder == example.order)
        let view = try await compared.session.openView()
        defer { Task { await compared.close() } }
        guard example.order != nil else {
            #expect(await errorCode { _ = try await view.boundary(request, rows: 1) } == .internalFault)
            return await view.close()
        }
        let all = try await allRows(view, request)
        #expect(Set(all) == (try compared.database.images("t", request.layout.columns.map(\.name))))
        #expect(request.layout.estimatedRows == Int64(all.count))
        for size in [1, 2, 3, 10, 50, 1_000] {
            var rows: [[UInt8]] = []
            var part = request
            var ranges = 0
            while true {
                let next = try await view.boundary(part, rows: size)
                part.to = next
                let range = try await allRows(view, part)
                // The last may hold all that no bound can stand among.
                if next != nil { #expect(!range.isEmpty, "an empty range of \(size) behind \(part.from?.bytes ?? [])") }
                rows += range
                ranges += 1
                try #require(ranges <= all.count + 1)
                guard let next else { break }
                part.from = next
            }
            #expect(rows.count == all.count, "ranges of \(size)")
            #expect(Set(rows) == Set(all))
            if size == 1_000 { #expect(ranges == 1) }
        }
        await view.close()
    }

    @Test("K6 bounds that another database chose take every row once, too, and equal keys stand on the same sides")
    func foreignBounds() async throws {
        let odd = "(1, 0), (5, 0), (7, 0), ('5', 1), ('x', 0), (x'05', 0), (4.5, 0), (1e19, 0), (-3, 0), (100, 0)"
        let one = try await ComparedSource("CREATE TABLE t(a INT, b INT, PRIMARY KEY(a, b)); INSERT INTO t VALUES \(odd)", tables: ["t"])
        let other = try await ComparedSource(
            "CREATE TABLE t(a INTEGER COLLATE NOCASE, b INT, PRIMARY KEY(a, b)) WITHOUT ROWID; INSERT INTO t VALUES \(odd)", tables: ["t"])
        let requests = [try await one.request(), try await other.request()]
        let views = [try await one.session.openView(), try await other.session.openView()]
        let bounds: [Int64?] = [nil, -3, 0, 5, 6, 100, .max, nil]
        var count = 0
        for (from, to) in zip(bounds, bounds.dropFirst()) {
            var ranges: [Set<[UInt8]>] = []
            for (view, request) in zip(views, requests) {
                var part = request
                part.from = from.map { key([.integer($0)]) }
                part.to = to.map { key([.integer($0)]) }
                ranges.append(Set(try await allRows(view, part)))
            }
            #expect(ranges[0] == ranges[1])
            count += ranges[0].count
        }
        #expect(count == 10)
        var wrong = requests[0]
        wrong.from = key(["5"])
        #expect(await errorCode { _ = try await views[0].openRows(wrong) } == .internalFault)
        for view in views { await view.close() }
        await one.close()
        await other.close()
    }

    @Test("K14 ranges, boundaries and look-ups go through the key's index", arguments: cases.filter { $0.order != nil })
    func plans(_ example: Case) async throws {
        let compared = try await ComparedSource(example.sql, tables: ["t"])
        let request = try await compared.request()
        let connection = try SQLiteConnection(path: compared.database.path, access: .readWrite, busyTimeout: 0)
        let table = try ComparedTable(request, connection)
        let bound = try #require(SharedKeyOrder(rawValue: request.layout.keyOrder ?? "")).least
        for (from, to) in [(bound, nil), (nil, bound), (bound, bound)] as [(KeyImage?, KeyImage?)] {
            var part = request
            part.from = from
            part.to = to
            let statement = try table.rows(part)
            let sql = withExtendedLifetime(statement) { String(cString: sqlite3_sql(statement.handle)) }
            for step in try plan(sql, compared.database) where !step.hasPrefix("COMPOUND") && !step.contains("SUBQUERY") && step != "UNION ALL" {
                #expect(step.hasPrefix("SEARCH t USING"), "\(step)")
            }
        }
        let alias = "\"t\".\"a\""
        let walk = try plan("SELECT \(alias) FROM main.\"t\" AS \"t\" WHERE \(alias) >= ?1 ORDER BY \(alias) LIMIT 1 OFFSET 10", compared.database)
        #expect(walk.count == 1 && walk[0].hasPrefix("SEARCH t USING"), "\(walk)")
        let condition = try #require(table.lookupCondition)
        let look = try plan("SELECT * FROM main.\"t\" AS \"t\" WHERE \(condition)", compared.database)
        #expect(look.count == 1 && look[0].hasPrefix("SEARCH t USING"), "\(look)")
        await compared.close()
    }

    private func plan(_ sql: String, _ database: TestDatabase) throws -> [String] {
        let connection = try SQLiteConnection(path: database.path, access: .readOnly, busyTimeout: 0)
        let statement = try connection.database.prepare("EXPLAIN QUERY PLAN " + sql)
        var steps: [String] = []
        while try statement.step() { steps.append(statement.string(3) ?? "") }
        return steps
    }
}

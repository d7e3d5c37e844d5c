import BridgeCore
import Testing

@testable import BridgeSQLite

@Suite("SQLite comparison: rows drawn at random")
struct RandomRowsTests {
    private static let rows = "WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 20000)"

    private func integers(_ keys: [KeyImage]) throws -> [Int64] {
        try keys.map { key in
            try key.withImage { image throws(BridgeError) in
                var cells = image.cells
                return try cells.next()?.integer ?? -1
            }
        }
    }

    @Test(
        "K21 rows are drawn from everywhere, once each, whatever the table",
        arguments: [
            ("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", 1),
            // Rowids far apart, so that hardly any is hit.
            ("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", 1_000_000_000),
            ("CREATE TABLE t (id INTEGER PRIMARY KEY, v) WITHOUT ROWID", 1),
            ("CREATE TABLE t (id INT PRIMARY KEY NOT NULL, rowid TEXT, oid TEXT, v)", 1),
        ])
    func everywhere(_ table: String, _ gap: Int) async throws {
        let compared = try await ComparedSource(
            "\(table); INSERT INTO t(id, v) \(Self.rows) SELECT n * \(gap), 'v' FROM g;", tables: ["t"])
        let view = try await compared.session.openView()
        let request = try await compared.request()
        let keys = try integers(try await view.drawKeys(request, count: 1000, seed: 7)).map { $0 / Int64(gap) }
        #expect(keys.count == 1000)
        #expect(Set(keys).count == 1000)
        for part in 0..<10 {
            let inside = keys.count { $0 > Int64(part) * 2000 && $0 <= Int64(part + 1) * 2000 }
            #expect((50...160).contains(inside), "\(part): \(inside)")
        }
        #expect(try integers(try await view.drawKeys(request, count: 1000, seed: 7)).map { $0 / Int64(gap) } == keys)
        #expect(try integers(try await view.drawKeys(request, count: 1000, seed: 8)).map { $0 / Int64(gap) } != keys)
        #expect(try await view.drawKeys(request, count: 50_000, seed: 7).count == 20_000)
        await view.close()
        await compared.close()
    }

    @Test("K21 what the row filter leaves out is not drawn, an empty table gives nothing")
    func filtered() async throws {
        let compared = try await ComparedSource(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t \(Self.rows) SELECT n, n % 100 FROM g;",
            mappings: [TableMapping(source: TableName(name: "t"), target: TableName(name: "t"), rowFilter: "v = 7")])
        let view = try await compared.session.openView()
        let keys = try integers(try await view.drawKeys(try await compared.request(), count: 150, seed: 3))
        #expect(Set(keys).count == 150)
        #expect(keys.allSatisfy { $0 % 100 == 7 })
        await view.close()
        await compared.close()
        let empty = try await ComparedSource("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", tables: ["t"])
        let nothing = try await empty.session.openView()
        #expect(try await nothing.drawKeys(try await empty.request(), count: 10, seed: 1).isEmpty)
        await nothing.close()
        await empty.close()
    }
}

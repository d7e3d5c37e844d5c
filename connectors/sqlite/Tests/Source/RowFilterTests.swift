import BridgeCore
import Testing

@testable import BridgeSQLite

/// A row belongs to the migration or not by what is in it: a condition that gives another answer tomorrow would let rows in
/// and out without a change that capture could see.
@Suite("SQLite capture: conditions under where")
struct RowFilterTests {
    private func findings(_ filter: String, rows: String = "") async throws -> [Finding] {
        let database = try TestDatabase(
            """
            CREATE TABLE t(id INTEGER PRIMARY KEY, made TEXT, age INT, "no""w" TEXT, twice GENERATED ALWAYS AS (age * 2));
            CREATE TABLE other(id INTEGER PRIMARY KEY); \(rows)
            """)
        let source = SQLiteSource(path: database.path)
        var link = forwardLink(["t"])
        link.mappings[0].rowFilter = filter
        let findings = try await source.preflight(link)
        await source.close()
        return findings
    }

    @Test(
        "S2 K15 a condition that is not a function of the row is refused, with what to do",
        arguments: [
            "made > date('now')", "made > datetime('NOW', '-1 day')", "julianday('now') - julianday(made) < 30",
            "strftime('%Y', 'now') = '2024'", "strftime('%Y') = '2024'", "unixepoch() > age", "date() > made", "made > time( )",
            "made < CURRENT_TIMESTAMP", "made < current_date", "made < Current_Time", "random() > 0", "randomblob(4) > x'00'",
            "changes() = 0", "total_changes() = 0", "last_insert_rowid() = id", "EXISTS (SELECT 1 FROM other)",
            "id IN (SELECT id FROM other)", "id IN other", "age > 5 AND (age < 3 OR made > date('now'))",
            "CASE WHEN age > 1000 THEN made > date('now') ELSE 1 END", "date('n' || 'ow') > made", "date(x'6e6f77') > made",
            "date(lower('NOW')) > made", "date(made, 'localtime') > '2024'", "date(made, 'UTC') > '2024'", "date(made, made) > '2024'",
            "\"date\"('now') > made", "[Date] ('now') > made", "date /* ' */ ('now') > made", "date(coalesce(made, 'now')) > '2024'",
            "date(CASE WHEN age > 1 THEN 'now' END) > '2024'", "nonsense(id) = 1", "id = ?1", "count(*) > 1", "id = 1) OR (1",
            "strftime('now', CURRENT_TIMESTAMP) = ''", "(date('now')) > made",
        ])
    func refused(_ filter: String) async throws {
        let found = try await findings(filter)
        #expect(found.map(\.code) == [.configurationInvalid], "\(found)")
        #expect(found.allSatisfy { $0.severity == .blocking && $0.table?.name == "t" && !$0.mend.allSatisfy(\.isEmpty) })
    }

    @Test(
        "S2 a condition on the row's own values is taken",
        arguments: [
            "age > 5", "made >= '2024-01-01' AND t.age IS NOT NULL", "date(made) > '2024-01-01'", "strftime('%Y', made) = '2024'",
            "unixepoch(made, 'start of month', '+1 day') > 0", "julianday(t.made) - julianday('2024-01-01') > 3",
            "made LIKE '%now%'", "made = 'now'", "\"no\"\"w\" = 'date(''now'')'", "lower(made) || 'now' GLOB 'a*'",
            "date(coalesce(made, \"no\"\"w\")) > '2024'", "abs(age) IN (1, 2, 3)", "twice > 4", "id BETWEEN 1 /* date('now') */ AND 9",
            "main.t.age > 5", "datetime(age, 'unixepoch') > '2024'", "date(2460000.5) < made", "rowid > 5",
            "json_extract(made, '$.a') = 1", "max(age, id) > 4",
        ])
    func taken(_ filter: String) async throws {
        #expect(try await findings(filter).isEmpty)
    }

    @Test("S2 a value that stands for the clock is found among the rows")
    func stored() async throws {
        let rows = "INSERT INTO t(id, made) VALUES(1, '2024-01-01'), (2, 'now')"
        let found = try await findings("date(made) > '2024-01-01'", rows: rows)
        #expect(found.map(\.code) == [.configurationInvalid])
        #expect(try await findings("made > '2024-01-01'", rows: rows).isEmpty)
    }
}

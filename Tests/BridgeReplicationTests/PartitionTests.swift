import BridgeCore
import BridgeTestSupport
import Testing

/// Emptied tables, partitioned ones, those of which a part travels, and strange names: end to end.
@Suite("Truncates, partitions, filters and names", .serialized)
struct PartitionTests {
    private static func mapping(_ table: String, _ to: String? = nil, filter: String? = nil) -> TableMapping {
        TableMapping(source: TableName(schema: "public", name: table), target: TableName(schema: "public", name: to ?? table), rowFilter: filter)
    }

    @Test("P11 a truncate of tables with foreign keys among them, cascading, restarting, and of a table whose rows travel in part", arguments: LinkCourse.Target.allCases)
    func truncates(_ target: LinkCourse.Target) async throws {
        let tables = """
            CREATE TABLE a(id integer PRIMARY KEY, v text); CREATE TABLE b(id integer PRIMARY KEY, a integer REFERENCES a(id));
            CREATE TABLE c(id integer PRIMARY KEY, tenant integer)
            """
        let course = try await LinkCourse(
            target, tables + "; ALTER TABLE c REPLICA IDENTITY FULL; CREATE TABLE outside(id int PRIMARY KEY, b int REFERENCES b(id))",
            targetTables: tables, mappings: [Self.mapping("a"), Self.mapping("b"), Self.mapping("c", filter: "tenant = 7")])
        let fill = "INSERT INTO a VALUES (1, 'x'), (2, 'y'); INSERT INTO b VALUES (1, 1), (2, 2); INSERT INTO outside VALUES (1, 1); INSERT INTO c VALUES (1, 7), (2, 8);"
        try await course.source(fill)
        try await course.catchesUp()
        for truncate in ["TRUNCATE a, b, c, outside", "TRUNCATE a CASCADE; TRUNCATE c", "TRUNCATE a, c RESTART IDENTITY CASCADE"] {
            try await course.source("INSERT INTO a VALUES (3, 'z'); BEGIN; UPDATE a SET v = 'gone'; \(truncate); INSERT INTO a VALUES (9, 'after'); COMMIT; INSERT INTO c VALUES (5, 7), (6, 8)")
            try await course.catchesUp()
            try await course.isEqual("SELECT id, v FROM a UNION ALL SELECT id, 'b' FROM b ORDER BY 1")
            #expect(try await course.target("SELECT id, tenant FROM c") == "5|7")
            // Applied with what comes next.
            try await course.source("DELETE FROM a; DELETE FROM c; \(fill)")
        }
    }

    @Test("P11 P30 rows move across partitions of one or both sides, sub-partitions and a default among them, and truncates of the root", arguments: LinkCourse.Target.allCases, [true, false])
    func partitions(_ target: LinkCourse.Target, _ isTargetPartitioned: Bool) async throws {
        if target == .sqlite, isTargetPartitioned { return }
        let source = """
            CREATE TABLE p(id integer, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
            CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); CREATE TABLE p_rest PARTITION OF p DEFAULT;
            CREATE TABLE p_b PARTITION OF p FOR VALUES IN ('b') PARTITION BY RANGE (id);
            CREATE TABLE p_b1 PARTITION OF p_b FOR VALUES FROM (0) TO (100); CREATE TABLE p_b2 PARTITION OF p_b DEFAULT;
            """
        let other = """
            CREATE TABLE p(id integer, region text, v text, PRIMARY KEY (id, region)) PARTITION BY RANGE (id);
            CREATE TABLE q_1 PARTITION OF p FOR VALUES FROM (0) TO (50); CREATE TABLE q_2 PARTITION OF p DEFAULT
            """
        let course = try await LinkCourse(
            target, source, "p",
            targetTables: isTargetPartitioned ? other : "CREATE TABLE p(id integer, region text, v text, PRIMARY KEY (id, region))")
        let rows = "INSERT INTO p SELECT n, (ARRAY['a', 'b', 'z'])[n % 3 + 1], 'v' || n FROM generate_series(1, 300) n;"
        let all = "SELECT count(*), sum(id), min(region), max(region), min(v), max(v) FROM p"
        try await course.source(rows)
        try await course.catchesUp()
        try await course.isEqual(all)
        try await course.source(
            """
            UPDATE p SET region = 'b' WHERE region = 'a' AND id < 150; UPDATE p SET id = id + 1000, v = 'moved' WHERE id BETWEEN 40 AND 60;
            DELETE FROM p WHERE region = 'z' AND id < 100; UPDATE p_b1 SET v = 'by leaf' WHERE id < 10; INSERT INTO p_rest VALUES (7, 'q', 'by leaf');
            CREATE TABLE p_c PARTITION OF p FOR VALUES IN ('c'); INSERT INTO p VALUES (5, 'c', 'new partition'); UPDATE p SET region = 'c' WHERE region = 'q';
            """)
        try await course.catchesUp()
        try await course.isEqual(all)
        try await course.isEqual("SELECT id, region, v FROM p WHERE id < 70 OR id > 1000 ORDER BY 1, 2")
        try await course.source("BEGIN; INSERT INTO p VALUES (5000, 'a', 'before'); TRUNCATE p; INSERT INTO p VALUES (1, 'a', 'after'); COMMIT")
        try await course.catchesUp()
        try await course.isEqual("SELECT id, region, v FROM p ORDER BY 1, 2")
    }

    @Test("P23 a row filter and a column list give the same rows in copy and stream, and updates move rows in and out", arguments: LinkCourse.Target.allCases)
    func filters(_ target: LinkCourse.Target) async throws {
        let name = { (table: String) in TableName(schema: "public", name: table) }
        let course = try await LinkCourse(
            target,
            """
            CREATE TABLE f(id integer PRIMARY KEY, tenant integer, v text); ALTER TABLE f REPLICA IDENTITY FULL;
            CREATE TABLE l(id integer, tenant integer, v text, secret text, PRIMARY KEY (id, tenant));
            INSERT INTO f SELECT n, CASE WHEN n % 11 = 0 THEN NULL ELSE n % 3 END, 'v' || n FROM generate_series(1, 100) n;
            INSERT INTO l SELECT n, n % 3, 'v' || n, 'never' FROM generate_series(1, 100) n
            """,
            targetTables: "CREATE TABLE f(id integer PRIMARY KEY, tenant integer, v text); CREATE TABLE l(id integer, tenant integer, v text, PRIMARY KEY (id, tenant))",
            mappings: [
                TableMapping(source: name("f"), target: name("f"), rowFilter: "tenant = 1 OR v LIKE 'keep%'"),
                TableMapping(source: name("l"), target: name("l"), columns: ["tenant", "v", "id"], rowFilter: "tenant = 1"),
            ])
        func isSame() async throws {
            try await course.isEqual(
                "SELECT id, tenant, v FROM f WHERE tenant = 1 OR v LIKE 'keep%' ORDER BY id", targetQuery: "SELECT id, tenant, v FROM f ORDER BY id")
            try await course.isEqual("SELECT id, tenant, v FROM l WHERE tenant = 1 ORDER BY id", targetQuery: "SELECT id, tenant, v FROM l ORDER BY id")
        }
        try await course.catchesUp()
        try await isSame()
        try await course.source(
            """
            UPDATE f SET tenant = 2 WHERE tenant = 1 AND id < 30; UPDATE f SET tenant = 1 WHERE tenant = 0 AND id < 50; UPDATE f SET v = 'keep' || id WHERE tenant IS NULL;
            UPDATE f SET tenant = NULL WHERE id = 70; UPDATE f SET v = 'drop' WHERE id = 11; DELETE FROM f WHERE id IN (4, 33, 90); INSERT INTO f VALUES (200, 1, 'in'), (201, 2, 'out');
            UPDATE f SET id = id + 1000 WHERE id BETWEEN 60 AND 75;
            UPDATE l SET tenant = 1 WHERE tenant = 2 AND id < 20; UPDATE l SET tenant = 0 WHERE tenant = 1 AND id > 80; UPDATE l SET v = 'new', secret = 'still' WHERE id < 10; DELETE FROM l WHERE id = 40
            """)
        try await course.catchesUp()
        try await isSame()
    }

    @Test("P29 names with quotes, dots, capitals, other alphabets and 63 bytes, columns named like our own, and another schema")
    func names() async throws {
        let long = String(repeating: "é", count: 31) + "x"
        #expect(long.utf8.count == 63)
        for (schema, table) in [("Weird \"Schema\".x'\\", long), ("select", "ta\"ble. Ünï;-- {t,}$1")] {
            let quoted = "\(quoteIdentifier(schema)).\(quoteIdentifier(table))", other = "\(quoteIdentifier("to " + schema)).\(quoteIdentifier(table))"
            let columns = ["id", "Group \"by\".", "bridge_stage_0", "kind", "position", "o", "n", "ctid_", "новый", long, "a,b{}", "\\", "$1"]
            let list = columns.map { quoteIdentifier($0) }
            func create(_ name: String, reversed: Bool) -> String {
                let definitions = list.dropFirst().map { "\($0) text" }
                return "CREATE TABLE \(name)(\((["\(list[0]) integer PRIMARY KEY"] + (reversed ? definitions.reversed() : definitions)).joined(separator: ", ")))"
            }
            let course = try await LinkCourse(
                .postgresql, "CREATE SCHEMA IF NOT EXISTS \(quoteIdentifier(schema)); \(create(quoted, reversed: false))",
                targetTables: "CREATE SCHEMA \(quoteIdentifier("to " + schema)); \(create(other, reversed: true))",
                mappings: [TableMapping(source: TableName(schema: schema, name: table), target: TableName(schema: "to " + schema, name: table), columns: schema == "select" ? columns : nil)])
            let values = list.indices.dropFirst().map { "'c\($0) ' || n" }.joined(separator: ", ")
            try await course.source("INSERT INTO \(quoted) SELECT n, \(values) FROM generate_series(1, 200) n")
            try await course.catchesUp()
            try await course.source(
                """
                INSERT INTO \(quoted) SELECT n, \(values) FROM generate_series(201, 400) n; UPDATE \(quoted) SET \(list[2]) = 'new', \(list[9]) = 'long' WHERE id % 2 = 0;
                UPDATE \(quoted) SET id = id + 1000 WHERE id < 50; DELETE FROM \(quoted) WHERE id % 7 = 0
                """)
            try await course.catchesUp()
            let query = "SELECT \(list.joined(separator: ", ")) FROM "
            try await course.isEqual(query + quoted + " ORDER BY 1", targetQuery: query + other + " ORDER BY 1")
            try await course.source("TRUNCATE \(quoted); INSERT INTO \(quoted)(id) VALUES (1)")
            try await course.catchesUp()
            try await course.isEqual("SELECT count(*), max(id) FROM \(quoted)", targetQuery: "SELECT count(*), max(id) FROM \(other)")
        }
    }
}

import BridgeCore
import BridgePostgreSQL
import BridgeReplication
import BridgeSQLite
import BridgeTestEngines
import BridgeTestSupport
import Logging
import Testing

/// What would stop the way back, found before it is made.
@Suite("Preflight of the way back", .serialized)
struct ReversePreflightTests {
    /// A migration whose two databases are PostgreSQL. The way back goes from `new` to `old`.
    private struct Sides {
        let old: String
        let new: String
        var link: LinkDescription

        init(old: String, new: String, in cluster: PostgresCluster, newCluster: PostgresCluster? = nil) async throws {
            self.old = try await cluster.makeDatabase("old")
            self.new = try await (newCluster ?? cluster).makeDatabase("new")
            try await cluster.psql(self.old, old)
            try await (newCluster ?? cluster).psql(self.new, new)
            let table = TableName(schema: "public", name: "t")
            link = LinkDescription(
                migration: "back-\(UInt32.random(in: 0 ... .max))", direction: .forward,
                mappings: [TableMapping(source: table, target: table)], form: .native)
        }

        func findings(_ back: LinkDescription? = nil, old user: String? = nil) async throws -> [Finding] {
            let from = try PostgresSource(connectionString: new)
            let to = PostgresTarget(connectionString: user ?? old)
            let preparation = ReversePreparation(
                configuration: LinkConfiguration(link: back ?? link.reversed, journalDirectory: "/nowhere"), source: from, target: to,
                logger: Logger(label: "preflight") { _ in SwiftLogNoOpLogHandler() })
            let findings = try await preparation.findings()
            await from.close()
            await to.close()
            #expect(findings.allSatisfy { $0.what.hasPrefix("way back, from ") && !$0.mend.isEmpty })
            return findings
        }
    }

    private static let plain = "CREATE TABLE t(id bigint PRIMARY KEY, v text);"
    private static let filled = plain + "INSERT INTO t VALUES (1, 'a');"

    @Test("C12 P35 nothing is in the way of tables that hold rows on both sides, as they do after the copy")
    func nothing() async throws {
        let cluster = try PostgresCluster.shared
        let sides = try await Sides(old: Self.filled, new: Self.filled, in: cluster)
        #expect(try await sides.findings().isEmpty)
        #expect(try await cluster.psql(sides.old, "SELECT count(*) FROM pg_namespace WHERE nspname = '_bridge'") == "0")
    }

    @Test("C12 P35 a target whose key is no replica identity, mended by the statement that is named")
    func replicaIdentity() async throws {
        let cluster = try PostgresCluster.shared
        let sides = try await Sides(
            old: Self.filled, new: "CREATE TABLE t(id bigint NOT NULL, v text); CREATE UNIQUE INDEX \"the key\" ON t(id)", in: cluster)
        let findings = try await sides.findings()
        #expect(findings.map(\.code) == [.tableWithoutKey])
        #expect(findings.flatMap(\.mend) == ["ALTER TABLE \"public\".\"t\" REPLICA IDENTITY USING INDEX \"the key\""])
        for statement in findings.flatMap(\.mend) { try await cluster.psql(sides.new, statement) }
        #expect(try await sides.findings().isEmpty)
    }

    @Test("C12 P35 a target server that does not write its log for capture")
    func walLevel() async throws {
        let other = try await PostgresCluster.started(settings: ["wal_level": "replica"])
        let sides = try await Sides(old: Self.filled, new: Self.filled, in: try PostgresCluster.shared, newCluster: other)
        let findings = try await sides.findings()
        #expect(findings.map(\.code) == [.serverSettings])
        #expect(findings.first?.mend.first == "ALTER SYSTEM SET wal_level = 'logical'")
    }

    @Test("C12 P35 rights that the role lacks on the migration's source, and with the statements that are named it has them")
    func rights() async throws {
        let cluster = try PostgresCluster.shared
        let sides = try await Sides(old: Self.filled, new: Self.filled, in: cluster)
        let role = "back_\(UInt32.random(in: 0 ... .max))"
        try await cluster.psql(sides.old, "CREATE ROLE \(role) LOGIN")
        let user = sides.old.replacing("postgres@", with: "\(role)@")
        let findings = try await sides.findings(old: user)
        #expect(findings.allSatisfy { $0.code == .rightsMissing && $0.severity == .blocking })
        let mends = findings.flatMap(\.mend).joined(separator: "; ")
        for needed in ["session_replication_role", "GRANT CREATE ON DATABASE", "pg_replication_origin_session_setup", "ALTER TABLE \"public\".\"t\" OWNER TO"] {
            #expect(mends.contains(needed))
        }
        for statement in findings.flatMap(\.mend) { try await cluster.psql(sides.old, statement) }
        #expect(try await sides.findings(old: user).isEmpty)
        try await cluster.psql(sides.old, "DROP OWNED BY \(role); DROP ROLE \(role)")
    }

    @Test("C12 P35 a column that was left behind on the source and must have a value")
    func leftBehind() async throws {
        let cluster = try PostgresCluster.shared
        var sides = try await Sides(
            old: "CREATE TABLE t(id bigint PRIMARY KEY, v text, must text NOT NULL, may text)", new: Self.filled, in: cluster)
        sides.link.mappings[0].columns = ["id", "v"]
        let findings = try await sides.findings()
        #expect(findings.map(\.code) == [.targetTableMismatch])
        #expect(findings.first?.what.contains("column must of") == true)
        #expect(findings.first?.mend == ["ALTER TABLE \"public\".\"t\" ALTER COLUMN \"must\" SET DEFAULT …"])
        try await cluster.psql(sides.old, "ALTER TABLE t ALTER COLUMN must SET DEFAULT ''")
        #expect(try await sides.findings().isEmpty)
    }

    @Test("C12 P35 a column that only the target has stops it, unless the columns in common are listed")
    func ownColumn() async throws {
        let sides = try await Sides(
            old: Self.filled, new: "CREATE TABLE t(id bigint PRIMARY KEY, v text, own int DEFAULT 1)", in: try PostgresCluster.shared)
        #expect(try await sides.findings().map(\.code) == [.targetTableMismatch])
        let (from, to) = (try PostgresSource(connectionString: sides.new), PostgresTarget(connectionString: sides.old))
        let tables = sides.link.mappings.map(\.source)
        let back = sides.link.reversed(
            sources: try await to.describeTables(tables), targets: try await from.describeTables(tables))
        await from.close()
        await to.close()
        #expect(back.mappings[0].columns == ["id", "v"])
        #expect(try await sides.findings(back).isEmpty)
    }

    @Test("C12 P35 a table that was renamed on the source since")
    func renamed() async throws {
        let sides = try await Sides(old: Self.filled + "ALTER TABLE t RENAME TO u", new: Self.filled, in: try PostgresCluster.shared)
        let findings = try await sides.findings()
        #expect(findings.map(\.code) == [.targetTableMissing])
        #expect(findings.first?.mend == ["ALTER TABLE \"public\".… RENAME TO \"t\", if it was renamed"])
    }

    @Test("C12 P35 tables of another name on the target are found on both sides")
    func renamedByTheMigration() async throws {
        var sides = try await Sides(old: Self.filled, new: "CREATE TABLE people(id bigint PRIMARY KEY, v text)", in: try PostgresCluster.shared)
        sides.link.mappings[0].target = TableName(schema: "public", name: "people")
        #expect(try await sides.findings().isEmpty)
    }

    @Test("C12 P35 rows that 'where' leaves out on the source: a warning, and a stop where the target's log names keys only")
    func rowFilter() async throws {
        var sides = try await Sides(old: Self.filled, new: Self.filled, in: try PostgresCluster.shared)
        sides.link.mappings[0].rowFilter = "id > 7"
        let findings = try await sides.findings()
        #expect(findings.map(\.severity) == [.warning] && findings.map(\.code) == [.conflict])

        let (new, old) = (try SQLiteFile(), try SQLiteFile())
        for file in [new, old] { try await file.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES(1, 'a');") }
        var link = sides.link
        link.mappings = [TableMapping(source: TableName(name: "t"), target: TableName(name: "t"), rowFilter: "id > 7")]
        let preparation = try ReversePreparation(
            configuration: LinkConfiguration(link: link.reversed, journalDirectory: "/nowhere"), source: new.makeSource(),
            target: old.makeTarget(), logger: Logger(label: "preflight") { _ in SwiftLogNoOpLogHandler() })
        let found = try await preparation.findings()
        #expect(found.map(\.severity) == [.blocking, .warning])
        #expect(found.map(\.code) == [.configurationInvalid, .conflict])
        let refused = await #expect(throws: BridgeError.self) { try await preparation.prepare() }
        #expect(refused?.code == .configurationInvalid)
        #expect(try await new.traces() + old.traces() == [])
    }
}

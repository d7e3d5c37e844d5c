import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// A database with tables, and a cutover's session on it.
struct CutoverFixture {
    let cluster: PostgresCluster
    let url: String
    let migration: String
    let tables: [TableName]
    let session: any CutoverSession

    init(_ schema: String, tables: [String], cluster: PostgresCluster? = nil) async throws {
        self.cluster = if let cluster { cluster } else { try PostgresCluster.shared }
        url = try await self.cluster.makeDatabase("cutover")
        try await self.cluster.psql(url, schema)
        // Roles and replication origins belong to the cluster.
        migration = "m-\(UInt32.random(in: .min ... .max))"
        self.tables = tables.map { TableName(schema: "public", name: $0) }
        session = try await PostgresSource(connectionString: url).openCutover(migration: migration)
    }

    var database: String { String(url.split(separator: "/")[2].prefix { $0 != "?" }) }
    var suffix: String { migration.replacing("-", with: "_") }
    var link: LinkDescription {
        LinkDescription(
            migration: migration, direction: .forward, mappings: tables.map { TableMapping(source: $0, target: $0) }, form: .native)
    }

    @discardableResult
    func sql(_ text: String) async throws -> String { try await cluster.psql(url, text) }

    /// What the server says to statements that fail; nil if they do not.
    func refusal(_ text: String, user: String = "postgres") async throws -> String? {
        do {
            try await cluster.psql(cluster.uri(database, user: user), "\\set VERBOSITY verbose\n\(text)\n")
            return nil
        } catch let failure as ChildProcess.Failure { return failure.description }
    }

    /// A session of the application's, which the test holds open.
    func application(_ user: String = "postgres") throws -> PostgresConnection {
        let session = try PostgresConnection(try ConnectionString(cluster.uri(database, user: user)), applicationName: "application")
        try session.execute("SET search_path = public")
        return session
    }

    /// An attempt's fence over all tables.
    func fence(_ attempt: String = "a1", lease: Duration? = .seconds(3_600), tables names: [String]? = nil) -> Fence {
        var services: [TableName: String] = [:]
        for table in tables where names?.contains(table.name) ?? true { services[table] = "users" }
        return Fence(attempt: attempt, tables: services, epoch: 7, lease: lease)
    }

    func raise(_ attempt: String = "a1", lease: Duration? = .seconds(3_600)) async throws {
        try await session.raise(fence(attempt, lease: lease), patience: .seconds(30))
    }

    /// Lets a fence that stands run out, as the clock would.
    func expire() async throws { try await raise(lease: .zero) }

    func end() async throws {
        try await session.removeAll()
        #expect(try await traces() == "")
        await session.close()
    }

    func traces() async throws -> String {
        try await sql(
            """
            SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE '%bridge%'
            UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE 'bridge%'
            """)
    }
}

/// Expects that a statement is refused by the fence, and no other thing.
func expectFenced(
    _ fixture: CutoverFixture, _ statement: String, user: String = "postgres", _ location: SourceLocation = #_sourceLocation
) async throws {
    let said = try await fixture.refusal(statement, user: user)
    #expect(said?.contains("BR001") == true, "\(statement): \(said ?? "it was done")", sourceLocation: location)
}

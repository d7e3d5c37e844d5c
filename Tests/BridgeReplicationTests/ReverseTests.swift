import BridgeConformance
import BridgeCore
import BridgePostgreSQL
import BridgeReplication
import BridgeSQLite
import BridgeTestEngines
import BridgeTestSupport
import Logging
import Testing

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

@Suite("The way back", .serialized)
struct ReverseTests {
    @Test("P19 both directions at once, 10,000 writes a side: no echo in either journal, both sides equal", arguments: Pair.all)
    func bothWays(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).bothWays()
    }

    @Test("P19 what was applied is no echo after the link that applied it is gone", arguments: Pair.all)
    func echoesAfterRemoval(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).echoesAfterRemoval()
    }

    @Test("C23 removing one direction leaves the other whole", arguments: Pair.all, [LinkDescription.Direction.forward, .reverse])
    func removesOneDirection(_ pair: Pair, _ direction: LinkDescription.Direction) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).removesOneDirection(direction)
    }

    @Test("C12 a way back that was not prepared, or prepared otherwise, does not run", arguments: Pair.all)
    func refusesUnprepared(_ pair: Pair) async throws {
        try await ConformanceSuite(source: pair.source, target: pair.target).refusesUnpreparedReverse()
    }

    /// Where the preparation can be killed.
    private static let failpoints: [Failpoint] =
        [.linkPrepared, .sourcePrepared, .journalNewSegment] + Failpoint.ofReversePreparation

    @Test("C12 C25 the preparation is killed at every point, and done when it is run again", arguments: Pair.all, failpoints.map(\.name))
    func killed(_ pair: Pair, at failpoint: String) async throws {
        let suite = try await ConformanceSuite(source: pair.source, target: pair.target)
        try await suite.runForward()
        let (from, to, journal) = (suite.target.url, suite.source.url, suite.reverseJournal)
        let (migration, tables) = (suite.back.migration, suite.back.mappings.map { [$0.source.schema, $0.source.name, $0.target.schema, $0.target.name] })
        let isNative = suite.back.form == .native
        for _ in 0..<2 {
            // The second time the kill finds what the first left.
            await #expect(processExitsWith: .signal(SIGKILL)) {
                [
                    failpoint = failpoint as String, from = from as String, to = to as String, journal = journal as String,
                    migration = migration as String, tables = tables as [[String?]], isNative = isNative as Bool
                ] in
                setenv("BRIDGE_FAILPOINTS", "\(failpoint)=kill", 1)
                let link = LinkDescription(
                    migration: migration, direction: .reverse,
                    mappings: tables.map {
                        TableMapping(source: TableName(schema: $0[0], name: $0[1] ?? ""), target: TableName(schema: $0[2], name: $0[3] ?? ""))
                    }, form: isNative ? .native : .canonical)
                try await Self.prepare(link, journal, from: from, to: to)
            }
            // Behind the last point nothing is left to be done, and so nothing to be killed.
            if failpoint == Failpoint.reverseAdopted.name { break }
        }
        try await suite.preparesAgain()
    }

    private static func prepare(_ link: LinkDescription, _ journal: String, from: String, to: String) async throws {
        let source: any SourceConnector =
            from.hasPrefix("sqlite:") ? SQLiteSource(path: String(from.dropFirst(7))) : try PostgresSource(connectionString: from)
        let target: any TargetConnector =
            to.hasPrefix("sqlite:") ? SQLiteTarget(path: String(to.dropFirst(7))) : PostgresTarget(connectionString: to)
        try await ReversePreparation(
            configuration: LinkConfiguration(link: link, journalDirectory: journal), source: source, target: target,
            logger: Logger(label: "killed") { _ in SwiftLogNoOpLogHandler() }
        ).prepare()
    }
}

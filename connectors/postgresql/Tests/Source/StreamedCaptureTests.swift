import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// A source whose server streams transactions from 64 kB on.
private struct StreamedFixture {
    let base: SourceFixture
    let folder: TemporaryDirectory
    let origin: CaptureOrigin
    var workspace: CaptureWorkspace

    init(_ sql: String, tables: [String], cluster: PostgresCluster? = nil, form: ValueForm = .native) async throws {
        base = try await SourceFixture(sql, tables: tables, form: form, cluster: cluster)
        try await base.psql("ALTER DATABASE \"\(base.slot.dropFirst("bridge_".count))\" SET logical_decoding_work_mem = '64kB'")
        folder = try TemporaryDirectory(prefix: "streamed")
        workspace = CaptureWorkspace(directory: folder.path("link/capture"))
        origin = try await base.source.prepareCapture(base.link, replacingLeftovers: false)
    }

    /// - Parameter durable: how far the journal reaches. It begins at the origin, also when a stream ended before it told
    ///   of any position.
    func open(_ durable: Position = .zero) async throws -> Stream {
        try await base.open(origin, max(durable, origin.position), in: workspace)
    }

    /// The bytes of running transactions that lie in the folder.
    var kept: [Int] {
        guard let directory = opendir(workspace.directory) else { return [] }
        defer { closedir(directory) }
        var sizes: [Int] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            var status = stat()
            if name.hasSuffix(".streamed"), stat("\(workspace.directory)/\(name)", &status) == 0 { sizes.append(Int(status.st_size)) }
        }
        return sizes
    }
}

/// Transactions that the server streams while they run.
@Suite struct StreamedCaptureTests {
    private static let table = "CREATE TABLE t(id int PRIMARY KEY, v text);"
    private static func rows(_ range: ClosedRange<Int>, _ table: String = "t") -> String {
        "INSERT INTO \(table) SELECT g, repeat('x', 100) FROM generate_series(\(range.lowerBound), \(range.upperBound)) g"
    }

    @Test("P2 P16 a running transaction is kept aside while others are confirmed, and is not lost with the process")
    func running() async throws {
        let fixture = try await StreamedFixture(Self.table, tables: ["t"])
        var stream = try await fixture.open()
        let application = BlockingSession(fixture.base.uri)
        try await application.execute("BEGIN; \(Self.rows(1...2_000))")
        try await waitUntil("changes kept aside") {
            try await stream.step(patience: .milliseconds(20))
            return fixture.kept.contains { $0 > 100_000 }
        }
        #expect(stream.takeLines() == [])
        try await fixture.base.psql("INSERT INTO t VALUES (9001, 'a')")
        try await stream.catchUp()
        #expect(stream.takeChanges() == ["insert t (9001|a)"])
        let confirmed = stream.frontier
        try await waitUntil("the server knowing it") {
            try await stream.step(patience: .milliseconds(20))
            return LogSequenceNumber.parse(try await fixture.base.slotFact("confirmed_flush_lsn")).map { $0 >= confirmed.commit } ?? false
        }
        // As when the process is killed: what is left in the folder is of no use to the next one.
        await stream.session.close()
        stream = try await fixture.open(stream.frontier)
        try await application.execute("INSERT INTO t VALUES (2001, 'end')")
        try await fixture.base.psql("INSERT INTO t VALUES (9002, 'b')")
        try await application.execute("COMMIT")
        try await fixture.base.psql("INSERT INTO t VALUES (9003, 'c')")
        stream.limit = 10_000
        var readsInside = 0
        let position = try await fixture.base.source.currentPosition(fixture.base.link)
        while stream.frontier < position {
            let before = stream.frontier
            let progress = try await stream.step()
            guard progress.isInsideTransaction else { continue }
            readsInside += 1
            // The frontier does not move over a transaction that is delivered in part.
            #expect(progress.transactions > 0 || progress.frontier == before)
            #expect(stream.starts.last.map { progress.frontier <= $0.position } == true)
        }
        #expect(readsInside > 3)
        let changes = stream.takeChanges()
        #expect(changes.count == 2_003 && changes.first == "insert t (9002|b)" && changes.last == "insert t (9003|c)")
        #expect(changes[2_001] == "insert t (2001|end)")
        #expect(stream.ends.map(\.changes).suffix(3) == [1, 2_001, 1])
        #expect(fixture.kept == [])
        await stream.session.close()
    }

    @Test("P16 files that a killed process left are removed at the start, and no others")
    func leftovers() async throws {
        let fixture = try await StreamedFixture(Self.table, tables: ["t"])
        await (try await fixture.open()).session.close()
        try fixture.folder.write("link/capture/4711.streamed", "rows")
        try fixture.folder.write("link/capture/other", "kept")
        let stream = try await fixture.open()
        #expect(fixture.kept == [])
        #expect(try fixture.folder.read("link/capture/other") == "kept")
        let application = BlockingSession(fixture.base.uri)
        try await application.execute("BEGIN; \(Self.rows(1...2_000))")
        try await waitUntil {
            try await stream.step(patience: .milliseconds(20))
            return !fixture.kept.isEmpty
        }
        try await application.execute("ROLLBACK")
        try await waitUntil("an aborted transaction's file going") {
            try await stream.step(patience: .milliseconds(20))
            return fixture.kept.isEmpty
        }
        #expect(stream.takeLines() == [])
        await stream.session.close()
    }

    @Test("P16 a part that is rolled back after it was streamed is taken back, and no more; markers and truncates arrive")
    func parts() async throws {
        let fixture = try await StreamedFixture(
            Self.table + "CREATE TABLE u(id int PRIMARY KEY, v text)", tables: ["t", "u"])
        let stream = try await fixture.open()
        let application = BlockingSession(fixture.base.uri)
        try await application.execute("BEGIN; INSERT INTO u VALUES (1, 'top'); SAVEPOINT a; SAVEPOINT b; \(Self.rows(1...1_000)); RELEASE b")
        try await waitUntil {
            try await stream.step(patience: .milliseconds(20))
            return !fixture.kept.isEmpty
        }
        try await application.execute("INSERT INTO u VALUES (2, 'in a'); SAVEPOINT c; \(Self.rows(2_001...3_000)); ROLLBACK TO a")
        try await application.execute(
            "TRUNCATE u; \(StreamMarker.statement("mark", link: fixture.base.link)); ALTER TABLE t ADD COLUMN w int; \(Self.rows(1...1_500)); COMMIT")
        try await stream.catchUp()
        let lines = stream.takeLines()
        #expect(lines.filter { $0.hasPrefix("commit") } == ["commit 1503"])
        #expect(lines.contains("insert u (1|top)") && !lines.contains { $0.contains("in a") })
        #expect(lines.contains("truncate 0 u") && lines.contains("message bridge.marker mark"))
        #expect(lines.contains("relation public.t: id* integer, v text, w integer"))
        #expect(lines.count { $0.hasPrefix("insert t") && $0.hasSuffix("|NULL)") } == 1_500)
        await stream.session.close()
    }

    @Test("P9 P16 a table whose only use was rolled back is described to what follows as it is then")
    func describedAnew() async throws {
        let fixture = try await StreamedFixture(Self.table, tables: ["t"])
        let stream = try await fixture.open()
        let application = BlockingSession(fixture.base.uri)
        try await application.execute("BEGIN; SAVEPOINT a; \(Self.rows(1...2_000))")
        try await waitUntil {
            try await stream.step(patience: .milliseconds(20))
            return !fixture.kept.isEmpty
        }
        try await application.execute("ROLLBACK TO a")
        try await fixture.base.psql("INSERT INTO t VALUES (1, 'x'); ALTER TABLE t ADD COLUMN w int")
        try await application.execute("COMMIT")
        try await fixture.base.psql("INSERT INTO t VALUES (2, 'y', 3)")
        try await stream.catchUp()
        #expect(stream.takeChanges() == ["insert t (1|x)", "insert t (2|y|3)"])
        await stream.session.close()
    }

    @Test("S15 P16 a type that is made in the transaction itself is looked up")
    func ownType() async throws {
        let fixture = try await StreamedFixture(Self.table, tables: ["t"], form: .canonical)
        let stream = try await fixture.open()
        try await fixture.base.psql(
            "BEGIN; CREATE DOMAIN size AS bigint; ALTER TABLE t ADD COLUMN s size; INSERT INTO t SELECT g, repeat('x', 100), g FROM generate_series(1, 2000) g; COMMIT")
        try await stream.catchUp()
        let changes = stream.takeChanges()
        #expect(changes.count == 2_000 && changes.allSatisfy { $0.contains("|i") })
        await stream.session.close()
    }

    @Test("P16 P19 what the other direction applied is passed over when it is streamed, though it begins with a truncate")
    func echoes() async throws {
        let fixture = try await StreamedFixture(
            Self.table + "CREATE SCHEMA _bridge; CREATE TABLE _bridge.link(name text PRIMARY KEY, updated_at timestamptz);", tables: ["t"])
        let stream = try await fixture.open()
        let name = "\(fixture.base.slot)_reverse"
        try await fixture.base.psql(
            """
            INSERT INTO _bridge.link VALUES ('\(fixture.base.link.opposite.name)', now());
            SELECT pg_replication_origin_create('\(name)'); SELECT pg_replication_origin_session_setup('\(name)');
            BEGIN; \(LinkRecords.touch(fixture.base.link.opposite)); TRUNCATE t; \(Self.rows(1...2_000)); COMMIT;
            """)
        try await stream.catchUp()
        #expect(stream.takeLines() == [])
        try await fixture.base.psql("INSERT INTO t VALUES (9001, 'own')")
        try await stream.catchUp()
        #expect(stream.takeChanges() == ["insert t (9001|own)"])
        await stream.session.close()
        try await fixture.base.psql("SELECT pg_replication_origin_drop('\(name)')")
    }

    // MARK: Space

    @Test("P16 what has no room is held by the source from then on, and nothing is lost", arguments: ["budget", "disk", "folder"])
    func noRoom(_ what: String) async throws {
        var fixture = try await StreamedFixture(Self.table, tables: ["t"])
        if what == "budget" { fixture.workspace.budget = 300_000 }
        if what == "folder" {
            try fixture.folder.write("file", "")
            fixture.workspace.directory = fixture.folder.path("file/capture")
            let opening = fixture
            #expect(try await failure { try await opening.open() }.code == .streamingRefused)
        }
        var stream = try await fixture.open()
        let application = BlockingSession(fixture.base.uri)
        try await application.execute("BEGIN; INSERT INTO t VALUES (0, '0')")
        if what == "disk" {
            let number = try await fixture.base.psql("SELECT backend_xid FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND datname = current_database()")
            try #require(symlink("/dev/full", "\(fixture.workspace.directory)/\(number).streamed") == 0)
        }
        try await fixture.base.psql("INSERT INTO t VALUES (9001, 'a')")
        try await application.execute(Self.rows(1...4_000))
        if what != "folder" {
            let error = try await failure { while true { try await stream.step(patience: .milliseconds(20)) } }
            #expect(error.code == .streamingRefused)
            guard case .backoff = error.retry else { throw error }
            await stream.session.close()
            stream = try await fixture.open(stream.frontier)
        }
        try await application.execute("COMMIT")
        try await stream.catchUp()
        #expect(stream.takeChanges().filter { $0 != "insert t (9001|a)" }.count == 4_001)
        #expect(fixture.kept.allSatisfy { $0 == 0 })
        await stream.session.close()
    }

    @Test("P16 a transaction that has room, but would fill the disk at its commit, is held by the source", .enabled(if: SmallFileSystem.canMount))
    func noRoomForCommit() async throws {
        let disk = try SmallFileSystem()
        defer { disk.unmount() }
        var fixture = try await StreamedFixture(Self.table, tables: ["t"])
        let elsewhere = fixture.workspace
        fixture.workspace.directory = "\(disk.path)/capture"
        var stream = try await fixture.open()
        let application = BlockingSession(fixture.base.uri)
        try await application.execute("BEGIN; \(Self.rows(1...1_500))")
        var refused: BridgeError?
        try await waitUntil("it is refused") {
            do { try await stream.step(patience: .milliseconds(20)) } catch let error as BridgeError { refused = error }
            return refused != nil
        }
        #expect(refused?.code == .streamingRefused)
        #expect(fixture.kept.reduce(0, +) < 100_000)
        await stream.session.close()
        // From now on the source holds it, wherever there might be room.
        fixture.workspace = elsewhere
        stream = try await fixture.open(stream.frontier)
        try await application.execute("COMMIT")
        try await stream.catchUp()
        #expect(stream.takeChanges().count == 1_500)
        await stream.session.close()
    }

    // MARK: Prepared transactions

    @Test("P16 prepared transactions arrive whole when they are committed, also after restarts, and leave nothing otherwise")
    func prepared() async throws {
        let cluster = try await PostgresCluster.started()
        let fixture = try await StreamedFixture(Self.table, tables: ["t"], cluster: cluster)
        var stream = try await fixture.open()
        try await fixture.base.psql(
            """
            BEGIN; INSERT INTO t VALUES (9001, 'small'); PREPARE TRANSACTION 'small';
            BEGIN; INSERT INTO t VALUES (9002, 'never'); PREPARE TRANSACTION 'small undone';
            BEGIN; \(Self.rows(1...2_000)); PREPARE TRANSACTION 'large';
            BEGIN; \(Self.rows(3_001...5_000)); PREPARE TRANSACTION 'large undone';
            BEGIN; \(Self.rows(6_001...8_000)); PREPARE TRANSACTION 'large later';
            INSERT INTO t VALUES (9003, 'x');
            """)
        try await stream.catchUp()
        #expect(stream.takeChanges() == ["insert t (9003|x)"])
        #expect(fixture.kept.count == 3)
        try await fixture.base.psql("COMMIT PREPARED 'large'; ROLLBACK PREPARED 'large undone'; COMMIT PREPARED 'small'; ROLLBACK PREPARED 'small undone'")
        try await stream.catchUp()
        #expect(stream.takeChanges().count == 2_001)
        #expect(stream.ends.map(\.changes) == [1, 2_000, 1])
        #expect(fixture.kept.count == 1)
        // The server and the capture come back between the two phases.
        await stream.session.close()
        let durable = stream.frontier
        try await BlockingWork().run { try cluster.restart(mode: .immediate) }
        stream = try await fixture.open(durable)
        try await fixture.base.psql("INSERT INTO t VALUES (9004, 'y')")
        try await stream.catchUp()
        await stream.session.close()
        stream = try await fixture.open(stream.frontier)
        try await fixture.base.psql("COMMIT PREPARED 'large later'")
        try await stream.catchUp()
        #expect(stream.takeChanges().count == 2_000)
        await stream.session.close()
        #expect(try await fixture.base.psql("SELECT two_phase FROM pg_replication_slots WHERE slot_name = '\(fixture.base.slot)'") == "f")
    }

    // MARK: At random

    /// `BRIDGE_STREAMED_STEPS` makes it longer.
    @Test("P16 P17 random transactions side by side, with savepoints and altered tables: what is delivered equals a decoding without streaming")
    func random() async throws {
        var (random, seed) = SeededGenerator.named("streamed transactions at random")
        let tables = (0..<4).map { "t\($0)" } + ["shared"]
        let fixture = try await StreamedFixture(
            tables.map { "CREATE TABLE \($0)(id int PRIMARY KEY, v text);" }.joined(), tables: tables)
        try await fixture.base.psql("SELECT pg_create_logical_replication_slot('reference_\(fixture.base.slot)', 'pgoutput')")
        var stream = try await fixture.open()
        let sessions = tables.dropLast().enumerated().map { RandomSession($1, fixture.base.uri, isPatient: $0 < 3) }
        let steps = environment("BRIDGE_STREAMED_STEPS").flatMap { Int($0) } ?? 120
        var fallbacks = 0
        for _ in 0..<steps {
            try await random.pick(sessions).step(&random)
            do {
                guard random.chance(60) else { continue }
                let isBetween = try await !stream.step(patience: .milliseconds(5)).isInsideTransaction
                // A session that begins describes the tables, and would wait for whoever alters one.
                guard isBetween, random.chance(10), sessions.allSatisfy({ !$0.locksTable }) else { continue }
            } catch let error as BridgeError where error.code == .streamingRefused {
                // A message in doubt. What the failed read brought is lost with it.
                fallbacks += 1
                for session in sessions { try await session.finish(&random) }
            }
            await stream.session.close()
            stream = Stream(continuing: stream, try await fixture.open(stream.frontier).session)
        }
        for session in sessions { try await session.finish(&random) }
        do { try await stream.catchUp() } catch let error as BridgeError where error.code == .streamingRefused {
            fallbacks += 1
            await stream.session.close()
            stream = Stream(continuing: stream, try await fixture.open(stream.frontier).session)
            try await stream.catchUp()
        }
        await stream.session.close()
        #expect(fallbacks <= 1, "seed \(seed)")
        let reference = try await Self.reference(fixture.base)
        let delivered = stream.lines.filter { !$0.hasPrefix("relation") }
        let decoded = reference.lines.filter { !$0.hasPrefix("relation") }
        let difference = zip(delivered, decoded).enumerated().first { $1.0 != $1.1 }
        if let difference { print("line \(difference.offset): \(difference.element.0.prefix(60)) instead of \(difference.element.1.prefix(60))") }
        #expect(difference == nil && delivered.count == decoded.count, "seed \(seed), \(delivered.count) and \(decoded.count) lines")
        #expect(stream.ends == reference.ends && stream.starts == reference.starts, "seed \(seed)")
        #expect(!stream.ends.isEmpty, "seed \(seed)")
    }

    /// All changes as another slot gives them in protocol version 1.
    private static func reference(_ fixture: SourceFixture) async throws -> RecordLines {
        let messages = try await fixture.psql(
            """
            SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('reference_\(fixture.slot)', NULL, NULL,
              'proto_version', '1', 'publication_names', '\(fixture.slot)', 'messages', 'true')
            """)
        var decoder = PgOutputDecoder(form: .native, durable: .zero, nextTransaction: 1_000, link: fixture.link)
        let lines = RecordLines()
        let buffer = RecordBuffer()
        for line in messages.split(separator: "\n") {
            let digits = Array(line.utf8)
            let bytes = stride(from: 0, to: digits.count, by: 2).map { UInt8(strtoul(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), nil, 16)) }
            _ = try bytes.withUnsafeBytes { try decoder.decode($0, into: buffer) }
        }
        try lines.collect(buffer)
        return lines
    }
}

/// An application that does this and that in transactions with savepoints.
private final class RandomSession {
    private let table: String
    private let session: BlockingSession
    private let isPatient: Bool
    private var isOpen = false
    /// Whether the open transaction has locked its table against all others.
    private(set) var locksTable = false
    private var savepoints: [String] = []
    private var number = 0

    /// - Parameter isPatient: whether its transactions are long.
    init(_ table: String, _ uri: String, isPatient: Bool) {
        self.table = table
        self.isPatient = isPatient
        session = BlockingSession(uri)
    }

    func step(_ random: inout SeededGenerator) async throws {
        number += 1
        guard isOpen else {
            isOpen = true
            try await session.execute("BEGIN")
            return
        }
        let id = number * 1_000
        switch random.below(24) {
        case 0: try await finish(&random)
        case 17, 18:
            if !isPatient { try await finish(&random) }
        case 1, 2, 3, 4:
            savepoints.append("s\(number)")
            try await session.execute("SAVEPOINT s\(number)")
        case 5, 6, 7:
            guard !savepoints.isEmpty else { return }
            // The savepoint stays, and goes when one outside it goes.
            let index = random.below(savepoints.count)
            try await session.execute("ROLLBACK TO \(savepoints[index])")
            savepoints.removeLast(savepoints.count - index - 1)
        case 8, 9:
            guard !savepoints.isEmpty else { return }
            let index = random.below(savepoints.count)
            try await session.execute("RELEASE \(savepoints[index])")
            savepoints.removeLast(savepoints.count - index)
        case 10:
            locksTable = true
            try await session.execute("ALTER TABLE \(table) ADD COLUMN c\(number) int DEFAULT \(number)")
        case 11:
            locksTable = true
            try await session.execute("TRUNCATE \(table)")
        case 12:
            // Others would have the source hold all transactions before long.
            guard savepoints.isEmpty, random.chance(20) else { return }
            try await session.execute("SELECT pg_logical_emit_message(true, 'app', '\(table) \(number)')")
        case 13: try await session.execute("DELETE FROM \(table) WHERE id % 3 = \(random.below(3))")
        case 14, 15: try await session.execute("UPDATE \(table) SET v = v || '\(number)' WHERE id % 5 = \(random.below(5))")
        case 16:
            let digit = table.suffix(1)
            try await session.execute("INSERT INTO shared SELECT \(digit) * 10000000 + \(id) + g, 'x' FROM generate_series(1, \(random.below(300))) g")
        default:
            try await session.execute(
                "INSERT INTO \(table) (id, v) SELECT \(id) + g, repeat('\(number % 10)', 100) FROM generate_series(1, \(random.below(600))) g")
        }
    }

    func finish(_ random: inout SeededGenerator) async throws {
        guard isOpen else { return }
        try await session.execute(random.chance(75) ? "COMMIT" : "ROLLBACK")
        isOpen = false
        locksTable = false
        savepoints = []
    }
}

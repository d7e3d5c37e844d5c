import BridgeConformance
import BridgeCore
import BridgeJournal
import BridgePostgreSQL
import BridgeReplication
import BridgeTestSupport
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// The slot as a duty to the source: what it is told, and how much log it makes the source keep.
@Suite("Slots", .serialized)
struct SlotTests {
    private static func slotFact(_ place: FailurePlace, _ fact: String) async throws -> String {
        try await place.source.sql("SELECT \(fact) FROM pg_replication_slots WHERE slot_name = '\(place.link.identifier)'")
    }

    /// Starts a run in the background.
    private static func start(_ runner: LinkRunner) -> Task<Result<Bool, BridgeError>, Never> {
        Task {
            do throws(BridgeError) { return .success(try await runner.run(untilCaughtUp: false)) } catch { return .failure(error) }
        }
    }

    /// Some megabytes of log, 16 a round, without writing that much.
    private static func writeLog(_ place: FailurePlace, rounds: Int) async throws {
        for _ in 0..<rounds { try await place.source.sql("SELECT pg_logical_emit_message(false, 'other', 'x'); SELECT pg_switch_wal()") }
    }

    private static func limit(_ place: FailurePlace, _ action: SlotLimit.Action, mayDrop: Bool = true) -> SlotLimit {
        SlotLimit(
            bytes: 100_000_000, action: action, recordFile: place.folder.path("slot-dropped"), interval: .milliseconds(50),
            patience: .milliseconds(200), mayDrop: { mayDrop })
    }

    @Test("P6 at the limit a slot is given up only when what it holds does not get less for a while")
    func course() {
        let start = ContinuousClock.now
        var course = SlotCourse(bytes: 100, action: .drop, patience: .seconds(60))
        func look(_ bytes: Int64, _ second: Int, mayDrop: Bool = true) -> SlotCourse.Verdict {
            course.look(SourceRetention(bytes: bytes), at: start + .seconds(second), mayDrop: mayDrop)
        }
        #expect(look(74, 0) == .fine && look(75, 1) == .near && look(100, 2) == .beyond)
        // Not less than it was when the limit was passed.
        #expect(look(200, 61) == .beyond && look(150, 62) == .drop)
        course = SlotCourse(bytes: 100, action: .drop, patience: .seconds(60))
        // It gets less: what was missed is being taken in.
        #expect(look(500, 0) == .beyond && look(490, 59) == .beyond && look(485, 118) == .beyond && look(486, 177) == .beyond)
        #expect(look(486, 178, mayDrop: false) == .beyond && look(486, 179) == .drop)
        // Below the limit everything begins anew.
        #expect(look(99, 180) == .near && look(100, 300) == .beyond)
        course = SlotCourse(bytes: 100, action: .hold, patience: .seconds(60))
        #expect(look(500, 0) == .beyond && look(500, 1_000) == .beyond)
    }

    @Test("P6 at the limit a slot is not given up while a large transaction that holds the log is taken in")
    func courseOfLargeTransaction() {
        let start = ContinuousClock.now
        var course = SlotCourse(bytes: 100, action: .drop, patience: .seconds(60))
        func look(_ bytes: Int64, _ captured: UInt64, rows: Int64 = 0, sessions: Int = 1, from restart: UInt64 = 600, _ second: Int) -> SlotCourse.Verdict {
            course.look(
                SourceRetention(bytes: bytes, logEnd: Position(commit: restart + UInt64(bytes))),
                .init(captured: Position(commit: captured), rows: rows, sessions: sessions), at: start + .seconds(second),
                mayDrop: true)
        }
        // The log is kept from one place on while capture comes nearer to its end, faster than that moves.
        #expect(look(500, 1_000, 0) == .beyond && look(510, 1_020, 50) == .beyond && look(520, 1_040, 100) == .beyond)
        // Then nothing moves but the rows of the one transaction.
        #expect(look(530, 1_040, rows: 7, 150) == .beyond && look(540, 1_040, rows: 9, 205) == .beyond)
        // No more of them.
        #expect(look(540, 1_040, rows: 9, 264) == .beyond && look(540, 1_040, rows: 9, 265) == .drop)

        // With all taken in, a transaction that stays open holds the log; that capture keeps pace does not help the source.
        course = SlotCourse(bytes: 100, action: .drop, patience: .seconds(60))
        #expect(look(500, 1_000, 0) == .beyond && look(600, 1_100, rows: 5, 30) == .beyond && look(700, 1_200, rows: 9, 60) == .drop)
        // Nor does it when the writers are faster.
        course = SlotCourse(bytes: 100, action: .drop, patience: .seconds(60))
        #expect(look(500, 1_000, 0) == .beyond && look(600, 1_050, rows: 5, 30) == .beyond && look(700, 1_100, rows: 9, 60) == .drop)
        // Nor when the place that the log is kept from follows capture.
        course = SlotCourse(bytes: 100, action: .drop, patience: .seconds(60))
        #expect(look(500, 500, rows: 5, from: 500, 0) == .beyond && look(1_700, 2_300, rows: 9, from: 2_300, 30) == .beyond)
        #expect(look(2_900, 4_100, rows: 20, from: 4_100, 60) == .drop)
        // Nor do rows that a lost session had received already.
        course = SlotCourse(bytes: 100, action: .drop, patience: .seconds(60))
        #expect(look(500, 1_000, 0) == .beyond && look(510, 1_000, rows: 100, 10) == .beyond)
        #expect(look(520, 1_000, rows: 150, sessions: 2, 40) == .beyond && look(530, 1_000, rows: 200, sessions: 2, 69) == .beyond)
        var other = course
        #expect(look(540, 1_000, rows: 200, sessions: 2, 70) == .drop)
        swap(&course, &other)
        #expect(look(540, 1_000, rows: 201, sessions: 2, 70) == .beyond && look(540, 1_000, rows: 202, sessions: 2, 129) == .beyond)
    }

    @Test("P6 a look that failed proves nothing: the waiting begins anew")
    func courseOfFailedLooks() {
        let start = ContinuousClock.now
        var course = SlotCourse(bytes: 100, action: .drop, patience: .seconds(60))
        func look(_ second: Int) -> SlotCourse.Verdict { course.look(SourceRetention(bytes: 500), at: start + .seconds(second), mayDrop: true) }
        #expect(look(0) == .beyond)
        course.missed()
        #expect(look(120) == .beyond && look(179) == .beyond && look(180) == .drop)
    }

    @Test("R4 P6 told to stop while a look at the slot waits for a mute source, the run ends")
    func stopDuringLook() async throws {
        // The source's silence counts for longer than the test waits.
        let place = try await FailurePlace(source: .proxied(words: ["tcp_user_timeout=60000", "connect_timeout=120"]), target: .shared())
        var limit = Self.limit(place, .hold)
        // One look after the other, so that one is under way at any moment.
        limit.interval = .zero
        let runner = try place.runner(limit: limit)
        let hasEnded = StopFlag()
        let running = Task {
            defer { hasEnded.set() }
            return try await runner.run(untilCaughtUp: false)
        }
        try await waitUntil("the link streams") {
            runner.progress.isCapturing && runner.progress.activity == .streaming && runner.progress.retention != nil
        }
        let proxy = try #require(place.source.proxy)
        proxy.set(toServer: .stalled, toClient: .stalled)
        try await waitUntil("a look hangs: none sees that the log grows") {
            let seen = runner.progress.retention
            try await Self.writeLog(place, rounds: 1)
            return runner.progress.retention == seen
        }
        runner.stop()
        defer { proxy.cut() }
        try await waitUntil("the run ends") { hasEnded.isSet }
        #expect(try await running.value == false)
    }

    @Test("P6 at its limit the slot is dropped while the target holds everything up, and a later run says the same")
    func dropped() async throws {
        let place = try await FailurePlace(source: .shared(), target: .shared())
        let runner = try place.runner(limit: Self.limit(place, .drop), budget: 200_000)
        let running = Self.start(runner)
        try await waitUntil("the link streams") { runner.progress.isCapturing && runner.progress.activity == .streaming }
        #expect(runner.progress.slotWarning == nil)
        let lock = try ChildProcess(
            [place.target.cluster.program("psql"), "-qXAt", "-d", place.target.uri],
            input: "BEGIN; LOCK TABLE a; SELECT pg_sleep(600);")
        try await waitUntil("the lock is held") {
            try await place.target.sql("SELECT count(*) FROM pg_locks WHERE relation = 'a'::regclass AND mode = 'AccessExclusiveLock' AND granted") == "1"
        }
        for round in 0..<20 {
            try await place.source.sql("INSERT INTO a SELECT \(round) * 1000 + g, g, md5(g::text || \(round)) FROM generate_series(1, 1000) g")
        }
        try await waitUntil("capture waits for room") { runner.progress.trouble?.contains("budget") == true }
        // Not more than to three quarters of the limit: how much a round adds depends on where in a segment it begins.
        try await waitUntil("a warning ahead") {
            let retained = Int(try await Self.slotFact(place, "pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint")) ?? 0
            if retained < 76_000_000 { try await Self.writeLog(place, rounds: 1) }
            return runner.progress.slotWarning != nil
        }
        #expect(try await Self.slotFact(place, "count(*)") == "1")
        try await Self.writeLog(place, rounds: 2)
        guard case .failure(let error) = await running.value else {
            Issue.record("the run did not fail")
            return
        }
        #expect(error.code == .slotLimit && error.exitStatus == .badData && error.retry == .never, "\(error)")
        #expect(error.hint.contains("begin again under a new migration name"))
        #expect(try await Self.slotFact(place, "count(*)") == "0")
        #expect(try await place.source.sql("SELECT count(*) FROM pg_publication") == "0")
        lock.send(signal: SIGKILL)
        _ = await lock.wait()
        try await place.target.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()")

        let later = await #expect(throws: BridgeError.self) {
            try await place.runner(limit: Self.limit(place, .drop)).run(untilCaughtUp: false)
        }
        #expect(later?.code == .slotLimit && later?.message == error.message)
        // A slot that somebody else dropped is still another matter.
        unlink(place.folder.path("slot-dropped"))
        let unexplained = await #expect(throws: BridgeError.self) {
            try await place.runner(limit: Self.limit(place, .drop)).run(untilCaughtUp: false)
        }
        #expect(unexplained?.code == .slotMissing)
    }

    @Test("P6 beyond the limit a slot that is held, or must not be dropped, goes on with a warning", arguments: [SlotLimit.Action.hold, .drop])
    func held(_ action: SlotLimit.Action) async throws {
        let place = try await FailurePlace(source: .shared(), target: .shared())
        let runner = try place.runner(limit: Self.limit(place, action, mayDrop: false))
        let running = Self.start(runner)
        try await waitUntil("the link streams") { runner.progress.isCapturing && runner.progress.activity == .streaming }
        // A transaction that stays open keeps the log for the slot although capture has everything.
        let open = try ChildProcess(
            [place.source.cluster.program("psql"), "-qXAt", "-d", place.source.uri],
            input: "BEGIN; INSERT INTO a VALUES (1, 1, NULL); SELECT pg_sleep(600);")
        try await waitUntil("the transaction is open") {
            try await place.source.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND backend_xid IS NOT NULL AND datname = current_database()") == "1"
        }
        try await Self.writeLog(place, rounds: 8)
        try await waitUntil("it is beyond the limit") { (runner.progress.retention?.bytes ?? 0) > 100_000_000 }
        #expect(runner.progress.slotWarning != nil && runner.progress.trouble == nil)
        try await place.source.sql("INSERT INTO b VALUES (1, 1, NULL)")
        try await waitUntil("the link goes on") { try await place.target.sql("SELECT count(*) FROM b") == "1" }
        #expect(try await Self.slotFact(place, "count(*)") == "1")
        try await place.source.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid() AND datname = current_database()")
        _ = await open.wait()
        try await waitUntil("the warning goes with what it was about") {
            try await place.source.sql("CHECKPOINT")
            return runner.progress.slotWarning == nil
        }
        runner.stop()
        #expect(try await running.value.get() == false)
    }

    @Test("P6 an idle source beside a busy unrelated table keeps less than 64 MB for the slot, without the server's own record of what runs")
    func idle() async throws {
        let place = try await FailurePlace(source: .shared(), target: .shared())
        try await place.source.sql("CREATE TABLE busy(id bigint, filler text)")
        let runner = try place.runner()
        let running = Self.start(runner)
        try await waitUntil("the link streams") { runner.progress.isCapturing && runner.progress.activity == .streaming }
        // It writes every 15 s which transactions run, and lets the slot move by that. Here only the link does.
        let writer = try #require(
            pid_t(try await place.source.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'")))
        kill(writer, SIGSTOP)
        defer { kill(writer, SIGCONT) }
        let megabytes = environment("BRIDGE_FOREIGN_WAL_MB").flatMap { Int($0) } ?? 150
        let start = try await place.source.sql("SELECT pg_current_wal_lsn()")
        var written = 0
        while written < megabytes {
            try await place.source.sql(
                "INSERT INTO busy SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g; TRUNCATE busy")
            // A round is more than this: each must be let go of.
            try await waitUntil("the slot lets go of what was written") {
                Int(try await Self.slotFact(place, "pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint")) ?? .max < 16 << 20
            }
            let bytes = try await place.source.sql("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '\(start)')::bigint")
            written = (try #require(Int(bytes))) / 1_000_000
        }
        #expect(runner.progress.transactionsCaptured == 0)
        runner.stop()
        #expect(try await running.value.get() == false)
    }

    @Test("P7 an applier stalled for ten times wal_sender_timeout: the same walsender all along, the journal grows, then all arrives")
    func stalled() async throws {
        let place = try await FailurePlace(source: .shared(), target: .shared())
        let database = place.source.uri.split(separator: "?")[0].split(separator: "/").last ?? ""
        try await place.source.sql("ALTER DATABASE \"\(database)\" SET wal_sender_timeout = '1s'")
        let runner = try place.runner()
        let running = Self.start(runner)
        try await waitUntil("the link streams") { runner.progress.isCapturing && runner.progress.activity == .streaming }
        let sender = try await Self.slotFact(place, "active_pid")
        let lock = try ChildProcess(
            [place.target.cluster.program("psql"), "-qXAt", "-d", place.target.uri],
            input: "BEGIN; LOCK TABLE a, b; SELECT pg_sleep(600);")
        try await waitUntil("the lock is held") {
            try await place.target.sql("SELECT count(*) FROM pg_locks WHERE relation = 'a'::regclass AND mode = 'AccessExclusiveLock' AND granted") == "1"
        }
        let before = runner.progress
        let start = try await place.source.sql("SELECT clock_timestamp()")
        var number = 0
        while try await place.source.sql("SELECT clock_timestamp() > '\(start)'::timestamptz + interval '10 s'") == "f" {
            number += 1
            try await place.source.sql(FailurePlace.transaction(number))
            #expect(try await Self.slotFact(place, "active_pid") == sender)
            try await Task.sleep(for: .milliseconds(20))
        }
        // While the applier stands, nothing waits for it.
        try await waitUntil("all is in the journal") { runner.progress.transactionsCaptured == before.transactionsCaptured + Int64(number) }
        #expect(runner.progress.journalBytes > before.journalBytes && runner.progress.reconnects == 0)
        #expect(try await place.target.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'a'::regclass AND mode = 'AccessExclusiveLock' AND granted") == "t")
        _ = await lock.wait()
        try await waitUntil("both sides are equal") {
            try await FailurePlace.contents(place.source) == FailurePlace.contents(place.target)
        }
        #expect(try await Self.slotFact(place, "active_pid") == sender)
        runner.stop()
        #expect(try await running.value.get() == false)
    }

    @Test("P2 under writers, and kills, the slot is never told more than the journal holds, nor of the inside of a commit")
    func feedback() async throws {
        let place = try await FailurePlace(source: .shared(), target: .shared())
        let configuration = try BridgeProgram.configure(
            in: place.folder, migration: place.link.migration, source: place.source.uri, target: place.target.uri,
            tables: FailurePlace.tables)
        let journal = place.folder.path("data/forward/journal")
        let flag = StopFlag()
        let writing = Task { await place.write(from: 0, until: flag) }
        var samples: [UInt64] = []
        func sample() async throws {
            // The slot first: what the journal gets meanwhile may only be more.
            let slot = try await Self.slotFact(place, "confirmed_flush_lsn - '0/0'")
            guard let confirmed = UInt64(slot) else { return }
            guard let held = try? await JournalInspector.list(directory: journal).map(\.frontier.commit).max() else { return }
            #expect(confirmed <= held)
            samples.append(confirmed)
        }
        for _ in 0..<3 {
            let run = try ChildProcess([BridgeProgram.path, "run", "--config", configuration])
            let distinct = Set(samples).count
            try await waitUntil(deadline: .seconds(60), "the slot moves on; \(run.errorsSoFar)") {
                try await sample()
                return Set(samples).count >= distinct + 8
            }
            run.send(signal: SIGKILL)
            _ = await run.wait()
            for _ in 0..<3 { try await sample() }
        }
        flag.set()
        #expect(await writing.value > 0)
        let last = try await BridgeProgram.run(["run", "--until-caught-up", "--config", configuration])
        #expect(last.status == 0, "\(last.errors)")
        #expect(try await FailurePlace.contents(place.source) == FailurePlace.contents(place.target))
        // No place that the slot was told lies inside of a commit record.
        let commits = try await Self.commits(journal)
        try #require(!commits.isEmpty)
        for confirmed in samples {
            #expect(!commits.contains { $0.start < confirmed && confirmed < $0.end })
        }
        #expect(Set(samples).intersection(commits.map(\.end)).count > 0)
    }

    /// The commit records of a journal: where each begins on the source, and where it ends.
    private static func commits(_ directory: String) async throws -> [(start: UInt64, end: UInt64)] {
        let binding = try await JournalInspector.binding(directory: directory)
        let writer = try await JournalWriter.open(directory: directory, binding: binding, options: JournalOptions())
        let reader = try await writer.makeReader(after: .zero)
        let buffer = RecordBuffer()
        var commits: [(start: UInt64, end: UInt64)] = []
        while try await reader.read(into: buffer, limit: 1 << 20) > 0 {
            var cursor = RecordCursor(buffer.bytes)
            while let record = try cursor.next() {
                guard record.kind == .commit else { continue }
                let end = try record.transactionEnd()
                commits.append((end.position.commit, end.end))
            }
            buffer.removeAll()
        }
        await reader.close()
        await writer.close()
        return commits
    }
}

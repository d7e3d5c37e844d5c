import BridgeCore
import BridgeTestSupport
import GRDB
import Glibc
import Synchronization
import Testing

@testable import BridgeSQLite

/// What each writer was told is committed.
private final class Acknowledged: Sendable {
    let numbers = Mutex<[[Int]]>([[], [], []])
}

/// How a fence comes to stand, lasts and goes.
@Suite("SQLite fence: life")
struct FenceLifeTests {
    static let two = "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a INTEGER PRIMARY KEY); INSERT INTO t VALUES(1, 1);"

    @Test("C2 past its expiry writes go on with nobody's help, and the fence can no longer be made permanent", arguments: ["WAL", "DELETE"])
    func expiry(journalMode: String) async throws {
        let fixture = try await CutoverFixture(Self.two, journalMode: journalMode)
        try await fixture.session.raise(Fence(["t", "u"], lease: .milliseconds(1_500)), patience: .seconds(10))
        // The tool is gone.
        await fixture.close()
        try await waitUntil("the fence's end") { try attempt(fixture.database.application, "INSERT INTO t VALUES(2, 2)") == nil }
        let session = try await fixture.another()
        #expect(try await session.fence(on: names(["t", "u"])) == .expired(attempt: "first"))
        let error = await failure {
            try await session.makePermanent(attempt: "first", tables: names(["t", "u"]), margin: .zero)
        }
        #expect(error?.code == .fenceExpired)
        #expect(try attempt(fixture.database.application, "INSERT INTO t VALUES(3, 3)") == nil)
        await session.close()
    }

    @Test("C2 a write that went through ends the fence, even if the clock is set back")
    func clockSetBack() async throws {
        let fixture = try await CutoverFixture(Self.two)
        try await fixture.session.raise(Fence(["t", "u"]), patience: .seconds(10))
        let application = fixture.database.application
        // As if the clock had run past the expiry, a write went through, and the clock was set back.
        try fixture.database.run("UPDATE _bridge_fence SET expires = expires - 7200000")
        #expect(try refusal(application, "INSERT INTO t VALUES(2, 2)") == nil)
        try fixture.database.run("UPDATE _bridge_fence SET expires = expires + 7200000")
        // That one was rolled back: nothing was written.
        #expect(try await fixture.session.fence(on: names(["t", "u"])).word == "leased first")
        try fixture.database.run("UPDATE _bridge_fence SET expires = expires - 7200000")
        #expect(try attempt(application, "INSERT INTO t VALUES(2, 2)") == nil)
        try fixture.database.run("UPDATE _bridge_fence SET expires = expires + 7200000")
        #expect(try await fixture.session.fence(on: names(["t", "u"])) == .expired(attempt: "first"))
        var error = await failure {
            try await fixture.session.makePermanent(attempt: "first", tables: names(["t", "u"]), margin: .zero)
        }
        #expect(error?.code == .fenceExpired)
        // It is not renewed either: what was drained and checked behind it is no longer all there is.
        error = await failure { try await fixture.session.raise(Fence(["t", "u"]), patience: .seconds(10)) }
        #expect(error?.code == .fenceExpired)
        #expect(try refusal(application, "INSERT INTO t VALUES(3, 3)") == nil)
        try await fixture.session.removeFence(attempt: "first", tables: names(["t", "u"]))
        try await fixture.session.raise(Fence(["t", "u"]), patience: .seconds(10))
        #expect(try await fixture.session.fence(on: names(["t", "u"])).word == "leased first")
        #expect(try attempt(application, "INSERT INTO t VALUES(3, 3)") != nil)
        await fixture.close()
    }

    @Test("C2 it is made permanent only while the margin remains, and then has no expiry any more")
    func permanent() async throws {
        let fixture = try await CutoverFixture(Self.two)
        let tables = names(["t", "u"])
        var error = await failure { try await fixture.session.makePermanent(attempt: "first", tables: tables, margin: .zero) }
        #expect(error?.code == .fenceExpired)
        try await fixture.session.raise(Fence(["t", "u"]), patience: .seconds(10))
        error = await failure {
            try await fixture.session.makePermanent(attempt: "first", tables: tables, margin: .seconds(7_200))
        }
        #expect(error?.code == .fenceExpired)
        error = await failure { try await fixture.session.makePermanent(attempt: "other", tables: tables, margin: .zero) }
        #expect(error?.code == .fenceExpired)
        #expect(try await fixture.session.fence(on: tables).word == "leased first")
        try await fixture.session.makePermanent(attempt: "first", tables: tables, margin: .seconds(1_800))
        #expect(try await fixture.session.fence(on: tables) == .permanent(attempt: "first"))
        #expect(try fixture.database.integer("SELECT count(*) FROM _bridge_fence WHERE expires IS NULL") == 2)
        #expect(try attempt(fixture.database.application, "INSERT INTO t VALUES(3, 3)") != nil)
        // Done again, and raised again, it stays.
        try await fixture.session.makePermanent(attempt: "first", tables: tables, margin: .seconds(7_200))
        try await fixture.session.raise(Fence(["t", "u"]), patience: .seconds(10))
        #expect(try await fixture.session.fence(on: tables) == .permanent(attempt: "first"))
        await fixture.close()
    }

    @Test("C2 C20 another attempt's fence is refused and left as it is; the attempt's own is kept with the new expiry")
    func attempts() async throws {
        let fixture = try await CutoverFixture(Self.two)
        try await fixture.session.raise(Fence(["t"], lease: .seconds(60)), patience: .seconds(10))
        let first = try #require(try await fixture.session.fence(on: names(["t"])).remaining)
        #expect(first <= .seconds(60))
        let before = try fixture.schema()
        for (session, attempt) in [(fixture.session, "second"), (try await fixture.another(migration: "other"), "first")] {
            let error = await failure { try await session.raise(Fence(["t", "u"], attempt: attempt), patience: .seconds(10)) }
            #expect(error?.code == .fenceForeign)
            #expect(error?.value(.migration) == "shop" && error?.value(.table) == "t")
        }
        #expect(try fixture.schema() == before)
        #expect(try attempt(fixture.database.application, "INSERT INTO u VALUES(1)") == nil)
        #expect(try await fixture.session.fence(on: names(["t", "u"])).word == "mixed: t is fenced, u is not")
        #expect(try await fixture.another(migration: "other").fence(on: names(["t"])).word == "mixed: t is fenced by the migration shop")
        try await fixture.session.raise(Fence(["t", "u"]), patience: .seconds(10))
        let second = try #require(try await fixture.session.fence(on: names(["T", "u"])).remaining)
        #expect(second > .seconds(60))
        // Only the attempt's own is removed; nil is any of this migration.
        try await fixture.session.removeFence(attempt: "second", tables: names(["t", "u"]))
        try await fixture.another(migration: "other").removeFence(attempt: nil, tables: names(["t", "u"]))
        #expect(try await fixture.session.fence(on: names(["t", "u"])).word == "leased first")
        try await fixture.session.removeFence(attempt: "first", tables: names(["u"]))
        #expect(try attempt(fixture.database.application, "INSERT INTO u VALUES(2)") == nil)
        #expect(try attempt(fixture.database.application, "INSERT INTO t VALUES(2, 2)") != nil)
        try await fixture.session.removeFence(attempt: nil, tables: names(["t", "u"]))
        try await fixture.session.removeFence(attempt: nil, tables: names(["t", "u"]))
        #expect(try await fixture.session.fence(on: names(["t", "u"])) == .none)
        #expect(try attempt(fixture.database.application, "INSERT INTO t VALUES(2, 2)") == nil)
        await fixture.close()
    }

    @Test("C4 tables that no trigger can guard are refused by name, and then nothing is fenced")
    func unfenceable() async throws {
        let fixture = try await CutoverFixture(
            Self.two + "CREATE VIEW v AS SELECT * FROM t; CREATE VIRTUAL TABLE f USING fts5(x); CREATE TABLE _bridge_own(a);")
        let before = try fixture.schema()
        for (name, word) in [
            ("v", "view"), ("f", "virtual"), ("f_content", "inside of a virtual"), ("missing", "no such table"),
            ("_bridge_own", "belongs"), ("sqlite_master", "belongs"),
        ] {
            let error = await failure { try await fixture.session.raise(Fence(["t", name]), patience: .seconds(10)) }
            #expect(error?.code == .sourceUnsupported && error?.value(.table) == name)
            #expect(error?.message.contains(word) == true, "\(error?.message ?? "")")
            let facts = try await fixture.session.facts(of: names(["t", name]))
            #expect(facts.unfenceable.keys.map(\.name) == [name])
        }
        #expect(try fixture.schema() == before)
        await fixture.close()
    }

    @Test("S14 C4 a writer with an older snapshot gets SQLITE_BUSY_SNAPSHOT and writes nothing")
    func olderSnapshot() async throws {
        let fixture = try await CutoverFixture(Self.two)
        let reader = try TestDatabase.open(fixture.database.path)
        #expect(try attempt(reader, "BEGIN; SELECT * FROM t") == nil)
        try await fixture.session.raise(Fence(["t", "u"]), patience: .seconds(10))
        let error = try #require(try attempt(reader, "INSERT INTO t VALUES(2, 2)"))
        #expect(error.extendedResultCode == .SQLITE_BUSY_SNAPSHOT)
        // It still reads what it saw; begun again, it meets the fence.
        #expect(try attempt(reader, "SELECT * FROM t; COMMIT; BEGIN; SELECT * FROM t") == nil)
        #expect(try attempt(reader, "INSERT INTO t VALUES(2, 2)")?.message?.hasPrefix("bridge fence: ") == true)
        try reader.close()
        await fixture.close()
    }

    @Test(
        "C3 a transaction that is open keeps the fence out: it names the process, changes nothing, and leaves the application its lock",
        arguments: [("WAL", "BEGIN IMMEDIATE; UPDATE t SET b = 2;"), ("DELETE", "BEGIN IMMEDIATE; UPDATE t SET b = 2;"), ("TRUNCATE", "BEGIN; SELECT * FROM t;")])
    func openTransaction(journalMode: String, begin: String) async throws {
        let fixture = try await CutoverFixture(Self.two, journalMode: journalMode)
        let before = try fixture.schema()
        // Another process, whose transaction ends when the pipe is closed.
        var ends: [Int32] = [0, 0]
        try #require(pipe(&ends) == 0)
        _ = fcntl(ends[1], F_SETFD, FD_CLOEXEC)
        let child = try ChildProcess(["sqlite3", "-cmd", ".timeout 10000", fixture.database.path], inputDescriptor: ends[0])
        Glibc.close(ends[0])
        let script = begin + " SELECT 'open';\n"
        _ = script.withCString { Glibc.write(ends[1], $0, strlen($0)) }
        try await waitUntil("an open transaction") { child.outputSoFar.contains("open") }
        let error = await failure { try await fixture.session.raise(Fence(["t", "u"]), patience: .milliseconds(600)) }
        #expect(error?.code == .serverBusy)
        #expect(error?.value(.processes) == "sqlite3 (\(child.processIdentifier))")
        let commit = "COMMIT; SELECT 'committed';\n"
        // The process goes on while the next attempt waits for it.
        async let raised: Void = fixture.session.raise(Fence(["t", "u"]), patience: .seconds(30))
        _ = commit.withCString { Glibc.write(ends[1], $0, strlen($0)) }
        try await raised
        Glibc.close(ends[1])
        let outcome = await child.wait()
        #expect(outcome.status == 0 && outcome.output.contains("committed"), "\(outcome.errors)")
        #expect(try fixture.database.integer("SELECT b FROM t") == (begin.contains("UPDATE") ? 2 : 1))
        #expect(try await fixture.session.fence(on: names(["t", "u"])).word == "leased first")
        try await fixture.session.removeAll()
        #expect(try fixture.schema() == before)
        await fixture.close()
    }

    @Test("C3 between its attempts the fence gives the lock back, so a writer that does not wait gets its turns")
    func givesWay() async throws {
        let fixture = try await CutoverFixture(Self.two, journalMode: "DELETE")
        let reader = try TestDatabase.open(fixture.database.path)
        #expect(try attempt(reader, "BEGIN; SELECT * FROM t") == nil)
        let impatient = try DatabaseQueue(path: fixture.database.path)
        // While an attempt waits for the reader to end, it holds the lock that a writer needs.
        async let raised: Void = fixture.session.raise(Fence(["t", "u"]), patience: .seconds(60))
        for _ in 0..<3 {
            try await waitUntil("an attempt") { try refusal(impatient, "DELETE FROM u WHERE 0") != nil }
            try await waitUntil("a turn") { try refusal(impatient, "DELETE FROM u WHERE 0") == nil }
        }
        #expect(try await fixture.another().fence(on: names(["t", "u"])) == .none)
        #expect(try attempt(reader, "COMMIT") == nil)
        try await raised
        #expect(try await fixture.session.fence(on: names(["t", "u"])).word == "leased first")
        try reader.close()
        try impatient.close()
        await fixture.close()
    }

    @Test("C1 C4 when the fence stands, nothing that any writer had acknowledged comes later", arguments: ["WAL", "TRUNCATE"])
    func writersRace(journalMode: String) async throws {
        let fixture = try await CutoverFixture(
            "CREATE TABLE t(a INTEGER PRIMARY KEY, w, n); CREATE INDEX i ON t(w, n)", journalMode: journalMode)
        let path = fixture.database.path
        let acknowledged = Acknowledged()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for writer in 0..<3 {
                group.addTask {
                    let connection = try TestDatabase.open(path)
                    try await BlockingWork().run {
                        var number = 0
                        // An end, should no fence ever stop it.
                        while number < 50_000 {
                            number += 1
                            let error = try attempt(connection, "BEGIN IMMEDIATE; INSERT INTO t(w, n) VALUES(\(writer), \(number)); COMMIT")
                            guard let error else {
                                acknowledged.numbers.withLock { $0[writer].append(number) }
                                continue
                            }
                            guard error.message?.hasPrefix("bridge fence: ") != true else { break }
                            _ = try attempt(connection, "ROLLBACK")
                        }
                    }
                    try connection.close()
                }
            }
            try await waitUntil("writers at work") { acknowledged.numbers.withLock { $0.allSatisfy { $0.count > 20 } } }
            try await fixture.session.raise(Fence(["t"]), patience: .seconds(30))
            let stood = try fixture.database.integer("SELECT count(*) FROM t")
            try await group.waitForAll()
            #expect(try fixture.database.integer("SELECT count(*) FROM t") == stood)
            #expect(acknowledged.numbers.withLock { $0.map(\.count).reduce(0, +) } == Int(stood))
        }
        await fixture.close()
    }

    // MARK: Kill

    @Test("C13 C20 what an older attempt's process does late undoes nothing of a newer one")
    func late() async throws {
        let fixture = try await CutoverFixture(Self.two)
        let tables = names(["t", "u"])
        var newer = Fence(["t", "u"], lease: nil)
        newer.epoch = 7
        try await fixture.session.raise(newer, patience: .seconds(10))
        try await fixture.session.removeFence(attempt: nil, through: 6, tables: tables)
        try await fixture.session.removeFence(attempt: "first", tables: tables)
        #expect(try await fixture.session.fence(on: tables) == .permanent(attempt: "first"))
        try await fixture.session.removeFence(attempt: nil, through: 7, tables: tables)
        #expect(try await fixture.session.fence(on: tables) == .none)
        try await fixture.session.publish([Route(service: "s", reads: "target", writes: "target", epoch: 7, publishedAt: .now)])
        for epoch in [6, 7] {
            var older = Fence(["t", "u"], lease: nil)
            older.epoch = Int64(epoch)
            let fence = older
            #expect(await failure { try await fixture.session.raise(fence, patience: .seconds(10)) }?.code == .leaseLost)
        }
        #expect(try refusal(fixture.database.application, "INSERT INTO t VALUES(5, 5)") == nil)
        await fixture.close()
    }

    @Test(
        "C25 S14 killed at any step of the fence, the next process finds it whole or not at all",
        arguments: ["cutover.before-commit", "cutover.after-commit"], [1, 2, 3])
    func killed(failpoint: String, passage: Int) async throws {
        let fixture = try await CutoverFixture(Self.two)
        await fixture.close()
        let (path, arms) = (fixture.database.path, "\(failpoint)=kill@\(passage)")
        await #expect(processExitsWith: .signal(SIGKILL)) { [arms = arms as String, path = path as String] in
            setenv("BRIDGE_FAILPOINTS", arms, 1)
            let session = try await SQLiteSource(path: path).openCutover(migration: "shop")
            try await session.raise(Fence(["t", "u"]), patience: .seconds(10))
            try await session.makePermanent(attempt: "first", tables: names(["t", "u"]), margin: .zero)
            try await session.removeFence(attempt: nil, tables: names(["t", "u"]))
        }
        let session = try await fixture.another()
        let done = passage - (failpoint == "cutover.after-commit" ? 0 : 1)
        let state = try await session.fence(on: names(["t", "u"])).word
        #expect(state == ["none", "leased first", "permanent first", "none"][done])
        for sql in ["INSERT INTO t VALUES(5, 5)", "INSERT INTO u VALUES(5)"] {
            #expect((try refusal(fixture.database.application, sql) == nil) == (state == "none"))
        }
        try await session.removeAll()
        #expect(try refusal(fixture.database.application, "INSERT INTO t VALUES(5, 5)") == nil)
        await session.close()
    }
}

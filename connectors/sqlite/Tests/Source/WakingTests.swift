import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgeSQLite

@Suite("SQLite capture: each way to learn of a commit serves alone")
struct WakingTests {
    private struct Waiting {
        let database: TestDatabase
        let session: SQLiteCaptureSession
        let buffer = RecordBuffer()

        init(_ waking: SQLiteCaptureSession.Waking) throws {
            database = try TestDatabase("CREATE TABLE t(a INTEGER PRIMARY KEY)")
            let link = forwardLink(["t"])
            let connection = try SQLiteConnection(path: database.path, access: .readWrite, busyTimeout: 5_000)
            let (nonce, position) = try CaptureInstaller(link).install(connection.database, replacingLeftovers: false)
            let opening = CaptureOpening(
                link: link, origin: CaptureOrigin(identity: ["epoch": nonce], position: position), path: database.path)
            session = SQLiteCaptureSession(
                path: database.path, link: link, claim: try opening.claim(connection.database, durable: position),
                waking: waking)
        }

        /// Whether a read that sleeps wakes with a commit that is made then.
        func wakes(_ key: Int) async throws -> Bool {
            buffer.removeAll()
            let before = session.waits.load(ordering: .relaxed)
            let waiting = Task { [session, buffer] in
                try await session.read(into: buffer, limit: 1 << 20, patience: .seconds(5))
            }
            try await eventually("the read sleeps") { session.waits.load(ordering: .relaxed) > before }
            try database.run("INSERT INTO t VALUES(\(key))")
            return try await waiting.value.rows == 1
        }
    }

    @Test("S7 notifications wake a waiting read without the poll behind them")
    func notifications() async throws {
        let waiting = try Waiting(SQLiteCaptureSession.Waking(notifies: true, polls: false))
        // A notification may come before its commit can be seen; the poll is there for that.
        var woken = 0
        for key in 1...6 where woken < 3 { woken += try await waiting.wakes(key) ? 1 : 0 }
        #expect(woken == 3)
        await waiting.session.close()
    }

    @Test("S7 where there are no notifications the poll wakes a waiting read, each time")
    func poll() async throws {
        let waiting = try Waiting(SQLiteCaptureSession.Waking(notifies: false, polls: true))
        for key in 1...5 { #expect(try await waiting.wakes(key)) }
        await waiting.session.close()
    }

    @Test("S7 without either, a waiting read sleeps on")
    func neither() async throws {
        let waiting = try Waiting(SQLiteCaptureSession.Waking(notifies: false, polls: false))
        let sleeping = Task { [session = waiting.session, buffer = waiting.buffer] in
            try await session.read(into: buffer, limit: 1 << 20, patience: .seconds(3_600))
        }
        try await eventually("the read sleeps") { waiting.session.waits.load(ordering: .relaxed) > 0 }
        try waiting.database.run("INSERT INTO t VALUES(1)")
        waiting.session.interrupt()
        #expect(try await sleeping.value.rows == 0)
        await waiting.session.close()
    }

    @Test("S7 looks behind a write begin soon, grow apart, and outlast a slow sync of the disk")
    func looks() {
        var rechecks = Rechecks()
        var pauses: [Int] = []
        while let pause = rechecks.next() { pauses.append(pause) }
        #expect(pauses.first == 40)
        #expect(zip(pauses, pauses.dropFirst()).allSatisfy { $0 * 2 == $1 })
        #expect(pauses.reduce(0, +) > 20_000)
        #expect(pauses.count < 10)
        #expect(rechecks.next() == nil)
    }

    @Test("S7 S8 a large transaction that is being written is not looked at for each of its writes, and its commit is soon")
    func looksDuringWrites() {
        var rechecks = Rechecks()
        for _ in 0..<3 {
            _ = rechecks.next()
            #expect(!rechecks.heedsWrites)
        }
        // Writes that came during a pause do not end it, and the next one is no shorter.
        for _ in 0..<100 {
            rechecks.noteWrite()
            #expect(rechecks.next() == 320)
            #expect(!rechecks.heedsWrites)
        }
        // Once they cease, a write ends a long pause.
        #expect(rechecks.next() == 640)
        #expect(rechecks.heedsWrites)
        while rechecks.next() != nil {}
        rechecks.noteWrite()
        #expect(rechecks.next() == 320)
    }
}

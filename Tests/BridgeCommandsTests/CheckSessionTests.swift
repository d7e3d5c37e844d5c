import BridgeConsistency
import BridgeCore
import BridgeTestSupport
import Foundation
import Synchronization
import Testing

@testable import BridgeCommands

/// Makes the procedure of a check out of a fake, and keeps what it was asked for.
private final class Procedure: Sendable {
    let check: FakeCheck
    private let asked = Mutex<(link: LinkDescription, options: CheckOptions)?>(nil)
    private let stopper = Mutex<(@Sendable () -> Void)?>(nil)
    private let place: CheckPlace

    init(_ place: CheckPlace, _ body: @escaping @Sendable (FakeCheck) async throws(BridgeError) -> CheckReport) {
        self.place = place
        check = FakeCheck(body)
    }

    func run(_ request: CheckSession.Request = .init()) async throws -> CheckProcedure.Outcome {
        let migration = try place.migration()
        let factory: ConsistencyCheckFactory = { link, options, _, _, _, _ throws(BridgeError) in
            self.asked.withLock { $0 = (link, options) }
            return self.check
        }
        let procedure = CheckProcedure(migration: migration, factory: factory, logger: place.logger)
        return try await procedure.run(request) { stop in self.stopper.withLock { $0 = stop } }
    }

    var options: CheckOptions? { asked.withLock { $0?.options } }
    func stop() { stopper.withLock { $0 }?() }
}

/// What a check that could not begin ended with.
private func refusal(_ place: CheckPlace, _ request: CheckSession.Request = .init()) async throws -> BridgeError? {
    let procedure = Procedure(place) { _ in Reports.clean() }
    do {
        _ = try await procedure.run(request)
        return nil
    } catch let error as BridgeError { return error }
}

@Suite("bridge check")
struct CheckSessionTests {
    @Test("K22 without a run the check keeps the link in sync, holds the directory, and is recorded")
    func alone() async throws {
        let place = try await CheckPlace.syncing()
        let directory = try place.migration().directory
        let lockHolder = Mutex<Int32?>(nil)
        let procedure = Procedure(place) { _ async throws(BridgeError) in
            lockHolder.withLock { $0 = DirectoryLock.holder(of: directory) }
            // A write that only the link can bring over.
            do throws(any Error) {
                try await place.sql("old.db", "INSERT INTO users VALUES (3, 'c')")
                try await waitUntil("the row is on the target") {
                    try await place.sql("new.db", "SELECT count(*) FROM users") == "3\n"
                }
            } catch { throw BridgeError(.internalFault, "\(error)") }
            return Reports.clean()
        }
        var request = CheckSession.Request()
        request.tables = ["users", "users"]
        request.mode = .sample
        request.equal = [.jsonSpacing]
        request.sampleRows = 7
        let outcome = try await procedure.run(request)
        #expect(outcome.error == nil)
        #expect(outcome.report == Reports.clean())
        #expect(lockHolder.withLock { $0 } == getpid())
        try await waitUntil("the lock is free") { DirectoryLock.holder(of: directory) == nil }
        #expect(try place.history.map(\.checkId) == [Reports.clean().checkId])
        let options = try #require(procedure.options)
        #expect(options.tables == [TableName(name: "users")])
        #expect(options.mode == .sample)
        #expect(options.throttle == 0.9)
        #expect(options.policies == [.jsonSpacing])
        #expect(options.sampleRows == 7)
        #expect(options.memory == CheckOptions.standardMemory)
        #expect(options.journalDirectory == place.folder.path("bridge-data/forward/journal"))
        #expect(options.stateDirectory == place.folder.path("bridge-data/forward/check"))

        let status = try object(try await place.succeeding("status", "--json"))
        let last = try #require(status["last_check"] as? [String: Any])
        #expect(last["verdict"] as? String == "consistent")
        #expect(last["mode"] as? String == "full")
        #expect(last["check_id"] as? String == Reports.clean().checkId)
        #expect(last["age_seconds"] is Double)
        #expect(try await place.succeeding("status").output.contains("last check  consistent, full"))
        let listed = try object(try await place.succeeding("check", "--history", "--json"))
        #expect((listed["checks"] as? [[String: Any]])?.first?["verdict"] as? String == "consistent")
        #expect(try await place.succeeding("check", "--history").output.contains(Reports.clean().checkId))
    }

    @Test("K22 beside a process that runs the migration the check only reads, and repairs nothing")
    func beside() async throws {
        let place = try await CheckPlace.syncing()
        let lock = try DirectoryLock(try place.migration().directory)
        defer { withExtendedLifetime(lock) {} }
        let procedure = Procedure(place) { _ in Reports.fiveFaults() }
        let outcome = try await procedure.run()
        #expect(outcome.report.verdict == .inconsistent)
        #expect(try place.history.count == 1)
        // Had it run the link, the report of the last run would be this process's.
        #expect(RunReport.read(from: try place.migration().directory)?.process != getpid())
        var request = CheckSession.Request()
        request.repair = true
        let error = try await refusal(place, request)
        #expect(error?.code == .alreadyRunning)
        #expect(error?.exitStatus == .tryAgain)
        let command = try await Executable.run(["check", "--repair", "--json"], in: place.folder)
        #expect(command.status == 75)
        #expect(command.output.isEmpty)
    }

    @Test("a check is refused before the copy is done: 78 before it began, 75 while it goes on")
    func phases() async throws {
        let place = try await CheckPlace()
        let before = try await refusal(place)
        #expect(before?.exitStatus == .configuration)
        #expect(before?.hint.contains("bridge run") == true)
        let migration = try place.migration()
        let link = try await migration.open().description
        _ = try await migration.target.prepareLink(link)
        #expect(try await refusal(place)?.exitStatus == .configuration)
        try await migration.target.recordOrigin(link, CaptureOrigin(identity: ["a": "b"], position: .zero))
        await migration.close()
        let during = try await refusal(place)
        #expect(during?.exitStatus == .tryAgain)
        #expect(during?.hint.contains("bridge run --until-caught-up") == true)
        #expect(try place.history.isEmpty)
    }

    @Test("an unknown table is refused, and the nearest one is named")
    func tables() async throws {
        let place = try await CheckPlace.syncing()
        var request = CheckSession.Request()
        request.tables = ["user"]
        let error = try await refusal(place, request)
        #expect(error?.exitStatus == .usage)
        #expect(error?.message == "the migration has no table 'user'")
        #expect(error?.hint == "write --table users")
        let outcome = try await Executable.run(["check", "--table", "oders"], in: place.folder)
        #expect(outcome.status == 64)
        #expect(outcome.errors.contains("try: write --table orders"))
        request.tables = ["something_else"]
        #expect(try await refusal(place, request)?.hint == "bridge config lists the tables")
    }

    @Test("a table's name goes with or without its schema, and an ambiguous one is refused")
    func selection() throws {
        let link = LinkDescription(
            migration: "m", direction: .forward,
            mappings: [("a", "t"), ("b", "t"), ("b", "u")].map {
                TableMapping(source: TableName(schema: $0, name: $1), target: TableName(schema: $0, name: $1))
            }, form: .native)
        #expect(try CheckSelection.tables([], in: link) == nil)
        #expect(try CheckSelection.tables(["u", "a.t", "b.u"], in: link)?.map(\.description) == ["a.t", "b.u"])
        for (name, hint) in [("t", "write one of: a.t, b.t"), ("b.v", "write --table b.t")] {
            let error = failure { () throws(BridgeError) in _ = try CheckSelection.tables([name], in: link) }
            #expect(error?.exitStatus == .usage)
            #expect(error?.hint == hint)
        }
    }

    @Test("K18 a check that is stopped ends with 130, leaves no verdict, and lets go of the directory")
    func stopped() async throws {
        let place = try await CheckPlace.syncing()
        let procedure = Procedure(place) { check async throws(BridgeError) in try await check.waitForStop() }
        async let running = procedure.run()
        try await waitUntil("the check runs") { procedure.check.isRunning }
        procedure.stop()
        let outcome = try await running
        #expect(outcome.error?.exitStatus == .interrupted)
        #expect(outcome.report.verdict == .error)
        #expect(outcome.report.exitStatus == .interrupted)
        #expect(try place.history.isEmpty)
        let directory = try place.migration().directory
        try await waitUntil("the lock is free") { DirectoryLock.holder(of: directory) == nil }
        let validator = try JSONSchemaValidator(CheckReportSchema.text)
        #expect(try validator.problems(outcome.report.json.pretty) == [])
    }

    @Test("K22 what stopped a check is its exit status, and a report with the verdict error")
    func failed() async throws {
        let place = try await CheckPlace.syncing()
        let procedure = Procedure(place) { _ throws(BridgeError) in throw BridgeError(.slotBlocked, "somebody holds it up") }
        let outcome = try await procedure.run()
        #expect(outcome.error?.code == .slotBlocked)
        #expect(outcome.report.exitStatus == .tryAgain)
        #expect(outcome.report.errors.map(\.code) == ["slot_blocked"])
        let entry = try #require(try place.history.first)
        #expect(entry.report?.verdict == .error)
        #expect(entry.report?.gate.isOpen == false)
    }

    @Test("K22 a link that fails stops the check that rests on it, and says why")
    func linkFails() async throws {
        let place = try await CheckPlace.syncing()
        try FileManager.default.removeItem(atPath: place.folder.path("bridge-data"))
        let procedure = Procedure(place) { check async throws(BridgeError) in try await check.waitForStop() }
        let outcome = try await procedure.run()
        #expect(outcome.error?.code == .journalMissing)
        #expect(!procedure.check.isRunning)
        #expect(try place.history.first?.report?.errors.map(\.code) == ["journal_missing"])
    }

    @Test("K22 a verdict that cannot be recorded is not passed off as one that was")
    func unrecorded() async throws {
        let place = try await CheckPlace.syncing()
        try place.folder.write("bridge-data/checks", "in the way")
        let outcome = try await Procedure(place) { _ in Reports.clean() }.run()
        #expect(outcome.report.verdict == .consistent)
        #expect(outcome.error?.exitStatus == .inputOutput)
    }

    @Test(
        "a wrong command line exits with 64",
        arguments: [
            ["--mode", "fence"], ["--samples", "-1"], ["--samples", "10001"], ["--history", "--repair"],
            ["--schema", "--mode", "full"], ["--history", "--schema"], ["--repair", "--mode", "sample"],
            ["--history", "--table", "users"],
        ])
    func usage(_ arguments: [String]) async throws {
        let outcome = try await Executable.run(["check"] + arguments)
        #expect(outcome.status == 64, "\(outcome.errors)")
        #expect(outcome.output.isEmpty)
        #expect(outcome.errors.contains("try: bridge check --help"))
    }

    @Test("K8 an unknown policy is refused with the nearest one")
    func unknownPolicy() async throws {
        let place = try await CheckPlace.syncing()
        let outcome = try await Executable.run(["check", "--equal", "numeric_scal"], in: place.folder)
        #expect(outcome.status == 64)
        #expect(outcome.errors.contains("did you mean numeric_scale?"), "\(outcome.errors)")
    }

    @Test("a file for differences that cannot be is refused before anything else; no configuration is 78")
    func files() async throws {
        let place = try await CheckPlace()
        for file in ["none/x.json", "."] {
            let outcome = try await Executable.run(["check", "--differences", file], in: place.folder)
            #expect(outcome.status == 64)
            #expect(outcome.errors.contains("the differences cannot be written there"))
        }
        let empty = try TemporaryDirectory(prefix: "empty")
        for arguments in [["check"], ["check", "--history"]] {
            #expect(try await Executable.run(arguments, in: empty).status == 78)
        }
        #expect(try await place.succeeding("check", "--history").output == "no check was made yet\n")
    }
}

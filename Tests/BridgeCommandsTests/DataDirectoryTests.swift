import BridgeCore
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands

@Suite("Data directory")
struct DataDirectoryTests {
    @Test("only one process may run a migration, and the second says who does")
    func lock() async throws {
        let folder = try TemporaryDirectory(prefix: "lock")
        let directory = DataDirectory(folder.path)
        var first: DirectoryLock? = try DirectoryLock(directory)
        #expect(DirectoryLock.holder(of: directory) == getpid())
        let error = failure { () throws(BridgeError) in _ = try DirectoryLock(directory) }
        #expect(error?.code == .alreadyRunning)
        #expect(error?.exitStatus == .tryAgain)
        #expect(error?.context.contains(.init(.processes, "\(getpid())")) == true)
        withExtendedLifetime(first) {}
        first = nil
        // A child that another test starts at this moment shares the file until it runs its program.
        try await waitUntil("the lock is free") { DirectoryLock.holder(of: directory) == nil }
        _ = try DirectoryLock(directory)
    }

    @Test("the data directory is its owner's alone")
    func permissions() throws {
        let folder = try TemporaryDirectory(prefix: "data")
        let directory = DataDirectory(folder.path("a/b"))
        try directory.create()
        try directory.create()
        let attributes = try FileManager.default.attributesOfItem(atPath: directory.path)
        #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == 0o700)
    }

    @Test("a data directory that cannot be made is named")
    func unusable() throws {
        let folder = try TemporaryDirectory(prefix: "data")
        try folder.write("file", "")
        let error = failure { () throws(BridgeError) in try DataDirectory(folder.path("file/data")).create() }
        #expect(error?.exitStatus == .inputOutput)
    }

    @Test("a report comes back as it was written; a stale, foreign or broken one is known as such")
    func report() throws {
        let folder = try TemporaryDirectory(prefix: "report")
        let directory = DataDirectory(folder.path)
        #expect(RunReport.read(from: directory) == nil)
        var report = RunReport(
            migration: "m", direction: "forward", process: 4711, startedAt: 1, updatedAt: 2, state: .running,
            phase: "copying")
        report.tables = [.init(name: "public.users", rowsDone: 5, rowsEstimated: nil, state: "loading")]
        report.lagSeconds = 0.25
        report.copyEtaSeconds = 4
        try report.write(to: directory)
        #expect(RunReport.read(from: directory) == report)
        #expect(RunReport.read(from: directory, direction: .reverse) == nil)
        #expect(report.currentState(lockHolder: 4711) == .running)
        #expect(report.currentState(lockHolder: 4712) == .stopped)
        #expect(report.currentState(lockHolder: nil) == .stopped)
        try folder.write("status.json", "{\"format_version\": 99}")
        #expect(RunReport.read(from: directory) == nil)
        try folder.write("status.json", "not JSON")
        #expect(RunReport.read(from: directory) == nil)
    }
}

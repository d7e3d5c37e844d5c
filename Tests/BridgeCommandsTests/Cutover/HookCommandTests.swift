import BridgeCore
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands

@Suite struct HookCommandTests {
    @Test("C15 a hook is told attempt, epoch, step and direction; what it says is its exit status")
    func environment() throws {
        let folder = try TemporaryDirectory()
        let hook = HookCommand(
            command: "echo \"$BRIDGE_ATTEMPT $BRIDGE_STEP\" > '\(folder.path("told"))'", timeout: .seconds(10),
            environment: ["BRIDGE_ATTEMPT": "a'b", "BRIDGE_STEP": "pause_clients"])
        try hook.run()
        #expect(try String(contentsOfFile: folder.path("told"), encoding: .utf8) == "a'b pause_clients\n")
        for (command, word) in [("exit 3", "status was 3"), ("kill -9 $$", "signal 9"), ("/does/not/exist", "status was 127")] {
            let error = #expect(throws: BridgeError.self) { try HookCommand(command: command, timeout: .seconds(10), environment: [:]).run() }
            #expect(error?.code == .hookFailed && error?.message.contains(word) == true, "\(command): \(error?.message ?? "")")
        }
    }

    @Test("C15 a hook that takes too long is asked to end, then ended, with all that it started")
    func timeout() throws {
        let folder = try TemporaryDirectory()
        let (ended, child) = (folder.path("ended"), folder.path("child"))
        let polite = HookCommand(
            command: "trap 'echo > \"\(ended)\"; exit 1' TERM; sleep 100 & echo $! > '\(child)'; wait", timeout: .milliseconds(300),
            environment: [:])
        #expect(throws: BridgeError.self) { try polite.run() }
        #expect(FileManager.default.fileExists(atPath: ended))
        let process = try #require(
            pid_t(String(contentsOfFile: child, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)))
        // Gone, or a zombie that nobody has waited for.
        let state = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
        #expect(state.map { $0.contains(") Z ") } ?? true)
        let deaf = HookCommand(command: "trap '' TERM; while :; do sleep 0.1; done", timeout: .milliseconds(100), environment: [:])
        #expect(throws: BridgeError.self) { try deaf.run() }
    }
}

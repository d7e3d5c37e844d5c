import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands

@Suite("Command line")
struct CommandLineTests {
    @Test(
        "a wrong command line exits with 64 and says what to try",
        arguments: [
            (["nonsense"], "bridge --help"), (["run", "--bad"], "bridge run --help"), (["init"], "bridge init --help"),
            (["journal", "dump", "--format", "xml"], "bridge journal dump --help"),
            (["config", "--log-level", "loud"], "bridge --help"),
            (["demo", "--seconds", "0"], "bridge demo --help"),
            (["journal", "dump", "--json", "--format", "debezium"], "bridge journal dump --help"),
            (["init", "sqlite:a", "sqlite:b", "--migration", "Bad Name"], "bridge init --help"),
        ])
    func usage(_ arguments: [String], _ hint: String) async throws {
        let outcome = try await Executable.run(arguments)
        #expect(outcome.status == 64)
        #expect(outcome.output.isEmpty)
        let lines = outcome.errors.split(separator: "\n")
        #expect(lines.first?.hasPrefix("error: ") == true, "\(outcome.errors)")
        #expect(lines.last == "try: \(hint)", "\(outcome.errors)")
        #expect(lines.count == 2)
    }

    @Test(
        "help and version go to stdout with status 0",
        arguments: [["--help"], ["--version"], ["help", "run"], ["run", "-h"], []])
    func help(_ arguments: [String]) async throws {
        let outcome = try await Executable.run(arguments)
        #expect(outcome.status == 0)
        #expect(outcome.errors.isEmpty)
        #expect(!outcome.output.isEmpty)
    }

    @Test("help exit-codes prints the table of the contract")
    func exitCodes() async throws {
        let text = try await Executable.run(["help", "exit-codes"])
        #expect(text.status == 0)
        let statuses = text.output.split(separator: "\n").dropFirst().compactMap { Int($0.split(separator: " ")[0]) }
        #expect(statuses == [0, 1, 2, 64, 65, 69, 70, 74, 75, 77, 78, 130])
        let json = try object(try await Executable.run(["help", "exit-codes", "--json"]))
        #expect(json["format_version"] as? Int == 1)
        #expect((json["exit_codes"] as? [Any])?.count == 12)
    }

    @Test("completions are there for the three shells", arguments: ["bash", "zsh", "fish"])
    func completions(_ shell: String) async throws {
        let outcome = try await Executable.run(["--generate-completion-script", shell])
        #expect(outcome.status == 0)
        #expect(outcome.output.contains("preflight"))
        #expect(!outcome.output.contains("demo-writer"))
    }

    @Test(
        "a missing configuration exits with 78",
        arguments: [
            ["run"], ["status"], ["preflight"], ["schema", "show"], ["schema", "apply"], ["config"],
            ["journal", "list"],
        ])
    func missingFile(_ arguments: [String]) async throws {
        let folder = try TemporaryDirectory(prefix: "empty")
        let outcome = try await Executable.run(arguments, in: folder)
        #expect(outcome.status == 78)
        #expect(outcome.errors.contains("error: there is no bridge.yaml here"))
        #expect(outcome.errors.contains("try: bridge init"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
    }

    @Test("--config may stand before and behind the command, and goes before BRIDGE_CONFIG")
    func configFlag() async throws {
        let folder = try TemporaryDirectory(prefix: "config")
        for name in ["a", "b"] {
            try folder.write(
                "\(name).yaml",
                "migration: \(name)\nsource: sqlite:x.db\ntarget: sqlite:y.db\nservices: { app: { tables: [t] } }\n")
        }
        for arguments in [["--config", "a.yaml", "config", "--json"], ["config", "--config", "a.yaml", "--json"]] {
            let outcome = try await Executable.run(arguments, in: folder, environment: ["BRIDGE_CONFIG": "b.yaml"])
            #expect(try object(outcome)["migration"] as? String == "a")
        }
        let outcome = try await Executable.run(
            ["config", "--json"], in: folder, environment: ["BRIDGE_CONFIG": "b.yaml"])
        #expect(try object(outcome)["migration"] as? String == "b")
    }

    @Test("a journal that is not there is named")
    func noJournal() async throws {
        let folder = try TemporaryDirectory(prefix: "journal")
        for verb in ["list", "verify", "dump"] {
            let outcome = try await Executable.run(["journal", verb, "--directory", folder.path("none")])
            #expect(outcome.status == 65)
            #expect(outcome.errors.contains("there is no journal"))
        }
    }
}

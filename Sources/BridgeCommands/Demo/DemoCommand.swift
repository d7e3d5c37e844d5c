import ArgumentParser
import BridgeCore
import Foundation

struct DemoCommand: BridgeSubcommand {
    static let configuration = CommandConfiguration(
        commandName: "demo", abstract: "Show it at work on a small shop, in a temporary folder.",
        discussion: """
            Makes two temporary databases and a shop with several tables in the first one, and starts writers in a \
            process of their own, which insert, update, delete and replace rows all along, at a bounded rate. Then it \
            copies the shop into the second database while they write, keeps it in sync, and moves the application \
            over: reads, then writes, back, and over again. The writers follow the routing file, and the pauses are \
            printed. It stops the writers, completes the migration, compares the two databases itself, row by row, \
            and accounts for each transaction that was acknowledged to the writers. It exits with 0 if all of that \
            holds and with 1 if it does not.

            With --postgres the databases are two PostgreSQL clusters that it makes with the PostgreSQL server that \
            is installed here, on Unix sockets only, and removes at the end.
            """)
    static let logLevel = LogLevel.warning

    @OptionGroup var global: GlobalOptions
    @Flag(help: "Use two temporary PostgreSQL clusters in place of SQLite files.") var postgres = false
    @Option(help: ArgumentHelp("How long it keeps both in sync before the application moves.", valueName: "seconds")) var seconds = 15
    @Flag(help: "Keep the folder with databases, journal and bridge.yaml.") var keep = false
    @Option(
        help: ArgumentHelp("Makes the writers' choices; printed so that a run can be repeated.", valueName: "number"))
    var seed: UInt64?
    @OptionGroup var json: JSONOption

    func validate() throws {
        guard (1...86_400).contains(seconds) else { throw ValidationError("--seconds must be from 1 to 86400") }
    }

    func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
        signal(SIGPIPE, SIG_IGN)
        let stage: any DemoStage = postgres ? try PostgresDemoStage() : try SQLiteDemoStage()
        let demo = Demo(
            stage: stage, seconds: seconds, seed: seed ?? UInt64.random(in: 1...999_999), context: context,
            isQuiet: json.isOn)
        let isKept = keep
        SignalWatcher.shared.watch(graceful: { demo.interrupt() }) {
            stage.tearDown()
            if !isKept { TemporaryFolder.remove(stage.folder) }
        }
        defer {
            stage.tearDown()
            if isKept {
                Console.shared.err("kept: \(stage.folder)")
            } else {
                TemporaryFolder.remove(stage.folder)
            }
        }
        let outcome = try await demo.run()
        if json.isOn { Console.shared.out(outcome.json.pretty) }
        return outcome.comparison.isEqual && outcome.isAccountedFor ? .done : .inconsistent
    }
}

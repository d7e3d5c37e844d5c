import ArgumentParser
import BridgeCore
import Foundation

struct StatusCommand: BridgeSubcommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Say where the migration stands.",
        discussion: """
            Puts together what both databases, the journal and the last run say. A database that cannot be reached is \
            named, and the rest is shown; the exit status is 69 only when nothing at all can be told.
            """)

    @OptionGroup var global: GlobalOptions
    @Flag(help: "Go on showing it, once a second, until interrupted.")
    var watch = false
    @OptionGroup var json: JSONOption

    func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
        let configuration = try context.configuration()
        guard watch else {
            let status = try await MigrationStatus.collect(configuration, context.registry)
            context.report(json: json, status.json, status.lines(context.style))
            return .done
        }
        let clearsScreen = !json.isOn && isatty(STDOUT_FILENO) == 1
        SignalWatcher.shared.watch { _exit(0) }
        while true {
            let status = try await MigrationStatus.collect(configuration, context.registry)
            if json.isOn {
                Console.shared.out(status.json.compact)
            } else {
                let text = status.lines(context.style).joined(separator: "\n")
                Console.shared.out(clearsScreen ? "\u{1B}[H\u{1B}[2J\(text)" : text + "\n")
            }
            try? await Task.sleep(for: .seconds(1))
        }
    }
}
